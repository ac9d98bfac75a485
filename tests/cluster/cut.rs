//! `hopline bench failover --cause cut`: links between healthy relays are cut and heal, in network namespaces.

use crate::fixture::run;
use hopline_lab::testbed::Testbed;
use serde_json::Value;

#[test]
fn nothing_is_lost_when_links_are_cut() {
    let home = tempfile::tempdir().unwrap();
    let args = "bench failover --cause cut --runs 3 --relays 6 --hops 2 --seed 3 --json";
    let ended = run(home.path(), "", &args.split_whitespace().collect::<Vec<_>>(), b"");
    if let Err(error) = Testbed::new(1, 0) {
        eprintln!("SKIPPED: {error}");
        assert_eq!(ended.status.code(), Some(1));
        assert!(ended.stderr.contains(&error.to_string()), "it says so: {}", ended.stderr);
        return;
    }
    assert!(ended.status.success(), "{:?}\n{}", ended.stdout, ended.stderr);
    let report: Value = serde_json::from_str(&ended.stdout[0]).unwrap();
    let count = |name: &str| report.get(name).and_then(Value::as_u64).unwrap_or_else(|| panic!("{name}"));
    assert_eq!((count("lost"), count("duplicated"), count("reordered")), (0, 0, 0));
    assert_eq!(count("runs"), 3);
    // However busy the machine is: a neighbour is heard each 10 ms, and given more than two of them.
    let longest = report.pointer("/gap_ms/p50").and_then(Value::as_f64).unwrap();
    assert!(longest > 20.0, "a cut shows: {longest}");
}
