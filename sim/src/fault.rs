//! What may be done to a network, and to whom.

use crate::network::NodeIndex;
use crate::node::{Gray, Lie};
use std::fmt;
use std::time::Duration;

/// Whom a fault hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Aim {
    /// This node.
    At(NodeIndex),
    /// Whoever carries this flow at this hop then.
    Hop { flow: usize, hop: u8 },
}

/// A fault; what ends it belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Crash, then restart.
    Crash(Aim),
    /// Freeze, then thaw.
    Freeze(Aim),
    /// Everything it does takes it that long.
    Slow(Aim, Duration),
    /// It leaves in good order, and comes back.
    Drain(Aim),
    /// It heartbeats and answers, and carries no payload in some way; then it does again.
    Gray(Aim, Gray),
    /// It says what can't be true.
    Lie(Aim, Lie),
    /// All streams of its legs end without a code.
    EndStreams(Aim),
    /// Partition, then heal: no way from these to those, and back if `both`.
    Partition { from: Vec<NodeIndex>, to: Vec<NodeIndex>, both: bool },
    /// Partition around one node, one way or both: 0 from it, 1 to it, 2 both.
    Isolate(Aim, u8),
    /// Hold, then release: what travels from these to those waits.
    Hold { from: Vec<NodeIndex>, to: Vec<NodeIndex> },
    /// All relays of a zone crash, and restart.
    ZoneOutage(u16),
    /// These relays join at once, and crash.
    FlashCrowd(Vec<NodeIndex>),
    /// The bootstrap crashes and restarts, with what it finds on its disk.
    Bootstrap(Found),
}

/// What a bootstrap finds on its disk when it starts again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Everything that it had stored.
    All,
    /// About half of that, drawn with this seed: the disk was full at times.
    Half(u64),
    /// What it had stored that long before it crashed: an older copy.
    Older(Duration),
    /// Nothing.
    Nothing,
}

/// A fault and its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ordeal {
    pub(crate) at: Duration,
    pub(crate) lasts: Duration,
    pub(crate) fault: Fault,
}

impl fmt::Display for Ordeal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |duration: Duration| duration.as_secs_f64() * 1000.0;
        write!(f, "at {:.1} ms for {:.1} ms: {:?}", ms(self.at), ms(self.lasts), self.fault)
    }
}
