//! The sessions that an origin has open, one for each name and number of relays.

use super::super::driver::Command;
use super::super::flow_error::{FlowError, over};
use super::super::flow_io::FlowIo;
use super::super::{Chain, Endpoint, OpenError, bare};
use super::{Session, SessionControl};
use crate::net::tasks;
use hopline_proto::flows::FlowKey;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncWriteExt, copy, sink};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// How long a carrier whose session is over waits until the other end has ended it, too.
const PARTING: Duration = Duration::from_secs(2);

/// How long after an attempt to open a second chain the next one is made.
const PAUSE: Duration = Duration::from_secs(1);

/// A name, and how many relays lead there.
type Key = (String, u8);
/// Whoever holds it opens the session, if there is none.
type Slot = Arc<tokio::sync::Mutex<Option<Open>>>;

/// A session, and what keeps its carriers.
#[derive(Debug)]
struct Open {
    session: Arc<Session>,
    carrying: Vec<JoinHandle<()>>,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(in crate::endpoint) struct Sessions {
    open: Mutex<HashMap<Key, Slot>>,
}

impl Sessions {
    fn slot(&self, key: Key) -> Slot {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default().clone()
    }

    /// Nobody opens flows any more: gives up those that are open for this cause.
    pub(in crate::endpoint) async fn close(&self, cause: &str) {
        let slots = std::mem::take(&mut *self.open.lock().unwrap_or_else(PoisonError::into_inner));
        let closing = slots.into_values().map(async |slot| {
            if let Some(Open { session, carrying }) = slot.lock().await.take() {
                session.close(cause).await;
                futures_util::future::join_all(carrying).await;
            }
        });
        futures_util::future::join_all(closing).await;
    }
}

/// The session to `name`, which is opened if there is none.
pub(in crate::endpoint) async fn session(
    endpoint: &Endpoint,
    name: &str,
    hops: u8,
) -> Result<Arc<Session>, OpenError> {
    let slot = endpoint.0.sessions.slot((name.to_owned(), hops));
    let mut slot = slot.lock().await;
    if let Some(Open { session, .. }) = slot.as_ref().filter(|open| !open.session.is_over()) {
        return Ok(session.clone());
    }
    let open = open(endpoint, name, hops).await?;
    let session = open.session.clone();
    *slot = Some(open);
    Ok(session)
}

async fn open(endpoint: &Endpoint, name: &str, hops: u8) -> Result<Open, OpenError> {
    let (raw, target) = bare::open(&endpoint.0.commands, name, hops, None).await?;
    let (reply, connected) = oneshot::channel();
    let membership = endpoint.0.bootstrap_client.membership();
    let connect = Command::Connect { flow: raw.flow, target, membership: Box::new(membership), reply };
    endpoint.command(connect).await?;
    let (endings, kept) = (raw.ending.clone(), raw.kept);
    let established = tokio::select! {
        connected = connected => connected.unwrap_or(Err(FlowError::Closed)),
        ended = over(endings) => Err(ended.err().unwrap_or(FlowError::Closed)),
    };
    let established = established.map_err(|error| OpenError::over(kept, error))?;
    let runtime = endpoint.0.runtime.clone();
    let carrier = (raw.flow.flow, raw.chain.clone());
    // A target opens no flows, so it has no chains to offer.
    let (joining, _) = mpsc::channel(1);
    let session = Session::start(established, target, carrier, joining, runtime.clone()).await?;
    session.carried_by(raw.flow);
    let node = endpoint.0.commands.downgrade();
    let spares = Spares { node, session: session.clone(), name: name.to_owned(), hops };
    let spares = Some(spares).filter(|_| endpoint.0.redundant);
    let mut carrying = Vec::new();
    if let Some(spares) = spares.clone() {
        carrying.push(tasks::spawn_on(&runtime, async move {
            if let Some((flow, io)) = spares.open().await {
                keep(spares.session.clone(), flow, io, Some(spares)).await;
            }
        }));
    }
    carrying.push(tasks::spawn_on(&runtime, keep(session.clone(), raw.flow, FlowIo::new(raw), spares)));
    let (closing, limit) = (session.clone(), endpoint.0.session_idle);
    tasks::spawn_on(&runtime, async move {
        tokio::select! {
            () = closing.close_when_idle(limit) => {}
            () = closing.closed() => {}
        }
    });
    Ok(Open { session, carrying })
}

/// Opens further chains for a session whose packets go over two.
#[derive(Clone)]
struct Spares {
    node: mpsc::WeakSender<Command>,
    session: Arc<Session>,
    name: String,
    hops: u8,
}

impl Spares {
    /// One that shares no relay with the other, if the pool has enough; tried until the session is over.
    async fn open(&self) -> Option<(FlowKey, FlowIo)> {
        let opened = async {
            loop {
                let node = self.node.upgrade()?;
                match self.try_open(&node).await {
                    Ok(opened) => return Some(opened),
                    Err(error) => tracing::debug!(%error, "no second chain for a session"),
                }
                drop(node);
                tokio::time::sleep(PAUSE).await;
            }
        };
        tokio::select! {
            opened = opened => opened,
            () = self.session.closed() => None,
        }
    }

    async fn try_open(&self, node: &mpsc::Sender<Command>) -> Result<(FlowKey, FlowIo), OpenError> {
        let other = self.session.present_carrier().ok_or(OpenError::Closed)?;
        let (raw, target) = bare::open(node, &self.name, self.hops, Some(other)).await?;
        if target != self.session.peer() {
            return Err(FlowError::Unknown.into());
        }
        let flow = raw.flow;
        let shared = shared(&raw.chain.borrow(), &self.session.chain().borrow());
        if !shared.is_empty() {
            tracing::warn!(
                relays = ?shared,
                "the pool has no second chain without a relay of the first: what happens to these relays interrupts both"
            );
        }
        node.send(Command::Join { flow, other }).await.map_err(|_| OpenError::Closed)?;
        self.session.say(SessionControl::Carrier { flow: flow.flow }).await;
        self.session.carried_by(flow);
        Ok((flow, FlowIo::new(raw)))
    }
}

/// The relays that serve both chains.
fn shared(one: &Chain, other: &Chain) -> Vec<String> {
    let serving = one.hops().iter().map(|hop| hop.primary.clone());
    serving.filter(|relay| other.carries(relay)).collect()
}

/// Keeps a flow that carries a session until the session is over; if the flow is lost before, another in its place.
async fn keep(session: Arc<Session>, mut flow: FlowKey, mut io: FlowIo, spares: Option<Spares>) {
    while carry(&session, flow, io).await.is_err() {
        let Some(spares) = &spares else { return };
        let Some(opened) = spares.open().await else { return };
        (flow, io) = opened;
    }
}

/// Keeps a flow that carries a session until one of them is over.
///
/// # Errors
/// Why the flow is, if it is the first.
pub(in crate::endpoint) async fn carry(
    session: &Session,
    flow: FlowKey,
    mut carrier: FlowIo,
) -> Result<(), FlowError> {
    let mut nothing = sink();
    let endings = carrier.end.endings.clone();
    let is_lost = tokio::select! {
        () = session.closed() => false,
        // All that comes are bytes by which the other end tries whether the chain carries any.
        read = copy(&mut carrier, &mut nothing) => read.is_err(),
    };
    if is_lost {
        let lost = over(endings).await.err().unwrap_or(FlowError::Closed);
        session.carrier_lost(flow, &lost);
        return Err(lost);
    }
    let parting = async {
        carrier.shutdown().await?;
        copy(&mut carrier, &mut nothing).await
    };
    if matches!(timeout(PARTING, parting).await, Ok(Ok(_))) {
        carrier.end.read_to_end = true;
    }
    session.carrier_lost(flow, &FlowError::Lost);
    Ok(())
}
