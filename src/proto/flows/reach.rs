//! Whether the other end of a flow may be gone, and when a node stops to wait for it.
//!
//! An origin is *alone* from the moment that its next hop is lost, or somebody further on reaches nobody, until something of
//! the target's comes: an ack, bytes, the answer to a probe. That a relay answers proves nothing. Whoever comes after the
//! origin is alone, an *orphan*, from the moment that its prev is lost; it says so down the flow, and takes it back once
//! another attaches that is no orphan itself, so that all wait from the same moment on.

use super::key::FlowKey;
use super::table::Flows;
use super::tasks::Task;
use crate::frame::{CloseCode, Control};
use crate::machine::Action;
use crate::splice::{LegId, Position};
use crate::time::Time;

impl Flows {
    /// A flow's node was alone for too long. If the other end is there after all, it shall know.
    pub(super) fn end_alone(&mut self, key: FlowKey, now: Time, actions: &mut Vec<Action>) {
        let Some(flow) = self.flows.get_mut(&key) else { return };
        let seconds = self.config.give_up.as_secs_f64();
        let (code, down, cause) = match flow.splice.position() {
            Position::Origin => (
                CloseCode::NoPath,
                CloseCode::Aborted,
                format!("it did not reach its target for {seconds} s"),
            ),
            Position::Target => {
                (CloseCode::Lost, CloseCode::Lost, format!("it did not hear of its origin for {seconds} s"))
            }
            // Law 5: a relay may forget. It can't speak for an end.
            Position::Relay => return self.end(key, CloseCode::Lost, CloseCode::Lost, now, actions),
        };
        self.give_up(key, (code, down), &cause, now, actions);
    }

    /// prev says that the origin is lost behind it, or found again.
    pub(super) fn orphaned(&mut self, leg: LegId, orphaned: bool, now: Time, actions: &mut Vec<Action>) {
        if !self.may_ask(leg, now, actions) {
            return;
        }
        let Some((key, flow)) = self.by_leg(leg).filter(|(_, flow)| flow.splice.prev() == Some(leg)) else {
            return;
        };
        flow.alone.as_prev(orphaned, now);
        self.tasks.push(key, Task::Settle);
    }

    /// Tells next whether this relay is an orphan, if it does not know.
    pub(super) fn tell_orphan(&mut self, key: FlowKey, actions: &mut Vec<Action>) {
        let Some(flow) = self.flows.get_mut(&key).filter(|flow| !flow.is_origin()) else { return };
        // Before its answer next knows what the attach said. What has changed since is told after it.
        let Some(next) = flow.splice.next().filter(|_| flow.splice.is_next_answered()) else { return };
        if let Some(orphaned) = flow.alone.take_events() {
            let control = Control::Orphaned { leg: next.number(), orphaned };
            actions.push(Action::Control { link: next.link(), control });
        }
    }
}
