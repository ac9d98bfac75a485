//! Failure domains: finds a relay that shares none with those that a chain has, in a pool of any size.
//!
//! The relays are ordered by zone, then by subnet, so that a zone or a subnet that will not do is passed over in one step,
//! however many relays are in it. A zone without a name is unknown, so it is shared by nobody.

use super::relay::{Relay, Subnet};
use crate::proto::id::NodeId;
use std::collections::BTreeSet;
use std::ops::Bound;

/// Steps after which a search is given up: a chain has far fewer domains than this.
const MAX_STEPS: usize = 256;

/// Zones and subnets that will not do.
#[derive(Clone, Debug, Default)]
pub struct Apart<'a> {
    /// The zones; the one without a name does not count.
    pub zones: Vec<&'a str>,
    /// The subnets.
    pub subnets: Vec<Subnet>,
}

type Key = (String, Subnet, NodeId);

/// The assignable relays, by domain.
#[derive(Debug, Default)]
pub(super) struct Domains(BTreeSet<Key>);

fn key_of(relay: &Relay) -> Key {
    (relay.zone.clone(), relay.subnet(), relay.node)
}

impl Domains {
    pub(super) fn insert(&mut self, relay: &Relay) {
        self.0.insert(key_of(relay));
    }

    pub(super) fn remove(&mut self, relay: &Relay) {
        self.0.remove(&key_of(relay));
    }

    /// The first relay apart, from this one on and then from the beginning.
    pub(super) fn first_apart(&self, from: &Relay, apart: &Apart<'_>) -> Option<&NodeId> {
        let from = key_of(from);
        let upper = self.search(Bound::Included(from.clone()), Bound::Unbounded, apart);
        upper.or_else(|| self.search(Bound::Unbounded, Bound::Excluded(from), apart))
    }

    fn search(&self, mut from: Bound<Key>, to: Bound<Key>, apart: &Apart<'_>) -> Option<&NodeId> {
        for _ in 0..MAX_STEPS {
            if let (Bound::Included(from) | Bound::Excluded(from), Bound::Excluded(to)) = (&from, &to)
                && from >= to
            {
                return None;
            }
            let (zone, subnet, node) = self.0.range((from, to.clone())).next()?;
            from = if !zone.is_empty() && apart.zones.contains(&zone.as_str()) {
                Bound::Included(behind_zone(zone))
            } else if apart.subnets.contains(subnet) {
                Bound::Excluded((zone.clone(), *subnet, NodeId::from_bytes([0xff; 32])))
            } else {
                return Some(node);
            };
        }
        None
    }
}

/// Before the first relay of the next zone: no name contains a NUL.
fn behind_zone(zone: &str) -> Key {
    (format!("{zone}\0"), Subnet::V4([0; 3]), NodeId::from_bytes([0; 32]))
}

#[cfg(test)]
mod tests {
    use super::super::{Config, Pool, RelayOffer};
    use super::*;
    use crate::proto::rpc::Capabilities;
    use crate::proto::time::Time;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    /// One relay in each of these zones and subnets.
    fn pool(domains: &[(&str, u8)]) -> Pool {
        let mut pool = Pool::new(Config::default());
        for (n, (zone, subnet)) in (0..).zip(domains) {
            let offer = RelayOffer {
                name: format!("r{n}"),
                address: ([10, 0, *subnet, n], 1).into(),
                zone: (*zone).to_owned(),
                capacity: 1,
                version: String::new(),
                capabilities: Capabilities::default(),
            };
            pool.register(NodeId::from_bytes([n; 32]), offer, Time::ZERO).unwrap();
        }
        pool
    }

    fn found(pool: &Pool, zones: &[&str], subnets: &[u8]) -> BTreeSet<u8> {
        let subnets = subnets.iter().map(|subnet| Subnet::V4([10, 0, *subnet])).collect();
        let apart = Apart { zones: zones.to_vec(), subnets };
        let mut rng = StdRng::seed_from_u64(1);
        let drawn = (0..200).filter_map(|_| pool.draw_apart(&apart, &mut rng));
        drawn.map(|relay| relay.node.as_bytes()[0]).collect()
    }

    #[test]
    fn whoever_is_apart_is_found_and_nobody_else() {
        let pool = pool(&[("a", 1), ("a", 2), ("ab", 1), ("b", 3), ("", 4), ("", 1), ("c", 9)]);
        assert_eq!(found(&pool, &[], &[]), (0..7).collect());
        assert_eq!(found(&pool, &["a"], &[]), [2, 3, 4, 5, 6].into());
        assert_eq!(found(&pool, &["a", ""], &[1]), [3, 4, 6].into(), "no zone is no zone in common");
        assert_eq!(found(&pool, &["a", "ab", "b", "c"], &[1]), [4].into());
        assert_eq!(found(&pool, &["a", "ab", "b", "c"], &[1, 4]), BTreeSet::new());
    }

    #[test]
    fn it_follows_what_relays_say_and_who_may_be_assigned() {
        let mut pool = pool(&[("a", 1), ("b", 2)]);
        let moved = RelayOffer {
            name: "r0".to_owned(),
            address: ([10, 0, 1, 0], 1).into(),
            zone: "c".to_owned(),
            capacity: 1,
            version: String::new(),
            capabilities: Capabilities::default(),
        };
        pool.register(NodeId::from_bytes([0; 32]), moved.clone(), Time::ZERO).unwrap();
        assert_eq!(found(&pool, &["b", "c"], &[]), BTreeSet::new());
        assert_eq!(found(&pool, &["a", "b"], &[]), [0].into());
        let hidden = RelayOffer { capabilities: Capabilities { reachable: false, bridge: false }, ..moved };
        pool.register(NodeId::from_bytes([0; 32]), hidden, Time::ZERO).unwrap();
        assert_eq!(found(&pool, &[], &[]), [1].into());
        pool.drain(&NodeId::from_bytes([1; 32]), Time::ZERO);
        assert_eq!(found(&pool, &[], &[]), BTreeSet::new());
    }
}
