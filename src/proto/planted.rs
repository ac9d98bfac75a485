//! Laws that a test may break, one at a time, to prove that the checks would notice.
//!
//! In a release nothing of this exists: without the feature `planted` (or `cfg(test)`) [`broken`] is a constant `false`.

/// A law, or a rule that follows from one, that can be broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Law {
    /// Law 1: bytes stay until they were acked *and* written to the live out-leg.
    TrimAfterWrite,
    /// Law 2: only an explicit FIN ends a direction, never the end of a QUIC stream.
    ExplicitFin,
    /// Law 3: acks go out on a leg only after its `AttachOk`.
    AckAfterAttachOk,
    /// Law 4: epochs are paths.
    PathEpochs,
    /// Law 5: a relay that reaches no candidate of its next says `NoPath`.
    NoPath,
    /// Completion: relays free a flow when they are told that it is done, not by their own idea.
    FreeOnDone,
    /// Law 2: bytes that were received before are dropped.
    Dedup,
    /// Law 2: a leg that begins beyond what was received is refused.
    NoGap,
    /// Law 3: a leg begins where its header says.
    ExactResume,
    /// Law 4: only a greater epoch is accepted.
    GreaterEpoch,
    /// Law 2: a FIN is told again on each new leg.
    FinRepeated,
    /// Law 2: a FIN that comes after the last byte counts as received.
    FinCounted,
    /// Law 1: a short chunk that grows moves no cursor.
    MergedCursor,
    /// Law 1: chunks that are let go of move the cursor.
    ShiftedCursor,
    /// An ack on a leg is about the direction that feeds it.
    AckDirection,
    /// A sink acks what its application took, not what arrived.
    AckWhenTaken,
    /// A node stops reading while a lane is full.
    Window,
    /// A target remembers the flows that ended.
    Tombstone,
    /// A tombstone's DONE comes with its control message.
    DoneExplained,
    /// A node that lost its prev waits for another.
    OrphanTimeout,
    /// A close is noticed also while nothing is read.
    CloseNoticed,
    /// A leg that was replaced is closed.
    ReplacedLegClosed,
    /// A next hop that is lost is dialled again.
    Redial,
    /// A newer record comes with its own tags.
    TagsOfTheirRecord,
    /// Records are passed on only to who is attached under the path of their tags.
    PathOfTags,
    /// A relay without keys judges nobody.
    KeysAwaited,
    /// A backup is not the primary.
    DistinctBackup,
    /// No relay is primary of two hops.
    DistinctPrimary,
    /// A plan names nobody whom its asker excluded.
    ExcludeHeeded,
    /// A heartbeat renews a lease.
    RenewedLease,
    /// A reader that is slow is not a relay that swallows.
    ReaderHeeded,
    /// What arises from payload is acted on at once.
    PayloadHeeded,
    /// Who is restored has the grace of a lease.
    RestoredGrace,
    /// A session's packets take the leg that a repair has opened, both ways.
    WayRepaired,
}

impl Law {
    /// Those that bare splices can break: the first of all.
    pub const OF_SPLICES: [Self; 17] = *Self::PLANTED.first_chunk().expect("there are more");

    /// All of them: the simulator's swarm catches each.
    pub const PLANTED: [Self; 34] = [
        Self::TrimAfterWrite,
        Self::ExplicitFin,
        Self::AckAfterAttachOk,
        Self::PathEpochs,
        Self::NoPath,
        Self::FreeOnDone,
        Self::Dedup,
        Self::NoGap,
        Self::ExactResume,
        Self::GreaterEpoch,
        Self::FinRepeated,
        Self::FinCounted,
        Self::MergedCursor,
        Self::ShiftedCursor,
        Self::AckDirection,
        Self::AckWhenTaken,
        Self::Window,
        Self::Tombstone,
        Self::DoneExplained,
        Self::OrphanTimeout,
        Self::CloseNoticed,
        Self::ReplacedLegClosed,
        Self::Redial,
        Self::TagsOfTheirRecord,
        Self::PathOfTags,
        Self::KeysAwaited,
        Self::DistinctBackup,
        Self::DistinctPrimary,
        Self::ExcludeHeeded,
        Self::RenewedLease,
        Self::ReaderHeeded,
        Self::PayloadHeeded,
        Self::RestoredGrace,
        Self::WayRepaired,
    ];
}

#[cfg(any(test, feature = "planted"))]
mod switch {
    use super::Law;
    use std::cell::Cell;

    thread_local! {
        static BROKEN: Cell<Option<Law>> = const { Cell::new(None) };
    }

    /// Breaks one law on this thread, or none.
    pub fn break_law(law: Option<Law>) {
        BROKEN.set(law);
    }

    /// Whether `law` is broken on this thread.
    #[must_use]
    pub fn broken(law: Law) -> bool {
        BROKEN.get() == Some(law)
    }
}
#[cfg(any(test, feature = "planted"))]
pub use switch::{break_law, broken};

/// Whether `law` is broken: never.
#[cfg(not(any(test, feature = "planted")))]
#[must_use]
pub const fn broken(_: Law) -> bool {
    false
}
