//! Finding a bootstrap: names, addresses, handshakes, each with its time limit and each failure with its cause.

use super::names::Names;
use super::refusals::Refusals;
use super::{Attempt, Cause};
use crate::net::address::canonical;
use crate::net::bootstrap_rpc::{
    BootstrapClose, BootstrapRequest, BootstrapResponse, MAX_BOOTSTRAP_RESPONSE_BYTES,
};
use crate::net::eyeballs::first_of;
use crate::net::frames::{self, FrameError, Unfinished};
use crate::net::local::Local;
use crate::net::ticket;
use crate::net::tls::{self, BOOTSTRAP_NAME, OutOfTime};
use crate::net::version;
use hopline_proto::rpc::Response;
use hopline_proto::version::Versions;
use quinn::{ClientConfig, Connection, ConnectionError, Endpoint, TransportConfig, TransportErrorCode};
use rustls::AlertDescription;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::lookup_host;
use tokio::time::timeout;

/// Of a name with more addresses than this only the first are tried.
const MAX_ADDRESSES: usize = 4;

/// Dials bootstraps.
#[derive(Debug)]
pub(super) struct Dialer {
    pub(super) names: Names,
    pub(super) endpoint: Endpoint,
    pub(super) local: Local,
    /// The addresses that a bootstrap was last found to have.
    pub(super) found: Mutex<Vec<SocketAddr>>,
    /// How many bootstraps the ticket was last found to name.
    pub(super) bootstraps: AtomicUsize,
    /// Heeded where there are several. `None` if there never are.
    pub(super) refusals: Option<Refusals>,
    pub(super) transport: Arc<TransportConfig>,
    /// How long each dial may take, and each look-up of a name.
    pub(super) connect_timeout: Duration,
}

impl Dialer {
    /// A connection to the bootstrap at `host` (`host:port`), whose name is looked up anew; to the first of its addresses
    /// that answers. What failed is added to `attempts`.
    pub(super) async fn connect(
        &self,
        host: &str,
        mut config: ClientConfig,
        attempts: &mut Vec<Attempt>,
    ) -> Option<Connection> {
        config.transport_config(Arc::clone(&self.transport));
        let mut failed = |address: String, cause: Cause| {
            tracing::debug!(bootstrap = address, %cause, "no connection to a bootstrap");
            attempts.push(Attempt { address, cause });
        };
        let addresses = match self.resolve(host).await {
            Ok(addresses) => addresses,
            Err(cause) => {
                failed(host.to_owned(), cause);
                return None;
            }
        };
        self.found.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&addresses);
        let mut open = Vec::new();
        for address in addresses {
            match self.local.obstacle(address) {
                None => open.push(address),
                Some(obstacle) => failed(shown(host, address), Cause::NoWay(obstacle)),
            }
        }
        let dials = open.into_iter().map(|address| {
            let refused = self.refusal(address);
            let dial = dial(self.endpoint.clone(), config.clone(), address, self.connect_timeout);
            async move {
                tokio::select! {
                    biased;
                    // A handshake that is done counts, whatever the network says.
                    outcome = dial => outcome.map_err(|cause| (address, cause)),
                    () = refused => Err((address, Cause::Unreachable)),
                }
            }
        });
        first_of(dials, |(address, cause)| failed(shown(host, address), cause)).await
    }

    /// Ends when the network says from now on that nobody is at `address`, if that is to be taken notice of.
    pub(super) fn refusal(&self, address: SocketAddr) -> impl Future<Output = ()> + Send + use<> {
        let several = self.bootstraps.load(Ordering::Relaxed) > 1;
        let refused = self.refusals.as_ref().filter(|_| several).map(|refusals| refusals.to(address));
        async move {
            match refused {
                Some(refused) => refused.await,
                None => std::future::pending().await,
            }
        }
    }

    /// The addresses of `host`, those first that there is a way to.
    pub(super) async fn resolve(&self, host: &str) -> Result<Vec<SocketAddr>, Cause> {
        let found = self.in_time(lookup_host(host)).await?.map_err(Cause::Name)?;
        let mut found: Vec<SocketAddr> = found.map(canonical).collect();
        found.sort_by_key(|address| self.local.obstacle(*address).is_some());
        found.truncate(MAX_ADDRESSES);
        if found.is_empty() { Err(Cause::NoAddress) } else { Ok(found) }
    }

    /// The bootstraps that a ticket's name stands for, each as `host:port`.
    pub(super) async fn hosts(&self, name: &str) -> Result<Vec<String>, Cause> {
        if !ticket::is_service(name) {
            return Ok(vec![name.to_owned()]);
        }
        let found = self.in_time(self.names.hosts(name)).await?;
        let hosts = found.map_err(|error| Cause::Name(io::Error::other(error)))?;
        if hosts.is_empty() { Err(Cause::NoAddress) } else { Ok(hosts) }
    }

    async fn in_time<T>(&self, looked_up: impl Future<Output = T>) -> Result<T, Cause> {
        timeout(self.connect_timeout, looked_up)
            .await
            .map_err(|_| Cause::NoAnswer { within: self.connect_timeout })
    }
}

async fn dial(
    endpoint: Endpoint,
    config: ClientConfig,
    address: SocketAddr,
    limit: Duration,
) -> Result<Connection, Cause> {
    let connecting = endpoint.connect_with(config, address, BOOTSTRAP_NAME).map_err(Cause::Dial)?;
    let connection = timeout(limit, connecting).await.map_err(|_| Cause::NoAnswer { within: limit })??;
    version::agree(&connection, Versions::OURS, true).await.map_err(Cause::Version)?;
    Ok(connection)
}

/// An address as its ticket names it, and what became of it where that is not the same.
fn shown(host: &str, address: SocketAddr) -> String {
    if host.parse() == Ok(address) { host.to_owned() } else { format!("{host} ({address})") }
}

impl From<ConnectionError> for Cause {
    fn from(error: ConnectionError) -> Self {
        match BootstrapClose::of(&error) {
            Some(BootstrapClose::Overloaded) => return Self::Overloaded,
            Some(close) => return Self::Closed(close),
            None => {}
        }
        let code =
            if let ConnectionError::ConnectionClosed(close) = &error { Some(close.error_code) } else { None };
        if code == Some(TransportErrorCode::CONNECTION_REFUSED) {
            return Self::Overloaded;
        }
        if let Some(out) = OutOfTime::of(&error) {
            return Self::OutOfTime(out);
        }
        let by_peer = code.is_some();
        match (tls::alert(&error), by_peer) {
            (Some(AlertDescription::DecryptError), _) => Self::OtherNetwork,
            // Only an alert that the peer sent is about this node's certificate.
            (Some(AlertDescription::CertificateExpired), true) => Self::OwnCertificateExpired,
            _ => Self::Connection(error),
        }
    }
}

impl From<FrameError> for Cause {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::ConnectionLost(error) => error.into(),
            FrameError::Reset(code) => Self::Closed(BootstrapClose::from_number(code.into())),
            FrameError::Finished | FrameError::Truncated | FrameError::Codec(_) | FrameError::Misused => {
                Self::Answer(error)
            }
        }
    }
}

/// One question and its answer, on a stream of their own. If this is dropped half-way, the bootstrap learns that nobody
/// waits any more.
pub(super) async fn exchange(
    connection: &Connection,
    request: &BootstrapRequest,
) -> Result<BootstrapResponse, Cause> {
    let (sender, mut receiver) = connection.open_bi().await?;
    // quinn finishes a stream that is dropped, and half a request would pass for a whole one.
    let mut sender = Unfinished::new(sender, BootstrapClose::Cancelled.number());
    frames::write_frame(&mut sender, request).await?;
    sender.finish();
    let answer = frames::read_growing_frame(&mut receiver, MAX_BOOTSTRAP_RESPONSE_BYTES).await?;
    let is_known =
        !matches!(answer, BootstrapResponse::Unknown | BootstrapResponse::Answer(Response::Unknown));
    if is_known { Ok(answer) } else { Err(Cause::NewerAnswer) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::testing::pair;
    use crate::net::transport::TransportSettings;
    use hopline_proto::rpc::Refusal;
    use serde::Serialize;

    /// What becomes of a question that is answered so.
    async fn answered(answer: impl Serialize) -> Result<BootstrapResponse, Cause> {
        let ([near, far], _endpoints) = pair(&TransportSettings::default()).await;
        let bootstrap = async {
            let (mut sender, _receiver) = far.accept_bi().await.unwrap();
            frames::write_frame(&mut sender, &answer).await.unwrap();
            sender.finish().unwrap();
        };
        tokio::join!(exchange(&near, &BootstrapRequest::Renew), bootstrap).0
    }

    #[tokio::test]
    async fn an_answer_of_an_unknown_kind_says_that_the_bootstrap_is_newer() {
        let later = "what a later version says";
        assert!(matches!(answered((200u32, later)).await, Err(Cause::NewerAnswer)));
        assert!(matches!(answered((2u32, 200u32, later)).await, Err(Cause::NewerAnswer)));
        let refused = answered((2u32, 6u32, 200u32, later)).await;
        let Ok(BootstrapResponse::Answer(Response::Refused(refusal))) = refused else {
            panic!("{refused:?}")
        };
        assert_eq!(refusal, Refusal::Unknown);
        let garbage = answered((2u32, 1u32, later)).await;
        assert!(matches!(garbage, Err(Cause::Answer(FrameError::Codec(_)))), "{garbage:?}");
    }
}
