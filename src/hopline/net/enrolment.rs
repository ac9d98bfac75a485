//! Changes of a node's lease, and counts of them, for its observers.

use super::outage::Outage;
use hopline_proto::enrolment::{Change, Counters, Trouble};
use std::time::Duration;
use tokio::sync::{broadcast, watch};

/// Changes that a slow subscriber may lag behind.
const QUEUED_CHANGES: usize = 64;

/// Passes on what a node's machine tells of its lease.
#[derive(Debug)]
pub(crate) struct Feed {
    changes: broadcast::Sender<Change>,
    counters: watch::Sender<Counters>,
    outage: Outage,
}

impl Default for Feed {
    fn default() -> Self {
        Self {
            changes: broadcast::Sender::new(QUEUED_CHANGES),
            counters: watch::Sender::default(),
            outage: Outage::default(),
        }
    }
}

impl Feed {
    pub(crate) fn tell(&self, change: Change, counters: Counters) {
        self.log(&change);
        self.counters.send_replace(counters);
        // Fails only if nobody watches.
        let _ = self.changes.send(change);
    }

    fn log(&self, change: &Change) {
        match change {
            Change::Registered | Change::Renewed => {
                if let Some(lasted) = self.outage.is_over() {
                    tracing::info!(after_seconds = lasted.as_secs(), "registered with the bootstrap again");
                }
            }
            Change::Trouble(Trouble::Rejected { .. }) | Change::Left => {} // whoever asked is told
            Change::Trouble(cause) => match self.outage.goes_on() {
                Some(Duration::ZERO) => {
                    tracing::warn!(%cause, "not registered with the bootstrap; still trying")
                }
                Some(lasted) => {
                    tracing::warn!(%cause, for_seconds = lasted.as_secs(), "still not registered with the bootstrap");
                }
                None => tracing::debug!(%cause, "still not registered with the bootstrap"),
            },
        }
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Change> {
        self.changes.subscribe()
    }

    pub(crate) fn counters(&self) -> Counters {
        *self.counters.borrow()
    }
}
