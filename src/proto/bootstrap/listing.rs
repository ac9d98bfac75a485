//! Listings: what there is, as far as it fits a frame.

use super::Bootstrap;
use crate::codec;
use crate::id::NodeId;
use crate::pool::Relay;
use crate::pool::targets::Target;
use crate::rpc::{Listing, RelayInfo, TargetInfo};
use crate::time::Time;
use serde::Serialize;

/// Most relays in a listing.
const MAX_RELAYS: usize = 300;
/// Most bytes that its relays may take.
const MAX_RELAY_BYTES: usize = 40 * 1024;
/// Most bytes that its targets may take.
const MAX_TARGET_BYTES: usize = 20 * 1024;

impl Bootstrap {
    pub(super) fn listing(&self, now: Time) -> Listing {
        let relays = self.first_relays().into_iter().map(|relay| relay_info(relay, now));
        let targets = self.targets.iter_by_name().map(|target| self.target_info(target, now));
        Listing {
            now: self.time.at(now),
            uptime: now.since(self.started_at),
            relays: fitting(relays, MAX_RELAY_BYTES),
            targets: fitting(targets, MAX_TARGET_BYTES),
            counts: self.pool.counts(),
            preserving: self.pool.preserving_since().map(|since| now.since(since)),
        }
    }

    /// The first relays by name, without sorting the rest.
    fn first_relays(&self) -> Vec<&Relay> {
        let by_name = |a: &&Relay, b: &&Relay| (&a.offer().name, a.node).cmp(&(&b.offer().name, b.node));
        let mut relays: Vec<&Relay> = self.pool.iter().collect();
        if relays.len() > MAX_RELAYS {
            relays.select_nth_unstable_by(MAX_RELAYS, by_name);
            relays.truncate(MAX_RELAYS);
        }
        relays.sort_unstable_by(by_name);
        relays
    }

    /// A target as listings show it.
    #[must_use]
    pub fn target_info(&self, target: &Target, now: Time) -> TargetInfo {
        let name = |node: &NodeId| {
            self.pool.get(node).map_or_else(|| node.short(), |relay| relay.offer().name.clone())
        };
        TargetInfo {
            node: target.node,
            names: target.names.iter().cloned().collect(),
            attachments: target.attachments.iter().map(name).collect(),
            lease_left: target.lease_ends.since(now),
        }
    }
}

/// A relay, as listings tell of it.
pub fn relay_info(relay: &Relay, now: Time) -> RelayInfo {
    let offer = relay.offer();
    RelayInfo {
        node: relay.node,
        name: offer.name.clone(),
        status: relay.status,
        zone: offer.zone.clone(),
        load: relay.load(),
        capacity: offer.capacity,
        version: offer.version.clone(),
        capabilities: offer.capabilities,
        age: now.since(relay.registered_at),
        lease_left: relay.lease_left(now),
    }
}

/// As many as fit so many bytes.
fn fitting<T: Serialize>(items: impl Iterator<Item = T>, mut bytes: usize) -> Vec<T> {
    let mut fits = |item: &T| {
        let length = codec::to_bytes(item).len();
        let enough = length <= bytes;
        bytes = bytes.saturating_sub(length);
        enough
    };
    items.take_while(|item| fits(item)).collect()
}
