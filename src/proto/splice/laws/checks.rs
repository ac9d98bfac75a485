//! What must be true after every step, and at the end.

use super::tally::Event;
use super::world::{ORIGIN, World};
use crate::proto::lane::Lane;
use crate::proto::splice::Direction;
use std::fmt;

/// What was found to be broken, by which check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Check {
    /// The applications take exactly what was sent: each byte, in order, once, and the end.
    Delivered,
    /// Law 1: a lane holds the bytes from the lower of ack and cursor to what was received, and the right ones.
    Holds,
    /// Nobody has received, or knows the end of, what was not sent.
    Sent,
    /// Acks are true: none is beyond what the application took.
    TrueAcks,
    /// Law 4: a node's epoch only grows.
    EpochGrows,
    /// Nobody in an honest world is accused of a violation.
    Honest,
    /// The target never forgets the flow before it is done, and it is done only when everything is.
    Kept,
    /// No assertion fails.
    Panic,
    /// Without more faults everything is delivered, without help from the origin.
    Stall,
    /// The same, though nodes go on dialling.
    Livelock,
    /// Paths don't go on replacing each other while nothing is to be sent.
    StealWar,
    /// The target learns that all was acked.
    TargetLearns,
    /// Everything is delivered at the latest when the origin rebuilds.
    Undelivered,
    /// The origin is told that the flow is done.
    OriginLearns,
    /// No relay keeps the flow for ever.
    Leak,
}

impl Check {
    /// As tables show it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Delivered => "a wrong byte or end is delivered",
            Self::Holds => "a lane does not hold what it must",
            Self::Sent => "received what was never sent",
            Self::TrueAcks => "an ack is not true",
            Self::EpochGrows => "an epoch does not grow",
            Self::Honest => "an honest node is accused",
            Self::Kept => "the flow is lost",
            Self::Panic => "an assertion fails",
            Self::Stall => "stalls without an origin rebuild",
            Self::Livelock => "dials for ever without an origin rebuild",
            Self::StealWar => "paths replace each other for ever",
            Self::TargetLearns => "the target never learns that all was acked",
            Self::Undelivered => "not delivered, even by origin rebuilds",
            Self::OriginLearns => "the origin never learns that the flow is done",
            Self::Leak => "a relay keeps the flow for ever",
        }
    }
}

/// A check that failed, and what exactly.
#[derive(Clone, Debug)]
pub(super) struct Finding {
    pub(super) check: Check,
    pub(super) detail: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.check.name(), self.detail)
    }
}

/// The byte at an offset: so that any that is lost, doubled or out of order shows.
pub(super) fn value(direction: Direction, offset: u64) -> u8 {
    let byte = u8::try_from(offset * 7 % 251).expect("less than 251");
    match direction {
        Direction::Forward => byte,
        Direction::Backward => !byte,
    }
}

impl World {
    /// Checks the node that took the last step.
    pub(super) fn check(&mut self, node: usize) {
        let Some(splice) = &self.nodes[node].splice else { return };
        let mut found = None;
        let mut ahead = false;
        for direction in Direction::BOTH {
            let lane = splice.lane(direction);
            ahead |= lane.acked() > lane.received();
            found = found.or_else(|| self.check_facts(lane, direction)).or_else(|| check_lane(lane, direction));
        }
        if ahead {
            self.count(Event::AckAhead);
        }
        if node == ORIGIN && splice_is_complete(self) && self.complete_since.is_none() {
            self.complete_since = Some(self.now);
        }
        if let Some(Finding { check, detail }) = found {
            self.find(check, format_args!("{}: {detail}", self.name(node)));
        }
    }

    fn check_facts(&self, lane: &Lane, direction: Direction) -> Option<Finding> {
        let stream = self.stream(direction);
        let found = |check, detail| Some(Finding { check, detail });
        if lane.acked() > stream.taken_offset() {
            return found(Check::TrueAcks, format!("{direction:?} {} acked, {} taken", lane.acked(), stream.taken_offset()));
        }
        if lane.received() > stream.sent_offset() {
            return found(Check::Sent, format!("{direction:?} {} received, {} sent", lane.received(), stream.sent_offset()));
        }
        if lane.fin().is_some_and(|fin| !stream.finished || fin != stream.size) {
            return found(Check::Sent, format!("{direction:?} ends at {:?}, not {}", lane.fin(), stream.size));
        }
        None
    }
}

fn splice_is_complete(world: &World) -> bool {
    world.nodes[ORIGIN].splice.as_ref().is_some_and(super::super::Splice::is_complete)
}

/// Law 1, as far as it can be seen from outside: how much is held, and what is still to be written.
fn check_lane(lane: &Lane, direction: Direction) -> Option<Finding> {
    let data = |offset: u64| lane.fin().map_or(offset, |fin| offset.min(fin));
    let cursor = lane.written();
    let base = lane.acked().min(cursor.unwrap_or(u64::MAX)).min(lane.received());
    let held = data(lane.received()) - data(base);
    let found = |detail| Some(Finding { check: Check::Holds, detail });
    if lane.held() != held {
        return found(format!("{direction:?} {} bytes held, not {held}", lane.held()));
    }
    let Some(cursor) = cursor else { return None };
    let front: Vec<u8> = lane.front().flatten().collect();
    let expected: Vec<u8> = (cursor..data(lane.received())).map(|offset| value(direction, offset)).collect();
    if front != expected {
        return found(format!("{direction:?} from {cursor}: {front:?}, not {expected:?}"));
    }
    None
}
