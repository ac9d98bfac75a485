//! How legs end, and what follows from it.

use super::flow::next::Event;
use super::key::FlowKey;
use super::table::Flows;
use super::tasks::Task;
use crate::crypto::Sealed;
use crate::frame::{Cause, CloseCode, Why};
use crate::machine::Action;
use crate::planted::{self, Law};
use crate::splice::{Ending, LegId};
use crate::time::Time;

impl Flows {
    /// The peer ended a leg with a code. Some codes count only with the control message that goes with them.
    pub(super) fn leg_closed(&mut self, leg: LegId, code: CloseCode, now: Time, actions: &mut Vec<Action>) {
        if planted::broken(Law::CloseNoticed) && !self.may_receive(leg) {
            return;
        }
        let explained_by = now + self.config.attach_timeout;
        let Some((key, flow)) = self.by_leg(leg) else { return };
        if code.is_explained() && flow.splice.next() == Some(leg) {
            flow.on_next(Event::ClosedUnexplained { until: explained_by });
            self.schedule(key);
        } else if code == CloseCode::Aborted && flow.splice.prev() == Some(leg) {
            // Why comes over the control stream, or that link is lost as well.
            flow.alone.lost(now);
            self.schedule(key);
        } else {
            self.leg_over(leg, code, Why::default(), now, actions);
        }
    }

    /// A leg's stream ended without a code.
    pub(super) fn leg_ended(&mut self, leg: LegId, now: Time, actions: &mut Vec<Action>) {
        let Some((key, flow)) = self.by_leg(leg) else { return };
        let was_next = flow.splice.next() == Some(leg);
        let ending = flow.splice.stream_ended(leg);
        flow.note_lost_leg();
        self.drop_leg(leg, CloseCode::Lost, now, actions);
        self.follow(key, ending, (was_next, CloseCode::Lost), None, now, actions);
    }

    /// A leg is no more.
    pub(super) fn leg_over(
        &mut self,
        leg: LegId,
        code: CloseCode,
        Why { winner, cause }: Why,
        now: Time,
        actions: &mut Vec<Action>,
    ) {
        let Some((key, flow)) = self.by_leg(leg) else { return };
        let was_next = flow.splice.next() == Some(leg);
        // Only the other end can end a flow for this one. What a relay says is a hint, as that the leg is lost.
        let is_hearsay = code == CloseCode::Aborted && flow.has_key() && !flow.is_proven(cause.as_ref());
        // What next says is doubted in `follow`, where an origin counts how often it was told.
        let code = if is_hearsay && !was_next { CloseCode::Lost } else { code };
        let ending = flow.splice.closed(leg, code, winner.as_ref());
        flow.note_lost_leg();
        self.drop_leg(leg, CloseCode::Lost, now, actions);
        self.follow(key, ending, (was_next, code), cause, now, actions);
    }

    pub(super) fn follow(
        &mut self,
        key: FlowKey,
        ending: Ending,
        (was_next, code): (bool, CloseCode),
        cause: Option<Sealed>,
        now: Time,
        actions: &mut Vec<Action>,
    ) {
        match ending {
            Ending::Ignored => {}
            Ending::Orphaned => {
                if let Some(flow) = self.flows.get_mut(&key) {
                    flow.alone.lost(now);
                    // The settling tells next that this node is an orphan.
                    self.tasks.push(key, Task::Settle);
                }
            }
            Ending::Dial if planted::broken(Law::Redial) => {}
            Ending::Dial => self.next_lost(key, cause_of(code), now, actions),
            Ending::Free(freed) if was_next && self.is_doubtful(key, freed.code, cause.as_ref()) => {
                self.next_lost(key, Cause::Closed, now, actions);
            }
            Ending::Free(freed) => self.free(key, freed, cause, now, actions),
        }
    }

    /// A terminal code from a relay is a hint: an origin hears it twice, the second time over another path where there is
    /// one, before it believes. The target's own word goes with an abort.
    pub(super) fn is_doubtful(&mut self, key: FlowKey, code: CloseCode, cause: Option<&Sealed>) -> bool {
        let Some(flow) = self.flows.get_mut(&key).filter(|flow| flow.is_origin()) else { return false };
        // That it is done an origin knows by itself; a cause that opens is the target's own word.
        if code == CloseCode::Done && flow.splice.is_complete() || flow.is_proven(cause) {
            return false;
        }
        flow.end.as_mut().is_some_and(|end| end.doubt(cause))
    }
}

const fn cause_of(code: CloseCode) -> Cause {
    match code {
        CloseCode::NoPath => Cause::NoPath,
        CloseCode::Lost => Cause::LinkLost,
        CloseCode::Moved
        | CloseCode::Stale
        | CloseCode::Replaced
        | CloseCode::Done
        | CloseCode::Aborted
        | CloseCode::Unknown
        | CloseCode::Forbidden
        | CloseCode::Malformed
        | CloseCode::Overloaded => Cause::Closed,
    }
}
