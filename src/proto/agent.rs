//! The part of a node that talks to the bootstrap: its lease, its reports of dead neighbours, and what its owner asks.
//!
//! Requests may fail or take long. Flows never wait for them.

use super::enrolment::{self, Attempt, Change, Enrolment};
use super::flows::Flows;
use super::id::NodeId;
use super::machine::{Action, AskFailure, AskId, Notice};
use super::rpc::{Load, Offer, Request, Response};
use super::time::Time;
use super::timers::Timers;
use foldhash::{HashMap, HashMapExt};
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::collections::BTreeMap;
use std::time::Duration;

/// Questions that may be under way at once; beyond, reports are dropped.
const MAX_ASKS: usize = 1024;
/// How long a neighbour that is merely silent may take to be heard again before it is reported. Flows have left it by then;
/// but a report keeps everybody from it, and where processes wait for a processor, silences of some tenths of a second
/// mean nothing.
const REPORT_DELAY: Duration = Duration::from_millis(300);
/// Reported neighbours that are remembered, to be taken back; beyond, those of the smallest NodeIds are not.
const MAX_REPORTED: usize = 1024;

/// The driver knows the list of bootstraps and goes on to the next whenever it is asked afresh, so that to the enrolment
/// there seem to be always two: the one that is asked, and another.
const BOOTSTRAPS: usize = 2;

/// How a node presents itself to bootstraps.
#[derive(Clone, Debug, Default)]
pub struct AgentConfig {
    /// What listings call it.
    pub name: String,
    /// Where the jitter of its waits comes from.
    pub seed: u64,
    /// Its timeouts and retries.
    pub enrolment: enrolment::Config,
    /// How many bootstraps there are to choose from.
    pub bootstraps: usize,
}

#[derive(Clone, Debug)]
enum Purpose<Own> {
    Lease(Attempt),
    Report,
    Own(Own),
}

/// See the module's documentation. What the owner asks on its own account carries an `Own`.
#[derive(Debug)]
pub(super) struct BootstrapAgent<Own> {
    config: AgentConfig,
    enrolment: Option<Enrolment>,
    asks: HashMap<AskId, Purpose<Own>>,
    next_ask: u64,
    /// Silent neighbours, and when they are reported.
    doubted: Timers<NodeId>,
    /// Who was reported, until that is taken back.
    reported: BTreeMap<NodeId, Reported>,
    bootstrap: usize,
    /// How busy the node's machine is; its flows are counted when they are told.
    load: Load,
    /// Whether the bootstrap wants this node to drain.
    drain_ordered: bool,
    /// Whether the bootstrap has taken an offer since this was asked last.
    registered: bool,
}

/// What a neighbour was reported as, and what is known since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reported {
    /// It is dead.
    Down,
    /// It can't be dialled.
    Unreached,
    /// It can't be dialled, and has been heard since.
    Heard,
}

impl<Own> BootstrapAgent<Own> {
    pub(super) fn new(config: AgentConfig) -> Self {
        Self {
            config,
            enrolment: None,
            asks: HashMap::new(),
            next_ask: 0,
            doubted: Timers::default(),
            reported: BTreeMap::new(),
            bootstrap: 0,
            load: Load::default(),
            drain_ordered: false,
            registered: false,
        }
    }

    /// How many bootstraps there are to choose from.
    pub(super) const fn bootstraps(&self) -> usize {
        self.config.bootstraps
    }

    /// Asks the bootstrap on the owner's account.
    pub(super) fn ask(&mut self, own: Own, request: Request, fresh: bool, actions: &mut Vec<Action>) {
        self.send(Purpose::Own(own), request, fresh, actions);
    }

    fn send(&mut self, purpose: Purpose<Own>, request: Request, fresh: bool, actions: &mut Vec<Action>) {
        let ask = AskId(self.next_ask);
        self.next_ask += 1;
        self.asks.insert(ask, purpose);
        actions.push(Action::Ask { ask, request, fresh });
    }

    /// A question was answered, or not. What the owner asked comes back.
    pub(super) fn answered(
        &mut self,
        ask: AskId,
        result: Result<Response, AskFailure>,
        flows: &mut Flows,
        now: Time,
        actions: &mut Vec<Action>,
    ) -> Option<(Own, Result<Response, AskFailure>)> {
        match self.asks.remove(&ask)? {
            Purpose::Own(own) => return Some((own, result)),
            Purpose::Report => {}
            Purpose::Lease(attempt) => {
                let event = match result {
                    Ok(response) => enrolment::Event::Answered { attempt, response },
                    Err(failure) => enrolment::Event::Failed { attempt, failure: failure.into() },
                };
                self.enrol(event, flows, now, actions);
            }
        }
        None
    }

    /// A neighbour is silent: it is reported unless it is heard again soon.
    pub(super) fn doubt(&mut self, node: NodeId, now: Time) {
        self.doubted.set(node, Some(now + REPORT_DELAY));
    }

    /// A neighbour is dead. One report keeps it from being assigned, two take it out of the pool; its own next heartbeat brings
    /// it back.
    pub(super) fn report(&mut self, node: NodeId, actions: &mut Vec<Action>) {
        self.report_as(node, Reported::Down, actions);
    }

    /// A neighbour can't be dialled: the same, and it is remembered though it heartbeats.
    pub(super) fn report_unreached(&mut self, node: NodeId, actions: &mut Vec<Action>) {
        self.report_as(node, Reported::Unreached, actions);
    }

    fn report_as(&mut self, node: NodeId, reported: Reported, actions: &mut Vec<Action>) {
        // It is reported now, and need not be again when its time comes.
        self.doubted.set(node, None);
        if self.asks.len() < MAX_ASKS {
            // Only a dial shows that a relay can be dialled, also if it was found dead meanwhile.
            let was_unreached = self.reported.get(&node).is_some_and(|before| *before != Reported::Down);
            self.reported.insert(node, if was_unreached { Reported::Unreached } else { reported });
            if self.reported.len() > MAX_REPORTED {
                self.reported.pop_first();
            }
            let is_down = reported == Reported::Down;
            let down = Request::ReportDown { node };
            let request = if is_down { down } else { Request::ReportUnreached { node } };
            self.send(Purpose::Report, request, false, actions);
        }
    }

    /// A neighbour is heard, again or for the first time: if it was reported, that is taken back. If it could not be dialled, it
    /// counts as one that lives until this node has `dialled` it.
    pub(super) fn take_back(&mut self, node: NodeId, dialled: bool, actions: &mut Vec<Action>) {
        self.doubted.set(node, None);
        if self.asks.len() >= MAX_ASKS {
            return;
        }
        let request = match (self.reported.get(&node), dialled) {
            // What was heard was taken back already, as far as it can be without a dial.
            (None, _) | (Some(Reported::Heard), false) => return,
            (Some(Reported::Down), _) | (Some(Reported::Unreached), false) => Request::ReportUp { node },
            (Some(_), true) => Request::ReportReached { node },
        };
        if self.reported.remove(&node) == Some(Reported::Unreached) && !dialled {
            self.reported.insert(node, Reported::Heard);
        }
        self.send(Purpose::Report, request, false, actions);
    }

    // ---- the lease ----

    /// Offers this from now on; the first time, asks for a lease.
    pub(super) fn offer(&mut self, offer: Offer, flows: &mut Flows, now: Time, actions: &mut Vec<Action>) {
        let mut steps = Vec::new();
        match &mut self.enrolment {
            Some(enrolment) => enrolment.set_offer(offer, now, &mut steps),
            None => {
                let rng = StdRng::seed_from_u64(self.config.seed);
                let AgentConfig { name, enrolment: config, .. } = self.config.clone();
                let enrolment = Enrolment::new(config, name, offer, BOOTSTRAPS, rng);
                let enrolment = self.enrolment.insert(enrolment);
                enrolment.handle(enrolment::Event::Start, now, &mut steps);
            }
        }
        self.follow(steps, flows, now, actions);
    }

    /// How busy the node's machine is; heartbeats tell. The flows in it don't matter, they are counted here.
    pub(super) const fn set_load(&mut self, load: Load) {
        self.load = load;
    }

    /// The bootstrap hears of the flows soon if they have become markedly more or fewer.
    pub(super) fn tell_load(&mut self, flows: &Flows, now: Time) {
        let load = self.load_with(flows);
        if let Some(enrolment) = &mut self.enrolment {
            enrolment.tell_load(load, now);
        }
    }

    fn load_with(&self, flows: &Flows) -> Load {
        Load { flows: u32::try_from(flows.len()).unwrap_or(u32::MAX), ..self.load }
    }

    /// How often what has happened to this node's lease.
    pub(super) fn enrolment_counters(&self) -> enrolment::Counters {
        self.enrolment.as_ref().map(Enrolment::counters).unwrap_or_default()
    }

    /// Whether this node has a lease, as far as it knows.
    pub(super) fn is_enrolled(&self) -> bool {
        self.enrolment.as_ref().is_some_and(Enrolment::is_registered)
    }

    /// Whether the bootstrap has taken what this node offers now.
    pub(super) fn is_up_to_date(&self) -> bool {
        self.enrolment.as_ref().is_some_and(Enrolment::is_up_to_date)
    }

    /// This node may have been taken for dead: the bootstrap hears of it soon.
    pub(super) fn revive(&mut self, now: Time) {
        if let Some(enrolment) = &mut self.enrolment {
            enrolment.revive(now);
        }
    }

    /// A bootstrap can be reached again.
    pub(super) fn reached(&mut self, flows: &mut Flows, now: Time, actions: &mut Vec<Action>) {
        self.enrol(enrolment::Event::Reached, flows, now, actions);
    }

    /// This node is to be given nothing new.
    pub(super) fn drain(&mut self, flows: &mut Flows, now: Time, actions: &mut Vec<Action>) {
        self.enrol(enrolment::Event::Drain, flows, now, actions);
    }

    /// Gives the lease up.
    pub(super) fn leave(&mut self, flows: &mut Flows, now: Time, actions: &mut Vec<Action>) {
        let load = self.load_with(flows);
        if let Some(enrolment) = &mut self.enrolment {
            enrolment.set_load(load);
        }
        self.enrol(enrolment::Event::Shutdown, flows, now, actions);
    }

    /// Whether the bootstrap has yet to answer that.
    pub(super) fn is_leaving(&self) -> bool {
        self.enrolment.as_ref().is_some_and(Enrolment::is_leaving)
    }

    pub(super) fn handle_timeout(&mut self, flows: &mut Flows, now: Time, actions: &mut Vec<Action>) {
        while let Some(node) = self.doubted.pop_due(now) {
            self.report(node, actions);
        }
        let mut steps = Vec::new();
        // Before what is due, as that may be the heartbeat that tells of it.
        let load = self.load_with(flows);
        if let Some(enrolment) = &mut self.enrolment {
            enrolment.set_load(load);
            enrolment.handle_timeout(now, &mut steps);
        }
        self.follow(steps, flows, now, actions);
    }

    pub(super) fn poll_timeout(&self) -> Option<Time> {
        let lease = self.enrolment.as_ref().and_then(Enrolment::poll_timeout);
        [lease, self.doubted.next()].into_iter().flatten().min()
    }

    fn enrol(&mut self, event: enrolment::Event, flows: &mut Flows, now: Time, actions: &mut Vec<Action>) {
        let mut steps = Vec::new();
        if let Some(enrolment) = &mut self.enrolment {
            enrolment.handle(event, now, &mut steps);
        }
        self.follow(steps, flows, now, actions);
    }

    fn follow(
        &mut self,
        steps: Vec<enrolment::Action>,
        flows: &mut Flows,
        now: Time,
        actions: &mut Vec<Action>,
    ) {
        for step in steps {
            match step {
                enrolment::Action::Ask { attempt, request, fresh_link, bootstrap } => {
                    let is_another = std::mem::replace(&mut self.bootstrap, bootstrap) != bootstrap;
                    self.send(Purpose::Lease(attempt), request, fresh_link || is_another, actions);
                }
                enrolment::Action::Notify(notice) => self.tell(notice, flows, now, actions),
            }
        }
    }

    /// Whether the bootstrap has taken an offer since this was asked last.
    pub(super) const fn take_registered(&mut self) -> bool {
        std::mem::replace(&mut self.registered, false)
    }

    /// Whether the bootstrap wants this node to drain.
    pub(super) const fn is_drain_ordered(&self) -> bool {
        self.drain_ordered
    }

    fn tell(&mut self, notice: enrolment::Notice, flows: &mut Flows, now: Time, actions: &mut Vec<Action>) {
        let change = match notice {
            enrolment::Notice::Registered(lease) => {
                flows.time_mut().hear(lease.now, now);
                flows.ring_mut().extend(lease.keys);
                self.registered = true;
                Change::Registered
            }
            enrolment::Notice::Renewed(lease) => {
                flows.time_mut().hear(lease.now, now);
                flows.ring_mut().extend(lease.keys);
                self.drain_ordered |= lease.drain;
                Change::Renewed
            }
            enrolment::Notice::Trouble(trouble) => Change::Trouble(trouble),
            enrolment::Notice::Left => Change::Left,
        };
        actions.push(Action::Notify(Notice::Enrolment { change, counters: self.enrolment_counters() }));
    }
}

impl From<AskFailure> for enrolment::Failure {
    fn from(failure: AskFailure) -> Self {
        match failure {
            AskFailure::Timeout => Self::Timeout,
            AskFailure::Unreachable => Self::Network,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flows::FlowsConfig;

    const ME: NodeId = NodeId::from_bytes([1; 32]);
    const PEER: NodeId = NodeId::from_bytes([2; 32]);

    struct World {
        agent: BootstrapAgent<()>,
        flows: Flows,
        now: Time,
        actions: Vec<Action>,
    }

    impl World {
        fn new() -> Self {
            let flows = Flows::new(ME, false, FlowsConfig::default());
            Self {
                agent: BootstrapAgent::new(AgentConfig::default()),
                flows,
                now: Time::ZERO,
                actions: Vec::new(),
            }
        }

        fn pass(&mut self, time: Duration) {
            self.now = self.now + time;
            self.agent.handle_timeout(&mut self.flows, self.now, &mut self.actions);
        }

        fn asked(&mut self) -> Vec<Request> {
            let request =
                |action| if let Action::Ask { request, .. } = action { Some(request) } else { None };
            self.actions.drain(..).filter_map(request).collect()
        }
    }

    #[test]
    fn silence_is_reported_unless_it_ends_soon() {
        let mut world = World::new();
        world.agent.doubt(PEER, world.now);
        world.pass(REPORT_DELAY - Duration::from_millis(1));
        world.agent.take_back(PEER, true, &mut world.actions);
        world.pass(REPORT_DELAY);
        assert_eq!(world.asked(), [], "it was heard in time");

        world.agent.doubt(PEER, world.now);
        assert_eq!(world.agent.poll_timeout(), Some(world.now + REPORT_DELAY));
        world.pass(REPORT_DELAY);
        assert_eq!(world.asked(), [Request::ReportDown { node: PEER }]);
        world.agent.take_back(PEER, true, &mut world.actions);
        world.agent.take_back(PEER, true, &mut world.actions);
        assert_eq!(world.asked(), [Request::ReportUp { node: PEER }], "once is enough");
    }

    #[test]
    fn who_is_known_to_be_dead_is_reported_at_once_and_once() {
        let mut world = World::new();
        world.agent.doubt(PEER, world.now);
        world.agent.report(PEER, &mut world.actions);
        world.pass(REPORT_DELAY * 2);
        assert_eq!(world.asked(), [Request::ReportDown { node: PEER }]);
    }

    #[test]
    fn only_a_dial_shows_that_who_could_not_be_dialled_can() {
        let mut world = World::new();
        let (up, reached) = (Request::ReportUp { node: PEER }, Request::ReportReached { node: PEER });
        world.agent.report_unreached(PEER, &mut world.actions);
        assert_eq!(world.asked(), [Request::ReportUnreached { node: PEER }]);
        let dials = [(false, Some(&up)), (false, None), (true, Some(&reached)), (true, None)];
        for (dialled, expected) in dials {
            world.agent.take_back(PEER, dialled, &mut world.actions);
            assert_eq!(world.asked().first(), expected);
        }
        world.agent.report_unreached(PEER, &mut world.actions);
        world.agent.report(PEER, &mut world.actions);
        world.asked();
        world.agent.take_back(PEER, true, &mut world.actions);
        assert_eq!(world.asked(), [reached], "that it seemed dead later changes nothing");
    }
}
