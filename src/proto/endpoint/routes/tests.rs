use super::*;
use crate::crypto::Key;
use crate::id::Pseudonym;
use crate::record::{Candidate, ChainSecret, Scope};
use rand::SeedableRng;
use rand::rngs::StdRng;

const TARGET: u8 = 99;

fn at(seconds: u64) -> Time {
    Time::ZERO + Duration::from_secs(seconds)
}

fn node(n: u8) -> NodeId {
    NodeId::from_bytes([n; 32])
}

fn to(name: &str) -> Destination {
    Destination { name: name.to_owned(), hops: 2 }
}

/// Over these hops, good until `expires`. Routes over the same hops are different chains if `chain` is.
fn route(chain: u8, hops: &[&[u8]], target: u8, expires: u64) -> Route {
    let (network, origin) = (Key::from_bytes([9; 32]), Pseudonym::from_bytes([2; 16]));
    let chain = ChainId::from_bytes([chain; 16]);
    let secret = ChainSecret::derive(&network, chain, origin);
    let mut rng = StdRng::seed_from_u64(1);
    let last = [target];
    let all = hops.iter().copied().chain([&last[..]]);
    let records = (1u8..).zip(all).map(|(hop, nodes)| {
        let scope = Scope { chain, origin, hop, version: 1, key_epoch: 0, expires: at(expires) };
        let candidate = |n: &u8| Candidate { node: node(*n), name: String::new(), addresses: Vec::new() };
        let keyed: Vec<(Candidate, Key)> =
            nodes.iter().map(|n| (candidate(n), Key::from_bytes([*n; 32]))).collect();
        secret.issue(scope, &keyed, usize::from(hop) > hops.len(), &mut rng)
    });
    let records = records.collect();
    Route { target: node(target), secret, records }
}

fn used(chain: u8, hops: &[&[u8]]) -> InUse {
    let hops = hops.iter().map(|hop| hop.iter().map(|n| node(*n)).collect()).collect();
    InUse { chain: ChainId::from_bytes([chain; 16]), target: node(TARGET), hops }
}

fn chain_of(route: Option<Route>) -> Option<u8> {
    route.and_then(|route| Some(route.scope()?.chain.as_bytes()[0]))
}

const FIRST: &[&[u8]] = &[&[1, 2], &[3, 4]];
const SECOND: &[&[u8]] = &[&[5, 6], &[7, 8]];
const MIXED: &[&[u8]] = &[&[1, 5], &[7, 9]];

fn with(routes: &[(u8, &[&[u8]], u64)]) -> Routes {
    let mut kept = Routes::default();
    for (n, (chain, hops, expires)) in (0..).zip(routes) {
        kept.keep(&to("x"), route(*chain, hops, TARGET, *expires), at(n));
    }
    kept
}

#[test]
fn a_new_flow_takes_the_latest_good_route_that_has_not_expired() {
    let mut routes = with(&[(1, FIRST, 100), (2, SECOND, 50)]);
    let choice = |routes: &Routes, now| chain_of(routes.for_new_flow(&to("x"), at(now)));
    assert_eq!(choice(&routes, 10), Some(2));
    assert_eq!(choice(&routes, 60), Some(1), "expiry gates new flows");
    assert_eq!(choice(&routes, 100), None);
    assert_eq!(chain_of(routes.for_new_flow(&to("y"), at(10))), None);
    routes.note_failed(node(5), Ground::Hearsay, at(10));
    assert_eq!(choice(&routes, 10), Some(2), "hop 1 has another candidate");
    routes.note_failed(node(6), Ground::Hearsay, at(10));
    assert_eq!(choice(&routes, 10), Some(1), "nobody serves hop 1");
    routes.note_alive(node(6));
    assert_eq!(choice(&routes, 10), Some(2));
    routes.led_nowhere(&to("x"), ChainId::from_bytes([2; 16]), at(11));
    assert_eq!(choice(&routes, 11), Some(1));
    routes.led_nowhere(&to("x"), ChainId::from_bytes([1; 16]), at(12));
    assert_eq!(choice(&routes, 12), Some(2), "the one whose failure is longer ago");
}

#[test]
fn a_spare_shares_no_relay_with_the_chain_in_use() {
    let mut routes = with(&[(1, FIRST, 100), (2, MIXED, 100)]);
    let in_use = used(1, FIRST);
    assert_eq!(routes.spare(&to("x"), &in_use, at(5)), None);
    assert_eq!(chain_of(routes.for_rebuild(&to("x"), &in_use, at(5))), Some(2), "better than none");
    routes.keep(&to("x"), route(3, SECOND, TARGET, 100), at(4));
    assert_eq!(chain_of(routes.spare(&to("x"), &in_use, at(5))), Some(3));
    assert_eq!(chain_of(routes.for_rebuild(&to("x"), &in_use, at(5))), Some(3));
    let renewed_at = routes.spare_until(&to("x"), &in_use, Duration::from_secs(1000), at(5));
    assert_eq!(renewed_at, Some(at(4) + Duration::from_secs(96) / 3 * 2), "before it expires");
    routes.note_failed(node(7), Ground::Hearsay, at(5));
    routes.note_failed(node(8), Ground::Hearsay, at(5));
    assert_eq!(routes.spare(&to("x"), &in_use, at(5)), None, "nobody serves its hop 2");
    assert_eq!(chain_of(routes.spare(&to("x"), &in_use, at(66))), Some(3), "that was long ago");
    routes.led_nowhere(&to("x"), ChainId::from_bytes([3; 16]), at(66));
    assert_eq!(routes.spare(&to("x"), &in_use, at(66)), None);
}

#[test]
fn an_open_flow_may_take_an_expired_route_and_a_new_one_not() {
    let routes = with(&[(1, FIRST, 100), (2, SECOND, 50)]);
    assert_eq!(chain_of(routes.for_rebuild(&to("x"), &used(1, FIRST), at(60))), Some(2));
    assert_eq!(routes.spare(&to("x"), &used(1, FIRST), at(60)), None);
}

#[test]
fn a_target_that_is_another_node_now_makes_the_routes_before_useless() {
    let mut routes = with(&[(1, FIRST, 100)]);
    routes.keep(&to("x"), route(2, SECOND, TARGET - 1, 100), at(1));
    assert_eq!(chain_of(routes.for_rebuild(&to("x"), &used(9, MIXED), at(2))), None);
    assert_eq!(routes.all(at(2)).len(), 1);
}

#[test]
fn newer_records_take_the_place_of_those_before() {
    let mut routes = with(&[(1, FIRST, 100)]);
    routes.changed = false;
    let chain = ChainId::from_bytes([1; 16]);
    let same = route(1, FIRST, TARGET, 100);
    routes.update(&to("x"), chain, &same.records, at(5));
    assert!(!routes.changed);
    routes.update(&to("x"), chain, &route(1, SECOND, TARGET, 200).records, at(5));
    assert!(routes.changed);
    assert_eq!(chain_of(routes.for_new_flow(&to("x"), at(150))), Some(1));
    assert!(routes.spare(&to("x"), &used(7, FIRST), at(5)).is_some());
}

#[test]
fn what_is_kept_has_bounds() {
    let mut routes = Routes::default();
    for chain in 1..=6 {
        routes.keep(&to("x"), route(chain, FIRST, TARGET, 100), at(chain.into()));
        routes.led_nowhere(&to("x"), ChainId::from_bytes([6; 16]), at(6));
    }
    let chains: Vec<u8> =
        routes.all(at(7)).into_iter().filter_map(|kept| chain_of(Some(kept.route))).collect();
    assert_eq!(chains, [3, 4, 5, 6], "the oldest go");
    routes.keep(&to("x"), route(7, FIRST, TARGET, 100), at(7));
    let chains: Vec<u8> =
        routes.all(at(7)).into_iter().filter_map(|kept| chain_of(Some(kept.route))).collect();
    assert_eq!(chains, [3, 4, 5, 7], "one that led nowhere goes first");
    for n in 0..MAX_DESTINATIONS {
        routes.keep(&to(&n.to_string()), route(8, FIRST, TARGET, 100), at(8));
    }
    assert_eq!(routes.known.len(), MAX_DESTINATIONS);
    assert_eq!(routes.for_new_flow(&to("x"), at(8)), None, "used longest ago");
    for n in 0..=u8::MAX {
        routes.note_failed(node(n), Ground::Hearsay, at(8));
    }
    assert_eq!(routes.failed(at(8)).count(), MAX_FAILED);
}

#[test]
fn a_spare_is_looked_for_when_it_is_due() {
    let mut routes = with(&[(1, FIRST, 100)]);
    assert_eq!(routes.poll_timeout(), None);
    routes.set_spare_due(&to("x"), Some(at(5)));
    routes.set_spare_due(&to("unknown"), Some(at(1)));
    assert_eq!(routes.poll_timeout(), Some(at(5)));
    assert_eq!(routes.take_spare_due(at(4)), []);
    assert_eq!(routes.take_spare_due(at(5)), [to("x")]);
    assert_eq!((routes.poll_timeout(), routes.take_spare_due(at(9))), (None, vec![]));
}
