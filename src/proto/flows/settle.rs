//! What follows from a change: acks, FINs, completion, and when to look again.

use super::flow::next::Next;
use super::flow::timer::Timer;
use super::key::FlowKey;
use super::table::Flows;
use crate::frame::{CloseCode, Control, MAX_ACKS};
use crate::machine::{Action, LinkId};
use crate::planted::{self, Law};
use crate::splice::{Direction, Position};
use crate::time::Time;
use std::collections::BTreeMap;

impl Flows {
    /// Flows changed: sends what is to be told, their acks together, has those dialled that never were, and ends those that
    /// are complete.
    pub(super) fn settle(&mut self, keys: &[FlowKey], now: Time, actions: &mut Vec<Action>) {
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
        // After the acks: a flow may end now, and DONE counts only once its last acks were sent.
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
            let ack_due = flow.timer(Timer::Ack);
            let splice = &mut flow.splice;
            let untold = splice.untold(direction);
            // The ack of the end is never put off, as the other end is done only with it.
            let may_wait = splice.is_sink(direction)
                && untold < self.config.ack_bytes
                && !splice.lane(direction).is_acked()
                && ack_due.is_none_or(|due| due > now);
            if may_wait {
                if untold > 0 {
                    // The deadline stays, or bytes that trickle would put the ack off for ever.
                    flow.set_timer(Timer::Ack, ack_due.or(Some(now + self.config.ack_delay)));
                }
                continue;
            }
            if splice.is_sink(direction) {
                flow.set_timer(Timer::Ack, None);
            }
            if let Some((leg, offset)) = flow.splice.take_ack(direction) {
                acks.entry(leg.link()).or_default().push((leg.number(), offset));
            }
        }
    }

    fn conclude(&mut self, key: FlowKey, now: Time, actions: &mut Vec<Action>) {
        let Some(flow) = self.flows.get_mut(&key) else { return };
        if flow.splice.is_complete() {
            match flow.splice.position() {
                Position::Target => return self.end(key, CloseCode::Done, CloseCode::Done, now, actions),
                Position::Origin => {
                    // The linger begins once: whatever still comes does not prolong it.
                    let until = flow.timer(Timer::Leave).unwrap_or(now + self.config.linger);
                    flow.set_timer(Timer::Leave, Some(until));
                }
                // Completion: a relay frees a flow when it is told, and not by its own idea.
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
        // The first dial only. Every later one follows from what ended the leg before.
        if flow.splice.wants_dial() && flow.splice.dials() == 0 && flow.next == Next::Idle {
            return self.tasks.dial_and_settle(key);
        }
        actions.push(Action::Wake { flow: key });
        self.schedule(key);
    }
}
