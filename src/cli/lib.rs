//! The command `hopline`: one file per subcommand. Data and `ready` lines go to stdout, logs and events to stderr.

mod admin;
mod bootstrap;
mod cadence;
mod console;
mod drain;
mod explain;
mod listen;
mod network_view;
mod pipe;
mod receive;
mod relay;
mod send;
mod status;
mod ticket;
mod top;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use hopline::net::closing;
use hopline_command::{Exit, Failure, journal, say};
use std::ffi::OsStr;
use std::process::ExitCode;
use std::time::Duration;
use tracing_subscriber::filter::Targets;

/// How long a command that is done may take to say goodbye to others.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Byte streams and messages over chains of relays that can die at any moment without a byte lost.
#[derive(Debug, Parser)]
#[command(
    name = "hopline",
    version,
    about = "Byte streams and messages over chains of relays, any of which may die",
    max_term_width = 100,
    propagate_version = true
)]
#[command(after_help = "Examples:
  hopline demo                              see it work: relays are killed mid-stream, and nothing is lost
  hopline bootstrap --data ./boot           start a network; prints its ticket
  hopline relay \"$(cat boot/ticket)\"        add a relay to it
  hopline listen printer --echo --keep      serve a name
  hopline pipe printer < file               send a file there and print what comes back

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 no bootstrap reachable, 4 refused, 5 pool too small, 6 flow lost.")]
struct Cli {
    /// What to log: a level, or directives such as hopline=debug; by default warnings, for bootstraps and relays hopline=info
    #[arg(long, global = true, env = "HOPLINE_LOG", value_name = "FILTER")]
    log: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// See it work: start a network here, kill relays mid-stream, lose nothing
    #[cfg(feature = "lab")]
    Demo(hopline_lab::demo::Args),
    /// Measure speed, failover and memory on this machine
    #[cfg(feature = "lab")]
    Bench(hopline_lab::bench::Args),
    /// Start a network's bootstrap: it admits nodes and plans chains
    Bootstrap(bootstrap::Args),
    /// Join a network's pool and carry flows
    Relay(relay::Args),
    /// Serve a name: received bytes go to stdout, stdin is sent back
    Listen(listen::Args),
    /// Open a flow: stdin is sent, received bytes go to stdout
    Pipe(pipe::Args),
    /// Send messages: each argument, or each line of stdin, is one; prints each receipt
    Send(send::Args),
    /// Serve a name and print each message
    Receive(receive::Args),
    /// Show the relays and names of a network
    Status(status::Args),
    /// Watch the relays of a network live
    Top(top::Args),
    /// Have a relay move its flows to others and end
    Drain(drain::Args),
    /// Explain what happened to a flow, and why
    Explain(explain::Args),
    /// Make tickets for new nodes
    Ticket(ticket::Args),
}

impl Command {
    /// What to log unless it is said: a command that people run tells them what went wrong, one that goes on what it does.
    const fn log(&self) -> &'static str {
        match self {
            #[cfg(feature = "lab")]
            Self::Demo(_) | Self::Bench(_) => "hopline=info",
            Self::Bootstrap(_) | Self::Relay(_) => "hopline=info",
            Self::Listen(_)
            | Self::Pipe(_)
            | Self::Send(_)
            | Self::Receive(_)
            | Self::Status(_)
            | Self::Top(_)
            | Self::Drain(_)
            | Self::Explain(_)
            | Self::Ticket(_) => "hopline=warn",
        }
    }
}

/// The command line's grammar. A variable that is set to nothing, or to blanks, counts as not set: whoever writes unit or compose files can
/// hardly leave one out.
fn grammar() -> clap::Command {
    without_blank_variables(Cli::command())
}

fn without_blank_variables(command: clap::Command) -> clap::Command {
    let is_blank = |name: &OsStr| std::env::var_os(name).is_some_and(|value| is_blank(&value));
    command
        .mut_args(|arg| if arg.get_env().is_some_and(is_blank) { arg.env(None::<&str>) } else { arg })
        .mut_subcommands(without_blank_variables)
}

fn is_blank(value: &OsStr) -> bool {
    value.to_str().is_some_and(|text| text.trim().is_empty())
}

/// What the command line says. Where that is no command, the help that it asks for or what is wrong with it is printed.
fn arguments() -> Result<Cli, ExitCode> {
    let read = grammar().try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches));
    read.map_err(|error| match error.print() {
        Err(unwritten) if !error.use_stderr() => Failure::from(say::told(&unwritten)).report(),
        Ok(()) | Err(_) => u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from),
    })
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let cli = match arguments() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    // Lines of a log would land in the middle of the screen.
    let is_top = matches!(cli.command, Command::Top(_));
    let log = if is_top { "off" } else { cli.log.as_deref().unwrap_or(cli.command.log()) };
    if let Err(error) = start_logging(log) {
        return Failure::new(Exit::Usage, error).report();
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Failure::new(Exit::Failed, format!("cannot start: {error}")).report(),
    };
    let result = runtime.block_on(async {
        let result = run(cli.command).await;
        journal::finish().await;
        closing::all_sent(LAST_WORDS).await;
        result
    });
    // A read of stdin may still be pending on a thread of the runtime; nothing waits for it.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

async fn run(command: Command) -> Result<(), Failure> {
    match command {
        #[cfg(feature = "lab")]
        Command::Demo(args) => hopline_lab::demo::run(args).await,
        #[cfg(feature = "lab")]
        Command::Bench(args) => hopline_lab::bench::run(args).await,
        Command::Bootstrap(args) => bootstrap::run(args).await,
        Command::Relay(args) => relay::run(args).await,
        Command::Listen(args) => listen::run(args).await,
        Command::Pipe(args) => pipe::run(args).await,
        Command::Send(args) => send::run(args).await,
        Command::Receive(args) => receive::run(args).await,
        Command::Status(args) => status::run(args).await,
        Command::Top(args) => top::run(args).await,
        Command::Drain(args) => drain::run(args).await,
        Command::Explain(args) => explain::run(&args),
        Command::Ticket(args) => ticket::run(args),
    }
}

/// Levels by target. `Targets` alone would take `=` for something.
fn targets(filter: &str) -> Result<Targets, String> {
    let is_incomplete =
        |directive: &&str| directive.contains('=') && directive.split('=').any(|part| part.trim().is_empty());
    if let Some(directive) = filter.split(',').find(is_incomplete) {
        return Err(format!("{directive:?} lacks a target or a level"));
    }
    filter.parse().map_err(|error: tracing_subscriber::filter::ParseError| error.to_string())
}

fn start_logging(filter: &str) -> Result<(), String> {
    use std::io::IsTerminal;
    use tracing_subscriber::layer::{Layer, SubscriberExt};
    use tracing_subscriber::util::SubscriberInitExt;
    let targets = targets(filter).map_err(|error| {
        format!(
            "--log {filter:?} is not a filter: {error}; try --log debug or --log hopline=debug,quinn=info"
        )
    })?;
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        // A log that nobody takes is not worth a panic, which is what telling so on the same stderr comes to.
        .log_internal_errors(false)
        .with_filter(targets);
    tracing_subscriber::registry().with(lines).init();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_well_formed() {
        grammar().debug_assert();
    }

    #[test]
    fn a_filter_names_levels_or_targets_with_levels() {
        for right in ["debug", "hopline=debug", "hopline=debug,quinn=info,warn", "off", "hopline=debug,"] {
            targets(right).unwrap_or_else(|error| panic!("{right:?}: {error}"));
        }
        for wrong in ["=", "=,=", "hopline=", "=debug", "hopline=loud", "debug,hopline= "] {
            targets(wrong).expect_err(wrong);
        }
    }

    #[test]
    fn blanks_are_nothing() {
        for (value, is_nothing) in [("", true), (" ", true), (" \t\n", true), (" x ", false), ("0", false)] {
            assert_eq!(is_blank(OsStr::new(value)), is_nothing, "{value:?}");
        }
    }
}
