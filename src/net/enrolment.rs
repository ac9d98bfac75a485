//! What becomes of a node's place in the pool, for whoever watches the node: each change, and how often what has happened.

use crate::proto::enrolment::{Change, Counters};
use tokio::sync::{broadcast, watch};

/// Changes that a slow subscriber may lag behind.
const QUEUED_CHANGES: usize = 64;

/// Passes on what a node's machine tells of its lease.
#[derive(Debug)]
pub(crate) struct Feed {
    changes: broadcast::Sender<Change>,
    counters: watch::Sender<Counters>,
}

impl Default for Feed {
    fn default() -> Self {
        Self { changes: broadcast::Sender::new(QUEUED_CHANGES), counters: watch::Sender::default() }
    }
}

impl Feed {
    pub(crate) fn tell(&self, change: Change, counters: Counters) {
        self.counters.send_replace(counters);
        // Fails only if nobody watches.
        let _ = self.changes.send(change);
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Change> {
        self.changes.subscribe()
    }

    pub(crate) fn counters(&self) -> Counters {
        *self.counters.borrow()
    }
}
