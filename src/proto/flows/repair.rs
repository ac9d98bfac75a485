//! How a flow's next hop is given up, and what is told once another has taken over.

use super::dial::FAILURES_BEFORE_NO_PATH;
use super::flow::Flow;
use super::flow::next::{Event, Step};
use super::flow::outage::Repair;
use super::key::FlowKey;
use super::table::Flows;
use super::tasks::Task;
use crate::failure_memory::Ground;
use crate::frame::{Cause, CloseCode, Control, Reason, Reroute};
use crate::links::Standing;
use crate::machine::{Action, LinkId, Notice};
use crate::splice::LegId;
use crate::time::Time;
use std::time::Duration;

impl Flows {
    /// The time that was given to a dial is up, or it is time for the next.
    pub(super) fn next_is_due(&mut self, key: FlowKey, now: Time, actions: &mut Vec<Action>) {
        match self.flows.get(&key).map(|flow| flow.next.step()) {
            Some(Step::Leave) => self.leave_next(key, Cause::Unreachable, now, actions),
            Some(Step::Dial) => self.tasks.push(key, Task::Dial),
            None => {}
        }
    }

    /// next has been suspect for long enough, unless it was heard again.
    pub(super) fn doubt_is_due(&mut self, key: FlowKey, now: Time, actions: &mut Vec<Action>) {
        let Some(flow) = self.flows.get_mut(&key) else { return };
        flow.on_next(Event::DoubtOver);
        let next = flow.splice.next();
        if next.is_some_and(|next| self.links.standing_over(next.link()) >= Standing::Suspect) {
            self.leave_next(key, Cause::Silence, now, actions);
        }
    }

    /// next is no more, or could not be had: tries again, elsewhere if there is an elsewhere.
    pub(super) fn next_lost(&mut self, key: FlowKey, cause: Cause, now: Time, actions: &mut Vec<Action>) {
        self.begin_repair(key, cause, None, now);
        let Some(flow) = self.flows.get_mut(&key) else { return };
        // A relay that says `NoPath` has tried for long enough itself.
        flow.candidates.penalise_current(if cause == Cause::NoPath { FAILURES_BEFORE_NO_PATH } else { 1 });
        if cause == Cause::NoPath {
            flow.outage.no_path();
        }
        flow.lose_sight(now);
        let all_failed = self.flows.get(&key).is_some_and(|flow| self.failures(flow) > 0);
        if all_failed {
            self.ask_for_others(key, now, actions);
        }
        let hopeless = self.flows.get(&key).is_some_and(|flow| self.is_hopeless(flow, now));
        // A hopeless flow is given up by its next dial, which need not wait.
        if all_failed && !hopeless {
            self.try_later(key, now);
        } else {
            self.tasks.push(key, Task::Dial);
        }
        self.tasks.push(key, Task::Settle);
    }

    /// What is known now of why next is given up, for the report once another has answered. Over `leg` it was heard last.
    pub(super) fn begin_repair(&mut self, key: FlowKey, cause: Cause, leg: Option<LegId>, now: Time) {
        let Some(flow) = self.flows.get_mut(&key) else { return };
        // A flow that nobody was dialled for has nothing that could be repaired.
        if flow.splice.dials() == 0 {
            return;
        }
        // Only silence is a link's judgement. Other causes have evidence of their own.
        let judged = leg.filter(|_| cause == Cause::Silence).map(LegId::link);
        let dialled_at = flow.dials.last();
        let heard = match cause {
            Cause::Unreachable => Some(dialled_at),
            Cause::Silence
            | Cause::LinkLost
            | Cause::Closed
            | Cause::NoPath
            | Cause::Drain
            | Cause::Followed
            | Cause::Gray
            | Cause::Chosen
            | Cause::Unknown(_) => judged.and_then(|link| self.links.last_heard(link)),
        };
        let reason = judged.and_then(|link| self.links.reason(link));
        let from = flow.candidates.current().cloned();
        flow.outage.repair(|| Repair {
            cause,
            from,
            // Not before the dial: gaps were counted from long before the flow used the link.
            since: heard.unwrap_or(now).max(dialled_at).min(now),
            noticed: now,
            reason: reason.unwrap_or(Reason::of(cause.evidence())),
        });
    }

    /// The peer at the end of `link` is suspect: every flow that has somebody better goes there at once.
    pub(super) fn leave_link(&mut self, link: LinkId, now: Time, actions: &mut Vec<Action>) {
        let range = LegId::new(link, 0)..=LegId::new(link, u32::MAX);
        let mut legs: Vec<(LegId, FlowKey)> = self.legs.range(range).map(|(leg, key)| (*leg, *key)).collect();
        self.small_first(&mut legs);
        for (leg, key) in legs {
            // Only next can be left. A prev that is gone is replaced by whoever attaches.
            if self.flows.get(&key).is_some_and(|flow| flow.splice.next() == Some(leg)) {
                self.reconsider(key, now, actions);
            }
        }
    }

    /// What is known of a flow's candidates changed: leaves a suspect next if there is somebody better; else stays a
    /// while, as it may be heard again, and asks for others.
    pub(super) fn reconsider(&mut self, key: FlowKey, now: Time, actions: &mut Vec<Action>) {
        let Some(flow) = self.flows.get(&key) else { return };
        let Some(next) = flow.splice.next() else {
            // A flow that never was dialled is dialled when it is settled (`conclude`).
            if flow.splice.dials() > 0 || flow.next.waits_for_link() {
                self.tasks.push(key, Task::Dial);
            }
            return;
        };
        match self.links.standing_over(next.link()) {
            Standing::Up | Standing::Absent if !flow.is_next_unnamed() => return,
            Standing::Up | Standing::Absent | Standing::Draining => {
                return self.tasks.push(key, Task::MoveOn);
            }
            Standing::Suspect | Standing::Failed => {}
        }
        let chosen = flow.candidates.choose(|node| self.standing(node));
        let better = chosen.and_then(|place| flow.candidates.get(place));
        // Whoever is heard over another link than this one is better, too.
        let is_heard = better.is_some_and(|candidate| {
            self.links.active(candidate.node).is_some() && self.standing(candidate.node) < Standing::Suspect
        });
        // Where all come and go it is better to stay than to be without.
        let is_better = chosen != flow.candidates.current_place() || is_heard;
        if is_better && flow.dials.may(now) {
            self.leave_next(key, Cause::Silence, now, actions);
        } else if let Some(flow) = self.flows.get_mut(&key) {
            flow.on_next(Event::Doubted { until: now + self.config.stuck_timeout });
            self.ask_for_others(key, now, actions);
            self.schedule(key);
        }
    }

    /// Leaves a flow's next for another candidate.
    pub(super) fn leave_next(&mut self, key: FlowKey, cause: Cause, now: Time, actions: &mut Vec<Action>) {
        let next = self.flows.get(&key).and_then(|flow| flow.splice.next());
        self.begin_repair(key, cause, next, now);
        if let Some(leg) = self.flows.get_mut(&key).and_then(Flow::leave_next) {
            self.drop_leg(leg, CloseCode::Moved, now, actions);
        }
        self.next_lost(key, cause, now, actions);
    }

    /// The next hop answered: if that ends a repair, the origin is told, and another backup is looked for.
    pub(super) fn repaired(
        &mut self,
        key: FlowKey,
        repair: Option<Repair>,
        now: Time,
        actions: &mut Vec<Action>,
    ) {
        let Some(flow) = self.flows.get_mut(&key) else { return };
        let is_first = flow.dials.is_first(flow.splice.dials());
        let elsewhere = is_first && flow.candidates.current_place() != Some(0);
        let planned = flow.candidates.get(0).map(|planned| planned.node);
        let has_failed = flow.candidates.has_failed(0)
            || planned.is_some_and(|node| self.links.standing(node) >= Standing::Suspect);
        // Where a hop before was repaired, this node's own choice is told as `Followed`.
        let is_unplanned = elsewhere && (has_failed || flow.is_first_path());
        let unplanned =
            is_unplanned.then(|| Repair::unplanned(flow.candidates.get(0).cloned(), has_failed, now));
        // The target is the target, whoever is before it.
        let is_relay = flow.candidates.current().is_some_and(|current| !current.is_target());
        let followed = (is_first && is_relay && !flow.is_first_path()).then(|| Repair::followed(now));
        let Some(repair) = repair.or(unplanned).or(followed) else { return };
        if repair.cause.is_failure() {
            flow.backup.set_unprotected(true);
        }
        let Some(record) = flow.rights.records().first() else { return };
        let place = |n: Option<usize>| n.and_then(|n| u8::try_from(n).ok()).unwrap_or(u8::MAX);
        let reroute = Reroute {
            hop: record.scope.hop,
            version: record.scope.version,
            // The newest record may not name who failed: then it has no place.
            from: place(repair.from.as_ref().and_then(|from| flow.candidates.place(from.node))),
            to: place(flow.candidates.current_place()),
            cause: repair.cause,
            gap_us: micros(now.since(repair.since)),
            detected_us: micros(repair.noticed.since(repair.since)),
            replayed: flow.splice.replayed(),
            reason: repair.reason,
        };
        let (from, to) = (repair.from, flow.candidates.current().cloned());
        if let Some(from) = from.as_ref().filter(|_| reroute.cause.is_failure()) {
            flow.view.note_failed(from.node, Ground::Seen(reroute.reason.evidence), now);
        }
        if let Some(to) = &to {
            flow.view.now_serves(reroute.hop, to.node);
        }
        flow.view.rerouted(reroute);
        if let Some(prev) = flow.splice.prev() {
            let control = Control::Rerouted { leg: prev.number(), reroute };
            actions.push(Action::Control { link: prev.link(), control });
        }
        let by = self.flows.get(&key).and_then(|flow| flow.noticed_by(reroute.hop));
        actions.push(Action::Notify(Notice::Rerouted {
            flow: key,
            reroute: Box::new(reroute),
            by,
            from,
            to,
        }));
    }
}

fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}
