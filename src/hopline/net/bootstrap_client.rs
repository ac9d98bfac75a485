//! A node's client of the network's bootstraps: joining, renewing its membership, and requests.
//!
//! A [`BootstrapClient`] keeps one connection to one of the ticket's bootstraps. It is made when it is needed and made again after it
//! broke. Requests that come while it is being made wait for it; if that fails, each makes one dial of its own. A request on
//! a connection that turns out to be dead (a bootstrap restarted) is repeated once over a new one. All other failures are
//! returned; in a node its enrolment machine handles them. If there are several bootstraps, one that the network says is not there
//! fails at once.
//!
//! Everything has a time limit: each dial has one, and each request brings its own. Everything may be dropped at any point: a dial goes
//! on for the next request, and a dropped request is cancelled at the bootstrap. The tasks run on the tokio runtime on which the
//! node joined, whatever its kind; handles work on any other.
//!
//! This module does not know what the answers mean.

mod calls;
mod connection;
mod dial;
mod drain_order;
mod error;
mod joiner;
mod monitor;
mod names;
mod network_clock;
mod refusals;
mod renewal;

pub use error::{Attempt, Cause, JoinError};

use super::address::canonical;
use super::bootstrap_rpc::{BootstrapClose, BootstrapRequest, BootstrapResponse};
use super::closing::PendingClose;
use super::datadir::DataDir;
use super::error::BindError;
use super::identity::{Identity, Membership};
use super::local::Local;
pub use super::local::Obstacle;
use super::ticket::Ticket;
use super::transport::{self, EVERY_ADDRESS, TransportSettings};
use crate::net::tasks;
use connection::Shared;
use dial::Dialer;
use futures_util::future::BoxFuture;
use hopline_proto::machine::AskFailure;
use hopline_proto::rpc::{Request, Response};
use hopline_proto::{NodeId, Time};
use joiner::Joiner;
use names::Names;
use network_clock::NetworkClock;
use quinn::ConnectionError::LocallyClosed;
use refusals::Refusals;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

/// How long [`BootstrapClient::close`] waits for its goodbye to leave, and how often it looks.
const LAST_WORDS: Duration = Duration::from_millis(300);
const GOODBYE_PAUSE: Duration = Duration::from_millis(1);

/// How long the last handle's goodbye may take to leave.
const LAST_WORD: Duration = Duration::from_millis(30);

/// How often at once, over one connection, a bootstrap may look whether this node lives, or call it.
const PROBES: u32 = 16;

/// How a node joins.
#[derive(Clone, Debug)]
pub struct JoinOptions {
    /// Where to keep the node's key and certificate; `None` for a new identity that is forgotten with the process. Nobody else
    /// has it until the last handle is dropped.
    pub data: Option<Arc<DataDir>>,
    /// How long each dial may take, and each look-up of a name.
    pub connect_timeout: Duration,
    /// How long a bootstrap may take to decide on a newcomer, or to renew a certificate.
    pub answer_timeout: Duration,
    /// How connections to bootstraps behave.
    pub transport: TransportSettings,
}

impl Default for JoinOptions {
    fn default() -> Self {
        let buffers = 0; // one question at a time needs none of its own
        Self {
            data: None,
            connect_timeout: Duration::from_secs(3),
            answer_timeout: Duration::from_secs(10),
            transport: TransportSettings {
                socket_buffer_bytes: buffers,
                control_streams: PROBES,
                ..TransportSettings::control()
            },
        }
    }
}

/// A member's line to its network's bootstraps. Clones share it; the last one dropped gives it up.
#[derive(Clone)]
pub struct BootstrapClient {
    shared: Arc<Shared>,
    /// Ends with the last handle.
    _life: Arc<Life>,
}

/// What goes on as long as there is a handle; then the bootstrap is told that there is none any more.
struct Life {
    endpoint: quinn::Endpoint,
    runtime: Handle,
    word: Option<PendingClose>,
    _tasks: [AbortOnDropHandle<()>; 3],
}

impl Drop for Life {
    fn drop(&mut self) {
        say_goodbye(&self.endpoint);
        let (endpoint, word) = (self.endpoint.clone(), self.word.take());
        // Not on a runtime that has ended: then nothing more can be said.
        tasks::spawn_on(&self.runtime, async move {
            let _ = timeout(LAST_WORD, endpoint.wait_idle()).await;
            drop(word);
        });
    }
}

fn say_goodbye(endpoint: &quinn::Endpoint) {
    endpoint.close(BootstrapClose::Done.number().into(), BootstrapClose::Done.as_str().as_bytes());
}

impl fmt::Debug for BootstrapClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BootstrapClient")
            .field("node", &self.shared.joiner.identity.node_id())
            .field("bootstrap", &self.bootstrap())
            .finish_non_exhaustive()
    }
}

impl BootstrapClient {
    /// Makes the node a member of the network that `ticket` invites to, or finds that it is one: its key and certificate
    /// are kept in `data`, if that is given.
    ///
    /// A member needs no bootstrap to begin with: with a stored certificate this succeeds also while none answers, as
    /// long as one's name can be resolved.
    ///
    /// # Errors
    /// [`JoinError`].
    pub fn join(ticket: Ticket, data: Option<Arc<DataDir>>) -> BoxFuture<'static, Result<Self, JoinError>> {
        Self::join_with(ticket, JoinOptions { data, ..JoinOptions::default() })
    }

    /// As [`BootstrapClient::join`], with other limits.
    ///
    /// # Errors
    /// [`JoinError`].
    pub fn join_with(ticket: Ticket, options: JoinOptions) -> BoxFuture<'static, Result<Self, JoinError>> {
        Box::pin(Self::enter(ticket, options))
    }

    async fn enter(ticket: Ticket, options: JoinOptions) -> Result<Self, JoinError> {
        let (identity, stored) = match options.data.clone() {
            None => (Arc::new(Identity::generate()), None),
            Some(data) => {
                let ticket = ticket.clone();
                spawn_blocking(move || joiner::load(data.path(), &ticket))
                    .await
                    .map_err(|_| JoinError::Ended)??
            }
        };
        let (endpoint, socket) =
            transport::bind_hearing_client(&options.transport, &identity.reset_secret())?;
        let local = Local::of(&*socket).map_err(|source| BindError::quic(EVERY_ADDRESS, source))?;
        let dialer = Dialer {
            names: Names::default(),
            bootstraps: AtomicUsize::new(ticket.bootstraps().len()),
            endpoint,
            local,
            found: Mutex::default(),
            // A network with one bootstrap waits for it: whoever is refused there may be restarting.
            refusals: ticket.may_name_several().then(|| Refusals::of(socket)),
            transport: transport::transport(&options.transport),
            connect_timeout: options.connect_timeout,
        };
        let answer_timeout = options.answer_timeout;
        let clock = NetworkClock::default();
        let joiner = Joiner { ticket, identity, data: options.data, dialer, answer_timeout, clock };
        let (membership, (place, address)) = match stored {
            Some(membership) => {
                let place = joiner.look_up().await?;
                (membership, place)
            }
            None => {
                let (membership, (place, connection)) = joiner.join(0).await?;
                (membership, (place, connection.remote_address()))
            }
        };
        Ok(Self::start(joiner, membership, place, address))
    }

    fn start(joiner: Joiner, membership: Membership, place: usize, address: SocketAddr) -> Self {
        let shared = Shared::new(joiner, membership, place, address);
        let renewal = tasks::spawn(renewal::keep_renewed(Arc::clone(&shared)));
        let monitor = tasks::spawn(monitor::run(Arc::clone(&shared)));
        let calls = tasks::spawn(Arc::clone(&shared).pass_on());
        let endpoint = shared.joiner.dialer.endpoint.clone();
        let (runtime, word) = (Handle::current(), Some(PendingClose::new()));
        let life =
            Life { endpoint, runtime, word, _tasks: [renewal, monitor, calls].map(AbortOnDropHandle::new) };
        Self { shared, _life: Arc::new(life) }
    }

    /// Who this node is.
    #[must_use]
    pub fn node_id(&self) -> NodeId {
        self.shared.joiner.identity.node_id()
    }

    /// The node's present membership.
    #[must_use]
    pub fn membership(&self) -> Membership {
        self.shared.membership.borrow().clone()
    }

    /// The node's membership and every later one: after each renewal its TLS configurations have to be made anew.
    #[must_use]
    pub fn memberships(&self) -> watch::Receiver<Membership> {
        self.shared.membership.subscribe()
    }

    /// The network's time, as bootstraps tell it; this machine's if none has yet.
    #[must_use]
    pub fn network_time(&self) -> Time {
        self.shared.joiner.clock.now()
    }

    /// The address of the bootstrap that answered last, or else of the first whose name could be resolved.
    #[must_use]
    pub fn bootstrap(&self) -> SocketAddr {
        canonical(self.shared.state().address)
    }

    /// That, and what else is known of where bootstraps are: the other addresses of its name, and those in the ticket.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let Joiner { dialer, ticket, .. } = &self.shared.joiner;
        let found = dialer.found.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let named = ticket.bootstraps().iter().filter_map(|named| named.parse().ok());
        [self.bootstrap()].into_iter().chain(found).chain(named).collect()
    }

    /// How many bootstraps there are to choose from.
    #[must_use]
    pub fn bootstraps(&self) -> usize {
        self.shared.joiner.dialer.bootstraps.load(Ordering::Relaxed)
    }

    /// Asks a bootstrap, and waits for its answer for at most `limit`.
    ///
    /// # Errors
    /// [`AskFailure`]; [`BootstrapClient::failure`] tells more.
    pub fn ask(&self, request: Request, limit: Duration) -> BoxFuture<'_, Result<Response, AskFailure>> {
        Box::pin(self.question(request, limit, false))
    }

    /// As [`BootstrapClient::ask`], over a new connection to the next bootstrap in the ticket, whose name is resolved anew.
    ///
    /// # Errors
    /// [`AskFailure`]; [`BootstrapClient::failure`] tells more.
    pub fn ask_fresh(
        &self,
        request: Request,
        limit: Duration,
    ) -> BoxFuture<'_, Result<Response, AskFailure>> {
        Box::pin(self.question(request, limit, true))
    }

    /// Changes whenever a bootstrap can be reached after it could not for a while, or calls this node. For nodes that have a lease; whoever has
    /// none finds out when it asks.
    #[must_use]
    pub fn reached(&self) -> watch::Receiver<u64> {
        self.shared.reached.subscribe()
    }

    /// Why a question failed last, for people; `None` as long as all went well.
    #[must_use]
    pub fn failure(&self) -> Option<Arc<JoinError>> {
        self.shared.state().failure.clone()
    }

    /// Asks for the next certificate now, rather than when two thirds of this one's time are over.
    ///
    /// # Errors
    /// [`JoinError`].
    pub fn renew(&self) -> BoxFuture<'_, Result<Membership, Arc<JoinError>>> {
        Box::pin(renewal::renew(&self.shared))
    }

    /// Has the relay of this name or id drain, with the ticket as proof of the right to it.
    ///
    /// # Errors
    /// [`JoinError::Refused`] if the ticket gives no such right; else whatever kept the bootstrap from answering.
    pub fn drain<'a>(&'a self, relay: &'a str) -> BoxFuture<'a, Result<Response, Arc<JoinError>>> {
        Box::pin(drain_order::drain(&self.shared, relay.to_owned()))
    }

    /// Says goodbye to the bootstrap. Questions that are still under way fail, and later ones find no way out.
    pub fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let kept = self.shared.kept();
            let sent = || kept.as_ref().map(|connection| connection.stats().udp_tx.datagrams);
            let before = sent();
            let endpoint = &self.shared.joiner.dialer.endpoint;
            say_goodbye(endpoint);
            // What QUIC waits for after the goodbye has left (RFC 9000, section 10.2) is of use to nobody here.
            let said = async {
                while sent() == before
                    && kept.as_ref().is_some_and(|c| c.close_reason() == Some(LocallyClosed))
                {
                    sleep(GOODBYE_PAUSE).await;
                }
            };
            let _ = timeout(LAST_WORDS, said).await;
        })
    }

    /// Takes note of what answers tell beside what was asked.
    fn hear(&self, response: &Response) {
        let clock = &self.shared.joiner.clock;
        match response {
            Response::Lease(lease) => {
                clock.hear(lease.now);
                self.shared.watched.send_replace(Some(monitor::interval(lease)));
            }
            Response::Planned(planned) => clock.hear(planned.now),
            Response::Listing(listing) => clock.hear(listing.now),
            Response::Done
            | Response::Relays(_)
            | Response::Replaced(_)
            | Response::Refused(_)
            | Response::Renewed(_)
            | Response::Unknown => {}
        }
    }

    async fn question(&self, request: Request, limit: Duration, fresh: bool) -> Result<Response, AskFailure> {
        let (mut used, request) = (None, BootstrapRequest::Ask(request));
        match timeout(limit, self.shared.request(&request, fresh, &mut used)).await {
            Ok(Ok(BootstrapResponse::Answer(response))) => {
                self.shared.answered();
                self.hear(&response);
                Ok(response)
            }
            Ok(Ok(
                BootstrapResponse::Issued(_) | BootstrapResponse::JoinRefused(_) | BootstrapResponse::Unknown,
            )) => {
                self.shared.failed(used, Cause::WrongAnswer);
                Err(AskFailure::Unreachable)
            }
            Ok(Err(_)) => Err(AskFailure::Unreachable),
            Err(_) => {
                // Without a connection nobody was asked, so nobody failed to answer.
                let asked = used.is_some();
                self.shared.failed(used, Cause::NoAnswer { within: limit });
                Err(if asked { AskFailure::Timeout } else { AskFailure::Unreachable })
            }
        }
    }
}
