//! What a splice takes and gives: legs, directions, positions, limits, and what follows from an input.

use crate::epoch::Epoch;
use crate::frame::{AttachOk, CloseCode};
use crate::id::LinkId;

/// A leg at this node, unique in the node's life: its link, and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LegId(pub u64);

impl LegId {
    /// The leg that both ends of `link` call `number`.
    #[must_use]
    pub const fn new(link: LinkId, number: u32) -> Self {
        Self((link.0 as u64) << 32 | number as u64)
    }

    /// The link that it is on.
    #[must_use]
    pub const fn link(self) -> LinkId {
        LinkId((self.0 >> 32) as u32)
    }

    /// Its number there.
    #[must_use]
    pub const fn number(self) -> u32 {
        #[expect(clippy::cast_possible_truncation, reason = "the lower half of 64 bits")]
        {
            self.0 as u32
        }
    }
}

/// Which way bytes travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From origin to target.
    Forward,
    /// From target to origin.
    Backward,
}

impl Direction {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::Forward, Self::Backward];

    /// The other one.
    #[must_use]
    pub const fn opposite(self) -> Self {
        match self {
            Self::Forward => Self::Backward,
            Self::Backward => Self::Forward,
        }
    }
}

/// A node's part in a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// Where the flow was opened.
    Origin,
    /// Between.
    Relay,
    /// Where it leads.
    Target,
}

/// Dials in a row that may fail before a relay says `NoPath` (Law 5).
pub const MAX_FAILED_DIALS: u32 = 6;

/// How much a node buffers for one direction of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes held, waiting for their end-to-end ack.
    pub window_bytes: u64,
    /// What that may grow to on a path whose acks take long.
    pub max_window_bytes: u64,
    /// Bytes held and not yet written to the live out-leg.
    pub backlog_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { window_bytes: 4 << 20, max_window_bytes: 32 << 20, backlog_bytes: 256 << 10 }
    }
}

/// What became of an attach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attached {
    /// The leg is prev now.
    Accepted {
        /// To be sent on it.
        answer: AttachOk,
        /// The leg that was prev: to be closed as replaced.
        replaced: Option<LegId>,
        /// The legs to what comes next, if the splice had to forget what it held (Law 5): to be closed as lost.
        forgotten: Vec<LegId>,
    },
    /// A greater epoch (or this one) was accepted before.
    Stale {
        /// The epoch that won.
        winner: Epoch,
    },
    /// It can't be true: the dialer claims to have acks for what was never sent.
    Impossible,
}

/// What follows from the end of a leg.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The leg was none of this splice's any more.
    Ignored,
    /// prev is gone: wait for whoever attaches next.
    Orphaned,
    /// next is gone: dial again.
    Dial,
    /// The flow is over at this node.
    Free(Freed),
}

/// The legs to close when a flow is over at a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Freed {
    /// Why, as prev is told (or the application at the origin).
    pub code: CloseCode,
    /// With [`CloseCode::Replaced`]: which epoch won.
    pub winner: Option<Epoch>,
    /// To be closed with `code`.
    pub prev: Option<LegId>,
    /// To be closed with `down`.
    pub next: Option<LegId>,
    /// To be closed as moved: it was being left already.
    pub fading: Option<LegId>,
    /// Why, as next is told (or the application at the target).
    pub down: CloseCode,
}
