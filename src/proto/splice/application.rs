//! The application at an endpoint: it feeds one direction of its flow and takes the other.

use super::{Direction, Position, Splice};
use crate::lane::FlowViolation;
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
    /// [`FlowViolation::PastFin`] after its end.
    pub fn send(&mut self, bytes: Bytes) -> Result<(), FlowViolation> {
        let source = self.source();
        self.lane_mut(source).push(bytes)
    }

    /// The application has said that it took everything, and did what it wanted with it: once it was given the end, that is
    /// acked, too.
    pub const fn taken(&mut self) {
        self.is_taken = true;
    }

    /// Acks the end, if it is to be.
    pub fn ack_end(&mut self) {
        let lane = self.lane(self.sink());
        if self.is_taken
            && self.position != Position::Relay
            && lane.is_written()
            && let Some(end) = lane.written()
        {
            self.lane_mut(self.sink()).ack(end);
        }
    }

    /// Whether the application has said all that it will: its end, and that it took the other one's.
    #[must_use]
    pub fn has_said_all(&self) -> bool {
        self.is_taken && self.lane(self.source()).fin().is_some()
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
