//! The bytes of a flow between its application and the node's thread.

use super::chain::Chain;
use super::flow_error::{DROPPED, Endings, present};
use super::session::carriers::{CANARY, Carries};
use bytes::{Buf, Bytes};
use hopline_proto::crypto::Key;
use hopline_proto::flows::FlowKey;
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::PollSender;

/// How long the other end may take to hear why there is no secure channel with it.
const LAST_WORDS: Duration = Duration::from_secs(2);
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

/// A flow's bytes and its end, before TLS.
#[derive(Debug)]
pub(super) struct Raw {
    pub(super) flow: FlowKey,
    pub(super) incoming: mpsc::Receiver<Vec<Bytes>>,
    pub(super) outgoing: mpsc::Sender<ToNode>,
    pub(super) ending: Endings,
    pub(super) words: mpsc::Sender<Word>,
    pub(super) reached: watch::Receiver<Reached>,
    /// At a target it stays empty.
    pub(super) chain: watch::Receiver<Chain>,
    /// Whether an origin opened it over a route from before.
    pub(super) kept: bool,
    /// At a target: what it turns out to carry, if that is no bytes of its own.
    pub(super) carries: oneshot::Receiver<Carries>,
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
    pub(super) end: FlowEnd,
}

/// An application's end of a flow, whichever way its bytes go.
#[derive(Debug)]
pub(super) struct FlowEnd {
    /// Whether the application has said that it sends no more.
    pub(super) finished: bool,
    /// Whether it has seen the end of what comes.
    pub(super) read_to_end: bool,
    pub(super) words: mpsc::Sender<Word>,
    pub(super) endings: Endings,
    pub(super) reached: watch::Receiver<Reached>,
}

impl FlowEnd {
    pub(super) const fn new(
        words: mpsc::Sender<Word>,
        endings: Endings,
        reached: watch::Receiver<Reached>,
    ) -> Self {
        Self { finished: false, read_to_end: false, words, endings, reached }
    }
}

impl Drop for FlowEnd {
    fn drop(&mut self) {
        let is_taken = self.read_to_end && self.finished;
        let _ = self.words.try_send(if is_taken { Word::Taken } else { Word::Abort(DROPPED.into()) });
    }
}

impl FlowIo {
    pub(super) fn new(raw: Raw) -> Self {
        let Raw { incoming, outgoing, ending, words, reached, .. } = raw;
        let end = FlowEnd::new(words, ending, reached);
        Self { incoming, arrived: VecDeque::new(), outgoing: PollSender::new(outgoing), end }
    }

    /// Drops the flow once the other end has given it up too, or after a while. A flow that is given up carries no more bytes,
    /// so the alert that says why there is no secure channel would else be lost.
    pub(super) async fn part(mut self) {
        let mut endings = self.end.endings.clone();
        let parted = async {
            if self.shutdown().await.is_ok() {
                let _ = endings.wait_for(Option::is_some).await;
            }
        };
        let _ = tokio::time::timeout(LAST_WORDS, parted).await;
    }

    /// Resolves once there is something to read, if only that there will never be; skips [`CANARY`]s, as whoever tries a chain may do so
    /// before it is known here what the flow carries.
    pub(super) async fn readable(&mut self) {
        loop {
            while let Some(front) = self.arrived.front_mut() {
                let canaries = front.iter().take_while(|byte| **byte == CANARY).count();
                front.advance(canaries);
                if !front.is_empty() {
                    return;
                }
                self.arrived.pop_front();
            }
            match self.incoming.recv().await {
                Some(chunks) if !chunks.is_empty() => self.arrived = chunks.into(),
                Some(_) | None => return,
            }
        }
    }

    /// Why the node takes or gives nothing more.
    fn broken(&self) -> io::Error {
        present(&self.end.endings).into()
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
        if !self.end.finished {
            if ready!(self.outgoing.poll_reserve(cx)).is_err() {
                return Poll::Ready(Err(self.broken()));
            }
            let _ = self.outgoing.send_item(ToNode::Finish);
            self.end.finished = true;
        }
        Poll::Ready(Ok(()))
    }
}
