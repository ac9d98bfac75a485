//! `hopline bench wan`: bulk over long and lossy links in network namespaces, over the relays and directly.

use crate::fixture::run;
use hopline_lab::testbed::Testbed;
use serde_json::Value;

#[test]
fn bulk_is_carried_over_long_and_lossy_links() {
    let home = tempfile::tempdir().unwrap();
    let args = "bench wan --hops 1 --rtt 10,40 --loss 0.1 --seconds 1 --seed 3 --json";
    let ended = run(home.path(), "", &args.split_whitespace().collect::<Vec<_>>(), b"");
    if let Err(error) = Testbed::new(1, 0) {
        eprintln!("SKIPPED: {error}");
        assert_eq!(ended.status.code(), Some(2));
        assert!(ended.stderr.contains("as root"), "it says so: {}", ended.stderr);
        return;
    }
    assert!(ended.status.success(), "{:?}\n{}", ended.stdout, ended.stderr);
    let report: Value = serde_json::from_str(&ended.stdout[0]).unwrap();
    for fault in ["lost", "duplicated", "reordered"] {
        assert_eq!(report[fault], 0, "{fault}");
    }
    let cells = report["cells"].as_array().unwrap();
    let rtts: Vec<f64> = cells.iter().map(|cell| cell["end_to_end_rtt_ms"].as_f64().unwrap()).collect();
    assert_eq!(rtts, [20.0, 80.0], "of two links");
    for cell in cells {
        let [stored, session, splice, tcp] = ["stored", "session", "dumb_splice", "tcp"].map(|subject| {
            let transfer = &cell["transfers"][subject];
            assert!(transfer["cause"].is_null(), "{subject}: {transfer}");
            let rate = transfer["mb_per_second"].as_f64().unwrap();
            assert!(rate > 0.0, "{subject}: {transfer}");
            rate
        });
        let ratio = cell["better_plane_to_better_baseline"].as_f64().unwrap();
        assert!((ratio - stored.max(session) / splice.max(tcp)).abs() < 1e-6);
        assert!((cell["stored_to_session"].as_f64().unwrap() - stored / session).abs() < 1e-6);
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let home = tempfile::tempdir().unwrap();
    for (arguments, saying) in
        [(["--rtt", "10s"], "milliseconds"), (["--loss", "100"], "a percentage"), (["--hops", "9"], "1..=8")]
    {
        let ended = run(home.path(), "", &[&["bench", "wan"], &arguments[..]].concat(), b"");
        assert_eq!(ended.status.code(), Some(2), "{}", ended.stderr);
        assert!(ended.stderr.contains(saying), "{saying:?} is not in {}", ended.stderr);
    }
}
