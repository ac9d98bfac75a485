//! How flows end at a node, and what is remembered of them.

use super::flows_event::FlowsEvent;
use super::key::FlowKey;
use super::table::Flows;
use super::tell::explain;
use crate::crypto::Sealed;
use crate::frame::{CloseCode, Why};
use crate::machine::{Action, Notice};
use crate::splice::{Direction, Freed, LegId};
use crate::time::Time;

impl Flows {
    /// A flow is over at this node: closes its legs and forgets it.
    pub(super) fn end(
        &mut self,
        key: FlowKey,
        code: CloseCode,
        down: CloseCode,
        now: Time,
        actions: &mut Vec<Action>,
    ) {
        if let Some(flow) = self.flows.get_mut(&key) {
            let freed = flow.splice.free(code, down);
            self.free(key, freed, None, now, actions);
        }
    }

    /// An end gives its flow up, with these codes for prev and next, and tells the other one why.
    pub(super) fn give_up(
        &mut self,
        key: FlowKey,
        (code, down): (CloseCode, CloseCode),
        cause: &str,
        now: Time,
        actions: &mut Vec<Action>,
    ) {
        if let Some(flow) = self.flows.get_mut(&key) {
            let sealed = flow.end.as_ref().and_then(|end| end.seal(cause));
            let freed = flow.splice.free(code, down);
            self.free(key, freed, sealed, now, actions);
        }
    }

    /// The other end has given the flow up, as it is proven to have said.
    pub(super) fn given_up(&mut self, key: FlowKey, cause: Sealed, now: Time, actions: &mut Vec<Action>) {
        if let Some(flow) = self.flows.get_mut(&key) {
            let freed = flow.splice.free(CloseCode::Aborted, CloseCode::Aborted);
            self.free(key, freed, Some(cause), now, actions);
        }
    }

    pub(super) fn free(
        &mut self,
        key: FlowKey,
        freed: Freed,
        cause: Option<Sealed>,
        now: Time,
        actions: &mut Vec<Action>,
    ) {
        let Freed { code, winner, prev, next, fading, down } = freed;
        // Before the flow goes, and with it the key that opens the cause.
        let told = self.flows.get(&key).and_then(|flow| flow.told(cause.as_ref()));
        if let Some(leg) = prev {
            if code.is_explained() {
                actions.push(explain(leg, code, Why { winner, cause: cause.clone() }));
            }
            self.drop_leg(leg, code, now, actions);
        }
        if let Some(leg) = next {
            if down == CloseCode::Aborted {
                actions.push(explain(leg, down, Why { winner: None, cause: cause.clone() }));
            }
            self.drop_leg(leg, down, now, actions);
        }
        if let Some(leg) = fading {
            self.drop_leg(leg, CloseCode::Moved, now, actions);
        }
        self.stop_waiting(key);
        // Or the indices would lead to a flow that is no more.
        self.set_candidates(key, Vec::new());
        self.wait_no_more(key);
        if let Some(flow) = self.flows.remove(&key) {
            self.budget.moved(flow.room.charged, 0);
        }
        self.timers.set(key, None);
        // An endpoint is the origin of its flows of hop 0, to which nobody attaches.
        if self.is_target && key.hop > 0 {
            self.entomb(key, code, cause, now);
        }
        self.events.push(FlowsEvent::Ended(key));
        // Whoever moves its bytes looks again, and finds it gone.
        actions.push(Action::Wake { flow: key });
        actions.push(Action::Notify(Notice::Ended { flow: key, code, cause: told }));
    }

    pub(super) fn entomb(&mut self, key: FlowKey, code: CloseCode, cause: Option<Sealed>, now: Time) {
        let answer = if code == CloseCode::Done { CloseCode::Done } else { CloseCode::Aborted };
        self.tombstones.insert(key, (answer, cause));
        self.tombstone_ends.push_back((now + self.config.tombstone, key));
        if self.tombstone_ends.len() > self.config.max_flows {
            self.bury_first();
        }
    }

    /// Forgets the flows that ended long ago.
    pub(super) fn bury(&mut self, now: Time) {
        while self.tombstone_ends.front().is_some_and(|(end, _)| *end <= now) {
            self.bury_first();
        }
    }

    pub(super) fn bury_first(&mut self) {
        if let Some((_, key)) = self.tombstone_ends.pop_front() {
            self.tombstones.remove(&key);
        }
    }

    /// Takes a leg out of the books and has its stream closed.
    pub(super) fn drop_leg(&mut self, leg: LegId, code: CloseCode, now: Time, actions: &mut Vec<Action>) {
        if let Some(key) = self.legs.remove(&leg) {
            actions.push(Action::CloseLeg { leg, code });
            self.links.leg_removed(leg.link(), now, actions);
            self.recount(key);
            self.wait_no_more(key);
            actions.push(Action::Wake { flow: key });
        }
    }

    /// Whoever read into a flow's lanes may be gone: who still does looks for room anew.
    pub(super) fn wait_no_more(&mut self, key: FlowKey) {
        for direction in Direction::BOTH {
            self.budget.forget((key, direction));
        }
    }
}
