//! Messages: length-delimited frames on a flow, and receipts back.
//!
//! One flow carries the messages to one name, in order. A receipt is the number of messages that the target's application
//! has taken so far (8 bytes, big-endian), so a message needs no identifier of its own.

use super::flow::{self, Flow, FlowError, Kind};
use super::listener::{Incoming, Message};
use super::{Endpoint, OpenError};
use bytes::{Buf, Bytes};
use futures_util::StreamExt;
use std::collections::{HashMap, VecDeque};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufWriter, ReadHalf, WriteHalf};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio_util::codec::{FramedRead, LengthDelimitedCodec};

/// Longest message, in bytes.
pub const MAX_MESSAGE_BYTES: usize = 1 << 20;
/// Messages to one name that may be on their way without a receipt; more wait in [`Endpoint::send`].
const MAX_UNTAKEN: usize = 1024;
/// Bytes that are gathered before they are handed to the flow.
const BUFFER_BYTES: usize = 64 << 10;
/// How long a flow without messages is kept for the next.
const IDLE: Duration = Duration::from_secs(10);

/// How long a sender that is refused may take to notice.
const REFUSAL_PATIENCE: Duration = Duration::from_secs(10);
/// Stands where the number of messages taken would, if no more will be.
const REFUSED: u64 = u64::MAX;

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
    #[error("the other end refused the message")]
    Refused,
    /// The flow broke before the receipt came: the message may or may not have been taken.
    #[error("the flow broke before the receipt came: {0}")]
    Broken(FlowError),
}

/// Resolves when the target's application took the message.
#[derive(Debug)]
pub struct Receipt(oneshot::Receiver<Verdict>);

impl Future for Receipt {
    type Output = Result<(), SendError>;

    fn poll(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Self::Output> {
        std::pin::Pin::new(&mut self.0).poll(cx).map(|verdict| match verdict {
            Ok(Verdict::Taken) => Ok(()),
            Ok(Verdict::Refused) => Err(SendError::Refused),
            Err(_) => Err(SendError::Broken(FlowError::Lost)),
        })
    }
}

/// What became of a message.
#[derive(Clone, Copy, Debug)]
enum Verdict {
    Taken,
    Refused,
}

struct Outgoing {
    payload: Bytes,
    receipt: oneshot::Sender<Verdict>,
}

/// The message flows that an endpoint has open, by name.
#[derive(Debug, Default)]
pub(super) struct Senders(Mutex<HashMap<String, mpsc::Sender<Outgoing>>>);

pub(super) async fn send(endpoint: &Endpoint, name: &str, payload: Bytes) -> Result<Receipt, SendError> {
    if payload.len() > MAX_MESSAGE_BYTES {
        return Err(SendError::TooLong { bytes: payload.len() });
    }
    let (receipt, received) = oneshot::channel();
    let mut message = Outgoing { payload, receipt };
    loop {
        let sender = sender(endpoint, name).await?;
        match sender.send(message).await {
            Ok(()) => return Ok(Receipt(received)),
            // That flow ended in the meantime: the message has not left.
            Err(mpsc::error::SendError(unsent)) => message = unsent,
        }
    }
}

/// The sender of the flow to `name`, which is opened if there is none.
async fn sender(endpoint: &Endpoint, name: &str) -> Result<mpsc::Sender<Outgoing>, OpenError> {
    let mut senders = endpoint.0.senders.0.lock().await;
    if let Some(sender) = senders.get(name).filter(|sender| !sender.is_closed()) {
        return Ok(sender.clone());
    }
    let flow = flow::open(endpoint, name, endpoint.0.hops, Kind::Messages).await?;
    let (sender, outgoing) = mpsc::channel(MAX_UNTAKEN);
    senders.insert(name.to_owned(), sender.clone());
    tokio::spawn(async move {
        if let Err(error) = run(flow, outgoing).await {
            tracing::debug!(%error, "a message flow ended");
        }
    });
    Ok(sender)
}

/// Sends what comes and hands out receipts, until nothing has come for a while.
async fn run(flow: Flow, mut outgoing: mpsc::Receiver<Outgoing>) -> std::io::Result<()> {
    let (reader, writer) = tokio::io::split(flow);
    let (waiting, untaken) = mpsc::channel(MAX_UNTAKEN);
    let write = async {
        let mut writer = BufWriter::with_capacity(BUFFER_BYTES, writer);
        while let Ok(Some(message)) = tokio::time::timeout(IDLE, outgoing.recv()).await {
            let Ok(permit) = waiting.reserve().await else { break };
            write_message(&mut writer, &message.payload).await?;
            permit.send(message.receipt);
            if outgoing.is_empty() {
                writer.flush().await?;
            }
        }
        outgoing.close();
        drain(&mut outgoing, &waiting, &mut writer).await?;
        drop(waiting);
        Ok(writer.shutdown().await?)
    };
    let read = read_receipts(reader, untaken);
    match tokio::try_join!(write, read) {
        Ok(_) => Ok(()),
        Err(End::Broken(error)) => Err(error),
        Err(End::Refused(mut receipts)) => {
            // First nobody may queue another message here: whoever learns of the refusal and sends again gets a new flow.
            outgoing.close();
            receipts.extend(std::iter::from_fn(|| outgoing.try_recv().ok()).map(|message| message.receipt));
            for receipt in receipts {
                let _ = receipt.send(Verdict::Refused);
            }
            Err(std::io::ErrorKind::ConnectionRefused.into())
        }
    }
}

/// Why a flow of messages ended early.
enum End {
    Broken(std::io::Error),
    /// With the receipts of messages that had left.
    Refused(Vec<oneshot::Sender<Verdict>>),
}

impl From<std::io::Error> for End {
    fn from(error: std::io::Error) -> Self {
        Self::Broken(error)
    }
}

/// What had been queued before the flow closed is sent all the same.
async fn drain(
    outgoing: &mut mpsc::Receiver<Outgoing>,
    waiting: &mpsc::Sender<oneshot::Sender<Verdict>>,
    writer: &mut BufWriter<WriteHalf<Flow>>,
) -> std::io::Result<()> {
    while let Some(message) = outgoing.recv().await {
        write_message(writer, &message.payload).await?;
        if waiting.send(message.receipt).await.is_err() {
            break;
        }
    }
    writer.flush().await
}

async fn write_message(writer: &mut BufWriter<WriteHalf<Flow>>, payload: &Bytes) -> std::io::Result<()> {
    writer.write_u32(u32::try_from(payload.len()).map_err(std::io::Error::other)?).await?;
    writer.write_all(payload).await
}

async fn read_receipts(
    mut reader: ReadHalf<Flow>,
    mut untaken: mpsc::Receiver<oneshot::Sender<Verdict>>,
) -> Result<(), End> {
    let mut taken = 0;
    let mut counter = [0; 8];
    let mut next = VecDeque::new();
    while reader.read_exact(&mut counter).await.is_ok() {
        let count = u64::from_be_bytes(counter);
        if count == REFUSED {
            untaken.close();
            next.extend(std::iter::from_fn(|| untaken.try_recv().ok()));
            return Err(End::Refused(next.into()));
        }
        while taken < count {
            if next.is_empty() {
                next.extend(untaken.recv().await);
            }
            let Some(receipt) = next.pop_front() else {
                return Err(std::io::Error::other("a receipt for a message that was not sent").into());
            };
            let _ = receipt.send(Verdict::Taken);
            taken += 1;
        }
    }
    if untaken.is_closed() && untaken.is_empty() {
        Ok(())
    } else {
        Err(End::Broken(std::io::ErrorKind::UnexpectedEof.into()))
    }
}

/// The target's side: hands messages to the listener one by one and counts those that were taken.
pub(super) async fn receive(flow: Flow, listener: &mpsc::Sender<Incoming>) {
    let from = flow.peer();
    let (reader, mut writer) = tokio::io::split(flow);
    let mut frames = FramedRead::new(reader, codec());
    let mut taken: u64 = 0;
    while let Some(Ok(payload)) = frames.next().await {
        let (take, was_taken) = oneshot::channel();
        let message = Message::new(from, payload.freeze(), take);
        if listener.send(Incoming::Message(message)).await.is_err() || was_taken.await.is_err() {
            return refuse(frames, writer).await;
        }
        taken += 1;
        let more_at_hand = frames.read_buffer().has_remaining();
        let counted = writer.write_all(&taken.to_be_bytes()).await;
        if counted.is_err() || (!more_at_hand && writer.flush().await.is_err()) {
            return;
        }
    }
    let _ = writer.shutdown().await;
}

/// Says that no more is taken, and stays until the sender has heard that.
async fn refuse(mut frames: FramedRead<ReadHalf<Flow>, LengthDelimitedCodec>, mut writer: WriteHalf<Flow>) {
    let said = writer.write_all(&REFUSED.to_be_bytes()).await.is_ok() && writer.shutdown().await.is_ok();
    let heard = async { while let Some(Ok(_)) = frames.next().await {} };
    if said {
        let _ = tokio::time::timeout(REFUSAL_PATIENCE, heard).await;
    }
}

fn codec() -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder().max_frame_length(MAX_MESSAGE_BYTES).new_codec()
}
