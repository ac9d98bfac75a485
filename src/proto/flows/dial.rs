//! How a node gets, keeps and repairs a flow's next hop.

use super::{DIALS, Flow, FlowKey, Flows, FlowsConfig};
use crate::failure_memory::Ground;
use crate::frame::{Cause, CloseCode, Control, Evidence, Reason, Reroute, Why};
use crate::id::NodeId;
use crate::links::Standing;
use crate::machine::{Action, LinkId, Notice};
use crate::planted::{self, Law};
use crate::record::Candidate;
use crate::splice::{Direction, LegId};
use crate::time::Time;
use std::time::Duration;

/// A next hop that failed and is being replaced.
#[derive(Clone, Debug)]
pub(super) struct Repair {
    pub(super) cause: Cause,
    /// The candidate that failed first; a newer record may not name it any more.
    from: Option<Candidate>,
    /// The last sign of life from it since it was dialled.
    since: Time,
    /// When it was given up.
    noticed: Time,
    reason: Reason,
}

impl Repair {
    /// A flow that is being opened goes over another candidate than the one that was planned, which may have failed.
    fn unplanned(flow: &Flow, has_failed: bool, now: Time) -> Self {
        let cause = if has_failed { Cause::Unreachable } else { Cause::Chosen };
        Self {
            cause,
            from: flow.next_hop.get(0).cloned(),
            since: now,
            noticed: now,
            reason: Reason::of(cause.evidence()),
        }
    }

    /// Whoever takes the place of another relay chooses the next hop for itself: the origin may know it otherwise.
    fn followed(now: Time) -> Self {
        let reason = Reason::of(Evidence::None);
        Self { cause: Cause::Followed, from: None, since: now, noticed: now, reason }
    }
}

/// The first pause before a candidate that failed is dialled again; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
/// The longest.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// Failures of every candidate after which a relay says `NoPath`.
const FAILURES_BEFORE_NO_PATH: u32 = 2;

/// Routes that may lead an origin's flow nowhere before others are asked for ever more slowly, from the first pause on.
const FREE_ROUTES: u32 = 2;
const FIRST_FRUITLESS_PAUSE: Duration = Duration::from_millis(25);
const MAX_PAUSE_DOUBLINGS: u32 = 5;
/// Routes that were taken further apart than this have nothing to do with each other.
const FRUITLESS_MEMORY: Duration = Duration::from_secs(5);

/// The routes that an origin's flow has taken without any progress on them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fruitless {
    last: Time,
    count: u32,
    /// Bytes that had been acked and received.
    progress: u64,
}

impl Flow {
    fn progress(&self) -> u64 {
        let lane = |direction| self.splice.lane(direction);
        lane(Direction::Forward).acked() + lane(Direction::Backward).received()
    }

    /// An origin takes another route.
    pub(super) fn note_route(&mut self, now: Time) {
        let progress = self.progress();
        let is_same = |past: &Fruitless| past.progress == progress && now.since(past.last) < FRUITLESS_MEMORY;
        let before = self.fruitless.filter(is_same);
        let count = before.map_or(0, |before| before.count) + 1;
        self.fruitless = Some(Fruitless { last: now, count, progress });
    }

    /// When an origin may ask for another route: the later, the more have led nowhere.
    pub(super) fn next_route_at(&self) -> Option<Time> {
        let past = self.fruitless.filter(|past| past.progress == self.progress())?;
        let doublings = past.count.checked_sub(FREE_ROUTES + 1)?.min(MAX_PAUSE_DOUBLINGS);
        Some(past.last + FIRST_FRUITLESS_PAUSE * (1 << doublings))
    }

    /// Whether its next hop may be dialled now: not if it was over and over again, lately.
    fn may_dial(&self, now: Time) -> bool {
        self.dials.due(DIALS, now) <= now
    }
}

/// What to do about a flow without next.
enum Plan {
    Open(LinkId, usize),
    Wait,
    GiveUp,
}

impl Flows {
    /// Dials the most promising candidate of a flow's next hop.
    pub(super) fn dial(&mut self, key: FlowKey, now: Time, actions: &mut Vec<Action>) {
        self.stop_waiting(key);
        let Some(flow) = self.flows.get_mut(&key).filter(|flow| flow.splice.wants_dial()) else { return };
        flow.unserved_since.get_or_insert(now);
        let Some(flow) = self.flows.get(&key) else { return };
        match self.plan(flow, now) {
            Plan::Open(..) if !flow.may_dial(now) => self.wait_to_dial(key, now),
            Plan::Open(link, place) if self.paces.admits(link, key, flow.is_bulky(), now) => {
                self.open_leg(key, link, place, now, actions);
            }
            Plan::Open(..) => self.wait_for_turn(key, now),
            Plan::Wait => self.wait_for_link(key, now, actions),
            Plan::GiveUp if flow.is_origin() => self.try_later(key, now),
            Plan::GiveUp => self.end(key, CloseCode::NoPath, CloseCode::Lost, now, actions),
        }
    }

    /// Too many attach over the link at once: the flow is told when it is its turn.
    fn wait_for_turn(&mut self, key: FlowKey, now: Time) {
        if let Some(flow) = self.flows.get_mut(&key) {
            flow.dial_due = Some(now + self.config.attach_timeout);
            self.schedule(key);
        }
    }

    /// The flow was dialled too often lately: a neighbour could not tell more from a storm.
    fn wait_to_dial(&mut self, key: FlowKey, now: Time) {
        if let Some(flow) = self.flows.get_mut(&key) {
            flow.dial_due = Some(flow.dials.due(DIALS, now));
            self.schedule(key);
        }
    }

    /// Those whose turn it is attach.
    pub(super) fn dial_paced(&mut self, now: Time, actions: &mut Vec<Action>) {
        while let Some(key) = self.paces.next(now) {
            self.dial(key, now, actions);
            self.settle(key, now, actions);
        }
    }

    /// Of flows that have to go elsewhere together, those first that have little to send again.
    pub(super) fn small_first(&self, legs: &mut [(LegId, FlowKey)]) {
        legs.sort_by_key(|(_, key)| self.flows.get(key).is_some_and(Flow::is_bulky));
    }

    fn plan(&self, flow: &Flow, now: Time) -> Plan {
        let chosen = flow.next_hop.choose(|node| self.standing(node));
        let Some((place, candidate)) = chosen.and_then(|n| Some((n, flow.next_hop.get(n)?))) else {
            return Plan::GiveUp;
        };
        match self.links.active(candidate.node) {
            _ if self.is_hopeless(flow, now) => Plan::GiveUp,
            Some(link) => Plan::Open(link, place),
            None if !candidate.is_target() => Plan::Wait,
            None => Plan::GiveUp,
        }
    }

    /// Whether even the best candidate has failed this flow so often, for so long, that it is time to say so upward.
    fn is_hopeless(&self, flow: &Flow, now: Time) -> bool {
        let failed = self.failures(flow) >= FAILURES_BEFORE_NO_PATH && now >= self.no_path_at(flow, now);
        !flow.is_origin() && (failed || flow.splice.is_exhausted()) && !planted::broken(Law::NoPath)
    }

    /// When a relay may say at the earliest that there is no way on. The origin can't help the one before the target.
    fn no_path_at(&self, flow: &Flow, now: Time) -> Time {
        let is_last = flow.next_hop.candidates().any(Candidate::is_target);
        flow.unserved_since.unwrap_or(now)
            + if is_last { Duration::ZERO } else { self.config.no_path_timeout }
    }

    fn failures(&self, flow: &Flow) -> u32 {
        flow.next_hop.failures(|node| self.standing(node))
    }

    pub(super) fn standing(&self, node: NodeId) -> Standing {
        if node == self.me { Standing::Failed } else { self.links.standing(node) }
    }

    fn open_leg(&mut self, key: FlowKey, link: LinkId, place: usize, now: Time, actions: &mut Vec<Action>) {
        let Some(leg) = self.links.open_leg(link, now) else { return };
        let FlowsConfig { attach_timeout, stuck_timeout, .. } = self.config;
        let Some(flow) = self.flows.get_mut(&key) else { return };
        let opening = flow.splice.dial(leg);
        flow.dials.spend(DIALS, now);
        flow.dialled_at = now;
        flow.next_hop.set_current(place);
        let node = flow.next_hop.current().map_or(self.me, |candidate| candidate.node);
        let doubtful = self.links.standing(node) >= Standing::Suspect;
        flow.dial_due = Some(now + if doubtful { stuck_timeout } else { attach_timeout });
        flow.late_update.clear();
        self.legs.insert(leg, key);
        flow.orphan_told = flow.is_orphan();
        match flow.rights.attach(leg.number(), key.flow, opening, place, flow.orphan_told) {
            Some(attach) => actions.push(Action::OpenLeg { leg, flow: key, attach: Box::new(attach) }),
            None => self.leg_over(leg, CloseCode::Forbidden, Why::default(), now, actions),
        }
        if doubtful {
            self.cry(key, now, actions);
        }
        self.schedule(key);
    }

    /// No link to any candidate: the first that comes up is taken. Meanwhile the origin is asked for others, at once if
    /// one of these is known to be bad, else when a new link should have come up. A flow that is being opened stands still
    /// for nobody: it gives a handshake its time, as others would need the same.
    fn wait_for_link(&mut self, key: FlowKey, now: Time, actions: &mut Vec<Action>) {
        let FlowsConfig { connect_timeout, stuck_timeout, handshake_time, upkeep, .. } = self.config;
        let Some(flow) = self.flows.get(&key) else { return };
        let patience = if flow.is_opening() { handshake_time } else { stuck_timeout };
        let since = flow.stuck_since.unwrap_or(now);
        let standings: Vec<Standing> =
            flow.next_hop.candidates().map(|candidate| self.standing(candidate.node)).collect();
        let new = standings.contains(&Standing::Absent);
        let bad = standings.iter().any(|standing| *standing >= Standing::Suspect);
        let end = since + if new { connect_timeout } else { stuck_timeout };
        let end = if flow.is_origin() { end } else { end.max(self.no_path_at(flow, now)) };
        if end <= now {
            return self.wait_is_over(key, now, actions);
        }
        let Some(flow) = self.flows.get_mut(&key) else { return };
        flow.stuck_since = Some(since);
        let cry_at = since + patience;
        flow.dial_due = Some(if now < cry_at { cry_at } else { end });
        flow.waits = true;
        for candidate in flow.next_hop.candidates() {
            if !candidate.is_target() {
                self.waiting.entry(candidate.node).or_default().insert(key);
                self.links.want(candidate.node, &candidate.addresses, now + upkeep * 2, now, actions);
            }
        }
        if bad || now >= cry_at {
            self.cry(key, now, actions);
        }
        self.schedule(key);
    }

    /// Nobody could be reached in time.
    fn wait_is_over(&mut self, key: FlowKey, now: Time, actions: &mut Vec<Action>) {
        let Some(flow) = self.flows.get_mut(&key) else { return };
        if !flow.is_origin() {
            return self.end(key, CloseCode::NoPath, CloseCode::Lost, now, actions);
        }
        flow.stuck_since = None;
        self.want_route(key, now);
        self.wait_for_link(key, now, actions);
    }

    /// None of the candidates can be reached: an origin needs another route, a relay other candidates.
    fn cry(&mut self, key: FlowKey, now: Time, actions: &mut Vec<Action>) {
        let Some(flow) = self.flows.get_mut(&key) else { return };
        if flow.is_origin() {
            self.want_route(key, now);
        } else {
            self.want_candidates(key, now, actions);
        }
    }

    pub(super) fn stop_waiting(&mut self, key: FlowKey) {
        let Some(flow) = self.flows.get_mut(&key).filter(|flow| flow.waits) else { return };
        (flow.waits, flow.dial_due) = (false, None);
        for candidate in flow.next_hop.candidates() {
            if let Some(keys) = self.waiting.get_mut(&candidate.node) {
                keys.remove(&key);
            }
        }
        self.waiting.retain(|_, keys| !keys.is_empty());
    }

    /// The time that was given to a dial is up, or it is time for the next.
    pub(super) fn dial_is_due(&mut self, key: FlowKey, now: Time, actions: &mut Vec<Action>) {
        let Some(flow) = self.flows.get_mut(&key) else { return };
        flow.dial_due = None;
        if flow.splice.next().is_some() {
            self.leave_next(key, Cause::Unreachable, now, actions);
        } else {
            self.dial(key, now, actions);
        }
    }

    /// next has been suspect for long enough, unless it was heard again.
    pub(super) fn doubt_is_due(&mut self, key: FlowKey, now: Time, actions: &mut Vec<Action>) {
        let Some(flow) = self.flows.get_mut(&key) else { return };
        flow.doubt_due = None;
        let next = flow.splice.next();
        if next.is_some_and(|next| self.links.standing_over(next.link()) >= Standing::Suspect) {
            self.leave_next(key, Cause::Silence, now, actions);
        }
    }

    /// A link that flows wait for is up. A flow that is only being opened gives the candidate that was planned for it a
    /// head start (as in RFC 8305); in a repair the first that can be had is taken.
    pub(super) fn dial_waiting(&mut self, peer: NodeId, now: Time, actions: &mut Vec<Action>) {
        for key in self.waiting.remove(&peer).unwrap_or_default() {
            let Some(flow) = self.flows.get_mut(&key) else { continue };
            let is_planned = flow.next_hop.place(peer) == Some(0);
            if flow.is_opening() && !is_planned {
                let patience = now + self.config.head_start;
                flow.dial_due = flow.dial_due.map(|due| due.min(patience));
                self.schedule(key);
                continue;
            }
            self.dial(key, now, actions);
            self.settle(key, now, actions);
        }
    }

    /// A candidate that was silent is heard again: flows that have nobody go on over it at once.
    pub(super) fn dial_recovered(&mut self, peer: NodeId, now: Time, actions: &mut Vec<Action>) {
        for key in self.flows_with(peer) {
            let Some(flow) = self.flows.get_mut(&key) else { continue };
            flow.next_hop.forgive(peer);
            if flow.splice.wants_dial() && (flow.splice.dials() > 0 || flow.waits) {
                self.dial(key, now, actions);
                self.settle(key, now, actions);
            }
        }
    }

    /// A link that flows wait for could not be had: they take another, if there is one.
    pub(super) fn waiting_failed(&mut self, peer: NodeId, now: Time, actions: &mut Vec<Action>) {
        for key in self.waiting.remove(&peer).unwrap_or_default() {
            self.dial(key, now, actions);
            self.settle(key, now, actions);
        }
    }

    /// next is no more, or could not be had: tries again, elsewhere if there is an elsewhere.
    pub(super) fn next_lost(&mut self, key: FlowKey, cause: Cause, now: Time, actions: &mut Vec<Action>) {
        self.begin_repair(key, cause, None, now);
        let Some(flow) = self.flows.get_mut(&key) else { return };
        // A relay that says `NoPath` has tried for long enough itself.
        flow.next_hop.penalise_current(if cause == Cause::NoPath { FAILURES_BEFORE_NO_PATH } else { 1 });
        if cause == Cause::NoPath {
            flow.unserved_since = Some(Time::ZERO);
        }
        flow.doubt_due = None;
        flow.lose_sight(now);
        let all_failed = self.flows.get(&key).is_some_and(|flow| self.failures(flow) > 0);
        if all_failed {
            self.cry(key, now, actions);
        }
        let hopeless = self.flows.get(&key).is_some_and(|flow| self.is_hopeless(flow, now));
        if all_failed && !hopeless {
            self.try_later(key, now);
        } else {
            self.dial(key, now, actions);
        }
        self.settle(key, now, actions);
    }

    /// What is known now of why next is given up, for the report once another has answered. Over `leg` it was heard last.
    pub(super) fn begin_repair(&mut self, key: FlowKey, cause: Cause, leg: Option<LegId>, now: Time) {
        let Some(flow) = self.flows.get_mut(&key) else { return };
        if flow.repair.is_some() || flow.splice.dials() == 0 {
            return;
        }
        let judged = leg.filter(|_| cause == Cause::Silence).map(LegId::link);
        let heard = match cause {
            Cause::Unreachable => Some(flow.dialled_at),
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
        flow.repair = Some(Repair {
            cause,
            from: flow.next_hop.current().cloned(),
            since: heard.unwrap_or(now).max(flow.dialled_at).min(now),
            noticed: now,
            reason: reason.unwrap_or(Reason::of(cause.evidence())),
        });
    }

    fn try_later(&mut self, key: FlowKey, now: Time) {
        let failures = self.flows.get(&key).map_or(0, |flow| self.failures(flow)).saturating_sub(1);
        let Some(flow) = self.flows.get_mut(&key) else { return };
        let pause = FIRST_PAUSE.saturating_mul(1 << failures.min(16)).min(LONGEST_PAUSE);
        flow.dial_due = Some(now + pause);
        self.schedule(key);
    }

    /// The peer at the end of `link` is suspect: every flow that has somebody better goes there at once.
    pub(super) fn leave_link(&mut self, link: LinkId, now: Time, actions: &mut Vec<Action>) {
        let range = LegId::new(link, 0)..=LegId::new(link, u32::MAX);
        let mut legs: Vec<(LegId, FlowKey)> = self.legs.range(range).map(|(leg, key)| (*leg, *key)).collect();
        self.small_first(&mut legs);
        for (leg, key) in legs {
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
            return if flow.splice.dials() > 0 || flow.waits {
                self.dial(key, now, actions)
            };
        };
        match self.links.standing_over(next.link()) {
            Standing::Up | Standing::Absent if !flow.is_next_unnamed() => return,
            Standing::Up | Standing::Absent | Standing::Draining => {
                return self.move_on(key, now, actions);
            }
            Standing::Suspect | Standing::Failed => {}
        }
        let chosen = flow.next_hop.choose(|node| self.standing(node));
        let better = chosen.and_then(|place| flow.next_hop.get(place));
        // Whoever is heard over another link than this one is better, too.
        let is_heard = better.is_some_and(|candidate| {
            self.links.active(candidate.node).is_some() && self.standing(candidate.node) < Standing::Suspect
        });
        // Where all come and go it is better to stay than to be without.
        let is_better = chosen != flow.next_hop.current_place() || is_heard;
        if is_better && flow.may_dial(now) {
            self.leave_next(key, Cause::Silence, now, actions);
        } else if let Some(flow) = self.flows.get_mut(&key) {
            flow.doubt_due = flow.doubt_due.or(Some(now + self.config.stuck_timeout));
            self.cry(key, now, actions);
            self.schedule(key);
        }
    }

    /// Leaves a flow's next for another candidate.
    pub(super) fn leave_next(&mut self, key: FlowKey, cause: Cause, now: Time, actions: &mut Vec<Action>) {
        let next = self.flows.get(&key).and_then(|flow| flow.splice.next());
        self.begin_repair(key, cause, next, now);
        if let Some(leg) = self.flows.get_mut(&key).and_then(|flow| flow.splice.leave_next()) {
            self.drop_leg(leg, CloseCode::Moved, now, actions);
        }
        self.next_lost(key, cause, now, actions);
    }

    /// The next hop answered: if that ends a repair, the origin is told, and another backup is looked for.
    pub(super) fn repaired(&mut self, key: FlowKey, now: Time, actions: &mut Vec<Action>) {
        let Some(flow) = self.flows.get_mut(&key) else { return };
        let is_first = flow.splice.dials() == flow.former_dials + 1;
        let elsewhere = is_first && flow.next_hop.current_place() != Some(0);
        let planned = flow.next_hop.get(0).map(|planned| planned.node);
        let has_failed = flow.next_hop.has_failed(0)
            || planned.is_some_and(|node| self.links.standing(node) >= Standing::Suspect);
        let is_unplanned = elsewhere && (has_failed || flow.is_first_path());
        let unplanned = is_unplanned.then(|| Repair::unplanned(flow, has_failed, now));
        // The target is the target, whoever is before it.
        let is_relay = flow.next_hop.current().is_some_and(|current| !current.is_target());
        let followed = (is_first && is_relay && !flow.is_first_path()).then(|| Repair::followed(now));
        let Some(repair) = flow.repair.take().or(unplanned).or(followed) else { return };
        flow.unprotected |= repair.cause.is_failure();
        let Some(record) = flow.rights.records().first() else { return };
        let place = |n: Option<usize>| n.and_then(|n| u8::try_from(n).ok()).unwrap_or(u8::MAX);
        let reroute = Reroute {
            hop: record.scope.hop,
            version: record.scope.version,
            from: place(repair.from.as_ref().and_then(|from| flow.next_hop.place(from.node))),
            to: place(flow.next_hop.current_place()),
            cause: repair.cause,
            gap_us: micros(now.since(repair.since)),
            detected_us: micros(repair.noticed.since(repair.since)),
            replayed: flow.splice.replayed(),
            reason: repair.reason,
        };
        let (from, to) = (repair.from, flow.next_hop.current().cloned());
        if let Some(from) = from.as_ref().filter(|_| reroute.cause.is_failure()) {
            flow.note_failed(from.node, Ground::Seen(reroute.reason.evidence), now);
        }
        flow.serving.extend(to.as_ref().map(|to| (reroute.hop, to.node)));
        flow.reroutes.insert(reroute.hop, reroute);
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
