//! `hopline bench latency`: a small run ends well, and what it reports adds up.

use crate::fixture::run;
use serde_json::Value;

const SIDES: [&str; 3] = ["dumb_splice", "stored", "session"];

#[test]
fn small_things_are_measured_beside_the_dumb_splice() {
    let home = tempfile::tempdir().unwrap();
    let args = "bench latency --hops 1 --count 20 --rounds 2 --parallel 4 --seconds 1 --json";
    let ended = run(home.path(), "", &args.split_whitespace().collect::<Vec<_>>(), b"");
    assert!(ended.status.success(), "{:?}\n{}", ended.stdout, ended.stderr);
    let report: Value = serde_json::from_str(&ended.stdout[0]).unwrap();
    let number = |side: &str, at: &str| {
        let number = report[side].pointer(at).and_then(Value::as_f64);
        number.unwrap_or_else(|| panic!("{side} {at} in {report}"))
    };
    assert_eq!(report["wrong_bytes"], 0);
    let opened: f64 = SIDES.map(|side| number(side, "/opened")).iter().sum();
    // Two rounds of twenty echoes of 64 bytes and a hundred first bytes, and a byte of each flow that was opened.
    assert_eq!(report["bytes"].as_f64().unwrap(), 3.0 * 2.0 * (20.0 * 64.0 + 100.0) + opened);
    for side in SIDES {
        for what in ["echo", "first_byte"] {
            let quantiles = ["p50", "p99", "max"].map(|quantile| {
                let figure = number(side, &format!("/{what}_ms/{quantile}"));
                let ratio = number(side, &format!("/times_the_splice/{what}/{quantile}"));
                let splice = number("dumb_splice", &format!("/{what}_ms/{quantile}"));
                assert!((ratio - figure / splice).abs() < 1e-6, "{side} {what} {quantile}");
                figure
            });
            assert!(quantiles[0] > 0.0 && quantiles.is_sorted(), "{side} {what}: {quantiles:?}");
        }
        // Each of four openers at least once a round.
        assert!(number(side, "/opened") >= 8.0 && number(side, "/opened_per_second") > 0.0);
    }
}

#[test]
fn an_echo_that_does_not_fit_is_refused() {
    let home = tempfile::tempdir().unwrap();
    for size in ["0", "65KiB"] {
        let ended = run(home.path(), "", &["bench", "latency", "--size", size], b"");
        assert_eq!(ended.status.code(), Some(2), "{}", ended.stderr);
        assert!(ended.stderr.contains("64 KiB"), "{}", ended.stderr);
    }
}
