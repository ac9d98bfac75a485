//! Names that an endpoint serves: flows and messages come out of a listener.

use super::driver::{Command, Raw};
use super::flow::{self, Flow, Kind, Preface};
use super::{Endpoint, ListenError, messages};
use crate::net::identity::Membership;
use crate::net::tls;
use bytes::Bytes;
use hopline_proto::id::NodeId;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
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
/// Flows that may wait for their turn.
const QUEUED_FLOWS: usize = 256;

/// Something came for a name.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "one at a time, and moved out at once")]
pub enum Incoming {
    /// Somebody opened a flow.
    Flow(Flow),
    /// Somebody sent a message.
    Message(Message),
}

/// A message that waits to be taken.
#[derive(Debug)]
pub struct Message {
    from: NodeId,
    payload: Bytes,
    verdict: oneshot::Sender<Result<(), Arc<str>>>,
}

impl Message {
    pub(super) const fn new(
        from: NodeId,
        payload: Bytes,
        verdict: oneshot::Sender<Result<(), Arc<str>>>,
    ) -> Self {
        Self { from, payload, verdict }
    }

    /// Who sent it, as its certificate proves.
    #[must_use]
    pub const fn from(&self) -> NodeId {
        self.from
    }

    /// What it says.
    #[must_use]
    pub const fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// Takes it: its sender gets the receipt.
    #[must_use]
    pub fn take(self) -> Bytes {
        let _ = self.verdict.send(Ok(()));
        self.payload
    }

    /// Refuses it, and with it all that its sender has under way, which is told why. To drop a message does so, too.
    pub fn refuse(self, cause: impl Into<String>) {
        let cause: String = cause.into();
        let _ = self.verdict.send(Err(cause.into()));
    }
}

/// A name that is served as long as this lives.
#[derive(Debug)]
pub struct Listener {
    incoming: mpsc::Receiver<Incoming>,
    refusal: Refusing,
    name: String,
    names: Arc<Names>,
}

impl Listener {
    /// The next flow or message. `None` once the endpoint is shut down.
    pub async fn next(&mut self) -> Option<Incoming> {
        self.incoming.recv().await
    }

    /// The name that is served.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Serves the name no more: whoever sends further messages is refused, and told why.
    pub fn close(self, cause: impl Into<String>) {
        let cause: String = cause.into();
        let _ = self.refusal.send(Some(cause.into()));
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        refuse(&self.refusal, &format!("\"{}\" takes no more messages", self.name).into());
        self.names.end(&self.name, &self.refusal);
        self.names.lock().remove(&self.name);
    }
}

/// Refuses messages for this cause, unless they are refused for another already.
fn refuse(refusal: &Refusing, cause: &Arc<str>) {
    refusal.send_if_modified(|said| said.is_none() && said.replace(cause.clone()).is_none());
}

/// A name's application, as what comes for the name sees it.
#[derive(Clone, Debug)]
pub(super) struct Served {
    pub(super) incoming: mpsc::Sender<Incoming>,
    pub(super) refusal: Refused,
}

/// Whether it takes no more messages.
#[derive(Clone, Debug)]
pub(super) struct Refused(watch::Receiver<Option<Arc<str>>>);

impl Refused {
    /// Why it takes no more, if that is so.
    pub(super) fn present(&self) -> Option<Arc<str>> {
        self.0.borrow().clone()
    }

    /// Resolves once it takes no more, with why.
    pub(super) async fn cause(&mut self) -> Arc<str> {
        let cause = self.0.wait_for(Option::is_some).await.ok().and_then(|cause| cause.clone());
        cause.unwrap_or_else(|| "nobody takes them any more".into())
    }
}

/// By this a name's messages are refused, with why.
type Refusing = watch::Sender<Option<Arc<str>>>;
type ByName = HashMap<String, (Served, Refusing)>;

/// Who serves which name.
#[derive(Debug, Default)]
pub(super) struct Names {
    served: Mutex<ByName>,
    /// Why names are not served any more, for flows that were on their way.
    gone: Mutex<HashMap<String, Arc<str>>>,
    /// Flows of messages.
    tasks: TaskTracker,
}

impl Names {
    fn lock(&self) -> MutexGuard<'_, ByName> {
        self.served.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn gone(&self) -> MutexGuard<'_, HashMap<String, Arc<str>>> {
        self.gone.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps why a name is about to be served no more.
    fn end(&self, name: &str, refusal: &Refusing) {
        let Some(cause) = refusal.borrow().clone() else { return };
        let mut gone = self.gone();
        if gone.len() >= MAX_GONE {
            gone.clear();
        }
        gone.insert(name.to_owned(), cause);
    }

    /// Why a name is not served.
    fn why(&self, name: &str) -> Arc<str> {
        let cause = self.gone().get(name).cloned();
        cause.unwrap_or_else(|| format!("\"{name}\" is not served there any more").into())
    }

    /// Nobody serves any name any more: further messages are refused. Waits until the receipts of those that were taken have
    /// arrived, or the time is up.
    pub(super) async fn close(&self, cause: &Arc<str>, patience: Duration) {
        let served = {
            let mut served = self.lock();
            for (name, (_, refusal)) in &*served {
                refuse(refusal, cause);
                self.end(name, refusal);
            }
            std::mem::take(&mut *served)
        };
        drop(served); // listeners end
        self.tasks.close();
        let _ = timeout(patience, self.tasks.wait()).await;
    }
}

pub(super) async fn listen(endpoint: &Endpoint, name: &str) -> Result<Listener, ListenError> {
    let (sender, incoming) = mpsc::channel(QUEUED_INCOMING);
    let (refusal, refused) = watch::channel(None);
    let served = Served { incoming: sender, refusal: Refused(refused) };
    let listeners = endpoint.0.names.clone();
    let (is_first, all) = {
        let mut names = listeners.lock();
        let is_first = names.is_empty();
        if names.contains_key(name) {
            return Err(ListenError::Twice { name: name.to_owned() });
        }
        names.insert(name.to_owned(), (served, refusal.clone()));
        listeners.gone().remove(name);
        (is_first, names.keys().cloned().collect())
    };
    let listener = Listener { incoming, refusal, name: name.to_owned(), names: listeners };
    if is_first {
        let (flows, raws) = mpsc::channel(QUEUED_FLOWS);
        let memberships = endpoint.0.coordinator.memberships();
        tokio::spawn(receive(raws, memberships, listener.names.clone()));
        let told = endpoint.0.commands.send(Command::Incoming { flows }).await;
        told.map_err(|_| ListenError::Closed)?;
    }
    let (reply, registered) = oneshot::channel();
    let told = endpoint.0.commands.send(Command::Serve { names: all, reply }).await;
    told.map_err(|_| ListenError::Closed)?;
    registered.await.map_err(|_| ListenError::Closed)??;
    Ok(listener)
}

/// Takes in the flows that reach this endpoint, and shows each its present certificate.
async fn receive(
    mut raws: mpsc::Receiver<Raw>,
    mut memberships: watch::Receiver<Membership>,
    names: Arc<Names>,
) {
    let Ok(config) = tls::flow_server(&memberships.borrow_and_update()) else { return };
    let mut acceptor = TlsAcceptor::from(config);
    let handshakes = Arc::new(Semaphore::new(MAX_HANDSHAKES));
    while let Some(raw) = raws.recv().await {
        let Ok(permit) = handshakes.clone().acquire_owned().await else { return };
        if memberships.has_changed().unwrap_or(false)
            && let Ok(config) = tls::flow_server(&memberships.borrow_and_update())
        {
            acceptor = TlsAcceptor::from(config);
        }
        let (acceptor, names) = (acceptor.clone(), names.clone());
        tokio::spawn(async move {
            let accepted = flow::accept(raw, acceptor).await;
            drop(permit);
            match accepted {
                Ok((flow, preface)) => deliver(flow, preface, &names).await,
                Err(error) => tracing::info!(%error, "a flow came to nothing"),
            }
        });
    }
}

async fn deliver(flow: Flow, preface: Preface, names: &Names) {
    let Preface { name, kind } = preface;
    let served = names.lock().get(&name).map(|(served, _)| served.clone());
    match (kind, served) {
        (Kind::Messages, Some(served)) => names.tasks.track_future(messages::receive(flow, served)).await,
        (Kind::Messages, None) => names.tasks.track_future(messages::refuse(flow, &names.why(&name))).await,
        (Kind::Stream, Some(served)) => {
            if let Err(mpsc::error::SendError(Incoming::Flow(flow))) =
                served.incoming.send(Incoming::Flow(flow)).await
            {
                turn_away(flow, &name);
            }
        }
        (Kind::Stream, None) => turn_away(flow, &name),
        (Kind::Unknown, _) => {
            tracing::info!(name, "a flow of a kind that only newer nodes know");
            flow.abort(format!(
                "\"{name}\" is served by an older node, which does not know this kind of flow: upgrade it"
            ));
        }
    }
}

fn turn_away(flow: Flow, name: &str) {
    tracing::info!(name, "a flow to a name that is not served here");
    flow.abort(format!("\"{name}\" is not served there any more"));
}
