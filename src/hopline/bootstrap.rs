//! The bootstrap process: the network's bootstrap as newcomers and members meet it on the wire.
//!
//! What to answer is decided elsewhere: the pure [machine](hopline_proto::bootstrap) knows the pool and plans chains,
//! [`authority`](crate::net::authority) issues certificates, and [`join`](crate::net::join) judges a newcomer's proofs.
//! Here they are given a socket, a clock and a disk.
//!
//! Flows need none of this: a bootstrap may be stopped and started at any time, and members come back by themselves. Of
//! its data directory only `network.key` can't be replaced, as it *is* the network:
//!
//! | file | holds |
//! |---|---|
//! | `network.key` | the key that signs certificates, and the network secret; several bootstraps share a copy |
//! | `node.key` | this node's own key |
//! | `bootstrap.redb` | who registered what, who used which single-use ticket, and who was removed |
//! | `version` | the format of the directory |
//! | `ticket` | the default ticket, for people to pass on |

mod answers;
mod counters;
mod driver;
mod events;
mod metrics;
mod observer;
mod presence;
mod server;
mod throttle;

pub use crate::store::{NotStored, StoreError};
pub use counters::Counters;
pub use events::BootstrapEvent;
pub use observer::Observer;

use crate::net::authority::{Authority, DEFAULT_VALIDITY, NetworkKey};
use crate::net::bootstrap_rpc::BootstrapClose;
use crate::net::clock::Clock;
use crate::net::datadir::{self, DataDir, DataDirError, Role};
use crate::net::error::{BindError, ErrorKind};
use crate::net::identity::{Identity, Membership};
use crate::net::keyfile::{self, KeyFileError};
use crate::net::local::Local;
use crate::net::ticket::{Grant, Ticket, TicketError};
use crate::net::tls::{self, TlsError};
use crate::net::transport::{self, TransportSettings};
use crate::store::redb::RedbFile;
use crate::store::{Opened, StoreHealth, StoreKind, format};
use driver::Driver;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hopline_proto::NodeId;
use hopline_proto::admission;
use hopline_proto::bootstrap::{Bootstrap, Config, PolicyError};
use server::{Shared, accept, keep_certified};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The shortest life of a certificate: it ends at a full second, and is renewed in the last third.
const MIN_VALIDITY: Duration = Duration::from_secs(3);
/// The pause after a fault in what time brings about, which would come again at once if it is to come again.
const AFTER_FAULT: Duration = Duration::from_secs(1);
/// How long [`Server::shutdown`] waits for the members to hear of it.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// How a bootstrap runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// The local UDP address; port 0 takes any free one.
    pub listen: SocketAddr,
    /// Where to keep keys and what must not be forgotten; `None` for a network that ends with the process.
    pub data: Option<PathBuf>,
    /// Which store to open for what must not be forgotten.
    pub store: Arc<dyn StoreKind>,
    /// What tickets name as the network's bootstraps, each as `host:port`; empty for this one's own address.
    pub advertise: Vec<String>,
    /// How long the certificates are good for that it issues.
    pub validity: Duration,
    /// The policies of the pool and of chains.
    pub policies: Config,
    /// How much it takes from strangers and members.
    pub limits: Limits,
    /// How connections behave.
    pub transport: TransportSettings,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv6Addr::UNSPECIFIED, 4433)),
            data: None,
            store: Arc::new(RedbFile),
            advertise: Vec::new(),
            validity: DEFAULT_VALIDITY,
            policies: Config::default(),
            limits: Limits::default(),
            transport: TransportSettings::control(),
        }
    }
}

/// How much a bootstrap takes. How many streams a connection may have, and how much may wait on them, is in its
/// [`TransportSettings`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Who is let in: handshakes under way, and newcomers, who are its guests.
    pub admission: admission::Config,
    /// Members' connections. Each takes some 40 KiB.
    pub members: usize,
    /// How long a request may take to arrive whole, and an answer to be taken. A newcomer's has to arrive within the time of
    /// a guest.
    pub stream_timeout: Duration,
    /// After this long a member's connection is closed: it comes back by itself, if its certificate is still good.
    pub connection_age: Duration,
    /// Requests of all members together, each second. Beyond, listings are refused first and heartbeats last.
    pub requests: u32,
    /// Requests of one member, each second; after a pause twice as many at once.
    pub requests_of_member: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            admission: admission::Config::default(),
            members: 10_000,
            stream_timeout: Duration::from_secs(10),
            connection_age: Duration::from_secs(3600),
            requests: 20_000,
            requests_of_member: 1000,
        }
    }
}

/// Why a bootstrap did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Its data directory is another's.
    #[error(transparent)]
    Data(#[from] DataDirError),
    /// Its data directory is in use, or of no use.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Its keys can't be read or written.
    #[error(transparent)]
    KeyFile(#[from] KeyFileError),
    /// Its socket can't be had.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The advertised addresses don't make a ticket.
    #[error(transparent)]
    Ticket(#[from] TicketError),
    /// Its policies make no sense.
    #[error(transparent)]
    Policies(#[from] PolicyError),
    /// Certificates would end before they can be renewed.
    #[error("certificates must be good for at least {MIN_VALIDITY:?}, not {validity:?}")]
    Validity {
        /// For how long they would be.
        validity: Duration,
    },
    /// Its own certificate is of no use.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The process is ending.
    #[error("the process is ending")]
    Ended,
}

impl StartError {
    /// What to do about it.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::Data(_)
            | Self::Store(_)
            | Self::KeyFile(_)
            | Self::Bind(_)
            | Self::Ticket(_)
            | Self::Policies(_)
            | Self::Validity { .. } => ErrorKind::Local,
            Self::Tls(_) => ErrorKind::Bug,
            Self::Ended => ErrorKind::Closed,
        }
    }
}

/// A bootstrap that runs, on the tokio runtime it was started on. Dropping it stops it too, without goodbye.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    endpoint: quinn::Endpoint,
    address: SocketAddr,
    bootstraps: Vec<String>,
    ticket: Ticket,
    stop: CancellationToken,
    tasks: TaskTracker,
    /// Nobody else has it meanwhile.
    data: Option<DataDir>,
}

impl Server {
    /// Starts a bootstrap: of the network in its data directory, or of a new one.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(options: Options) -> BoxFuture<'static, Result<Self, StartError>> {
        Box::pin(async move {
            options.policies.validate()?;
            if options.validity < MIN_VALIDITY {
                return Err(StartError::Validity { validity: options.validity });
            }
            let (data, store) = (options.data.clone(), options.store.clone());
            let opened = spawn_blocking(move || open(data.as_deref(), &*store)).await;
            let (data, opened, authority, identity) = opened.map_err(|_| StartError::Ended)??;
            let mut server = Self::serve(options, opened, authority, identity).await?;
            server.data = data;
            Ok(server)
        })
    }

    /// The same with what was opened. Everybody is back in their places before the first question can be asked.
    async fn serve(
        options: Options,
        Opened { store, registrations }: Opened,
        authority: Authority,
        identity: Arc<Identity>,
    ) -> Result<Self, StartError> {
        let restored = u64::try_from(registrations.len()).unwrap_or(u64::MAX);
        let driver = Driver::new(options.policies, authority.secret().clone(), Arc::clone(&store));
        driver.restore(registrations);
        let membership = certify(&authority, &identity, options.validity);
        let endpoint = transport::bind(
            options.listen,
            Some(tls::bootstrap_server(&membership)?),
            &options.transport,
            &identity.reset_secret(),
        )?;
        let address = endpoint.local_addr().map_err(|source| BindError::quic(options.listen, source))?;
        let bootstraps = advertised(&options.advertise, Local::at(address));
        let ticket = Ticket::issue(&authority, bootstraps.clone(), Grant::DEFAULT)?;
        if let Some(data) = options.data.clone() {
            let text = format!("{ticket}\n");
            spawn_blocking(move || publish_ticket(&data.join("ticket"), &text))
                .await
                .map_err(|_| StartError::Ended)??;
        }
        let shared = Arc::new(Shared::new(authority, identity, store, driver, &options));
        shared.counters.registrations_restored.add(restored);
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let server = Self { shared, endpoint, address, bootstraps, ticket, stop, tasks, data: None };
        server.spawn_tasks(membership, options.transport);
        tracing::info!(%address, node = %server.id(), network = %server.network(), restored, "bootstrap started");
        Ok(server)
    }

    fn spawn_tasks(&self, membership: Membership, transport: TransportSettings) {
        let (shared, endpoint) = (Arc::clone(&self.shared), self.endpoint.clone());
        self.spawn(accept(shared, endpoint, self.tasks.clone()));
        let (shared, endpoint) = (Arc::clone(&self.shared), self.endpoint.clone());
        self.spawn(keep_certified(shared, endpoint, membership, transport));
        let shared = Arc::clone(&self.shared);
        self.spawn(async move {
            while AssertUnwindSafe(shared.driver.run_timers()).catch_unwind().await.is_err() {
                tracing::error!("the bootstrap failed over what was due, and goes on; please report this");
                sleep(AFTER_FAULT).await;
            }
        });
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        let task = task.boxed();
        self.tasks.spawn(async move { stop.run_until_cancelled(task).await });
    }

    /// The default ticket: for any number of nodes, for ever.
    #[must_use]
    pub const fn ticket(&self) -> &Ticket {
        &self.ticket
    }

    /// A ticket for something else. Nothing has to be remembered of it: the grant is in the ticket.
    ///
    /// # Panics
    /// Never: the default ticket was made in the same way.
    #[must_use]
    pub fn invite(&self, grant: Grant) -> Ticket {
        Ticket::issue(&self.shared.authority, self.bootstraps.clone(), grant)
            .expect("the addresses made a ticket before")
    }

    /// Where it listens.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Who it is.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.shared.identity.node_id()
    }

    /// The network whose bootstrap it is.
    #[must_use]
    pub fn network(&self) -> NetworkKey {
        self.shared.authority.public_key()
    }

    /// What it has counted.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.shared.counters()
    }

    /// Whether what must not be forgotten can be written.
    #[must_use]
    pub fn store_health(&self) -> StoreHealth {
        self.shared.store.health()
    }

    /// A view of it that others may hold.
    #[must_use]
    pub fn observe(&self) -> Observer {
        Observer { shared: Arc::clone(&self.shared), stop: self.stop.clone() }
    }

    /// Lets `f` look at the pool, which answers nobody in the meantime.
    pub fn inspect<T>(&self, f: impl FnOnce(&Bootstrap) -> T) -> T {
        self.shared.driver.with(|machine, _| f(machine))
    }

    /// Removes a node from the network, durably: its lease is gone, and from its next request on it is refused. Other
    /// members don't hear of it from here: until its certificate ends they still take its links.
    ///
    /// # Errors
    /// [`NotStored`] if it could not be made durable; then nothing has changed.
    pub fn remove(&self, node: NodeId) -> BoxFuture<'_, Result<(), NotStored>> {
        Box::pin(async move {
            self.shared.store.deny(node).await?;
            self.shared.driver.with(|machine, now| machine.revoke(node, now));
            tracing::info!(%node, "removed a node from the network");
            Ok(())
        })
    }

    /// Ends all connections, and stops. When this is done, another process may use the data directory.
    pub fn shutdown(self) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let code = BootstrapClose::ShuttingDown;
            self.endpoint.close(code.number().into(), code.as_str().as_bytes());
            self.stop.cancel();
            self.tasks.close();
            let _ = timeout(LAST_WORDS, async {
                self.tasks.wait().await;
                self.endpoint.wait_idle().await;
            })
            .await;
            // After the tasks, which may have had something to write.
            self.shared.store.close().await;
            tracing::info!("bootstrap stopped");
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
        let code = BootstrapClose::ShuttingDown;
        self.endpoint.close(code.number().into(), code.as_str().as_bytes());
    }
}

type OnDisk = (Option<DataDir>, Opened, Authority, Arc<Identity>);

/// What is on disk, or new. The directory's format comes first, as one of a later version is to stay as it is. Blocks.
fn open(data: Option<&Path>, kind: &dyn StoreKind) -> Result<OnDisk, StartError> {
    let Some(path) = data else {
        return Ok((None, kind.open(None)?, Authority::generate(), Arc::new(Identity::generate())));
    };
    format::check(path)?;
    let data = DataDir::open(path, Role::Bootstrap, datadir::TIMEOUT)?;
    let store = kind.open(Some(path))?;
    let (authority, identity) = (Authority::load_or_create(path)?, Identity::load_or_create(path)?);
    format::mark(path)?;
    Ok((Some(data), store, authority, Arc::new(identity)))
}

/// Writes the ticket's file, if it says anything else.
fn publish_ticket(path: &Path, text: &str) -> Result<(), KeyFileError> {
    if keyfile::load(path).is_ok_and(|known| known.as_deref() == Some(text)) {
        return Ok(());
    }
    keyfile::write_private(path, text)
}

/// The bootstrap's own certificate, good from now on.
fn certify(authority: &Authority, identity: &Arc<Identity>, validity: Duration) -> Membership {
    let issued = authority.issue_bootstrap(identity.public_key(), validity, Clock::wall());
    Membership::new(Arc::clone(identity), issued, authority.public_key())
}

/// What tickets name: what was asked for, or the address that the socket is bound to, or else those of the interfaces
/// that lead out of this machine, one for each IP family.
fn advertised(asked: &[String], local: Local) -> Vec<String> {
    if !asked.is_empty() {
        return asked.to_vec();
    }
    let mut addresses = local.addresses(&[]);
    if addresses.is_empty() {
        // A machine without addresses can still be its own network.
        addresses.push((Ipv4Addr::LOCALHOST, local.bound().port()).into());
    }
    if local.is_anywhere() {
        tracing::warn!(
            ?addresses,
            "the ticket names these addresses, the likeliest of this machine; if nodes reach it under others, name those with \
             --advertise"
        );
    }
    addresses.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests;
