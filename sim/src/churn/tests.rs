//! Short runs of every kind of churn.

use super::report::Report;
use super::run::{Options, run};
use crate::settings::Fidelity;
use hopline_churn::{Arrivals, Sessions, Spec, ZoneFailures};
use std::time::Duration;

fn options() -> Options {
    Options {
        seed: 1,
        sessions: None,
        relays: 40,
        flows: 20,
        flows_per_endpoint: 10,
        hops: 3,
        duration: Duration::from_secs(120),
        zones: 4,
        zone_failures: None,
        crowd: 0,
        deaths: 0,
        arrivals: Arrivals::Poisson,
        graceful: 0.0,
        fidelity: Fidelity::Lean,
        message_bytes: 1024,
        every: Duration::from_secs(1),
        delay: Duration::from_millis(20),
        bandwidth: 0,
        lease: Duration::from_secs(30),
        refusals: false,
    }
}

fn sessions(text: &str, file: &str) -> Option<Sessions> {
    let spec: Spec = text.parse().unwrap();
    Some(spec.load(|_| Ok(file.to_owned())).unwrap())
}

fn check(options: Options) -> Report {
    let flows = options.flows as u64;
    let report = run(options, |_| ());
    assert!(report.lost.is_empty(), "{:?}", report.lost);
    assert_eq!((report.opened, report.done, report.unfinished), (flows, flows, 0));
    assert!(!report.corrupt && report.sent == report.taken, "{} of {}", report.taken, report.sent);
    report
}

#[test]
fn load_is_spread_evenly_over_a_calm_pool() {
    // Where ten targets are attached is a matter of luck: some runs are less even.
    let runs = (1..=8).map(|seed| {
        let every = Duration::from_secs(20);
        let report = check(Options { seed, relays: 20, flows: 100, every, ..options() });
        assert_eq!((report.left, report.rebuilds), (0, 0));
        report.fairness()
    });
    let fairness: Vec<f64> = runs.collect();
    assert!(fairness.iter().sum::<f64>() / 8.0 > 0.9, "{fairness:?}");
}

#[test]
fn every_heartbeat_simulated_or_drawn_no_flow_is_lost() {
    for fidelity in [Fidelity::Full, Fidelity::Lean] {
        let report = check(Options { sessions: sessions("exp:84s", ""), fidelity, ..options() });
        assert!(report.left > 30 && report.reroutes > 10, "{} {}", report.left, report.reroutes);
    }
}

#[test]
fn zones_fail_and_a_crowd_joins() {
    let every = Duration::from_secs(30);
    let zone_failures = Some(ZoneFailures { every, outage: Duration::from_secs(10) });
    let sessions = sessions("weibull:0.6:5min", "");
    let report = check(Options { sessions, zone_failures, crowd: 40, ..options() });
    let most = |of: fn(&super::report::Sample) -> usize| report.samples.iter().map(of).max().unwrap();
    assert!(most(|sample| sample.living) > 60, "the crowd came");
    assert!(report.left > 40, "zones failed: {} left", report.left);
}

#[test]
fn relays_come_and_go_as_a_trace_says() {
    let lines: String = (0..40).map(|n| format!("0,{}\n{},\n", 10 + n * 2, 5 + n * 2)).collect();
    let report = check(Options { sessions: sessions("trace:stays.csv", &lines), ..options() });
    assert_eq!((report.joined, report.left), (80, 40));
}

#[test]
fn relays_that_leave_in_good_order_cause_no_pause() {
    let report = check(Options { sessions: sessions("exp:84s", ""), graceful: 1.0, ..options() });
    let (_, longest) = report.latency.last().unwrap();
    assert!(report.reroutes > 10 && *longest < Duration::from_millis(500), "{longest:?}");
}

#[test]
fn a_third_of_the_pool_dies_at_once_and_what_was_under_way_is_late_by_a_moment() {
    let report = check(Options {
        relays: 24,
        flows: 60,
        duration: Duration::from_secs(24),
        deaths: 8,
        fidelity: Fidelity::Full,
        message_bytes: 256,
        every: Duration::from_millis(20),
        delay: Duration::from_micros(200),
        refusals: true,
        ..options()
    });
    let (_, longest) = report.latency.last().unwrap();
    assert!(report.left == 8 && report.reroutes > 30, "{} {}", report.left, report.reroutes);
    assert!(*longest < Duration::from_millis(250), "{longest:?}");
}
