//! `hopline-sim [SEED]`: one flow over three hops, each of which loses its relay.

use hopline_sim::Scenario;
use std::process::ExitCode;

#[expect(clippy::print_stdout, reason = "the result of the run")]
fn main() -> ExitCode {
    let seed = std::env::args().nth(1).and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let outcome = Scenario::with_seed(seed).run();
    println!("seed {seed}: {outcome}");
    if outcome.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
