//! Messages: length-delimited frames on a flow, and receipts back.
//!
//! One flow carries the messages to one name, in order. A receipt is the number of messages that the target's application
//! has taken so far (8 bytes, big-endian), so a message needs no identifier of its own.

use super::flow::{self, Flow, Kind};
use super::flow_error::FlowError;
use super::served::{Message, Served};
use super::{Chain, Endpoint, OpenError};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt};
use hopline_proto::cause;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::pin::pin;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufWriter, ReadHalf, WriteHalf};
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio::time::timeout;
use tokio_util::codec::{FramedRead, LengthDelimitedCodec};
use tokio_util::task::TaskTracker;

/// Longest message, in bytes.
pub const MAX_MESSAGE_BYTES: usize = 1 << 20;
/// Messages to one name that may be on their way without a receipt; more wait in [`Endpoint::send`].
const MAX_UNTAKEN: usize = 1024;
/// Bytes that are gathered before they are handed to the flow.
const BUFFER_BYTES: usize = 64 << 10;
/// How long a flow without messages is kept for the next.
const IDLE: Duration = Duration::from_secs(10);

/// How long a sender that is refused may take to notice.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(10);
/// Stands where the number of messages taken would, if no more will be. What follows up to the end is why.
const REFUSED: u64 = u64::MAX;
/// Most of that which is read, in bytes.
const MAX_REFUSAL_BYTES: u64 = 256;

/// Why a message could not be sent, or its receipt did not come.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// It is longer than [`MAX_MESSAGE_BYTES`].
    #[error("a message of {bytes} bytes, where at most {MAX_MESSAGE_BYTES} are allowed")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// There is no way to the name.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The target's application does not take it, nor any other that is under way.
    #[error("the other end refused: {cause}")]
    Refused {
        /// Why, in its own words.
        cause: Arc<str>,
    },
    /// The flow broke before the receipt came: the message may or may not have been taken.
    #[error("the flow broke before the receipt came: {0}")]
    Broken(FlowError),
    /// The flow broke. Of a message that had its receipt, this says nothing.
    #[error("the flow broke: {0}")]
    Lost(FlowError),
}

/// Resolves when the target's application took the message.
#[derive(Debug)]
pub struct Receipt {
    verdict: oneshot::Receiver<Verdict>,
    end: End,
    chain: watch::Receiver<Chain>,
}

impl Receipt {
    /// The flow that carries the message.
    #[must_use]
    pub fn carrier(&self) -> Carrier {
        Carrier { verdict: self.end.subscribe(), chain: self.chain.clone() }
    }
}

/// A flow of messages. As long as this lives, the flow stays open for the next message, however late that comes.
#[derive(Debug)]
pub struct Carrier {
    verdict: watch::Receiver<Option<Verdict>>,
    chain: watch::Receiver<Chain>,
}

impl Carrier {
    /// Resolves once the flow takes no more messages, with why, be any under way or not. By then each receipt of a message that
    /// it carried has resolved.
    pub fn ended(&mut self) -> BoxFuture<'_, SendError> {
        Box::pin(async move {
            let verdict =
                self.verdict.wait_for(Option::is_some).await.ok().and_then(|verdict| verdict.clone());
            match verdict {
                Some(Verdict::Refused(cause)) => SendError::Refused { cause },
                Some(Verdict::Broken(error)) => SendError::Lost(error),
                Some(Verdict::Taken) | None => SendError::Lost(FlowError::Closed),
            }
        })
    }

    /// The relays that carry the messages at present, as [`Flow::watch_chain`] tells it.
    #[must_use]
    pub fn watch_chain(&self) -> watch::Receiver<Chain> {
        self.chain.clone()
    }
}

impl Future for Receipt {
    type Output = Result<(), SendError>;

    fn poll(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Self::Output> {
        self.verdict.poll_unpin(cx).map(|verdict| match verdict {
            Ok(Verdict::Taken) => Ok(()),
            Ok(Verdict::Refused(cause)) => Err(SendError::Refused { cause }),
            Ok(Verdict::Broken(error)) => Err(SendError::Broken(error)),
            Err(_) => Err(SendError::Broken(FlowError::Closed)),
        })
    }
}

/// What became of a message.
#[derive(Clone, Debug)]
enum Verdict {
    Taken,
    Refused(Arc<str>),
    Broken(FlowError),
}

struct Outgoing {
    payload: Bytes,
    receipt: oneshot::Sender<Verdict>,
}

/// Where a flow of messages tells how it ended.
type End = Arc<watch::Sender<Option<Verdict>>>;

/// A flow that is open, as those see it who send.
#[derive(Clone, Debug)]
struct Line {
    sender: mpsc::Sender<Outgoing>,
    end: End,
    chain: watch::Receiver<Chain>,
}

type ByName = HashMap<String, Line>;

/// The message flows that an endpoint has open, by name.
#[derive(Debug)]
pub(super) struct Senders {
    /// `None` once no more are opened.
    flows: std::sync::Mutex<Option<ByName>>,
    /// Whose turn it is to open one. What is sent meanwhile waits in order.
    turn: Mutex<()>,
    tasks: TaskTracker,
}

impl Default for Senders {
    fn default() -> Self {
        let flows = std::sync::Mutex::new(Some(HashMap::new()));
        Self { flows, turn: Mutex::default(), tasks: TaskTracker::new() }
    }
}

impl Senders {
    /// Ends the flows, and waits until they have ended or the time is up. Whoever is opening one is not waited for: it may
    /// never come to an end.
    pub(super) async fn close(&self, limit: Duration) {
        drop(self.lock().take());
        self.tasks.close();
        let _ = timeout(limit, self.tasks.wait()).await;
    }

    fn lock(&self) -> MutexGuard<'_, Option<ByName>> {
        self.flows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The flow to `name`, if it is open.
    fn open(&self, name: &str) -> Result<Option<Line>, OpenError> {
        let flows = self.lock();
        let line = flows.as_ref().ok_or(OpenError::Closed)?.get(name);
        Ok(line.filter(|line| !line.sender.is_closed()).cloned())
    }

    /// Starts to send over a flow.
    fn start(&self, name: &str, flow: Flow) -> Result<Line, OpenError> {
        let (sender, outgoing) = mpsc::channel(MAX_UNTAKEN);
        let line = Line { sender, end: Arc::new(watch::Sender::new(None)), chain: flow.watch_chain() };
        let mut flows = self.lock();
        flows.as_mut().ok_or(OpenError::Closed)?.insert(name.to_owned(), line.clone());
        self.tasks.spawn(run(flow, outgoing, line.end.clone()).boxed());
        Ok(line)
    }
}

pub(super) async fn send(endpoint: &Endpoint, name: &str, payload: Bytes) -> Result<Receipt, SendError> {
    if payload.len() > MAX_MESSAGE_BYTES {
        return Err(SendError::TooLong { bytes: payload.len() });
    }
    let (receipt, verdict) = oneshot::channel();
    let mut message = Outgoing { payload, receipt };
    loop {
        let Line { sender, end, chain } = line(endpoint, name).await?;
        match sender.send(message).await {
            Ok(()) => return Ok(Receipt { verdict, end, chain }),
            // That flow ended in the meantime: the message has not left.
            Err(mpsc::error::SendError(unsent)) => message = unsent,
        }
    }
}

/// The flow to `name`, which is opened if there is none.
async fn line(endpoint: &Endpoint, name: &str) -> Result<Line, OpenError> {
    let senders = &endpoint.0.senders;
    let _turn = senders.turn.lock().await;
    if let Some(line) = senders.open(name)? {
        return Ok(line);
    }
    let flow = flow::open(endpoint, name, endpoint.0.hops, Kind::Messages).await?;
    senders.start(name, flow)
}

/// Sends what comes and hands out receipts, until nothing has come for a while; then says how it ended.
async fn run(flow: Flow, mut outgoing: mpsc::Receiver<Outgoing>, end: End) {
    let aborter = flow.aborter();
    let (reader, writer) = tokio::io::split(flow);
    let (waiting, untaken) = mpsc::channel(MAX_UNTAKEN);
    let mut receipts = Receipts { untaken, next: VecDeque::new() };
    let is_kept = || end.receiver_count() > 0;
    let result = tokio::try_join!(receipts.read(reader), write(&mut outgoing, waiting, writer, is_kept));
    let verdict = match result {
        Ok(_) => return,
        Err(Early::Broken(error)) => Verdict::Broken(aborter.explain(&error).await),
        Err(Early::Refused(cause)) => Verdict::Refused(cause),
    };
    tracing::debug!(?verdict, "a flow of messages ended");
    // First nobody may queue another message here: whoever learns of the refusal and sends again gets a new flow.
    outgoing.close();
    for receipt in receipts.rest().chain(std::iter::from_fn(|| outgoing.try_recv().ok()).map(|m| m.receipt)) {
        let _ = receipt.send(verdict.clone());
    }
    end.send_replace(Some(verdict));
}

/// Why a flow of messages ended early.
enum Early {
    Broken(io::Error),
    Refused(Arc<str>),
}

impl From<io::Error> for Early {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

/// What comes of `wait`. If that takes time, nothing that was written stays behind meanwhile: it may be what is waited for.
async fn flushed<T>(wait: impl Future<Output = T>, writer: &mut (impl AsyncWrite + Unpin)) -> io::Result<T> {
    let mut wait = pin!(wait);
    if let Some(done) = wait.as_mut().now_or_never() {
        return Ok(done);
    }
    writer.flush().await?;
    Ok(wait.await)
}

/// Sends messages until nobody sends any more, or nothing has come for a while and nobody keeps the flow for more; then those
/// that came meanwhile.
async fn write(
    outgoing: &mut mpsc::Receiver<Outgoing>,
    waiting: mpsc::Sender<oneshot::Sender<Verdict>>,
    writer: WriteHalf<Flow>,
    is_kept: impl Fn() -> bool,
) -> Result<(), Early> {
    let mut writer = BufWriter::with_capacity(BUFFER_BYTES, writer);
    loop {
        let next = flushed(timeout(IDLE, outgoing.recv()), &mut writer).await?;
        if next.is_err() {
            if !is_kept() {
                outgoing.close();
            }
            continue;
        }
        let Ok(Some(Outgoing { payload, receipt })) = next else { break };
        // Whoever reads the receipts has gone only if the flow has.
        let Ok(permit) = flushed(waiting.reserve(), &mut writer).await? else { break };
        permit.send(receipt);
        writer.write_u32(u32::try_from(payload.len()).map_err(io::Error::other)?).await?;
        writer.write_all(&payload).await?;
    }
    Ok(writer.shutdown().await?)
}

/// Receipts of messages that have left.
struct Receipts {
    untaken: mpsc::Receiver<oneshot::Sender<Verdict>>,
    next: VecDeque<oneshot::Sender<Verdict>>,
}

impl Receipts {
    /// Hands them out as they come, until both directions have ended.
    async fn read(&mut self, mut reader: ReadHalf<Flow>) -> Result<(), Early> {
        let mut taken = 0;
        while let Some(count) = read_count(&mut reader).await? {
            if count == REFUSED {
                let mut cause = Vec::new();
                reader.take(MAX_REFUSAL_BYTES).read_to_end(&mut cause).await?;
                return Err(Early::Refused(String::from_utf8_lossy(&cause).into()));
            }
            while taken < count {
                if self.next.is_empty() {
                    self.next.extend(self.untaken.recv().await);
                }
                let Some(receipt) = self.next.pop_front() else {
                    return Err(io::Error::other("a receipt for a message that was not sent").into());
                };
                let _ = receipt.send(Verdict::Taken);
                taken += 1;
            }
        }
        if self.next.is_empty() && self.untaken.recv().await.is_none() {
            return Ok(());
        }
        Err(io::Error::other("no more receipts, though not every message has one").into())
    }

    /// Those that never came.
    fn rest(&mut self) -> impl Iterator<Item = oneshot::Sender<Verdict>> {
        self.untaken.close();
        self.next.drain(..).chain(std::iter::from_fn(|| self.untaken.try_recv().ok()))
    }
}

/// A count of messages taken, or the end.
async fn read_count(reader: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<u64>> {
    let mut first = [0];
    if reader.read(&mut first).await? == 0 {
        return Ok(None);
    }
    let mut rest = [0; 7];
    reader.read_exact(&mut rest).await?;
    let mut bytes = [0; 8];
    bytes.iter_mut().zip(first.iter().chain(&rest)).for_each(|(to, from)| *to = *from);
    Ok(Some(u64::from_be_bytes(bytes)))
}

/// The target's side: hands messages to the listener one by one and counts those that were taken.
pub(super) async fn receive(flow: Flow, mut served: Served) {
    let from = flow.peer();
    let (reader, mut writer) = tokio::io::split(flow);
    let mut frames = FramedRead::new(reader, codec());
    let mut taken: u64 = 0;
    loop {
        let payload = tokio::select! {
            biased;
            next = flushed(frames.next(), &mut writer) => match next {
                Ok(Some(Ok(payload))) => payload,
                Ok(None) => return drop(writer.shutdown().await),
                Ok(Some(Err(_))) | Err(_) => return,
            },
            cause = served.refusal.cause() => return say_no_more(&cause, frames, writer).await,
        };
        let (take, verdict) = oneshot::channel();
        let message = Message::new(from, payload.freeze(), take);
        let is_handed_over = tokio::select! {
            biased;
            handed = flushed(served.incoming.send(message), &mut writer) => matches!(handed, Ok(Ok(()))),
            _ = served.refusal.cause() => false,
        };
        let verdict = match is_handed_over {
            true => flushed(verdict, &mut writer).await,
            false => Ok(Ok(Err(served.refusal.cause().await))),
        };
        match verdict {
            Ok(Ok(Ok(()))) => taken += 1,
            Ok(Ok(Err(cause))) => return say_no_more(&cause, frames, writer).await,
            Ok(Err(_)) => {
                let cause =
                    served.refusal.present().unwrap_or_else(|| "the application there dropped it".into());
                return say_no_more(&cause, frames, writer).await;
            }
            Err(_) => return,
        }
        if writer.write_all(&taken.to_be_bytes()).await.is_err() {
            return;
        }
    }
}

/// Refuses whatever comes over a flow.
pub(super) async fn refuse(flow: Flow, cause: &str) {
    let (reader, writer) = tokio::io::split(flow);
    say_no_more(cause, FramedRead::new(reader, codec()), writer).await;
}

/// Says that no more is taken, and stays until the sender has heard that.
async fn say_no_more(
    cause: &str,
    mut frames: FramedRead<ReadHalf<Flow>, LengthDelimitedCodec>,
    mut writer: WriteHalf<Flow>,
) {
    let refusal = async {
        writer.write_all(&REFUSED.to_be_bytes()).await?;
        writer.write_all(cause::bounded(cause).as_bytes()).await?;
        writer.shutdown().await?;
        while let Some(Ok(_)) = frames.next().await {}
        Ok::<_, io::Error>(())
    };
    let _ = timeout(REFUSAL_TIMEOUT, refusal).await;
}

fn codec() -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder().max_frame_length(MAX_MESSAGE_BYTES).new_codec()
}
