//! How a node gets, keeps and repairs a flow's next hop.

use super::{Flow, FlowKey, Flows, News};
use crate::proto::frame::{Cause, CloseCode, Control, Reroute};
use crate::proto::id::NodeId;
use crate::proto::links::Standing;
use crate::proto::machine::{Action, LinkId, Notice};
use crate::proto::splice::LegId;
use crate::proto::time::Time;
use std::time::Duration;

/// A next hop that failed and is being replaced.
#[derive(Clone, Copy, Debug)]
pub(super) struct Repair {
    cause: Cause,
    /// Place of the candidate that failed first.
    from: Option<usize>,
    /// The last sign of life from it.
    since: Time,
}

/// The first pause between dials once every candidate has failed; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
/// The longest.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Failures of every candidate after which a relay says `NoPath`, even if they answer their attaches.
const FAILURES_BEFORE_NO_PATH: u32 = 3;
/// Failed dials in a row after which an origin asks for another route.
const DIALS_BEFORE_NEW_ROUTE: u32 = 2;

/// What to do about a flow without next.
enum Plan {
    Open(LinkId, usize),
    Wait(usize),
    GiveUp,
}

impl Flows {
    /// Dials the most promising candidate of a flow's next hop.
    pub(super) fn dial(&mut self, key: FlowKey, now: Time, actions: &mut Vec<Action>) {
        let Some(flow) = self.flows.get(&key).filter(|flow| flow.splice.wants_dial()) else { return };
        match self.plan(flow) {
            Plan::Open(link, place) => self.open_leg(key, link, place, now, actions),
            Plan::Wait(place) => self.wait_for_link(key, place, now, actions),
            Plan::GiveUp if flow.is_origin() => self.try_later(key, now),
            Plan::GiveUp => self.end(key, CloseCode::NoPath, CloseCode::Lost, now, actions),
        }
    }

    fn plan(&self, flow: &Flow) -> Plan {
        let chosen = flow.next_hop.choose(|node| self.standing(node));
        let Some((place, candidate)) = chosen.and_then(|n| Some((n, flow.next_hop.get(n)?))) else {
            return Plan::GiveUp;
        };
        match self.links.active(candidate.node) {
            _ if flow.splice.is_exhausted() || self.is_hopeless(flow) => Plan::GiveUp,
            Some(link) => Plan::Open(link, place),
            None if candidate.address.is_some() => Plan::Wait(place),
            None => Plan::GiveUp,
        }
    }

    /// Whether each candidate has failed this flow so often that it is time to say so upward.
    fn is_hopeless(&self, flow: &Flow) -> bool {
        !flow.is_origin() && flow.next_hop.least_failures() >= FAILURES_BEFORE_NO_PATH
    }

    fn standing(&self, node: NodeId) -> Standing {
        if node == self.me { Standing::Failed } else { self.links.standing(node) }
    }

    fn open_leg(&mut self, key: FlowKey, link: LinkId, place: usize, now: Time, actions: &mut Vec<Action>) {
        let Some(leg) = self.links.open_leg(link, now) else { return };
        let due = now + self.config.attach_timeout;
        let Some(flow) = self.flows.get_mut(&key) else { return };
        let opening = flow.splice.dial(leg);
        flow.next_hop.set_current(place);
        flow.dial_due = Some(due);
        self.legs.insert(leg, key);
        match flow.rights.attach(leg.number(), key.flow, opening, place) {
            Some(attach) => actions.push(Action::OpenLeg { leg, flow: key, attach: Box::new(attach) }),
            None => self.leg_over(leg, CloseCode::Forbidden, None, now, actions),
        }
        self.schedule(key);
    }

    /// No link to any candidate yet: the first that comes up is taken.
    fn wait_for_link(&mut self, key: FlowKey, place: usize, now: Time, actions: &mut Vec<Action>) {
        self.stop_waiting(key);
        let until = now + self.config.upkeep * 3;
        let Some(flow) = self.flows.get_mut(&key) else { return };
        flow.next_hop.set_current(place);
        flow.dial_due = Some(now + self.config.connect_timeout);
        flow.waits = true;
        for candidate in flow.next_hop.candidates() {
            if let Some(address) = candidate.address {
                self.waiting.entry(candidate.node).or_default().insert(key);
                self.links.want(candidate.node, address, until, now, actions);
            }
        }
        self.schedule(key);
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
        } else if flow.waits {
            self.stop_waiting(key);
            if self.has_link(key) {
                self.dial(key, now, actions);
            } else {
                self.wait_failed(key, now, actions);
            }
        } else {
            self.dial(key, now, actions);
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
                flow.repair =
                    flow.repair.or(Some(Repair { cause: Cause::Unreachable, from: Some(0), since: now }));
                self.schedule(key);
                continue;
            }
            if is_planned {
                flow.repair = flow.repair.filter(|_| flow.splice.dials() > 0);
            }
            self.stop_waiting(key);
            self.dial(key, now, actions);
            self.settle(key, now, actions);
        }
    }

    /// A link that flows wait for could not be had.
    pub(super) fn waiting_failed(&mut self, peer: NodeId, now: Time, actions: &mut Vec<Action>) {
        for key in self.waiting.remove(&peer).unwrap_or_default() {
            if let Some(flow) = self.flows.get_mut(&key)
                && let Some(place) = flow.next_hop.place(peer)
            {
                flow.next_hop.set_current(place);
            }
            self.stop_waiting(key);
            self.wait_failed(key, now, actions);
        }
    }

    fn has_link(&self, key: FlowKey) -> bool {
        let candidates = self.flows.get(&key).into_iter().flat_map(|flow| flow.next_hop.candidates());
        candidates.into_iter().any(|candidate| self.links.active(candidate.node).is_some())
    }

    fn wait_failed(&mut self, key: FlowKey, now: Time, actions: &mut Vec<Action>) {
        if let Some(flow) = self.flows.get_mut(&key) {
            flow.splice.dial_failed();
        }
        self.next_lost(key, Cause::Unreachable, now, actions);
    }

    /// next is no more, or could not be had: tries again, elsewhere if there is an elsewhere.
    pub(super) fn next_lost(&mut self, key: FlowKey, cause: Cause, now: Time, actions: &mut Vec<Action>) {
        self.begin_repair(key, cause, now, now);
        let Some(flow) = self.flows.get_mut(&key) else { return };
        flow.next_hop.penalise_current();
        flow.alone_since = flow.alone_since.or(flow.is_origin().then_some(now));
        let failed = flow.splice.failed_dials();
        let hopeless = failed >= DIALS_BEFORE_NEW_ROUTE || flow.next_hop.least_failures() > 0;
        if flow.is_origin() && hopeless && !flow.route_wanted {
            flow.route_wanted = true;
            self.news.push(News::WantsRoute(key));
        }
        if failed as usize > flow.next_hop.len() {
            self.try_later(key, now);
        } else {
            self.dial(key, now, actions);
        }
        self.settle(key, now, actions);
    }

    fn begin_repair(&mut self, key: FlowKey, cause: Cause, since: Time, now: Time) {
        if let Some(flow) = self.flows.get_mut(&key)
            && flow.repair.is_none()
            && flow.splice.dials() > 0
        {
            flow.repair = Some(Repair { cause, from: flow.next_hop.current_place(), since: since.min(now) });
        }
    }

    fn try_later(&mut self, key: FlowKey, now: Time) {
        let Some(flow) = self.flows.get_mut(&key) else { return };
        let pause = FIRST_PAUSE.saturating_mul(1 << flow.splice.failed_dials().min(16)).min(LONGEST_PAUSE);
        flow.dial_due = Some(now + pause);
        self.schedule(key);
    }

    /// The peer at the end of `link` is suspect: every flow that has somebody better goes there at once.
    pub(super) fn leave_link(&mut self, link: LinkId, now: Time, actions: &mut Vec<Action>) {
        let since = self.links.last_heard(link).unwrap_or(now);
        let range = LegId::new(link, 0)..=LegId::new(link, u32::MAX);
        let legs: Vec<(LegId, FlowKey)> = self.legs.range(range).map(|(leg, key)| (*leg, *key)).collect();
        for (leg, key) in legs {
            let Some(flow) = self.flows.get(&key).filter(|flow| flow.splice.next() == Some(leg)) else {
                continue;
            };
            if flow.next_hop.choose(|node| self.standing(node)) != flow.next_hop.current_place() {
                self.begin_repair(key, Cause::Silence, since, now);
                self.leave_next(key, Cause::Silence, now, actions);
            }
        }
    }

    /// Leaves a flow's next for another candidate.
    pub(super) fn leave_next(&mut self, key: FlowKey, cause: Cause, now: Time, actions: &mut Vec<Action>) {
        if let Some(leg) = self.flows.get_mut(&key).and_then(|flow| flow.splice.leave_next()) {
            self.drop_leg(leg, CloseCode::Moved, now, actions);
        }
        self.next_lost(key, cause, now, actions);
    }

    /// The next hop answered: if that ends a repair, the origin is told, and another backup is looked for.
    pub(super) fn repaired(&mut self, key: FlowKey, now: Time, actions: &mut Vec<Action>) {
        let Some(flow) = self.flows.get_mut(&key) else { return };
        let elsewhere = flow.next_hop.current_place() != Some(0) && flow.splice.dials() == 1;
        let unplanned = Repair { cause: Cause::Unreachable, from: Some(0), since: now };
        let Some(repair) = flow.repair.take().or(elsewhere.then_some(unplanned)) else { return };
        let Some(record) = flow.rights.records().first() else { return };
        let place = |n: Option<usize>| n.and_then(|n| u8::try_from(n).ok()).unwrap_or(u8::MAX);
        let reroute = Reroute {
            hop: record.scope.hop,
            version: record.scope.version,
            from: place(repair.from),
            to: place(flow.next_hop.current_place()),
            cause: repair.cause,
            gap_us: u32::try_from(now.since(repair.since).as_micros()).unwrap_or(u32::MAX),
        };
        let candidate = |n: u8| flow.next_hop.get(usize::from(n)).cloned();
        let (from, to) = (candidate(reroute.from), candidate(reroute.to));
        if let Some(from) = &from {
            flow.note_failed(from.node);
        }
        if let Some(prev) = flow.splice.prev() {
            let control = Control::Rerouted { leg: prev.number(), reroute };
            actions.push(Action::Control { link: prev.link(), control });
        }
        actions.push(Action::Notify(Notice::Rerouted { flow: key, reroute, from, to }));
        self.want_backup(key, now, actions);
    }
}
