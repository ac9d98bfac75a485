//! Names that an endpoint serves: flows and messages come out of a listener.

use super::driver::{Command, Raw};
use super::flow::{self, Flow, Kind, Preface};
use super::{Endpoint, ListenError, messages};
use crate::net::identity::Membership;
use crate::net::tls;
use crate::proto::id::NodeId;
use bytes::Bytes;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio_rustls::TlsAcceptor;

/// What may wait for an application that serves a name; more stays with its senders.
const QUEUED_INCOMING: usize = 64;
/// Flows whose ends may be agreeing on TLS at once; more wait their turn.
const MAX_HANDSHAKES: usize = 64;
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
    taken: oneshot::Sender<()>,
}

impl Message {
    pub(super) const fn new(from: NodeId, payload: Bytes, taken: oneshot::Sender<()>) -> Self {
        Self { from, payload, taken }
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

    /// Takes it: its sender gets the receipt. A message that is dropped instead is refused, and with it all that its
    /// sender has under way.
    #[must_use]
    pub fn take(self) -> Bytes {
        let _ = self.taken.send(());
        self.payload
    }
}

/// A name that is served as long as this lives.
#[derive(Debug)]
pub struct Listener {
    incoming: mpsc::Receiver<Incoming>,
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
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.names.lock().remove(&self.name);
    }
}

/// Who serves which name.
#[derive(Debug, Default)]
pub(super) struct Names(Mutex<HashMap<String, mpsc::Sender<Incoming>>>);

impl Names {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, mpsc::Sender<Incoming>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) async fn listen(endpoint: &Endpoint, name: &str) -> Result<Listener, ListenError> {
    let (sender, incoming) = mpsc::channel(QUEUED_INCOMING);
    let names = endpoint.0.names.clone();
    let (is_first, all) = {
        let mut names = names.lock();
        let is_first = names.is_empty();
        if names.contains_key(name) {
            return Err(ListenError::Twice { name: name.to_owned() });
        }
        names.insert(name.to_owned(), sender);
        (is_first, names.keys().cloned().collect())
    };
    let listener = Listener { incoming, name: name.to_owned(), names };
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
    let Some(listener) = names.lock().get(&preface.name).cloned() else {
        return tracing::info!(name = preface.name, "a flow to a name that is not served here");
    };
    match preface.kind {
        Kind::Stream => drop(listener.send(Incoming::Flow(flow)).await),
        Kind::Messages => messages::receive(flow, &listener).await,
    }
}
