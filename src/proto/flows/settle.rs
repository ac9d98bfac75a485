//! What follows from a change: acks, FINs, completion, and when to look again.

use super::probe::Vigil;
use super::{FlowKey, Flows};
use crate::frame::{CloseCode, Control, MAX_ACKS};
use crate::machine::{Action, LinkId};
use crate::planted::{self, Law};
use crate::splice::{Direction, Position};
use crate::time::Time;
use std::collections::BTreeMap;

impl Flows {
    /// A flow changed: sends what is to be told, dials if there is no next, ends it if it is complete.
    pub(super) fn settle(&mut self, key: FlowKey, now: Time, actions: &mut Vec<Action>) {
        self.settle_all(&[key], now, actions);
    }

    /// The same for several flows; their acks travel together.
    pub(super) fn settle_all(&mut self, keys: &[FlowKey], now: Time, actions: &mut Vec<Action>) {
        let mut acks: BTreeMap<LinkId, Vec<(u32, u64)>> = BTreeMap::new();
        for key in keys {
            self.recount(*key);
            if let Some(flow) = self.flows.get_mut(key) {
                flow.splice.ack_end();
            }
            self.tell_fins(*key, actions);
            self.tell_orphan(*key, actions);
            self.collect_acks(*key, now, &mut acks);
        }
        for (link, acks) in acks {
            self.links.spoke(link, now);
            for batch in acks.chunks(MAX_ACKS) {
                actions.push(Action::Control { link, control: Control::Acks(batch.to_vec()) });
            }
        }
        for key in keys {
            self.conclude(*key, now, actions);
        }
    }

    fn tell_fins(&mut self, key: FlowKey, actions: &mut Vec<Action>) {
        let Some(flow) = self.flows.get_mut(&key) else { return };
        for direction in Direction::BOTH {
            if let Some((leg, offset)) = flow.splice.take_fin(direction) {
                let control = Control::Fin { leg: leg.number(), offset };
                actions.push(Action::Control { link: leg.link(), control });
            }
        }
    }

    /// A relay passes acks on at once (they come in batches); a sink may put them off for a while.
    fn collect_acks(&mut self, key: FlowKey, now: Time, acks: &mut BTreeMap<LinkId, Vec<(u32, u64)>>) {
        let Some(flow) = self.flows.get_mut(&key) else { return };
        for direction in Direction::BOTH {
            let splice = &mut flow.splice;
            let news = splice.untold(direction);
            let may_wait = splice.is_sink(direction)
                && news < self.config.ack_bytes
                && !splice.lane(direction).is_acked()
                && flow.ack_due.is_none_or(|due| due > now);
            if may_wait {
                if news > 0 {
                    flow.ack_due = flow.ack_due.or(Some(now + self.config.ack_delay));
                }
                continue;
            }
            if splice.is_sink(direction) {
                flow.ack_due = None;
            }
            if let Some((leg, offset)) = splice.take_ack(direction) {
                acks.entry(leg.link()).or_default().push((leg.number(), offset));
            }
        }
    }

    fn conclude(&mut self, key: FlowKey, now: Time, actions: &mut Vec<Action>) {
        let Some(flow) = self.flows.get_mut(&key) else { return };
        if flow.splice.is_complete() {
            match flow.splice.position() {
                Position::Target => return self.end(key, CloseCode::Done, CloseCode::Done, now, actions),
                Position::Origin => flow.leave_due = flow.leave_due.or(Some(now + self.config.linger)),
                Position::Relay => {}
            }
        }
        if planted::broken(Law::FreeOnDone)
            && flow.splice.position() == Position::Relay
            && Direction::BOTH.iter().all(|direction| flow.splice.lane(*direction).is_written())
        {
            return self.end(key, CloseCode::Done, CloseCode::Lost, now, actions);
        }
        flow.look(now);
        if flow.splice.wants_dial() && flow.splice.dials() == 0 && flow.dial_due.is_none() {
            self.dial(key, now, actions);
        }
        actions.push(Action::Wake { flow: key });
        self.schedule(key);
    }

    /// Sets a flow's one timer to the earliest of what it waits for.
    pub(super) fn schedule(&mut self, key: FlowKey) {
        let Some(flow) = self.flows.get(&key) else { return };
        let alone = self.alone_until(flow);
        let backup = (flow.backup_attempts > 0).then_some(flow.backup_due);
        let due = [
            flow.dial_due,
            flow.doubt_due,
            flow.ack_due,
            flow.upkeep_due,
            flow.leave_due,
            flow.route_due,
            flow.vigil.as_ref().and_then(Vigil::due),
            alone,
            backup,
        ];
        self.timers.set(key, due.into_iter().flatten().min());
    }

    /// Something of a flow is due.
    pub(super) fn flow_due(&mut self, key: FlowKey, now: Time, actions: &mut Vec<Action>) {
        let is_due = |due: Option<Time>| due.is_some_and(|due| due <= now);
        let Some(flow) = self.flows.get_mut(&key) else { return };
        flow.look(now);
        let Some(flow) = self.flows.get(&key) else { return };
        if is_due(flow.leave_due) {
            return self.end(key, CloseCode::Done, CloseCode::Done, now, actions);
        }
        if is_due(self.alone_until(flow)) {
            return self.end_alone(key, now, actions);
        }
        if is_due(flow.dial_due) {
            self.dial_is_due(key, now, actions);
        }
        if self.flows.get(&key).is_some_and(|flow| is_due(flow.doubt_due)) {
            self.doubt_is_due(key, now, actions);
        }
        if self.flows.get(&key).is_some_and(|flow| is_due(flow.route_due)) {
            self.want_route_again(key, now);
        }
        if self.flows.get(&key).is_some_and(|flow| is_due(flow.upkeep_due)) {
            self.keep_warm(key, now, actions);
            self.want_backup(key, now, actions);
        }
        self.want_backup_again(key, now, actions);
        self.look_is_due(key, now, actions);
        self.settle(key, now, actions);
    }

    fn want_backup_again(&mut self, key: FlowKey, now: Time, actions: &mut Vec<Action>) {
        let Some(flow) = self.flows.get(&key) else { return };
        if flow.backup_attempts == 0 || flow.backup_due > now {
            return;
        }
        if flow.is_stuck {
            self.want_candidates(key, now, actions);
        } else {
            self.want_backup(key, now, actions);
        }
        if let Some(flow) = self.flows.get_mut(&key)
            && flow.backup_due <= now
        {
            flow.backup_attempts = 0;
        }
    }
}
