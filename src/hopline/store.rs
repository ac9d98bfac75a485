//! What bootstraps must not forget: who registered what, which node each single-use ticket admitted, and which nodes were
//! removed.
//!
//! A store is one bootstrap's own ([`redb`]: a file in its data directory). Another kind is a file here that implements [`StoreKind`] and
//! [`Store`]. What is in it at the start comes with opening it ([`Opened`]).
//!
//! Invariants: what a store called durable is there after any end of this process; of two changes to one record the later
//! call wins, whenever they are written. A store that can't write keeps registrations in memory and writes them once it can,
//! and its [`StoreHealth`] says so; grants and removals from the network it refuses meanwhile.
//!
//! It doesn't know what a registration means, and nothing of leases and heartbeats: who lives is not stored.

mod codec;
mod error;
pub mod format;
pub mod redb;

pub use error::{NotStored, StoreError};
pub use hopline_proto::bootstrap::kept::{Key, Kind};

use futures_util::future::BoxFuture;
use hopline_proto::bootstrap::Registration;
use hopline_proto::{NodeId, Time};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// Whose a single-use ticket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// The one's who asked, now or before.
    Asker,
    /// Another node's.
    Another,
}

/// How a store does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreHealth {
    /// What keeps it from writing, if anything does.
    pub failing: Option<StoreFailure>,
    /// Registrations, and removals of such, that are in memory alone.
    pub unsaved: usize,
    /// How often something was made durable since the start; one write takes all that waits.
    pub writes: u64,
    /// How often that failed.
    pub failures: u64,
}

/// Why a store can't write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreFailure {
    /// Since when, by the wall clock.
    pub since: Time,
    /// What went wrong last.
    pub cause: String,
}

/// A store, just opened.
#[derive(Debug)]
pub struct Opened {
    /// The store.
    pub store: Arc<dyn Store>,
    /// All registrations in it.
    pub registrations: Vec<Registration>,
}

/// A kind of store, and whatever it takes to open one.
pub trait StoreKind: fmt::Debug + Send + Sync {
    /// Opens the store of the bootstrap that has this data directory; `None` is one that ends with the process. Blocks.
    ///
    /// # Errors
    /// [`StoreError`].
    fn open(&self, directory: Option<&Path>) -> Result<Opened, StoreError>;
}

/// See the module's documentation. Every method takes effect when it is called, in that order; the futures only wait.
pub trait Store: fmt::Debug + Send + Sync {
    /// Keeps a registration, which this bootstrap then owns, in place of the node's last one of that kind. Nothing is
    /// written if that one says the same.
    ///
    /// [`NotStored`] says that it is in memory alone for now.
    fn put(&self, registration: Registration) -> BoxFuture<'static, Result<(), NotStored>>;

    /// Forgets a registration.
    ///
    /// [`NotStored`] says that it is still there for now, to be removed with the next write.
    fn remove(&self, key: Key) -> BoxFuture<'static, Result<(), NotStored>>;

    /// All registrations, those included that were put before this was called.
    ///
    /// [`NotStored`] says that they can't be read, or not all be written.
    fn registrations(&self) -> BoxFuture<'static, Result<Vec<Registration>, NotStored>>;

    /// Gives a single-use ticket to `node` if it is nobody's yet, durably; whose it is then.
    ///
    /// [`NotStored`] says that nothing has changed.
    fn bind(&self, grant: [u8; 16], node: NodeId) -> BoxFuture<'static, Result<Holder, NotStored>>;

    /// Removes `node` from the network, durably.
    ///
    /// [`NotStored`] says that nothing has changed.
    fn deny(&self, node: NodeId) -> BoxFuture<'static, Result<(), NotStored>>;

    /// Whether `node` was removed from the network. Asked for each request.
    fn is_denied(&self, node: &NodeId) -> bool;

    /// All nodes that were.
    fn denied(&self) -> Vec<NodeId>;

    /// How it does.
    fn health(&self) -> StoreHealth;

    /// Writes what waits, and closes: then another process may open what is this bootstrap's own.
    fn close(&self) -> BoxFuture<'_, ()>;
}
