//! Nodes, the links between them, and the queue of what happens next.
//!
//! A link delivers in order after a fixed delay, as one stream: control messages, heartbeats and legs alike. A crashed
//! node is silent: what was on its way to it is lost, and its neighbours find out by themselves.

use crate::trace::Trace;
use bytes::Bytes;
use hopline::proto::bootstrap::{self, Bootstrap};
use hopline::proto::codec;
use hopline::proto::crypto::Key;
use hopline::proto::flows::FlowKey;
use hopline::proto::frame::{Attach, AttachOk, CloseCode, Control, Heartbeat};
use hopline::proto::machine::{Action, AskFailure, AskId, Event, LinkId, Machine, Notice};
use hopline::proto::rpc::Request;
use hopline::proto::splice::LegId;
use hopline::proto::{BootId, NodeId, Time};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};
use std::time::Duration;

/// A node's place in the world.
pub type NodeIndex = usize;

/// One way between two nodes.
const DELAY: Duration = Duration::from_micros(200);
/// How long a dial to a dead node takes to fail, and a bootstrap's answer to come.
const DIAL_TIMEOUT: Duration = Duration::from_secs(3);

/// What travels over a link.
#[derive(Debug)]
enum Packet {
    Heartbeat(Heartbeat),
    Control(Control),
    Open(Box<Attach>),
    Answer(u32, AttachOk),
    Bytes(u32, Bytes),
    Close(u32, CloseCode),
}

#[derive(Debug)]
enum Happening {
    Packet(LinkId, Packet),
    Event(Event),
    Timer(Time),
}

struct Entry {
    at: Time,
    sequence: u64,
    node: NodeIndex,
    life: u32,
    happening: Happening,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    /// The earliest is the greatest, as the heap gives that first.
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.at, other.sequence).cmp(&(self.at, self.sequence))
    }
}

/// A node and what its driver would hold.
pub struct SimNode<M> {
    /// Its machine.
    pub machine: M,
    /// Who it is.
    pub id: NodeId,
    /// What its machine told, in order.
    pub notices: Vec<Notice>,
    boot: BootId,
    life: u32,
    alive: bool,
    frozen_until: Time,
    links: BTreeMap<LinkId, (NodeIndex, LinkId)>,
    /// Legs with a stream, and the bytes that wait for room.
    legs: BTreeMap<LegId, (FlowKey, VecDeque<Bytes>)>,
    armed: Option<Time>,
}

/// All nodes, their bootstrap, and time.
pub struct World<M> {
    /// Now.
    pub now: Time,
    /// The nodes.
    pub nodes: Vec<SimNode<M>>,
    /// The bootstrap, which never fails here.
    pub bootstrap: Bootstrap,
    /// Whether the bootstrap answers.
    pub bootstrap_answers: bool,
    /// The timeline.
    pub trace: Trace,
    /// The world's randomness.
    pub rng: StdRng,
    queue: BinaryHeap<Entry>,
    index: HashMap<NodeId, NodeIndex>,
    sequence: u64,
    next_link: u32,
    /// Flows that may have bytes to write or room to read.
    woken: VecDeque<(NodeIndex, FlowKey)>,
}

impl<M: Machine> World<M> {
    /// An empty world.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let now = Time::from_micros(1_000_000_000_000_000);
        let coordinator = StdRng::seed_from_u64(rng.random());
        let secret = Key::from_bytes(rng.random());
        Self {
            now,
            nodes: Vec::new(),
            bootstrap: Bootstrap::new(bootstrap::Config::default(), secret, coordinator, now),
            bootstrap_answers: true,
            trace: Trace::default(),
            rng,
            queue: BinaryHeap::new(),
            index: HashMap::new(),
            sequence: 0,
            next_link: 1,
            woken: VecDeque::new(),
        }
    }

    /// Adds a node.
    pub fn add(&mut self, id: NodeId, name: &str, machine: M) -> NodeIndex {
        self.trace.name(id, name);
        let boot = BootId::random(&mut self.rng);
        let index = self.nodes.len();
        let (links, legs) = (BTreeMap::new(), BTreeMap::new());
        let notices = Vec::new();
        self.nodes.push(SimNode {
            machine,
            id,
            notices,
            boot,
            life: 0,
            alive: true,
            frozen_until: Time::ZERO,
            links,
            legs,
            armed: None,
        });
        self.index.insert(id, index);
        index
    }

    /// The node with that identity.
    #[must_use]
    pub fn find(&self, id: NodeId) -> Option<NodeIndex> {
        self.index.get(&id).copied()
    }

    /// Whether a node lives.
    #[must_use]
    pub fn is_alive(&self, node: NodeIndex) -> bool {
        self.nodes.get(node).is_some_and(|node| node.alive)
    }

    /// Kills a node; nobody is told.
    pub fn crash(&mut self, node: NodeIndex) {
        if let Some(node) = self.nodes.get_mut(node) {
            self.trace.say(self.now, node.id, |_| "KILLED".to_owned());
            node.alive = false;
            node.life += 1;
            node.links.clear();
            node.legs.clear();
        }
    }

    /// Stops a node's process for a while, as SIGSTOP does: what comes for it meanwhile waits, its timers fire late.
    pub fn freeze(&mut self, node: NodeIndex, pause: Duration) {
        let until = self.now + pause;
        if let Some(node) = self.nodes.get_mut(node) {
            self.trace.say(self.now, node.id, |_| format!("FROZEN for {} ms", pause.as_millis()));
            node.frozen_until = node.frozen_until.max(until);
        }
    }

    /// Lets `f` use a node's machine, and does what it says.
    pub fn with<T>(
        &mut self,
        node: NodeIndex,
        f: impl FnOnce(&mut M, Time, &mut Vec<Action>) -> T,
    ) -> Option<T> {
        let mut actions = Vec::new();
        let now = self.now;
        let result = f(&mut self.nodes.get_mut(node).filter(|node| node.alive)?.machine, now, &mut actions);
        for action in actions {
            self.act(node, action);
        }
        self.arm(node);
        Some(result)
    }

    /// Lets the next thing happen. `false` if nothing ever will.
    pub fn step(&mut self) -> bool {
        while let Some((node, flow)) = self.woken.pop_front() {
            self.wake(node, flow);
        }
        let Some(entry) = self.queue.pop() else { return false };
        let thaw = self.nodes.get(entry.node).map_or(Time::ZERO, |node| node.frozen_until);
        if thaw > entry.at {
            self.queue.push(Entry { at: thaw, ..entry });
            return true;
        }
        self.now = self.now.max(entry.at);
        let is_current = self.nodes.get(entry.node).is_some_and(|node| node.alive && node.life == entry.life);
        if is_current {
            match entry.happening {
                Happening::Event(event) => self.tell(entry.node, event),
                Happening::Packet(link, packet) => self.deliver(entry.node, link, packet),
                Happening::Timer(armed) => self.timer(entry.node, armed),
            }
        }
        true
    }

    fn tell(&mut self, node: NodeIndex, event: Event) {
        if let Event::LinkDown { link } = &event
            && let Some(node) = self.nodes.get_mut(node)
        {
            node.links.remove(link);
        }
        self.with(node, |machine, now, actions| machine.handle(event, now, actions));
    }

    fn timer(&mut self, node: NodeIndex, armed: Time) {
        if let Some(node) = self.nodes.get_mut(node).filter(|node| node.armed == Some(armed)) {
            node.armed = None;
        }
        let is_due = |machine: &M, now| machine.poll_timeout().is_some_and(|due| due <= now);
        self.with(node, |machine, now, actions| {
            if is_due(machine, now) {
                machine.handle_timeout(now, actions);
            }
        });
    }

    fn arm(&mut self, index: NodeIndex) {
        let Some(node) = self.nodes.get_mut(index) else { return };
        let due = node.machine.poll_timeout().map(|due| due.max(self.now));
        if let Some(due) = due.filter(|due| node.armed.is_none_or(|armed| *due < armed)) {
            node.armed = Some(due);
            self.schedule(index, due, Happening::Timer(due));
        }
    }

    fn schedule(&mut self, node: NodeIndex, at: Time, happening: Happening) {
        let Some(life) = self.nodes.get(node).map(|node| node.life) else { return };
        self.sequence += 1;
        self.queue.push(Entry { at: at.max(self.now), sequence: self.sequence, node, life, happening });
    }

    // ---- actions ----

    fn act(&mut self, node: NodeIndex, action: Action) {
        match action {
            Action::Connect { peer, .. } => self.connect(node, peer),
            Action::Disconnect { link, .. } => self.disconnect(node, link),
            Action::Heartbeat { link, heartbeat } => self.send(node, link, Packet::Heartbeat(heartbeat)),
            Action::Control { link, control } => self.send(node, link, Packet::Control(control)),
            Action::OpenLeg { leg, flow, attach } => {
                self.keep_leg(node, leg, flow);
                self.send(node, leg.link(), Packet::Open(attach));
                self.pump(node, leg);
            }
            Action::AnswerLeg { leg, flow, answer } => {
                self.keep_leg(node, leg, flow);
                self.send(node, leg.link(), Packet::Answer(leg.number(), answer));
                self.pump(node, leg);
            }
            Action::CloseLeg { leg, code } => {
                if let Some(node) = self.nodes.get_mut(node) {
                    node.legs.remove(&leg);
                }
                self.send(node, leg.link(), Packet::Close(leg.number(), code));
            }
            Action::Wake { flow } => self.woken.push_back((node, flow)),
            Action::Ask { ask, request, .. } => self.ask(node, ask, request),
            Action::Notify(notice) => {
                let Some(node) = self.nodes.get_mut(node) else { return };
                self.trace.notice(self.now, node.id, &notice);
                node.notices.push(notice);
            }
        }
    }

    fn keep_leg(&mut self, node: NodeIndex, leg: LegId, flow: FlowKey) {
        if let Some(node) = self.nodes.get_mut(node) {
            node.legs.insert(leg, (flow, VecDeque::new()));
        }
    }

    fn connect(&mut self, from: NodeIndex, peer: NodeId) {
        let to = self.find(peer).filter(|to| self.is_alive(*to));
        let answered_at = |to: NodeIndex| self.nodes.get(to).map_or(Time::ZERO, |node| node.frozen_until);
        let patience = self.now + DIAL_TIMEOUT;
        let Some(to) = to.filter(|to| answered_at(*to) < patience) else {
            let failed = Happening::Event(Event::ConnectFailed { peer });
            return self.schedule(from, self.now + DIAL_TIMEOUT, failed);
        };
        let up_at = answered_at(to).max(self.now) + DELAY * 2;
        let (here, there) = (LinkId(self.next_link), LinkId(self.next_link + 1));
        self.next_link += 2;
        for (at, link, other, other_link, dialed) in
            [(from, here, to, there, true), (to, there, from, here, false)]
        {
            let Some((peer, boot)) = self.nodes.get(other).map(|node| (node.id, node.boot)) else { continue };
            if let Some(node) = self.nodes.get_mut(at) {
                node.links.insert(link, (other, other_link));
            }
            self.schedule(
                at,
                up_at,
                Happening::Event(Event::LinkUp { link, peer, boot, dialed, rtt: DELAY * 2 }),
            );
        }
    }

    fn disconnect(&mut self, node: NodeIndex, link: LinkId) {
        let Some((peer, there)) = self.nodes.get_mut(node).and_then(|node| node.links.remove(&link)) else {
            return;
        };
        self.schedule(node, self.now, Happening::Event(Event::LinkDown { link }));
        if self.nodes.get(peer).is_some_and(|node| node.links.contains_key(&there)) {
            self.schedule(peer, self.now + DELAY, Happening::Event(Event::LinkDown { link: there }));
        }
    }

    fn send(&mut self, node: NodeIndex, link: LinkId, packet: Packet) {
        let way = self.nodes.get(node).and_then(|node| node.links.get(&link)).copied();
        if let Some((peer, there)) = way {
            self.schedule(peer, self.now + DELAY, Happening::Packet(there, packet));
        }
    }

    fn ask(&mut self, node: NodeIndex, ask: AskId, request: Request) {
        let Some(from) = self.nodes.get(node).map(|node| node.id) else { return };
        let (result, after) = if self.bootstrap_answers {
            self.bootstrap.handle_timeout(self.now);
            (Ok(self.bootstrap.answer(from, request.clone(), self.now)), DELAY * 2)
        } else {
            (Err(AskFailure::Timeout), DIAL_TIMEOUT)
        };
        self.trace.ask(self.now, from, &request, &result);
        self.schedule(node, self.now + after, Happening::Event(Event::Asked { ask, result }));
    }

    // ---- bytes ----

    fn deliver(&mut self, node: NodeIndex, link: LinkId, packet: Packet) {
        if self.nodes.get(node).is_none_or(|node| !node.links.contains_key(&link)) {
            return;
        }
        let leg = |number| LegId::new(link, number);
        match packet {
            Packet::Heartbeat(heartbeat) => self.tell(node, Event::Heartbeat { link, heartbeat }),
            Packet::Control(control) => {
                // What does not survive its own encoding must not pass here either.
                let control = codec::from_bytes(&codec::to_bytes(&control)).expect("control messages decode");
                self.tell(node, Event::Control { link, control });
            }
            Packet::Open(attach) => self.tell(node, Event::Attach { link, attach }),
            Packet::Answer(number, answer) => self.tell(node, Event::Answered { leg: leg(number), answer }),
            Packet::Close(number, code) => {
                self.take_in(node, leg(number));
                self.tell(node, Event::LegClosed { leg: leg(number), code });
            }
            Packet::Bytes(number, bytes) => {
                if let Some((_, waiting)) =
                    self.nodes.get_mut(node).and_then(|n| n.legs.get_mut(&leg(number)))
                {
                    waiting.push_back(bytes);
                }
                self.take_in(node, leg(number));
            }
        }
    }

    /// Moves what has arrived on a leg into its lane, as far as there is room.
    fn take_in(&mut self, node: NodeIndex, leg: LegId) {
        loop {
            let Some(sim) = self.nodes.get_mut(node) else { return };
            let has_room = sim.machine.flows().may_receive(leg);
            let Some((flow, waiting)) = sim.legs.get_mut(&leg).filter(|_| has_room) else { return };
            let flow = *flow;
            let Some(bytes) = waiting.pop_front() else { return };
            self.with(node, |machine, now, actions| {
                machine.flows().receive(leg, [bytes], now, actions);
                actions.push(Action::Wake { flow });
            });
        }
    }

    fn wake(&mut self, node: NodeIndex, flow: FlowKey) {
        let Some(sim) = self.nodes.get(node) else { return };
        let legs: Vec<LegId> =
            sim.legs.iter().filter(|(_, (of, _))| *of == flow).map(|(leg, _)| *leg).collect();
        for leg in legs {
            self.take_in(node, leg);
            self.pump(node, leg);
        }
    }

    /// Writes what is to be written to a leg.
    fn pump(&mut self, node: NodeIndex, leg: LegId) {
        let mut chunks: [Bytes; 16] = Default::default();
        loop {
            let Some(sim) = self.nodes.get_mut(node) else { return };
            let count = sim.machine.flows().to_write(leg, &mut chunks);
            if count == 0 {
                return;
            }
            for chunk in chunks.iter_mut().take(count).map(std::mem::take) {
                self.nodes
                    .get_mut(node)
                    .into_iter()
                    .for_each(|sim| sim.machine.flows().wrote(leg, chunk.len()));
                self.send(node, leg.link(), Packet::Bytes(leg.number(), chunk));
            }
        }
    }
}
