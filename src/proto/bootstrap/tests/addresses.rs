//! Relays that can't be dialled by everybody, and relays that move.

use super::*;
use crate::record::Candidate;

fn at_address(n: u8, address: &str) -> Request {
    let offer = Offer::relay(address.parse().unwrap(), "", 100);
    Request::Register { name: format!("r{n}"), offer, boot: BOOT }
}

fn named(route: &Route, record: &Record, node: NodeId) -> Candidate {
    let all = route.secret.open(record).unwrap();
    all.into_iter().find(|candidate| candidate.node == node).unwrap()
}

#[test]
fn who_can_dial_no_relay_is_told_so() {
    let mut bootstrap = network(4, &[0, 1]);
    let dials = Families::V6;
    let plan = Request::Plan { target: "echo".to_owned(), hops: 2, exclude: Vec::new(), dials };
    let attachments = Request::Attachments { count: 3, exclude: Vec::new(), dials };
    for request in [plan, attachments] {
        assert_eq!(refused(bootstrap.answer(ORIGIN, request, at(1))), Refusal::OutOfReach { dials });
    }
    let none = Request::Attachments { count: 3, exclude: (0..4).map(relay).collect(), dials };
    let refusal = refused(bootstrap.answer(ORIGIN, none, at(1)));
    assert_eq!(refusal, Refusal::PoolTooSmall { need: 3, have: 0 }, "nobody could dial more");
}

#[test]
fn a_hop_is_given_only_what_the_one_before_can_dial() {
    let mut bootstrap = network(4, &[0, 1]);
    let plan = plan(&mut bootstrap, 2);
    let hop_1 = candidates(&plan.route, 1);
    for n in 4..8 {
        bootstrap.answer(relay(n), at_address(n, &format!("[2001:db8:{n}::1]:1")), at(1));
    }
    let active = Some(hop_1[0]);
    let request = replace(&plan.route, 1, active, &hop_1[1..]);
    let found = open(&plan.route, &replaced(bootstrap.answer(ORIGIN, request, at(2))));
    assert!(found.iter().all(|node| (0..4).map(relay).any(|of_ipv4| of_ipv4 == *node)), "{found:?}");
}

#[test]
fn new_records_name_a_relay_at_the_address_that_it_has_now() {
    let mut bootstrap = network(6, &[0, 1]);
    let plan = plan(&mut bootstrap, 2);
    let moved = candidates(&plan.route, 1)[0];
    let n = (0..6).find(|n| relay(*n) == moved).unwrap();
    bootstrap.answer(moved, at_address(n, "10.9.9.9:7"), at(2));
    let renew = Request::Renew { records: plan.route.records.clone() };
    let Response::Renewed(records) = bootstrap.answer(ORIGIN, renew, at(3)) else { panic!() };
    let backup = candidates(&plan.route, 1)[1];
    let request = replace(&plan.route, 1, Some(moved), &[backup]);
    let record = replaced(bootstrap.answer(ORIGIN, request, at(3)));
    for record in [&records[0], &record] {
        assert_eq!(named(&plan.route, record, moved).addresses, ["10.9.9.9:7".parse().unwrap()]);
    }
}
