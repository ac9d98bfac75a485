//! A session: one QUIC connection from end to end, whose packets relays pass on. Flows are its streams.
//!
//! QUIC keeps and repeats what is lost on the way, so relays hold nothing. What it does not say, the ends tell each other on a stream of
//! each direction, as [`SessionControl`]s: that an application took everything that came, and why one gives a flow up.
//!
//! A session ends with its connection, and its flows with it. Its *carrier* is a flow without bytes whose chain its packets take; a
//! redundant session has two. While no chain leads to the other end, packets wait here.
//!
//! Bounds: streams by QUIC ([`SESSION_FLOWS`]); messages about streams that are not known yet ([`MAX_EARLY`]).

pub(super) mod carriers;
mod io;
pub(super) mod pool;
pub(super) mod ports;
mod silence;
mod socket;

pub(super) use io::SessionIo;

use super::chain::Chain;
use super::flow_error::{DROPPED, Ending, FlowError};
use super::flow_io::{FlowEnd, Reached, Word};
use crate::net::frames::{self, FrameError};
use crate::net::tasks;
use crate::net::tls;
use crate::net::transport::SESSION_FLOWS;
use hopline_proto::cause;
use hopline_proto::codec::{self, Growing};
use hopline_proto::flows::FlowKey;
use hopline_proto::id::{FlowId, NodeId};
use ports::{Established, Ports};
use quinn::{Connection, ConnectionError, RecvStream, SendStream};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::timeout;

/// Largest [`SessionControl`], in bytes.
const MAX_CONTROL_BYTES: usize = 512;
/// Messages that may wait for their streams: an end says two of each at most.
const MAX_EARLY: usize = 2 * SESSION_FLOWS as usize;
/// Messages that may wait to be written.
const QUEUED_CONTROLS: usize = 256;
/// What an application may say of a flow: that it took everything, and that it gives it up, each once.
const QUEUED_SAID: usize = 8;
/// How long a session that ends waits until the other end has heard the last words.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// They go before data.
const CONTROL_PRIORITY: i32 = 1;

/// What one end tells the other, beside the flows' bytes. Append-only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum SessionControl {
    /// The application took everything that came on this stream.
    Taken { stream: u64 },
    /// The application gives the flow up.
    Aborted { stream: u64, cause: String },
    /// This flow of the origin carries the session, too.
    Carrier { flow: FlowId },
    /// Something that only newer nodes say: nothing follows from it.
    #[serde(other)]
    Unknown,
}

impl Growing for SessionControl {
    fn is_unknown(&self) -> bool {
        matches!(self, Self::Unknown)
    }
}

impl SessionControl {
    const fn stream(&self) -> Option<u64> {
        match self {
            Self::Taken { stream } | Self::Aborted { stream, .. } => Some(*stream),
            Self::Carrier { .. } | Self::Unknown => None,
        }
    }
}

/// What is to be written to the other end.
#[derive(Debug)]
enum Outgoing {
    Control(SessionControl),
    /// There is nothing more: whoever holds the other end of this wants to know when all has arrived.
    Last(oneshot::Sender<()>),
}

/// See the module's documentation. Handles share it.
#[derive(Debug)]
pub(super) struct Session {
    connection: Connection,
    ports: Arc<Ports>,
    peer: NodeId,
    /// The flow that carried it first.
    carrier: FlowId,
    chain: watch::Receiver<Chain>,
    controls: mpsc::Sender<Outgoing>,
    /// Takes the flows that the other end says carry it, too.
    joining: mpsc::Sender<FlowId>,
    flows: Mutex<Table>,
    /// Notified when the last flow is over.
    idle: Notify,
    /// Notified when there is one more.
    used: Notify,
    runtime: Handle,
}

/// The flows of a session, by their streams.
#[derive(Debug, Default)]
struct Table {
    flows: HashMap<u64, Part>,
    /// The first stream that has not been seen yet,
    unseen: u64,
    /// and what was said of it and those after it.
    early: Vec<SessionControl>,
    /// Why there will be no more.
    over: Option<FlowError>,
    /// The flows that carry the session now.
    carriers: Vec<FlowKey>,
}

/// A flow, as its session sees it.
#[derive(Debug)]
struct Part {
    ending: watch::Sender<Option<Ending>>,
    reached: watch::Sender<Reached>,
    /// Whether the application here took everything.
    has_taken: bool,
}

impl Part {
    fn end(&self, ending: Ending) {
        self.ending.send_if_modified(|present| present.is_none() && present.replace(ending).is_none());
    }

    fn is_over(&self) -> bool {
        self.ending.borrow().is_some()
    }

    /// Both applications took everything.
    fn settle(&self) {
        if self.has_taken && *self.reached.borrow() == Reached::Taken {
            self.end(Ending::Done);
        }
    }
}

impl Session {
    /// A session over a connection that is up, with whoever showed its certificate there.
    pub(super) async fn start(
        Established { connection, ports }: Established,
        peer: NodeId,
        (carrier, chain): (FlowId, watch::Receiver<Chain>),
        joining: mpsc::Sender<FlowId>,
        runtime: Handle,
    ) -> Result<Arc<Self>, FlowError> {
        let sender = connection.open_uni().await.map_err(|error| of_connection(&error))?;
        let _ = sender.set_priority(CONTROL_PRIORITY);
        let (controls, queued) = mpsc::channel(QUEUED_CONTROLS);
        let session = Arc::new(Self {
            connection,
            ports,
            peer,
            carrier,
            chain,
            controls,
            joining,
            flows: Mutex::default(),
            idle: Notify::new(),
            used: Notify::new(),
            runtime: runtime.clone(),
        });
        tasks::spawn_on(&runtime, write(sender, queued));
        tasks::spawn_on(&runtime, session.clone().listen());
        Ok(session)
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.flows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who is at the other end, as its certificate proves.
    pub(super) const fn peer(&self) -> NodeId {
        self.peer
    }

    /// Where datagrams come in, and by what they leave.
    pub(super) fn datagrams(&self) -> (Arc<Ports>, Connection) {
        (self.ports.clone(), self.connection.clone())
    }

    /// The flow that carries it.
    pub(super) const fn carrier(&self) -> FlowId {
        self.carrier
    }

    /// The relays that it goes over at present.
    pub(super) fn chain(&self) -> watch::Receiver<Chain> {
        self.chain.clone()
    }

    /// Whether it takes no more flows.
    pub(super) fn is_over(&self) -> bool {
        self.lock().over.is_some()
    }

    fn is_idle(&self) -> bool {
        self.lock().flows.is_empty()
    }

    /// Takes no more flows, if it carries none.
    fn end_if_idle(&self) -> bool {
        let mut table = self.lock();
        let is_idle = table.flows.is_empty();
        if is_idle {
            table.over.get_or_insert(FlowError::Closed);
        }
        is_idle
    }

    /// Closes it once it has carried no flow for so long.
    pub(super) async fn close_when_idle(&self, limit: Duration) {
        loop {
            let idle = self.idle.notified();
            if !self.is_idle() {
                idle.await;
            } else if timeout(limit, self.used.notified()).await.is_err() && self.end_if_idle() {
                return self.close("it was idle").await;
            }
        }
    }

    /// Opens a flow. Waits only while the session has [`SESSION_FLOWS`].
    pub(super) async fn open(self: &Arc<Self>) -> Result<SessionIo, FlowError> {
        let streams = self.connection.open_bi().await.map_err(|error| of_connection(&error))?;
        let flow = self.clone().adopt(streams);
        // It may have ended in this moment for being idle.
        if self.is_over() { Err(FlowError::Closed) } else { Ok(flow) }
    }

    /// The next flow that the other end opens; `None` once the session is over.
    pub(super) async fn accept(self: &Arc<Self>) -> Option<SessionIo> {
        let streams = self.connection.accept_bi().await.ok()?;
        Some(self.clone().adopt(streams))
    }

    fn adopt(self: Arc<Self>, streams: (SendStream, RecvStream)) -> SessionIo {
        let stream = streams.0.id().index();
        let (ending, endings) = watch::channel(None);
        let (told, reached) = watch::channel(Reached::Nothing);
        let (said, saying) = mpsc::channel(QUEUED_SAID);
        let early = {
            let mut table = self.lock();
            let part = Part { ending, reached: told.clone(), has_taken: false };
            if let Some(error) = &table.over {
                part.end(Ending::Broken(error.clone()));
            }
            table.flows.insert(stream, part);
            table.unseen = table.unseen.max(stream + 1);
            table.early.extract_if(.., |control| control.stream() == Some(stream)).collect::<Vec<_>>()
        };
        self.used.notify_waiters();
        early.into_iter().for_each(|control| self.hear(control));
        tasks::spawn_on(&self.runtime, self.clone().heed(stream, saying, endings.clone()));
        let arrived = move || {
            told.send_if_modified(|reached| {
                *reached == Reached::Nothing
                    && std::mem::replace(reached, Reached::Arrived) == Reached::Nothing
            });
        };
        SessionIo::new(self, streams, FlowEnd::new(said, endings, reached), arrived)
    }

    /// Does what the application says of a flow, until the flow is over or everybody who could speak of it is gone.
    async fn heed(
        self: Arc<Self>,
        stream: u64,
        mut said: mpsc::Receiver<Word>,
        mut endings: watch::Receiver<Option<Ending>>,
    ) {
        let mut has_taken = false;
        loop {
            let word = tokio::select! {
                biased;
                word = said.recv() => word,
                _ = endings.wait_for(Option::is_some) => break,
            };
            match word {
                Some(Word::Key(_)) => {}
                Some(Word::Taken) if has_taken => {}
                Some(Word::Taken) => {
                    has_taken = true;
                    self.say(SessionControl::Taken { stream }).await;
                    if let Some(part) = self.lock().flows.get_mut(&stream) {
                        part.has_taken = true;
                        part.settle();
                    }
                }
                Some(Word::Abort(cause)) => self.abort(stream, cause).await,
                None if has_taken => {
                    let _ = endings.wait_for(Option::is_some).await;
                    break;
                }
                None => self.abort(stream, DROPPED.into()).await,
            }
        }
        let mut table = self.lock();
        table.flows.remove(&stream);
        if table.flows.is_empty() {
            self.idle.notify_waiters();
        }
    }

    /// The application here gives a flow up.
    async fn abort(&self, stream: u64, cause: Arc<str>) {
        let told = SessionControl::Aborted { stream, cause: cause::bounded(&cause).to_owned() };
        let is_open = self.lock().flows.get(&stream).is_some_and(|part| !part.is_over());
        if is_open {
            self.say(told).await;
            if let Some(part) = self.lock().flows.get(&stream) {
                part.end(Ending::Here(cause));
            }
        }
    }

    /// Nobody is there to be told once the session is over.
    async fn say(&self, control: SessionControl) {
        let _ = self.controls.send(Outgoing::Control(control)).await;
    }

    /// Resolves once the other end has all that was said. Nothing more can be said then.
    async fn all_said(&self) {
        let (reply, said) = oneshot::channel();
        if self.controls.send(Outgoing::Last(reply)).await.is_ok() {
            let _ = said.await;
        }
    }

    /// What the other end says of a flow.
    fn hear(&self, control: SessionControl) {
        if let SessionControl::Carrier { flow } = control {
            let _ = self.joining.try_send(flow);
        }
        let Some(stream) = control.stream() else { return };
        let mut table = self.lock();
        let Table { flows, early, unseen, .. } = &mut *table;
        let Some(part) = flows.get(&stream) else {
            // It has overtaken its stream, or speaks of one that is over.
            if stream >= *unseen && early.len() < MAX_EARLY {
                early.push(control);
            }
            return;
        };
        match control {
            SessionControl::Taken { .. } => {
                part.reached.send_replace(Reached::Taken);
                part.settle();
            }
            SessionControl::Aborted { cause, .. } => {
                part.end(Ending::Broken(FlowError::Aborted { cause: cause::bounded(&cause).into() }));
            }
            SessionControl::Carrier { .. } | SessionControl::Unknown => {}
        }
    }

    /// Hears what the other end says, until the session is over; then so are its flows.
    async fn listen(self: Arc<Self>) {
        let heard = async {
            let mut receiver = self.connection.accept_uni().await.map_err(FrameError::ConnectionLost)?;
            loop {
                let control = frames::read_growing_frame(&mut receiver, MAX_CONTROL_BYTES).await?;
                self.hear(control);
            }
        };
        let error: Result<std::convert::Infallible, FrameError> = heard.await;
        let Err(error) = error;
        if error.is_violation() {
            tracing::warn!(%error, peer = ?self.peer, "closing a session whose other end broke the protocol");
            self.connection.close(1u32.into(), b"protocol broken");
        }
        let why = of_connection(&self.connection.closed().await);
        self.end(&why);
    }

    /// It is over for this reason.
    fn end(&self, why: &FlowError) {
        let mut table = self.lock();
        let why = table.over.get_or_insert_with(|| why.clone()).clone();
        table.flows.values().for_each(|part| part.end(Ending::Broken(why.clone())));
        table.early.clear();
    }

    /// A flow carries it from now on.
    pub(super) fn carried_by(&self, flow: FlowKey) {
        self.lock().carriers.push(flow);
    }

    /// A flow that carries it, if any does.
    fn present_carrier(&self) -> Option<FlowKey> {
        self.lock().carriers.last().copied()
    }

    /// A flow carries it no more. With the last one it is over for this reason.
    pub(super) fn carrier_lost(&self, flow: FlowKey, why: &FlowError) {
        let is_last = {
            let carriers = &mut self.lock().carriers;
            carriers.retain(|carrier| *carrier != flow);
            carriers.is_empty()
        };
        if is_last {
            self.end(why);
            self.connection.close(0u32.into(), b"the chain is lost");
        }
    }

    /// Whether this is its connection.
    pub(super) fn uses(&self, connection: &Connection) -> bool {
        self.connection.stable_id() == connection.stable_id()
    }

    /// Resolves once the connection is over.
    pub(super) async fn closed(&self) {
        self.connection.closed().await;
    }

    /// Gives up what is still open for this cause, which the other end is told.
    pub(super) async fn close(&self, cause: &str) {
        let open: Vec<u64> = self.lock().flows.keys().copied().collect();
        for stream in open {
            self.abort(stream, cause.into()).await;
        }
        let _ = timeout(LAST_WORDS, self.all_said()).await;
        self.end(&FlowError::Closed);
        self.connection.close(0u32.into(), cause::bounded(cause).as_bytes());
    }
}

/// Writes what is to be said, as much at once as there is.
async fn write(mut sender: SendStream, mut queued: mpsc::Receiver<Outgoing>) {
    let mut batch = Vec::new();
    let mut bytes = Vec::new();
    while queued.recv_many(&mut batch, QUEUED_CONTROLS).await > 0 {
        bytes.clear();
        let mut last = None;
        for outgoing in batch.drain(..) {
            match outgoing {
                Outgoing::Control(control) => codec::write_frame(&control, &mut bytes),
                Outgoing::Last(reply) => last = Some(reply),
            }
        }
        if sender.write_all(&bytes).await.is_err() {
            return;
        }
        if let Some(reply) = last {
            let _ = sender.finish();
            let _ = sender.stopped().await;
            let _ = reply.send(());
            return;
        }
    }
}

/// What the end of a connection means for the flows on it.
fn of_connection(error: &ConnectionError) -> FlowError {
    if let Some(refused) = tls::alert(error).and_then(FlowError::of_alert) {
        return refused;
    }
    match error {
        ConnectionError::ApplicationClosed(close) if !close.reason.is_empty() => {
            FlowError::Aborted { cause: cause::bounded(&String::from_utf8_lossy(&close.reason)).into() }
        }
        ConnectionError::LocallyClosed => FlowError::Closed,
        ConnectionError::VersionMismatch
        | ConnectionError::TransportError(_)
        | ConnectionError::ConnectionClosed(_)
        | ConnectionError::ApplicationClosed(_)
        | ConnectionError::Reset
        | ConnectionError::TimedOut
        | ConnectionError::CidsExhausted => FlowError::Lost,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_newer_nodes_say_is_skipped() {
        let taken = codec::to_bytes(&SessionControl::Taken { stream: 300 });
        assert_eq!(taken, [0, 251, 44, 1], "golden vector");
        assert_eq!(codec::from_growing_bytes(&taken), Ok(SessionControl::Taken { stream: 300 }));
        assert_eq!(codec::from_growing_bytes(&[9, 1, 2, 3]), Ok(SessionControl::Unknown));
        codec::from_growing_bytes::<SessionControl>(&[0, 1, 7]).unwrap_err();
    }
}
