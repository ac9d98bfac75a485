//! A flow, as an application sees it: TLS from end to end over the bytes that the node carries.

use super::driver::{Command, Raw};
use super::{Chain, Endpoint, OpenError};
use crate::net::clock::Clock;
use crate::net::tls::{self, OutOfTime};
use bytes::Bytes;
use hopline_proto::cause;
use hopline_proto::codec;
use hopline_proto::crypto::Key;
use hopline_proto::epoch::MAX_HOPS;
use hopline_proto::frame::CloseCode;
use hopline_proto::id::{FlowId, NodeId};
use rustls::AlertDescription;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use tokio_util::sync::PollSender;

/// How long the two ends may take to agree on TLS.
pub(super) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the other end may take to hear why there is no secure channel with it.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// By which one end says that it does not take the other's certificate, beside the one that is about its time.
const CERTIFICATE_ALERTS: [AlertDescription; 7] = [
    AlertDescription::BadCertificate,
    AlertDescription::UnsupportedCertificate,
    AlertDescription::CertificateRevoked,
    AlertDescription::CertificateUnknown,
    AlertDescription::UnknownCA,
    AlertDescription::AccessDenied,
    AlertDescription::DecryptError,
];
/// Largest [`Preface`], in bytes.
const MAX_PREFACE_BYTES: usize = 256;

/// What both ends take from their TLS session, to tell each other why they give a flow up (RFC 8446, section 7.5).
const EXPORTER_LABEL: &[u8] = b"EXPORTER-hopline cause";
/// Why a flow ends that is dropped before its time.
pub(super) const DROPPED: &str = "its application dropped the flow before the end";

/// Why a flow broke.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FlowError {
    /// No chain led to the target for as long as the endpoint was willing to try.
    #[error("no path to the target within the time allowed")]
    NoPath,
    /// No chain led to the target, as a relay or this node was not trusted for what a clock says.
    #[error("no path to the target: {cause}")]
    OutOfTime {
        /// Who does not trust whom, and the times.
        cause: Arc<str>,
    },
    /// The other end does not trust this one.
    #[error("the other end does not accept this node's certificate: {cause}")]
    Untrusted {
        /// Why, as far as it says so.
        cause: Arc<str>,
    },
    /// The other end gave the flow up.
    #[error("the other end gave the flow up: {cause}")]
    Aborted {
        /// Why, in its own words; relays could neither read nor make them.
        cause: Arc<str>,
    },
    /// This end gave the flow up.
    #[error("the flow was given up here: {cause}")]
    GivenUp {
        /// Why, as this end said it.
        cause: Arc<str>,
    },
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
    /// The error of a flow that is in one of its reads or writes.
    pub(super) fn of(error: &io::Error) -> Option<Self> {
        error.get_ref()?.downcast_ref().cloned()
    }

    /// What it means that the other end answered with this alert (RFC 8446, 6.2).
    fn of_alert(alert: AlertDescription) -> Option<Self> {
        let cause = if alert == AlertDescription::CertificateExpired {
            let now = Clock::wall().shown();
            format!("by its clock it has ended, or has not begun, and this machine's clock says {now}")
        } else if CERTIFICATE_ALERTS.contains(&alert) {
            "it holds it to be of another network, or damaged".to_owned()
        } else {
            return None;
        };
        Some(Self::Untrusted { cause: cause.into() })
    }

    /// The same error of a flow, in the flow's terms if the other end refused its certificate.
    fn of_stream(error: io::Error) -> io::Error {
        match error.get_ref().and_then(|error| error.downcast_ref()) {
            Some(rustls::Error::AlertReceived(alert)) => Self::of_alert(*alert).map_or(error, Self::into),
            Some(_) | None => error,
        }
    }
}

/// How a flow ended, as the node knows it.
#[derive(Clone, Debug)]
pub(super) enum Ending {
    /// Everything arrived and was taken, both ways.
    Done,
    /// It did not come to that.
    Broken(FlowError),
    /// The application here gave it up.
    Here(Arc<str>),
}

impl Ending {
    /// What the end of a flow with `code` means here.
    pub(super) fn of(code: CloseCode, cause: Option<String>) -> Self {
        Self::Broken(match code {
            CloseCode::Done => return Self::Done,
            CloseCode::NoPath | CloseCode::Overloaded | CloseCode::Forbidden | CloseCode::Malformed => {
                FlowError::NoPath
            }
            CloseCode::Aborted => {
                FlowError::Aborted { cause: cause.map_or("it did not say why".into(), Arc::from) }
            }
            CloseCode::Unknown => FlowError::Unknown,
            CloseCode::Lost | CloseCode::Moved | CloseCode::Stale | CloseCode::Replaced => FlowError::Lost,
        })
    }

    /// The same, if there is no path and certificates are known to be why.
    pub(super) fn explained(self, doubt: Option<Arc<str>>) -> Self {
        match (self, doubt) {
            (Self::Broken(FlowError::NoPath | FlowError::Lost), Some(cause)) => {
                Self::Broken(FlowError::OutOfTime { cause })
            }
            (ending, _) => ending,
        }
    }

    /// What it means to whoever still reads or writes.
    fn error(self) -> FlowError {
        match self {
            Self::Done => FlowError::Closed,
            Self::Broken(error) => error,
            Self::Here(cause) => FlowError::GivenUp { cause },
        }
    }
}

/// How far all that the application sent, up to its end, has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reached {
    /// There is more to come, or it is on its way.
    Nothing,
    /// It is at the other end.
    Arrived,
    /// The application there said that it took it.
    Taken,
}

type Endings = watch::Receiver<Option<Ending>>;

/// How a flow ended, if it has.
fn present(endings: &Endings) -> FlowError {
    let ending = endings.borrow().clone();
    ending.map_or(FlowError::Closed, Ending::error)
}

/// Resolves once a flow is over.
async fn over(mut endings: Endings) -> Result<(), FlowError> {
    let ending = endings.wait_for(Option::is_some).await.map_err(|_| FlowError::Closed)?.clone();
    match ending {
        Some(Ending::Done) => Ok(()),
        Some(ending) => Err(ending.error()),
        None => Err(FlowError::Closed),
    }
}

impl From<FlowError> for io::Error {
    fn from(error: FlowError) -> Self {
        let kind = match error {
            FlowError::NoPath | FlowError::OutOfTime { .. } | FlowError::Handshake => {
                io::ErrorKind::HostUnreachable
            }
            FlowError::Untrusted { .. } => io::ErrorKind::PermissionDenied,
            FlowError::Aborted { .. } | FlowError::Unknown | FlowError::Lost => {
                io::ErrorKind::ConnectionReset
            }
            FlowError::GivenUp { .. } => io::ErrorKind::ConnectionAborted,
            FlowError::Closed => io::ErrorKind::NotConnected,
        };
        Self::new(kind, error)
    }
}

/// What a flow is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
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

/// An ordered duplex byte stream between two endpoints, encrypted from end to end.
///
/// It reads and writes like any stream; [`AsyncWriteExt::shutdown`] ends the direction toward the peer and leaves the
/// other open.
///
/// A flow is done once both ends said that they *took everything*: by [`Flow::finished`], or by dropping it after it was read to
/// its end and shut down for writing. Whoever could not do what it wanted with the bytes says so before that, by
/// [`Flow::abort`], and the other end fails with that cause. Dropping a flow at any other time aborts it, too.
#[derive(Debug)]
pub struct Flow {
    stream: TlsStream<FlowIo>,
    id: FlowId,
    peer: NodeId,
    chain: watch::Receiver<Chain>,
}

/// Gives a flow up, and tells how far it is, while others read and write it.
#[derive(Clone, Debug)]
pub struct Aborter {
    words: mpsc::Sender<Word>,
    endings: Endings,
    reached: watch::Receiver<Reached>,
}

impl Aborter {
    /// As [`Flow::abort`]; does nothing if the flow is over.
    pub fn abort(&self, cause: impl Into<String>) {
        let cause: String = cause.into();
        let _ = self.words.try_send(Word::Abort(cause::bounded(&cause).into()));
    }

    /// Resolves once the flow is over, whoever reads or writes it then, and in whichever state of half-close.
    ///
    /// # Errors
    /// [`FlowError`] if not everything arrived and was taken.
    pub async fn ended(&self) -> Result<(), FlowError> {
        over(self.endings.clone()).await
    }

    /// Says that this end took everything that came, for whoever has more to send when it has read the end.
    pub fn taken(&self) {
        let _ = self.words.try_send(Word::Taken);
    }

    /// Resolves once everything that was sent, up to the end, has arrived; or the flow is over.
    pub async fn arrived(&self) {
        let _ = self.reached.clone().wait_for(|reached| *reached != Reached::Nothing).await;
    }

    /// Resolves once the application at the other end has said that it took everything that was sent, up to the end.
    pub(super) async fn all_taken(&self) -> Result<(), FlowError> {
        let is_taken = self.reached.clone().wait_for(|reached| *reached == Reached::Taken).await.is_ok();
        if is_taken { Ok(()) } else { self.ended().await }
    }

    /// The flow's error of which this is a consequence.
    pub(super) async fn explain(&self, error: &io::Error) -> FlowError {
        match FlowError::of(error) {
            Some(error) => error,
            None => self.ended().await.err().unwrap_or(FlowError::Closed),
        }
    }

    /// Whether the application at the other end has said that it took everything that was sent.
    #[must_use]
    pub fn is_taken(&self) -> bool {
        *self.reached.borrow() == Reached::Taken
    }
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

    /// The relays that carry the flow at present, and how safe each hop is.
    ///
    /// `borrow()` is the present chain; `changed().await` resolves with the next change, and fails once the flow is over.
    /// The receiver may outlive the flow. At a target the chain is empty and never changes: only the origin knows it.
    #[must_use]
    pub fn watch_chain(&self) -> watch::Receiver<Chain> {
        self.chain.clone()
    }

    /// Says that this end has nothing more to send, and took everything that came; resolves once the other end has said so,
    /// too. What was not read is dropped.
    ///
    /// # Errors
    /// [`FlowError`] if that will never be so.
    pub async fn finished(mut self) -> Result<(), FlowError> {
        let endings = self.io().endings.clone();
        if self.take_all().await.is_ok() {
            let _ = self.io().words.try_send(Word::Taken);
        }
        over(endings).await
    }

    /// Gives the flow up, both ways at once: the other end's reads, writes and [`Flow::finished`] fail with `cause`, of which
    /// at most 256 bytes go there. Relays can't read it.
    pub fn abort(self, cause: impl Into<String>) {
        self.aborter().abort(cause);
    }

    /// A handle to give the flow up, or to learn that it is over, while it is split for reading and writing.
    #[must_use]
    pub fn aborter(&self) -> Aborter {
        let io = self.stream.get_ref().0;
        Aborter { words: io.words.clone(), endings: io.endings.clone(), reached: io.reached.clone() }
    }

    fn io(&mut self) -> &mut FlowIo {
        self.stream.get_mut().0
    }

    /// Ends this direction and goes to the end of the other.
    async fn take_all(&mut self) -> io::Result<()> {
        self.shutdown().await?;
        if !self.io().read_to_end {
            tokio::io::copy(self, &mut tokio::io::sink()).await?;
        }
        Ok(())
    }

    /// Both ends agree on by what to tell each other why they give the flow up.
    fn share_key(&mut self) -> io::Result<()> {
        let (id, key) = (self.id, [0; 32]);
        let key = match &self.stream {
            TlsStream::Client(stream) => {
                stream.get_ref().1.export_keying_material(key, EXPORTER_LABEL, Some(id.as_bytes()))
            }
            TlsStream::Server(stream) => {
                stream.get_ref().1.export_keying_material(key, EXPORTER_LABEL, Some(id.as_bytes()))
            }
        };
        let key = Key::from_bytes(key.map_err(io::Error::other)?);
        let _ = self.io().words.try_send(Word::Key(key));
        Ok(())
    }
}

impl AsyncRead for Flow {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let (before, room) = (buf.filled().len(), buf.remaining() > 0);
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, buf).map_err(FlowError::of_stream));
        if read.is_ok() && room && buf.filled().len() == before {
            self.io().read_to_end = true;
        }
        Poll::Ready(read)
    }
}

impl AsyncWrite for Flow {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf).map_err(FlowError::of_stream)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx).map_err(FlowError::of_stream)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx).map_err(FlowError::of_stream)
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
    let chain = raw.chain.clone();
    let handshake = async {
        let stream = TlsConnector::from(config).connect(server, FlowIo::new(raw)).await?;
        let mut flow = Flow { stream: TlsStream::Client(stream), id: flow, peer: target, chain };
        flow.share_key()?;
        let mut preface = Vec::new();
        codec::write_frame(&Preface { name: name.to_owned(), kind }, &mut preface);
        flow.write_all(&preface).await?;
        flow.flush().await?;
        Ok::<_, io::Error>(flow)
    };
    secured(handshake, &ending).await.map_err(|error| {
        let leads_nowhere = matches!(
            error,
            FlowError::NoPath | FlowError::OutOfTime { .. } | FlowError::Lost | FlowError::Unknown
        );
        if kept && leads_nowhere { OpenError::Outdated(error) } else { error.into() }
    })
}

/// The target's side of [`open`].
pub(super) async fn accept(raw: Raw, acceptor: TlsAcceptor) -> Result<(Flow, Preface), FlowError> {
    let (id, ending, chain) = (raw.flow.flow, raw.ending.clone(), raw.chain.clone());
    let handshake = async {
        let stream = match acceptor.accept(FlowIo::new(raw)).into_fallible().await {
            Ok(stream) => stream,
            Err((error, io)) => {
                io.part().await;
                return Err(error);
            }
        };
        let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let peer = tls::peer_node_id(certificates).ok_or(io::ErrorKind::InvalidData)?;
        let mut flow = Flow { stream: TlsStream::Server(stream), id, peer, chain };
        flow.share_key()?;
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
    endings: &Endings,
) -> Result<T, FlowError> {
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => {
            let tls = error.get_ref().and_then(|error| error.downcast_ref());
            match tls.and_then(OutOfTime::of_tls) {
                Some(out) => {
                    tracing::warn!("no secure channel to the other end: {out}; set the clock that is wrong")
                }
                None => tracing::debug!(%error, "no secure channel"),
            }
            let ending = endings.borrow().clone();
            Err(ending.map_or(FlowError::Handshake, Ending::error))
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

/// What an application says of a flow, beside its bytes.
#[derive(Debug)]
pub(super) enum Word {
    /// Both ends have this.
    Key(Key),
    /// Everything that came was taken.
    Taken,
    /// It gives the flow up.
    Abort(Arc<str>),
}

/// The bytes of a flow between the application and the node's thread: two bounded channels.
#[derive(Debug)]
pub(super) struct FlowIo {
    incoming: mpsc::Receiver<Vec<Bytes>>,
    arrived: VecDeque<Bytes>,
    outgoing: PollSender<ToNode>,
    finished: bool,
    /// Whether the application has seen the end of what comes.
    read_to_end: bool,
    words: mpsc::Sender<Word>,
    endings: Endings,
    reached: watch::Receiver<Reached>,
}

impl FlowIo {
    fn new(raw: Raw) -> Self {
        let Raw { incoming, outgoing, ending: endings, words, reached, .. } = raw;
        let (arrived, outgoing) = (VecDeque::new(), PollSender::new(outgoing));
        Self { incoming, arrived, outgoing, finished: false, read_to_end: false, words, endings, reached }
    }

    /// Drops the flow once the other end has given it up too, or after a while. A flow that is given up carries no more bytes,
    /// so the alert that says why there is no secure channel would else be lost.
    async fn part(mut self) {
        let mut endings = self.endings.clone();
        let parted = async {
            if self.shutdown().await.is_ok() {
                let _ = endings.wait_for(Option::is_some).await;
            }
        };
        let _ = tokio::time::timeout(LAST_WORDS, parted).await;
    }

    /// Why the node takes or gives nothing more.
    fn broken(&self) -> io::Error {
        present(&self.endings).into()
    }
}

impl Drop for FlowIo {
    fn drop(&mut self) {
        let is_taken = self.read_to_end && self.finished;
        let _ = self.words.try_send(if is_taken { Word::Taken } else { Word::Abort(DROPPED.into()) });
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_told_as_the_cause_of_no_path_alone() {
        let doubt = || Some(Arc::from("a clock is wrong"));
        let error = |code, doubt| Ending::of(code, None).explained(doubt).error().to_string();
        let told = "no path to the target: a clock is wrong";
        assert_eq!([CloseCode::NoPath, CloseCode::Lost].map(|code| error(code, doubt())), [told, told]);
        assert_eq!(error(CloseCode::NoPath, None), FlowError::NoPath.to_string());
        assert_eq!(error(CloseCode::Unknown, doubt()), FlowError::Unknown.to_string());
    }

    #[test]
    fn alerts_about_certificates_are_the_flows_error() {
        let read =
            |error: rustls::Error| FlowError::of_stream(io::Error::new(io::ErrorKind::InvalidData, error));
        let heard = |alert| FlowError::of(&read(rustls::Error::AlertReceived(alert)));
        let cases = [
            (AlertDescription::CertificateExpired, Some("this machine's clock says")),
            (AlertDescription::BadCertificate, Some("of another network")),
            (AlertDescription::InternalError, None),
        ];
        for (alert, expected) in cases {
            let said = heard(alert).map(|error| error.to_string());
            assert_eq!(said.is_some(), expected.is_some(), "{alert:?}: {said:?}");
            assert!(expected.is_none_or(|part| said.unwrap().contains(part)), "{alert:?}");
        }
        assert_eq!(FlowError::of(&read(rustls::Error::DecryptError)), None);
    }
}
