//! The two directions of a flow, each owned by whoever uses it.

use super::flow::{Aborter, Flow};
use super::flow_error::{DROPPED, FlowError};
use futures_util::future::BoxFuture;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf, ReadHalf, WriteHalf};

/// The direction of a flow towards the peer; from [`Flow::split`].
///
/// End it with [`SendStream::finish`], which waits for the peer, or with [`AsyncWriteExt::shutdown`], which does not. To drop it
/// before that aborts the flow, both ways.
#[derive(Debug)]
pub struct SendStream {
    writer: WriteHalf<Flow>,
    flow: Aborter,
    /// Whether its end has been said.
    has_ended: bool,
    /// Whether the other half has said that it took everything.
    has_taken: Arc<AtomicBool>,
}

/// The direction of a flow from the peer; from [`Flow::split`].
///
/// Read it to its end, and drop it once you are done with what came: that tells the peer that everything was taken. To drop it
/// before the end aborts the flow, both ways.
#[derive(Debug)]
pub struct RecvStream {
    reader: ReadHalf<Flow>,
    flow: Aborter,
    /// Whether its end has been read.
    has_ended: bool,
    has_taken: Arc<AtomicBool>,
}

impl Flow {
    /// Splits the flow into its two directions, for use by two tasks.
    #[must_use]
    pub fn split(self) -> (SendStream, RecvStream) {
        let flow = self.aborter();
        let (reader, writer) = tokio::io::split(self);
        let has_taken = Arc::<AtomicBool>::default();
        (
            SendStream { writer, flow: flow.clone(), has_ended: false, has_taken: has_taken.clone() },
            RecvStream { reader, flow, has_ended: false, has_taken },
        )
    }
}

impl SendStream {
    /// Ends this direction. Resolves when the application at the other end has taken everything that was sent; if this end has read
    /// the other direction to its end, too, and dropped it, when the other end has heard that as well.
    ///
    /// The peer may take everything only after it has sent its answer. So whoever expects a long answer reads it meanwhile, or first
    /// (after [`AsyncWriteExt::shutdown`]).
    ///
    /// May be dropped at any point, and called again.
    ///
    /// # Errors
    /// [`FlowError`] if the flow ended before that: it is not known then how much of what was sent was taken.
    pub fn finish(&mut self) -> BoxFuture<'_, Result<(), FlowError>> {
        Box::pin(async move {
            if let Err(error) = self.shutdown().await {
                return Err(self.flow.explain(&error).await);
            }
            self.flow.all_taken().await?;
            if self.has_taken.load(Ordering::Acquire) { self.flow.ended().await } else { Ok(()) }
        })
    }

    /// Gives the flow up, both ways at once, as [`Flow::abort`].
    pub fn abort(self, cause: impl Into<String>) {
        self.flow.abort(cause);
    }
}

impl RecvStream {
    /// Gives the flow up, both ways at once, as [`Flow::abort`].
    pub fn abort(self, cause: impl Into<String>) {
        self.flow.abort(cause);
    }
}

impl Drop for SendStream {
    fn drop(&mut self) {
        if !self.has_ended {
            self.flow.abort(DROPPED);
        }
    }
}

impl Drop for RecvStream {
    fn drop(&mut self) {
        if self.has_ended {
            self.has_taken.store(true, Ordering::Release);
            self.flow.taken();
        } else {
            self.flow.abort(DROPPED);
        }
    }
}

impl AsyncWrite for SendStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.writer).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ended = ready!(Pin::new(&mut self.writer).poll_shutdown(cx));
        self.has_ended |= ended.is_ok();
        Poll::Ready(ended)
    }
}

impl AsyncRead for RecvStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let (before, room) = (buf.filled().len(), buf.remaining() > 0);
        let read = ready!(Pin::new(&mut self.reader).poll_read(cx, buf));
        self.has_ended |= read.is_ok() && room && buf.filled().len() == before;
        Poll::Ready(read)
    }
}
