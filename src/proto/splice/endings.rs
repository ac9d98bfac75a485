//! How the legs of a splice end, and what follows from that.

use super::{Ending, Freed, LegId, Position, Splice};
use crate::epoch::Epoch;
use crate::frame::CloseCode;
use crate::planted::{self, Law};

impl Splice {
    /// The stream of `leg` ended without a code: a lost leg, never a FIN (Law 2).
    pub fn stream_ended(&mut self, leg: LegId) -> Ending {
        if planted::broken(Law::ExplicitFin)
            && let Some(direction) = self.fed_by(leg)
            && let Some(offset) = self.lane(direction).incoming()
        {
            let _ = self.lane_mut(direction).set_fin(offset);
        }
        self.closed(leg, CloseCode::Lost, None)
    }

    /// `leg` is no more: closed by the peer with `code` (and the epoch that won, where the code names one), or lost
    /// with its link.
    pub fn closed(&mut self, leg: LegId, code: CloseCode, winner: Option<&Epoch>) -> Ending {
        if self.prev == Some(leg) {
            self.prev_closed(code)
        } else if self.next == Some(leg) {
            self.next_closed(code, winner)
        } else {
            self.fading_closed(leg, winner)
        }
    }

    /// What closes the leg that is being left may have come over another path than this node's.
    fn fading_closed(&mut self, leg: LegId, winner: Option<&Epoch>) -> Ending {
        if self.fading == Some(leg) {
            self.detach_fading();
            return winner.map_or(Ending::Ignored, |won| self.yield_to(won).unwrap_or(Ending::Ignored));
        }
        Ending::Ignored
    }

    fn prev_closed(&mut self, code: CloseCode) -> Ending {
        self.detach_prev();
        match code {
            // Passed on to the other end. Whether to believe it was judged before (`Flows::leg_over`).
            CloseCode::Aborted => Ending::Free(self.free(CloseCode::Aborted, CloseCode::Aborted)),
            // prev goes on without this relay, or is done. A target waits for another path.
            CloseCode::Moved | CloseCode::Done if self.position == Position::Relay => {
                Ending::Free(self.free(CloseCode::Lost, CloseCode::Lost))
            }
            // Law 5: prev can't believe what came from here, so nobody from here on should.
            CloseCode::Malformed if self.position == Position::Relay => {
                Ending::Free(self.free(CloseCode::Lost, CloseCode::Malformed))
            }
            CloseCode::Lost
            | CloseCode::Moved
            | CloseCode::Done
            | CloseCode::Stale
            | CloseCode::Replaced
            | CloseCode::NoPath
            | CloseCode::Unknown
            | CloseCode::Forbidden
            | CloseCode::Malformed
            | CloseCode::Overloaded => Ending::Orphaned,
        }
    }

    fn next_closed(&mut self, code: CloseCode, winner: Option<&Epoch>) -> Ending {
        self.detach_next(code == CloseCode::NoPath);
        match code {
            // These are about the whole flow, so they go up. The origin may doubt them (`Flows::follow`).
            CloseCode::Done | CloseCode::Unknown | CloseCode::Aborted => {
                Ending::Free(self.free(code, CloseCode::Lost))
            }
            CloseCode::Stale | CloseCode::Replaced => {
                winner.and_then(|won| self.yield_to(won)).unwrap_or(Ending::Dial)
            }
            // Law 5: next can't believe what this relay holds.
            CloseCode::Malformed if self.position == Position::Relay => {
                Ending::Free(self.free(CloseCode::Lost, CloseCode::Lost))
            }
            CloseCode::Lost
            | CloseCode::Moved
            | CloseCode::NoPath
            | CloseCode::Forbidden
            | CloseCode::Malformed
            | CloseCode::Overloaded => Ending::Dial,
        }
    }

    /// Frees the flow if another path has won.
    fn yield_to(&mut self, winner: &Epoch) -> Option<Ending> {
        self.is_outranked(winner).then(|| {
            let freed = self.free(CloseCode::Replaced, CloseCode::Lost);
            Ending::Free(Freed { winner: Some(winner.clone()), ..freed })
        })
    }

    /// Whether `winner` outranks this node's last dial. The origin never yields.
    ///
    /// A counter of its own that it has not reached yet is another's, too: one that was attached with the same epoch
    /// (an attach that was accepted, forgotten and accepted again). Both would go on outbidding each other.
    fn is_outranked(&self, winner: &Epoch) -> bool {
        self.position == Position::Relay && self.epoch.child(self.dials).outranked_by(winner)
    }

    /// The flow is over at this node: the legs to close, and with what.
    pub fn free(&mut self, code: CloseCode, down: CloseCode) -> Freed {
        let (prev, next, fading) = (self.detach_prev(), self.leave_next(), self.detach_fading());
        Freed { code, winner: None, prev, next, fading, down }
    }
}
