//! The thread on which an endpoint's node runs, and what passes between it and the handles.

use super::chain::Chain;
use super::events::FlowEvent;
use super::flow_error::{DROPPED, Ending, FlowError};
use super::flow_io::{Raw, Reached, Word};
use super::pump::{give, take};
use super::route_file::RouteFile;
use super::session::carriers::Carriers;
use super::session::ports::Established;
use super::{Options, StartError};
use crate::net::bootstrap_client::BootstrapClient;
use crate::net::counters::NodeCounters;
use crate::net::datadir::{DataDir, Role};
use crate::net::enrolment::Feed;
use crate::net::entropy;
use crate::net::identity::Membership;
use crate::net::memory::default_replay_bytes;
use crate::net::node::{self, Node, Parts};
use crate::net::tasks::spawn_local;
use crate::net::ticket::Ticket;
use crate::net::transport::TransportSettings;
use hopline_proto::agent::AgentConfig;
use hopline_proto::endpoint::{Destination, Endpoint as Machine};
use hopline_proto::enrolment::{Change, Trouble};
use hopline_proto::flows::{FlowKey, FlowsConfig};
use hopline_proto::frame::CloseCode;
use hopline_proto::id::{FlowId, NodeId};
use hopline_proto::machine::{Notice, OpenFailure};
use hopline_proto::rpc::Refusal;
use rand::Rng;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, broadcast, mpsc, oneshot, watch};

/// Handovers that may wait between a flow's application and its node, each way: each wakes the other's thread, so what
/// there is goes in one, at most what the node gives at once one way and what TLS buffers (64 KiB) the other.
const QUEUED_HANDOVERS: usize = 4;
/// How often every task of the node has its turn before an endpoint leaves.
const TURNS_TO_HEED: usize = 4;
/// What an application may say of a flow: a key, that it took everything, and that it gives it up, each once.
const QUEUED_WORDS: usize = 8;
/// Commands that may wait for the node.
const QUEUED_COMMANDS: usize = 64;
/// Events that a slow subscriber may lag behind.
const QUEUED_EVENTS: usize = 4096;
/// The pause between two times that routes are stored.
const STORE_PAUSE: Duration = Duration::from_secs(1);
/// How often an endpoint looks which IP families it can dial.
const LOOK: Duration = Duration::from_secs(1);
/// How long an endpoint that shuts down waits at most until flows that are about to end have ended, and until its last words
/// have arrived.
const LAST_WORDS: Duration = Duration::from_millis(200);
/// How long its neighbours may take to acknowledge why it gives flows up; it waits no longer than they do.
const PARTING: Duration = Duration::from_secs(2);
/// Why the flows of an endpoint end whose last handle was dropped.
const GONE: &str = "its process was done with it";

/// What a handle asks of the node.
#[derive(Debug)]
pub(super) enum Command {
    Open {
        flow: FlowId,
        to: Destination,
        /// An open flow whose relays this one shall not have.
        apart_from: Option<FlowKey>,
        reply: oneshot::Sender<Result<(Raw, NodeId), OpenFailure>>,
    },
    Serve {
        name: String,
        reply: oneshot::Sender<Result<(), Refusal>>,
    },
    Incoming {
        flows: mpsc::Sender<Raw>,
    },
    /// A flow carries the session that another one carries, too.
    Join {
        flow: FlowKey,
        other: FlowKey,
    },
    /// Connects the two ends of a session over a flow.
    Connect {
        flow: FlowKey,
        target: NodeId,
        membership: Box<Membership>,
        reply: oneshot::Sender<Result<Established, FlowError>>,
    },
    Shutdown {
        cause: Arc<str>,
        done: oneshot::Sender<()>,
    },
}

/// A node that runs.
pub(super) struct Started {
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) bootstrap_client: BootstrapClient,
    pub(super) counters: Arc<NodeCounters>,
    pub(super) enrolment: Arc<Feed>,
    pub(super) events: broadcast::Sender<FlowEvent>,
}

/// Joins and starts the node's thread.
pub(super) async fn start(
    ticket: Ticket,
    options: Options,
    names: watch::Receiver<Vec<String>>,
) -> Result<Started, StartError> {
    let data = DataDir::take(options.data.as_deref(), Role::Endpoint).await?;
    let bootstrap_client = BootstrapClient::join(ticket, data).await?;
    let membership = bootstrap_client.membership();
    let (routes, kept) = RouteFile::open(options.data.as_deref(), &membership).await;
    let (commands, inbox) = mpsc::channel(QUEUED_COMMANDS);
    let (events, _) = broadcast::channel(QUEUED_EVENTS);
    let enrolment = Arc::<Feed>::default();
    let (for_node, subscribers) = (bootstrap_client.clone(), (events.clone(), enrolment.clone()));
    let build = move || {
        let carriers = Carriers::new(&membership, &options.transport)?;
        let waiters = Rc::new(Waiters::new(subscribers, routes, carriers));
        let mut parts = parts(&options, for_node, &membership, waiters.clone())?;
        parts.machine.remember(kept, parts.clock.now());
        let counters = parts.counters.clone();
        Ok((parts, counters, async move |node: Driven| {
            waiters.serve(&node, &options.transport, inbox, names).await
        }))
    };
    let counters = node::start("hopline-endpoint", build).await.map_err(StartError::Node)?;
    Ok(Started { commands, bootstrap_client, counters, enrolment, events })
}

fn parts(
    options: &Options,
    bootstrap_client: BootstrapClient,
    membership: &Membership,
    waiters: Rc<Waiters>,
) -> Result<Parts<Machine>, node::StartFailure> {
    let me = membership.node_id();
    let socket = node::open_socket(membership, options.bind, &options.transport)?;
    let name = options.name.clone().unwrap_or_else(|| me.short());
    let carriers = waiters.carriers.clone();
    let (seed, bootstraps) = (entropy::seeded_rng().next_u64(), bootstrap_client.bootstraps());
    let agent = AgentConfig { name, seed, enrolment: options.enrolment, bootstraps };
    let mut flows = FlowsConfig { replay_bytes: default_replay_bytes(), ..FlowsConfig::default() };
    flows.links.detector = options.liveness;
    flows.give_up = options.flow_timeout;
    let mut machine = Machine::new(me, flows, agent);
    machine.set_dials(socket.local.dials(bootstrap_client.bootstrap()));
    let on_notice = Box::new(move |node: &Driven, notice| waiters.hear(node, notice));
    let packets = Box::new(move |flow, packets: &[u8], stride| carriers.arrive(flow, packets, stride));
    Ok(Parts::new(machine, socket, bootstrap_client, on_notice).taking(packets))
}

/// Looks which IP families the machine has: interfaces come and go. Never ends.
async fn keep_dials(node: Driven) {
    let mut known = None;
    loop {
        let dials = node.dials();
        if known.replace(dials) != Some(dials) {
            node.with(|machine, _, _| machine.set_dials(dials));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Stores the routes that an origin keeps whenever they have changed. Never ends.
async fn keep_stored(routes: Rc<RouteFile>, node: Driven) {
    loop {
        routes.changed.notified().await;
        store(&routes, &node).await;
        tokio::time::sleep(STORE_PAUSE).await;
    }
}

/// Stores them if they have changed.
async fn store(routes: &RouteFile, node: &Driven) {
    let _turn = routes.turn.lock().await;
    if let Some(kept) = node.with(|machine, now, _| machine.take_routes(now)) {
        routes.store(&kept).await;
    }
}

/// Has the node register the names that are served now.
fn serve_names(node: &Driven, names: &mut watch::Receiver<Vec<String>>) {
    let names = names.borrow_and_update().clone();
    node.with(|machine, now, actions| machine.serve(names, now, actions));
}

/// The node's side of the handles: who waits for what.
struct Waiters {
    events: broadcast::Sender<FlowEvent>,
    enrolment: Arc<Feed>,
    opening: RefCell<HashMap<FlowId, Opening>>,
    /// Where the flows lead that are being opened.
    names: RefCell<HashMap<FlowId, String>>,
    endings: RefCell<HashMap<FlowKey, watch::Sender<Option<Ending>>>>,
    /// The chains of this origin's flows.
    chains: RefCell<HashMap<FlowId, watch::Sender<Chain>>>,
    /// Notified when a flow or the lease is over.
    ending: Notify,
    /// Whether the endpoint gives up what is still open.
    is_leaving: Cell<bool>,
    /// Who waits until the bootstrap has taken a name.
    registering: RefCell<Vec<Registering>>,
    incoming: RefCell<Option<mpsc::Sender<Raw>>>,
    routes: Option<Rc<RouteFile>>,
    carriers: Rc<Carriers>,
}

/// A name, and where to answer.
type Registering = (String, oneshot::Sender<Result<(), Refusal>>);
type Opening = oneshot::Sender<Result<(Raw, NodeId), OpenFailure>>;
type Driven = Rc<Node<Machine>>;

impl Waiters {
    fn new(
        (events, enrolment): (broadcast::Sender<FlowEvent>, Arc<Feed>),
        routes: Option<RouteFile>,
        carriers: Carriers,
    ) -> Self {
        Self {
            carriers: Rc::new(carriers),
            events,
            enrolment,
            routes: routes.map(Rc::new),
            opening: RefCell::default(),
            names: RefCell::default(),
            endings: RefCell::default(),
            chains: RefCell::default(),
            ending: Notify::new(),
            is_leaving: Cell::new(false),
            registering: RefCell::default(),
            incoming: RefCell::default(),
        }
    }

    /// Does what the handles ask until one asks for the end, or the last is gone.
    async fn serve(
        self: &Rc<Self>,
        node: &Driven,
        transport: &TransportSettings,
        mut inbox: mpsc::Receiver<Command>,
        mut names: watch::Receiver<Vec<String>>,
    ) {
        let mut last = None;
        let mut why = Arc::from(GONE);
        if let Some(routes) = self.routes.clone() {
            spawn_local(keep_stored(routes, node.clone()));
        }
        spawn_local(keep_dials(node.clone()));
        self.carriers.run(node, transport);
        loop {
            let command = tokio::select! {
                biased;
                Ok(()) = names.changed() => {
                    serve_names(node, &mut names);
                    continue;
                }
                command = inbox.recv() => command,
            };
            match command {
                Some(Command::Join { flow, other }) => self.carriers.join(flow, other),
                Some(Command::Open { flow, to, apart_from, reply }) => {
                    self.opening.borrow_mut().insert(flow, reply);
                    self.names.borrow_mut().insert(flow, to.name.clone());
                    self.chains.borrow_mut().insert(flow, watch::Sender::default());
                    node.with(|machine, now, actions| match apart_from {
                        Some(other) => machine.open_apart(flow, to, other, now, actions),
                        None => machine.open(flow, to, now, actions),
                    });
                }
                Some(Command::Serve { name, reply }) => {
                    if names.has_changed().unwrap_or(false) {
                        serve_names(node, &mut names);
                    }
                    self.registering.borrow_mut().push((name, reply));
                    self.registered(node);
                }
                Some(Command::Connect { flow, target, membership, reply }) => {
                    self.carriers.connect(flow, target, &membership, transport, reply);
                }
                Some(Command::Incoming { flows }) => *self.incoming.borrow_mut() = Some(flows),
                Some(Command::Shutdown { cause, done }) => {
                    (last, why) = (Some(done), cause);
                    break;
                }
                None => break,
            }
        }
        self.leave(node, &why).await;
        if let Some(done) = last {
            let _ = done.send(());
        }
    }

    /// Tells everybody concerned that this endpoint leaves, and why.
    async fn leave(&self, node: &Driven, cause: &str) {
        // What applications have said of their flows goes first: their keys, and causes of their own.
        for _ in 0..TURNS_TO_HEED {
            tokio::task::yield_now().await;
        }
        self.is_leaving.set(true);
        node.with(|machine, now, actions| machine.leave(cause, now, actions));
        let store = async {
            if let Some(routes) = &self.routes {
                store(routes, node).await;
            }
        };
        let has_left = async {
            while !node.with(|machine, _, _| machine.has_left()) {
                self.ending.notified().await;
            }
        };
        let (_, ()) = tokio::join!(tokio::time::timeout(LAST_WORDS, has_left), store);
        node.with_flows(|flows, now, actions| flows.abort_all(cause, true, now, actions));
        let _ = tokio::time::timeout(PARTING, node.part()).await;
    }

    fn hear(self: &Rc<Self>, node: &Driven, notice: Notice) {
        let name = |flow| self.names.borrow_mut().remove(&flow).unwrap_or_default();
        if let Some(event) = FlowEvent::of(&notice, name) {
            self.tell(event);
        }
        match notice {
            Notice::Opened { flow, target, unprotected, kept } => {
                if !unprotected.is_empty() {
                    tracing::info!(hops = ?unprotected, "the pool has no backup for these hops");
                }
                self.opened(node, flow, target, kept);
            }
            Notice::OpenFailed { flow, cause } => self.open_failed(flow, cause),
            Notice::CandidateWanted { flow, hop, is_served } => {
                if let Some(chain) = self.chains.borrow().get(&flow.flow) {
                    chain.send_if_modified(|chain| chain.lacks_candidate(hop, is_served));
                }
            }
            Notice::Accepted { flow } => {
                let raw = self.pump(node, flow);
                let taken = self.incoming.borrow().as_ref().is_some_and(|flows| flows.try_send(raw).is_ok());
                if !taken {
                    tracing::warn!(flow = %flow.flow, "refused a flow: too many are waiting");
                }
            }
            Notice::Ended { flow, code, cause } => {
                // The machine ends what this end gives up as it ends what the other does; only the other end's has a cause.
                let ending = match (code, &cause) {
                    (CloseCode::Aborted, None) if self.is_leaving.get() => Ending::Broken(FlowError::Closed),
                    _ => Ending::of(code, cause).explained(node.certificate_failure()),
                };
                self.ended(flow, ending);
                self.ending.notify_one();
            }
            Notice::Enrolment { change, counters } => {
                self.hear_of_lease(node, &change);
                self.ending.notify_one();
                self.enrolment.tell(change, counters);
            }
            Notice::Violation { link, peer, what } => {
                tracing::warn!(link = link.0, ?peer, %what, "a peer broke the protocol")
            }
            Notice::Neighbour { node, change, silence } => {
                tracing::debug!(?node, ?change, silence_ms = silence.as_millis(), "neighbour");
            }
            Notice::Rerouted { flow, .. } => self.carriers.nudge(&flow),
            Notice::Attachments { relays } => tracing::debug!(?relays, "attached"),
            Notice::Unattached { refusal } => {
                tracing::warn!(%refusal, "can attach to no relay");
                self.refused(&refusal);
            }
            Notice::RoutesChanged => {
                if let Some(routes) = &self.routes {
                    routes.changed.notify_one();
                }
            }
            Notice::Chain { .. } | Notice::Avoided { .. } | Notice::Draining | Notice::Drained => {}
        }
    }

    /// A flow has a route, perhaps a `kept` one.
    fn opened(self: &Rc<Self>, node: &Driven, flow: FlowKey, target: NodeId, kept: bool) {
        if kept {
            tracing::warn!("no bootstrap answers: taking a route that was kept from before");
        }
        let raw = Raw { kept, ..self.pump(node, flow) };
        if let Some(reply) = self.opening.borrow_mut().remove(&flow.flow) {
            let _ = reply.send(Ok((raw, target)));
        }
    }

    fn open_failed(&self, flow: FlowId, cause: OpenFailure) {
        self.names.borrow_mut().remove(&flow);
        self.chains.borrow_mut().remove(&flow);
        if let Some(reply) = self.opening.borrow_mut().remove(&flow) {
            let _ = reply.send(Err(cause));
        }
    }

    /// Tells an event, and shows then what it did to the chain: whoever sees that finds the event.
    fn tell(&self, event: FlowEvent) {
        let _ = self.events.send(event.clone());
        let mut chains = self.chains.borrow_mut();
        if let FlowEvent::Closed { flow, .. } = event {
            chains.remove(&flow);
        } else if let Some(chain) = chains.get(&event.flow()) {
            chain.send_modify(|chain| chain.apply(&event));
        }
    }

    fn hear_of_lease(&self, node: &Driven, change: &Change) {
        match change {
            Change::Registered => self.registered(node),
            Change::Trouble(Trouble::Rejected { reason }) => self.refused(reason),
            Change::Trouble(_) | Change::Renewed | Change::Left => {}
        }
    }

    /// Answers those who wait for the bootstrap, if it has taken the names that are served now.
    fn registered(&self, node: &Driven) {
        if node.with(|machine, _, _| machine.is_registered()) {
            for (_, reply) in self.registering.borrow_mut().drain(..) {
                let _ = reply.send(Ok(()));
            }
        }
    }

    /// The bootstrap refuses the names, for the sake of one of them if that is another node's.
    fn refused(&self, reason: &Refusal) {
        let taken = if let Refusal::NameTaken { name } = reason { Some(name) } else { None };
        let is_meant = |(name, _): &mut Registering| taken.is_none_or(|taken| taken == name);
        for (_, reply) in self.registering.borrow_mut().extract_if(.., is_meant) {
            let _ = reply.send(Err(reason.clone()));
        }
    }

    /// A flow is over, the first of these reasons being why.
    fn ended(&self, flow: FlowKey, why: Ending) {
        self.carriers.remove(&flow);
        if let Some(ending) = self.endings.borrow_mut().remove(&flow) {
            let _ = ending.send(Some(why));
        }
    }

    /// Starts to move a flow's bytes between its lanes and its application.
    fn pump(self: &Rc<Self>, node: &Driven, flow: FlowKey) -> Raw {
        let (to_app, incoming) = mpsc::channel(QUEUED_HANDOVERS);
        let (outgoing, from_app) = mpsc::channel(QUEUED_HANDOVERS);
        let (words, said) = mpsc::channel(QUEUED_WORDS);
        let (ended, ending) = watch::channel(None);
        let (told, reached) = watch::channel(Reached::Nothing);
        let carries = if flow.hop == 0 { oneshot::channel().1 } else { self.carriers.watch(flow) };
        self.endings.borrow_mut().insert(flow, ended);
        let chain =
            self.chains.borrow().get(&flow.flow).filter(|_| flow.hop == 0).map(watch::Sender::subscribe);
        let chain = chain.unwrap_or_else(|| watch::channel(Chain::default()).1);
        spawn_local(give(node.clone(), flow, to_app));
        spawn_local(take(node.clone(), flow, from_app, told));
        spawn_local(self.clone().heed(node.clone(), flow, said, ending.clone()));
        Raw { flow, incoming, outgoing, ending, words, reached, chain, kept: false, carries }
    }

    /// Does what the application says of a flow, until the flow is over or everybody who could speak of it is gone.
    async fn heed(
        self: Rc<Self>,
        node: Driven,
        flow: FlowKey,
        mut said: mpsc::Receiver<Word>,
        mut ending: watch::Receiver<Option<Ending>>,
    ) {
        let mut is_taken = false;
        loop {
            let word = tokio::select! {
                biased;
                word = said.recv() => word,
                _ = ending.wait_for(Option::is_some) => return,
            };
            match word {
                Some(Word::Key(key)) => {
                    node.with_flows(|flows, now, actions| flows.share_key(flow, &key, now, actions));
                }
                Some(Word::Taken) => {
                    is_taken = true;
                    node.with_flows(|flows, now, actions| flows.taken(flow, now, actions));
                }
                Some(Word::Abort(cause)) => self.abort(&node, flow, cause),
                None if is_taken => return,
                None => return self.abort(&node, flow, DROPPED.into()),
            }
        }
    }

    fn abort(&self, node: &Driven, flow: FlowKey, cause: Arc<str>) {
        if node.flows(|flows| flows.splice(&flow).is_some_and(|splice| !splice.is_complete())) {
            self.ended(flow, Ending::Here(cause.clone()));
        }
        node.with_flows(|flows, now, actions| flows.abort(flow, &cause, now, actions));
    }
}
