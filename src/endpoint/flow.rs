//! A flow, as an application sees it: TLS from end to end over the bytes that the node carries.

use super::driver::{Command, Raw};
use super::{Endpoint, OpenError};
use crate::net::tls;
use crate::proto::codec;
use crate::proto::epoch::MAX_HOPS;
use crate::proto::frame::CloseCode;
use crate::proto::id::{FlowId, NodeId};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use tokio_util::sync::PollSender;

/// How long the two ends may take to agree on TLS.
pub(super) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);
/// Largest [`Preface`], in bytes.
const MAX_PREFACE_BYTES: usize = 256;

/// Why a flow broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FlowError {
    /// No chain led to the target for as long as the endpoint was willing to try.
    #[error("no path to the target within the time allowed")]
    NoPath,
    /// The other end gave the flow up, or its process ended.
    #[error("the other end gave the flow up")]
    Aborted,
    /// The other end does not know the flow: it restarted.
    #[error("the other end no longer knows the flow")]
    Unknown,
    /// The other end did not come back within the time allowed.
    #[error("the other end was not heard of within the time allowed")]
    Lost,
    /// The two ends did not agree on TLS.
    #[error("no secure channel with the other end")]
    Handshake,
    /// This endpoint was shut down.
    #[error("this endpoint was shut down")]
    Closed,
}

impl FlowError {
    /// What the end of a flow with `code` means here.
    const fn of(code: CloseCode) -> Self {
        match code {
            CloseCode::NoPath | CloseCode::Overloaded | CloseCode::Forbidden | CloseCode::Malformed => {
                Self::NoPath
            }
            CloseCode::Aborted => Self::Aborted,
            CloseCode::Unknown => Self::Unknown,
            CloseCode::Lost | CloseCode::Moved | CloseCode::Stale | CloseCode::Replaced | CloseCode::Done => {
                Self::Lost
            }
        }
    }
}

impl From<FlowError> for io::Error {
    fn from(error: FlowError) -> Self {
        let kind = match error {
            FlowError::NoPath | FlowError::Handshake => io::ErrorKind::HostUnreachable,
            FlowError::Aborted | FlowError::Unknown | FlowError::Lost => io::ErrorKind::ConnectionReset,
            FlowError::Closed => io::ErrorKind::NotConnected,
        };
        Self::new(kind, error)
    }
}

/// What a flow is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Kind {
    /// Bytes for the application.
    Stream,
    /// Length-delimited messages one way, receipts the other.
    Messages,
}

/// The first thing that an origin says inside the TLS stream.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Preface {
    /// Which of the target's names was asked for.
    pub(super) name: String,
    pub(super) kind: Kind,
}

/// An ordered duplex byte stream to one target, encrypted from end to end.
///
/// It reads and writes like any stream; [`AsyncWriteExt::shutdown`] ends the direction toward the peer and leaves the
/// other open. Dropping a flow before both directions have ended aborts it.
#[derive(Debug)]
pub struct Flow {
    stream: TlsStream<FlowIo>,
    id: FlowId,
    peer: NodeId,
    ending: watch::Receiver<Option<CloseCode>>,
}

impl Flow {
    /// The flow's identifier, as it stands in events.
    #[must_use]
    pub const fn id(&self) -> FlowId {
        self.id
    }

    /// Who is at the other end, as its certificate proves.
    #[must_use]
    pub const fn peer(&self) -> NodeId {
        self.peer
    }

    /// Resolves once both directions have ended and the other end knows that everything arrived.
    ///
    /// # Errors
    /// [`FlowError`] if that will never be so.
    pub async fn finished(mut self) -> Result<(), FlowError> {
        let ending = self.ending.wait_for(Option::is_some).await.map_err(|_| FlowError::Closed)?;
        match *ending {
            Some(CloseCode::Done) => Ok(()),
            Some(code) => Err(FlowError::of(code)),
            None => Err(FlowError::Closed),
        }
    }
}

impl AsyncRead for Flow {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Flow {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Opens a flow of a kind: route, attach, TLS with the very node that the route names, preface.
pub(super) async fn open(endpoint: &Endpoint, name: &str, hops: u8, kind: Kind) -> Result<Flow, OpenError> {
    if !(1..=MAX_HOPS).contains(&usize::from(hops)) {
        return Err(OpenError::Hops { hops });
    }
    let flow = FlowId::random(&mut crate::net::entropy::seeded_rng());
    let (reply, opened) = oneshot::channel();
    let to = Endpoint::destination(name, hops);
    endpoint.command(Command::Open { flow, to, reply }).await?;
    let (raw, target) = opened.await.map_err(|_| OpenError::Closed)??;
    let config = tls::flow_client(&endpoint.0.coordinator.membership()).map_err(|_| FlowError::Handshake)?;
    let (ending, server, kept) = (raw.ending.clone(), tls::node_name(target), raw.kept);
    let handshake = async {
        let stream = TlsConnector::from(config).connect(server, FlowIo::new(raw)).await?;
        let mut flow =
            Flow { stream: TlsStream::Client(stream), id: flow, peer: target, ending: ending.clone() };
        let mut preface = Vec::new();
        codec::write_frame(&Preface { name: name.to_owned(), kind }, &mut preface);
        flow.write_all(&preface).await?;
        flow.flush().await?;
        Ok::<_, io::Error>(flow)
    };
    secured(handshake, &ending).await.map_err(|error| {
        let leads_nowhere = matches!(error, FlowError::NoPath | FlowError::Lost | FlowError::Unknown);
        if kept && leads_nowhere { OpenError::Outdated(error) } else { error.into() }
    })
}

/// The target's side of [`open`].
pub(super) async fn accept(raw: Raw, acceptor: TlsAcceptor) -> Result<(Flow, Preface), FlowError> {
    let (id, ending) = (raw.flow.flow, raw.ending.clone());
    let handshake = async {
        let stream = acceptor.accept(FlowIo::new(raw)).await?;
        let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let peer = tls::peer_node_id(certificates).ok_or(io::ErrorKind::InvalidData)?;
        let mut flow = Flow { stream: TlsStream::Server(stream), id, peer, ending: ending.clone() };
        let mut prefix = [0; codec::PREFIX_BYTES];
        flow.read_exact(&mut prefix).await?;
        let length = codec::frame_length(prefix, MAX_PREFACE_BYTES).map_err(io::Error::other)?;
        let mut bytes = vec![0; length];
        flow.read_exact(&mut bytes).await?;
        let preface = codec::from_bytes(&bytes).map_err(io::Error::other)?;
        Ok::<_, io::Error>((flow, preface))
    };
    secured(handshake, &ending).await
}

/// Runs a handshake; if it fails because the flow did, says how the flow ended.
async fn secured<T>(
    handshake: impl Future<Output = io::Result<T>>,
    ending: &watch::Receiver<Option<CloseCode>>,
) -> Result<T, FlowError> {
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => {
            tracing::debug!(%error, "no secure channel");
            let code = *ending.borrow();
            Err(code.map_or(FlowError::Handshake, FlowError::of))
        }
        Err(_) => Err(FlowError::NoPath),
    }
}

/// What goes from the application to the node.
#[derive(Debug)]
pub(super) enum ToNode {
    Data(Bytes),
    Finish,
}

/// The bytes of a flow between the application and the node's thread: two bounded channels.
#[derive(Debug)]
pub(super) struct FlowIo {
    incoming: mpsc::Receiver<Vec<Bytes>>,
    arrived: VecDeque<Bytes>,
    outgoing: PollSender<ToNode>,
    finished: bool,
    ending: watch::Receiver<Option<CloseCode>>,
}

impl FlowIo {
    fn new(raw: Raw) -> Self {
        let Raw { incoming, outgoing, ending, .. } = raw;
        Self {
            incoming,
            arrived: VecDeque::new(),
            outgoing: PollSender::new(outgoing),
            finished: false,
            ending,
        }
    }

    /// Why the node takes or gives nothing more.
    fn broken(&self) -> io::Error {
        let code = *self.ending.borrow();
        code.map_or(FlowError::Closed, FlowError::of).into()
    }
}

impl AsyncRead for FlowIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.arrived.is_empty() {
            // A handover of nothing is the end that the peer declared; a closed channel without it is a broken flow.
            match ready!(self.incoming.poll_recv(cx)) {
                Some(chunks) if chunks.is_empty() => {
                    self.incoming.close();
                    return Poll::Ready(Ok(()));
                }
                Some(chunks) => self.arrived = chunks.into(),
                None => return Poll::Ready(Err(self.broken())),
            }
        }
        while let Some(mut chunk) = self.arrived.pop_front() {
            let count = chunk.len().min(buf.remaining());
            buf.put_slice(&chunk.split_to(count));
            if !chunk.is_empty() {
                self.arrived.push_front(chunk);
                break;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for FlowIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if ready!(self.outgoing.poll_reserve(cx)).is_err() {
            return Poll::Ready(Err(self.broken()));
        }
        let bytes = bufs.iter().map(|buf| &**buf).collect::<Vec<_>>().concat();
        let count = bytes.len();
        let sent = self.outgoing.send_item(ToNode::Data(bytes.into()));
        Poll::Ready(if sent.is_ok() { Ok(count) } else { Err(self.broken()) })
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.finished {
            if ready!(self.outgoing.poll_reserve(cx)).is_err() {
                return Poll::Ready(Err(self.broken()));
            }
            let _ = self.outgoing.send_item(ToNode::Finish);
            self.finished = true;
        }
        Poll::Ready(Ok(()))
    }
}
