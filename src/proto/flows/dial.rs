//! How a node gets a flow's next hop: whom it dials, and what it waits for if nobody can be dialled.

use super::config::FlowsConfig;
use super::flow::Flow;
use super::flow::next::Event;
use super::key::FlowKey;
use super::table::Flows;
use super::tasks::Task;
use crate::backoff::Pauses;
use crate::frame::CloseCode;
use crate::id::NodeId;
use crate::links::Standing;
use crate::machine::{Action, LinkId};
use crate::planted::{self, Law};
use crate::record::Candidate;
use crate::splice::LegId;
use crate::time::Time;
use std::time::Duration;

/// Before a candidate that failed is dialled again.
const PAUSES: Pauses = Pauses::doubling(Duration::from_millis(5), Duration::from_millis(500));
/// Failures of every candidate after which a relay says `NoPath`.
pub(super) const FAILURES_BEFORE_NO_PATH: u32 = 2;

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
        flow.on_next(Event::Dialling);
        flow.outage.unserved(now);
        let Some(flow) = self.flows.get(&key) else { return };
        match self.plan(flow, now) {
            // Before it is given a turn on the link, which others would lose.
            Plan::Open(..) if !flow.dials.may(now) => self.wait_to_dial(key, now),
            Plan::Open(link, place) if self.paces.admits(link, key, flow.is_bulky(), now) => {
                self.open_leg(key, link, place, now, actions);
            }
            Plan::Open(..) => self.wait_for_turn(key, now),
            Plan::Wait => self.wait_for_link(key, now, actions),
            // An origin has nobody to tell, and goes on trying.
            Plan::GiveUp if flow.is_origin() => self.try_later(key, now),
            Plan::GiveUp => self.end(key, CloseCode::NoPath, CloseCode::Lost, now, actions),
        }
    }

    /// Too many attach over the link at once: the flow is told when it is its turn.
    fn wait_for_turn(&mut self, key: FlowKey, now: Time) {
        if let Some(flow) = self.flows.get_mut(&key) {
            flow.on_next(Event::LinkBusy { until: now + self.config.attach_timeout });
            self.schedule(key);
        }
    }

    /// The flow was dialled too often lately: a neighbour could not tell more from a storm.
    fn wait_to_dial(&mut self, key: FlowKey, now: Time) {
        if let Some(flow) = self.flows.get_mut(&key) {
            flow.on_next(Event::TooSoon { until: flow.dials.due(now) });
            self.schedule(key);
        }
    }

    /// Of flows that have to go elsewhere together, those first that have little to send again.
    pub(super) fn small_first(&self, legs: &mut [(LegId, FlowKey)]) {
        legs.sort_by_key(|(_, key)| self.flows.get(key).is_some_and(Flow::is_bulky));
    }

    fn plan(&self, flow: &Flow, now: Time) -> Plan {
        let chosen = flow.candidates.choose(|node| self.standing(node));
        let Some((place, candidate)) = chosen.and_then(|n| Some((n, flow.candidates.get(n)?))) else {
            return Plan::GiveUp;
        };
        match self.links.active(candidate.node) {
            // Also while a link is up: the candidate may answer and lead nowhere.
            _ if self.is_hopeless(flow, now) => Plan::GiveUp,
            Some(link) => Plan::Open(link, place),
            // Nobody dials a target, which may be behind NAT. Without its link there is no way on.
            None if !candidate.is_target() => Plan::Wait,
            None => Plan::GiveUp,
        }
    }

    /// Whether even the best candidate has failed this flow so often, for so long, that it is time to say so upward.
    pub(super) fn is_hopeless(&self, flow: &Flow, now: Time) -> bool {
        let failed = self.failures(flow) >= FAILURES_BEFORE_NO_PATH && now >= self.no_path_at(flow, now);
        !flow.is_origin() && (failed || flow.splice.is_exhausted()) && !planted::broken(Law::NoPath)
    }

    /// When a relay may say at the earliest that there is no way on. The origin can't help the one before the target.
    fn no_path_at(&self, flow: &Flow, now: Time) -> Time {
        let is_last = flow.candidates.iter().any(Candidate::is_target);
        flow.outage.unserved_since().unwrap_or(now)
            + if is_last { Duration::ZERO } else { self.config.no_path_timeout }
    }

    pub(super) fn failures(&self, flow: &Flow) -> u32 {
        flow.candidates.failures(|node| self.standing(node))
    }

    fn open_leg(&mut self, key: FlowKey, link: LinkId, place: usize, now: Time, actions: &mut Vec<Action>) {
        // The link has no number left for a leg, or is gone.
        let Some(leg) = self.links.open_leg(link, now) else { return self.try_later(key, now) };
        let FlowsConfig { attach_timeout, stuck_timeout, .. } = self.config;
        let Some(flow) = self.flows.get_mut(&key) else { return };
        let opening = flow.splice.dial(leg);
        flow.dials.dialled(now);
        flow.candidates.set_current(place);
        let node = flow.candidates.current().map_or(self.me, |candidate| candidate.node);
        // A suspect may be dead, so it gets a short try, and others are asked for meanwhile.
        let doubtful = self.links.standing(node) >= Standing::Suspect;
        flow.on_next(Event::LegOpened { until: now + if doubtful { stuck_timeout } else { attach_timeout } });
        // The attach carries the newest records.
        flow.late_update.clear();
        self.legs.insert(leg, key);
        let is_orphan = flow.is_orphan();
        // The attach says whether this node is an orphan, so next need not be told.
        flow.alone.take_events();
        match flow.rights.attach(leg.number(), key.flow, opening, place, is_orphan) {
            Some(attach) => actions.push(Action::OpenLeg { leg, flow: key, attach: Box::new(attach) }),
            None => self.tasks.push(key, Task::LegFailed(leg)),
        }
        if doubtful {
            self.ask_for_others(key, now, actions);
        }
        self.schedule(key);
    }

    /// No link to any candidate: the first that comes up is taken. Meanwhile the origin is asked for others, at once if
    /// one of these is known to be bad, else when a new link should have come up. A flow that is being opened stands still
    /// for nobody: it gives a handshake its time, as others would need the same.
    fn wait_for_link(&mut self, key: FlowKey, now: Time, actions: &mut Vec<Action>) {
        let Some(flow) = self.flows.get(&key) else { return };
        if self.wait_end(flow, now) <= now {
            if !flow.is_origin() {
                return self.end(key, CloseCode::NoPath, CloseCode::Lost, now, actions);
            }
            self.want_route(key, now);
            if let Some(flow) = self.flows.get_mut(&key) {
                flow.outage.unstuck();
            }
        }
        let FlowsConfig { stuck_timeout, handshake_time, upkeep, .. } = self.config;
        let Some(flow) = self.flows.get(&key) else { return };
        let is_bad = |candidate: &Candidate| self.standing(candidate.node) >= Standing::Suspect;
        let is_one_bad = flow.candidates.iter().any(is_bad);
        let ask_after = if flow.is_opening() { handshake_time } else { stuck_timeout };
        let since = flow.outage.stuck_since(now);
        let (ask_at, end) = (since + ask_after, self.wait_end(flow, now));
        let Some(flow) = self.flows.get_mut(&key) else { return };
        flow.outage.stuck(since);
        // It wakes to ask for others, and then to give up.
        flow.on_next(Event::NoLink { until: if now < ask_at { ask_at } else { end } });
        for candidate in flow.candidates.iter() {
            // A target has no addresses: it dials its attachment relays itself.
            if !candidate.is_target() {
                self.waiting.entry(candidate.node).or_default().insert(key);
                self.links.want(candidate.node, &candidate.addresses, now + upkeep * 2, now, actions);
            }
        }
        if is_one_bad || now >= ask_at {
            self.ask_for_others(key, now, actions);
        }
        self.schedule(key);
    }

    /// When a flow that can reach no candidate has waited for long enough.
    fn wait_end(&self, flow: &Flow, now: Time) -> Time {
        let is_new = |candidate: &Candidate| self.standing(candidate.node) == Standing::Absent;
        let is_one_new = flow.candidates.iter().any(is_new);
        let FlowsConfig { connect_timeout, stuck_timeout, .. } = self.config;
        // A link that was not tried yet may come up. Those that are known to be bad are not worth that long.
        let end = flow.outage.stuck_since(now) + if is_one_new { connect_timeout } else { stuck_timeout };
        if flow.is_origin() { end } else { end.max(self.no_path_at(flow, now)) }
    }

    /// None of the candidates can be reached: an origin needs another route, a relay other candidates.
    pub(super) fn ask_for_others(&mut self, key: FlowKey, now: Time, actions: &mut Vec<Action>) {
        let Some(flow) = self.flows.get_mut(&key) else { return };
        if flow.is_origin() {
            self.want_route(key, now);
        } else {
            self.want_candidates(key, now, actions);
        }
    }

    /// A link that flows wait for is up. A flow that is only being opened gives the candidate that was planned for it a
    /// head start (as in RFC 8305); in a repair the first that can be had is taken.
    pub(super) fn dial_waiting(&mut self, peer: NodeId, now: Time) {
        for key in self.waiting.remove(&peer).unwrap_or_default() {
            let Some(flow) = self.flows.get_mut(&key) else { continue };
            let is_planned = flow.candidates.place(peer) == Some(0);
            if flow.is_opening() && !is_planned {
                flow.on_next(Event::SecondBest { until: now + self.config.head_start });
                self.schedule(key);
                continue;
            }
            self.tasks.dial_and_settle(key);
        }
    }

    /// A candidate that was silent is heard again: flows that have nobody go on over it at once.
    pub(super) fn dial_recovered(&mut self, peer: NodeId) {
        for key in self.flows_with(peer) {
            let Some(flow) = self.flows.get_mut(&key) else { continue };
            flow.candidates.forgive(peer);
            // A flow that never was dialled is dialled when it is settled (`conclude`).
            if flow.splice.wants_dial() && (flow.splice.dials() > 0 || flow.next.waits_for_link()) {
                self.tasks.dial_and_settle(key);
            }
        }
    }

    /// A link that flows wait for could not be had: they take another, if there is one.
    pub(super) fn waiting_failed(&mut self, peer: NodeId) {
        for key in self.waiting.remove(&peer).unwrap_or_default() {
            self.tasks.dial_and_settle(key);
        }
    }

    pub(super) fn try_later(&mut self, key: FlowKey, now: Time) {
        let failures = self.flows.get(&key).map_or(0, |flow| self.failures(flow)).saturating_sub(1);
        let Some(flow) = self.flows.get_mut(&key) else { return };
        flow.on_next(Event::TooSoon { until: now + PAUSES.after(failures) });
        self.schedule(key);
    }
}
