//! Drives a node's machine: turns what happens on sockets into events, and actions into what happens on sockets.
//!
//! Everything of a node runs on one thread (see [`start`]), so the machine sits in a `RefCell` and is borrowed for the
//! length of one event; no lock, no channel and no copy lies between a stream and its lane. Beside the tasks of each link
//! (`link.rs`) and each leg (`leg.rs`) there is one that sleeps until the machine's next deadline.
//!
//! Queues: each link's control messages ([`MAX_QUEUED_CONTROLS`]; a peer that lets more pile up is disconnected). Bytes
//! wait in lanes only.

mod dials;
mod doubt;
mod faults;
mod leg;
mod link;

use crate::net::address::{canonical, is_same};
use crate::net::clock::Clock;
use crate::net::coordinator::Coordinator;
use crate::net::eyeballs::first_of;
use crate::net::farewell::Word;
use crate::net::gate::{Gate, Place, Turned};
use crate::net::identity::Membership;
use crate::net::local::{Local, Obstacle};
use crate::net::socket::HintingSocket;
use crate::net::tally::Tally;
use crate::net::timer::Timer;
use crate::net::tls::{self, TlsError, Untimely};
use crate::net::transport::{self, TransportSettings};
use dials::Dials;
use doubt::Doubt;
use faults::Faults;
use hopline_proto::admission;
use hopline_proto::families::Families;
use hopline_proto::flows::{FlowKey, Flows};
use hopline_proto::frame::CloseCode;
use hopline_proto::id::{BootId, NodeId};
use hopline_proto::machine::{Action, AskId, DialFailure, DisconnectReason, Event, LinkId, Machine, Notice};
use hopline_proto::rpc::Request;
use hopline_proto::splice::LegId;
use hopline_proto::time::Time;
use hopline_proto::version::Mismatch;
use leg::{FlowSignal, LegPort};
use link::LinkPort;
use quinn::Incoming;
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use tokio::task::{LocalSet, spawn_local};

/// Legs for which room is kept on a link before the peer is known: for each it takes 75 bytes.
const LEGS_OF_STRANGER: u32 = 64;
/// Control messages that may wait for one link.
const MAX_QUEUED_CONTROLS: usize = 8192;
/// How long a dial may take, in all.
const DIAL_TIMEOUT: Duration = Duration::from_secs(3);
/// The timekeeper looks again at least so often.
const LONGEST_SLEEP: Duration = Duration::from_secs(3600);
/// How often every other task of a node has its turn before the node ends that has closed its links.
const TURNS_TO_SAY_GOODBYE: usize = 4;
/// How long a bootstrap may take to answer.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);

/// Who is told what the machine has to say.
pub(crate) type Listener<M> = Box<dyn Fn(&Rc<Node<M>>, Notice)>;

/// A node on its thread. See the module's documentation.
pub(crate) struct Node<M> {
    machine: RefCell<M>,
    boot: BootId,
    clock: Clock,
    endpoint: quinn::Endpoint,
    local: Local,
    /// Shows the node's present certificate.
    client: RefCell<quinn::ClientConfig>,
    coordinator: Coordinator,
    tally: Arc<Tally>,
    listener: Listener<M>,
    gate: Arc<Gate>,
    /// Legs that a peer may have open at once on a link.
    legs_of_link: u32,
    links: RefCell<HashMap<LinkId, Rc<LinkPort>>>,
    legs: RefCell<HashMap<LegId, Rc<LegPort>>>,
    signals: RefCell<HashMap<FlowKey, Rc<FlowSignal>>>,
    dials: Dials,
    doubt: Doubt,
    events: RefCell<VecDeque<Event>>,
    next_link: Cell<u32>,
    armed: Cell<Option<Time>>,
    rearm: Notify,
    faults: Faults,
    /// Whether it leaves.
    parting: Cell<bool>,
}

/// What a node is made of.
pub(crate) struct Parts<M> {
    pub(crate) machine: M,
    pub(crate) boot: BootId,
    pub(crate) clock: Clock,
    pub(crate) socket: Socket,
    pub(crate) coordinator: Coordinator,
    pub(crate) tally: Arc<Tally>,
    pub(crate) listener: Listener<M>,
}

/// What a node dials and is dialled by.
pub(crate) struct Socket {
    pub(crate) endpoint: quinn::Endpoint,
    pub(crate) local: Local,
    client: quinn::ClientConfig,
    hints: Arc<HintingSocket>,
    settings: TransportSettings,
}

/// Why a node could not be started.
pub(crate) type StartFailure = Box<dyn std::error::Error + Send + Sync>;

/// Starts a thread that puts a node together and runs it until its main function is done with it.
///
/// `build` runs there; it returns the parts, what to tell the caller, and the main function.
///
/// The thread's runtime is single-threaded: a current-thread runtime moves markedly more bytes a second through QUIC than
/// the multi-threaded one, at less CPU, as no task ever moves between cores.
///
/// # Errors
/// Whatever `build` could not get, or the thread.
pub(crate) async fn start<M: Machine + 'static, T: Send + 'static, Main: AsyncFnOnce(Rc<Node<M>>)>(
    name: &str,
    build: impl FnOnce() -> Result<(Parts<M>, T, Main), StartFailure> + Send + 'static,
) -> Result<T, StartFailure> {
    let (ready, started) = oneshot::channel();
    let word = Word::new();
    std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        let _word = word;
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return drop(ready.send(Err(error.into()))),
        };
        runtime.block_on(async {
            match build().and_then(|built| Ok((built, Timer::new()?))) {
                Ok(((parts, told, main), timer)) => {
                    let _ = ready.send(Ok(told));
                    run(parts, timer, main).await;
                }
                Err(error) => drop(ready.send(Err(error))),
            }
        });
    })?;
    started.await.map_err(|_| "the node's thread ended")?
}

/// The QUIC endpoint by which a member dials and is dialled, and its socket.
///
/// # Errors
/// If the socket can't be bound, or the certificate is not usable.
pub(crate) fn open_socket(
    membership: &Membership,
    bind: SocketAddr,
    settings: &TransportSettings,
) -> Result<Socket, StartFailure> {
    let (client, server) = link_configs(membership, settings)?;
    let socket = transport::open_socket(bind, settings.socket_buffer_bytes)?;
    let (local, hints) = (Local::of(&socket)?, HintingSocket::new(socket)?);
    let secret = membership.identity.reset_secret();
    let endpoint = transport::bind_socket(hints.clone(), Some(server), &wary(settings), &secret)?;
    Ok(Socket { endpoint, local, client, hints, settings: settings.clone() })
}

/// How a member dials, and how it is dialled.
fn link_configs(
    membership: &Membership,
    settings: &TransportSettings,
) -> Result<(quinn::ClientConfig, quinn::ServerConfig), TlsError> {
    let mut client = tls::link_client(membership)?;
    client.transport_config(transport::transport(settings));
    let secret = membership.identity.reset_secret();
    Ok((client, transport::server_config(tls::link_server(membership)?, &wary(settings), &secret)))
}

/// How a connection behaves before it is known who comes.
fn wary(settings: &TransportSettings) -> TransportSettings {
    TransportSettings { streams: settings.streams.min(LEGS_OF_STRANGER), ..settings.clone() }
}

async fn run<M: Machine + 'static>(parts: Parts<M>, timer: Timer, main: impl AsyncFnOnce(Rc<Node<M>>)) {
    let Socket { endpoint, local, client, hints, settings } = parts.socket;
    let node = Rc::new(Node {
        machine: RefCell::new(parts.machine),
        boot: parts.boot,
        clock: parts.clock,
        endpoint,
        local,
        client: RefCell::new(client),
        coordinator: parts.coordinator,
        tally: parts.tally,
        listener: parts.listener,
        gate: Gate::new(admission::Config::default(), parts.clock),
        legs_of_link: settings.streams(),
        links: RefCell::default(),
        legs: RefCell::default(),
        signals: RefCell::default(),
        dials: Dials::default(),
        doubt: Doubt::default(),
        events: RefCell::default(),
        next_link: Cell::new(1),
        armed: Cell::new(None),
        rearm: Notify::new(),
        faults: Faults::default(),
        parting: Cell::new(false),
    });
    let local = LocalSet::new();
    local.spawn_local(node.clone().keep_time(timer));
    local.spawn_local(node.clone().accept());
    local.spawn_local(node.clone().hear_refusals(hints));
    local.spawn_local(node.clone().keep_certified(settings));
    local.spawn_local(node.clone().hear_of_bootstraps());
    local.run_until(main(node.clone())).await;
    node.endpoint.close(0u32.into(), b"shutting down");
    let _ = tokio::time::timeout(Duration::from_millis(500), node.endpoint.wait_idle()).await;
}

impl<M: Machine + 'static> Node<M> {
    /// Tells the machine what happened, and does what it says.
    pub(crate) fn tell(self: &Rc<Self>, event: Event) {
        self.events.borrow_mut().push_back(event);
        self.with(|_, _, _| ());
    }

    /// Lets `f` use the machine, and does what it says.
    pub(crate) fn with<T>(self: &Rc<Self>, f: impl FnOnce(&mut M, Time, &mut Vec<Action>) -> T) -> T {
        let mut actions = Vec::new();
        let result = f(&mut self.machine.borrow_mut(), self.clock.now(), &mut actions);
        loop {
            for action in actions.drain(..) {
                self.act(action);
            }
            let Some(event) = self.events.borrow_mut().pop_front() else { break };
            self.machine.borrow_mut().handle(event, self.clock.now(), &mut actions);
        }
        self.flows(|_| ());
        self.arm();
        result
    }

    /// Lets `f` do with the machine's flows what an application wants, and does what follows from it.
    pub(crate) fn with_flows<T>(
        self: &Rc<Self>,
        f: impl FnOnce(&mut Flows, Time, &mut Vec<Action>) -> T,
    ) -> T {
        self.with(|machine, now, actions| {
            machine.with_flows(now, actions, |flows, actions| f(flows, now, actions))
        })
    }

    /// Looks at the machine's flows: for whatever nothing follows from.
    pub(crate) fn flows<T>(&self, f: impl FnOnce(&mut Flows) -> T) -> T {
        let mut machine = self.machine.borrow_mut();
        let flows = machine.flows();
        let result = f(flows);
        if let Some(flow) = flows.take_woken() {
            self.wake(flow, flows);
        }
        result
    }

    /// Wakes those of a flow's tasks that may have something to do.
    fn wake(&self, flow: FlowKey, flows: &Flows) {
        if let Some(signal) = self.signals.borrow().get(&flow) {
            let splice = flows.splice(&flow);
            signal.wake(|direction| splice.is_none_or(|splice| splice.lane(direction).has_more()));
        }
    }

    /// What became of those who wanted to shake hands.
    pub(crate) fn admission(&self) -> admission::Counters {
        self.gate.counters()
    }

    fn act(self: &Rc<Self>, action: Action) {
        match action {
            Action::Connect { .. } if self.parting.get() => {}
            Action::Connect { peer, addresses } => {
                spawn_local(self.clone().connect(peer, addresses));
            }
            Action::Disconnect { link, reason } => self.disconnect(link, reason),
            Action::Heartbeat { link, heartbeat } => {
                if let Some(port) = self.link(link) {
                    port.send_heartbeat(&heartbeat);
                    let losses = port.new_losses();
                    let event = losses.map(|counted| Event::LinkLossy { link, counted });
                    self.events.borrow_mut().extend(event);
                }
            }
            Action::Control { link, control } => self.send_control(link, control),
            Action::OpenLeg { leg, flow, attach } => self.open_leg(leg, flow, *attach),
            Action::AnswerLeg { leg, flow, answer } => self.answer_leg(leg, flow, answer),
            Action::CloseLeg { leg, code } => self.close_leg(leg, code),
            Action::Wake { flow } => self.wake(flow, self.machine.borrow_mut().flows()),
            Action::Ask { ask, request, fresh } => {
                spawn_local(self.clone().ask(ask, request, fresh));
            }
            Action::Notify(notice) => {
                if let Notice::Ended { flow, .. } = &notice {
                    self.signals.borrow_mut().remove(flow);
                }
                if let Notice::Neighbour { change, .. } = &notice {
                    self.tally.judged(*change);
                }
                (self.listener)(self, notice);
            }
        }
    }

    /// The node's line to the bootstraps.
    pub(crate) const fn coordinator(&self) -> &Coordinator {
        &self.coordinator
    }

    /// Closes all links once their peers have everything that was said on them, and dials nobody any more.
    pub(crate) async fn part(&self) {
        self.parting.set(true);
        let ports: Vec<Rc<LinkPort>> = self.links.borrow().values().cloned().collect();
        ports.iter().for_each(|port| port.close(DisconnectReason::Idle));
        for port in &ports {
            port.connection.closed().await;
        }
        // The connections' own tasks have their turn, and say that they are closed.
        for _ in 0..TURNS_TO_SAY_GOODBYE {
            tokio::task::yield_now().await;
        }
    }

    fn link(&self, link: LinkId) -> Option<Rc<LinkPort>> {
        self.links.borrow().get(&link).cloned()
    }

    /// The signal by which the tasks of a flow wake each other.
    pub(crate) fn signal(&self, flow: FlowKey) -> Rc<FlowSignal> {
        self.signals.borrow_mut().entry(flow).or_default().clone()
    }

    fn disconnect(&self, link: LinkId, reason: DisconnectReason) {
        if let Some(port) = self.link(link) {
            port.close(reason);
        }
    }

    fn close_leg(&self, leg: LegId, code: CloseCode) {
        if let Some(port) = self.legs.borrow_mut().remove(&leg) {
            port.close(code);
        }
    }

    async fn ask(self: Rc<Self>, ask: AskId, request: Request, fresh: bool) {
        let result = if fresh {
            self.coordinator.ask_fresh(request, ASK_TIMEOUT).await
        } else {
            self.coordinator.ask(request, ASK_TIMEOUT).await
        };
        self.tell(Event::Asked { ask, result });
    }

    // ---- time ----

    /// Has the timekeeper look again if the machine's deadline comes before what it sleeps for. If it comes after, waking
    /// once for nothing costs less than setting the timer at every event.
    fn arm(&self) {
        let due = self.machine.borrow().poll_timeout();
        if due.is_some_and(|due| self.armed.get().is_none_or(|armed| due < armed)) {
            self.armed.set(due);
            self.rearm.notify_one();
        }
    }

    async fn keep_time(self: Rc<Self>, timer: Timer) {
        loop {
            let Some(due) = self.armed.get() else {
                self.rearm.notified().await;
                continue;
            };
            let wait = due.since(self.clock.now()).min(LONGEST_SLEEP);
            tokio::select! {
                biased;
                () = self.rearm.notified() => {}
                slept = timer.sleep(wait) => {
                    if let Err(error) = slept {
                        tracing::warn!(%error, "a kernel timer failed; using the runtime's");
                        tokio::time::sleep(wait).await;
                    }
                    self.armed.set(None);
                    self.with(|machine, now, actions| {
                        if machine.poll_timeout().is_some_and(|due| due <= now) {
                            machine.handle_timeout(now, actions);
                        }
                    });
                }
            }
        }
    }

    // ---- links ----

    /// Shows each new certificate of the node to whomever it dials and is dialled by from then on. Links that are up stay.
    async fn keep_certified(self: Rc<Self>, settings: TransportSettings) {
        let mut memberships = self.coordinator.memberships();
        memberships.mark_changed();
        while memberships.changed().await.is_ok() {
            let membership = memberships.borrow_and_update().clone();
            match link_configs(&membership, &settings) {
                Ok((client, server)) => {
                    *self.client.borrow_mut() = client;
                    self.endpoint.set_server_config(Some(server));
                }
                Err(error) => tracing::error!(%error, "can't use this node's new certificate"),
            }
        }
    }

    /// Passes on that a bootstrap can be reached again.
    async fn hear_of_bootstraps(self: Rc<Self>) {
        let mut reached = self.coordinator.reached();
        while reached.changed().await.is_ok() {
            self.tell(Event::BootstrapReached);
        }
    }

    /// Passes on what the network says of peers that can't be reached.
    async fn hear_refusals(self: Rc<Self>, socket: Arc<HintingSocket>) {
        while let Ok(address) = socket.refused().await {
            self.dials.refused(address);
            let refused = |port: &LinkPort| is_same(port.connection.remote_address(), address);
            let links: Vec<LinkId> = {
                let links = self.links.borrow();
                links.iter().filter(|(_, port)| refused(port)).map(|(link, _)| *link).collect()
            };
            for link in links {
                tracing::debug!(link = link.0, %address, "the network refuses a neighbour's packets");
                self.tell(Event::LinkRefused { link });
            }
        }
    }

    async fn accept(self: Rc<Self>) {
        while let Some(incoming) = self.endpoint.accept().await {
            let Some((incoming, place)) = self.gate.admit(incoming) else { continue };
            let node = self.clone();
            spawn_local(async move {
                let from = canonical(incoming.remote_address());
                if let Err(error) = node.receive(incoming, place).await {
                    let error = tls::explain(error.as_ref());
                    node.gate.remark(|unsaid| tracing::info!(%from, error, unsaid, "a peer was turned away"));
                }
            });
        }
    }

    /// Makes a link of an attempt that was let in.
    async fn receive(self: &Rc<Self>, incoming: Incoming, mut place: Place) -> Result<(), Turned> {
        let connection = place.shake_hands(incoming).await?;
        // Only members can.
        self.gate.met(connection.remote_address());
        connection.set_max_concurrent_bi_streams(self.legs_of_link.into());
        let mut place = place.entertain().ok_or("too many links at once")?;
        place.hold(self.establish(connection, None)).await??;
        place.succeed();
        Ok(())
    }

    async fn connect(self: Rc<Self>, peer: NodeId, addresses: Vec<SocketAddr>) {
        self.tally.reach().dials();
        let failure = self.try_connect(peer, &addresses).await.err();
        self.tally.reach().has_dialled(peer, failure.is_none());
        if let Some(failure) = failure {
            self.tell(Event::ConnectFailed { peer, failure });
        }
    }

    async fn try_connect(self: &Rc<Self>, peer: NodeId, addresses: &[SocketAddr]) -> Result<(), DialFailure> {
        let (open, obstacle) = self.ways(addresses);
        if let Some(obstacle) = obstacle.filter(|_| open.is_empty()) {
            if self.dials.is_barred_anew(peer) {
                tracing::warn!(relay = %peer.short(), ?addresses, "can't dial a relay: {obstacle}");
            }
            return Err(DialFailure::NoWay);
        }
        let dialled = async {
            let mut failure = Turned::from("there is no address to dial");
            let dials = open.iter().map(|address| self.dial(peer, *address));
            let connection = first_of(dials, |error| failure = error).await.ok_or(failure)?;
            self.gate.met(connection.remote_address());
            self.establish(connection, Some(peer)).await
        };
        let dialled = tokio::time::timeout(DIAL_TIMEOUT, dialled).await;
        let error = match dialled.unwrap_or_else(|elapsed| Err(elapsed.into())) {
            Ok(()) => {
                self.doubt.clear();
                return Ok(());
            }
            Err(error) => error,
        };
        if let Some(mismatch) = error.downcast_ref::<Mismatch>() {
            if self.dials.is_barred_anew(peer) {
                tracing::warn!(relay = %peer.short(), ?addresses, "no link to a relay: {}", mismatch.told("the relay"));
            }
            return Err(DialFailure::NoWay);
        }
        let untimely = Untimely::of(error.as_ref());
        if let Some(untimely) = untimely {
            self.doubt.note(peer, untimely, &self.coordinator);
        }
        let error = tls::explain(error.as_ref());
        tracing::debug!(?peer, ?addresses, ?untimely, error, "could not dial a neighbour");
        let is_judged_here = matches!(untimely, Some(Untimely::Theirs(_)));
        Err(if is_judged_here { DialFailure::NoWay } else { DialFailure::NoAnswer })
    }

    /// Why dials fail, if the times of certificates are why they did of late.
    pub(crate) fn doubt(&self) -> Option<Arc<str>> {
        self.doubt.present()
    }

    /// The IP families in which this node can dial anybody.
    pub(crate) fn dials(&self) -> Families {
        self.local.dials(self.coordinator.bootstrap())
    }

    /// Those of a peer's addresses that can be dialled from here, and what is in the way of the others.
    fn ways(&self, addresses: &[SocketAddr]) -> (Vec<SocketAddr>, Option<Obstacle>) {
        let (mut open, mut obstacle) = (Vec::new(), None);
        for address in addresses.iter().copied().map(canonical) {
            match self.local.obstacle(address) {
                None => open.push(address),
                found => obstacle = found,
            }
        }
        (open, obstacle)
    }

    async fn dial(&self, peer: NodeId, address: SocketAddr) -> Result<quinn::Connection, Turned> {
        let client = self.client.borrow().clone();
        let connecting = self.endpoint.connect_with(client, address, &tls::node_name(peer).to_str())?;
        tokio::select! {
            connection = connecting => Ok(connection?),
            () = self.dials.refusal(address) => Err("the network says that it is not there".into()),
        }
    }
}

#[cfg(test)]
mod tests;
