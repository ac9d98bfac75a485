//! The pool agrees with who is alive, within bounds.

use super::World;
use hopline_proto::bootstrap::kept::{Key, Kind};
use hopline_proto::pool::Relay;
use std::time::Duration;

/// A dead relay may be assignable for a lease, and as long again while the pool suspects itself.
const DEAD_BOUND_LEASES: u32 = 2;
/// A living one may be missing for as long as a node waits at most that met no bootstrap (80 s and a fifth), and a while.
const LIVING_BOUND: Duration = Duration::from_secs(120);

impl World {
    /// A bootstrap has started again and given these their places back: each relay has it for a lease at least.
    pub(crate) fn check_restored(&mut self, restored: &[Key]) {
        let lease = self.settings.bootstrap.pool.lease;
        let Some(bootstrap) = &self.bootstrap_process.bootstrap else { return };
        let has_grace = |relay: &Relay| relay.is_assignable() && relay.lease_left(self.now) >= lease;
        let relays = restored.iter().filter(|key| key.kind == Kind::Relay);
        let without =
            relays.map(|key| key.node).find(|node| !bootstrap.pool().get(node).is_some_and(has_grace));
        if let Some(node) = without {
            let now = self.now;
            self.checks.fail(
                "restore",
                now,
                format!("{node:?} has its place back without the grace of a lease"),
            );
        }
    }

    /// Compares the pool with the truth. To be asked while the bootstrap is up and reachable, since that long.
    pub(crate) fn check_pool(&mut self, reachable_for: Duration) {
        let Some(bootstrap) = &self.bootstrap_process.bootstrap else { return };
        let pool = bootstrap.pool();
        let may_stay = self.settings.bootstrap.pool.lease * DEAD_BOUND_LEASES;
        let mut wrong = None;
        for (index, node) in self.nodes.iter().filter(|(_, node)| node.is_relay()) {
            let relay = pool.get(&node.id);
            let (known, gone) = (relay.is_some_and(Relay::is_assignable), relay.is_none_or(Relay::is_gone));
            let since = self.since(index).min(reachable_for);
            // It may be suspect for the moment: somebody may have missed a few of its heartbeats.
            if node.is_alive() && !node.frozen && gone && since > LIVING_BOUND {
                wrong = Some(format!("r{index} has been alive for {since:?}, and is not in the pool"));
            }
            if !node.is_alive() && known && since > may_stay && pool.preserving_since().is_none() {
                wrong = Some(format!("r{index} has been dead for {since:?}, and is in the pool"));
            }
        }
        if let Some(what) = wrong {
            let now = self.now;
            self.checks.fail("pool", now, what);
        }
    }
}
