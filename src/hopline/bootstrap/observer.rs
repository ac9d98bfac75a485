//! An operator's view of a bootstrap: read-only, and valid at any time, also while it stops.

use super::counters::Counters;
use super::events::{BootstrapEvent, EventCounts};
use super::metrics::Metrics;
use super::server::Shared;
use crate::net::authority::NetworkKey;
use crate::store::StoreHealth;
use hopline_proto::admission;
use hopline_proto::bootstrap::Bootstrap;
use hopline_proto::{NodeId, Time};
use std::sync::Arc;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

/// A view of a bootstrap. Copies look at the same one.
#[derive(Clone, Debug)]
pub struct Observer {
    pub(super) shared: Arc<Shared>,
    pub(super) stop: CancellationToken,
}

impl Observer {
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

    /// What became of those who wanted to connect.
    #[must_use]
    pub fn admission(&self) -> admission::Counters {
        self.shared.gate.counters()
    }

    /// When it started.
    #[must_use]
    pub fn started_at(&self) -> Time {
        self.shared.driver.started_at()
    }

    /// What it has counted.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.shared.counters()
    }

    /// Lets `f` look at the pool at the present time. It answers nobody in the meantime, so `f` is to be short.
    pub fn inspect<T>(&self, f: impl FnOnce(&Bootstrap, Time) -> T) -> T {
        self.shared.driver.with(|machine, now| f(machine, now))
    }

    /// What happens to the pool from now on.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<BootstrapEvent> {
        self.shared.driver.event_feed().subscribe()
    }

    /// Whether it takes no more questions, as it is about to end.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Whether what must not be forgotten can be written.
    #[must_use]
    pub fn store_health(&self) -> StoreHealth {
        self.shared.store.health()
    }

    /// Lets a test be every node there is.
    #[cfg(test)]
    pub(crate) fn change<T>(&self, f: impl FnOnce(&mut Bootstrap, Time) -> T) -> T {
        self.shared.driver.with(f)
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    pub(crate) fn event_counts(&self) -> EventCounts {
        self.shared.driver.event_feed().counts()
    }
}
