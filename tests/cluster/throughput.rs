//! `hopline bench throughput`: every transfer of a small run ends well, and what it reports adds up.

use crate::fixture::run;
use serde_json::Value;

#[test]
fn transfers_are_measured_beside_the_dumb_splice() {
    const PAIRS: usize = 2;
    let home = tempfile::tempdir().unwrap();
    let ended =
        run(home.path(), "", &["bench", "throughput", "--size", "1MiB", "--pairs", "2", "--json"], b"");
    assert!(ended.status.success(), "{:?}\n{}", ended.stdout, ended.stderr);
    let report: Value = serde_json::from_str(&ended.stdout[0]).unwrap();
    let rows = report["chains"].as_array().unwrap();
    assert_eq!(rows.iter().map(|row| row["relays"].as_u64().unwrap()).collect::<Vec<_>>(), [0, 1, 3]);
    let rates = |side: &Value| {
        let rates = side["mb_per_second"].as_array().unwrap();
        assert_eq!(rates.len(), PAIRS);
        rates.iter().map(|rate| rate.as_f64().unwrap()).collect::<Vec<_>>()
    };
    for row in rows {
        let splice = rates(&row["dumb_splice"]);
        assert!(splice.iter().all(|rate| *rate > 0.0));
        if row["relays"] != 0 {
            for plane in ["stored", "session"] {
                let flows = &row["hopline"][plane];
                let ratios = flows["ratios"].as_array().unwrap();
                for ((flow, splice), ratio) in rates(flows).iter().zip(&splice).zip(ratios) {
                    assert!((flow / splice - ratio.as_f64().unwrap()).abs() < 1e-6);
                }
            }
        }
    }
}
