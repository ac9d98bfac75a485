use super::*;
use crate::codec::{self, MAX_FRAME_BYTES};
use crate::record::{ChainSecret, MAX_RECORDS, Record, Route, pseudonym};
use crate::rpc::{Capabilities, Counts, Listing, Load, MAX_REQUEST_BYTES, Planned, Status};
use rand::SeedableRng;

mod addresses;

const ORIGIN: NodeId = NodeId::from_bytes([0xaa; 32]);
const TARGET: NodeId = NodeId::from_bytes([0xbb; 32]);
/// The process that nodes are, unless a test says otherwise.
const BOOT: BootId = BootId::from_bytes([1; 16]);
const STRANGER: NodeId = NodeId::from_bytes([0xcc; 32]);

fn at(s: u64) -> Time {
    Time::ZERO + DAY * 20_000 + Duration::from_secs(s)
}

fn relay(n: u8) -> NodeId {
    NodeId::from_bytes([n; 32])
}

fn secret() -> Key {
    Key::from_bytes([7; 32])
}

fn empty() -> Bootstrap {
    Bootstrap::new(Config::default(), secret(), StdRng::seed_from_u64(1), at(0))
}

fn relay_offer(n: u8) -> Request {
    let offer = Offer::relay(([127, 0, 0, 1], 4000 + u16::from(n)).into(), "", 100);
    Request::Register { name: format!("relay-{n:02}"), offer, boot: BOOT }
}

fn heartbeat(sequence: u64, flows: u32, key_epoch: Option<u32>) -> Request {
    let load = Load { flows, ..Load::default() };
    Request::Heartbeat(Heartbeat { sequence, sent_at: at(0), load, key_epoch })
}

fn target_offer(attachments: &[u8]) -> Request {
    let attachments = attachments.iter().map(|n| relay(*n)).collect();
    Request::Register {
        name: "laptop".to_owned(),
        offer: Offer::Target { names: vec!["echo".to_owned()], attachments },
        boot: BOOT,
    }
}

/// A bootstrap with `relays` relays and a target "echo" attached to some of them.
fn network(relays: u8, attachments: &[u8]) -> Bootstrap {
    let mut bootstrap = empty();
    for n in 0..relays {
        assert!(matches!(bootstrap.answer(relay(n), relay_offer(n), at(0)), Response::Lease(_)));
    }
    assert!(matches!(bootstrap.answer(TARGET, target_offer(attachments), at(0)), Response::Lease(_)));
    bootstrap
}

fn plan_request(hops: u8) -> Request {
    Request::Plan { target: "echo".to_owned(), hops, exclude: Vec::new(), dials: Families::BOTH }
}

fn plan(bootstrap: &mut Bootstrap, hops: u8) -> Planned {
    let response = bootstrap.answer(ORIGIN, plan_request(hops), at(1));
    let Response::Planned(planned) = response else { panic!("{response:?}") };
    *planned
}

fn refused(response: Response) -> Refusal {
    let Response::Refused(refusal) = response else { panic!("{response:?}") };
    refusal
}

fn denied(response: Response) -> DenyReason {
    let refusal = refused(response);
    let Refusal::Denied { reason } = refusal else { panic!("{refusal:?}") };
    reason
}

fn lease(response: Response) -> Lease {
    let Response::Lease(lease) = response else { panic!("{response:?}") };
    lease
}

fn candidates(route: &Route, hop: u8) -> Vec<NodeId> {
    open(route, &route.records[usize::from(hop) - 1])
}

fn open(route: &Route, record: &Record) -> Vec<NodeId> {
    route.secret.open(record).expect("genuine").iter().map(|candidate| candidate.node).collect()
}

/// A request to replace `hop` of a route.
fn replace(route: &Route, hop: u8, active: Option<NodeId>, exclude: &[NodeId]) -> Request {
    Request::Replace {
        hop,
        records: route.records.clone(),
        active,
        exclude: exclude.to_vec(),
        dials: Families::BOTH,
    }
}

fn replaced(response: Response) -> Record {
    let Response::Replaced(record) = response else { panic!("{response:?}") };
    *record
}

#[test]
fn a_registration_brings_a_lease_and_keys() {
    let mut bootstrap = empty();
    let first = lease(bootstrap.answer(relay(1), relay_offer(1), at(0)));
    assert_eq!(first.duration, Duration::from_secs(30));
    assert!((Duration::from_secs(1)..=Duration::from_secs(10)).contains(&first.next_heartbeat));
    let keys: Vec<(u32, Key)> =
        (19_993..=20_001).map(|epoch| (epoch, relay_key(&secret(), &relay(1), epoch))).collect();
    assert_eq!(first.keys, keys, "of a week of records, and of tomorrow");
    assert_eq!(first.counts, Counts { registered: 1, online: 1, expired: 0 });
    let next = lease(bootstrap.answer(relay(1), heartbeat(1, 3, Some(20_000)), at(9)));
    assert_eq!(next.keys, keys[8..], "what it has is not sent again");
    assert!((Duration::from_secs(9)..=Duration::from_secs(11)).contains(&next.next_heartbeat));
    assert_eq!(bootstrap.pool().get(&relay(1)).unwrap().load().flows, 3);
    assert_eq!(bootstrap.take_events(), [PoolEvent::Joined(relay(1)), PoolEvent::Online(relay(1))]);
}

#[test]
fn a_relay_has_the_key_to_every_record_that_is_alive_until_its_lease_ends() {
    let second = Duration::from_secs(1);
    let config = Config { record_lifetime: second * 6, key_epoch: second * 2, ..Config::default() };
    config.validate().unwrap();
    let mut bootstrap = Bootstrap::new(config, secret(), StdRng::seed_from_u64(1), at(0));
    let epochs = |lease: Lease| lease.keys.iter().map(|(epoch, _)| *epoch).collect::<Vec<u32>>();
    let now = bootstrap.key_epoch(at(0));
    let first = epochs(lease(bootstrap.answer(relay(1), relay_offer(1), at(0))));
    assert_eq!(first, (now - 3..=now + 15).collect::<Vec<u32>>());
    let next = epochs(lease(bootstrap.answer(relay(1), heartbeat(1, 0, Some(now + 15)), at(10))));
    assert_eq!(next, (now + 16..=now + 20).collect::<Vec<u32>>());
    let longer_before = epochs(lease(bootstrap.answer(relay(1), heartbeat(2, 0, Some(u32::MAX)), at(10))));
    assert_eq!(longer_before.first(), Some(&(now + 2)), "epochs have been counted anew");
}

#[test]
fn policies_that_nodes_can_not_keep_up_with_are_refused() {
    let second = Duration::from_secs(1);
    assert_eq!(Config::default().validate(), Ok(()));
    let with =
        |route, key_epoch| Config { record_lifetime: route, key_epoch, ..Config::default() }.validate();
    assert_eq!(with(second * 4, second), Ok(()));
    assert!(matches!(with(Duration::ZERO, DAY), Err(PolicyError::TooShort { .. })));
    assert!(matches!(with(DAY, Duration::from_millis(999)), Err(PolicyError::TooShort { .. })));
    let Err(PolicyError::TooManyEpochs { least, .. }) = with(DAY, second) else { panic!("too many") };
    assert_eq!(with(DAY, least), Ok(()));
}

#[test]
fn without_a_registration_there_is_nothing_to_renew() {
    let mut bootstrap = empty();
    for request in [heartbeat(1, 0, None), Request::Deregister { boot: BOOT }, Request::Drain] {
        assert_eq!(refused(bootstrap.answer(relay(1), request, at(0))), Refusal::UnknownNode);
    }
    for request in [Request::ReportDown { node: relay(1) }, Request::List] {
        assert!(!matches!(bootstrap.answer(STRANGER, request, at(0)), Response::Refused(_)));
    }
}

#[test]
fn leases_end_when_it_is_time_and_a_heartbeat_brings_a_relay_back() {
    let mut bootstrap = network(1, &[0]);
    let mut last = at(0);
    while let Some(next) = bootstrap.poll_timeout().filter(|next| *next < at(60)) {
        bootstrap.handle_timeout(next);
        assert!(next > last);
        last = next;
    }
    assert_eq!(bootstrap.pool().get(&relay(0)).unwrap().status, Status::Offline);
    assert_eq!(
        refused(bootstrap.answer(ORIGIN, plan_request(1), at(60))),
        Refusal::UnknownName { name: "echo".to_owned() }
    );
    let counts = lease(bootstrap.answer(relay(0), heartbeat(1, 0, None), at(61))).counts;
    assert_eq!(counts, Counts { registered: 1, online: 1, expired: 1 });
    let events = bootstrap.take_events();
    for event in [PoolEvent::Offline(relay(0)), PoolEvent::Back(relay(0)), PoolEvent::TargetLeft(TARGET)] {
        assert!(events.contains(&event), "{event:?} in {events:?}");
    }
}

#[test]
fn a_name_is_taken_while_its_holder_lives() {
    let mut bootstrap = network(1, &[0]);
    let taken = Refusal::NameTaken { name: "echo".to_owned() };
    assert_eq!(refused(bootstrap.answer(STRANGER, target_offer(&[0]), at(1))), taken);
    assert_eq!(bootstrap.answer(TARGET, Request::Deregister { boot: BOOT }, at(2)), Response::Done);
    lease(bootstrap.answer(STRANGER, target_offer(&[0]), at(3)));
    assert_eq!(plan(&mut bootstrap, 1).route.target, STRANGER);
}

#[test]
fn a_plan_is_a_route_that_each_of_its_nodes_can_use() {
    let mut bootstrap = network(8, &[5, 6]);
    let Planned { route, unprotected, .. } = plan(&mut bootstrap, 3);
    assert!(unprotected.is_empty());
    assert_eq!(route.target, TARGET);
    let hops = route.open().expect("genuine");
    let sizes: Vec<usize> = hops.iter().map(Vec::len).collect();
    assert_eq!(sizes, [2, 2, 2, 1]);
    assert_eq!(candidates(&route, 3), [relay(5), relay(6)]);
    assert_eq!((hops[3][0].node, hops[3][0].is_target()), (TARGET, true));
    let scope = route.scope().unwrap();
    assert_eq!((scope.origin, scope.version), (pseudonym(&secret(), &ORIGIN), 1));
    assert_eq!((scope.key_epoch, scope.expires), (20_000, at(1) + DAY * 7));
    assert_eq!(route.secret, ChainSecret::derive(&secret(), scope.chain, scope.origin));
    for (record, hop) in route.records.iter().zip(&hops) {
        for candidate in hop {
            let entry =
                record.entry(&relay_key(&secret(), &candidate.node, 20_000)).expect("an entry for it");
            assert_eq!(entry.reach_next.is_none(), candidate.node == TARGET);
        }
    }
    for hop in &hops[..3] {
        assert_eq!(bootstrap.pool().get(&hop[0].node).unwrap().assigned, 1);
        assert_eq!(bootstrap.pool().get(&hop[1].node).unwrap().assigned, 0);
    }
    assert_ne!(plan(&mut bootstrap, 3).route.scope().unwrap().chain, scope.chain);
}

#[test]
fn what_can_not_be_planned_is_refused_for_its_reason() {
    let mut bootstrap = network(2, &[0]);
    assert_eq!(plan(&mut bootstrap, 2).unprotected, [1, 2]);
    let too_small = Refusal::PoolTooSmall { need: 3, have: 2 };
    assert_eq!(refused(bootstrap.answer(ORIGIN, plan_request(3), at(1))), too_small);
    let unknown =
        Request::Plan { target: "nobody".to_owned(), hops: 1, exclude: Vec::new(), dials: Families::BOTH };
    let unknown_name = Refusal::UnknownName { name: "nobody".to_owned() };
    assert_eq!(refused(bootstrap.answer(ORIGIN, unknown, at(1))), unknown_name);
    let excluded =
        Request::Plan { target: "echo".to_owned(), hops: 1, exclude: vec![relay(0)], dials: Families::BOTH };
    let not_attached = Refusal::NotAttached { name: "echo".to_owned() };
    assert_eq!(refused(bootstrap.answer(ORIGIN, excluded, at(1))), not_attached);
    assert_eq!(denied(bootstrap.answer(ORIGIN, plan_request(9), at(1))), DenyReason::OutOfBounds);
    bootstrap.revoke(ORIGIN, at(2));
    assert_eq!(denied(bootstrap.answer(ORIGIN, plan_request(1), at(2))), DenyReason::Revoked);
}

#[test]
fn a_chain_is_renewed_also_after_its_records_have_expired() {
    let mut bootstrap = network(9, &[7, 8]);
    let route = plan(&mut bootstrap, 3).route;
    let later = at(DAY.as_secs() * 30);
    let request = Request::Renew { records: route.records.clone() };
    assert_eq!(denied(bootstrap.answer(STRANGER, request.clone(), later)), DenyReason::NotOrigin);
    let response = bootstrap.answer(ORIGIN, request, later);
    let Response::Renewed(records) = response else { panic!("{response:?}") };
    assert_eq!(records.len(), 4);
    for (old, new) in route.records.iter().zip(&records) {
        assert_eq!(open(&route, new), candidates(&route, old.scope.hop), "the same serve");
        assert_eq!(new.scope.version, old.scope.version + 1);
        assert_eq!((new.scope.key_epoch, new.scope.expires), (20_030, later + DAY * 7));
        for node in candidates(&route, old.scope.hop) {
            let entry = new.entry(&relay_key(&secret(), &node, 20_030)).expect("an entry for it");
            assert_eq!(entry.reach_next.is_none(), new.scope.hop == 4);
        }
    }
    let without_target = Request::Renew { records: route.records[..3].to_vec() };
    assert_eq!(denied(bootstrap.answer(ORIGIN, without_target, later)), DenyReason::OutOfBounds);
}

#[test]
fn a_hop_gets_a_fresh_backup() {
    let mut bootstrap = network(9, &[7, 8]);
    let route = plan(&mut bootstrap, 3).route;
    let [a, b] = candidates(&route, 2)[..] else { panic!("two candidates") };
    let request = replace(&route, 2, Some(b), &[a]);
    let record = replaced(bootstrap.answer(ORIGIN, request, at(DAY.as_secs() * 2)));
    let fresh = open(&route, &record);
    assert_eq!(fresh[0], b, "the active one comes first");
    let on_chain: Vec<NodeId> = (1..=4).flat_map(|hop| candidates(&route, hop)).collect();
    assert!(!on_chain.contains(&fresh[1]) && fresh.len() == 2);
    let (old, new) = (route.records[1].scope, record.scope);
    assert_eq!((new.hop, new.version, new.chain, new.origin), (2, 2, old.chain, old.origin));
    assert_eq!((new.key_epoch, new.expires), (20_002, at(DAY.as_secs() * 9)));
    let entry = record.entry(&relay_key(&secret(), &fresh[1], 20_002)).expect("an entry for it");
    assert_eq!(entry.reach_next, Some(route.secret.reach_key(3)));
    let by_origin = replaced(bootstrap.answer(ORIGIN, replace(&route, 1, None, &[]), at(1)));
    assert_eq!(open(&route, &by_origin), candidates(&route, 1), "those alive and not excluded stay");
}

#[test]
fn only_the_origin_may_ask() {
    let mut bootstrap = network(9, &[7, 8]);
    let route = plan(&mut bootstrap, 3).route;
    for hop in 1..=3 {
        replaced(bootstrap.answer(ORIGIN, replace(&route, hop, None, &[]), at(2)));
        for asker in [STRANGER, TARGET, candidates(&route, 1)[0], candidates(&route, 2)[0]] {
            let response = bootstrap.answer(asker, replace(&route, hop, None, &[]), at(2));
            assert_eq!(denied(response), DenyReason::NotOrigin, "{asker:?}");
        }
    }
}

#[test]
fn records_must_be_genuine_of_one_chain_and_lead_to_the_target() {
    let mut bootstrap = network(9, &[7, 8]);
    let route = plan(&mut bootstrap, 3).route;
    let other = plan(&mut bootstrap, 3).route;
    let mut ask = |hop, records: Vec<Record>, active| {
        let request = Request::Replace { hop, records, active, exclude: Vec::new(), dials: Families::BOTH };
        denied(bootstrap.answer(ORIGIN, request, at(2)))
    };
    let pick = |route: &Route, hops: &[usize]| -> Vec<Record> {
        hops.iter().map(|hop| route.records[hop - 1].clone()).collect()
    };
    let all = [1, 2, 3, 4];
    let mut altered = pick(&route, &all);
    altered[2].scope.version += 1;
    assert_eq!(ask(2, altered, None), DenyReason::Record);
    assert_eq!(ask(1, pick(&route, &[1, 2, 4]), None), DenyReason::Record, "a hop is missing");
    assert_eq!(ask(1, [pick(&route, &[1, 2, 3]), pick(&other, &[4])].concat(), None), DenyReason::Record);
    assert_eq!(ask(1, pick(&route, &[1, 2, 3]), None), DenyReason::OutOfBounds, "the target is missing");
    assert_eq!(ask(4, pick(&route, &all), None), DenyReason::OutOfBounds, "the target has no substitute");
    assert_eq!(ask(0, pick(&route, &all), None), DenyReason::OutOfBounds);
    assert_eq!(ask(2, pick(&route, &all), Some(STRANGER)), DenyReason::OutOfBounds);
    assert_eq!(ask(3, pick(&route, &all), Some(STRANGER)), DenyReason::OutOfBounds);
    let forged = Bootstrap::new(Config::default(), Key::from_bytes([8; 32]), StdRng::seed_from_u64(1), at(0));
    assert_ne!(pseudonym(&forged.secret, &ORIGIN), route.records[0].scope.origin);
}

#[test]
fn the_last_hop_follows_the_targets_attachments() {
    let mut bootstrap = network(9, &[7, 8]);
    let route = plan(&mut bootstrap, 2).route;
    let asker = candidates(&route, 1)[0];
    let ask = |bootstrap: &mut Bootstrap, active: Option<u8>, exclude: &[u8]| {
        let exclude: Vec<NodeId> = exclude.iter().map(|n| relay(*n)).collect();
        bootstrap.answer(ORIGIN, replace(&route, 2, active.map(relay), &exclude), at(2))
    };
    let record = replaced(ask(&mut bootstrap, Some(8), &[7]));
    assert_eq!(
        open(&route, &record),
        [relay(8)],
        "not yet attached anew: at least nobody tries the dead one again"
    );
    let third = (0..7).find(|n| relay(*n) != asker && !candidates(&route, 1).contains(&relay(*n))).unwrap();
    lease(bootstrap.answer(TARGET, target_offer(&[8, third]), at(2)));
    let record = replaced(ask(&mut bootstrap, Some(8), &[7]));
    assert_eq!(open(&route, &record), [relay(8), relay(third)]);
    let record = replaced(ask(&mut bootstrap, Some(third), &[7]));
    assert_eq!(open(&route, &record), [relay(third), relay(8)], "an attachment that was no candidate yet");
    let record = replaced(ask(&mut bootstrap, None, &[7, 8]));
    assert_eq!(open(&route, &record), [relay(third)], "one is better than none");
    assert_eq!(refused(ask(&mut bootstrap, None, &[8, third])), Refusal::NoSpare);
    bootstrap.answer(TARGET, Request::Deregister { boot: BOOT }, at(3));
    assert_eq!(refused(ask(&mut bootstrap, Some(8), &[])), Refusal::NoSpare);
}

#[test]
fn a_pool_without_a_spare_says_so() {
    let mut bootstrap = network(4, &[0, 1]);
    let route = plan(&mut bootstrap, 2).route;
    let [a, b] = candidates(&route, 1)[..] else { panic!("two candidates") };
    let shared = candidates(&route, 2)[1];
    let record = replaced(bootstrap.answer(ORIGIN, replace(&route, 1, Some(b), &[a]), at(2)));
    assert_eq!(open(&route, &record), [b, shared], "better one that stands by for both hops than none");
    let request = replace(&route, 1, Some(b), &[a, shared]);
    let record = replaced(bootstrap.answer(ORIGIN, request.clone(), at(2)));
    assert_eq!(open(&route, &record), [b], "nobody shall try the dead one again");
    let mut shrunk = route.clone();
    shrunk.records[0] = record;
    for exclude in [&[a, shared][..], &[a, shared, b]] {
        let again = replace(&shrunk, 1, Some(b), exclude);
        let answer = refused(bootstrap.answer(ORIGIN, again, at(2)));
        assert_eq!(answer, Refusal::NoSpare, "also if the one that serves had failed before");
    }
    lease(bootstrap.answer(relay(9), relay_offer(9), at(3)));
    let record = replaced(bootstrap.answer(ORIGIN, request, at(3)));
    assert_eq!(open(&route, &record), [b, relay(9)]);
}

#[test]
fn any_bootstrap_of_the_network_replaces_also_one_that_has_just_started() {
    let mut bootstrap = network(6, &[4, 5]);
    let route = plan(&mut bootstrap, 3).route;
    let [a, b] = candidates(&route, 1)[..] else { panic!("two candidates") };
    let mut restarted = empty();
    let request = replace(&route, 1, Some(a), &[]);
    assert_eq!(
        refused(restarted.answer(ORIGIN, request, at(2))),
        Refusal::NoSpare,
        "it does not know b is alive"
    );
    let request = replace(&route, 1, Some(a), &[b]);
    lease(restarted.answer(relay(9), relay_offer(9), at(3)));
    let record = replaced(restarted.answer(ORIGIN, request, at(3)));
    assert_eq!(open(&route, &record), [a, relay(9)]);
}

#[test]
fn attachments_are_offered_apart_from_those_held() {
    let mut bootstrap = network(3, &[0]);
    let ask = |count, exclude: &[u8]| {
        let exclude = exclude.iter().map(|n| relay(*n)).collect();
        Request::Attachments { count, exclude, dials: Families::BOTH }
    };
    let Response::Relays(relays) = bootstrap.answer(TARGET, ask(2, &[1]), at(1)) else { panic!() };
    let nodes: Vec<NodeId> = relays.iter().map(|relay| relay.node).collect();
    assert_eq!(nodes, [relay(2), relay(0)], "the one held comes last");
    assert!(relays.iter().all(|relay| !relay.is_target()));
    let none = refused(bootstrap.answer(TARGET, ask(2, &[0, 1, 2]), at(1)));
    assert_eq!(none, Refusal::PoolTooSmall { need: 2, have: 0 });
}

#[test]
fn reports_and_drains_take_relays_out() {
    let mut bootstrap = network(5, &[0]);
    assert_eq!(bootstrap.answer(relay(1), Request::Drain, at(1)), Response::Done);
    for reporter in [ORIGIN, STRANGER] {
        assert_eq!(bootstrap.answer(reporter, Request::ReportDown { node: relay(2) }, at(1)), Response::Done);
    }
    let status = |n| bootstrap.pool().get(&relay(n)).map(|relay| relay.status);
    assert_eq!((status(1), status(2)), (Some(Status::Draining), Some(Status::Offline)));
    let too_small = Refusal::PoolTooSmall { need: 4, have: 3 };
    assert_eq!(refused(bootstrap.answer(ORIGIN, plan_request(4), at(1))), too_small);
}

#[test]
fn a_full_pool_throttles() {
    let pool = pool::Config { max_relays: 1, max_targets: 0, ..pool::Config::default() };
    let config = Config { pool, ..Config::default() };
    let mut bootstrap = Bootstrap::new(config, secret(), StdRng::seed_from_u64(1), at(0));
    lease(bootstrap.answer(relay(1), relay_offer(1), at(0)));
    let throttled = Refusal::Throttled { retry_after: Duration::from_secs(10) };
    assert_eq!(refused(bootstrap.answer(relay(2), relay_offer(2), at(0))), throttled);
    assert_eq!(refused(bootstrap.answer(TARGET, target_offer(&[]), at(0))), throttled);
}

#[test]
fn a_listing_is_sorted_and_fits_a_frame() {
    let mut bootstrap = empty();
    let long = |n: u16, prefix: &str| format!("{prefix}{n:05}{}", "x".repeat(50));
    for n in (0..400u16).rev() {
        let mut bytes = [1; 32];
        bytes[..2].copy_from_slice(&n.to_be_bytes());
        let node = NodeId::from_bytes(bytes);
        let addresses = vec![([10, 0, 0, 1], 4000 + n).into()];
        let (version, capabilities) = ("1".repeat(32), Capabilities::default());
        let offer =
            Offer::Relay { addresses, zone: "z".repeat(64), capacity: u32::MAX, version, capabilities };
        lease(bootstrap.answer(node, Request::Register { name: long(n, "r"), offer, boot: BOOT }, at(0)));
        let names = (0..16).map(|name| long(n * 16 + name, "t")).collect();
        let offer = Offer::Target { names, attachments: vec![node; 64] };
        lease(bootstrap.answer(node, Request::Register { name: "t".to_owned(), offer, boot: BOOT }, at(0)));
    }
    let response = bootstrap.answer(STRANGER, Request::List, at(5));
    assert!(codec::to_bytes(&response).len() <= MAX_FRAME_BYTES);
    let Response::Listing(listing) = response else { panic!() };
    let Listing { relays, targets, counts, uptime, .. } = *listing;
    assert!(relays.len() > 200 && targets.len() > 2, "{} {}", relays.len(), targets.len());
    assert!(relays.is_sorted_by_key(|relay| relay.name.clone()));
    assert_eq!((relays[0].name.clone(), targets[0].names[0].clone()), (long(0, "r"), long(0, "t")));
    assert_eq!((counts.registered, uptime), (400, Duration::from_secs(5)));
    assert_eq!(relays[0].lease_left, Duration::from_secs(25));
}

#[test]
fn the_longest_chain_fits_a_request_and_a_response() {
    let mut bootstrap = network(40, &[38, 39]);
    for n in 0..40 {
        let addresses =
            (1..=4).map(|host| ([0xfd00, 0, 0, n.into(), 0, 0, 0, host], 65_535).into()).collect();
        let Offer::Relay { zone, capacity, version, capabilities, .. } =
            Offer::relay(([127, 0, 0, 1], 1).into(), "", 100)
        else {
            unreachable!()
        };
        let offer = Offer::Relay { addresses, zone, capacity, version, capabilities };
        let name = format!("{n:064}");
        lease(bootstrap.answer(relay(n), Request::Register { name, offer, boot: BOOT }, at(0)));
    }
    let response = bootstrap.answer(ORIGIN, plan_request(8), at(1));
    assert!(codec::to_bytes(&response).len() <= 16 * 1024);
    let Response::Planned(planned) = response else { panic!() };
    assert_eq!(planned.route.records.len(), MAX_RECORDS);
    let named = planned.route.open().unwrap();
    assert!(named[0].iter().all(|relay| relay.addresses.len() == 4 && relay.name.len() == 64), "{named:?}");
    let request = replace(&planned.route, 1, None, &[STRANGER; 64]);
    assert!(codec::to_bytes(&request).len() <= MAX_REQUEST_BYTES);
    replaced(bootstrap.answer(ORIGIN, request, at(2)));
    let last = replace(&planned.route, 8, None, &[]);
    replaced(bootstrap.answer(ORIGIN, last, at(2)));
}

fn is_assignable(bootstrap: &Bootstrap, n: u8) -> bool {
    bootstrap.pool().assignable().iter().any(|known| known.node == relay(n))
}

/// As another process of the same node asks.
fn reborn(request: Request) -> Request {
    let Request::Register { name, offer, .. } = request else { panic!("{request:?}") };
    Request::Register { name, offer, boot: BootId::from_bytes([2; 16]) }
}

#[test]
fn who_said_goodbye_does_not_come_back_by_what_it_asked_before() {
    let mut bootstrap = network(4, &[1]);
    let goodbye = || Request::Deregister { boot: BOOT };
    assert_eq!(bootstrap.answer(relay(1), goodbye(), at(1)), Response::Done);
    for late in [relay_offer(1), heartbeat(9, 0, None), Request::Drain] {
        assert_eq!(refused(bootstrap.answer(relay(1), late, at(2))), Refusal::UnknownNode);
        assert!(!is_assignable(&bootstrap, 1));
    }
    assert!(matches!(bootstrap.answer(relay(1), reborn(relay_offer(1)), at(3)), Response::Lease(_)));
    assert!(is_assignable(&bootstrap, 1), "it was started again");
    assert_eq!(bootstrap.answer(TARGET, goodbye(), at(4)), Response::Done);
    assert_eq!(refused(bootstrap.answer(TARGET, target_offer(&[1]), at(5))), Refusal::UnknownNode);
    assert!(bootstrap.targets().by_name("echo").is_none(), "nor does a name");
    assert_eq!(refused(bootstrap.answer(relay(9), goodbye(), at(6))), Refusal::UnknownNode);
    let late = bootstrap.answer(relay(9), relay_offer(9), at(7));
    assert_eq!(refused(late), Refusal::UnknownNode, "even if its goodbye came first");
}

#[test]
fn who_drains_is_not_assigned_again_until_it_was_started_anew() {
    let mut bootstrap = network(4, &[1]);
    assert_eq!(bootstrap.answer(relay(1), Request::Drain, at(1)), Response::Done);
    for reporter in [2, 3] {
        bootstrap.answer(relay(reporter), Request::ReportDown { node: relay(1) }, at(2));
    }
    assert_eq!(bootstrap.pool().get(&relay(1)).unwrap().status, Status::Offline);
    assert!(matches!(bootstrap.answer(relay(1), heartbeat(9, 0, None), at(3)), Response::Lease(_)));
    assert_eq!(bootstrap.pool().get(&relay(1)).unwrap().status, Status::Draining, "it lives, and leaves");
    assert!(matches!(bootstrap.answer(relay(1), relay_offer(1), at(4)), Response::Lease(_)));
    assert!(!is_assignable(&bootstrap, 1), "it registered again for some reason");
    assert!(matches!(bootstrap.answer(relay(1), reborn(relay_offer(1)), at(5)), Response::Lease(_)));
    assert!(is_assignable(&bootstrap, 1));
}
