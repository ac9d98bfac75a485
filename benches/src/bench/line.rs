//! The ways on which the same load is measured: Hopline, the dumb splice, or a TCP connection of the kernel. A [`Way`] leads to a
//! server; a [`Line`] is what was opened over it, bytes in order both ways. Whoever exercises a line does not know which it is.

use crate::splice;
use hopline::endpoint::{Endpoint, Flow};
use hopline_command::{Exit, Failure};
use std::net::SocketAddr;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// A client's way to a server.
pub(super) enum Way {
    Hopline { endpoint: Endpoint, target: String },
    Splice(splice::Client),
    Tcp(SocketAddr),
}

/// What was opened: a flow, a stream of the splice with its TLS, or a connection.
pub(super) enum Line {
    Hopline(Box<Flow>),
    Splice(Box<splice::Stream>),
    Tcp(TcpStream),
}

/// Bytes both ways.
pub(super) trait Bytes: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Bytes for T {}

impl Way {
    pub(super) async fn open(&self) -> Result<Line, Failure> {
        Ok(match self {
            Self::Hopline { endpoint, target } => Line::Hopline(Box::new(endpoint.open(target).await?)),
            Self::Splice(client) => Line::Splice(Box::new(client.open().await.map_err(failure)?)),
            Self::Tcp(server) => {
                let stream = TcpStream::connect(server).await?;
                stream.set_nodelay(true)?;
                Line::Tcp(stream)
            }
        })
    }

    /// Ends it, with all that is still open over it.
    pub(super) async fn close(&self) {
        match self {
            Self::Hopline { endpoint, .. } => endpoint.shutdown().await,
            Self::Splice(client) => client.close().await,
            Self::Tcp(_) => {}
        }
    }
}

impl Line {
    pub(super) fn bytes(&mut self) -> &mut dyn Bytes {
        match self {
            Self::Hopline(flow) => flow,
            Self::Splice(stream) => stream,
            Self::Tcp(stream) => stream,
        }
    }

    /// Sends no more, and waits until the other end has no more to send and both know it.
    ///
    /// # Errors
    /// Also if something comes that nobody has asked for.
    pub(super) async fn finish(mut self) -> Result<(), Failure> {
        let bytes = self.bytes();
        bytes.shutdown().await?;
        let came = tokio::io::copy(&mut bytes.take(1), &mut tokio::io::sink()).await?;
        if came > 0 {
            return Err(Failure::new(Exit::Failed, "more bytes came back than were sent"));
        }
        match self {
            Self::Hopline(flow) => Ok(flow.finished().await?),
            Self::Splice(_) | Self::Tcp(_) => Ok(()),
        }
    }
}

/// The baseline only prints its errors.
fn failure(error: Box<dyn std::error::Error + Send + Sync>) -> Failure {
    Failure::new(Exit::Failed, error.to_string())
}
