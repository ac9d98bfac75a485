//! `hopline bench failover`: one relay after the other is killed, frozen or drained, and what it reports adds up.

use crate::fixture::run;
use serde_json::Value;

#[test]
fn nothing_is_lost_whatever_happens_to_a_relay() {
    let home = tempfile::tempdir().unwrap();
    let plot = home.path().join("cdf.svg");
    for cause in ["kill", "freeze", "drain", "gray"] {
        let args =
            format!("bench failover --cause {cause} --runs 4 --relays 6 --hops 2 --seed 3 --json --plot");
        let mut args: Vec<&str> = args.split_whitespace().collect();
        args.push(plot.to_str().unwrap());
        let ended = run(home.path(), "", &args, b"");
        assert!(ended.status.success(), "{cause}: {:?}\n{}", ended.stdout, ended.stderr);
        let report: Value = serde_json::from_str(&ended.stdout[0]).unwrap();
        let count = |name: &str| report.get(name).and_then(Value::as_u64).unwrap_or_else(|| panic!("{name}"));
        assert_eq!((count("lost"), count("duplicated"), count("reordered")), (0, 0, 0), "{cause}");
        assert_eq!(count("runs"), 4);
        assert!(count("bytes") > 4 * 100 * 1000, "a mebibyte a second, each way, 100 ms before each fault");
        let noticed = report.get("noticed_by").and_then(Value::as_object).unwrap();
        assert_eq!(noticed.values().filter_map(Value::as_u64).sum::<u64>(), 4, "{noticed:?}");
        let of =
            |name: &str, q: &str| report.pointer(&format!("/{name}/{q}")).and_then(Value::as_f64).unwrap();
        assert!(of("no_fault_ms", "p50") > 0.0 && of("gap_ms", "p50") <= of("gap_ms", "max"));
        assert!(std::fs::read_to_string(&plot).unwrap().contains("milliseconds"));
    }
}

#[test]
fn many_flows_lose_many_relays_and_all_go_on() {
    let home = tempfile::tempdir().unwrap();
    let args =
        "bench failover --cause kill --flows 40 --relays 8 --at-once 2 --hops 2 --runs 2 --seed 5 --json";
    let args: Vec<&str> = args.split_whitespace().collect();
    let ended = run(home.path(), "", &args, b"");
    assert!(ended.status.success(), "{:?}\n{}", ended.stdout, ended.stderr);
    let report: Value = serde_json::from_str(&ended.stdout[0]).unwrap();
    let count = |name: &str| report.get(name).and_then(Value::as_u64).unwrap_or_else(|| panic!("{name}"));
    assert_eq!((count("lost"), count("duplicated"), count("reordered"), count("broken")), (0, 0, 0, 0));
    assert_eq!(count("resumed"), count("struck"));
    let struck = report.get("relays_struck").and_then(Value::as_array).unwrap();
    assert!(struck.iter().all(|run| run.as_array().is_some_and(|relays| relays.len() == 2)), "{struck:?}");
    assert_eq!(count("unprotected_runs"), 0, "every hop has a backup again");
}

#[test]
fn what_makes_no_sense_is_refused() {
    let home = tempfile::tempdir().unwrap();
    for (arguments, saying) in [
        (["--relays", "4"], "at least 5"),
        (["--at-once", "12"], "at least 16"),
        (["--hop", "4"], "--hop 4 is beyond --hops 3"),
        (["--hop", "first"], "write a hop's number, or any"),
        (["--cause", "bribe"], "possible values: kill, freeze, drain, cut, gray"),
    ] {
        let ended = run(home.path(), "", &[&["bench", "failover"], &arguments[..]].concat(), b"");
        assert_eq!(ended.status.code(), Some(2), "{}", ended.stderr);
        assert!(ended.stderr.contains(saying), "{saying:?} is not in {}", ended.stderr);
    }
}
