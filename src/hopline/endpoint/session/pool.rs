//! The sessions that an origin has open, one for each name and number of relays.

use super::super::driver::Command;
use super::super::flow_error::{FlowError, over};
use super::super::flow_io::FlowIo;
use super::super::{Endpoint, OpenError, flow};
use super::Session;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncWriteExt, copy, sink};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// How long a carrier whose session is over waits until the other end has ended it, too.
const PARTING: Duration = Duration::from_secs(2);

/// A name, and how many relays lead there.
type Key = (String, u8);
/// Whoever holds it opens the session, if there is none.
type Slot = Arc<tokio::sync::Mutex<Option<Open>>>;

/// A session, and what keeps its carrier.
#[derive(Debug)]
struct Open {
    session: Arc<Session>,
    carrying: JoinHandle<()>,
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
                let _ = carrying.await;
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
    let (raw, target) = flow::open_raw(endpoint, name, hops).await?;
    let (reply, connected) = oneshot::channel();
    let membership = endpoint.0.bootstrap_client.membership();
    let connect = Command::Connect { flow: raw.flow, target, membership: Box::new(membership), reply };
    endpoint.command(connect).await?;
    let (endings, kept) = (raw.ending.clone(), raw.kept);
    let connection = tokio::select! {
        connected = connected => connected.unwrap_or(Err(FlowError::Closed)),
        ended = over(endings) => Err(ended.err().unwrap_or(FlowError::Closed)),
    };
    let connection = connection.map_err(|error| OpenError::over(kept, error))?;
    let runtime = endpoint.0.runtime.clone();
    let session =
        Session::start(connection, target, (raw.flow.flow, raw.chain.clone()), runtime.clone()).await?;
    let carrying = runtime.spawn(carry(session.clone(), FlowIo::new(raw)));
    let (closing, limit) = (session.clone(), endpoint.0.session_idle);
    runtime.spawn(async move {
        tokio::select! {
            () = closing.close_when_idle(limit) => {}
            () = closing.closed() => {}
        }
    });
    Ok(Open { session, carrying })
}

/// Keeps a session's carrier until the session is over, and ends the session with it.
pub(in crate::endpoint) async fn carry(session: Arc<Session>, mut carrier: FlowIo) {
    let mut nothing = sink();
    let endings = carrier.end.endings.clone();
    let is_lost = tokio::select! {
        () = session.closed() => false,
        // All that comes are bytes by which the other end tries whether the chain carries any.
        read = copy(&mut carrier, &mut nothing) => read.is_err(),
    };
    if is_lost {
        return session.lost(&over(endings).await.err().unwrap_or(FlowError::Closed));
    }
    let parting = async {
        carrier.shutdown().await?;
        copy(&mut carrier, &mut nothing).await
    };
    if matches!(timeout(PARTING, parting).await, Ok(Ok(_))) {
        carrier.end.read_to_end = true;
    }
    session.lost(&FlowError::Lost);
}
