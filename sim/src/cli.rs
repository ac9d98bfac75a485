//! The command line.

mod swarm;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Hopline's machines in virtual time.
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
    /// Run one of them again, with its timeline and the hash of its trace.
    Replay(swarm::Replay),
}

/// Does what the command line says.
#[must_use]
pub fn run() -> ExitCode {
    match Arguments::parse().command {
        Command::Swarm(swarm) => swarm.run(),
        Command::Replay(replay) => replay.run(),
    }
}
