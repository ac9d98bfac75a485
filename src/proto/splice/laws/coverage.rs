//! How often the rare things happened: a world in which they don't would prove nothing about them.

/// Something that happens at a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    Dial,
    DialFailed,
    Stale,
    Replaced,
    Outranked,
    Forgotten,
    GapInAnswer,
    NoPath,
    Moved,
    Overloaded,
    Doubt,
    StreamEnded,
    LinkLost,
    AckAhead,
    Tombstone,
    Replay,
    Left,
    Rebuild,
    Orphan,
}

impl Event {
    pub(super) const ALL: [(Self, &'static str); 19] = [
        (Self::Dial, "dials"),
        (Self::DialFailed, "dials that failed at once"),
        (Self::Stale, "attaches refused as stale"),
        (Self::Replaced, "legs replaced by a greater epoch"),
        (Self::Outranked, "relays freed because their path was outranked"),
        (Self::Forgotten, "relays that forgot what they held, to fit their prev"),
        (Self::GapInAnswer, "relays freed because next's answer left a gap"),
        (Self::NoPath, "relays that gave up: no path"),
        (Self::Moved, "relays freed because prev moved on"),
        (Self::Overloaded, "attaches refused for want of room"),
        (Self::Doubt, "relays that freed the flow in doubt"),
        (Self::StreamEnded, "streams that ended without a code"),
        (Self::LinkLost, "legs lost with their link"),
        (Self::AckAhead, "steps of relays that know acks beyond what they received"),
        (Self::Tombstone, "attaches answered by the tombstone"),
        (Self::Replay, "attaches replayed by somebody"),
        (Self::Left, "origins that lingered in vain"),
        (Self::Rebuild, "rebuilds by the origin after a stall"),
        (Self::Orphan, "nodes freed by their orphan timer"),
    ];
}

/// How often each [`Event`] happened.
#[derive(Clone, Copy, Default)]
pub(super) struct Coverage([u64; Event::ALL.len()]);

impl Coverage {
    pub(super) fn add(&mut self, event: Event) {
        self.0[event as usize] += 1;
    }

    pub(super) fn of(&self, event: Event) -> u64 {
        self.0[event as usize]
    }

    pub(super) fn add_all(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(sum, more)| *sum += more);
    }
}
