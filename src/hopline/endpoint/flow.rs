//! A flow, as an application sees it: TLS from end to end over the bytes that the node carries.

use super::bare;
use super::flow_error::{Ending, Endings, FlowError, over};
use super::flow_io::{FlowEnd, FlowIo, Reached, Word};
use super::session::{Session, SessionIo, pool};
use super::{Chain, Endpoint, OpenError, Plane};
use crate::net::tls::{self, OutOfTime};
use crate::net::version;
use futures_util::future::BoxFuture;
use hopline_proto::cause;
use hopline_proto::codec;
use hopline_proto::crypto::Key;
use hopline_proto::epoch::MAX_HOPS;
use hopline_proto::id::{FlowId, NodeId};
use hopline_proto::version::Versions;
use serde::{Deserialize, Serialize};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::{mpsc, watch};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

/// How long the two ends may take to agree on TLS.
pub(super) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);
/// Largest [`Preface`], in bytes.
const MAX_PREFACE_BYTES: usize = 256;

/// What both ends take from their TLS session, to tell each other why they give a flow up (RFC 8446, section 7.5).
const EXPORTER_LABEL: &[u8] = b"EXPORTER-hopline cause";

/// What a flow is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(super) enum Kind {
    /// Bytes for the application.
    Stream,
    /// Length-delimited messages one way, receipts the other.
    Messages,
    /// No bytes: the session's datagrams with the number of its stream are its own.
    Datagrams,
    /// Something that only newer origins want.
    #[serde(other)]
    Unknown,
}

impl Kind {
    /// What comes with such flows.
    pub(super) const fn plural(self) -> &'static str {
        match self {
            Self::Stream => "flows",
            Self::Messages => "messages",
            Self::Datagrams => "datagrams",
            Self::Unknown => "what this version does not know",
        }
    }
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
/// It reads and writes like any stream; [`AsyncWriteExt::shutdown`] ends the direction towards the peer and leaves the
/// other open.
///
/// A flow is done once both ends said that they *took everything*: by [`Flow::finished`], or by dropping it after it was read to
/// its end and shut down for writing. Whoever could not do what it wanted with the bytes says so before that, by
/// [`Flow::abort`], and the other end fails with that cause. Dropping a flow at any other time aborts it, too.
#[derive(Debug)]
pub struct Flow {
    stream: Carried,
    id: FlowId,
    peer: NodeId,
    chain: watch::Receiver<Chain>,
}

/// How a flow's bytes travel.
#[derive(Debug)]
enum Carried {
    /// Over lanes, with TLS of its own.
    Stored(Box<TlsStream<FlowIo>>),
    /// As a stream of a session.
    Session(Box<SessionIo>),
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
    pub fn ended(&self) -> BoxFuture<'_, Result<(), FlowError>> {
        Box::pin(over(self.endings.clone()))
    }

    /// Says that this end took everything that came, for whoever has more to send when it has read the end.
    pub fn taken(&self) {
        let _ = self.words.try_send(Word::Taken);
    }

    /// Resolves once everything that was sent, up to the end, has arrived; or the flow is over.
    pub fn arrived(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let _ = self.reached.clone().wait_for(|reached| *reached != Reached::Nothing).await;
        })
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
    pub fn finished(mut self) -> BoxFuture<'static, Result<(), FlowError>> {
        Box::pin(async move {
            let endings = self.end().endings.clone();
            if self.take_all().await.is_ok() {
                let _ = self.end().words.try_send(Word::Taken);
            }
            over(endings).await
        })
    }

    /// Gives the flow up, both ways at once: the other end's reads, writes and [`Flow::finished`] fail with `cause`, of which
    /// at most 256 bytes go there. Relays can't read it.
    pub fn abort(self, cause: impl Into<String>) {
        self.aborter().abort(cause);
    }

    /// A handle to give the flow up, or to learn that it is over, while it is split for reading and writing.
    #[must_use]
    pub fn aborter(&self) -> Aborter {
        let end = self.end();
        Aborter { words: end.words.clone(), endings: end.endings.clone(), reached: end.reached.clone() }
    }

    fn end(&self) -> &FlowEnd {
        match &self.stream {
            Carried::Stored(stream) => &stream.get_ref().0.end,
            Carried::Session(stream) => &stream.end,
        }
    }

    fn end_mut(&mut self) -> &mut FlowEnd {
        match &mut self.stream {
            Carried::Stored(stream) => &mut stream.get_mut().0.end,
            Carried::Session(stream) => &mut stream.end,
        }
    }

    /// Ends this direction and goes to the end of the other.
    async fn take_all(&mut self) -> io::Result<()> {
        self.shutdown().await?;
        if !self.end().read_to_end {
            tokio::io::copy(self, &mut tokio::io::sink()).await?;
        }
        Ok(())
    }
}

/// Both ends agree on by what to tell each other why they give the flow up.
fn share_key(stream: &TlsStream<FlowIo>, id: FlowId) -> io::Result<()> {
    let key = [0; 32];
    let key = match stream {
        TlsStream::Client(stream) => {
            stream.get_ref().1.export_keying_material(key, EXPORTER_LABEL, Some(id.as_bytes()))
        }
        TlsStream::Server(stream) => {
            stream.get_ref().1.export_keying_material(key, EXPORTER_LABEL, Some(id.as_bytes()))
        }
    };
    let key = Key::from_bytes(key.map_err(io::Error::other)?);
    let _ = stream.get_ref().0.end.words.try_send(Word::Key(key));
    Ok(())
}

impl AsyncRead for Flow {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let (before, room) = (buf.filled().len(), buf.remaining() > 0);
        let read = ready!(match &mut self.stream {
            Carried::Stored(stream) => Pin::new(stream).poll_read(cx, buf).map_err(FlowError::of_stream),
            Carried::Session(stream) => Pin::new(stream).poll_read(cx, buf),
        });
        if read.is_ok() && room && buf.filled().len() == before {
            self.end_mut().read_to_end = true;
        }
        Poll::Ready(read)
    }
}

impl AsyncWrite for Flow {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Carried::Stored(stream) => Pin::new(stream).poll_write(cx, buf).map_err(FlowError::of_stream),
            Carried::Session(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Carried::Stored(stream) => Pin::new(stream).poll_flush(cx).map_err(FlowError::of_stream),
            Carried::Session(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Carried::Stored(stream) => Pin::new(stream).poll_shutdown(cx).map_err(FlowError::of_stream),
            Carried::Session(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

impl Flow {
    /// A flow whose two ends have just agreed on TLS.
    fn stored(
        stream: TlsStream<FlowIo>,
        id: FlowId,
        peer: NodeId,
        chain: watch::Receiver<Chain>,
    ) -> io::Result<Self> {
        share_key(&stream, id)?;
        Ok(Self { stream: Carried::Stored(Box::new(stream)), id, peer, chain })
    }

    /// A flow over a session.
    fn of_session(session: &Session, stream: SessionIo) -> Self {
        let (id, peer, chain) = (session.carrier(), session.peer(), session.chain());
        Self { stream: Carried::Session(Box::new(stream)), id, peer, chain }
    }

    /// Why it is over, if it is.
    pub(super) fn error(&self) -> Option<FlowError> {
        self.end().endings.borrow().clone().map(Ending::error)
    }

    /// The session that it rides on, and what tells its stream from others there.
    pub(super) fn session(&self) -> Option<(&Session, u32)> {
        match &self.stream {
            Carried::Stored(_) => None,
            Carried::Session(stream) => Some((&stream.session, stream.number())),
        }
    }

    /// Says what it is for.
    async fn say(&mut self, name: &str, kind: Kind) -> io::Result<()> {
        let mut preface = Vec::new();
        codec::write_frame(&Preface { name: name.to_owned(), kind }, &mut preface);
        self.write_all(&preface).await?;
        self.flush().await
    }

    /// Hears what it is for.
    async fn hear(&mut self) -> io::Result<Preface> {
        let mut prefix = [0; codec::PREFIX_BYTES];
        self.read_exact(&mut prefix).await?;
        let length = codec::frame_length(prefix, MAX_PREFACE_BYTES).map_err(io::Error::other)?;
        let mut bytes = vec![0; length];
        self.read_exact(&mut bytes).await?;
        codec::from_bytes(&bytes).map_err(io::Error::other)
    }

    /// The flow, if its ends have a version in common. Otherwise it is given up, and each end knows what the other speaks.
    async fn agree(mut self) -> io::Result<Self> {
        let has_version = match &self.stream {
            Carried::Stored(stream) => stream.get_ref().1.alpn_protocol().is_some_and(Versions::is_version),
            // Its ends have settled that before.
            Carried::Session(_) => true,
        };
        if has_version {
            return Ok(self);
        }
        let mismatch = version::exchange(&mut self, Versions::OURS).await?;
        // The other end reads it as its own.
        self.abort(mismatch.reversed().told("the other end"));
        Err(io::Error::other(mismatch))
    }
}

/// Opens a flow of a kind: route, attach, TLS with the very node that the route names, preface.
pub(super) async fn open(endpoint: &Endpoint, name: &str, hops: u8, kind: Kind) -> Result<Flow, OpenError> {
    if !(1..=MAX_HOPS).contains(&usize::from(hops)) {
        return Err(OpenError::Hops { hops });
    }
    if endpoint.0.plane == Plane::Session || kind == Kind::Datagrams {
        return open_over_session(endpoint, name, hops, kind).await;
    }
    let (raw, target) = bare::open(&endpoint.0.commands, name, hops, None).await?;
    let flow = raw.flow.flow;
    let config =
        tls::flow_client(&endpoint.0.bootstrap_client.membership()).map_err(|_| FlowError::Handshake)?;
    let (ending, server, kept) = (raw.ending.clone(), tls::node_name(target), raw.kept);
    let chain = raw.chain.clone();
    let handshake = async {
        let stream = TlsConnector::from(config).connect(server, FlowIo::new(raw)).await?;
        let mut flow = Flow::stored(stream.into(), flow, target, chain)?.agree().await?;
        flow.say(name, kind).await?;
        Ok::<_, io::Error>(flow)
    };
    secured(handshake, &ending).await.map_err(|error| OpenError::over(kept, error))
}

async fn open_over_session(endpoint: &Endpoint, name: &str, hops: u8, kind: Kind) -> Result<Flow, OpenError> {
    let (session, stream) = loop {
        let session = pool::session(endpoint, name, hops).await?;
        match session.open().await {
            Ok(stream) => break (session, stream),
            // It ended in the meantime, perhaps for being idle.
            Err(FlowError::Closed) if session.is_over() => {}
            Err(error) => return Err(error.into()),
        }
    };
    let mut flow = Flow::of_session(&session, stream);
    if let Err(error) = flow.say(name, kind).await {
        return Err(flow.aborter().explain(&error).await.into());
    }
    Ok(flow)
}

/// A flow that the other end opened over a session.
pub(super) async fn accept_over_session(
    session: &Session,
    stream: SessionIo,
) -> Result<(Flow, Preface), FlowError> {
    let mut flow = Flow::of_session(session, stream);
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, flow.hear()).await {
        Ok(Ok(preface)) => {
            // Before anybody accepts it: they are on their way.
            if let (Kind::Datagrams, Carried::Session(stream)) = (preface.kind, &flow.stream) {
                stream.open_port();
            }
            Ok((flow, preface))
        }
        Ok(Err(error)) => Err(flow.aborter().explain(&error).await),
        Err(_) => Err(FlowError::Lost),
    }
}

/// The target's side of [`open`].
pub(super) async fn accept(
    io: FlowIo,
    (id, chain): (FlowId, watch::Receiver<Chain>),
    acceptor: TlsAcceptor,
) -> Result<(Flow, Preface), FlowError> {
    let ending = io.end.endings.clone();
    let handshake = async {
        let stream = match acceptor.accept(io).into_fallible().await {
            Ok(stream) => stream,
            Err((error, io)) => {
                io.part().await;
                return Err(error);
            }
        };
        let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let peer = tls::peer_node_id(certificates).ok_or(io::ErrorKind::InvalidData)?;
        let mut flow = Flow::stored(stream.into(), id, peer, chain)?.agree().await?;
        let preface = flow.hear().await?;
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
            let mismatch = error.get_ref().and_then(|error| error.downcast_ref());
            if let Some(mismatch) = mismatch.copied() {
                let error = FlowError::Version(mismatch);
                tracing::warn!("no secure channel to the other end: {error}");
                return Err(error);
            }
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
