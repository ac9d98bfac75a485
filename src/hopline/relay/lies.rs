//! A relay that lies, on real links. The victim reports the violation and the peer, and the flow goes on without the liar; no byte is
//! lost. The simulator has many more lies; here the shell has to carry out what the machines say.

use super::{Failovers, Feed, Machine, Options, Parts, State, hear, parts};
use crate::bootstrap::{Options as BootstrapOptions, Server};
use crate::endpoint::{Endpoint, Flow, FlowEvent, Hop, Listener, Options as EndpointOptions};
use crate::net::bootstrap_client::BootstrapClient;
use crate::net::node::{self, Node};
use crate::net::testing::LOOPBACK;
use hopline_proto::epoch::Epoch;
use hopline_proto::flows::Flows;
use hopline_proto::frame::Control;
use hopline_proto::lane::FlowViolation;
use hopline_proto::machine::{self, Action, Event, Forbidden, Notice, Violation};
use hopline_proto::{NodeId, Time};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, split};
use tokio::sync::{broadcast::Receiver, oneshot, watch};
use tokio::time::timeout;

const TIMEOUT: Duration = Duration::from_secs(30);
/// Further than any flow here gets.
const FAR: u64 = 1 << 40;
const HALF: usize = 200_000;
const ATTEMPTS: usize = 12;
/// Each half is sent in so many parts, so far apart.
const PARTS: usize = 50;
const PACE: Duration = Duration::from_millis(5);
const HOPS: u8 = 3;
/// Enough for a chain, and a backup of each hop.
const HONEST: usize = 6;

/// What a relay says that can't be true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lie {
    /// Acks of what was never sent.
    Acks,
    /// Ends before the end.
    Ends,
    /// Attaches under an epoch that nobody gave it.
    Epochs,
}

impl Lie {
    /// What is done in place of an honest action.
    fn told(self, honest: Action) -> Vec<Action> {
        match (self, honest) {
            (Self::Acks, Action::Control { link, control: Control::Acks(acks) }) => {
                let acks = acks.into_iter().map(|(leg, offset)| (leg, offset + FAR)).collect();
                vec![Action::Control { link, control: Control::Acks(acks) }]
            }
            (Self::Ends, Action::Control { link, control: Control::Acks(acks) }) => {
                let ends = acks.iter().map(|(leg, _)| Control::Fin { leg: *leg, offset: 1 });
                let ends: Vec<Action> = ends.map(|control| Action::Control { link, control }).collect();
                [vec![Action::Control { link, control: Control::Acks(acks) }], ends].concat()
            }
            (Self::Epochs, Action::OpenLeg { leg, flow, mut attach }) => {
                attach.epoch = (0..attach.epoch.hop()).fold(Epoch::ORIGIN, |epoch, _| epoch.child(u32::MAX));
                vec![Action::OpenLeg { leg, flow, attach }]
            }
            (_, honest) => vec![honest],
        }
    }

    /// Whether the relays next to the liar accused it of that. Acks are judged by their source alone, which can't tell whose
    /// they are, and leaves the whole chain.
    fn is_proven(self, accused: &[Violation]) -> bool {
        use FlowViolation::{ContradictoryFin, PastFin};
        let is_meant = |what: &Violation| match self {
            Self::Acks => true,
            Self::Ends => matches!(what, Violation::Flow(ContradictoryFin { .. } | PastFin { .. })),
            Self::Epochs => matches!(what, Violation::Forbidden(Forbidden::WrongTag)),
        };
        accused.iter().all(is_meant) && (self == Self::Acks) == accused.is_empty()
    }
}

/// A relay's machine, and what it lies about.
struct Liar {
    honest: Machine,
    lie: watch::Receiver<Option<Lie>>,
}

impl Liar {
    fn twist(&self, actions: &mut Vec<Action>, from: usize) {
        if let Some(lie) = *self.lie.borrow() {
            let honest = actions.split_off(from);
            actions.extend(honest.into_iter().flat_map(|action| lie.told(action)));
        }
    }
}

impl machine::Machine for Liar {
    fn handle(&mut self, event: Event, now: Time, actions: &mut Vec<Action>) {
        let from = actions.len();
        self.honest.handle(event, now, actions);
        self.twist(actions, from);
    }

    fn handle_timeout(&mut self, now: Time, actions: &mut Vec<Action>) {
        let from = actions.len();
        self.honest.handle_timeout(now, actions);
        self.twist(actions, from);
    }

    fn poll_timeout(&self) -> Option<Time> {
        self.honest.poll_timeout()
    }

    fn flows(&mut self) -> &mut Flows {
        self.honest.flows()
    }

    fn act_on_flows(&mut self, now: Time, actions: &mut Vec<Action>) {
        let from = actions.len();
        self.honest.act_on_flows(now, actions);
        self.twist(actions, from);
    }
}

/// Of what relays accused whom.
type Accusations = Arc<Mutex<Vec<(Option<NodeId>, Violation)>>>;

/// A relay that runs until this is dropped, and lies as it is told.
struct Running {
    id: NodeId,
    lie: watch::Sender<Option<Lie>>,
    _stop: oneshot::Sender<()>,
}

async fn relay(server: &Server, name: &str, accusations: &Accusations) -> Running {
    let options = Options { listen: LOOPBACK, ..Options::default() };
    let bootstrap_client = BootstrapClient::join(server.ticket().clone(), None).await.unwrap();
    let membership = bootstrap_client.membership();
    let id = membership.node_id();
    let (lie, told_to_lie) = watch::channel(None);
    let (told, mut state) = watch::channel(State::Starting);
    let (stop, stopped) = oneshot::channel::<()>();
    let (name, accusations) = (name.to_owned(), accusations.clone());
    let build = move || {
        let ears = (told.clone(), Arc::default(), Failovers::new());
        let (parts, _) = parts(&options, name, bootstrap_client, &membership, ears)?;
        let Parts { machine, socket, bootstrap_client, .. } = parts;
        let feed = Arc::<Feed>::default();
        let on_notice = Box::new(move |_: &Rc<Node<Liar>>, notice: Notice| {
            if let Notice::Violation { peer, what, .. } = &notice {
                accusations.lock().unwrap().push((*peer, *what));
            }
            hear(&notice, &told, &feed);
        });
        let machine = Liar { honest: machine, lie: told_to_lie };
        let parts = Parts::new(machine, socket, bootstrap_client, on_notice);
        let main = async move |node: Rc<Node<Liar>>| {
            node.with(|liar, now, actions| liar.honest.start(now, actions));
            let _ = stopped.await;
        };
        Ok((parts, (), main))
    };
    node::start("relay", build).await.unwrap();
    let enrolled = timeout(TIMEOUT, state.wait_for(|state| *state != State::Starting)).await;
    assert_eq!(*enrolled.unwrap().unwrap(), State::Enrolled);
    Running { id, lie, _stop: stop }
}

/// A new flow, and who was to serve its hops.
async fn open(origin: &Endpoint) -> (Flow, Vec<Hop>) {
    let mut events = origin.events();
    let flow = origin.open_over("sink", HOPS).await.unwrap();
    loop {
        if let FlowEvent::Chain { flow: id, hops, .. } = events.recv().await.unwrap()
            && id == flow.id()
        {
            return (flow, hops);
        }
    }
}

fn data(seed: u8) -> Vec<u8> {
    (0..HALF * 2).map(|at| (at / 251).to_le_bytes()[0] ^ at.to_le_bytes()[0] ^ seed).collect()
}

/// Sends one half of one direction, a little at a time, and takes that of the other: what came.
async fn half(flow: &mut Flow, sent: &[u8]) -> Vec<u8> {
    let (mut reader, mut writer) = split(flow);
    let mut came = vec![0; HALF];
    let write = async {
        for part in sent.chunks(HALF / PARTS) {
            writer.write_all(part).await?;
            writer.flush().await?;
            // Acks come in between, and may be lied about.
            tokio::time::sleep(PACE).await;
        }
        std::io::Result::Ok(())
    };
    let read = reader.read_exact(&mut came);
    timeout(TIMEOUT, async { tokio::try_join!(write, read) }).await.expect("it goes on").unwrap();
    came
}

/// An origin, a target and honest relays.
struct Stage {
    server: Server,
    accusations: Accusations,
    origin: Endpoint,
    target: Endpoint,
    listener: Listener,
    _honest: Vec<Running>,
}

impl Stage {
    async fn start() -> Self {
        let options = BootstrapOptions { listen: LOOPBACK, ..BootstrapOptions::default() };
        let server = Server::start(options).await.unwrap();
        let accusations = Accusations::default();
        let mut honest = Vec::new();
        for number in 1..=HONEST {
            honest.push(relay(&server, &format!("r{number}"), &accusations).await);
        }
        let options = EndpointOptions { bind: LOOPBACK, hops: HOPS, ..EndpointOptions::default() };
        let target = Endpoint::join(server.ticket().clone(), options.clone()).await.unwrap();
        let listener = target.listen("sink").await.unwrap();
        let origin = Endpoint::join(server.ticket().clone(), options).await.unwrap();
        Self { server, accusations, origin, target, listener, _honest: honest }
    }

    /// A flow over a relay of that name between two others, what happens to it, and its other end.
    async fn over(&mut self, name: &str) -> (Flow, Receiver<FlowEvent>, Flow) {
        let (flow, events) = loop {
            let events = self.origin.events();
            let (flow, hops) = open(&self.origin).await;
            if hops.get(1).is_some_and(|hop| hop.primary == name) {
                break (flow, events);
            }
        };
        loop {
            let incoming = self.listener.accept().await.expect("a flow");
            if incoming.id() == flow.id() {
                return (flow, events, incoming);
            }
        }
    }

    /// Has a new relay tell that lie: of what its neighbours accused it, if the flow has left it.
    async fn told(&mut self, lie: Lie, name: &str) -> Option<Vec<Violation>> {
        let liar = relay(&self.server, name, &self.accusations).await;
        if lie == Lie::Epochs {
            // It is told when a flow is opened.
            liar.lie.send_replace(Some(lie));
        }
        let (mut flow, mut events, mut incoming) = timeout(TIMEOUT, self.over(name)).await.expect(name);
        let id = flow.id();
        let (forward, backward) = (data(1), data(2));
        let (mut forth, mut back) = (Vec::new(), Vec::new());
        for (ahead, astern) in forward.chunks(HALF).zip(backward.chunks(HALF)) {
            let (came_back, came_forth) = tokio::join!(half(&mut flow, ahead), half(&mut incoming, astern));
            back.extend(came_back);
            forth.extend(came_forth);
            liar.lie.send_replace(Some(lie));
        }
        assert!(forth == forward && back == backward, "{name}");
        let is_left = |event: &FlowEvent| match event {
            FlowEvent::Rerouted { flow, from, .. } | FlowEvent::Chosen { flow, from, .. } => {
                *flow == id && *from == name
            }
            FlowEvent::Rebuilt { flow, hops, .. } => {
                *flow == id && hops.iter().all(|hop| hop.primary != name)
            }
            FlowEvent::Chain { .. }
            | FlowEvent::Drained { .. }
            | FlowEvent::BackupReplaced { .. }
            | FlowEvent::Avoided { .. }
            | FlowEvent::Closed { .. } => false,
        };
        let left = async { while !is_left(&events.recv().await.unwrap()) {} };
        timeout(TIMEOUT, left).await.ok()?;
        let accused = self.accusations.lock().unwrap();
        Some(accused.iter().filter(|(peer, _)| *peer == Some(liar.id)).map(|(_, what)| *what).collect())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_lies_is_found_out_and_left_and_not_a_byte_is_lost() {
    let mut stage = Stage::start().await;
    for lie in [Lie::Acks, Lie::Ends, Lie::Epochs] {
        let mut accused = None;
        // On a machine that has no time the flow may be led elsewhere before the lie is told.
        for attempt in 1..=ATTEMPTS {
            accused = stage.told(lie, &format!("{lie:?}-{attempt}")).await;
            if accused.as_ref().is_some_and(|accused| lie.is_proven(accused)) {
                break;
            }
        }
        assert!(accused.as_ref().is_some_and(|accused| lie.is_proven(accused)), "{lie:?}: {accused:?}");
    }
    stage.origin.shutdown().await;
    stage.target.shutdown().await;
    stage.server.shutdown().await;
}
