//! Whether anything moves over a link: what tells a slow neighbour from one that swallows.

use super::Links;
use crate::frame::Way;
use crate::machine::LinkId;
use crate::splice::Direction;
use crate::time::Time;
use std::time::Duration;

/// Bytes of a flow's direction that went over a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// They were taken from it.
    In(Direction),
    /// They were written to it.
    Out(Direction),
}

/// When that was last.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Moves([Time; 4]);

impl Moves {
    const fn last(&mut self, what: Move) -> &mut Time {
        let [forward_in, backward_in, forward_out, backward_out] = &mut self.0;
        match what {
            Move::In(Direction::Forward) => forward_in,
            Move::In(Direction::Backward) => backward_in,
            Move::Out(Direction::Forward) => forward_out,
            Move::Out(Direction::Backward) => backward_out,
        }
    }
}

impl Links {
    /// Bytes of some flow moved over a link.
    pub fn moved(&mut self, id: LinkId, what: Option<Move>, now: Time) {
        if let (Some(link), Some(what)) = (self.links.get_mut(&id), what) {
            *link.moves.last(what) = now;
        }
    }

    /// What is known of a link for bytes that are to move over it in this way.
    #[must_use]
    pub fn way(&self, id: LinkId, what: Move, now: Time) -> Way {
        let Some(link) = self.links.get(&id) else { return Way::default() };
        let mut moves = link.moves;
        Way { quiet_ms: millis(now.since(*moves.last(what))), repair_ms: millis(link.detector.repair_time()) }
    }
}

fn millis(time: Duration) -> u16 {
    u16::try_from(time.as_millis()).unwrap_or(u16::MAX)
}
