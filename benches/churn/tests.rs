use super::*;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::collections::HashSet;

const MEDIAN: Duration = Duration::from_secs(84);
const HOUR: Duration = Duration::from_secs(3600);

fn config(family: Family, size: u32, arrivals: Arrivals) -> Config {
    let sessions = Sessions::Model(Model::new(family, MEDIAN).unwrap());
    Config { sessions, size, arrivals, graceful: 0.2, zones: 4, zone_failures: None, crowd: None }
}

fn schedule(config: Config, seed: u64, end: Duration) -> Vec<Event> {
    Churn::new(config, StdRng::seed_from_u64(seed)).take_while(|event| event.at <= end).collect()
}

/// How many are there after each event. Checks on the way what every schedule must keep.
fn sizes(events: &[Event]) -> Vec<(Duration, usize)> {
    let (mut here, mut ever) = (HashSet::new(), HashSet::new());
    let mut last = Duration::ZERO;
    let mut sizes = Vec::new();
    for event in events {
        assert!(event.at >= last, "time goes back");
        last = event.at;
        match event.change {
            Change::Join { member, .. } => assert!(ever.insert(member) && here.insert(member), "joins once"),
            Change::Leave { member, .. } => assert!(here.remove(&member), "leaves once, and only if there"),
        }
        sizes.push((event.at, here.len()));
    }
    sizes
}

/// The mean size, weighted by time.
fn mean_size(events: &[Event]) -> f64 {
    let sizes = sizes(events);
    let area: f64 =
        sizes.windows(2).map(|pair| (pair[1].0 - pair[0].0).as_secs_f64() * pair[0].1 as f64).sum();
    area / sizes.last().unwrap().0.as_secs_f64()
}

fn deaths(events: &[Event], how: Leave) -> usize {
    events.iter().filter(|e| matches!(e.change, Change::Leave { how: this, .. } if this == how)).count()
}

#[test]
fn poisson_arrivals_keep_the_pool_at_its_size_from_the_start() {
    for family in [
        Family::Exponential,
        Family::Weibull { shape: 0.4 },
        Family::Weibull { shape: 0.6 },
        Family::Pareto { shape: 1.5 },
        Family::Pareto { shape: 1.0 },
    ] {
        for (from, to) in [(0, 300), (0, 3600), (3600, 4 * 3600)] {
            let events = schedule(config(family, 1000, Arrivals::Poisson), 7, Duration::from_secs(to));
            let before = events.iter().take_while(|event| event.at < Duration::from_secs(from)).count();
            let sizes: Vec<_> = sizes(&events).split_off(before.max(1000));
            let area: f64 =
                sizes.windows(2).map(|pair| (pair[1].0 - pair[0].0).as_secs_f64() * pair[0].1 as f64).sum();
            let span = (sizes.last().unwrap().0 - sizes[0].0).as_secs_f64();
            assert!((area / span / 1000.0 - 1.0).abs() < 0.08, "{family:?} {from}..{to} s: {}", area / span);
        }
    }
}

#[test]
fn departures_come_at_the_rate_of_the_steady_state() {
    // With fresh sessions at the start a heavy tail would begin with a storm of departures.
    let Sessions::Model(model) = config(Family::Weibull { shape: 0.4 }, 0, Arrivals::Replace).sessions else {
        panic!("a model");
    };
    let size = 20_000;
    let events = schedule(config(model.family(), size, Arrivals::Replace), 3, MEDIAN);
    let expected = f64::from(size) * MEDIAN.as_secs_f64() / model.mean().as_secs_f64();
    let left = (events.len() - size as usize) as f64 / 2.0;
    assert!((left / expected - 1.0).abs() < 0.05, "{left} of {expected}");
}

#[test]
fn who_left_is_replaced_at_once() {
    let events = schedule(config(Family::Exponential, 12, Arrivals::Replace), 1, HOUR);
    let sizes = sizes(&events);
    assert!(sizes[12..].iter().all(|(_, size)| (11..=12).contains(size)));
    assert!((mean_size(&events) - 12.0).abs() < 1e-6, "nobody is missing for any time");
    let (died, graceful) = (deaths(&events, Leave::Crash), deaths(&events, Leave::Graceful));
    let share = graceful as f64 / (died + graceful) as f64;
    assert!((share - 0.2).abs() < 0.05, "{graceful} of {} left in order", died + graceful);
}

#[test]
fn a_zone_fails_at_once_and_comes_back() {
    let mut config = config(Family::Exponential, 100, Arrivals::Replace);
    let outage = Duration::from_secs(30);
    config.zone_failures = Some(ZoneFailures { every: Duration::from_secs(600), outage });
    let events = schedule(config, 5, HOUR);
    let sizes = sizes(&events);
    let first =
        events.iter().find(|e| matches!(e.change, Change::Leave { how: Leave::ZoneFailure, .. })).unwrap();
    let zone_of = |member| {
        events.iter().find_map(|e| match e.change {
            Change::Join { member: this, zone } if this == member => Some(zone),
            Change::Join { .. } | Change::Leave { .. } => None,
        })
    };
    let dead: Vec<Member> = events
        .iter()
        .filter(|e| e.at == first.at)
        .filter_map(|e| match e.change {
            Change::Leave { member, how: Leave::ZoneFailure } => Some(member),
            Change::Join { .. } | Change::Leave { .. } => None,
        })
        .collect();
    assert!((10..=40).contains(&dead.len()), "about a quarter: {}", dead.len());
    let zones: HashSet<_> = dead.iter().map(|member| zone_of(*member)).collect();
    assert_eq!(zones.len(), 1, "one zone alone");
    let joined_there = events
        .iter()
        .filter(|e| e.at >= first.at && e.at < first.at + outage)
        .any(|e| matches!(e.change, Change::Join { zone, .. } if zones.contains(&Some(zone))));
    assert!(!joined_there, "nobody joins a zone that is down");
    let back = sizes.iter().rfind(|(at, _)| *at <= first.at + outage).unwrap();
    assert_eq!(back.1, 100, "as many return as it lost");
}

#[test]
fn a_crowd_comes_on_top_and_is_not_replaced() {
    let mut config = config(Family::Exponential, 10, Arrivals::Replace);
    let (at, within) = (Duration::from_secs(60), Duration::from_secs(2));
    config.crowd = Some(Crowd { at, relays: 500, within });
    let events = schedule(config, 9, HOUR);
    let sizes = sizes(&events);
    let after = sizes.iter().rfind(|(time, _)| *time <= at + within).unwrap().1;
    assert!((490..=510).contains(&after), "{after}");
    assert!(sizes.last().unwrap().1 <= 11);
}

#[test]
fn a_trace_is_followed_to_its_end() {
    let trace = Trace::parse("0,10\n0,\n5,7\n6,20").unwrap();
    let sessions = Sessions::Trace(trace);
    let config = Config { sessions, graceful: 0.0, ..config(Family::Exponential, 99, Arrivals::Replace) };
    let events = schedule(config, 1, HOUR);
    let seconds: Vec<(u64, usize)> = sizes(&events).iter().map(|(at, size)| (at.as_secs(), *size)).collect();
    assert_eq!(seconds, [(0, 1), (0, 2), (5, 3), (6, 4), (7, 3), (10, 2), (20, 1)]);
}

#[test]
fn the_same_seed_gives_the_same_schedule() {
    let mut config = config(Family::Weibull { shape: 0.4 }, 50, Arrivals::Poisson);
    let every = Duration::from_secs(300);
    config.zone_failures = Some(ZoneFailures { every, outage: Duration::from_secs(60) });
    assert_eq!(schedule(config.clone(), 4, HOUR), schedule(config.clone(), 4, HOUR));
    assert_ne!(schedule(config.clone(), 4, HOUR), schedule(config, 5, HOUR));
}
