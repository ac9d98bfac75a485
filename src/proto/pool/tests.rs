use super::*;
use crate::rpc::{Capabilities, Load};
use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::sync::atomic::{AtomicU64, Ordering};

fn at(s: u32) -> Time {
    Time::ZERO + Duration::from_secs(1) * s
}

fn node(n: u8) -> NodeId {
    NodeId::from_bytes([n; 32])
}

fn offer(n: u8) -> RelayOffer {
    RelayOffer {
        name: format!("r{n}"),
        addresses: vec![([10, 0, n, 1], 4000).into()],
        zone: String::new(),
        capacity: 100,
        version: String::new(),
        capabilities: Capabilities::default(),
    }
}

/// A heartbeat that says so many flows; each is newer than the ones sent before.
fn beat(flows: u32) -> Heartbeat {
    static SEQUENCE: AtomicU64 = AtomicU64::new(0);
    let sequence = SEQUENCE.fetch_add(1, Ordering::Relaxed) + 1;
    let load = Load { flows, ..Load::default() };
    Heartbeat { sequence, sent_at: at(0), load, key_epoch: None }
}

/// A pool of `count` relays, registered at 0 and heard since.
fn pool(count: u8) -> Pool {
    let mut pool = Pool::new(Config::default());
    for n in 0..count {
        pool.register(node(n), offer(n), at(0)).unwrap();
        assert!(pool.heartbeat(&node(n), &beat(0), at(0)));
    }
    pool.take_events();
    pool
}

fn status(pool: &Pool, n: u8) -> Option<Status> {
    pool.get(&node(n)).map(|relay| relay.status)
}

#[test]
fn a_relay_comes_stays_and_goes() {
    let mut pool = Pool::new(Config::default());
    pool.register(node(1), offer(1), at(0)).unwrap();
    assert_eq!((status(&pool, 1), pool.assignable().len()), (Some(Status::Registered), 1));
    assert!(pool.heartbeat(&node(1), &beat(7), at(10)));
    assert_eq!(pool.get(&node(1)).unwrap().load().flows, 7);
    assert!(pool.drain(&node(1), at(20)));
    assert!(pool.heartbeat(&node(1), &beat(3), at(21)), "it still renews its lease");
    assert_eq!((status(&pool, 1), pool.assignable().len()), (Some(Status::Draining), 0));
    assert!(pool.deregister(&node(1), at(22)));
    assert!(!pool.heartbeat(&node(1), &beat(0), at(23)), "who left must register");
    assert!(!pool.deregister(&node(1), at(24)) && !pool.drain(&node(1), at(24)));
    pool.expire(at(21 + 600));
    assert_eq!(status(&pool, 1), Some(Status::Left));
    pool.expire(at(22 + 600));
    assert_eq!((status(&pool, 1), pool.poll_timeout()), (None, None));
    let events = pool.take_events();
    let [a, b, c, d, e] = <[PoolEvent; 5]>::try_from(events).unwrap();
    assert_eq!((a, b), (PoolEvent::Joined(node(1)), PoolEvent::Online(node(1))));
    assert_eq!((c, d), (PoolEvent::Draining(node(1)), PoolEvent::Left(node(1))));
    assert_eq!(e, PoolEvent::Forgotten(node(1)));
}

#[test]
fn silence_makes_suspect_then_offline_and_a_heartbeat_brings_back() {
    let mut pool = pool(1);
    let due = pool.poll_timeout().unwrap();
    assert!(due <= at(25) && due > at(24), "{due:?}");
    pool.expire(due);
    assert_eq!(pool.poll_timeout(), Some(at(25)), "it has not been heard");
    assert_eq!(status(&pool, 0), Some(Status::Online));
    pool.expire(at(25));
    assert_eq!(status(&pool, 0), Some(Status::Suspect));
    assert_eq!(pool.poll_timeout(), Some(at(30)));
    pool.expire(at(30));
    assert_eq!(status(&pool, 0), Some(Status::Offline));
    assert_eq!(pool.counts(), Counts { registered: 1, online: 0, expired: 1 });
    assert_eq!((pool.take_expired(), pool.take_expired()), (1, 0));
    assert!(pool.heartbeat(&node(0), &beat(0), at(40)));
    assert_eq!(status(&pool, 0), Some(Status::Online));
    let events = [PoolEvent::Suspect(node(0)), PoolEvent::Offline(node(0)), PoolEvent::Back(node(0))];
    assert_eq!(pool.take_events(), events);
}

#[test]
fn two_reports_by_different_neighbours_take_a_relay_out() {
    let mut pool = pool(4);
    pool.report_down(&node(0), node(0), at(1));
    assert_eq!(status(&pool, 0), Some(Status::Online), "of itself");
    pool.report_down(&node(0), node(8), at(1));
    pool.report_down(&node(0), node(8), at(2));
    assert_eq!(status(&pool, 0), Some(Status::Suspect), "one neighbour, however often");
    pool.report_down(&node(0), node(9), at(3));
    assert_eq!(status(&pool, 0), Some(Status::Offline));

    pool.report_down(&node(3), node(8), at(1));
    pool.report_up(&node(3), node(9), at(1));
    assert_eq!(status(&pool, 3), Some(Status::Suspect), "only who reported may take it back");
    pool.report_up(&node(3), node(8), at(1));
    assert_eq!(status(&pool, 3), Some(Status::Online));
    pool.report_down(&node(1), node(8), at(1));
    assert!(pool.heartbeat(&node(1), &beat(0), at(2)));
    assert_eq!(status(&pool, 1), Some(Status::Online), "it disproved the report");
    pool.report_down(&node(1), node(9), at(3));
    assert_eq!(status(&pool, 1), Some(Status::Suspect));

    pool.expire(at(25));
    assert_eq!(status(&pool, 2), Some(Status::Suspect), "overdue");
    pool.report_down(&node(2), node(8), at(26));
    assert_eq!(status(&pool, 2), Some(Status::Offline), "overdue and reported");
}

#[test]
fn who_cannot_be_dialled_is_doubted_by_voices_of_two_domains_until_somebody_dials_it() {
    let mut pool = pool(3);
    assert!(pool.heartbeat(&node(0), &beat(1), at(1)), "it carries a flow");
    let is_doubted = |pool: &Pool| pool.get(&node(0)).unwrap().is_doubted();
    for liar in [90, 91, 92] {
        pool.report_unreached(&node(0), node(liar), at(2));
        assert!(pool.heartbeat(&node(0), &beat(1), at(2)));
        assert!(!is_doubted(&pool), "endpoints have one voice");
    }
    pool.report_unreached(&node(0), node(1), at(3));
    assert!(pool.heartbeat(&node(0), &beat(1), at(3)));
    assert_eq!((status(&pool, 0), is_doubted(&pool)), (Some(Status::Online), true));
    assert!(pool.take_events().contains(&PoolEvent::Unreached(node(0))));
    pool.report_up(&node(0), node(1), at(4));
    assert!(is_doubted(&pool), "to be heard is not to be reached");
    pool.report_reached(&node(0), node(1), at(4));
    assert!(!is_doubted(&pool));
    pool.report_unreached(&node(2), node(90), at(5));
    assert!(pool.get(&node(2)).unwrap().is_doubted(), "nobody ever reached it");
    pool.register(node(2), offer(2), at(6)).unwrap();
    assert!(!pool.get(&node(2)).unwrap().is_doubted(), "it may have another address");
}

#[test]
fn a_lost_connection_and_a_report_take_a_relay_out() {
    let mut pool = pool(3);
    pool.cut_off(&node(0), at(1));
    assert_eq!(status(&pool, 0), Some(Status::Online), "it may come back over another");
    pool.report_down(&node(0), node(8), at(2));
    assert_eq!(status(&pool, 0), Some(Status::Offline));
    pool.report_down(&node(1), node(8), at(2));
    pool.cut_off(&node(1), at(3));
    assert_eq!(status(&pool, 1), Some(Status::Offline), "in either order");
    pool.cut_off(&node(2), at(3));
    assert!(pool.heartbeat(&node(2), &beat(0), at(4)));
    pool.report_down(&node(2), node(8), at(5));
    assert_eq!(status(&pool, 2), Some(Status::Suspect), "it has been heard since");
}

#[test]
fn a_heartbeat_that_comes_late_changes_nothing() {
    let mut pool = pool(1);
    let (old, new) = (beat(9), beat(5));
    assert!(pool.heartbeat(&node(0), &new, at(5)));
    for stale in [old, new] {
        assert!(pool.heartbeat(&node(0), &stale, at(20)), "the relay is known all the same");
        assert_eq!(pool.take_events(), [PoolEvent::Ignored(Ignored::Heartbeat)]);
    }
    let relay = pool.get(&node(0)).unwrap();
    assert_eq!((relay.load().flows, relay.lease_ends), (5, at(35)));
    pool.register(node(0), offer(0), at(21)).unwrap();
    assert!(pool.heartbeat(&node(0), &old, at(22)), "a new process counts anew");
    assert_eq!(pool.get(&node(0)).unwrap().load().flows, 9);
}

#[test]
fn restored_relays_have_the_grace_of_a_lease_and_their_age() {
    let mut pool = pool(1);
    for n in 0..2 {
        pool.restore(node(n), offer(n), at(50), at(100));
    }
    pool.restore(node(2), offer(2), at(900), at(100));
    let relay = |n| pool.get(&node(n)).unwrap();
    assert_eq!(relay(0).registered_at, at(0), "who has registered meanwhile keeps its place");
    assert_eq!(
        (relay(1).status, relay(1).registered_at, relay(1).lease_ends),
        (Status::Registered, at(50), at(130))
    );
    assert_eq!(relay(2).registered_at, at(100), "no clock makes it younger than now");
    assert!(pool.take_events().is_empty(), "nothing has happened to them");
}

#[test]
fn many_leases_end_in_portions() {
    const MANY: u32 = 2000;
    let config = Config { preserve_percent: 100, ..Config::default() };
    let mut pool = Pool::new(config);
    let id = |n: u32| NodeId::from_bytes(std::array::from_fn(|at| n.to_be_bytes()[at % 4]));
    for n in 0..MANY {
        pool.register(id(n), offer(1), at(0)).unwrap();
    }
    pool.take_events();
    let rounds = u32::try_from(BATCH).map(|batch| MANY / batch).unwrap();
    for round in 0..rounds {
        let now = at(30) + PAUSE * round;
        if round > 0 {
            pool.expire(now - Duration::from_micros(1));
            assert!(pool.take_events().is_empty(), "not before its time");
        }
        pool.expire(now);
        assert_eq!(pool.take_events().len(), BATCH, "round {round}");
        assert!(pool.poll_timeout().unwrap() > now);
    }
    assert_eq!(pool.counts().expired, MANY);
}

#[test]
fn two_who_lie_together_lose_their_voices_too() {
    let mut pool = pool(10);
    for n in 0..5 {
        pool.report_down(&node(n), node(98), at(1));
        pool.report_down(&node(n), node(99), at(1));
        assert_eq!(status(&pool, n), Some(Status::Offline));
        assert!(pool.heartbeat(&node(n), &beat(0), at(2)));
    }
    let events = pool.take_events();
    for liar in [98, 99] {
        assert!(events.contains(&PoolEvent::Distrusted(node(liar))), "{events:?}");
    }
    pool.report_down(&node(6), node(98), at(3));
    pool.report_down(&node(6), node(99), at(3));
    assert_eq!(status(&pool, 6), Some(Status::Online));
}

#[test]
fn self_preservation_keeps_those_behind_nats_too() {
    let mut pool = Pool::new(Config::default());
    for n in 0..20 {
        let capabilities = Capabilities { reachable: n % 2 == 0, bridge: false };
        pool.register(node(n), RelayOffer { capabilities, ..offer(n) }, at(0)).unwrap();
    }
    pool.expire(at(60));
    assert!(pool.preserving_since().is_some());
    assert!((0..20).all(|n| status(&pool, n) == Some(Status::Registered)));
    assert_eq!(pool.assignable().len(), 10, "nobody can dial the others");
}

#[test]
fn reports_confirm_each_other_only_within_a_window() {
    let mut pool = pool(1);
    pool.drain(&node(0), at(0));
    pool.report_down(&node(0), node(8), at(0));
    pool.report_down(&node(0), node(9), at(29));
    assert_eq!(status(&pool, 0), Some(Status::Offline), "also while it drains");
    let mut patient = Pool::new(Config { lease: Duration::from_secs(600), ..Config::default() });
    patient.register(node(0), offer(0), at(0)).unwrap();
    patient.report_down(&node(0), node(8), at(0));
    patient.report_down(&node(0), node(9), at(31));
    assert_eq!(status(&patient, 0), Some(Status::Suspect));
    patient.report_down(&node(0), node(8), at(32));
    assert_eq!(status(&patient, 0), Some(Status::Offline));
}

#[test]
fn registering_again_keeps_the_place_and_ends_suspicion() {
    let mut pool = pool(2);
    pool.report_down(&node(0), node(9), at(5));
    pool.drain(&node(1), at(5));
    for n in [0, 1] {
        pool.register(node(n), RelayOffer { capacity: 7, ..offer(n) }, at(6)).unwrap();
        let relay = pool.get(&node(n)).unwrap();
        assert_eq!((relay.status, relay.registered_at), (Status::Registered, at(0)));
        assert_eq!((relay.capacity, relay.lease_ends), (7, at(36)));
    }
    assert_eq!(pool.assignable().len(), 2);
    pool.deregister(&node(0), at(7));
    pool.register(node(0), offer(0), at(8)).unwrap();
    assert_eq!(pool.get(&node(0)).unwrap().registered_at, at(8), "a new life");
}

#[test]
fn the_pool_preserves_itself_when_many_fall_silent() {
    let mut pool = pool(20);
    for n in 0..16 {
        pool.heartbeat(&node(n), &beat(0), at(10));
    }
    pool.expire(at(25));
    assert_eq!(pool.preserving_since(), Some(at(25)), "4 of 20");
    assert_eq!((pool.assignable().len(), pool.poll_timeout()), (20, Some(at(30))));
    pool.report_down(&node(16), node(9), at(26));
    pool.expire(at(30));
    assert_eq!(status(&pool, 16), Some(Status::Offline), "a report and an ended lease count all the same");
    assert_eq!(pool.preserving_since(), None, "three are left");
    assert_eq!(status(&pool, 17), Some(Status::Offline));
    let preserving = PoolEvent::Preserving { overdue: 4 };
    let events = pool.take_events();
    assert!(events.contains(&preserving) && events.contains(&PoolEvent::Resumed));
}

#[test]
fn when_full_the_longest_gone_makes_place_and_nobody_else() {
    let mut pool = Pool::new(Config { max_relays: 2, ..Config::default() });
    for n in [1, 2] {
        pool.register(node(n), offer(n), at(0)).unwrap();
    }
    assert_eq!(pool.register(node(3), offer(3), at(1)), Err(PoolFull));
    assert_eq!(pool.register(node(2), offer(2), at(1)), Ok(()), "a known one keeps its place");
    pool.deregister(&node(2), at(2));
    pool.deregister(&node(1), at(3));
    assert_eq!(pool.register(node(3), offer(3), at(4)), Ok(()));
    assert_eq!((status(&pool, 1), status(&pool, 2)), (Some(Status::Left), None));
}

#[test]
fn draws_follow_capacity_and_miss_who_is_not_assignable() {
    let mut pool = pool(3);
    pool.register(node(0), RelayOffer { capacity: 300, ..offer(0) }, at(1)).unwrap();
    pool.drain(&node(2), at(1));
    let rng = &mut StdRng::seed_from_u64(1);
    let samples = (0..250).flat_map(|_| pool.sample::<4>(rng));
    let drawn: Vec<NodeId> = samples.map(|relay| relay.unwrap().node).collect();
    let large = drawn.iter().filter(|drawn| **drawn == node(0)).count();
    assert!((700..800).contains(&large), "{large} of 1000");
    assert!(!drawn.contains(&node(2)));
    pool.register(node(0), RelayOffer { capacity: 0, ..offer(0) }, at(2)).unwrap();
    pool.register(node(1), RelayOffer { capacity: 0, ..offer(1) }, at(2)).unwrap();
    assert_eq!(pool.sample::<2>(rng).map(|relay| relay.is_none()), [true; 2]);
}

#[test]
fn assignments_count_until_the_next_heartbeat() {
    let mut pool = pool(1);
    pool.heartbeat(&node(0), &beat(5), at(1));
    pool.assign(&node(0));
    pool.assign(&node(0));
    assert_eq!(pool.get(&node(0)).unwrap().flows(), 7);
    pool.heartbeat(&node(0), &beat(6), at(2));
    assert_eq!(pool.get(&node(0)).unwrap().flows(), 6);
}

/// What every sequence of calls must leave behind.
fn check(pool: &Pool) {
    assert_eq!(pool.places.len(), pool.relays.len());
    let well = pool.relays.iter().filter(|relay| relay.is_well()).count();
    assert_eq!(well + pool.doubtful.len() + pool.gone.len(), pool.relays.len());
    let mut capacities: BTreeMap<u32, usize> = BTreeMap::new();
    let counted = pool.statuses.values().sum::<usize>();
    assert_eq!(counted, pool.relays.len());
    for relay in &pool.relays {
        let same = pool.relays.iter().filter(|other| other.status == relay.status).count();
        assert_eq!(pool.count(relay.status), same);
    }
    for (place, relay) in pool.relays.iter().enumerate() {
        assert_eq!(pool.places.get(&relay.node), Some(&place));
        assert_eq!(place < pool.assignable, relay.is_assignable());
        assert_eq!(pool.weights.get(place), Some(&relay.capacity));
        let (at, node) = (relay.queued_at, relay.node);
        let is_queued = match (relay.is_gone(), relay.is_well()) {
            (true, _) => pool.gone.contains(&(at, node)),
            (false, true) => pool.leases.contains(at, node),
            (false, false) => pool.doubtful.contains(&(at, node)),
        };
        assert!(is_queued);
        assert!(relay.queued_at <= relay.due(pool.config.lease));
        if relay.is_assignable() {
            *capacities.entry(relay.capacity).or_default() += 1;
        }
    }
    for (at, node) in pool.leases.near() {
        let queued = pool.get(node).filter(|relay| relay.is_well()).map(|relay| relay.queued_at);
        assert_eq!(queued, Some(*at));
    }
    assert_eq!(capacities, pool.capacities);
    assert_eq!((pool.domains.len(), pool.weights.len()), (pool.assignable, pool.relays.len()));
}

#[test]
fn who_comes_back_for_the_same_time_is_queued_once() {
    let mut pool = pool(1);
    let late = at(25);
    pool.report_down(&node(0), node(9), late);
    pool.report_up(&node(0), node(9), late);
    pool.heartbeat(&node(0), &beat(1), late);
    pool.expire(late);
    check(&pool);
    assert_eq!(status(&pool, 0), Some(Status::Online));
}

proptest! {
    #[test]
    fn the_indices_agree_whatever_happens(
        script in prop::collection::vec((0..8u8, 0..7u8, 0..4u32, 0..15u32, any::<bool>()), 1..300),
    ) {
        let mut pool = Pool::new(Config { max_relays: 5, ..Config::default() });
        let mut now = at(0);
        for (n, what, amount, seconds, in_time) in script {
            now = now + Duration::from_secs(1) * seconds;
            match what {
                0 => drop(pool.register(node(n), RelayOffer { capacity: amount, ..offer(n) }, now)),
                1 => drop(pool.heartbeat(&node(n), &beat(amount), now)),
                2 => drop(pool.drain(&node(n), now)),
                3 => drop(pool.deregister(&node(n), now)),
                4 => drop(pool.report_down(&node(n), node(n + 1), now)),
                5 => pool.report_up(&node(n), node(n + 1), now),
                _ => pool.assign(&node(n)),
            }
            check(&pool);
            if in_time {
                pool.expire(now);
                check(&pool);
                prop_assert!(pool.poll_timeout().is_none_or(|at| at > now));
            }
            prop_assert!(pool.relays.len() <= 5);
        }
    }
}
