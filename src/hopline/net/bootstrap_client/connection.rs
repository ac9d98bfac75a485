//! The connection that is kept: how it comes about, what goes over it, and what happens when it breaks.

use super::dial::exchange;
use super::joiner::{Found, Joiner};
use super::{Attempt, Cause, JoinError, calls};
use crate::net::address::canonical;
use crate::net::bootstrap_rpc::{BootstrapRequest, BootstrapResponse};
use crate::net::identity::Membership;
use crate::net::outage::Outage;
use crate::net::tasks;
use crate::net::tls;
use quinn::Connection;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

/// A bootstrap that the network says is gone is given so long to come back before another is asked.
pub(super) const RESTART: Duration = Duration::from_secs(1);

/// How long a call is heeded after the one before, at least.
const PAUSE: Duration = Duration::from_secs(1);

/// What the handles of a node share.
pub(super) struct Shared {
    pub(super) joiner: Joiner,
    pub(super) membership: watch::Sender<Membership>,
    /// How often the bootstrap is asked for a sign of life; not at all by a node that has no lease.
    pub(super) watched: watch::Sender<Option<Duration>>,
    /// How often a bootstrap was reached after none had been, or called.
    pub(super) reached: watch::Sender<u64>,
    /// Of a call that the node has yet to hear of.
    pub(super) called: Arc<Notify>,
    outage: Outage,
    runtime: Handle,
    state: Mutex<State>,
}

/// Of the connection.
pub(super) struct State {
    kept: Option<Kept>,
    dialing: Option<watch::Receiver<Dialled>>,
    /// Place in the ticket of the bootstrap to dial first: the one that answered last.
    place: usize,
    pub(super) address: SocketAddr,
    /// Whether a bootstrap holds the certificate to have ended, or not to have begun, whatever this machine's clock says.
    rejoin: bool,
    pub(super) failure: Option<Arc<JoinError>>,
}

/// The connection that is kept for the next question. As long as it is, calls over it are heard.
struct Kept {
    connection: Connection,
    _calls: AbortOnDropHandle<()>,
}

/// What became of a dial, once it is over.
type Dialled = Option<Result<Connection, Arc<JoinError>>>;

/// How to come by a connection.
enum Way {
    /// There is one.
    Kept(Connection),
    /// Somebody is dialling already.
    Joined(watch::Receiver<Dialled>),
    /// A dial has just begun.
    Begun(watch::Receiver<Dialled>),
}

async fn outcome(mut dial: watch::Receiver<Dialled>) -> Result<Connection, Arc<JoinError>> {
    let outcome = dial.wait_for(Option::is_some).await.ok().and_then(|outcome| outcome.clone());
    outcome.unwrap_or_else(|| Err(Arc::new(JoinError::Ended)))
}

impl Shared {
    /// For a member that will dial the bootstrap at `place`, `address`, first; on the present runtime.
    pub(super) fn new(
        joiner: Joiner,
        membership: Membership,
        place: usize,
        address: SocketAddr,
    ) -> Arc<Self> {
        let state = State { kept: None, dialing: None, place, address, rejoin: false, failure: None };
        let (membership, runtime) = (watch::Sender::new(membership), Handle::current());
        let (watched, reached, outage) =
            (watch::Sender::default(), watch::Sender::default(), Outage::default());
        let (called, state) = (Arc::default(), Mutex::new(state));
        Arc::new(Self { joiner, membership, watched, reached, called, outage, runtime, state })
    }

    /// The connection that is kept for the next question.
    pub(super) fn kept(&self) -> Option<Connection> {
        self.state().kept.as_ref().map(|kept| kept.connection.clone())
    }

    pub(super) fn is_kept(&self, connection: &Connection) -> bool {
        self.kept().is_some_and(|kept| kept.stable_id() == connection.stable_id())
    }

    /// It is not kept any longer. Questions that are under way over it go on.
    pub(super) fn drop_kept(&self, connection: &Connection) {
        // Another one may be kept by now.
        self.state().kept.take_if(|kept| kept.connection.stable_id() == connection.stable_id());
    }

    /// Whether there are several bootstraps to choose from.
    pub(super) fn has_several(&self) -> bool {
        self.joiner.dialer.bootstraps.load(Ordering::Relaxed) > 1
    }

    /// A bootstrap answered a question.
    pub(super) fn answered(&self) {
        if let Some(lasted) = self.outage.is_over() {
            let bootstrap = self.state().address;
            tracing::info!(%bootstrap, after_seconds = lasted.as_secs(), "connected to the bootstrap again");
        }
    }

    /// None did, or none could be asked.
    fn note(&self, failure: &Arc<JoinError>) {
        self.state().failure = Some(Arc::clone(failure));
        match self.outage.goes_on() {
            Some(Duration::ZERO) => tracing::warn!(%failure, "lost the bootstrap; reconnecting"),
            Some(lasted) => {
                tracing::warn!(%failure, for_seconds = lasted.as_secs(), "still not connected to a bootstrap");
            }
            None => tracing::debug!(%failure, "still not connected to a bootstrap"),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // No statement under this lock can leave the state half-changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One request and its answer; `used` is the connection that it went over last, also if this is dropped.
    pub(super) async fn request(
        self: &Arc<Self>,
        request: &BootstrapRequest,
        fresh: bool,
        used: &mut Option<Connection>,
    ) -> Result<BootstrapResponse, Arc<JoinError>> {
        let (connection, was_kept) = self.connection(fresh).await?;
        let connection = used.insert(connection);
        let cause = match self.exchange(connection, request).await {
            Ok(response) => return Ok(response),
            Err(cause) => cause,
        };
        let may_restart = was_kept && matches!(cause, Cause::Unreachable);
        // A kept connection may have been dead for long. With an ended certificate the next dial joins anew.
        let again = matches!(cause, Cause::OwnCertificateExpired) || (was_kept && cause.is_lost());
        let failure = self.failed(Some(connection.clone()), cause);
        if may_restart {
            // Each bootstrap has a pool of its own: who left one at every restart would split the network.
            sleep(RESTART).await;
        } else if !again {
            return Err(failure);
        }
        let connection = used.insert(self.connection(false).await?.0);
        let answer = self.exchange(connection, request).await;
        answer.map_err(|cause| self.failed(Some(connection.clone()), cause))
    }

    async fn exchange(
        &self,
        connection: &Connection,
        request: &BootstrapRequest,
    ) -> Result<BootstrapResponse, Cause> {
        let refused = self.joiner.dialer.refusal(connection.remote_address());
        tokio::select! {
            biased;
            // An answer that is here counts, whatever the network says.
            answer = exchange(connection, request) => answer,
            () = refused => Err(Cause::Unreachable),
        }
    }

    /// A connection to a bootstrap, and whether it is one that was kept. With `fresh` one made from now on, if possible to
    /// another bootstrap than the last.
    pub(super) async fn connection(
        self: &Arc<Self>,
        fresh: bool,
    ) -> Result<(Connection, bool), Arc<JoinError>> {
        match self.kept_or_dialled(fresh) {
            Way::Kept(connection) => return Ok((connection, true)),
            Way::Begun(dial) => return Ok((outcome(dial).await?, false)),
            Way::Joined(dial) => {
                if let Ok(connection) = outcome(dial).await {
                    return Ok((connection, false));
                }
            }
        }
        // What failed was begun earlier, when things may have been worse.
        match self.kept_or_dialled(false) {
            Way::Kept(connection) => Ok((connection, true)),
            Way::Begun(dial) | Way::Joined(dial) => Ok((outcome(dial).await?, false)),
        }
    }

    fn kept_or_dialled(self: &Arc<Self>, fresh: bool) -> Way {
        let mut state = self.state();
        let alive = |kept: &&Kept| kept.connection.close_reason().is_none();
        if let Some(kept) = state.kept.as_ref().filter(alive).filter(|_| !fresh) {
            return Way::Kept(kept.connection.clone());
        }
        state.kept = None;
        // A dial whose task ended without a word has no outcome that could be waited for.
        if let Some(dial) = state.dialing.as_ref().filter(|dial| dial.has_changed().is_ok()) {
            return Way::Joined(dial.clone());
        }
        state.place += usize::from(fresh);
        let dial = self.spawn_dial(state.place);
        Way::Begun(state.dialing.insert(dial).clone())
    }

    /// Dials in a task of its own, so that it goes on if whoever needed it stops waiting.
    fn spawn_dial(self: &Arc<Self>, first: usize) -> watch::Receiver<Dialled> {
        let (done, outcome) = watch::channel(None);
        let shared = Arc::clone(self);
        tasks::spawn_on(&self.runtime, async move {
            let result = shared.dial(first).await.map_err(Arc::new);
            if let Err(failure) = &result {
                shared.note(failure);
            }
            let mut state = shared.state();
            // Before the outcome is told, as whoever waits for it looks here next.
            state.dialing = None;
            if let Ok((place, connection)) = &result {
                state.place = *place;
                state.address = connection.remote_address();
                state.kept = Some(shared.keep(connection));
            }
            drop(state);
            done.send_replace(Some(result.map(|(_, connection)| connection)));
        });
        outcome
    }

    fn keep(&self, connection: &Connection) -> Kept {
        let calls = tasks::spawn_on(&self.runtime, calls::hear(Arc::clone(&self.called), connection.clone()));
        Kept { connection: connection.clone(), _calls: AbortOnDropHandle::new(calls) }
    }

    /// A connection to the first bootstrap that answers a member, the one at `first` and those after it in the ticket.
    async fn dial(&self, first: usize) -> Result<Found, JoinError> {
        let mut membership = self.membership.borrow().clone();
        if self.state().rejoin || membership.left(self.joiner.clock.now()).is_zero() {
            tracing::warn!("this node's certificate has expired, or is not valid yet; joining again");
            membership = self.joiner.join(first).await?.0;
            self.state().rejoin = false;
            self.membership.send_replace(membership.clone());
        }
        let config = tls::bootstrap_client(&membership)?;
        let mut attempts = Vec::new();
        for (place, host) in self.joiner.bootstraps(first, &mut attempts).await {
            let connecting = self.joiner.dialer.connect(&host, config.clone(), &mut attempts);
            if let Some(connection) = connecting.await {
                return Ok((place, connection));
            }
        }
        Err(JoinError::of_attempts(attempts))
    }

    /// Notes what went wrong over `used`, which is not kept for the next question.
    pub(super) fn failed(&self, used: Option<Connection>, cause: Cause) -> Arc<JoinError> {
        let address = used.as_ref().map_or_else(|| self.state().address, Connection::remote_address);
        if let Some(used) = &used {
            self.drop_kept(used);
        }
        self.state().rejoin |= matches!(cause, Cause::OwnCertificateExpired);
        let address = canonical(address).to_string();
        let failure = Arc::new(JoinError::of_attempts(vec![Attempt { address, cause }]));
        self.note(&failure);
        failure
    }

    /// Has the node know of calls: at most once a second, however often it is called and by whom; calls that come closer
    /// together are one. Never ends.
    pub(super) async fn pass_on(self: Arc<Self>) {
        loop {
            self.called.notified().await;
            tracing::debug!("a bootstrap wants to hear from this node");
            self.reached.send_modify(|times| *times += 1);
            sleep(PAUSE).await;
        }
    }
}
