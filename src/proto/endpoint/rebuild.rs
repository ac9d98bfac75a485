//! How an origin comes by routes: from a bootstrap, or from those that it keeps.
//!
//! For a new flow the bootstrap's fresh plan wins; if none comes in time, a kept route that has not expired is taken. For a
//! flow that reaches nobody any more, the spare is taken at once, if it seems good: that saves the way to the bootstrap. Else
//! the bootstrap is asked, at first for a chain without a relay of the old one, and a kept route taken if no answer comes.

use super::routes::{InUse, Kept};
use super::{Asked, Destination, Endpoint};
use crate::flows::FlowKey;
use crate::id::{FlowId, NodeId};
use crate::machine::{Action, AskFailure, ChainChange, Notice, OpenFailure};
use crate::record::{Candidate, Route};
use crate::rpc::{MAX_LISTED_NODES, Refusal, Request, Response};
use crate::time::Time;
use std::time::Duration;

/// How long a bootstrap may take to answer before a kept route is taken.
const PLAN_TIMEOUT: Duration = Duration::from_secs(1);
const REBUILD_TIMEOUT: Duration = Duration::from_millis(300);
/// How long a hop that nobody serves waits for other candidates before the flow takes another route.
pub(super) const HOP_TIMEOUT: Duration = Duration::from_millis(150);
/// How long a flow has to be open before a spare is looked for.
const SPARE_DELAY: Duration = Duration::from_millis(500);
/// How old a spare may get before another is asked for: relays come and go.
const SPARE_LIFE: Duration = Duration::from_secs(300);
/// The pause before a spare is asked for again, if there was none.
const NO_SPARE_PAUSE: Duration = Duration::from_secs(10);

/// Who waits for a bootstrap's answer, and not for ever; or until it has time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Waiting {
    Open(FlowId),
    Rebuild(FlowKey),
    Backup(FlowKey, u8),
    /// To ask for a plan again, in the same attempt.
    Plan(FlowId, u32),
    /// To ask for a route again.
    NewRoute(FlowKey, Without),
}

/// Whom another chain is to do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Without {
    /// Everybody on the old chain, and who failed.
    Chain,
    /// Those who serve the old chain, and who failed.
    Serving,
    /// Only who failed.
    Failed,
    /// Only who must have swallowed bytes.
    Suspects,
    /// Nobody.
    Nobody,
}

impl Endpoint {
    pub(super) fn in_use(&self, flow: FlowKey) -> Option<InUse> {
        let (route, hops) = self.flows.in_use(&flow)?;
        let nodes = |hop: &Vec<Candidate>| hop.iter().map(|candidate| candidate.node).collect();
        let hops = hops.iter().map(nodes).collect();
        Some(InUse { chain: route.scope()?.chain, target: route.target, hops })
    }

    // ---- new flows ----

    /// Opens a flow over a route.
    pub(super) fn open_over(
        &mut self,
        flow: FlowId,
        to: Destination,
        (route, unprotected): (Route, Vec<u8>),
        kept: bool,
        now: Time,
        actions: &mut Vec<Action>,
    ) {
        self.waits.set(Waiting::Open(flow), None);
        let target = route.target;
        let Some(key) = self.flows.open(flow, route, now, actions) else {
            let cause = OpenFailure::BadRoute;
            return actions.push(Action::Notify(Notice::OpenFailed { flow, cause }));
        };
        self.routes.set_spare_due(&to, Some(now + SPARE_DELAY));
        self.open.insert(key, to);
        self.renew_in_time(key, now);
        actions.push(Action::Notify(Notice::Opened { flow: key, target, unprotected, kept }));
        self.flows.tell_chain(key, ChainChange::Opened, actions);
    }

    /// No bootstrap answers: opens a flow over a kept route. Returns whether there is one.
    pub(super) fn open_over_kept(&mut self, flow: FlowId, now: Time, actions: &mut Vec<Action>) -> bool {
        let route = self.opening.get(&flow).and_then(|to| self.routes.for_new_flow(to, now));
        let Some((to, route)) = route.and_then(|route| Some((self.opening.remove(&flow)?, route))) else {
            return false;
        };
        self.apart.remove(&flow);
        let unprotected = (1u8..).zip(&route.records).filter(|(_, record)| record.candidate_count() < 2);
        // The last record is the target's, for which there is no backup.
        let relays = route.records.len().saturating_sub(1);
        let unprotected = unprotected.take_while(|(hop, _)| usize::from(*hop) <= relays);
        let unprotected = unprotected.map(|(hop, _)| hop).collect();
        self.open_over(flow, to, (route, unprotected), true, now, actions);
        true
    }

    /// Waits for the bootstrap for as long as there is no other way.
    pub(super) fn open_in_time(&mut self, flow: FlowId, now: Time) {
        let Some(to) = self.opening.get(&flow) else { return };
        if self.routes.for_new_flow(to, now).is_some() {
            self.waits.set(Waiting::Open(flow), Some(now + PLAN_TIMEOUT));
        }
    }

    // ---- rebuilds ----

    /// A flow reaches nobody on its chain: takes another.
    pub(super) fn rebuild(&mut self, flow: FlowKey, now: Time, actions: &mut Vec<Action>) {
        let Some((to, used)) = self.open.get(&flow).cloned().zip(self.in_use(flow)) else { return };
        self.routes.led_nowhere(&to, used.chain, now);
        let failed = self.flows.chain(&flow, now).map(|(_, failed)| failed).unwrap_or_default();
        self.note_failed(flow, &failed, now);
        // One question at a time. If its answer does not come, a kept route is taken.
        if self.asking_route.contains(&flow) {
            return self.waits.set(Waiting::Rebuild(flow), Some(now + REBUILD_TIMEOUT));
        }
        match self.routes.spare(&to, &used, now) {
            Some(route) => self.go_over(flow, route, now, actions),
            None => self.ask_new_route(flow, Without::Chain, now, actions),
        }
    }

    fn ask_new_route(&mut self, flow: FlowKey, without: Without, now: Time, actions: &mut Vec<Action>) {
        let Some(to) = self.open.get(&flow).cloned() else { return };
        if !self.asking_route.insert(flow) {
            return;
        }
        let exclude = self.excluded(flow, without, now);
        self.waits.set(Waiting::Rebuild(flow), Some(now + REBUILD_TIMEOUT));
        let request = Request::Plan { target: to.name, hops: to.hops, exclude, dials: self.dials };
        self.agent.ask(Asked::NewRoute { flow, without }, request, false, actions);
    }

    fn excluded(&self, flow: FlowKey, without: Without, now: Time) -> Vec<NodeId> {
        let failed = self.flows.chain(&flow, now).map(|(_, failed)| failed).unwrap_or_default();
        let used = self.in_use(flow);
        let mut nodes = match without {
            Without::Nobody => Vec::new(),
            Without::Suspects => self.flows.suspects(&flow, now),
            Without::Failed => failed,
            Without::Serving => used.iter().flat_map(InUse::serving).chain(failed).collect(),
            Without::Chain => used.iter().flat_map(InUse::relays).chain(failed).collect(),
        };
        let mut seen = std::collections::HashSet::new();
        nodes.retain(|node| seen.insert(*node));
        nodes.truncate(MAX_LISTED_NODES);
        nodes
    }

    pub(super) fn new_route_answered(
        &mut self,
        flow: FlowKey,
        without: Without,
        result: Result<Response, AskFailure>,
        now: Time,
        actions: &mut Vec<Action>,
    ) {
        self.asking_route.remove(&flow);
        self.waits.set(Waiting::Rebuild(flow), None);
        match result {
            Ok(Response::Planned(plan)) => {
                let Some(to) = self.open.get(&flow) else { return };
                self.routes.keep(to, plan.route.clone(), now);
                // It may have found its way over a kept route or another backup meanwhile.
                if self.goes_on(flow) {
                    self.flows.route_not_found(flow, now);
                } else {
                    self.go_over(flow, plan.route, now, actions);
                }
            }
            Ok(Response::Refused(refusal)) if is_for_want(&refusal) && without != Without::Nobody => {
                self.ask_new_route(flow, self.fewer(flow, without, now), now, actions);
            }
            _ => self.rebuild_over_kept(flow, now, actions),
        }
    }

    /// Whom to do without if the pool is too small.
    fn fewer(&self, flow: FlowKey, without: Without, now: Time) -> Without {
        match without {
            Without::Chain | Without::Serving => Without::Failed,
            Without::Failed if !self.flows.suspects(&flow, now).is_empty() => Without::Suspects,
            Without::Failed | Without::Suspects | Without::Nobody => Without::Nobody,
        }
    }

    /// Whether a flow seems to go on over its present chain: its next answers, and no relay further down is at a loss.
    fn goes_on(&self, flow: FlowKey) -> bool {
        let mut unserved = self.backups.unserved(flow).filter(|hop| !self.flows.is_served(&flow, *hop));
        self.flows.reaches_next(&flow) && unserved.next().is_none()
    }

    /// There is no fresh route for a flow: takes a kept one.
    fn rebuild_over_kept(&mut self, flow: FlowKey, now: Time, actions: &mut Vec<Action>) {
        if self.goes_on(flow) {
            return self.flows.route_not_found(flow, now);
        }
        let known = self.open.get(&flow).zip(self.in_use(flow));
        match known.and_then(|(to, used)| self.routes.for_rebuild(to, &used, now)) {
            Some(route) => self.go_over(flow, route, now, actions),
            None => self.flows.route_not_found(flow, now),
        }
    }

    /// A flow goes on over another route.
    fn go_over(&mut self, flow: FlowKey, route: Route, now: Time, actions: &mut Vec<Action>) {
        let Some(to) = self.open.get(&flow).cloned() else { return };
        // What was wanted was wanted for the old chain.
        self.backups.forget(flow);
        self.flows.reroute(flow, route, now, actions);
        self.renew_in_time(flow, now);
        // That was the spare, or the spare was of no use.
        self.routes.set_spare_due(&to, Some(now));
    }

    /// The bootstrap lets these wait for too long.
    pub(super) fn wait_is_due(&mut self, now: Time, actions: &mut Vec<Action>) {
        while let Some(waiting) = self.waits.pop_due(now) {
            match waiting {
                Waiting::Open(flow) => drop(self.open_over_kept(flow, now, actions)),
                Waiting::Plan(flow, attempt) => self.ask_plan(flow, attempt, actions),
                Waiting::NewRoute(flow, without) => {
                    // It counted as asked while the bootstrap had no time.
                    self.asking_route.remove(&flow);
                    if self.goes_on(flow) {
                        self.flows.route_not_found(flow, now);
                    } else {
                        self.ask_new_route(flow, without, now, actions);
                    }
                }
                Waiting::Backup(flow, hop) => {
                    if self.backups.is_unserved(flow, hop) && !self.flows.is_served(&flow, hop) {
                        self.flows.want_route(flow, now);
                    }
                }
                Waiting::Rebuild(flow) => {
                    let Some((to, used)) = self.open.get(&flow).zip(self.in_use(flow)) else {
                        continue;
                    };
                    let kept = self.routes.for_rebuild(to, &used, now);
                    if let Some(route) = kept.filter(|_| !self.goes_on(flow)) {
                        self.go_over(flow, route, now, actions);
                    }
                }
            }
        }
    }

    // ---- spares and records ----

    /// Looks for a spare where it is time, for one of the flows that are open to each destination.
    pub(super) fn spares_are_due(&mut self, now: Time, actions: &mut Vec<Action>) {
        for to in self.routes.take_spare_due(now) {
            // The smallest, as any of a hash map would make runs of the simulator differ.
            let flow = self.open.iter().filter(|(_, open)| **open == to).map(|(flow, _)| *flow).min();
            let Some((flow, used)) = flow.and_then(|flow| Some((flow, self.in_use(flow)?))) else {
                continue;
            };
            match self.routes.spare_until(&to, &used, SPARE_LIFE, now).filter(|until| *until > now) {
                Some(until) => self.routes.set_spare_due(&to, Some(until)),
                None => self.ask_spare(flow, Without::Chain, now, actions),
            }
        }
    }

    fn ask_spare(&mut self, flow: FlowKey, without: Without, now: Time, actions: &mut Vec<Action>) {
        let Some(to) = self.open.get(&flow).cloned() else { return };
        let exclude = self.excluded(flow, without, now);
        let request = Request::Spare { target: to.name, hops: to.hops, exclude, dials: self.dials };
        self.agent.ask(Asked::Spare { flow, without }, request, false, actions);
    }

    pub(super) fn spare_answered(
        &mut self,
        flow: FlowKey,
        without: Without,
        result: Result<Response, AskFailure>,
        now: Time,
        actions: &mut Vec<Action>,
    ) {
        let Some(to) = self.open.get(&flow).cloned() else { return };
        match result {
            Ok(Response::Planned(plan)) => {
                self.routes.keep(&to, plan.route, now);
                let used = self.in_use(flow);
                let until = used.and_then(|used| self.routes.spare_until(&to, &used, SPARE_LIFE, now));
                self.routes.set_spare_due(&to, Some(until.unwrap_or(now + NO_SPARE_PAUSE)));
            }
            Ok(Response::Refused(refusal)) if is_for_want(&refusal) && without == Without::Chain => {
                self.ask_spare(flow, Without::Serving, now, actions);
            }
            _ => self.routes.set_spare_due(&to, Some(now + NO_SPARE_PAUSE)),
        }
    }

    /// A flow's chain has other records than before: they are renewed in time, and its kept route is them.
    pub(super) fn records_changed(&mut self, flow: FlowKey, now: Time) {
        self.renew_in_time(flow, now);
        let Some((to, used)) = self.open.get(&flow).zip(self.in_use(flow)) else { return };
        if let Some((records, _)) = self.flows.chain(&flow, now) {
            self.routes.update(to, used.chain, records, now);
        }
        if self.routes.spare(to, &used, now).is_none() {
            self.routes.set_spare_due(to, Some(now + SPARE_DELAY));
        }
    }

    // ---- for the shell ----

    /// Keeps these routes, from an earlier life of this endpoint.
    pub fn remember(&mut self, routes: Vec<Kept>, now: Time) {
        for Kept { to, route } in routes {
            self.routes.keep(&to, route, now);
        }
        // These come from the shell, which has stored them.
        self.routes.changed = false;
    }

    /// The routes to store, if they have changed since this was asked last.
    pub fn take_routes(&mut self, now: Time) -> Option<Vec<Kept>> {
        self.routes_told = false;
        std::mem::take(&mut self.routes.changed).then(|| self.routes.all(now))
    }

    /// Has the shell ask for them.
    pub(super) fn tell_routes(&mut self, actions: &mut Vec<Action>) {
        if self.routes.changed && !self.routes_told {
            self.routes_told = true;
            actions.push(Action::Notify(Notice::RoutesChanged));
        }
    }
}

/// Whether more may be had by excluding fewer.
const fn is_for_want(refusal: &Refusal) -> bool {
    use Refusal::{NotAttached, OutOfReach, PoolTooSmall};
    matches!(refusal, PoolTooSmall { .. } | NotAttached { .. } | OutOfReach { .. })
}
