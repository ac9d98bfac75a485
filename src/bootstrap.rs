//! A bootstrap process: the coordinator of a network.

use crate::net::authority::{Authority, DEFAULT_VALIDITY};
use crate::net::bootstrap_rpc::{BootstrapRequest, BootstrapResponse, MAX_BOOTSTRAP_REQUEST_BYTES};
use crate::net::clock::Clock;
use crate::net::identity::{Identity, Membership};
use crate::net::join::{ChannelBinding, JoinRequest};
use crate::net::ticket::{Grant, Ticket};
use crate::net::transport::{self, TransportSettings};
use crate::net::{entropy, frames, tls};
use crate::proto::bootstrap::{Bootstrap as Machine, Config};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How it runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// The local UDP address.
    pub listen: SocketAddr,
    /// Where to keep the network's keys.
    pub data: Option<PathBuf>,
    /// The address that the ticket names, if that is not the local one.
    pub advertise: Option<String>,
}

/// Why it could not start.
pub type StartError = Box<dyn std::error::Error + Send + Sync>;

/// A bootstrap that runs.
#[derive(Debug)]
pub struct Server {
    endpoint: quinn::Endpoint,
    ticket: Ticket,
    id: crate::proto::NodeId,
}

struct Shared {
    authority: Authority,
    machine: Mutex<Machine>,
    clock: Clock,
}

impl Server {
    /// Starts it.
    ///
    /// # Errors
    /// Whatever could not be had.
    pub async fn start(options: Options) -> Result<Self, StartError> {
        let (authority, identity) = match &options.data {
            Some(directory) => (Authority::load_or_create(directory)?, Identity::load_or_create(directory)?),
            None => (Authority::generate(), Identity::generate()),
        };
        let issued = authority.issue_bootstrap(identity.public_key(), DEFAULT_VALIDITY, Clock::wall());
        let reset = identity.reset_secret();
        let membership = Membership::new(Arc::new(identity), issued, authority.public_key());
        let id = membership.node_id();
        let settings = TransportSettings::control();
        let server = tls::bootstrap_server(&membership)?;
        let endpoint = transport::bind(options.listen, Some(server), &settings, &reset)?;
        let address = options.advertise.unwrap_or(endpoint.local_addr()?.to_string());
        let ticket = Ticket::issue(&authority, vec![address], Grant::DEFAULT)?;
        if let Some(directory) = &options.data {
            crate::net::keyfile::write_private(&directory.join("ticket"), &ticket.to_string())?;
        }
        let clock = Clock::start();
        let machine =
            Machine::new(Config::default(), authority.secret().clone(), entropy::seeded_rng(), clock.now());
        let shared = Arc::new(Shared { authority, machine: Mutex::new(machine), clock });
        tokio::spawn(accept(endpoint.clone(), shared));
        Ok(Self { endpoint, ticket, id })
    }

    /// What newcomers need.
    #[must_use]
    pub const fn ticket(&self) -> &Ticket {
        &self.ticket
    }

    /// Who it is.
    #[must_use]
    pub const fn id(&self) -> crate::proto::NodeId {
        self.id
    }

    /// Where it listens.
    ///
    /// # Errors
    /// If the socket is gone.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// Ends it.
    pub async fn shutdown(self) {
        self.endpoint.close(0u32.into(), b"shutting down");
        let _ = tokio::time::timeout(Duration::from_millis(500), self.endpoint.wait_idle()).await;
    }
}

async fn accept(endpoint: quinn::Endpoint, shared: Arc<Shared>) {
    while let Some(incoming) = endpoint.accept().await {
        let shared = shared.clone();
        tokio::spawn(async move {
            let Ok(connection) = incoming.await else { return };
            while let Ok((mut sender, mut receiver)) = connection.accept_bi().await {
                let request = frames::read_frame(&mut receiver, MAX_BOOTSTRAP_REQUEST_BYTES).await;
                let Ok(request) = request else { return };
                let response = answer(&shared, &connection, request);
                let _ = frames::write_frame(&mut sender, &response).await;
                let _ = sender.finish();
            }
        });
    }
}

fn answer(shared: &Shared, connection: &quinn::Connection, request: BootstrapRequest) -> BootstrapResponse {
    let refused = || BootstrapResponse::JoinRefused(crate::net::join::Refusal::WrongSecret);
    match request {
        BootstrapRequest::Join(join) => admit(shared, connection, &join),
        BootstrapRequest::Renew => refused(),
        BootstrapRequest::Ask(request) => match tls::peer(connection) {
            Some(peer) => {
                let mut machine = shared.machine.lock().unwrap_or_else(PoisonError::into_inner);
                BootstrapResponse::Answer(machine.answer(peer, request, shared.clock.now()))
            }
            None => refused(),
        },
    }
}

fn admit(shared: &Shared, connection: &quinn::Connection, join: &JoinRequest) -> BootstrapResponse {
    match join.verify(&ChannelBinding::of(connection), shared.authority.secret(), Clock::wall()) {
        Ok(_) => {
            let issued = shared.authority.issue(join.public_key(), DEFAULT_VALIDITY, Clock::wall());
            BootstrapResponse::Issued(issued)
        }
        Err(refusal) => BootstrapResponse::JoinRefused(refusal),
    }
}
