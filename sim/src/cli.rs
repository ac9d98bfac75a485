//! The command line.

mod churn;
mod scenario;
mod swarm;

use crate::splices::SPLICES;
use crate::swarm::SWARM;
use clap::{Parser, Subcommand};
use std::process::ExitCode;
use std::time::Duration;

/// Runs Hopline's machines in virtual time.
#[derive(Debug, Parser)]
#[command(name = "hopline-sim", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run many small random networks with random traffic and random faults, and every check on.
    Swarm(swarm::Swarm),
    /// Run many bare splices and their legs, with random faults.
    Splices(swarm::Swarm),
    /// Run a pool whose relays come and go, with flows over it.
    Churn(churn::Churn),
    /// Run a scripted one, or list them.
    Scenario(scenario::Named),
    /// Run one of them again, with its timeline and the hash of its trace.
    Replay(swarm::Replay),
}

/// Does what the command line says.
#[must_use]
pub fn run() -> ExitCode {
    match Arguments::parse().command {
        Command::Swarm(swarm) => swarm.run(SWARM),
        Command::Splices(swarm) => swarm.run(SPLICES),
        Command::Churn(churn) => churn.run(),
        Command::Scenario(named) => named.run(),
        Command::Replay(replay) => replay.run(),
    }
}

/// How long this process has run.
#[expect(clippy::disallowed_methods, reason = "how long a run took is no part of it")]
fn stopwatch() -> impl Fn() -> Duration {
    let begun = std::time::Instant::now();
    move || begun.elapsed()
}
