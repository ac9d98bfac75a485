//! All nodes, what lies between them, and time.
//!
//! Drives the machines as the production shell does: facts become events, actions become what happens; bytes move between
//! streams and lanes whenever a flow is woken. Everything that a run depends on is in its seed: nothing here reads a clock,
//! and no order of a hash map reaches anybody.

mod applications;
mod bootstrap_process;
mod ending;
mod faults;
mod legs;
mod life;
mod links;
mod pool;
mod ways;

pub(crate) use faults::Hit;
pub(crate) use life::name;

use crate::check::Checks;
use crate::conn::{Conn, Packet, Side};
use crate::detection::Detection;
use crate::dice::Dice;
use crate::happening::Happening;
use crate::network::{Network, NodeIndex};
use crate::node::{Nodes, Role};
use crate::settings::{Fidelity, START, Settings};
use crate::statistics::Statistics;
use crate::trace::{Trace, TraceHash};
use crate::traffic::Apps;
use bootstrap_process::BootstrapProcess;
use hopline_proto::crypto::Key;
use hopline_proto::flows::FlowKey;
use hopline_proto::machine::{Action, DialFailure, Event, Machine, Notice};
use hopline_proto::{NodeId, Time};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

/// See the module's documentation.
pub(crate) struct World {
    pub(crate) now: Time,
    pub(crate) settings: Settings,
    pub(crate) network: Network,
    pub(crate) nodes: Nodes,
    pub(crate) bootstrap_process: BootstrapProcess,
    pub(crate) apps: Apps,
    pub(crate) checks: Checks,
    pub(crate) statistics: Statistics,
    pub(crate) trace: Trace,
    pub(crate) hash: TraceHash,
    /// Things that happened.
    pub(crate) events: u64,
    dice: Dice,
    detection: Detection,
    queue: crate::queue::Queue<Happening>,
    /// Connections by number; numbers are not used again.
    conns: Vec<Option<Box<Conn>>>,
    /// Ends with packets that could not leave.
    stalled: BTreeSet<(u32, Side)>,
    index: HashMap<NodeId, NodeIndex>,
    woken: VecDeque<(NodeIndex, FlowKey)>,
    /// The directions of flows, by number and sending end.
    ways: BTreeMap<(usize, usize), ways::Seen>,
    /// Events that follow at once from an action.
    immediate: VecDeque<Event>,
    scratch: Vec<Action>,
}

impl World {
    pub(crate) fn new(settings: Settings) -> Self {
        let mut dice = Dice::new(settings.seed, 1);
        let secret = Key::from_bytes(dice.bytes());
        Self {
            now: START,
            network: Network::new(settings.weather, dice.next()),
            nodes: Nodes::default(),
            bootstrap_process: BootstrapProcess::new(settings.bootstrap, secret, dice.next()),
            apps: Apps::default(),
            checks: Checks::default(),
            statistics: Statistics::default(),
            trace: Trace::default(),
            hash: TraceHash::default(),
            events: 0,
            detection: Detection::new(dice.next()),
            dice,
            settings,
            queue: crate::queue::Queue::default(),
            conns: Vec::new(),
            stalled: BTreeSet::new(),
            index: HashMap::new(),
            woken: VecDeque::new(),
            ways: BTreeMap::new(),
            immediate: VecDeque::new(),
            scratch: Vec::new(),
        }
    }

    pub(crate) const fn is_full(&self) -> bool {
        matches!(self.settings.fidelity, Fidelity::Full)
    }

    /// The world's time since its beginning.
    pub(crate) const fn elapsed(&self) -> Duration {
        self.now.since(START)
    }

    /// Lets everything happen up to `end`, or until a check fails.
    pub(crate) fn run_until(&mut self, end: Time) {
        while self.checks.failure.is_none() {
            self.wake_all();
            if self.queue.next_at().is_none_or(|at| at > end) {
                break;
            }
            self.step();
        }
        self.now = self.now.max(end);
    }

    /// Lets the next thing happen.
    fn step(&mut self) {
        let Some((at, happening)) = self.queue.pop() else { return };
        self.now = self.now.max(at);
        self.events += 1;
        match self.receiver(&happening) {
            Some(node) => self.deliver(node, happening),
            None => self.process(happening),
        }
    }

    /// Whose business it is; nobody's, if the world deals with it.
    fn receiver(&self, happening: &Happening) -> Option<NodeIndex> {
        match happening {
            Happening::Timer { node, .. }
            | Happening::DialFailed { node, .. }
            | Happening::Answer { node, .. }
            | Happening::App { node, .. } => Some(*node),
            Happening::Packet { conn, side, .. }
            | Happening::Up { conn, side }
            | Happening::Refused { conn, side }
            | Happening::Idle { conn, side } => self.conn(*conn).map(|conn| conn.end(*side).node),
            Happening::Dial { .. }
            | Happening::Request { .. }
            | Happening::Work { .. }
            | Happening::Bootstrap => None,
        }
    }

    fn deliver(&mut self, index: NodeIndex, happening: Happening) {
        let now = self.now;
        let node = self.nodes.at_mut(index);
        if !node.is_alive() {
            if let Happening::Packet { conn, side, .. } = happening {
                self.refuse(conn, side);
            }
            return;
        }
        if node.is_busy(now) {
            let (idle, frozen, life) = (node.inbox.is_empty(), node.frozen, node.life);
            let at = node.busy_until.max(now);
            node.inbox.push_back(happening);
            if idle && !frozen {
                self.schedule(at, Happening::Work { node: index, life });
            }
            return;
        }
        self.process(happening);
        let node = self.nodes.at_mut(index);
        if !node.slow.is_zero() {
            node.busy_until = now + node.slow;
        }
    }

    /// A node deals with what waited: all of it, or one thing if it is slow.
    fn work(&mut self, index: NodeIndex, life: u32) {
        loop {
            let now = self.now;
            let node = self.nodes.at_mut(index);
            if node.life != life || node.frozen {
                return;
            }
            let Some(happening) = node.inbox.pop_front() else { return };
            let (slow, more) = (node.slow, !node.inbox.is_empty());
            self.process(happening);
            if !slow.is_zero() {
                self.nodes.at_mut(index).busy_until = now + slow;
                if more {
                    self.schedule(now + slow, Happening::Work { node: index, life });
                }
                return;
            }
            self.wake_all();
        }
    }

    fn process(&mut self, happening: Happening) {
        self.hash_happening(&happening);
        match happening {
            Happening::Timer { node, life, due } => self.timer(node, life, due),
            Happening::Packet { conn, side, packet } => self.receive(conn, side, packet),
            Happening::Up { conn, side } => self.up(conn, side),
            Happening::Idle { conn, side } => self.idle(conn, side),
            Happening::Refused { conn, side } => self.refused(conn, side),
            Happening::Dial { from, life, to, deadline } => self.dial(from, life, to, deadline),
            Happening::DialFailed { node, life, peer } => {
                if self.nodes.at(node).life == life {
                    self.tell(node, Event::ConnectFailed { peer, failure: DialFailure::NoAnswer });
                }
            }
            Happening::Request { node, life, ask, request } => self.request(node, life, ask, *request),
            Happening::Answer { node, life, ask, result } => {
                if self.nodes.at(node).life == life {
                    self.tell(node, Event::Asked { ask, result: *result });
                }
            }
            Happening::App { app, node } => self.app_due(app, node),
            Happening::Work { node, life } => self.work(node, life),
            Happening::Bootstrap => self.bootstrap_due(),
        }
    }

    fn hash_happening(&mut self, happening: &Happening) {
        let (kind, whom) = match happening {
            Happening::Timer { node, .. } => (1, *node as u64),
            Happening::Packet { conn, side, .. } => (2, u64::from(*conn) << 1 | *side as u64),
            Happening::Up { conn, side } => (3, u64::from(*conn) << 1 | *side as u64),
            Happening::Idle { conn, side } => (4, u64::from(*conn) << 1 | *side as u64),
            Happening::Refused { conn, side } => (12, u64::from(*conn) << 1 | *side as u64),
            Happening::Dial { from, to, .. } => (5, (*from as u64) << 32 | *to as u64),
            Happening::DialFailed { node, .. } => (6, *node as u64),
            Happening::Request { node, .. } => (7, *node as u64),
            Happening::Answer { node, .. } => (8, *node as u64),
            Happening::App { app, .. } => (9, *app as u64),
            Happening::Work { node, .. } => (10, *node as u64),
            Happening::Bootstrap => (11, 0),
        };
        self.hash.word(self.now.as_micros());
        self.hash.word(kind << 56 | whom);
    }

    // ---- machines ----

    /// Lets `f` use a living node's machine, and does what it says.
    pub(crate) fn with<T>(
        &mut self,
        index: NodeIndex,
        f: impl FnOnce(&mut Role, Time, &mut Vec<Action>) -> T,
    ) -> Option<T> {
        let local = self.local(index);
        let mut actions = std::mem::take(&mut self.scratch);
        let result = self.nodes.at_mut(index).role.as_mut().map(|role| f(role, local, &mut actions));
        self.perform(index, local, actions);
        result
    }

    /// Does what a machine says, and tells it what follows at once from that.
    fn perform(&mut self, index: NodeIndex, local: Time, mut actions: Vec<Action>) {
        loop {
            for action in actions.drain(..) {
                self.act(index, action);
            }
            let Some(event) = self.immediate.pop_front() else { break };
            if let Some(role) = &mut self.nodes.at_mut(index).role {
                role.handle(event, local, &mut actions);
            }
        }
        self.scratch = actions;
        self.checks.heeded(self.now, self.nodes.at_mut(index));
        self.pass_on_room(index);
        self.arm(index);
    }

    /// Looks at the flow that has room again, if there is one.
    fn pass_on_room(&mut self, index: NodeIndex) {
        let woken = self.nodes.at_mut(index).role.as_mut().and_then(|role| role.flows().take_woken());
        self.woken.extend(woken.map(|flow| (index, flow)));
    }

    fn tell(&mut self, node: NodeIndex, event: Event) {
        self.with(node, |machine, now, actions| machine.handle(event, now, actions));
    }

    /// What a node's clock shows.
    pub(crate) fn local(&self, node: NodeIndex) -> Time {
        self.nodes.at(node).skew.local(self.now, START)
    }

    fn timer(&mut self, index: NodeIndex, life: u32, due: Time) {
        let node = self.nodes.at_mut(index);
        if node.life != life || node.armed != Some(due) {
            return;
        }
        node.armed = None;
        self.with(index, |machine, now, actions| {
            if machine.poll_timeout().is_some_and(|due| due <= now) {
                machine.handle_timeout(now, actions);
            }
        });
    }

    /// Sets a node's one timer, unless it is set for an earlier moment: then it is set anew when that has passed. One
    /// that was set for a later moment counts no more.
    fn arm(&mut self, index: NodeIndex) {
        let (now, slack) = (self.now, self.settings.timer_slack);
        let node = self.nodes.at_mut(index);
        let Some(due) = node.role.as_ref().and_then(Role::poll_timeout) else { return };
        let due = node.skew.world(due, START).max(now);
        if node.armed.is_some_and(|armed| armed <= due) {
            return;
        }
        node.armed = Some(due);
        let life = node.life;
        let late = if slack.is_zero() { slack } else { slack.mul_f64(self.dice.below(1000) as f64 / 1000.0) };
        self.schedule(due + late, Happening::Timer { node: index, life, due });
    }

    fn schedule(&mut self, at: Time, happening: Happening) {
        self.queue.push(at.max(self.now), happening);
    }

    // ---- actions ----

    fn act(&mut self, node: NodeIndex, action: Action) {
        match action {
            Action::Connect { peer, .. } => self.connect(node, peer),
            Action::Disconnect { link, .. } => self.disconnect(link),
            Action::Heartbeat { link, heartbeat } => self.send(link, Packet::Heartbeat(heartbeat)),
            Action::Control { link, control } => {
                if self.checks.on {
                    self.check_acks(link, &control);
                }
                let told = match self.nodes.at(node).lie {
                    Some(lie) => lie.told(control),
                    None => vec![control],
                };
                told.into_iter().for_each(|control| self.send(link, Packet::Control(control)));
            }
            Action::OpenLeg { leg, flow, attach } => self.open_leg(leg, flow, attach),
            Action::AnswerLeg { leg, flow, answer } => {
                self.checks.answers(self.now, (node, self.nodes.at(node)), leg, flow);
                self.answer_leg(leg, flow, answer);
            }
            Action::CloseLeg { leg, code } => self.close_leg(leg, code),
            Action::Wake { flow } => self.woken.push_back((node, flow)),
            Action::Ask { ask, request, fresh } => self.ask(node, ask, request, fresh),
            Action::Notify(notice) => self.notice(node, &notice),
        }
    }

    fn notice(&mut self, index: NodeIndex, notice: &Notice) {
        self.trace.notice(self.now, self.nodes.at(index).id, notice);
        self.statistics.notice(notice, self.now);
        self.checks.notice(self.now, (index, self.nodes.at(index)), notice);
        if let Some((app, at)) = self.apps.notice(index, notice, self.now) {
            self.schedule(at, Happening::App { app, node: index });
        }
        if let Notice::Opened { flow, .. } | Notice::Accepted { flow } = notice {
            self.woken.push_back((index, *flow));
        }
    }
}
