//! Drives a node's machine: turns what happens on sockets into events, and actions into what happens on sockets.
//!
//! The machine, the links and the legs run on one thread (see [`start`]), so the machine sits in a `RefCell` and is borrowed for the
//! length of one event; neither lock nor channel lies between a stream and its lane. Requests to bootstraps, files and the
//! applications' TLS run elsewhere. Beside the tasks of each link
//! (`link.rs`) and each leg (`leg.rs`) there is one that sleeps until the machine's next deadline.
//!
//! Queues: each link's control messages ([`MAX_QUEUED_CONTROLS`]; a peer that lets more pile up is disconnected). Bytes
//! wait in lanes only.

mod certificate_failures;
mod dials;
mod faults;
mod forward;
mod handshakes;
mod leg;
mod link;
mod sockets;

use crate::net::address::is_same;
use crate::net::bootstrap_client::BootstrapClient;
use crate::net::clock::Clock;
use crate::net::closing::PendingClose;
use crate::net::counters::NodeCounters;
use crate::net::entropy;
use crate::net::gate::{Gate, Turned};
use crate::net::local::Local;
use crate::net::socket::{HintingSocket, set_tap};
use crate::net::tasks::spawn_local;
use crate::net::timer::Timer;
use certificate_failures::CertificateFailures;
use dials::Dials;
use faults::Faults;
use forward::AllHeld;
pub(crate) use forward::PacketSink;
use hopline_proto::admission;
use hopline_proto::families::Families;
use hopline_proto::flows::{FlowKey, Flows};
use hopline_proto::frame::CloseCode;
use hopline_proto::id::BootId;
use hopline_proto::machine::{Action, AskId, DisconnectReason, Event, LinkId, Machine, Notice};
use hopline_proto::rpc::Request;
use hopline_proto::splice::LegId;
use hopline_proto::time::Time;
use leg::{FlowSignal, LegPort};
use link::LinkPort;
pub(crate) use sockets::{Socket, open_socket};
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use tokio::task::LocalSet;

/// Control messages that may wait for one link.
const MAX_QUEUED_CONTROLS: usize = 8192;
/// The timekeeper looks again at least so often.
const LONGEST_SLEEP: Duration = Duration::from_secs(3600);
/// How often every other task of a node has its turn before the node ends that has closed its links.
const TURNS_TO_SAY_GOODBYE: usize = 4;
/// How long a bootstrap may take to answer.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);

/// What hears what the machine has to say.
pub(crate) type NoticeHandler<M> = Box<dyn Fn(&Rc<Node<M>>, Notice)>;

/// A node on its thread. See the module's documentation.
pub(crate) struct Node<M> {
    machine: RefCell<M>,
    boot: BootId,
    clock: Clock,
    endpoint: quinn::Endpoint,
    local: Local,
    /// Shows the node's present certificate.
    client: RefCell<quinn::ClientConfig>,
    bootstrap_client: BootstrapClient,
    counters: Arc<NodeCounters>,
    on_notice: NoticeHandler<M>,
    gate: Arc<Gate>,
    /// Legs that a peer may have open at once on a link.
    legs_of_link: u32,
    links: RefCell<HashMap<LinkId, Rc<LinkPort>>>,
    legs: RefCell<HashMap<LegId, Rc<LegPort>>>,
    signals: RefCell<HashMap<FlowKey, Rc<FlowSignal>>>,
    dials: Dials,
    certificate_failures: CertificateFailures,
    events: RefCell<VecDeque<Event>>,
    next_link: Cell<u32>,
    armed: Cell<Option<Time>>,
    rearm: Notify,
    faults: Faults,
    /// Whether it leaves.
    parting: Cell<bool>,
    socket: Arc<HintingSocket>,
    packets: PacketSink,
    /// Notified when a leg was opened or answered.
    legs_opened: Notify,
    held: RefCell<AllHeld>,
}

/// What a node is made of.
pub(crate) struct Parts<M> {
    pub(crate) machine: M,
    boot: BootId,
    pub(crate) clock: Clock,
    pub(crate) socket: Socket,
    pub(crate) bootstrap_client: BootstrapClient,
    pub(crate) counters: Arc<NodeCounters>,
    on_notice: NoticeHandler<M>,
    /// Who takes packets of flows that end here.
    packets: PacketSink,
}

impl<M> Parts<M> {
    /// Those of a new process, which begins its time now, at a node where no flow ends.
    pub(crate) fn new(
        machine: M,
        socket: Socket,
        bootstrap_client: BootstrapClient,
        on_notice: NoticeHandler<M>,
    ) -> Self {
        let (boot, clock) = (BootId::random(&mut entropy::seeded_rng()), Clock::start());
        let counters = NodeCounters::new(clock);
        let packets = Box::new(|_, _: &[u8], _| false);
        Self { machine, boot, clock, socket, bootstrap_client, counters, on_notice, packets }
    }

    /// At an endpoint: `packets` takes those of flows that end there.
    pub(crate) fn taking(self, packets: PacketSink) -> Self {
        Self { packets, ..self }
    }
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
    let word = PendingClose::new();
    std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        // As long as this thread runs the process is not to end (`closing::all_sent`).
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

async fn run<M: Machine + 'static>(parts: Parts<M>, timer: Timer, main: impl AsyncFnOnce(Rc<Node<M>>)) {
    let Socket { endpoint, local, client, hints, settings } = parts.socket;
    let node = Rc::new(Node {
        machine: RefCell::new(parts.machine),
        boot: parts.boot,
        clock: parts.clock,
        endpoint,
        local,
        client: RefCell::new(client),
        bootstrap_client: parts.bootstrap_client,
        counters: parts.counters,
        on_notice: parts.on_notice,
        gate: Gate::new(admission::Config::default(), parts.clock),
        legs_of_link: settings.streams(),
        links: RefCell::default(),
        legs: RefCell::default(),
        signals: RefCell::default(),
        dials: Dials::default(),
        certificate_failures: CertificateFailures::default(),
        events: RefCell::default(),
        next_link: Cell::new(1),
        armed: Cell::new(None),
        rearm: Notify::new(),
        faults: Faults::default(),
        parting: Cell::new(false),
        socket: hints.clone(),
        packets: parts.packets,
        legs_opened: Notify::new(),
        held: RefCell::default(),
    });
    set_tap(Some(node.clone()));
    let local = LocalSet::new();
    local.spawn_local(node.clone().keep_time(timer));
    local.spawn_local(node.clone().accept());
    local.spawn_local(node.clone().hear_refusals(hints));
    local.spawn_local(node.clone().keep_certified(settings));
    local.spawn_local(node.clone().hear_of_bootstraps());
    local.run_until(main(node.clone())).await;
    node.endpoint.close(0u32.into(), b"shutting down");
    let _ = tokio::time::timeout(Duration::from_millis(500), node.endpoint.wait_idle()).await;
    set_tap(None);
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
        // Whatever made room in the budget, its next reader is woken here.
        self.flows(|_| ());
        self.release();
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
                    // quinn does not tell when packets are lost, so it is asked with each heartbeat.
                    let losses = port.new_losses();
                    let event = losses.map(|counted| Event::LinkLossy { link, counted });
                    self.events.borrow_mut().extend(event);
                }
            }
            Action::Control { link, control } => self.send_control(link, control),
            Action::OpenLeg { leg, flow, attach } => {
                self.open_leg(leg, flow, *attach);
                self.legs_opened.notify_waiters();
            }
            Action::AnswerLeg { leg, flow, answer } => {
                self.answer_leg(leg, flow, answer);
                self.legs_opened.notify_waiters();
            }
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
                    self.counters.judged(*change);
                }
                (self.on_notice)(self, notice);
            }
        }
    }

    /// What its clock says.
    pub(crate) fn now(&self) -> Time {
        self.clock.now()
    }

    /// Notified when packets may have a way that had none.
    pub(crate) const fn legs_opened(&self) -> &Notify {
        &self.legs_opened
    }

    /// The node's line to the bootstraps.
    pub(crate) const fn bootstrap_client(&self) -> &BootstrapClient {
        &self.bootstrap_client
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
            self.bootstrap_client.ask_fresh(request, ASK_TIMEOUT).await
        } else {
            self.bootstrap_client.ask(request, ASK_TIMEOUT).await
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
                    // The timer is not set any more, so `arm` sets it for any deadline.
                    self.armed.set(None);
                    self.with(|machine, now, actions| {
                        // The deadline may be later by now than the one that was slept for.
                        if machine.poll_timeout().is_some_and(|due| due <= now) {
                            machine.handle_timeout(now, actions);
                        }
                    });
                }
            }
        }
    }

    // ---- links ----

    /// Passes on that a bootstrap can be reached again.
    async fn hear_of_bootstraps(self: Rc<Self>) {
        let mut reached = self.bootstrap_client.reached();
        while reached.changed().await.is_ok() {
            self.tell(Event::BootstrapReached);
        }
    }

    /// Passes on what the network says of peers that can't be reached.
    async fn hear_refusals(self: Rc<Self>, socket: Arc<HintingSocket>) {
        while let Ok(address) = socket.refused().await {
            self.dials.refused(address);
            let refused = |port: &LinkPort| is_same(port.connection.remote_address(), address);
            // Collected first, as what the machine does may close links.
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

    /// Why dials fail, if the times of certificates are why they did of late.
    pub(crate) fn certificate_failure(&self) -> Option<Arc<str>> {
        self.certificate_failures.present()
    }

    /// The IP families in which this node can dial anybody.
    pub(crate) fn dials(&self) -> Families {
        self.local.dials(self.bootstrap_client.bootstrap())
    }
}

#[cfg(test)]
mod tests;
