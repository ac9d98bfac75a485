//! The client's side of Hopline: join a network, open flows to names, serve names, send and receive messages.
//!
//! A flow survives whatever happens to the relays of its chain, and to the bootstrap; it does not survive its endpoints. The node
//! of an [`Endpoint`] runs on a thread of its own. Dropping the last handle ends it, and with it every flow.

mod bare;
mod builder;
mod chain;
mod datagrams;
mod driver;
mod events;
mod flow;
mod flow_error;
mod flow_io;
mod halves;
mod listener;
mod messages;
mod plane;
mod pump;
mod route_file;
mod served;
mod session;

pub use builder::Builder;
pub use chain::{Chain, ChainHop, HopState};
pub use datagrams::{DatagramError, DatagramListener, Datagrams};
pub use events::{FlowEvent, Hop, Watched};
pub use flow::{Aborter, Flow};
pub use flow_error::FlowError;
pub use halves::{RecvStream, SendStream};
pub use hopline_proto::failure_memory::Ground;
pub use hopline_proto::frame::{Cause, Evidence};
pub use listener::{Inbox, Listener};
pub use messages::{Carrier, MAX_MESSAGE_BYTES, Receipt, SendError};
pub use plane::Plane;
pub use served::Message;

use crate::net::bootstrap_client::{BootstrapClient, JoinError};
use crate::net::counters::{Neighbours, NodeCounters};
use crate::net::datadir::DataDirError;
use crate::net::enrolment::Feed;
use crate::net::reach::Reach;
use crate::net::ticket::{Ticket, TicketError};
use crate::net::transport::{EVERY_ADDRESS, TransportSettings};
use bytes::Bytes;
use driver::Command;
use futures_util::future::BoxFuture;
use hopline_proto::detector::Config as DetectorConfig;
use hopline_proto::enrolment::{self, Change};
use hopline_proto::epoch::MAX_HOPS;
use hopline_proto::id::NodeId;
use hopline_proto::machine::{AskFailure, OpenFailure};
use hopline_proto::rpc::{Listing, Refusal, Request, Response};
use session::pool::Sessions;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{broadcast, mpsc, oneshot};

/// How long an endpoint that shuts down waits until the receipts of messages that it took have arrived, and for receipts.
const RECEIPTS_TIMEOUT: Duration = Duration::from_secs(2);
const SENDERS_TIMEOUT: Duration = Duration::from_millis(200);

/// By default the two ends of a flow may be apart for so long.
pub const FLOW_TIMEOUT: Duration = Duration::from_secs(25);

/// By default sessions are closed that have been idle for so long.
const SESSION_IDLE: Duration = Duration::from_secs(300);

/// How an endpoint joins and runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to keep the node's key and certificate, for this process alone while the endpoint lives; `None` for a new identity
    /// that is forgotten with the process.
    pub data: Option<PathBuf>,
    /// What listings call the node; by default the beginning of its id.
    pub name: Option<String>,
    /// The local UDP address. Nothing ever connects to an endpoint, so any free port will do.
    pub bind: SocketAddr,
    /// Relays on the chains of the flows that it opens, 1 to 8.
    pub hops: u8,
    /// How neighbours are watched; [`Liveness`](hopline_proto::detector::Liveness) has presets.
    pub liveness: DetectorConfig,
    /// How soon it asks a bootstrap again that does not answer, if it serves names.
    pub enrolment: enrolment::Config,
    /// The QUIC transport.
    pub transport: TransportSettings,
    /// How the flows that it opens travel.
    pub plane: Plane,
    /// Each packet of a session goes over two chains, which share no relay if the pool has enough: what happens to one chain does not
    /// interrupt the flow. Only with [`Plane::Session`].
    pub redundant: bool,
    /// After this long without a flow a session is closed. The next flow opens another.
    pub session_idle: Duration,
    /// How long this end keeps a flow that does not reach its other end. After that the flow is lost.
    pub flow_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            data: None,
            name: None,
            bind: EVERY_ADDRESS,
            hops: 3,
            liveness: DetectorConfig::default(),
            enrolment: enrolment::Config::default(),
            transport: TransportSettings::default(),
            plane: Plane::default(),
            redundant: false,
            session_idle: SESSION_IDLE,
            flow_timeout: FLOW_TIMEOUT,
        }
    }
}

/// Why an endpoint could not join.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// It was not called on a tokio runtime.
    #[error("no tokio runtime: join within one, such as that of #[tokio::main]")]
    NoRuntime,
    /// [`Builder::ticket`] was not called, and there is no other ticket.
    #[error("no ticket: give one, or set HOPLINE_TICKET; `hopline bootstrap` prints its network's")]
    NoTicket,
    /// The ticket that was found is none.
    #[error("the ticket at hand: {0}")]
    Ticket(#[source] TicketError),
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

/// Why a flow could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The number of hops is not between 1 and [`MAX_HOPS`].
    #[error("a chain has 1 to {MAX_HOPS} hops, not {hops}")]
    Hops {
        /// What was asked for.
        hops: u8,
    },
    /// There is no way to that name now.
    #[error(transparent)]
    Route(#[from] OpenFailure),
    /// The target could not be reached, or is not who it should be.
    #[error("no connection to the target: {0}")]
    Flow(#[from] FlowError),
    /// No bootstrap answered, and the routes from before lead nowhere.
    #[error(
        "no bootstrap answers, and the routes kept from before lead nowhere any more ({0}): the target has restarted, or its \
         relays are gone"
    )]
    Outdated(#[source] FlowError),
    /// The endpoint has been shut down.
    #[error("the endpoint has been shut down")]
    Closed,
}

impl OpenError {
    /// Why a flow over a route, perhaps a `kept` one, came to nothing.
    fn over(kept: bool, error: FlowError) -> Self {
        let leads_nowhere = matches!(
            error,
            FlowError::NoPath | FlowError::OutOfTime { .. } | FlowError::Lost | FlowError::Unknown
        );
        if kept && leads_nowhere { Self::Outdated(error) } else { error.into() }
    }
}

/// Why a name could not be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// This endpoint serves it already, in the same way.
    #[error("this endpoint serves \"{name}\" already; drop what serves it first")]
    Twice {
        /// The name that is served.
        name: String,
    },
    /// The bootstrap refused it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The endpoint has been shut down.
    #[error("the endpoint has been shut down")]
    Closed,
}

/// Why a relay was not told to drain.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DrainError {
    /// The bootstrap knows no such relay.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// No bootstrap answered, or this node's ticket gives no right to it.
    #[error("{0}")]
    Bootstrap(Arc<JoinError>),
}

impl From<Arc<JoinError>> for DrainError {
    fn from(error: Arc<JoinError>) -> Self {
        Self::Bootstrap(error)
    }
}

/// A member of a network that opens flows and serves names. Clones share it.
///
/// It joins on a tokio runtime of either kind, on which its background tasks then run, so that runtime must live as long as the
/// endpoint. All methods may be called from any other runtime, or from none.
#[derive(Clone, Debug)]
pub struct Endpoint(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    commands: mpsc::Sender<Command>,
    bootstrap_client: BootstrapClient,
    /// On which this endpoint joined: whoever calls it need not have one.
    runtime: Handle,
    counters: Arc<NodeCounters>,
    enrolment: Arc<Feed>,
    hops: u8,
    events: broadcast::Sender<FlowEvent>,
    senders: messages::Senders,
    plane: Plane,
    redundant: bool,
    session_idle: Duration,
    sessions: Sessions,
    names: Arc<listener::Names>,
}

impl Endpoint {
    /// How to join; [`Builder::join`] does it.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Joins the network that `ticket` invites to, with all there is to say; [`Endpoint::builder`] is the short way.
    ///
    /// # Errors
    /// As [`Builder::join`].
    pub fn join(ticket: Ticket, options: Options) -> BoxFuture<'static, Result<Self, StartError>> {
        Box::pin(async move {
            let runtime = Handle::try_current().map_err(|_| StartError::NoRuntime)?;
            let (hops, plane) = (options.hops, options.plane);
            let (redundant, session_idle) = (options.redundant, options.session_idle);
            let names = Arc::<listener::Names>::default();
            let node = driver::start(ticket, options, names.list()).await?;
            Ok(Self(Arc::new(Inner {
                commands: node.commands,
                bootstrap_client: node.bootstrap_client,
                runtime,
                counters: node.counters,
                enrolment: node.enrolment,
                hops,
                events: node.events,
                senders: messages::Senders::default(),
                plane,
                redundant,
                session_idle,
                sessions: Sessions::default(),
                names,
            })))
        })
    }

    /// Who this endpoint is.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.0.bootstrap_client.node_id()
    }

    /// What this endpoint thought of its neighbours so far.
    #[must_use]
    pub fn neighbours(&self) -> Neighbours {
        self.0.counters.read()
    }

    /// Which relays it could reach.
    pub fn reach(&self) -> &Reach {
        self.0.counters.reach()
    }

    /// What becomes of its lease from now on, if it serves names. A receiver that lags by more than 64 changes misses the
    /// oldest.
    #[must_use]
    pub fn enrolment(&self) -> broadcast::Receiver<Change> {
        self.0.enrolment.subscribe()
    }

    /// How often what has happened to its lease, up to the last change.
    #[must_use]
    pub fn enrolment_counters(&self) -> enrolment::Counters {
        self.0.enrolment.counters()
    }

    /// Opens a flow to whoever serves `name`, over as many relays as [`Builder::hops`] says.
    ///
    /// Resolves when the two ends have agreed on a secure channel, within 30 seconds. The future may be dropped at any point; then the
    /// flow is aborted.
    ///
    /// # Errors
    /// [`OpenError`] if there is no such name, no route, or nobody answers there.
    pub fn open<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Flow, OpenError>> {
        self.open_over(name, self.0.hops)
    }

    /// Opens a flow over `hops` relays, 1 to 8.
    ///
    /// # Errors
    /// As [`Endpoint::open`].
    pub fn open_over<'a>(&'a self, name: &'a str, hops: u8) -> BoxFuture<'a, Result<Flow, OpenError>> {
        Box::pin(self.within(flow::open(self, name, hops, flow::Kind::Stream)))
    }

    /// Sends one message to whoever serves `name`. Messages to one name arrive in the order of these calls; each
    /// [`Receipt`] resolves when the target's application took its message.
    ///
    /// Resolves when the message is queued: at once, but for the first to a name, which opens a flow, and while 1024 messages wait for
    /// their receipts. The future may be dropped at any point; then the message may or may not be sent.
    ///
    /// # Errors
    /// [`SendError`] if the message is longer than [`MAX_MESSAGE_BYTES`], or there is no way to the name.
    pub async fn send(&self, name: &str, message: impl Into<Bytes>) -> Result<Receipt, SendError> {
        self.send_bytes(name, message.into()).await
    }

    /// Serves `name`: flows to it come out of the [`Listener`].
    ///
    /// Resolves once the bootstrap has registered the name, however long that takes. The future may be dropped at any point; then the
    /// name is given up again. The same name may also have an [`Inbox`], for messages, and a
    /// [`DatagramListener`].
    ///
    /// # Errors
    /// [`ListenError::Twice`] if this endpoint listens to the name already, [`ListenError::Refused`] if another node has it.
    pub fn listen<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Listener, ListenError>> {
        Box::pin(self.within(listener::listen(self, name, flow::Kind::Stream)))
    }

    /// Opens datagrams to whoever serves `name` so, over as many relays as [`Builder::hops`] says.
    ///
    /// Resolves at once if a session leads there, otherwise as [`Endpoint::open`]. The future may be dropped at any point; then they are
    /// aborted.
    ///
    /// # Errors
    /// As [`Endpoint::open`].
    pub fn open_datagrams<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Datagrams, OpenError>> {
        Box::pin(self.within(datagrams::open(self, name)))
    }

    /// Serves `name`: datagrams that are opened to it come out of the [`DatagramListener`]. Otherwise as [`Endpoint::listen`].
    ///
    /// # Errors
    /// As [`Endpoint::listen`].
    pub fn listen_datagrams<'a>(
        &'a self,
        name: &'a str,
    ) -> BoxFuture<'a, Result<DatagramListener, ListenError>> {
        Box::pin(self.within(async move {
            let listener = listener::listen(self, name, flow::Kind::Datagrams).await?;
            Ok(DatagramListener::new(listener))
        }))
    }

    /// Serves `name`: messages to it come out of the [`Inbox`]. Otherwise as [`Endpoint::listen`].
    ///
    /// # Errors
    /// As [`Endpoint::listen`].
    pub fn receive<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Inbox, ListenError>> {
        Box::pin(self.within(listener::inbox(self, name)))
    }

    /// What happens to this endpoint's flows from now on; [`Flow::watch_chain`] tells what it comes to. A receiver that lags by more
    /// than 4096 events misses the oldest.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<FlowEvent> {
        self.0.events.subscribe()
    }

    /// The relays and targets of the network, as the bootstrap sees them. Takes up to 5 seconds.
    ///
    /// # Errors
    /// [`AskFailure`] if no bootstrap answers.
    pub fn list(&self) -> BoxFuture<'_, Result<Listing, AskFailure>> {
        Box::pin(self.within(list_all(&self.0.bootstrap_client)))
    }

    /// Has the relay of this name or id move its flows to others and end. The bootstrap tells it at once, or with its next
    /// heartbeat if the two are out of touch.
    ///
    /// # Errors
    /// [`DrainError`] if the bootstrap can't be asked, or refuses.
    pub fn drain<'a>(&'a self, relay: &'a str) -> BoxFuture<'a, Result<(), DrainError>> {
        Box::pin(async move {
            let response = self.within(self.0.bootstrap_client.drain(relay)).await?;
            if let Response::Refused(refusal) = response { Err(refusal.into()) } else { Ok(()) }
        })
    }

    /// Gives up the names and every flow that is still open, and says goodbye to the relays and the bootstrap. Waits until they
    /// have heard it, and until receipts of messages that were taken have arrived, but not for long: some 2 seconds.
    pub fn shutdown(&self) -> BoxFuture<'_, ()> {
        self.end("its process was done with it".into())
    }

    /// The same, where the other ends of flows that are still open are told why.
    pub async fn shutdown_because(&self, cause: impl Into<String>) {
        self.end(cause.into().into()).await;
    }

    fn send_bytes<'a>(&'a self, name: &'a str, message: Bytes) -> BoxFuture<'a, Result<Receipt, SendError>> {
        Box::pin(self.within(messages::send(self, name, message)))
    }

    fn end(&self, cause: Arc<str>) -> BoxFuture<'_, ()> {
        Box::pin(self.within(async move {
            tokio::join!(self.0.names.close(&cause, RECEIPTS_TIMEOUT), self.0.senders.close(SENDERS_TIMEOUT));
            tokio::join!(self.0.sessions.close(&cause), self.0.names.close_sessions(&cause));
            let (done, finished) = oneshot::channel();
            if self.0.commands.send(Command::Shutdown { cause, done }).await.is_ok() {
                let _ = finished.await;
            }
            self.0.bootstrap_client.close().await;
        }))
    }

    /// Runs a future as if on the runtime on which this endpoint joined, for its timers and tasks.
    async fn within<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        poll_fn(|cx| {
            let _entered = self.0.runtime.enter();
            future.as_mut().poll(cx)
        })
        .await
    }

    /// Hands a command to the node's thread.
    async fn command(&self, command: Command) -> Result<(), OpenError> {
        self.0.commands.send(command).await.map_err(|_| OpenError::Closed)
    }
}

/// What there is, as the bootstrap sees it.
async fn list_all(bootstrap_client: &BootstrapClient) -> Result<Listing, AskFailure> {
    let answer = bootstrap_client.ask(Request::List, Duration::from_secs(5)).await?;
    if let Response::Listing(listing) = answer { Ok(*listing) } else { Err(AskFailure::Unreachable) }
}
