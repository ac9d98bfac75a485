//! Every failure that a chain can meet, on real processes: each case at each hop position, with data both ways.
//!
//! `HOPLINE_MATRIX=WORD` runs only the cases whose name has that word, `HOPLINE_MATRIX_RUNS=N` repeats each,
//! `HOPLINE_MATRIX_SEED=N` draws other moments, `HOPLINE_MATRIX_PLANE=session` or `redundant` has the flows travel that way, `HOPLINE_MATRIX_TABLE=FILE` writes the table there (between the lines
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

mod cases;
mod network;
mod table;

use cases::Case;
use hopline::endpoint::{Options, Plane};
use hopline_lab::stage::Stage;
use network::{HOSTS, Network};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::path::Path;
use std::time::Duration;
use table::Table;
use tokio::sync::Mutex;

/// Two networks under load at once would show each other's pauses.
static TURN: Mutex<()> = Mutex::const_new(());
/// Faults come at a random moment, so that they meet heartbeats at any phase.
const CALM_MS: std::ops::RangeInclusive<u64> = 80..=120;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

/// How the flows travel.
fn options() -> Options {
    let named = std::env::var("HOPLINE_MATRIX_PLANE").unwrap_or_default();
    let (plane, redundant) = match named.as_str() {
        "" | "stored" => (Plane::Stored, false),
        "session" => (Plane::Session, false),
        "redundant" => (Plane::Session, true),
        other => panic!("HOPLINE_MATRIX_PLANE={other:?}"),
    };
    Options { plane, redundant, ..Options::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_whatever_happens_to_the_relays() {
    let only = std::env::var("HOPLINE_MATRIX").unwrap_or_default();
    let cases: Vec<_> = cases::all().into_iter().filter(|case| case.name.contains(&only)).collect();
    assert!(!cases.is_empty(), "HOPLINE_MATRIX={only:?} is in no case's name");
    let (table, failed) = play(&cases, &options(), true).await;
    println!("{table}");
    if let Some(path) = std::env::var_os("HOPLINE_MATRIX_TABLE") {
        // As seen from the root of the tree: cargo runs tests in the folder of their package.
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path);
        table.write(path.as_ref());
    }
    assert!(failed.is_empty(), "{} of {} runs failed:\n{}", failed.len(), table.runs(), failed.join("\n"));
}

/// The middle hop's cases, each on a network of its own, as a session would outlive it; `HOPLINE_MATRIX_PLANE` plays them all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_over_sessions_either() {
    let cases: Vec<_> = cases::all().into_iter().filter(|case| case.at == Some(2)).collect();
    for redundant in [false, true] {
        let options = Options { plane: Plane::Session, redundant, ..Options::default() };
        let (table, failed) = play(&cases, &options, false).await;
        assert!(
            failed.is_empty(),
            "redundant: {redundant}, {} of {} runs failed:\n{}",
            failed.len(),
            table.runs(),
            failed.join("\n")
        );
    }
}

/// Plays them one after the other, on the same network as far as possible if it `keeps` it. What came of them, and what failed.
async fn play(cases: &[Case], options: &Options, keeps: bool) -> (Table, Vec<String>) {
    let _turn = TURN.lock().await;
    let mut rng = StdRng::seed_from_u64(setting("HOPLINE_MATRIX_SEED", 1));
    let stage = || Stage::of(env!("CARGO_BIN_EXE_hopline").into(), None).unwrap();
    let (loopback, testbed) = (stage(), stage().on_testbed(HOSTS, 1));
    let (mut table, mut failed) = (Table::default(), Vec::new());
    let (mut networks, mut last) = (1.., None);
    for case in cases {
        for _ in 0..setting("HOPLINE_MATRIX_RUNS", 1) {
            let calm = Duration::from_millis(rng.random_range(CALM_MS));
            let stage = match &testbed {
                _ if !case.needs_a_testbed() => &loopback,
                Ok(testbed) => testbed,
                Err(error) => {
                    println!("SKIPPED: {case}: {}", error.message());
                    continue;
                }
            };
            let mut network = match last.take().filter(|last: &Network<'_>| last.is_on(stage)) {
                Some(network) => network,
                None => Network::start(stage, options.clone(), networks.next().unwrap()).await.unwrap(),
            };
            let outcome = network.play(case, calm).await;
            let told = outcome.as_ref().map_or_else(|why| why.message().to_owned(), ToString::to_string);
            eprintln!("{case}: {told}");
            table.add(case, outcome.as_ref().ok());
            // What went wrong may last, and the next case is not to blame.
            if keeps && outcome.is_ok() && !case.restarts_the_bootstrap() {
                last = Some(network);
            }
            failed.extend(outcome.err().map(|_| format!("{case}: {told}")));
        }
    }
    (table, failed)
}
