//! Names that an endpoint serves: flows come out of a [`Listener`], messages out of an [`Inbox`].

use super::driver::Command;
use super::flow::{self, Flow, Kind, Preface};
use super::flow_error::FlowError;
use super::flow_io::{FlowIo, Raw};
use super::served::{Message, Refused, Served};
use super::session::carriers::Carries;
use super::session::ports::Established;
use super::session::{Session, pool};
use super::{Chain, Endpoint, ListenError, messages};
use crate::net::identity::Membership;
use crate::net::tasks;
use crate::net::tls;
use futures_util::future::join_all;
use hopline_proto::flows::FlowKey;
use hopline_proto::id::FlowId;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

/// What may wait for an application that serves a name; more stays with its senders.
const QUEUED_INCOMING: usize = 64;
/// Flows whose ends may be agreeing on TLS at once; more wait their turn.
const MAX_HANDSHAKES: usize = 64;
/// Names that were served before, of which it is known why they are not any more.
const MAX_GONE: usize = 64;
/// Further carriers of a session that may wait until its node knows of them.
const QUEUED_JOINS: usize = 4;
/// Flows that may wait for their turn.
const QUEUED_FLOWS: usize = 256;

/// Accepts the flows that are opened to a name; from [`Endpoint::listen`].
///
/// Dropping it gives the name up: flows that were not accepted are aborted, and the bootstrap is told. Flows that were accepted go
/// on.
#[derive(Debug)]
pub struct Listener {
    flows: mpsc::Receiver<Flow>,
    held: Held,
}

impl Listener {
    /// The next flow. `None` once the endpoint is shut down, or its last handle was dropped.
    ///
    /// May be dropped at any point without losing a flow.
    pub async fn accept(&mut self) -> Option<Flow> {
        self.flows.recv().await
    }

    /// The name that is served.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.held.name
    }

    /// Gives the name up, as dropping does. Whoever opens a flow meanwhile is told this cause, of which at most 256 bytes go there.
    pub fn close(self, cause: impl Into<String>) {
        self.held.refuse_for(cause.into());
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let cause = self.held.end();
        self.flows.close();
        while let Ok(flow) = self.flows.try_recv() {
            flow.abort(&*cause);
        }
    }
}

/// Takes the messages that are sent to a name; from [`Endpoint::receive`].
///
/// Dropping it gives the name up: messages that were not taken are refused, and the bootstrap is told.
#[derive(Debug)]
pub struct Inbox {
    messages: mpsc::Receiver<Message>,
    held: Held,
}

impl Inbox {
    /// The next message. Those of one sender come in the order in which it sent them, each after the one before was taken. `None`
    /// once the endpoint is shut down, or its last handle was dropped.
    ///
    /// May be dropped at any point without losing a message.
    pub async fn recv(&mut self) -> Option<Message> {
        self.messages.recv().await
    }

    /// The name that is served.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.held.name
    }

    /// Gives the name up, as dropping does. Whoever sends further messages is told this cause, of which at most 256 bytes go there.
    pub fn close(self, cause: impl Into<String>) {
        self.held.refuse_for(cause.into());
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.held.end();
    }
}

/// A name that is served, one way, until [`Held::end`].
#[derive(Debug)]
struct Held {
    name: String,
    kind: Kind,
    refusal: Refusing,
    names: Arc<Names>,
}

impl Held {
    fn refuse_for(&self, cause: String) {
        let _ = self.refusal.send(Some(cause.into()));
    }

    /// The name is not served in this way any more. Returns why.
    fn end(&self) -> Arc<str> {
        let cause = format!("\"{}\" takes no more {}", self.name, self.kind.plural());
        let cause = refuse(&self.refusal, &cause.into());
        self.names.remove(&self.name, self.kind, &cause);
        cause
    }
}

/// Refuses what comes for this cause, unless it is refused for another already. Returns for which.
fn refuse(refusal: &Refusing, cause: &Arc<str>) -> Arc<str> {
    refusal.send_if_modified(|said| said.is_none() && said.replace(cause.clone()).is_none());
    refusal.borrow().clone().unwrap_or_else(|| cause.clone())
}

/// By this what comes for a name is refused, with why.
type Refusing = watch::Sender<Option<Arc<str>>>;

/// Where what comes for a name goes.
#[derive(Clone, Debug)]
enum Taker {
    Flows(mpsc::Sender<Flow>),
    Messages(Served),
}

type Takers = BTreeMap<(String, Kind), (Taker, Refusing)>;

/// Who serves which name, and how.
#[derive(Debug, Default)]
pub(super) struct Names {
    served: Mutex<Takers>,
    /// Why names are not served any more, for flows that were on their way.
    gone: Mutex<HashMap<(String, Kind), Arc<str>>>,
    /// The names, for the node to register.
    list: watch::Sender<Vec<String>>,
    /// Flows of messages.
    tasks: TaskTracker,
    /// The sessions that others have opened.
    sessions: Mutex<Vec<Weak<Session>>>,
}

impl Names {
    fn lock(&self) -> MutexGuard<'_, Takers> {
        self.served.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn gone(&self) -> MutexGuard<'_, HashMap<(String, Kind), Arc<str>>> {
        self.gone.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where what comes for a name goes.
    fn taker(&self, name: &str, kind: Kind) -> Option<Taker> {
        self.lock().get(&(name.to_owned(), kind)).map(|(taker, _)| taker.clone())
    }

    /// The names that are served, now and after each change.
    pub(super) fn list(&self) -> watch::Receiver<Vec<String>> {
        self.list.subscribe()
    }

    /// Serves a name in this way from now on. Returns whether it is the only one.
    fn add(&self, held: &Held, taker: Taker) -> Result<bool, ListenError> {
        let key = (held.name.clone(), held.kind);
        let mut served = self.lock();
        if served.contains_key(&key) {
            return Err(ListenError::Twice { name: key.0 });
        }
        self.gone().remove(&key);
        served.insert(key, (taker, held.refusal.clone()));
        self.relist(&served);
        Ok(served.len() == 1)
    }

    fn remove(&self, name: &str, kind: Kind, cause: &Arc<str>) {
        let key = (name.to_owned(), kind);
        let mut served = self.lock();
        served.remove(&key);
        self.relist(&served);
        self.keep_cause(key, cause);
    }

    fn relist(&self, served: &Takers) {
        let mut names: Vec<String> = served.keys().map(|(name, _)| name.clone()).collect();
        names.dedup();
        self.list.send_if_modified(|list| (*list != names).then(|| *list = names).is_some());
    }

    fn keep_cause(&self, key: (String, Kind), cause: &Arc<str>) {
        let mut gone = self.gone();
        if gone.len() >= MAX_GONE {
            gone.clear();
        }
        gone.insert(key, cause.clone());
    }

    /// Why a name is not served in this way.
    fn why(&self, name: &str, kind: Kind) -> Arc<str> {
        let others = [
            (Kind::Stream, ": use `hopline pipe`"),
            (Kind::Messages, ": use `hopline send`"),
            (Kind::Datagrams, ": use `Endpoint::open_datagrams`"),
        ];
        for (other, advice) in others.into_iter().filter(|(other, _)| *other != kind) {
            if self.lock().contains_key(&(name.to_owned(), other)) {
                let (takes, not) = (other.plural(), kind.plural());
                return format!("\"{name}\" takes {takes}, not {not}{advice}").into();
            }
        }
        let cause = self.gone().get(&(name.to_owned(), kind)).cloned();
        cause.unwrap_or_else(|| format!("\"{name}\" is not served there any more").into())
    }

    fn add_session(&self, session: &Arc<Session>) {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.retain(|session| session.strong_count() > 0);
        sessions.push(Arc::downgrade(session));
    }

    fn session_over(&self, connection: &quinn::Connection) -> Option<Arc<Session>> {
        let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.iter().filter_map(Weak::upgrade).find(|session| session.uses(connection))
    }

    /// Gives up what others have opened over sessions, for this cause.
    pub(super) async fn close_sessions(&self, cause: &str) {
        let sessions = std::mem::take(&mut *self.sessions.lock().unwrap_or_else(PoisonError::into_inner));
        let sessions: Vec<Arc<Session>> = sessions.iter().filter_map(Weak::upgrade).collect();
        join_all(sessions.iter().map(|session| session.close(cause))).await;
    }

    /// Nobody serves any name any more: what comes is refused. Waits until the receipts of messages that were taken have arrived,
    /// or the time is up.
    pub(super) async fn close(&self, cause: &Arc<str>, limit: Duration) {
        let served = std::mem::take(&mut *self.lock());
        for (key, (_, refusal)) in &served {
            let cause = refuse(refusal, cause);
            self.keep_cause(key.clone(), &cause);
        }
        drop(served); // listeners end
        self.tasks.close();
        let _ = timeout(limit, self.tasks.wait()).await;
    }
}

/// For flows of this kind.
pub(super) async fn listen(endpoint: &Endpoint, name: &str, kind: Kind) -> Result<Listener, ListenError> {
    let (sender, flows) = mpsc::channel(QUEUED_INCOMING);
    let (refusal, _) = watch::channel(None);
    let held = Held { name: name.to_owned(), kind, refusal, names: endpoint.0.names.clone() };
    let is_first = held.names.add(&held, Taker::Flows(sender))?;
    let listener = Listener { flows, held };
    register(endpoint, name, is_first).await?;
    Ok(listener)
}

pub(super) async fn inbox(endpoint: &Endpoint, name: &str) -> Result<Inbox, ListenError> {
    let (incoming, messages) = mpsc::channel(QUEUED_INCOMING);
    let (refusal, refused) = watch::channel(None);
    let held = Held { name: name.to_owned(), kind: Kind::Messages, refusal, names: endpoint.0.names.clone() };
    let served = Served { incoming, refusal: Refused(refused) };
    let is_first = held.names.add(&held, Taker::Messages(served))?;
    let inbox = Inbox { messages, held };
    register(endpoint, name, is_first).await?;
    Ok(inbox)
}

/// Waits until the bootstrap has taken a name.
async fn register(endpoint: &Endpoint, name: &str, is_first: bool) -> Result<(), ListenError> {
    let commands = &endpoint.0.commands;
    if is_first {
        let (flows, raws) = mpsc::channel(QUEUED_FLOWS);
        let memberships = endpoint.0.bootstrap_client.memberships();
        tasks::spawn(receive(raws, memberships, endpoint.0.names.clone(), commands.downgrade()));
        commands.send(Command::Incoming { flows }).await.map_err(|_| ListenError::Closed)?;
    }
    let (reply, registered) = oneshot::channel();
    let serve = Command::Serve { name: name.to_owned(), reply };
    commands.send(serve).await.map_err(|_| ListenError::Closed)?;
    Ok(registered.await.map_err(|_| ListenError::Closed)??)
}

/// Takes in the flows that reach this endpoint, and shows each its present certificate.
async fn receive(
    mut raws: mpsc::Receiver<Raw>,
    mut memberships: watch::Receiver<Membership>,
    names: Arc<Names>,
    node: mpsc::WeakSender<Command>,
) {
    let Ok(config) = tls::flow_server(&memberships.borrow_and_update()) else { return };
    let mut acceptor = TlsAcceptor::from(config);
    let handshakes = Arc::new(Semaphore::new(MAX_HANDSHAKES));
    while let Some(mut raw) = raws.recv().await {
        let Ok(permit) = handshakes.clone().acquire_owned().await else { return };
        if memberships.has_changed().unwrap_or(false)
            && let Ok(config) = tls::flow_server(&memberships.borrow_and_update())
        {
            acceptor = TlsAcceptor::from(config);
        }
        let (acceptor, names, node) = (acceptor.clone(), names.clone(), node.clone());
        tasks::spawn(async move {
            let (key, of) = (raw.flow, (raw.flow.flow, raw.chain.clone()));
            let carries = std::mem::replace(&mut raw.carries, oneshot::channel().1);
            let mut io = FlowIo::new(raw);
            // A session's carrier has no bytes of its own.
            let carries = timeout(flow::HANDSHAKE_TIMEOUT, async {
                tokio::select! {
                    // The first byte by which the chain is tried may be here as soon.
                    biased;
                    Ok(carries) = carries => Some(carries),
                    () = io.readable() => None,
                }
            });
            if let Ok(Some(carries)) = carries.await {
                drop(permit);
                return match carries {
                    Carries::Session(established) => {
                        serve_session(established, (key, io), of, names, node).await
                    }
                    Carries::Beside(connection) => serve_beside(&connection, key, io, &names).await,
                };
            }
            let accepted = flow::accept(io, of, acceptor).await;
            drop(permit);
            take_in(accepted, &names).await;
        });
    }
    // Another task may have taken over, unless the endpoint is gone.
    if node.upgrade().is_none_or(|node| node.is_closed()) {
        names.lock().clear();
    }
}

async fn take_in(accepted: Result<(Flow, Preface), FlowError>, names: &Names) {
    match accepted {
        Ok((flow, preface)) => deliver(flow, preface, names).await,
        Err(error) => tracing::info!(%error, "a flow failed"),
    }
}

/// Takes in the flows of a session, until it is over.
async fn serve_session(
    established: Established,
    (key, io): (FlowKey, FlowIo),
    carrier: (FlowId, watch::Receiver<Chain>),
    names: Arc<Names>,
    node: mpsc::WeakSender<Command>,
) {
    let Some(peer) = tls::peer(&established.connection) else { return };
    let (joining, joins) = mpsc::channel(QUEUED_JOINS);
    let session = match Session::start(established, peer, carrier, joining, Handle::current()).await {
        Ok(session) => session,
        Err(error) => return tracing::info!(%error, "a session failed"),
    };
    names.add_session(&session);
    session.carried_by(key);
    tasks::spawn(join_carriers(joins, key, node));
    let carried = session.clone();
    tasks::spawn(async move { pool::carry(&carried, key, io).await });
    while let Some(stream) = session.accept().await {
        let (session, names) = (session.clone(), names.clone());
        tasks::spawn(async move { take_in(flow::accept_over_session(&session, stream).await, &names).await });
    }
}

/// Has the node take in the packets of a session over the further flows that its origin names.
async fn join_carriers(mut joins: mpsc::Receiver<FlowId>, other: FlowKey, node: mpsc::WeakSender<Command>) {
    while let Some(flow) = joins.recv().await {
        let Some(node) = node.upgrade() else { return };
        // The same origin's: nobody else's flow is given away.
        let _ = node.send(Command::Join { flow: FlowKey { flow, ..other }, other }).await;
    }
}

/// Keeps a further flow that carries a session.
async fn serve_beside(connection: &quinn::Connection, key: FlowKey, io: FlowIo, names: &Names) {
    if let Some(session) = names.session_over(connection) {
        session.carried_by(key);
        let _ = pool::carry(&session, key, io).await;
    }
}

async fn deliver(flow: Flow, Preface { name, kind }: Preface, names: &Names) {
    match (kind, names.taker(&name, kind)) {
        (_, Some(Taker::Messages(served))) => names.tasks.track_future(messages::receive(flow, served)).await,
        (_, Some(Taker::Flows(flows))) => {
            if let Err(mpsc::error::SendError(flow)) = flows.send(flow).await {
                flow.abort(&*names.why(&name, kind));
            }
        }
        (Kind::Messages, None) => {
            let cause = names.why(&name, kind);
            tracing::info!(name, from = ?flow.peer(), %cause, "refused messages");
            names.tasks.track_future(messages::refuse(flow, &cause)).await;
        }
        (Kind::Stream | Kind::Datagrams, None) => {
            let cause = names.why(&name, kind);
            tracing::info!(name, from = ?flow.peer(), %cause, "refused {}", kind.plural());
            flow.abort(&*cause);
        }
        (Kind::Unknown, None) => {
            tracing::info!(name, "a flow of a kind that only newer nodes know");
            flow.abort(format!(
                "\"{name}\" is served by an older node, which does not know this kind of flow: upgrade it"
            ));
        }
    }
}
