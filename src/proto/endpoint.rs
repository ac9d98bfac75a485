//! The endpoint's machine: it opens flows to targets, and is a target itself once it serves a name.
//!
//! As an origin it asks the bootstrap for a route to each target and, when a flow reaches nobody on its chain any more,
//! for another one. As a target it keeps links to a few *attachment relays*, which it dials itself (so it may sit behind
//! NAT), and tells the bootstrap which: the last hop's primary and backup are among them.

mod avoided;
mod backups;
mod rebuild;
mod renewals;
mod routes;
mod target;
mod throttled;

use super::agent::{AgentConfig, BootstrapAgent};
use super::failure_memory::Ground;
use super::families::Families;
use super::flows::{FAILED_LIFETIME, FlowKey, Flows, FlowsConfig, FlowsEvent};
use super::frame::Evidence;
use super::id::{ChainId, FlowId, NodeId};
use super::machine::{Action, AskFailure, Event, Machine, Notice, OpenFailure};
use super::record::Route;
use super::rpc::{Planned, Refusal, Request, Response};
use super::time::Time;
use super::timers::Timers;
use avoided::Told;
pub use avoided::{Avoided, Avoider};
use backups::Backups;
use rebuild::{HOP_TIMEOUT, Waiting, Without};
use renewals::Renewals;
use routes::Routes;
pub use routes::{Kept, MAX_DESTINATIONS, MAX_ROUTES};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;
pub use target::ATTACHMENTS;
use target::Target;

/// How often an endpoint wants to hear a relay that carries none of its flows. It has only a few such, and all its flows
/// depend on them: a dead one must not go unnoticed for as long as among relays.
pub const IDLE_INTERVAL: Duration = Duration::from_secs(1);
/// Where the bootstrap knew nobody else, only those are excluded that failed a flow within this time: by then it has heard
/// of who died, and who has recovered is better than nobody.
const SHORT_MEMORY: Duration = Duration::from_secs(1);
/// How often a plan is asked for before a flow counts as not to be opened.
const PLAN_ATTEMPTS: u32 = 3;

/// Where a flow shall lead, and how.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Destination {
    /// The target's name.
    pub name: String,
    /// Relays on the chain.
    pub hops: u8,
}

/// What an endpoint asked for.
#[derive(Clone, Debug)]
enum Asked {
    Plan { flow: FlowId, to: Destination, attempt: u32 },
    NewRoute { flow: FlowKey, without: Without },
    Spare { flow: FlowKey, without: Without },
    Backup { flow: FlowKey, hop: u8, chain: ChainId },
    Renewal { flow: FlowKey },
    Attachments,
}

/// An endpoint. See the module's documentation.
#[derive(Debug)]
pub struct Endpoint {
    flows: Flows,
    agent: BootstrapAgent<Asked>,
    /// Where the flows lead that are being opened.
    opening: HashMap<FlowId, Destination>,
    /// Which relays the chains of flows that are being opened shall not have, if the pool has others.
    apart: HashMap<FlowId, Vec<NodeId>>,
    /// Open flows, and those whose chains shall have no relay in common with theirs.
    pairs: BTreeMap<FlowKey, FlowKey>,
    /// Where the open flows of this origin lead.
    open: HashMap<FlowKey, Destination>,
    /// Flows for which another route is being asked for.
    asking_route: HashSet<FlowKey>,
    backups: Backups,
    renewals: Renewals,
    routes: Routes,
    /// Whether the shell was told that it may store other routes.
    routes_told: bool,
    told: Told,
    /// Until when whoever waits for a route waits for a bootstrap.
    waits: Timers<Waiting>,
    target: Option<Target>,
    /// The IP families that this node can dial.
    dials: Families,
}

impl Endpoint {
    /// An endpoint that opens flows and serves no name yet.
    #[must_use]
    pub fn new(me: NodeId, mut flows: FlowsConfig, agent: AgentConfig) -> Self {
        let idle = &mut flows.links.detector.idle;
        *idle = IDLE_INTERVAL.min(*idle);
        Self {
            flows: Flows::new(me, true, flows),
            agent: BootstrapAgent::new(agent),
            opening: HashMap::new(),
            apart: HashMap::new(),
            pairs: BTreeMap::new(),
            open: HashMap::new(),
            asking_route: HashSet::new(),
            backups: Backups::default(),
            renewals: Renewals::default(),
            routes: Routes::default(),
            routes_told: false,
            told: Told::default(),
            waits: Timers::default(),
            target: None,
            dials: Families::BOTH,
        }
    }

    /// This node can dial these IP families from now on: bootstraps name it no relays that have other addresses alone.
    pub const fn set_dials(&mut self, dials: Families) {
        self.dials = dials;
    }

    // ---- as an origin ----

    /// Opens a flow: ends in [`Notice::Opened`] or [`Notice::OpenFailed`].
    pub fn open(&mut self, flow: FlowId, to: Destination, now: Time, actions: &mut Vec<Action>) {
        self.opening.insert(flow, to);
        self.open_in_time(flow, now);
        self.ask_plan(flow, 1, actions);
    }

    /// The same, over none of the relays that serve another open flow, if the pool has enough others.
    pub fn open_apart(
        &mut self,
        flow: FlowId,
        to: Destination,
        from: FlowKey,
        now: Time,
        actions: &mut Vec<Action>,
    ) {
        self.apart.insert(flow, self.serving(from));
        self.pairs.insert(from, FlowKey { flow, ..from });
        self.open(flow, to, now, actions);
    }

    /// The relays that serve a flow.
    fn serving(&self, flow: FlowKey) -> Vec<NodeId> {
        self.in_use(flow).map(|used| used.serving().collect()).unwrap_or_default()
    }

    /// The relays that a flow's chain shall not have, if the pool has others: those of the flow that it is kept apart from.
    fn kept_apart_from(&self, flow: FlowKey) -> Vec<NodeId> {
        let pair = self.pairs.iter().find(|(one, other)| [**one, **other].contains(&flow));
        pair.map(|(one, other)| self.serving(if *one == flow { *other } else { *one })).unwrap_or_default()
    }

    /// The application is no longer interested in a flow that it was opening.
    pub fn cancel(&mut self, flow: FlowId) {
        self.opening.remove(&flow);
        self.apart.remove(&flow);
        self.waits.set(Waiting::Open(flow), None);
    }

    fn ask_plan(&mut self, flow: FlowId, attempt: u32, actions: &mut Vec<Action>) {
        let Some(to) = self.opening.get(&flow).cloned() else { return };
        let (exclude, dials) = (self.apart.get(&flow).cloned().unwrap_or_default(), self.dials);
        let request = Request::Plan { target: to.name.clone(), hops: to.hops, exclude, dials };
        // The next attempt is another bootstrap's.
        self.agent.ask(Asked::Plan { flow, to, attempt }, request, attempt > 1, actions);
    }

    fn planned(
        &mut self,
        flow: FlowId,
        to: &Destination,
        planned: Planned,
        now: Time,
        actions: &mut Vec<Action>,
    ) {
        let Planned { route, unprotected, .. } = planned;
        // Kept also if nobody waits for the flow any more.
        self.routes.keep(to, route.clone(), now);
        self.apart.remove(&flow);
        if let Some(to) = self.opening.remove(&flow) {
            self.open_over(flow, to, (route, unprotected), false, now, actions);
        }
    }

    fn not_planned(
        &mut self,
        flow: FlowId,
        attempt: u32,
        cause: OpenFailure,
        now: Time,
        actions: &mut Vec<Action>,
    ) {
        // A second chain that shares relays with the first is better than none.
        if matches!(cause, OpenFailure::Refused(_)) && self.apart.remove(&flow).is_some() {
            return self.ask_plan(flow, attempt, actions);
        }
        let transient = !matches!(&cause, OpenFailure::Refused(refusal) if !is_transient(refusal));
        if transient && self.open_over_kept(flow, now, actions) {
            return;
        }
        let untried = usize::try_from(attempt).is_ok_and(|asked| asked < self.agent.bootstraps());
        if transient && attempt < PLAN_ATTEMPTS || untried && is_local(&cause) {
            return self.ask_plan(flow, attempt + 1, actions);
        }
        self.waits.set(Waiting::Open(flow), None);
        self.apart.remove(&flow);
        if self.opening.remove(&flow).is_some() {
            actions.push(Action::Notify(Notice::OpenFailed { flow, cause }));
        }
    }

    fn ask_backup(
        &mut self,
        flow: FlowKey,
        hop: u8,
        active: Option<NodeId>,
        now: Time,
        actions: &mut Vec<Action>,
    ) {
        let memory = if self.backups.is_short(flow, hop) { SHORT_MEMORY } else { FAILED_LIFETIME };
        let Some((records, mut exclude)) = self.flows.chain_lately(&flow, memory, now) else { return };
        let records = records.to_vec();
        self.note_failed(flow, &exclude, now);
        if !self.backups.is_short(flow, hop) {
            exclude.extend(self.kept_apart_from(flow));
        }
        tracing::debug!(flow = %flow.flow, hop, ?active, ?exclude, "asks for other candidates");
        let Some(chain) = records.first().map(|record| record.scope.chain) else { return };
        let request = Request::Replace { hop, records, active, exclude, dials: self.dials };
        self.agent.ask(Asked::Backup { flow, hop, chain }, request, false, actions);
    }

    /// Whether a flow still goes over that chain: if not, what was asked about it is of no use.
    fn goes_over(&self, flow: FlowKey, chain: ChainId) -> bool {
        self.flows.route(&flow).and_then(Route::scope).is_some_and(|scope| scope.chain == chain)
    }

    fn backup_answered(
        &mut self,
        flow: FlowKey,
        hop: u8,
        result: Result<Response, AskFailure>,
        now: Time,
        actions: &mut Vec<Action>,
    ) {
        match &result {
            Ok(Response::Replaced(record)) => tracing::debug!(
                flow = %flow.flow, hop, version = record.scope.version, candidates = record.candidate_count(),
                "other candidates"
            ),
            other => tracing::debug!(flow = %flow.flow, hop, answer = ?other, "no other candidates"),
        }
        if let Ok(Response::Replaced(record)) = result {
            self.flows.backup_found(flow, &record, now, actions);
            let neighbours = self.flows.around_backup(&flow, hop);
            self.backups.found(flow, hop, &neighbours, now);
            self.records_changed(flow, now);
        } else if self.backups.refused(flow, hop, !is_final(&result), now) {
            // Somebody on the chain reaches nobody, and there is nobody else for that hop.
            self.flows.want_route(flow, now);
        }
    }

    // ---- both ----

    /// Leaves: names are given up, and flows for this cause; those whose applications have said their last word are left to
    /// end by themselves.
    pub fn leave(&mut self, cause: &str, now: Time, actions: &mut Vec<Action>) {
        self.agent.leave(&mut self.flows, now, actions);
        // Or it would look for other attachment relays as these go.
        self.target = None;
        self.opening.clear();
        self.apart.clear();
        self.flows.abort_all(cause, false, now, actions);
        self.act_on_flows(now, actions);
    }

    /// Whether nothing holds an endpoint that leaves any more: neither a flow nor a name.
    #[must_use]
    pub fn has_left(&self) -> bool {
        self.flows.is_empty() && !self.agent.is_leaving()
    }

    fn catch_up(&mut self, now: Time, actions: &mut Vec<Action>) {
        // Origins will ask for a new record: before they hear of it, the bootstrap has to know the relays.
        if self.agent.take_registered() && self.target.as_mut().is_some_and(Target::take_reattached) {
            self.flows.tell_reattached(actions);
        }
        // To act on one may bring about others.
        while self.flows.has_events() {
            let events = self.flows.take_events();
            self.tell_avoided(&events, now, actions);
            for event in events {
                self.act_on(event, now, actions);
            }
        }
    }

    fn act_on(&mut self, event: FlowsEvent, now: Time, actions: &mut Vec<Action>) {
        match event {
            FlowsEvent::WantsRoute(flow) => self.rebuild(flow, now, actions),
            FlowsEvent::WantsBackup { flow, hop, active } => {
                let is_served = active.is_some();
                actions.push(Action::Notify(Notice::CandidateWanted { flow, hop, is_served }));
                // The wait begins when the hop was first found without anybody, and not with each request.
                if active.is_none() && !self.backups.is_unserved(flow, hop) {
                    self.waits.set(Waiting::Backup(flow, hop), Some(now + HOP_TIMEOUT));
                }
                if self.backups.want(flow, hop, active, now) {
                    self.ask_backup(flow, hop, active, now, actions);
                }
            }
            FlowsEvent::PeerSuspect { node, refused } => {
                let ground = Ground::Seen(self.evidence(node).unwrap_or(Evidence::Silence));
                self.routes.note_failed(node, ground, now);
                if refused {
                    self.agent.report(node, actions);
                } else {
                    self.agent.doubt(node, now);
                }
                self.attachment_doubtful(node, now, actions);
            }
            FlowsEvent::PeerRecovered(node) | FlowsEvent::PeerUp(node) => {
                self.routes.note_alive(node);
                self.agent.take_back(node, self.flows.links().has_dialled(node), actions);
                self.attach(now, actions);
            }
            FlowsEvent::PeerUnreachable { node, is_new } => {
                self.routes.note_failed(node, Ground::Seen(Evidence::NoAnswer), now);
                if is_new {
                    self.agent.report_unreached(node, actions);
                }
                self.attachment_lost(node, Evidence::NoAnswer, now, actions);
            }
            FlowsEvent::PeerGone(node) => self.attachment_lost(node, Evidence::Transport, now, actions),
            FlowsEvent::PeerDraining(node) => {
                self.routes.note_failed(node, Ground::Seen(Evidence::Word), now);
                self.attachment_lost(node, Evidence::Word, now, actions);
            }
            FlowsEvent::Ended(flow) => {
                self.open.remove(&flow);
                self.pairs.retain(|one, other| *one != flow && *other != flow);
                self.backups.forget(flow);
                self.renewals.forget(flow);
                self.told.forget(flow);
                self.waits.set(Waiting::Rebuild(flow), None);
            }
        }
    }

    fn asked(
        &mut self,
        asked: Asked,
        result: Result<Response, AskFailure>,
        now: Time,
        actions: &mut Vec<Action>,
    ) {
        if let Ok(Response::Refused(Refusal::Throttled { retry_after })) = result {
            return self.throttled(asked, retry_after, now, actions);
        }
        if let Ok(Response::Planned(plan)) = &result {
            self.flows.time_mut().hear(plan.now, now);
        }
        self.routes.set_time(self.flows.time());
        match (asked, result) {
            (Asked::Plan { flow, to, .. }, Ok(Response::Planned(plan))) => {
                self.planned(flow, &to, *plan, now, actions)
            }
            (Asked::Plan { flow, attempt, .. }, result) => {
                let cause = match result {
                    Ok(Response::Refused(refusal)) => OpenFailure::Refused(refusal),
                    Ok(_) => OpenFailure::BadRoute,
                    Err(failure) => OpenFailure::NoAnswer(failure),
                };
                self.not_planned(flow, attempt, cause, now, actions);
            }
            (Asked::NewRoute { flow, without }, result) => {
                self.new_route_answered(flow, without, result, now, actions);
            }
            (Asked::Spare { flow, without }, result) => {
                self.spare_answered(flow, without, result, now, actions);
            }
            (Asked::Backup { flow, hop, chain }, result) if self.goes_over(flow, chain) => {
                self.backup_answered(flow, hop, result, now, actions);
            }
            (Asked::Backup { .. }, _) => {}
            (Asked::Renewal { flow }, result) => self.renewal_answered(flow, result, now, actions),
            (Asked::Attachments, Ok(Response::Relays(found))) => self.attachments_found(found, now, actions),
            (Asked::Attachments, result) => {
                if let Ok(Response::Refused(refusal @ Refusal::OutOfReach { .. })) = result
                    && self.target.as_ref().is_some_and(|target| target.knows_nobody(now))
                {
                    actions.push(Action::Notify(Notice::Unattached { refusal }));
                }
                self.no_attachments(now, actions);
            }
        }
    }
}

const fn is_transient(refusal: &Refusal) -> bool {
    matches!(refusal, Refusal::Internal)
}

/// Whether another bootstrap may know better: each knows those who registered there.
const fn is_local(cause: &OpenFailure) -> bool {
    use Refusal::{NotAttached, OutOfReach, PoolTooSmall, UnknownName};
    let OpenFailure::Refused(refusal) = cause else { return false };
    matches!(refusal, UnknownName { .. } | PoolTooSmall { .. } | NotAttached { .. } | OutOfReach { .. })
}

/// Whether the same question will never be answered otherwise.
const fn is_final(result: &Result<Response, AskFailure>) -> bool {
    matches!(result, Ok(Response::Refused(Refusal::Denied { .. })))
}

impl Machine for Endpoint {
    fn handle(&mut self, event: Event, now: Time, actions: &mut Vec<Action>) {
        if let Event::Asked { ask, result } = event {
            if let Some((asked, result)) = self.agent.answered(ask, result, &mut self.flows, now, actions) {
                self.asked(asked, result, now, actions);
            }
        } else if matches!(event, Event::BootstrapReached) {
            self.agent.reached(&mut self.flows, now, actions);
        } else {
            self.flows.handle(event, now, actions);
        }
        self.catch_up(now, actions);
        self.tell_routes(actions);
    }

    fn handle_timeout(&mut self, now: Time, actions: &mut Vec<Action>) {
        self.flows.handle_timeout(now, actions);
        self.agent.handle_timeout(&mut self.flows, now, actions);
        for (flow, hop, active) in self.backups.take_due(now) {
            self.ask_backup(flow, hop, active, now, actions);
        }
        self.wait_is_due(now, actions);
        self.spares_are_due(now, actions);
        self.renew_due(now, actions);
        self.catch_up(now, actions);
        self.attach(now, actions);
        self.tell_routes(actions);
    }

    fn poll_timeout(&self) -> Option<Time> {
        let target = self.target.as_ref();
        // Without room nothing would be asked, and the node would wake for it again and again.
        let ask = target.filter(|target| target.room(&self.flows) > 0).and_then(|target| target.ask_due);
        let offer = target.and_then(|target| target.offer_due);
        let routes = [self.waits.next(), self.routes.poll_timeout(), self.renewals.poll_timeout()];
        let own = routes.into_iter().chain([self.backups.poll_timeout(), ask, offer]);
        own.chain([self.flows.poll_timeout(), self.agent.poll_timeout()]).flatten().min()
    }

    fn flows(&mut self) -> &mut Flows {
        &mut self.flows
    }

    fn act_on_flows(&mut self, now: Time, actions: &mut Vec<Action>) {
        if self.flows.has_events() {
            self.catch_up(now, actions);
            self.tell_routes(actions);
        }
    }
}

#[cfg(test)]
#[expect(clippy::wildcard_enum_match_arm, reason = "tests look for what they look for")]
mod tests;
