//! A member's way to its bootstraps: joins with a ticket, keeps a connection, asks.

use super::authority::{Issued, NetworkKey};
use super::bootstrap_rpc::{BootstrapRequest, BootstrapResponse, MAX_BOOTSTRAP_RESPONSE_BYTES};
use super::clock::Clock;
use super::frames;
use super::identity::{Identity, Membership};
use super::join::{ChannelBinding, JoinRequest, Refusal};
use super::keyfile::KeyFileError;
use super::ticket::Ticket;
use super::tls::{self, BOOTSTRAP_NAME};
use super::transport::{self, TransportSettings};
use crate::proto::machine::AskFailure;
use crate::proto::rpc::{Request, Response};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long one attempt to reach one bootstrap may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Why a node could not join.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// None of the ticket's bootstraps answered.
    #[error("no bootstrap reachable: {}", .attempts.iter().map(|(a, c)| format!("{a}: {c}")).collect::<Vec<_>>().join("; "))]
    NoBootstrap {
        /// Address and cause of each attempt.
        attempts: Vec<(String, String)>,
    },
    /// A bootstrap refused the newcomer.
    #[error("the bootstrap refused to let this node in: {0}")]
    Refused(Refusal),
    /// The node's own files or socket.
    #[error(transparent)]
    Files(#[from] KeyFileError),
    /// The node's own socket.
    #[error("cannot open a socket: {0}")]
    Socket(#[from] transport::BindError),
    /// The certificate is of no use.
    #[error("the certificate is of no use: {0}")]
    Tls(#[from] tls::TlsError),
}

impl JoinError {
    /// Whether a bootstrap answered, and refused.
    #[must_use]
    pub const fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused(_))
    }
}

/// See the module's documentation. Clones share the connection.
#[derive(Clone, Debug)]
pub struct Coordinator(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    ticket: Ticket,
    endpoint: quinn::Endpoint,
    membership: Membership,
    client: quinn::ClientConfig,
    connection: tokio::sync::Mutex<Option<quinn::Connection>>,
    turn: Mutex<usize>,
    bootstrap: Mutex<SocketAddr>,
}

impl Coordinator {
    /// Joins with a ticket.
    ///
    /// # Errors
    /// [`JoinError`] with the cause of each attempt.
    pub async fn join(ticket: Ticket, data: Option<PathBuf>) -> Result<Self, JoinError> {
        let identity = Arc::new(match &data {
            Some(directory) => Identity::load_or_create(directory)?,
            None => Identity::generate(),
        });
        let network: NetworkKey = ticket.network();
        let stored = match &data {
            Some(directory) => Membership::load(directory, &identity, network, Clock::wall())?,
            None => None,
        };
        let settings = TransportSettings::control();
        let endpoint = transport::bind_client(&settings, &identity.reset_secret())?;
        let (membership, bootstrap) = match stored {
            Some(membership) => {
                let (_, address) = resolve(ticket.bootstraps()).await?;
                (membership, address)
            }
            None => {
                let (issued, address) = enter(&ticket, &identity, &endpoint, &settings).await?;
                let membership = Membership::new(identity, issued, network);
                if let Some(directory) = &data {
                    membership.store(directory)?;
                }
                (membership, address)
            }
        };
        let mut client = tls::bootstrap_client(&membership)?;
        client.transport_config(transport::transport(&settings));
        Ok(Self(Arc::new(Inner {
            ticket,
            endpoint,
            membership,
            client,
            connection: tokio::sync::Mutex::new(None),
            turn: Mutex::new(0),
            bootstrap: Mutex::new(bootstrap),
        })))
    }

    /// The node's certificate and all that goes with it.
    #[must_use]
    pub fn membership(&self) -> Membership {
        self.0.membership.clone()
    }

    /// The address of the bootstrap that answered last.
    #[must_use]
    pub fn bootstrap(&self) -> SocketAddr {
        *self.0.bootstrap.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the bootstrap that answered last.
    ///
    /// # Errors
    /// [`AskFailure`] if there is no answer in time.
    pub async fn ask(&self, request: Request, timeout: Duration) -> Result<Response, AskFailure> {
        tokio::time::timeout(timeout, self.exchange(request, false)).await.unwrap_or(Err(AskFailure::Timeout))
    }

    /// Asks the next bootstrap, over a new connection.
    ///
    /// # Errors
    /// [`AskFailure`] if there is no answer in time.
    pub async fn ask_fresh(&self, request: Request, timeout: Duration) -> Result<Response, AskFailure> {
        tokio::time::timeout(timeout, self.exchange(request, true)).await.unwrap_or(Err(AskFailure::Timeout))
    }

    async fn exchange(&self, request: Request, fresh: bool) -> Result<Response, AskFailure> {
        let connection = self.connection(fresh).await?;
        let exchange = async {
            let (mut sender, mut receiver) = connection.open_bi().await?;
            frames::write_frame(&mut sender, &BootstrapRequest::Ask(request)).await?;
            let _ = sender.finish();
            let response = frames::read_frame(&mut receiver, MAX_BOOTSTRAP_RESPONSE_BYTES).await?;
            Ok::<BootstrapResponse, Box<dyn std::error::Error + Send + Sync>>(response)
        };
        match exchange.await {
            Ok(BootstrapResponse::Answer(response)) => Ok(response),
            Ok(_) => Err(AskFailure::Unreachable),
            Err(error) => {
                tracing::debug!(%error, "the bootstrap did not answer");
                Err(AskFailure::Unreachable)
            }
        }
    }

    async fn connection(&self, fresh: bool) -> Result<quinn::Connection, AskFailure> {
        let mut current = self.0.connection.lock().await;
        if let Some(connection) = current.as_ref().filter(|c| !fresh && c.close_reason().is_none()) {
            return Ok(connection.clone());
        }
        let bootstraps = self.0.ticket.bootstraps();
        let turn = {
            let mut turn = self.0.turn.lock().unwrap_or_else(PoisonError::into_inner);
            *turn += usize::from(fresh);
            *turn
        };
        let name = bootstraps.get(turn % bootstraps.len().max(1)).ok_or(AskFailure::Unreachable)?;
        let (_, address) = resolve(std::slice::from_ref(name)).await.map_err(|_| AskFailure::Unreachable)?;
        let connecting = self.0.endpoint.connect_with(self.0.client.clone(), address, BOOTSTRAP_NAME);
        let connecting = connecting.map_err(|_| AskFailure::Unreachable)?;
        let connection = match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(_)) => return Err(AskFailure::Unreachable),
            Err(_) => return Err(AskFailure::Timeout),
        };
        *self.0.bootstrap.lock().unwrap_or_else(PoisonError::into_inner) = address;
        *current = Some(connection.clone());
        Ok(connection)
    }
}

async fn resolve(bootstraps: &[String]) -> Result<(String, SocketAddr), JoinError> {
    let mut attempts = Vec::new();
    for name in bootstraps {
        match tokio::net::lookup_host(name).await.map(|mut found| found.next()) {
            Ok(Some(address)) => return Ok((name.clone(), address)),
            Ok(None) => attempts.push((name.clone(), "no address".to_owned())),
            Err(error) => attempts.push((name.clone(), error.to_string())),
        }
    }
    Err(JoinError::NoBootstrap { attempts })
}

async fn enter(
    ticket: &Ticket,
    identity: &Identity,
    endpoint: &quinn::Endpoint,
    settings: &TransportSettings,
) -> Result<(Issued, SocketAddr), JoinError> {
    let mut attempts = Vec::new();
    let mut client = tls::join_client(ticket.network());
    client.transport_config(transport::transport(settings));
    for name in ticket.bootstraps() {
        let attempt = async {
            let (_, address) = resolve(std::slice::from_ref(name)).await?;
            let connecting = endpoint.connect_with(client.clone(), address, BOOTSTRAP_NAME)?;
            let connection = connecting.await?;
            let request = JoinRequest::new(ticket, identity, &ChannelBinding::of(&connection));
            let (mut sender, mut receiver) = connection.open_bi().await?;
            frames::write_frame(&mut sender, &BootstrapRequest::Join(request)).await?;
            let _ = sender.finish();
            let response = frames::read_frame(&mut receiver, MAX_BOOTSTRAP_RESPONSE_BYTES).await?;
            Ok::<(BootstrapResponse, SocketAddr), Box<dyn std::error::Error + Send + Sync>>((
                response, address,
            ))
        };
        let cause = match tokio::time::timeout(CONNECT_TIMEOUT, attempt).await {
            Ok(Ok((BootstrapResponse::Issued(issued), address))) => return Ok((issued, address)),
            Ok(Ok((BootstrapResponse::JoinRefused(refusal), _))) => return Err(JoinError::Refused(refusal)),
            Ok(Ok(_)) => "nonsense answered".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {} s", CONNECT_TIMEOUT.as_secs()),
        };
        tracing::warn!(bootstrap = name, %cause, "could not join");
        attempts.push((name.clone(), cause));
    }
    Err(JoinError::NoBootstrap { attempts })
}
