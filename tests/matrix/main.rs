//! Every failure that a chain can meet, on real processes: each case at each hop position, with data both ways.
//!
//! `HOPLINE_MATRIX=WORD` runs only the cases whose name has that word, `HOPLINE_MATRIX_RUNS=N` repeats each,
//! `HOPLINE_MATRIX_SEED=N` draws other moments, `HOPLINE_MATRIX_TABLE=FILE` writes the table there (between the lines
//! `<!-- matrix -->` and `<!-- end of matrix -->`, if the file has them).
#![allow(unreachable_pub, reason = "a test binary has no outside")]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a test may fail any way it likes"
)]
#![allow(clippy::wildcard_enum_match_arm, reason = "a test waits for what it waits for")]

#[path = "../common/fixture.rs"]
#[allow(dead_code, reason = "shared with tests/cluster")]
mod fixture;

mod cases;
mod network;
mod stage;
mod table;

use network::Network;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use stage::{POOL, Stage};
use std::path::Path;
use std::time::Duration;
use table::Table;

/// Faults come at a random moment, so that they meet heartbeats at any phase.
const CALM_MS: std::ops::RangeInclusive<u64> = 80..=120;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_whatever_happens_to_the_relays() {
    let only = std::env::var("HOPLINE_MATRIX").unwrap_or_default();
    let mut rng = StdRng::seed_from_u64(setting("HOPLINE_MATRIX_SEED", 1));
    let cases: Vec<_> = cases::all().into_iter().filter(|case| case.name.contains(&only)).collect();
    assert!(!cases.is_empty(), "HOPLINE_MATRIX={only:?} is in no case's name");
    let (mut table, mut failed) = (Table::default(), Vec::new());
    let mut stage: Option<Stage> = None;
    for case in &cases {
        for _ in 0..setting("HOPLINE_MATRIX_RUNS", 1) {
            let calm = Duration::from_millis(rng.random_range(CALM_MS));
            let usable = stage.take().filter(|stage| stage.network.is_testbed() == case.needs_a_testbed());
            let mut on = match (usable, case.needs_a_testbed()) {
                (Some(stage), _) => stage,
                (None, false) => Stage::start(Network::loopback()).await,
                (None, true) => match Network::testbed(POOL) {
                    Ok(network) => Stage::start(network).await,
                    Err(error) => {
                        println!("SKIPPED: {case}: {error}");
                        continue;
                    }
                },
            };
            let outcome = on.play(case, calm).await;
            eprintln!("{case}: {}", outcome.as_ref().map_or_else(Clone::clone, ToString::to_string));
            table.add(case, outcome.as_ref().ok());
            // What went wrong may last, and the next case is not to blame.
            stage = (outcome.is_ok() && !case.restarts_the_bootstrap()).then_some(on);
            failed.extend(outcome.err().map(|why| format!("{case}: {why}")));
        }
    }
    println!("{table}");
    if let Some(path) = std::env::var_os("HOPLINE_MATRIX_TABLE") {
        // As seen from the root of the tree: cargo runs tests in the folder of their package.
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path);
        table.write(path.as_ref());
    }
    assert!(failed.is_empty(), "{} of {} runs failed:\n{}", failed.len(), table.runs(), failed.join("\n"));
}
