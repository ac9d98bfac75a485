//! A relay process: a node whose machine carries other people's flows.

#[cfg(test)]
mod lies;
mod load;
mod observer;
mod own_addresses;

pub use observer::{Observer, Vitals};

use crate::net::bootstrap_client::{BootstrapClient, JoinError};
use crate::net::counters::Neighbours;
use crate::net::datadir::{DataDir, DataDirError, Role};
use crate::net::enrolment::Feed;
use crate::net::entropy;
use crate::net::identity::Membership;
use crate::net::memory::default_replay_bytes;
use crate::net::node::{self, Parts};
use crate::net::tasks::spawn_local;
use crate::net::ticket::Ticket;
use crate::net::transport::{EVERY_ADDRESS, TransportSettings};
use futures_util::future::BoxFuture;
use hopline_proto::agent::AgentConfig;
use hopline_proto::detector::Config as DetectorConfig;
use hopline_proto::enrolment::{self, Change, Trouble};
use hopline_proto::flows::{FlowKey, FlowsConfig};
use hopline_proto::frame::{Cause, Reroute};
use hopline_proto::id::NodeId;
use hopline_proto::machine::{NeighbourChange, Notice};
use hopline_proto::record::Candidate;
use hopline_proto::relay::Relay as Machine;
use hopline_proto::rpc::{Capabilities, Offer, Refusal};
use observer::Failovers;
use own_addresses::OwnAddresses;
use rand::Rng;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{broadcast, oneshot, watch};

/// How long a relay that leaves waits for its last words to its neighbours to get out,
const LAST_WORDS: Duration = Duration::from_millis(300);
/// and for a bootstrap to have heard its goodbye.
const GOODBYE: Duration = Duration::from_secs(3);

/// The least window of a leg's stream.
const LEAST_STREAM_WINDOW_BYTES: u32 = 512 << 10;

/// How a relay joins and runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// The local UDP address; port 0 takes any free one.
    pub listen: SocketAddr,
    /// The addresses under which others dial it, the preferred one first, if that is not the local one: at most
    /// [`MAX_ADDRESSES`](hopline_proto::record::MAX_ADDRESSES).
    pub advertise: Vec<SocketAddr>,
    /// Where to keep the node's key and certificate, for this process alone while the relay lives; `None` for a new identity
    /// that is forgotten with the process.
    pub data: Option<PathBuf>,
    /// What listings call it; by default the beginning of its id.
    pub name: Option<String>,
    /// Its failure domain: chains take relays from different ones where they can.
    pub zone: String,
    /// How many flows it is willing to carry.
    pub capacity: u32,
    /// How others may use it.
    pub capabilities: Capabilities,
    /// How long a relay that drains waits until its flows have gone elsewhere.
    pub drain_timeout: Duration,
    /// How neighbours are watched; [`Liveness`](hopline_proto::detector::Liveness) has presets.
    pub liveness: DetectorConfig,
    /// How soon it asks a bootstrap again that does not answer.
    pub enrolment: enrolment::Config,
    /// How many bytes of all flows together it keeps for replay, beside 64 KiB for each direction of each: by default a
    /// quarter of the machine's memory.
    pub replay_bytes: u64,
    /// The QUIC transport. No stream's window is larger than [`Options::stream_window_bytes`].
    pub transport: TransportSettings,
}

impl Options {
    /// What a peer may send on a leg ahead of this relay's reading: so much that the legs of as many flows as it is
    /// willing to carry hold no more than its lanes may, unless that were too little to work with.
    #[must_use]
    pub fn stream_window_bytes(&self) -> u32 {
        let fair = self.replay_bytes / (2 * u64::from(self.capacity.max(1)));
        let window = u32::try_from(fair).unwrap_or(u32::MAX).max(LEAST_STREAM_WINDOW_BYTES);
        self.transport.stream_window_bytes.min(window)
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: EVERY_ADDRESS,
            advertise: Vec::new(),
            data: None,
            name: None,
            zone: String::new(),
            capacity: 1000,
            capabilities: Capabilities::default(),
            drain_timeout: Duration::from_secs(30),
            liveness: DetectorConfig::default(),
            enrolment: enrolment::Config::default(),
            replay_bytes: default_replay_bytes(),
            transport: TransportSettings::default(),
        }
    }
}

/// Why a relay could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Its data directory is another's.
    #[error(transparent)]
    Data(#[from] DataDirError),
    /// No bootstrap let it in.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// The node's socket, key or thread could not be had.
    #[error("cannot start the node: {0}")]
    Node(Box<dyn std::error::Error + Send + Sync>),
}

/// A relay that runs on a thread of its own.
#[derive(Debug)]
pub struct Relay {
    name: String,
    addresses: watch::Receiver<Vec<SocketAddr>>,
    state: watch::Receiver<State>,
    observer: Observer,
    enrolment: Arc<Feed>,
    drain: oneshot::Sender<()>,
}

/// Whether the bootstrap has the relay in its pool.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Starting,
    Enrolled,
    Refused(Refusal),
    Draining,
    Drained,
    Ended,
}

impl State {
    const fn has_drained(&self) -> bool {
        matches!(self, Self::Drained | Self::Ended)
    }
}

impl Relay {
    /// Joins the network that `ticket` invites to, and takes a place in the pool.
    ///
    /// # Errors
    /// [`StartError`] if no bootstrap lets it in, or the node can't be started.
    pub fn start(ticket: Ticket, options: Options) -> BoxFuture<'static, Result<Self, StartError>> {
        Box::pin(Self::join(ticket, options))
    }

    async fn join(ticket: Ticket, options: Options) -> Result<Self, StartError> {
        let data = DataDir::take(options.data.as_deref(), Role::Relay).await?;
        let bootstrap_client = BootstrapClient::join(ticket, data).await?;
        let membership = bootstrap_client.membership();
        let id = membership.node_id();
        let name = options.name.clone().unwrap_or_else(|| id.short());
        let (drain, to_drain) = oneshot::channel();
        let (told, state) = watch::channel(State::Starting);
        let enrolment = Arc::<Feed>::default();
        let (questions, asked) = observer::questions();
        let failovers = Failovers::new();
        let build = {
            let (name, drain_timeout) = (name.clone(), options.drain_timeout);
            let listening = (told.clone(), enrolment.clone(), failovers.clone());
            let changes = enrolment.subscribe();
            move || {
                let (parts, own_addresses) = parts(&options, name, bootstrap_client, &membership, listening)?;
                let (told_addresses, addresses) = watch::channel(own_addresses.look()?);
                let directory = options.data.unwrap_or_else(|| PathBuf::from("."));
                let loads = load::watch(directory, parts.counters.clone(), parts.clock)?;
                let main = async move |node: Rc<node::Node<Machine>>| {
                    node.with(|machine, now, actions| machine.start(now, actions));
                    spawn_local(load::tell(node.clone(), loads));
                    spawn_local(observer::answer(node.clone(), asked));
                    spawn_local(own_addresses.watch(node.clone(), told_addresses));
                    #[cfg(feature = "faults")]
                    spawn_local(node.clone().turn_gray_at_signals());
                    let mut state = told.subscribe();
                    tokio::select! {
                        _ = to_drain => node.with(|machine, now, actions| machine.drain(now, actions)),
                        // The bootstrap may have it drain, too.
                        _ = state.wait_for(|state| *state == State::Draining || state.has_drained()) => {}
                    }
                    let drained = state.wait_for(State::has_drained);
                    if tokio::time::timeout(drain_timeout, drained).await.is_err() {
                        let left = node.flows(|flows| flows.len());
                        tracing::warn!(
                            flows = left,
                            "leaving, though not every flow could move to another relay"
                        );
                    }
                    // What is still queued is of the time before.
                    leave(&node, changes.resubscribe()).await;
                    let _ = told.send(State::Ended);
                };
                let counters = parts.counters.clone();
                Ok((parts, (addresses, counters), main))
            }
        };
        let (addresses, counters) = node::start("hopline-relay", build).await.map_err(StartError::Node)?;
        let observer = Observer { id, counters, failovers, state: state.clone(), questions };
        Ok(Self { name, addresses, state, observer, enrolment, drain })
    }

    /// What listings call it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Who it is.
    #[must_use]
    pub const fn id(&self) -> NodeId {
        self.observer.id()
    }

    /// A view of it that others may hold.
    #[must_use]
    pub fn observe(&self) -> Observer {
        self.observer.clone()
    }

    /// Where others dial it now, the preferred address first.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.addresses.borrow().clone()
    }

    /// What it thought of its neighbours so far.
    #[must_use]
    pub fn neighbours(&self) -> Neighbours {
        self.observer.neighbours()
    }

    /// What becomes of its place in the pool from now on. A receiver that lags by more than 64 changes misses the oldest.
    #[must_use]
    pub fn enrolment(&self) -> broadcast::Receiver<Change> {
        self.enrolment.subscribe()
    }

    /// How often what has happened to its place in the pool, up to the last change.
    #[must_use]
    pub fn enrolment_counters(&self) -> enrolment::Counters {
        self.enrolment.counters()
    }

    /// Resolves once the bootstrap has it in its pool, or the relay has ended.
    ///
    /// # Errors
    /// [`Refusal`] if the bootstrap will not have it as it is.
    pub fn enrolled(&mut self) -> BoxFuture<'_, Result<(), Refusal>> {
        Box::pin(async move {
            match self.state.wait_for(|state| *state != State::Starting).await.as_deref() {
                Ok(State::Refused(refusal)) => Err(refusal.clone()),
                _ => Ok(()),
            }
        })
    }

    /// Resolves when it has ended, as the bootstrap had it drain.
    pub fn ended(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let _ = self.state.clone().wait_for(|state| *state == State::Ended).await;
        })
    }

    /// Takes no new flows, waits for a while until those that it carries have gone elsewhere, and ends.
    pub fn drain(mut self) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let _ = self.drain.send(());
            let _ = self.state.wait_for(|state| *state == State::Ended).await;
        })
    }
}

/// Tells everybody concerned that the relay leaves.
async fn leave(node: &Rc<node::Node<Machine>>, mut changes: broadcast::Receiver<Change>) {
    node.with(|machine, now, actions| machine.leave(now, actions));
    let has_left =
        async { while node.with(|machine, _, _| machine.is_leaving()) && changes.recv().await.is_ok() {} };
    if tokio::time::timeout(GOODBYE, has_left).await.is_err() {
        tracing::warn!("no bootstrap received this relay's goodbye; its lease will expire");
    }
    let _ = tokio::time::timeout(LAST_WORDS, node.part()).await;
    node.bootstrap_client().close().await;
}

fn parts(
    options: &Options,
    name: String,
    bootstrap_client: BootstrapClient,
    membership: &Membership,
    (told, enrolment, failovers): (watch::Sender<State>, Arc<Feed>, Failovers),
) -> Result<(Parts<Machine>, OwnAddresses), node::StartFailure> {
    let transport =
        TransportSettings { stream_window_bytes: options.stream_window_bytes(), ..options.transport.clone() };
    let socket = node::open_socket(membership, options.listen, &transport)?;
    let own_addresses = OwnAddresses::new(socket.local, &options.advertise, bootstrap_client.clone());
    let (seed, bootstraps) = (entropy::seeded_rng().next_u64(), bootstrap_client.bootstraps());
    let agent = AgentConfig { name, seed, enrolment: options.enrolment, bootstraps };
    let offer = Offer::Relay {
        addresses: own_addresses.look()?,
        zone: options.zone.clone(),
        capacity: options.capacity,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        capabilities: options.capabilities,
    };
    let mut flows = FlowsConfig { replay_bytes: options.replay_bytes, ..FlowsConfig::default() };
    flows.links.detector = options.liveness;
    let machine = Machine::new(membership.node_id(), flows, agent, offer);
    let on_notice = Box::new(move |_: &Rc<node::Node<Machine>>, notice| {
        failovers.note(&notice);
        hear(&notice, &told, &enrolment);
    });
    Ok((Parts::new(machine, socket, bootstrap_client, on_notice), own_addresses))
}

fn hear(notice: &Notice, told: &watch::Sender<State>, enrolment: &Feed) {
    match notice {
        Notice::Enrolment { change, counters } => {
            hear_of_lease(change, told);
            enrolment.tell(change.clone(), *counters);
        }
        Notice::Draining => {
            tracing::info!("draining: takes no new flows, and moves its own to other relays");
            let _ = told.send(State::Draining);
        }
        Notice::Drained => {
            tracing::info!("carries no flow any more");
            let _ = told.send(State::Drained);
        }
        Notice::Ended { flow, code, .. } => {
            tracing::debug!(flow = %flow.flow, hop = flow.hop, ?code, "flow over")
        }
        Notice::Rerouted { flow, reroute, from, to, .. } => log_reroute(*flow, reroute, [from, to]),
        Notice::Neighbour { node, change: NeighbourChange::Down, silence } => {
            tracing::info!(?node, silence_ms = silence.as_millis(), "a neighbour is dead");
        }
        Notice::Neighbour { node, change, silence } => {
            tracing::debug!(?node, ?change, silence_ms = silence.as_millis(), "neighbour");
        }
        Notice::Violation { link, peer, what } => {
            tracing::warn!(link = link.0, ?peer, %what, "a peer broke the protocol");
        }
        Notice::Opened { .. }
        | Notice::OpenFailed { .. }
        | Notice::Accepted { .. }
        | Notice::Chain { .. }
        | Notice::Attachments { .. }
        | Notice::Avoided { .. }
        | Notice::Unattached { .. }
        | Notice::CandidateWanted { .. }
        | Notice::RoutesChanged => {}
    }
}

/// Failovers are for people to see. That a hop followed the one before it is no failover: the one before it tells of that.
fn log_reroute(flow: FlowKey, reroute: &Reroute, [from, to]: [&Option<Candidate>; 2]) {
    let name = |candidate: &Option<Candidate>| candidate.as_ref().map(|candidate| candidate.name.clone());
    macro_rules! log {
        ($level:ident) => {
            tracing::$level!(
                flow = %flow.flow,
                hop = reroute.hop,
                from = name(from),
                to = name(to),
                cause = reroute.cause.as_str(),
                evidence = reroute.reason.evidence.as_str(),
                detected_us = reroute.detected_us,
                gap_us = reroute.gap_us,
                replayed = reroute.replayed,
                "rerouted"
            )
        };
    }
    if reroute.cause == Cause::Followed { log!(debug) } else { log!(info) }
}

fn hear_of_lease(change: &Change, told: &watch::Sender<State>) {
    let begin = |begun: State| {
        told.send_if_modified(|state| {
            // A later lease is not to take back that the relay drains.
            let is_first = *state == State::Starting;
            if is_first {
                *state = begun;
            }
            is_first
        })
    };
    match change {
        Change::Registered => {
            if begin(State::Enrolled) {
                tracing::info!("in the pool");
            }
        }
        Change::Trouble(Trouble::Rejected { reason }) => {
            tracing::error!(refusal = %reason, "the bootstrap refuses this relay");
            begin(State::Refused(reason.clone()));
        }
        Change::Trouble(_) | Change::Renewed | Change::Left => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hopline_proto::frame::Reason;
    use hopline_proto::id::{FlowId, Pseudonym};
    use std::io;
    use std::sync::mpsc;

    #[test]
    fn the_windows_of_all_legs_fit_beside_the_lanes() {
        let window = |replay_bytes, capacity| {
            let options = Options { replay_bytes, capacity, ..Options::default() };
            options.stream_window_bytes()
        };
        assert_eq!(window(8 << 30, 1000), 2 << 20, "no more than the transport's");
        assert_eq!(window(2 << 30, 1024), 1 << 20);
        assert_eq!(window(0, 10_000), LEAST_STREAM_WINDOW_BYTES);
    }

    /// What a log at the level of people has of it.
    fn logged(cause: Cause) -> String {
        let (sent, lines) = mpsc::channel();
        let writer = move || Lines(sent.clone());
        let log = tracing_subscriber::fmt().with_max_level(tracing::Level::INFO).with_writer(writer).finish();
        let flow =
            FlowKey { origin: Pseudonym::from_bytes([1; 16]), flow: FlowId::from_bytes([2; 16]), hop: 1 };
        let reason = Reason::of(cause.evidence());
        let (hop, version, from, to) = (2, 1, 0, 1);
        let (gap_us, detected_us, replayed) = (5, 3, 0);
        let reroute = Reroute { hop, version, from, to, cause, gap_us, detected_us, replayed, reason };
        tracing::subscriber::with_default(log, || log_reroute(flow, &reroute, [&None, &None]));
        lines.try_iter().collect()
    }

    struct Lines(mpsc::Sender<String>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let line = String::from_utf8_lossy(bytes).into_owned();
            self.0.send(line).map(|()| bytes.len()).map_err(io::Error::other)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn failovers_are_for_people_and_what_follows_from_them_is_not() {
        assert!(logged(Cause::Silence).contains("rerouted"));
        assert_eq!(logged(Cause::Followed), "");
    }
}
