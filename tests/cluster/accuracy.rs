//! `hopline bench accuracy`: nobody dies, and what it counts adds up.

use crate::fixture::run;
use hopline_lab::testbed::Testbed;
use serde_json::Value;

const COUNTS: [&str; 4] = ["suspicions", "failovers", "rebuilds", "deaths"];

fn report(arguments: &str) -> Value {
    let home = tempfile::tempdir().unwrap();
    let args = format!("bench accuracy --flows 6 --relays 5 --hops 2 --pairs 1 --seed 5 --json {arguments}");
    let ended = run(home.path(), "", &args.split_whitespace().collect::<Vec<_>>(), b"");
    assert!(ended.status.success(), "{:?}\n{}", ended.stdout, ended.stderr);
    serde_json::from_str(&ended.stdout[0]).unwrap()
}

fn number(report: &Value, name: &str) -> f64 {
    report.get(name).and_then(Value::as_f64).unwrap_or_else(|| panic!("{name} in {report}"))
}

/// Six flows, both ways, all that their rate says.
fn assert_all_arrived(report: &Value, seconds: f64) {
    for fault in ["lost", "duplicated", "reordered", "flows_closed", "events_missed"] {
        assert_eq!(number(report, fault), 0.0, "{fault}");
    }
    let due = 2.0 * 6.0 * 4096.0 * seconds;
    assert!((due * 0.9..=due * 1.1).contains(&number(report, "bytes")), "{due} bytes were due: {report}");
}

#[test]
fn false_alarms_are_counted_on_a_busy_machine() {
    let report = report("--busy 4 --seconds 4");
    assert_all_arrived(&report, 4.0);
    let nodes = report.get("nodes").and_then(Value::as_object).unwrap();
    let names: Vec<&str> = nodes.keys().map(String::as_str).collect();
    assert_eq!(names, ["origin-0", "r1", "r2", "r3", "r4", "r5", "target-0"]);
    let sum = |of: &str| nodes.values().map(|node| number(node, of)).sum::<f64>();
    assert_eq!(sum("suspected"), number(&report, "suspicions"));
    assert_eq!(sum("down"), number(&report, "deaths"));
    let hours = number(&report, "link_hours");
    assert!((sum("link_seconds") / 7200.0 - hours).abs() < 1e-9);
    // The origin has a link to each candidate of the first hop, these to the target's, and the target to its own.
    let links = hours * 3600.0 / 4.0;
    assert!((5.0..=15.0).contains(&links), "{links} links on average");
    for name in COUNTS {
        let each = number(&report, &format!("{name}_per_link_hour"));
        assert!((each * hours - number(&report, name)).abs() < 1e-6, "{name}");
    }
}

#[test]
fn losses_close_no_flow() {
    if let Err(error) = Testbed::new(1, 0) {
        eprintln!("SKIPPED: {error}");
        return;
    }
    // With every other datagram lost, links that carry flows can't all seem alive for five seconds.
    let report = report("--busy 0 --seconds 5 --loss 50%");
    assert_all_arrived(&report, 5.0);
    assert!(number(&report, "suspicions") > 0.0, "{report}");
}

#[test]
fn what_makes_no_sense_is_refused() {
    let home = tempfile::tempdir().unwrap();
    for (arguments, saying) in [
        (["--relays", "3"], "at least 4"),
        (["--loss", "0.1"], "a percentage"),
        (["--loss", "100%"], "a percentage"),
    ] {
        let ended = run(home.path(), "", &[&["bench", "accuracy"], &arguments[..]].concat(), b"");
        assert_eq!(ended.status.code(), Some(2), "{}", ended.stderr);
        assert!(ended.stderr.contains(saying), "{saying:?} is not in {}", ended.stderr);
    }
}
