//! Failure domains: finds relays that share none with those that a chain has, in a pool of any size.
//!
//! The relays of each zone are a dense list of their own, so that one can be drawn at random from those zones that a chain
//! is not in, in proportion to their sizes. Where most of a zone's relays share a subnet with the chain, the zone is
//! searched. A zone without a name is unknown, so it is shared by nobody.

use super::relay::Relay;
use super::subnet::Subnet;
use crate::id::NodeId;
use foldhash::HashMap;
use rand::RngExt;
use std::collections::BTreeMap;

/// Of more zones than this, as many are looked at, from a random one on.
const MAX_ZONES: usize = 256;
/// How often a relay of a zone is drawn for one that fits. Where none does, zones are searched,
const DRAWS: usize = 4;
/// so many relays of each.
const MAX_SEARCH: usize = 4096;

/// Zones and subnets that will not do.
#[derive(Clone, Debug, Default)]
pub struct Apart<'a> {
    /// The zones; the one without a name does not count.
    pub zones: Vec<&'a str>,
    /// The subnets.
    pub subnets: Vec<Subnet>,
}

/// The assignable relays, by domain.
#[derive(Debug, Default)]
pub(super) struct Domains {
    zones: BTreeMap<String, Vec<Member>>,
    /// Place of each relay in its zone's list.
    places: HashMap<NodeId, usize>,
}

#[derive(Clone, Copy, Debug)]
struct Member {
    node: NodeId,
    subnet: Subnet,
}

impl Domains {
    pub(super) fn insert(&mut self, relay: &Relay) {
        // `Pool::reoffer` puts it in, and the change that it makes may have done so before.
        if self.places.contains_key(&relay.node) {
            return;
        }
        let zone = self.zones.entry(relay.offer().zone.clone()).or_default();
        self.places.insert(relay.node, zone.len());
        zone.push(Member { node: relay.node, subnet: relay.subnet() });
    }

    pub(super) fn remove(&mut self, relay: &Relay) {
        let Some(place) = self.places.remove(&relay.node) else { return };
        let Some(zone) = self.zones.get_mut(&relay.offer().zone) else { return };
        zone.swap_remove(place);
        if let Some(moved) = zone.get(place) {
            self.places.insert(moved.node, place);
        }
        if zone.is_empty() {
            self.zones.remove(&relay.offer().zone);
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        assert_eq!(self.zones.values().map(Vec::len).sum::<usize>(), self.places.len());
        self.places.len()
    }

    /// Up to `count` relays apart that are good enough, drawn at random; some of them may be the same.
    pub(super) fn draw(
        &self,
        apart: &Apart<'_>,
        count: usize,
        rng: &mut impl rand::Rng,
        good: impl Fn(&NodeId) -> bool,
    ) -> Vec<NodeId> {
        let zones = self.zones_apart(apart, rng);
        let total: usize = zones.iter().map(|zone| zone.len()).sum();
        let fits = |member: &Member| !apart.subnets.contains(&member.subnet) && good(&member.node);
        // No number can be drawn below zero.
        let count = if total == 0 { 0 } else { count };
        let mut drawn: Vec<NodeId> = (0..count)
            .filter_map(|_| draw_from(pick(&zones, rng.random_range(0..total))?, rng, fits))
            .collect();
        if drawn.is_empty() {
            drawn.extend(zones.iter().find_map(|zone| search(zone, rng, fits)));
        }
        drawn
    }

    fn zones_apart(&self, apart: &Apart<'_>, rng: &mut impl rand::Rng) -> Vec<&[Member]> {
        let skip = rng.random_range(0..self.zones.len().saturating_sub(MAX_ZONES) + 1);
        let will_do = |name: &str| name.is_empty() || !apart.zones.contains(&name);
        let zones = self.zones.iter().skip(skip).take(MAX_ZONES);
        zones.filter(|(name, _)| will_do(name)).map(|(_, zone)| zone.as_slice()).collect()
    }
}

/// The zone in which the member with this number is, counted through all of them.
fn pick<'z>(zones: &[&'z [Member]], mut number: usize) -> Option<&'z [Member]> {
    for zone in zones {
        if number < zone.len() {
            return Some(zone);
        }
        number -= zone.len();
    }
    None
}

/// A random member of the zone, if one of a few fits.
fn draw_from(zone: &[Member], rng: &mut impl rand::Rng, fits: impl Fn(&Member) -> bool) -> Option<NodeId> {
    let drawn = (0..DRAWS).filter_map(|_| zone.get(rng.random_range(0..zone.len())));
    drawn.filter(|member| fits(member)).map(|member| member.node).next()
}

/// The first member of the zone that fits, from a random one on.
fn search(zone: &[Member], rng: &mut impl rand::Rng, fits: impl Fn(&Member) -> bool) -> Option<NodeId> {
    let (before, after) = zone.split_at_checked(rng.random_range(0..zone.len()))?;
    let found = after.iter().chain(before).take(MAX_SEARCH).find(|member| fits(member));
    found.map(|member| member.node)
}

#[cfg(test)]
mod tests {
    use super::super::{Config, Pool, RelayOffer};
    use super::*;
    use crate::rpc::Capabilities;
    use crate::time::Time;
    use rand::SeedableRng;
    use rand::rngs::StdRng;
    use std::collections::BTreeSet;

    /// One relay in each of these zones and subnets.
    fn pool(domains: &[(&str, u8)]) -> Pool {
        let mut pool = Pool::new(Config::default());
        for (n, (zone, subnet)) in (0..).zip(domains) {
            let offer = RelayOffer {
                name: format!("r{n}"),
                addresses: vec![([10, 0, *subnet, n], 1).into()],
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
        let drawn = pool.draw_apart(&apart, 200, &mut rng, |_| true);
        drawn.iter().map(|relay| relay.node.as_bytes()[0]).collect()
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
            addresses: vec![([10, 0, 1, 0], 1).into()],
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
