//! Datagrams between two endpoints: what is lost on the way is not sent again.

use super::flow::{Flow, Kind};
use super::flow_error::FlowError;
use super::listener::Listener;
use super::session::ports::{self, Ports};
use super::{Chain, Endpoint, OpenError, flow};
use bytes::Bytes;
use hopline_proto::id::{FlowId, NodeId};
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;

/// Datagrams to and from one other endpoint, encrypted from end to end; from [`Endpoint::open_datagrams`] or
/// [`DatagramListener::accept`].
///
/// Each arrives at most once and unaltered, or not at all; in which order is not promised. When a relay fails, those are lost that were
/// on their way through it. They travel over a session beside flows, whatever [`Plane`](super::Plane) is for flows, and before
/// their bytes. Dropping it aborts it: the other end's [`Datagrams::recv`] fails. [`Datagrams::close`] ends it properly.
#[derive(Debug)]
pub struct Datagrams {
    flow: Flow,
    ports: Arc<Ports>,
    /// That of its flow's stream, which is its port's, too.
    number: u32,
    connection: quinn::Connection,
}

/// Why a datagram was not sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DatagramError {
    /// It is longer than [`Datagrams::max_size`].
    #[error("a datagram of {bytes} bytes is too long: at most {max} fit over this chain at present")]
    TooLong {
        /// How long it is, in bytes.
        bytes: usize,
        /// What fits, in bytes.
        max: usize,
    },
    /// The other end is not there any more.
    #[error(transparent)]
    Over(#[from] FlowError),
}

impl Datagrams {
    /// Those of a flow that rides on a session; the flow itself carries no bytes then.
    fn of(flow: Flow) -> Result<Self, Flow> {
        let Some((session, number)) = flow.session() else { return Err(flow) };
        let (ports, connection) = session.datagrams();
        // At a target it is open since the preface.
        ports.open(number);
        Ok(Self { flow, ports, number, connection })
    }

    /// The longest datagram that can be sent at present, in bytes: more than 1,000 on any path. It grows and shrinks with what is known of
    /// the path.
    #[must_use]
    pub fn max_size(&self) -> usize {
        self.connection.max_datagram_size().unwrap_or(0).saturating_sub(ports::HEADER_BYTES)
    }

    /// Sends a datagram, and waits for nothing. If more are sent than the path takes, the oldest that wait are dropped, and not counted: from
    /// 256 KiB on, of all datagrams to that node together.
    ///
    /// # Errors
    /// [`DatagramError`] if it can't arrive: it is too long, or the other end is gone.
    pub fn send(&self, payload: impl AsRef<[u8]>) -> Result<(), DatagramError> {
        let payload = payload.as_ref();
        if let Some(error) = self.flow.error() {
            return Err(error.into());
        }
        let sent = self.connection.send_datagram(ports::datagram(self.number, payload));
        sent.map_err(|error| match error {
            quinn::SendDatagramError::TooLarge => {
                DatagramError::TooLong { bytes: payload.len(), max: self.max_size() }
            }
            quinn::SendDatagramError::ConnectionLost(_)
            | quinn::SendDatagramError::UnsupportedByPeer
            | quinn::SendDatagramError::Disabled => FlowError::Lost.into(),
        })
    }

    /// The next datagram; `None` once the other end has closed, which may overtake its last datagrams. May be dropped at any point without
    /// losing one.
    ///
    /// # Errors
    /// [`FlowError`] if the other end is gone.
    pub async fn recv(&mut self) -> Result<Option<Bytes>, FlowError> {
        let mut nothing = [0];
        let read = tokio::select! {
            biased;
            payload = self.ports.recv(self.number) => return Ok(Some(payload)),
            read = self.flow.read(&mut nothing) => read,
        };
        let error = match read {
            // From now on dropping it is no abort.
            Ok(0) => match self.flow.shutdown().await {
                Ok(()) => return Ok(None),
                Err(error) => error,
            },
            Ok(_) => {
                self.flow.aborter().abort("datagrams have no bytes besides");
                io::ErrorKind::InvalidData.into()
            }
            Err(error) => error,
        };
        Err(self.flow.aborter().explain(&error).await)
    }

    /// How many datagrams came and were dropped, since too many waited for [`Datagrams::recv`]: 1,024, or 4 MiB in all of a session.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.ports.dropped(self.number)
    }

    /// Ends it: the other end's [`Datagrams::recv`] resolves with `None`. Resolves once the other end has closed or dropped it then.
    ///
    /// # Errors
    /// [`FlowError`] if it is gone.
    pub async fn close(self) -> Result<(), FlowError> {
        // What still comes would take room from others.
        self.ports.close(self.number);
        self.flow.finished().await
    }

    /// The id of the flow that carries it, as it stands in events.
    #[must_use]
    pub const fn id(&self) -> FlowId {
        self.flow.id()
    }

    /// Who is at the other end, as its certificate proves.
    #[must_use]
    pub const fn peer(&self) -> NodeId {
        self.flow.peer()
    }

    /// As [`Flow::watch_chain`].
    #[must_use]
    pub fn watch_chain(&self) -> watch::Receiver<Chain> {
        self.flow.watch_chain()
    }
}

/// Accepts the datagrams that are opened to a name; from [`Endpoint::listen_datagrams`]. Otherwise as [`Listener`].
#[derive(Debug)]
pub struct DatagramListener(Listener);

impl DatagramListener {
    pub(super) const fn new(listener: Listener) -> Self {
        Self(listener)
    }

    /// Whoever is next to send datagrams. `None` once the endpoint is shut down, or its last handle was dropped. May be dropped at any point
    /// without losing one.
    pub async fn accept(&mut self) -> Option<Datagrams> {
        loop {
            match Datagrams::of(self.0.accept().await?) {
                Ok(datagrams) => return Some(datagrams),
                Err(flow) => flow.abort("datagrams travel over sessions, not over stored flows"),
            }
        }
    }

    /// The name that is served.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.name()
    }

    /// As [`Listener::close`].
    pub fn close(self, cause: impl Into<String>) {
        self.0.close(cause);
    }
}

pub(super) async fn open(endpoint: &Endpoint, name: &str) -> Result<Datagrams, OpenError> {
    let flow = flow::open(endpoint, name, endpoint.0.hops, Kind::Datagrams).await?;
    Datagrams::of(flow).map_err(|_| OpenError::Closed)
}
