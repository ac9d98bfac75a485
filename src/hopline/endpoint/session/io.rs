//! A flow's bytes as a stream of its session.

use super::super::flow_error::{FlowError, over};
use super::super::flow_io::FlowEnd;
use super::Session;
use crate::net::tasks;
use quinn::{RecvStream, SendStream};
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::timeout;

/// How long after a stream broke the session may take to say why.
const EXPLANATION_TIMEOUT: Duration = Duration::from_secs(2);
/// The code with which the streams of a flow are reset that is given up.
const GIVEN_UP: u32 = 1;

type Ended = Pin<Box<dyn Future<Output = FlowError> + Send + Sync>>;

/// See the module's documentation.
pub(in crate::endpoint) struct SessionIo {
    pub(in crate::endpoint) session: Arc<Session>,
    sender: SendStream,
    receiver: RecvStream,
    pub(in crate::endpoint) end: FlowEnd,
    /// Resolves once the flow is over.
    ended: Ended,
    /// Resolves with why the flow is over, as one of its streams is.
    explained: Option<Ended>,
    /// Called with the receipt of all that was sent.
    arrived: Option<Box<dyn FnOnce() + Send + Sync>>,
}

impl fmt::Debug for SessionIo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionIo").field("stream", &self.sender.id()).finish_non_exhaustive()
    }
}

impl SessionIo {
    pub(super) fn new(
        session: Arc<Session>,
        (sender, receiver): (SendStream, RecvStream),
        end: FlowEnd,
        arrived: impl FnOnce() + Send + Sync + 'static,
    ) -> Self {
        let endings = end.endings.clone();
        let ended = Box::pin(async move { over(endings).await.err().unwrap_or(FlowError::Closed) });
        Self { session, sender, receiver, end, ended, explained: None, arrived: Some(Box::new(arrived)) }
    }

    /// The number of its stream, by which its datagrams are told from others'.
    pub(in crate::endpoint) fn number(&self) -> u32 {
        u32::try_from(self.sender.id().index() & u64::from(u32::MAX)).unwrap_or(0)
    }

    /// Takes in datagrams from now on, as long as it lives.
    pub(in crate::endpoint) fn open_port(&self) {
        self.session.ports.open(self.number());
    }

    /// What comes of an attempt: that it failed since the flow is over, if it is.
    fn outcome<T>(&mut self, attempt: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        match attempt {
            Poll::Ready(Ok(done)) => Poll::Ready(Ok(done)),
            Poll::Ready(Err(_)) => self.explain(cx).map(Err),
            Poll::Pending => Poll::Ready(Err(ready!(self.ended.as_mut().poll(cx)).into())),
        }
    }

    /// Why a stream broke: what the session says of the flow comes on another.
    fn explain(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let endings = self.end.endings.clone();
        let explained = self.explained.get_or_insert_with(|| {
            Box::pin(async move {
                let ended = timeout(EXPLANATION_TIMEOUT, over(endings)).await;
                ended.ok().and_then(Result::err).unwrap_or(FlowError::Lost)
            })
        });
        let _entered = self.session.runtime.enter();
        explained.as_mut().poll(cx).map(io::Error::from)
    }
}

impl AsyncRead for SessionIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.explained.is_some() {
            return self.explain(cx).map(Err);
        }
        let attempt = AsyncRead::poll_read(Pin::new(&mut self.receiver), cx, buf);
        self.outcome(attempt, cx)
    }
}

impl AsyncWrite for SessionIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.explained.is_some() {
            return self.explain(cx).map(Err);
        }
        let attempt = AsyncWrite::poll_write(Pin::new(&mut self.sender), cx, buf);
        self.outcome(attempt, cx)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.end.finished {
            return Poll::Ready(Ok(()));
        }
        if self.explained.is_some() || self.sender.finish().is_err() {
            return self.explain(cx).map(Err);
        }
        self.end.finished = true;
        if let Some(arrived) = self.arrived.take() {
            let received = self.sender.stopped();
            tasks::spawn_on(&self.session.runtime, async move {
                if matches!(received.await, Ok(None)) {
                    arrived();
                }
            });
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for SessionIo {
    fn drop(&mut self) {
        // quinn would end the stream as if all had been sent.
        if !self.end.finished {
            let _ = self.sender.reset(GIVEN_UP.into());
        }
        let _ = self.receiver.stop(GIVEN_UP.into());
        self.session.ports.close(self.number());
    }
}
