//! `hopline bench soak`: relays of one flow are killed or restarted one after the other, and what it reports adds up.

use crate::fixture::run;
use serde_json::Value;

fn soak(args: &str) -> Value {
    let home = tempfile::tempdir().unwrap();
    let args = format!("bench soak --json --seed 3 {args}");
    let ended = run(home.path(), "", &args.split_whitespace().collect::<Vec<_>>(), b"");
    assert!(ended.status.success(), "{:?}\n{}", ended.stdout, ended.stderr);
    let report: Value = serde_json::from_str(&ended.stdout[0]).unwrap();
    for fault in ["lost", "duplicated", "reordered"] {
        assert_eq!(report[fault], 0, "{fault}");
    }
    assert_eq!(report["sha256_equal"], true);
    report
}

#[test]
fn kills_one_after_the_other_lose_nothing() {
    let report = soak("--seconds 4 --slice 2s --kill-every 500ms --relays 6 --hops 2 --rate 2MiB");
    let count = |path: &str| report.pointer(path).and_then(Value::as_u64).unwrap_or_else(|| panic!("{path}"));
    // Eight are due, and a slow machine makes fewer.
    assert!((2..=8).contains(&count("/kills")), "{report}");
    assert!(count("/failovers") >= 2, "{report}");
    for side in ["undisturbed", "disturbed"] {
        // Four seconds of 2 MiB.
        assert!(count(&format!("/{side}/bytes")) > 4 << 20, "{report}");
        assert!(report.pointer(&format!("/{side}/pause_ms/max")).and_then(Value::as_f64) > Some(0.0));
    }
    let ratio = report["ratio"].as_f64().unwrap();
    assert!((0.5..1.5).contains(&ratio), "the rate is within reach, with and without kills: {report}");
}

#[test]
fn every_relay_is_restarted_once() {
    let report = soak("--rolling --relays 5 --hops 2");
    let restarts = report["restarts"].as_array().unwrap();
    assert_eq!(restarts.len(), 5);
    let on_chain = restarts.iter().filter(|restart| restart["on_chain"] == true).count() as u64;
    assert!(on_chain >= 2, "a chain of two goes over two relays: {report}");
    assert!(report["failovers"].as_u64().unwrap() >= on_chain, "{report}");
}

#[test]
fn what_makes_no_sense_is_refused() {
    let home = tempfile::tempdir().unwrap();
    for (arguments, saying) in [
        (&["--relays", "4"][..], "at least 5"),
        (&["--slice", "100ms"], "must be at least --kill-every"),
        (&["--rate", "fast"], "or unlimited"),
        (&["--rolling", "--seconds", "3"], "cannot be used with"),
    ] {
        let ended = run(home.path(), "", &[&["bench", "soak"], arguments].concat(), b"");
        assert_eq!(ended.status.code(), Some(2), "{}", ended.stderr);
        assert!(ended.stderr.contains(saying), "{saying:?} is not in {}", ended.stderr);
    }
}
