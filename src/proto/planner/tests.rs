use super::criteria::Shared;
use super::*;
use crate::pool::{Config, RelayOffer};
use crate::rpc::{Capabilities, Heartbeat, Load};
use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::net::SocketAddr;
use std::time::Duration;

mod families;

fn at(s: u64) -> Time {
    Time::ZERO + Duration::from_secs(s)
}

fn node(n: u32) -> NodeId {
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&n.to_be_bytes());
    NodeId::from_bytes(bytes)
}

fn address(host: [u8; 4], n: u32) -> SocketAddr {
    (host, u16::try_from(1000 + n).unwrap()).into()
}

fn offer(address: SocketAddr, zone: &str, capacity: u32) -> RelayOffer {
    RelayOffer {
        name: "r".to_owned(),
        addresses: vec![address],
        zone: zone.to_owned(),
        capacity,
        version: String::new(),
        capabilities: Capabilities::default(),
    }
}

fn empty() -> Pool {
    Pool::new(Config::default())
}

/// `count` relays that fail independently as far as one can tell.
fn scattered(count: u32) -> Pool {
    let mut pool = empty();
    for n in 0..count {
        let [_, _, high, low] = n.to_be_bytes();
        pool.register(node(n), offer(address([10, high, low, 1], 0), "", 100), at(0)).unwrap();
    }
    pool
}

/// `count` relays on one host.
fn loopback(count: u32) -> Pool {
    let mut pool = empty();
    for n in 0..count {
        pool.register(node(n), offer(address([127, 0, 0, 1], n), "", 100), at(0)).unwrap();
    }
    pool
}

fn beat(flows: u32, now: Time) -> Heartbeat {
    let load = Load { flows, ..Load::default() };
    Heartbeat { sequence: now.as_micros(), sent_at: now, load, key_epoch: None }
}

fn rng() -> StdRng {
    StdRng::seed_from_u64(1)
}

fn nodes(plan: &Plan<'_>) -> Vec<NodeId> {
    plan.hops
        .iter()
        .flat_map(|hop| [Some(hop.primary), hop.backup])
        .flatten()
        .map(|relay| relay.node)
        .collect()
}

#[test]
fn on_one_host_everything_is_planned_without_complaint() {
    let pool = loopback(6);
    let rng = &mut rng();
    let plan = Planner::new(&pool, at(1), rng).plan(3, &[node(4), node(2)], &[]).unwrap();
    assert!(plan.unprotected().is_empty());
    let last = plan.hops[2];
    assert_eq!((last.primary.node, last.backup.map(|relay| relay.node)), (node(4), Some(node(2))));
    let mut all = nodes(&plan);
    all.sort();
    assert_eq!(all, (0..6).map(node).collect::<Vec<_>>(), "each relay once");
}

#[test]
fn primaries_come_before_backups_and_missing_backups_are_said() {
    let pool = loopback(4);
    let rng = &mut rng();
    let plan = Planner::new(&pool, at(1), rng).plan(3, &[node(0), node(1)], &[]).unwrap();
    assert_eq!(plan.hops[2].backup.map(|relay| relay.node), Some(node(1)), "its spare was avoided");
    assert!(plan.unprotected().is_empty(), "it stands by for the others, too");
    let plan = Planner::new(&pool, at(1), rng).plan(4, &[node(0), node(1)], &[]).unwrap();
    assert_eq!(plan.unprotected(), [1, 2, 3, 4], "the spare is needed as a primary");
    let refused = Planner::new(&pool, at(1), rng).plan(5, &[node(0), node(1)], &[]);
    assert_eq!(refused.unwrap_err(), PlanError::TooSmall { need: 5, have: 4 });
    let refused = Planner::new(&pool, at(1), rng).plan(3, &[node(0)], &[node(1), node(2)]);
    assert_eq!(refused.unwrap_err(), PlanError::TooSmall { need: 3, have: 2 });
}

#[test]
fn one_hop_needs_only_the_attachments() {
    let pool = loopback(2);
    let rng = &mut rng();
    let plan = Planner::new(&pool, at(1), rng).plan(1, &[node(1), node(0)], &[]).unwrap();
    assert_eq!((nodes(&plan), plan.unprotected()), (vec![node(1), node(0)], vec![]));
    let plan = Planner::new(&pool, at(1), rng).plan(1, &[node(1), node(0)], &[node(1)]).unwrap();
    assert_eq!((nodes(&plan), plan.unprotected()), (vec![node(0)], vec![1]));
    let refused = Planner::new(&pool, at(1), rng).plan(1, &[node(7)], &[]);
    assert_eq!(refused.unwrap_err(), PlanError::NotAttached);
}

#[test]
fn a_suspect_attachment_is_better_than_none() {
    let mut pool = loopback(3);
    let attachments = [0, 0, 1, 2].map(node);
    let attached = |pool: &Pool| -> Vec<NodeId> {
        attached(pool, &attachments, &[]).iter().map(|relay| relay.node).collect()
    };
    pool.report_down(&node(0), node(9), at(1));
    pool.drain(&node(1), at(1));
    assert_eq!(attached(&pool), [node(2)]);
    pool.deregister(&node(2), at(1));
    assert_eq!(attached(&pool), [node(0)], "who drains takes no new flows");
}

#[test]
fn failure_domains_are_kept_apart_as_far_as_the_pool_allows() {
    let mut pool = empty();
    for zone in 0..3u8 {
        for n in 0..6u8 {
            let number = u32::from(zone * 6 + n);
            let host = [10, zone, n / 2, n % 2 + 1];
            let zone = ["a", "b", "c"][usize::from(zone)];
            pool.register(node(number), offer(address(host, 0), zone, 100), at(0)).unwrap();
        }
    }
    for seed in 0..50 {
        let rng = &mut StdRng::seed_from_u64(seed);
        let plan = Planner::new(&pool, at(1), rng).plan(3, &[node(0), node(6)], &[]).unwrap();
        let zones: Vec<&str> = plan.hops.iter().map(|hop| hop.primary.offer().zone.as_str()).collect();
        assert!(zones[0] != zones[1] && zones[1] != zones[2] && zones[0] != zones[2], "{zones:?}");
        for hop in &plan.hops {
            assert!(!hop.primary.shares_zone(hop.backup.unwrap()));
        }
    }
}

#[test]
fn the_least_loaded_is_chosen_and_nobody_is_overfilled() {
    let mut pool = scattered(40);
    for n in 0..40 {
        pool.heartbeat(&node(n), &beat(if n == 7 { 10 } else { 50 }, at(1)), at(1));
    }
    let mut rng = rng();
    let mut flows = [0u32; 40];
    for _ in 0..500 {
        let first =
            Planner::new(&pool, at(1), &mut rng).plan(2, &[node(0)], &[]).unwrap().hops[0].primary.node;
        flows[(0..40).find(|n| node(*n) == first).unwrap() as usize] += 1;
        pool.assign(&first);
    }
    assert!(flows[7] >= 40, "{}", flows[7]);
    assert!(flows.iter().skip(1).all(|flows| (5..60).contains(flows)), "{flows:?}");
    for n in 1..40 {
        pool.heartbeat(&node(n), &beat(100, at(2)), at(2));
    }
    let refused = Planner::new(&pool, at(2), &mut rng).plan(2, &[node(0)], &[]);
    assert_eq!(refused.unwrap_err(), PlanError::TooSmall { need: 2, have: 1 }, "all others are full");
}

#[test]
fn the_one_relay_that_fits_is_found_in_a_large_pool() {
    let mut pool = scattered(5000);
    for n in 0..5000 {
        pool.heartbeat(&node(n), &beat(if n == 4321 { 99 } else { 100 }, at(1)), at(1));
    }
    let rng = &mut rng();
    let plan = Planner::new(&pool, at(1), rng).plan(2, &[node(0)], &[]).unwrap();
    assert_eq!(plan.hops[0].primary.node, node(4321));
    assert_eq!(plan.unprotected(), [1, 2]);
}

#[test]
fn load_spreads_by_capacity_over_a_large_pool() {
    let mut pool = empty();
    for n in 0..400u32 {
        let [_, _, high, low] = n.to_be_bytes();
        let capacity = if n % 4 == 0 { 400 } else { 100 };
        pool.register(node(n), offer(address([10, high, low, 1], 0), "", capacity), at(0)).unwrap();
    }
    let mut rng = rng();
    for _ in 0..20_000 {
        let plan = Planner::new(&pool, at(1), &mut rng).plan(2, &[node(0)], &[]).unwrap();
        let first = plan.hops[0].primary.node;
        pool.assign(&first);
    }
    let used = |relay: &Relay| f64::from(relay.flows()) / f64::from(relay.capacity);
    let most = pool.iter().map(used).fold(0.0, f64::max);
    let mean = 20_000.0 / (100.0 * 400.0 + 300.0 * 100.0);
    assert!(most < mean * 1.15, "{most} where {mean} is the mean");
}

#[test]
fn backups_are_those_that_have_stayed_long() {
    let mut pool = Pool::new(Config { lease: Duration::from_secs(200_000), ..Config::default() });
    for n in 0..30u32 {
        let [.., low] = n.to_be_bytes();
        let registered_at = if n < 3 { at(0) } else { at(86_000) };
        pool.register(node(n), offer(address([10, 0, low, 1], 0), "", 100), registered_at).unwrap();
    }
    let rng = &mut rng();
    let old = &[node(0), node(1), node(2)];
    for _ in 0..20 {
        let plan = Planner::new(&pool, at(86_400), rng).plan(2, &[node(9)], &[]).unwrap();
        let hop = plan.hops[0];
        let others_old = old.iter().any(|old| *old != hop.primary.node);
        assert!(others_old && old.contains(&hop.backup.unwrap().node));
    }
}

#[test]
fn attachments_differ_from_each_other_and_from_those_held() {
    let pool = scattered(4);
    let rng = &mut rng();
    let mut planner = Planner::new(&pool, at(1), rng);
    let two = planner.attachments(2, &[node(0)], &[node(1)]);
    let mut two: Vec<NodeId> = two.iter().map(|relay| relay.node).collect();
    two.sort();
    assert_eq!(two, [node(2), node(3)]);
    assert_eq!(planner.attachments(9, &[node(0)], &[node(1)]).last().unwrap().node, node(0), "held: last");
    assert!(planner.attachments(2, &[], &[0, 1, 2, 3].map(node)).is_empty());

    let mut close = loopback(3);
    close.register(node(9), offer(address([10, 0, 0, 1], 0), "", 1), at(0)).unwrap();
    let chosen = Planner::new(&close, at(1), rng).attachments(1, &[node(0)], &[]);
    assert_eq!(chosen[0].node, node(9), "on another host than the one held");
}

#[test]
fn a_replacement_is_apart_from_the_active_relay_first() {
    let mut pool = scattered(3);
    pool.register(node(10), offer(address([10, 0, 0, 2], 0), "", 100), at(0)).unwrap();
    pool.register(node(11), offer(address([10, 0, 1, 2], 0), "", 100), at(0)).unwrap();
    let [active, other] = [0, 1].map(|n| pool.get(&node(n)).unwrap());
    let rng = &mut rng();
    let mut planner = Planner::new(&pool, at(1), rng);
    let mut replace = |exclude: &[NodeId]| {
        let found = planner.replacement(Some(active), &[other], exclude, &[], [Families::BOTH; 2]);
        found.map(|relay| relay.node)
    };
    assert_eq!(replace(&[0, 1].map(node)), Some(node(2)));
    assert_eq!(replace(&[0, 1, 2].map(node)), Some(node(11)), "beside another hop's relay");
    assert_eq!(replace(&[0, 1, 2, 11].map(node)), Some(node(10)), "beside the active relay");
    assert_eq!(replace(&[0, 1, 2, 10, 11].map(node)), None);
}

#[test]
fn relays_that_the_target_is_attached_to_back_up_no_other_hop_while_there_are_others() {
    let pool = loopback(8);
    for seed in 0..50 {
        let rng = &mut StdRng::seed_from_u64(seed);
        let plan = Planner::new(&pool, at(1), rng).plan(3, &[0, 1, 2].map(node), &[]).unwrap();
        assert!(plan.unprotected().is_empty() && !nodes(&plan).contains(&node(2)), "{:?}", nodes(&plan));
    }
}

#[test]
fn who_others_could_not_reach_is_the_last_choice_and_a_newcomer_is_given_one_flow_at_a_time() {
    let mut pool = loopback(7);
    for n in 0..6 {
        assert!(pool.heartbeat(&node(n), &beat(90, at(1)), at(1)));
    }
    let rng = &mut rng();
    let attached = [0, 1].map(node);
    let first = Planner::new(&pool, at(1), rng).plan(2, &attached, &[]).unwrap().hops[0].primary.node;
    assert_eq!(first, node(6), "it carries nothing");
    pool.assign(&first);
    for _ in 0..20 {
        let plan = Planner::new(&pool, at(1), rng).plan(2, &attached, &[]).unwrap();
        assert_ne!(plan.hops[0].primary.node, first, "before it is known what becomes of that flow");
    }
    pool.report_unreached(&node(6), node(99), at(1));
    assert!(pool.heartbeat(&node(6), &beat(0, at(2)), at(2)), "and yet it lives");
    for _ in 0..20 {
        let plan = Planner::new(&pool, at(2), rng).plan(3, &attached, &[]).unwrap();
        assert!(plan.unprotected().is_empty() && !nodes(&plan).contains(&node(6)));
    }
    let plan = Planner::new(&pool, at(2), rng).plan(3, &attached, &[node(5)]).unwrap();
    assert!(plan.unprotected().is_empty() && nodes(&plan).contains(&node(6)), "better than none");
    pool.reached(&node(6));
    let first = Planner::new(&pool, at(2), rng).plan(2, &attached, &[]).unwrap().hops[0].primary.node;
    assert_eq!(first, node(6));
}

/// How evenly load is spread, from 1/n to 1 (Jain, Chiu and Hawe 1984).
fn jain(shares: &[f64]) -> f64 {
    let sum: f64 = shares.iter().sum();
    let squares: f64 = shares.iter().map(|share| share * share).sum();
    sum * sum / (squares * f64::from(u32::try_from(shares.len()).unwrap()))
}

/// 100 relays of capacities 1:2:4, of which 40 are in one zone; the last one, to which targets attach, is in none.
fn mixed() -> Pool {
    let mut pool = empty();
    for n in 0..100u32 {
        let (capacity, zone) = (1000 << (n % 3), if n < 40 { "a" } else { ["b", "c", "d"][n as usize % 3] });
        pool.register(
            node(n),
            offer(address([10, 1, u8::try_from(n).unwrap(), 1], 0), zone, capacity),
            at(0),
        )
        .unwrap();
    }
    pool.register(node(100), offer(address([10, 9, 9, 9], 0), "", 1_000_000), at(0)).unwrap();
    pool
}

/// Plans and assigns first hops; what part of its capacity each relay with any got.
fn shares(pool: &mut Pool, plans: u32, rng: &mut StdRng) -> Vec<f64> {
    for _ in 0..plans {
        let plan = Planner::new(pool, at(1), rng).plan(2, &[node(100)], &[]).unwrap();
        let first = plan.hops[0].primary.node;
        pool.assign(&first);
    }
    let others = pool.assignable().iter().filter(|relay| relay.node != node(100));
    others.map(|relay| f64::from(relay.flows()) / f64::from(relay.capacity)).collect()
}

#[test]
fn ten_thousand_plans_give_each_relay_its_share() {
    let mut pool = mixed();
    let shares = shares(&mut pool, 10_000, &mut rng());
    let fair = shares.iter().sum::<f64>() / 100.0;
    assert_eq!(shares.len(), 100);
    assert!(jain(&shares) >= 0.99, "{}", jain(&shares));
    for share in shares {
        assert!((share / fair - 1.0).abs() <= 0.1, "{share} where {fair} is fair");
    }
}

#[test]
fn when_a_zone_is_lost_nobody_gets_twice_its_share_of_its_flows() {
    let mut pool = mixed();
    let rng = &mut rng();
    shares(&mut pool, 10_000, rng);
    let lost: u32 = (0..40).map(|n| pool.get(&node(n)).unwrap().flows()).sum();
    assert!((0..40).all(|n| pool.deregister(&node(n), at(1))));
    let before: Vec<(NodeId, u32)> =
        pool.assignable().iter().map(|relay| (relay.node, relay.flows())).collect();
    shares(&mut pool, lost, rng);
    let capacity: u32 =
        before.iter().filter_map(|(node, _)| pool.get(node)).map(|relay| relay.capacity).sum();
    for (id, flows) in before.into_iter().filter(|(id, _)| *id != node(100)) {
        let relay = pool.get(&id).unwrap();
        let fair = f64::from(lost) * f64::from(relay.capacity) / f64::from(capacity - 1_000_000);
        let got = f64::from(relay.flows() - flows);
        assert!(got <= fair * 2.0, "{got} more flows where {fair} are fair");
    }
}

#[test]
fn no_plan_breaks_diversity_where_the_pool_allows_it() {
    // Zones of very different sizes; in the large ones most share few subnets and hosts.
    let mut pool = empty();
    for n in 0..3000u32 {
        let (zone, host) = match n {
            0..2600 => ("large", [10, 0, u8::try_from(n % 4).unwrap(), u8::try_from(n % 200).unwrap()]),
            2600..2990 => ("small", [10, 1, u8::try_from(n % 100).unwrap(), 1]),
            2990..2995 => ("tiny", [10, 2, u8::try_from(n - 2990).unwrap(), 1]),
            _ => ("rare", [10, 3, u8::try_from(n - 2995).unwrap(), 1]),
        };
        pool.register(node(n), offer(address(host, n), zone, 10_000), at(0)).unwrap();
    }
    let rng = &mut rng();
    for _ in 0..10_000 {
        let plan = Planner::new(&pool, at(1), rng).plan(3, &[node(0), node(2600)], &[]).unwrap();
        for (n, hop) in plan.hops.iter().enumerate() {
            let backup = hop.backup.expect("there are relays enough");
            assert_eq!(Shared::between(hop.primary, backup), Shared::Nothing, "a primary and its backup");
            for other in &plan.hops[..n] {
                let shared = Shared::between(hop.primary, other.primary);
                assert_eq!(shared, Shared::Nothing, "two primaries: {:?} {:?}", hop.primary, other.primary);
            }
        }
    }
}

#[test]
fn in_a_single_zone_a_backup_is_at_least_on_another_host() {
    let mut pool = empty();
    for n in 0..200u32 {
        let host = if n < 198 { [10, 0, 0, 1] } else { [10, 0, u8::try_from(n).unwrap(), 1] };
        pool.register(node(n), offer(address(host, n), "a", 100), at(0)).unwrap();
    }
    let rng = &mut rng();
    let plan = Planner::new(&pool, at(1), rng).plan(2, &[node(0)], &[]).unwrap();
    let hop = plan.hops[0];
    assert_eq!(Shared::between(hop.primary, hop.backup.unwrap()), Shared::Zone);
}

proptest! {
    #[test]
    fn plans_hold_what_they_promise_and_fail_only_when_they_must(
        relays in prop::collection::vec((0..4u8, 0..3u8, 0..3u32, 0..8u8), 1..60),
        hops in 1..=8u8,
        attachments in prop::collection::vec(0..60u32, 0..4),
        exclude in prop::collection::vec(0..60u32, 0..10),
        seed: u64,
    ) {
        let mut pool = empty();
        for (n, (host, subnet, capacity, fate)) in (0..).zip(&relays) {
            let address = address([10, 0, *subnet, *host], n);
            pool.register(node(n), offer(address, "", *capacity), at(0)).unwrap();
            match fate {
                0 => drop(pool.deregister(&node(n), at(0))),
                1 => drop(pool.report_down(&node(n), node(99), at(0))),
                _ => drop(pool.heartbeat(&node(n), &beat(1, at(1)), at(0))),
            }
        }
        let attachments: Vec<NodeId> = attachments.into_iter().map(node).collect();
        let exclude: Vec<NodeId> = exclude.into_iter().map(node).collect();
        let mut rng = StdRng::seed_from_u64(seed);
        let mut planner = Planner::new(&pool, at(1), &mut rng);
        let attached = attached(&pool, &attachments, &exclude);
        let usable = |relay: &&Relay| relay.has_room() && !exclude.contains(&relay.node);
        let others = pool.assignable().iter().filter(usable);
        match planner.plan(hops, &attachments, &exclude) {
            Ok(plan) => {
                let mut all = nodes(&plan);
                prop_assert_eq!(plan.hops.len(), usize::from(hops));
                prop_assert!(all.iter().all(|node| !exclude.contains(node)));
                let (missing, shared) = plan.lacks();
                prop_assert_eq!(missing, plan.unprotected().len());
                prop_assert_eq!(all.len(), usize::from(hops) * 2 - missing);
                all.sort();
                all.dedup();
                prop_assert_eq!(all.len(), usize::from(hops) * 2 - missing - shared, "no relay serves twice");
                let spare = others.filter(|relay| !all.contains(&relay.node)).count();
                prop_assert!(shared == 0 || spare == 0, "{} relays are left, and {} hops share one", spare, shared);
            }
            Err(PlanError::NotAttached) => prop_assert!(attached.is_empty()),
            Err(PlanError::OutOfReach) => prop_assert!(false, "all are of one family"),
            Err(PlanError::TooSmall { need, have }) => {
                let rest = others.filter(|relay| relay.node != attached[0].node).count();
                prop_assert_eq!((need, have), (usize::from(hops), rest + 1));
                prop_assert!(have < need);
            }
        }
    }
}
