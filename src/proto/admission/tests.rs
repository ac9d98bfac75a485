//! Floods, in virtual time.

use super::*;

const SMALL: Config = Config {
    unproven: Places { most: 4, fair: ms(900), limit: ms(3000) },
    proven: Places { most: 8, fair: ms(500), limit: ms(3000) },
    known: Places { most: 2, fair: ms(500), limit: ms(3000) },
    guests: Places { most: 4, fair: ms(500), limit: ms(2000) },
    of_subnet: Allowance { burst: 1000, per_second: 500 },
};

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn at(millis: u64) -> Time {
    Time::from_micros(1_000_000_000_000) + ms(millis)
}

/// The host's address in a subnet of this number, and a port.
fn from(subnet: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, subnet, 1], port))
}

fn place(verdict: Verdict) -> PlaceId {
    let Verdict::Admit(granted) = verdict else { panic!("{verdict:?}") };
    granted.place
}

fn is_admitted(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Admit(_))
}

#[test]
fn a_flood_of_forged_packets_makes_others_prove_their_address_and_no_more() {
    let mut admission = Admission::new(SMALL);
    let mut admitted = 0u64;
    for n in 0..3000u64 {
        // 300 a second from everywhere, none of which is heard of again.
        let verdict = admission.arrive(from(u8::try_from(n % 250).unwrap(), 1), false, at(n * 10 / 3));
        admitted += u64::from(is_admitted(verdict));
        assert!(is_admitted(verdict) || verdict == Verdict::Prove);
        assert!(admission.unproven.taken.len() <= 4);
    }
    assert!((40..60).contains(&admitted), "four a second, or little more: {admitted}");
    for n in 0..8 {
        assert!(
            is_admitted(admission.arrive(from(n, 9), true, at(10_000))),
            "proven ones have places of their own"
        );
    }
    assert_eq!(admission.counters().to_prove, 3000 - admitted);
}

#[test]
fn one_source_takes_from_others_only_what_they_do_not_use() {
    let mut admission = Admission::new(SMALL);
    for port in 0..8 {
        assert!(is_admitted(admission.arrive(from(66, port), true, at(0))));
    }
    assert_eq!(admission.arrive(from(66, 99), true, at(1)), Verdict::Ignore, "it does not hurry itself out");
    let honest: Vec<PlaceId> = (1..=3).map(|n| place(admission.arrive(from(n, 1), true, at(2)))).collect();
    for n in 0..1000 {
        let verdict = admission.arrive(from(66, 100 + n), true, at(2 + u64::from(n) * 3));
        if let Verdict::Admit(Granted { displaced: Some(displaced), .. }) = verdict {
            assert!(!honest.contains(&displaced), "attempt {n} took an honest one's place");
        }
    }
    assert_eq!(admission.proven.taken.len(), 8);
}

#[test]
fn within_a_subnet_each_has_a_fair_time() {
    let mut admission = Admission::new(SMALL);
    let first = place(admission.arrive(from(1, 0), true, at(0)));
    for n in 1..8 {
        assert!(is_admitted(admission.arrive(from(1, n), true, at(100))));
    }
    assert_eq!(admission.arrive(from(1, 9), true, at(499)), Verdict::Ignore);
    let Verdict::Admit(granted) = admission.arrive(from(1, 9), true, at(500)) else { panic!() };
    assert_eq!((granted.displaced, granted.limit), (Some(first), ms(3000)));
    admission.end(first, Outcome::Displaced);
    let counters = admission.counters();
    assert_eq!((counters.proven, counters.crowded, counters.displaced), (9, 1, 1));
}

#[test]
fn a_subnet_has_its_allowance_and_others_have_theirs() {
    let of_subnet = Allowance { burst: 10, per_second: 5 };
    let mut admission = Admission::new(Config { of_subnet, ..Config::default() });
    let admitted = |admission: &mut Admission, subnet, now| {
        (0..100).filter(|n| is_admitted(admission.arrive(from(subnet, *n), true, now))).count()
    };
    assert_eq!(admitted(&mut admission, 1, at(0)), 10);
    assert_eq!(admitted(&mut admission, 1, at(1000)), 5);
    assert_eq!(admitted(&mut admission, 2, at(1000)), 10);
    let member = from(1, 77);
    admission.met(member, at(1000));
    assert!(is_admitted(admission.arrive(member, true, at(1000))), "members are not counted in");
    for n in 0..100u16 {
        let forged = from(3, n);
        admission.arrive(forged, false, at(1000));
    }
    assert_eq!(admitted(&mut admission, 3, at(1000)), 10, "forged packets are charged to nobody");
}

#[test]
fn members_have_places_of_their_own_where_they_were_met() {
    let mut admission = Admission::new(SMALL);
    let member = from(9, 1);
    admission.met(member, at(0));
    for n in 0..200 {
        admission.arrive(from(n, 9), true, at(1));
    }
    assert!(is_admitted(admission.arrive(member, true, at(2))));
    assert_eq!(admission.counters().known, 1);
    let in_ipv6 = SocketAddr::from(([0, 0, 0, 0, 0, 0xffff, 0xc000, 0x0901], 1));
    assert!(is_admitted(admission.arrive(in_ipv6, true, at(3))));
    assert_eq!(admission.counters().known, 2, "in any clothes");
    admission.arrive(from(9, 2), true, at(4));
    assert_eq!(admission.counters().known, 2, "another port may be anybody");
    let later = at(0) + KNOWN_FOR;
    admission.arrive(member, true, later);
    assert_eq!(admission.counters().known, 2, "it may have moved by then");
}

#[test]
fn guests_who_say_nothing_go_first() {
    let mut admission = Admission::new(SMALL);
    let mut guest = |subnet, now| {
        let place = place(admission.arrive(from(subnet, 1), true, now));
        admission.entertain(place, from(subnet, 1), now)
    };
    let silent: Vec<PlaceId> = (0..4).map(|_| guest(66, at(0)).unwrap().place).collect();
    assert_eq!(guest(66, at(1)), None);
    assert_eq!(guest(1, at(2)).unwrap().displaced, Some(silent[0]));
    assert_eq!(guest(66, at(600)).unwrap().displaced, Some(silent[1]));
    assert_eq!((admission.proven.taken.len(), admission.guests.taken.len()), (0, 4));
}

#[test]
fn memory_is_bounded() {
    let mut admission = Admission::new(Config::default());
    for n in 0..100_000u32 {
        let [_, a, b, c] = n.to_be_bytes();
        let from = SocketAddr::from(([10 + a, b, c, 1], 1));
        admission.arrive(from, n % 2 == 0, at(0));
        admission.met(from, at(u64::from(n)));
    }
    assert!(admission.spent.len() <= MAX_SUBNETS && admission.members.len() <= MAX_KNOWN);
    assert!(admission.proven.taken.len() <= 256 && admission.unproven.taken.len() <= 32);
    assert!(!admission.is_known(SocketAddr::from(([10, 0, 0, 1], 1)), at(100_000)), "the oldest went first");
}
