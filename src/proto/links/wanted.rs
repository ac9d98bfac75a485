//! Who is wanted as a neighbour, until when, and when each is to be dialled (again).

use crate::backoff::Pauses;
use crate::id::NodeId;
use crate::time::Time;
use crate::timers::Timers;
use foldhash::{HashMap, HashMapExt};
use std::net::SocketAddr;
use std::time::Duration;

#[derive(Clone, Debug)]
pub(super) struct Demand {
    /// The preferred one first.
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) until: Time,
    /// Whether anybody here counts on the neighbour: one that nobody does is dialled once.
    pub(super) needed: bool,
}

#[derive(Debug)]
struct Wanted {
    demand: Demand,
    connecting: bool,
    failures: u32,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct WantedPeers {
    /// Between attempts to dial a neighbour.
    redial: Pauses,
    wanted: HashMap<NodeId, Wanted>,
    due: Timers<NodeId>,
}

impl WantedPeers {
    pub(super) fn new(redial: Pauses) -> Self {
        Self { redial, wanted: HashMap::new(), due: Timers::default() }
    }

    pub(super) fn len(&self) -> usize {
        self.wanted.len()
    }

    pub(super) fn contains(&self, peer: NodeId) -> bool {
        self.wanted.contains_key(&peer)
    }

    /// Whether `peer` could not be dialled the last time, or was found dead.
    pub(super) fn has_failed(&self, peer: NodeId) -> bool {
        self.wanted.get(&peer).is_some_and(|wanted| wanted.failures > 0)
    }

    /// Another demand for `peer`. Returns whether it may be dialled now.
    pub(super) fn add(&mut self, peer: NodeId, new: Demand) -> bool {
        let Some(wanted) = self.wanted.get_mut(&peer) else {
            self.wanted.insert(peer, Wanted { demand: new, connecting: false, failures: 0 });
            return true;
        };
        let demand = &mut wanted.demand;
        demand.addresses = new.addresses;
        demand.until = demand.until.max(new.until);
        demand.needed |= new.needed;
        // Whoever has failed is dialled when its pause is over.
        wanted.failures == 0
    }

    /// Nobody counts on `peer` any more.
    pub(super) fn release(&mut self, peer: NodeId) {
        if let Some(wanted) = self.wanted.get_mut(&peer) {
            wanted.demand.needed = false;
        }
    }

    pub(super) fn remove(&mut self, peer: NodeId) {
        self.wanted.remove(&peer);
        self.due.set(peer, None);
    }

    /// `peer` is to be dialled: where, unless that is under way.
    pub(super) fn dial(&mut self, peer: NodeId) -> Option<Vec<SocketAddr>> {
        let wanted = self.wanted.get_mut(&peer).filter(|wanted| !wanted.connecting)?;
        wanted.connecting = true;
        self.due.set(peer, None);
        Some(wanted.demand.addresses.clone())
    }

    /// There is a link to `peer`: nothing is due before the demand ends.
    pub(super) fn rest(&mut self, peer: NodeId, now: Time) {
        if let Some(wanted) = self.wanted.get(&peer) {
            // Never at this very moment, or what is due would never be done.
            self.due.set(peer, Some(wanted.demand.until.max(now + Duration::from_micros(1))));
        }
    }

    /// A link to `peer` has come up.
    pub(super) fn up(&mut self, peer: NodeId) {
        if let Some(wanted) = self.wanted.get_mut(&peer) {
            (wanted.connecting, wanted.failures) = (false, 0);
            self.due.set(peer, Some(wanted.demand.until));
        }
    }

    /// A link to `peer` came up and is turned away; it is dialled again then.
    pub(super) fn banned(&mut self, peer: NodeId, until: Time) {
        self.blame(peer, true);
        if let Some(wanted) = self.wanted.get_mut(&peer) {
            wanted.connecting = false;
            self.due.set(peer, Some(until));
        }
    }

    /// The link to `peer` is no more, which was suspect or not; it is dialled again then.
    pub(super) fn lost(&mut self, peer: NodeId, suspect: bool, again: Time) {
        // A link that ended while its peer was heard says nothing against the peer.
        self.blame(peer, suspect);
        if self.wanted.contains_key(&peer) {
            self.due.set(peer, Some(again));
        }
    }

    /// `peer` counts as one that failed.
    pub(super) fn blame(&mut self, peer: NodeId, failed: bool) {
        if let Some(wanted) = self.wanted.get_mut(&peer) {
            wanted.failures = wanted.failures.max(failed.into());
        }
    }

    /// Dialling `peer` came to nothing. Returns whether it looked good until now.
    pub(super) fn failed(&mut self, peer: NodeId, now: Time) -> bool {
        let Some(wanted) = self.wanted.get_mut(&peer) else { return false };
        wanted.connecting = false;
        if !wanted.demand.needed {
            return self.wanted.remove(&peer).is_some_and(|wanted| wanted.failures == 0);
        }
        let pause = self.redial.after(wanted.failures);
        wanted.failures += 1;
        self.due.set(peer, Some(now + pause));
        wanted.failures == 1
    }

    /// A neighbour for whom something is due, and whether the demand for it has ended.
    pub(super) fn pop_due(&mut self, now: Time) -> Option<(NodeId, bool)> {
        let peer = self.due.pop_due(now)?;
        Some((peer, self.wanted.get(&peer).is_some_and(|wanted| wanted.demand.until <= now)))
    }

    pub(super) const fn next_due(&self) -> Option<Time> {
        self.due.next()
    }
}
