//! The checks by name, and what one found.

use std::fmt;

/// What was found to be broken, by which check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Check {
    // ---- of a node, after each of its steps ----
    /// Law 1: a lane holds the bytes from the lower of ack and cursor to what was received, and the right ones.
    Holds,
    /// Law 1: acks are true facts, none beyond what the application took.
    TrueAcks,
    /// A lane takes no new bytes when it is full.
    Room,
    /// Law 2: nobody has received, or knows the end of, what was not sent.
    Sent,
    /// Law 3: no control message comes before its leg is known.
    TooEarly,
    /// Law 4: a node's epoch only grows, and has a counter for each dialer before it; who is outranked yields, nobody else.
    Epochs,
    /// Law 5: a relay finds no path only after several dials in a row that led nowhere.
    GaveUpEarly,
    /// A splice's legs are open, and they are what feeds its lanes and is fed by them.
    Legs,
    /// Where all are honest nobody is accused.
    Honest,

    // ---- of what the applications see ----
    /// Laws 1 and 2: they take exactly what was sent: each byte once, in order, and the end.
    Delivered,
    /// The flow is not lost, and it is done only when everything was delivered.
    Kept,
    /// No assertion fails.
    Panic,

    // ---- at the end, when there are no more faults ----
    /// Law 4: repairs settle while nothing is to be sent: paths don't replace each other for ever.
    StealWar,
    /// Law 5: nor do nodes dial for ever.
    Livelock,
    /// Everything is delivered without help by the origin.
    Stall,
    /// The target learns that everything it sent was acked.
    TargetLearns,
    /// With help by the origin everything is delivered in any case.
    Undelivered,
    /// The origin is told that the flow is done.
    OriginLearns,
    /// In the end no node holds the flow, and no leg is open.
    Leak,
}

impl Check {
    /// As tables show its failure.
    pub(super) const fn failure(self) -> &'static str {
        match self {
            Self::Holds => "a lane does not hold what it must",
            Self::TrueAcks => "an ack is not true",
            Self::Room => "a full lane took more",
            Self::Sent => "received what was never sent",
            Self::TooEarly => "a control message came before its leg was known",
            Self::Epochs => "an epoch is not a path, or does not grow",
            Self::GaveUpEarly => "a relay gave up too early",
            Self::Legs => "a splice has a leg that is closed, or not connected",
            Self::Honest => "an honest node is accused",
            Self::Delivered => "a wrong byte or end was delivered",
            Self::Kept => "the flow is lost",
            Self::Panic => "an assertion failed",
            Self::StealWar => "paths replace each other for ever",
            Self::Livelock => "nodes dial for ever",
            Self::Stall => "nothing moves any more",
            Self::TargetLearns => "the target never learns that all was acked",
            Self::Undelivered => "not delivered, whatever the origin does",
            Self::OriginLearns => "the origin never learns that the flow is done",
            Self::Leak => "a node keeps the flow, or a leg, for ever",
        }
    }
}

/// Which checks are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// All.
    All,
    /// Only those of what the applications see, and of the end: is a broken law felt?
    Felt,
}

impl Scope {
    pub(super) fn includes(self, check: Check) -> bool {
        self == Self::All || check >= Check::Delivered
    }
}

/// A check that failed, and what exactly was found.
#[derive(Clone, Debug)]
pub(super) struct Finding {
    pub(super) check: Check,
    pub(super) detail: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.check.failure(), self.detail)
    }
}
