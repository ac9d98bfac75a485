//! The application at an endpoint: it feeds one direction of its flow and takes the other.

use super::{Direction, Position, Splice};
use crate::proto::lane::Violation;
use bytes::Bytes;

impl Splice {
    /// The direction that this endpoint's application feeds.
    #[must_use]
    pub const fn source(&self) -> Direction {
        match self.position {
            Position::Origin | Position::Relay => Direction::Forward,
            Position::Target => Direction::Backward,
        }
    }

    /// The direction that this endpoint's application takes.
    #[must_use]
    pub const fn sink(&self) -> Direction {
        match self.position {
            Position::Origin | Position::Relay => Direction::Backward,
            Position::Target => Direction::Forward,
        }
    }

    /// The application sends.
    ///
    /// # Errors
    /// [`Violation::PastFin`] after its end.
    pub fn send(&mut self, bytes: Bytes) -> Result<(), Violation> {
        let source = self.source();
        self.lane_mut(source).push(bytes)
    }

    /// The application has sent everything.
    pub fn finish(&mut self) {
        let source = self.source();
        let lane = self.lane_mut(source);
        if lane.fin().is_none() {
            let end = lane.received();
            lane.set_fin(end).expect("a source's own end contradicts nothing");
        }
    }
}
