//! `hopline bench bootstrap`: small pools and a few connections, and what it reports adds up.

use crate::fixture::run;
use serde_json::Value;

fn bench(arguments: &[&str]) -> Value {
    let home = tempfile::tempdir().unwrap();
    let ended =
        run(home.path(), "", &[&["bench", "bootstrap", "--json", "--seed", "3"], arguments].concat(), b"");
    assert!(ended.status.success(), "{:?}\n{}", ended.stdout, ended.stderr);
    serde_json::from_str(&ended.stdout[0]).unwrap()
}

fn number(report: &Value, path: &str) -> f64 {
    report.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("{path} in {report}"))
}

fn assert_spread(report: &Value, path: &str) {
    let quantiles = ["p50", "p90", "p99", "max"].map(|name| number(report, &format!("{path}/{name}")));
    assert!(quantiles[0] > 0.0 && quantiles.is_sorted(), "{path}: {quantiles:?}");
}

#[test]
fn pools_are_measured_by_size() {
    let plots = tempfile::tempdir().unwrap();
    let plot = plots.path().join("bootstrap.svg");
    let report = bench(&["--only", "pool", "--sizes", "500", "--plot", plot.to_str().unwrap()]);
    assert!(report["quic"].is_null());
    let pools = report["pool"].as_array().unwrap();
    assert_eq!(pools.len(), 1);
    for (pool, relays) in pools.iter().zip([500.0]) {
        assert_eq!(number(pool, "/relays"), relays);
        assert_eq!(number(pool, "/expiry/leases"), relays / 10.0);
        for path in [
            "/plan_us",
            "/answered_plan_us",
            "/random_pick_us",
            "/expiry/renewal_ms",
            "/expiry/renewal_cpu_ms",
        ] {
            assert_spread(pool, path);
        }
        assert!(number(pool, "/expiry/total_cpu_ms") > 0.0);
        // A heartbeat takes less than a millisecond; one thread has no more CPU time than wall time.
        let answered = number(pool, "/heartbeats/per_second");
        assert!(answered > 1e3 && number(pool, "/map_heartbeats/per_second") > 1e3, "{pool}");
        assert!(number(pool, "/heartbeats/cpu_us") * answered < 1.05e6, "{pool}");
        let record = number(pool, "/record_bytes_per_relay");
        assert!((100.0..1000.0).contains(&record), "{pool}");
    }
    assert!(std::fs::read_to_string(plot).unwrap().contains("planner, µs"));
}

#[test]
fn connections_heartbeat_over_quic() {
    let report = bench(&["--only", "quic", "--connections", "40", "--heartbeat", "1s", "--seconds", "3"]);
    assert_eq!(report["pool"].as_array().unwrap().len(), 0);
    let quic = &report["quic"];
    assert_eq!((number(quic, "/connections"), number(quic, "/online")), (40.0, 40.0), "{report}");
    assert!(quic["limited_by"].is_null());
    for part in ["paced", "saturated"] {
        assert_eq!(number(quic, &format!("/{part}/failures")), 0.0, "{report}");
        assert_spread(quic, &format!("/{part}/latency_ms"));
    }
    // 40 relays, a heartbeat a second each.
    let paced = number(quic, "/paced/heartbeats_per_second");
    assert!((10.0..=80.0).contains(&paced), "{report}");
    assert!(number(quic, "/saturated/heartbeats_per_second") > 10.0, "{report}");
    assert!(number(quic, "/saturated/cpu_percent") > 0.0, "{report}");
    assert_eq!(number(quic, "/saturated_connections"), 40.0);
    let grown = number(quic, "/resident_bytes_after") - number(quic, "/resident_bytes_before");
    assert!((grown / 1024.0 / 40.0 - number(quic, "/resident_kib_per_connection")).abs() < 0.1, "{report}");
}

#[test]
fn what_makes_no_sense_is_refused() {
    let home = tempfile::tempdir().unwrap();
    for (arguments, saying) in [
        (&["--only", "quic", "--plot", "x.svg"][..], "--only quic leaves out"),
        (&["--sizes", "99"], "100..=10000000"),
        (&["--connections", "0"], "write a number above 0, or auto"),
    ] {
        let ended = run(home.path(), "", &[&["bench", "bootstrap"], arguments].concat(), b"");
        assert_eq!(ended.status.code(), Some(2), "{}", ended.stderr);
        assert!(ended.stderr.contains(saying), "{saying:?} is not in {}", ended.stderr);
    }
}
