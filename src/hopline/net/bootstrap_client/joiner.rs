//! Becoming a member, with a ticket, and staying one.

use super::dial::{Dialer, exchange};
use super::network_clock::NetworkClock;
use super::{Attempt, Cause, JoinError};
use crate::net::authority::{Issued, public_key_of};
use crate::net::bootstrap_rpc::{BootstrapClose, BootstrapRequest, BootstrapResponse};
use crate::net::datadir::DataDir;
use crate::net::entropy;
use crate::net::error::ErrorKind;
use crate::net::identity::{Identity, Membership};
use crate::net::join::{ChannelBinding, JoinRequest};
use crate::net::keyfile::KeyFileError;
use crate::net::ticket::Ticket;
use crate::net::tls;
use quinn::Connection;
use rand::RngExt;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

/// The first wait of a newcomer that finds its bootstraps overloaded; each further one is twice as long,
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// up to this. Then it gives up.
const LAST_WAIT: Duration = Duration::from_secs(2);

/// What it takes to join.
#[derive(Debug)]
pub(super) struct Joiner {
    pub(super) ticket: Ticket,
    pub(super) identity: Arc<Identity>,
    pub(super) data: Option<Arc<DataDir>>,
    pub(super) dialer: Dialer,
    pub(super) answer_timeout: Duration,
    pub(super) clock: NetworkClock,
}

/// Where a bootstrap was found: its place in the ticket, and a connection to it.
pub(super) type Found = (usize, Connection);

impl Joiner {
    /// The bootstraps that the ticket names now, each once, from the one at `first` on. What can't be looked up is added to
    /// `attempts`.
    pub(super) async fn bootstraps(&self, first: usize, attempts: &mut Vec<Attempt>) -> Vec<(usize, String)> {
        let mut hosts = Vec::new();
        for name in self.ticket.bootstraps() {
            match self.dialer.hosts(name).await {
                Ok(found) => hosts.extend(found),
                Err(cause) => {
                    tracing::debug!(service = name, %cause, "no bootstraps of that name");
                    attempts.push(Attempt { address: name.clone(), cause });
                }
            }
        }
        self.dialer.bootstraps.store(hosts.len(), Ordering::Relaxed);
        let mut places: Vec<(usize, String)> = hosts.into_iter().enumerate().collect();
        let first = first.checked_rem(places.len()).unwrap_or(0);
        places.rotate_left(first);
        places
    }

    /// Where a member will find a bootstrap: the first whose name can be resolved.
    pub(super) async fn look_up(&self) -> Result<(usize, SocketAddr), JoinError> {
        let mut attempts = Vec::new();
        for (place, host) in self.bootstraps(0, &mut attempts).await {
            match self.dialer.resolve(&host).await.map(|found| found.first().copied()) {
                Ok(Some(address)) => return Ok((place, address)),
                Ok(None) => {}
                Err(cause) => attempts.push(Attempt { address: host, cause }),
            }
        }
        Err(JoinError::of_attempts(attempts))
    }

    /// Joins at the first bootstrap that answers, and stores the membership. Where a whole fleet starts at once, waiting
    /// spares each of its nodes a restart.
    pub(super) async fn join(&self, first: usize) -> Result<(Membership, Found), JoinError> {
        let mut rng = entropy::seeded_rng();
        let mut wait = FIRST_WAIT;
        loop {
            match self.join_once(first).await {
                Err(error) if error.kind() == ErrorKind::Overloaded && wait <= LAST_WAIT => {
                    // By chance longer or shorter: a fleet that starts at once must not come back at once.
                    tokio::time::sleep(wait.mul_f64(rng.random_range(0.5..1.5))).await;
                    wait *= 2;
                }
                outcome => return outcome,
            }
        }
    }

    async fn join_once(&self, first: usize) -> Result<(Membership, Found), JoinError> {
        let mut attempts = Vec::new();
        for (place, host) in self.bootstraps(first, &mut attempts).await {
            let config = tls::join_client(self.ticket.network());
            let Some(connection) = self.dialer.connect(&host, config, &mut attempts).await else { continue };
            match self.join_over(&connection).await {
                Ok(membership) => {
                    // It was made without a certificate, so it is of no use to a member.
                    BootstrapClose::Done.close(&connection);
                    tracing::info!(node = %membership.node_id(), bootstrap = host, "joined the network");
                    return Ok((self.keep(membership).await, (place, connection)));
                }
                Err(Refused::Finally(refusal)) => return Err(refusal.into()),
                Err(Refused::Here(cause)) => {
                    tracing::debug!(bootstrap = host, %cause, "could not join at a bootstrap");
                    attempts.push(Attempt { address: host, cause });
                }
            }
        }
        Err(JoinError::of_attempts(attempts))
    }

    async fn join_over(&self, connection: &Connection) -> Result<Membership, Refused> {
        let binding = ChannelBinding::of(connection);
        let request = BootstrapRequest::Join(JoinRequest::new(&self.ticket, &self.identity, &binding));
        let answer = timeout(self.answer_timeout, exchange(connection, &request)).await;
        match answer.map_err(|_| Cause::NoAnswer { within: self.answer_timeout })?? {
            BootstrapResponse::Issued(issued) => Ok(self.membership(issued)?),
            BootstrapResponse::JoinRefused(refusal) => Err(Refused::Finally(refusal)),
            BootstrapResponse::Answer(_) | BootstrapResponse::Unknown => Err(Cause::WrongAnswer.into()),
        }
    }

    /// The membership that a certificate makes.
    pub(super) fn membership(&self, issued: Issued) -> Result<Membership, Cause> {
        self.clock.hear(issued.now);
        let membership = Membership::new(Arc::clone(&self.identity), issued, self.ticket.network());
        let ours = public_key_of(&membership.certificate).as_ref() == Some(self.identity.public_key());
        if ours { Ok(membership) } else { Err(Cause::WrongAnswer) }
    }

    /// Stores it, if there is where. One that can't be stored is still good until the process ends.
    pub(super) async fn keep(&self, membership: Membership) -> Membership {
        if let Some(data) = self.data.clone() {
            let stored = membership.clone();
            match spawn_blocking(move || stored.store(data.path())).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "the certificate is not stored"),
                Err(error) => tracing::warn!(%error, "the certificate is not stored"),
            }
        }
        membership
    }
}

/// Why one bootstrap did not let this node in.
enum Refused {
    /// The network doesn't want it.
    Finally(crate::net::join::Refusal),
    /// Another bootstrap may do better.
    Here(Cause),
}

impl From<Cause> for Refused {
    fn from(cause: Cause) -> Self {
        Self::Here(cause)
    }
}

/// The identity and, if there is one that is still good, the membership in `data`.
pub(super) fn load(
    data: &Path,
    ticket: &Ticket,
) -> Result<(Arc<Identity>, Option<Membership>), KeyFileError> {
    let identity = Arc::new(Identity::load_or_create(data)?);
    let now = crate::net::clock::Clock::wall();
    let membership = Membership::load(data, &identity, ticket.network(), now)?;
    Ok((identity, membership))
}
