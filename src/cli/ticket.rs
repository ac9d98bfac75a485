//! `hopline ticket`

use hopline::net::authority::Authority;
use hopline::net::clock::Clock;
use hopline::net::entropy;
use hopline::net::ticket::{Grant, Ticket};
use hopline_command::{Failure, say};
use hopline_proto::Time;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

/// Make tickets for new nodes.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make a ticket, on the bootstrap's machine
    New(New),
}

/// Make a ticket. The bootstrap need not run: it recognises every ticket of its network.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  hopline ticket new --data ./boot --single-use
  hopline ticket new --data ./boot --valid-hours 24")]
struct New {
    /// The bootstrap's data directory
    #[arg(long, env = "HOPLINE_DATA", value_name = "DIR")]
    data: PathBuf,
    /// Valid for one node: the first that uses it
    #[arg(long)]
    single_use: bool,
    /// Valid for this many hours
    #[arg(long, value_name = "HOURS")]
    valid_hours: Option<u64>,
}

pub(super) fn run(args: Args) -> Result<(), Failure> {
    let Command::New(new) = args.command;
    let failed = |error: &dyn std::error::Error| {
        Failure::new(hopline_command::Exit::Failed, format!("{error}; is it a bootstrap's data directory?"))
            .at(new.data.display())
    };
    let kept = std::fs::read_to_string(new.data.join("ticket")).map_err(|error| failed(&error))?;
    let network: Ticket = kept.trim().parse().map_err(|error| failed(&error))?;
    let authority = Authority::load_or_create(&new.data).map_err(|error| failed(&error))?;
    let valid = new.valid_hours.map(|hours| Clock::wall() + Duration::from_secs(hours.saturating_mul(3600)));
    let grant =
        Grant { id: entropy::bytes(), single_use: new.single_use, expires: valid.unwrap_or(Time::MAX) };
    let ticket =
        Ticket::issue(&authority, network.bootstraps().to_vec(), grant).map_err(|error| failed(&error))?;
    writeln!(say::output(), "{ticket}")?;
    Ok(())
}
