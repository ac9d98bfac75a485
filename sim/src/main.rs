//! `hopline-sim SEED [COUNT] [--trace] [--no-bootstrap]`: one flow over three hops, each of which loses its relay; `COUNT`
//! seeds from `SEED` on, or the timeline of one.

use hopline_sim::Scenario;
use std::process::ExitCode;
use std::time::Duration;

#[expect(clippy::print_stdout, reason = "the result of the runs")]
fn main() -> ExitCode {
    let has = |flag: &str| std::env::args().any(|arg| arg == flag);
    let mut numbers = std::env::args().skip(1).filter_map(|arg| arg.parse::<u64>().ok());
    let (first, count) = (numbers.next().unwrap_or(1), numbers.next().unwrap_or(1));
    let mut gaps = Vec::new();
    let mut failed = 0;
    for seed in first..first + count {
        let mut scenario = Scenario::with_seed(seed);
        if has("--no-bootstrap") {
            scenario = scenario.without_bootstrap();
        }
        let freezes = std::env::args().find_map(|arg| {
            let (relays, longest) = arg.strip_prefix("--freeze=")?.split_once(',')?;
            Some((relays.parse().ok()?, longest.parse().ok()?))
        });
        if let Some((relays, longest)) = freezes {
            scenario = scenario.with_freezes(relays, Duration::from_millis(longest));
        }
        let outcome = if has("--trace") { scenario.traced() } else { scenario }.run();
        if !outcome.is_good() || outcome.worst_gap().as_millis() > 100 || count == 1 {
            println!("seed {seed}: {outcome}");
        }
        failed += u64::from(!outcome.is_good());
        gaps.push(outcome.worst_gap());
    }
    gaps.sort();
    let at = |percent: usize| gaps.get((gaps.len() - 1) * percent / 100).copied().unwrap_or_default();
    println!(
        "{count} seeds, {failed} failed; worst gaps: median {:?}, p90 {:?}, p99 {:?}, max {:?}",
        at(50),
        at(90),
        at(99),
        at(100)
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
