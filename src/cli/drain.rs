//! `hopline drain`

use super::join::JoinArgs;
use super::{Exit, Failure, duration, signals};
use crate::endpoint::Endpoint;
use crate::proto::rpc::{RelayInfo, Status};
use indicatif::ProgressBar;
use serde_json::json;
use std::io::Write;
use std::time::Duration;
use tokio::time::{Instant, interval};

/// How often the bootstrap is asked whether the relay has left.
const LOOK: Duration = Duration::from_millis(200);

/// Have a relay move its flows to others and end. The bootstrap tells it at once, or, if the two are out of touch, with the answer to
/// its next heartbeat.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  hopline drain r3                    and wait until it has left
  hopline drain r3 --timeout 0s       do not wait
  hopline status                      shows who is draining

A relay that gets SIGTERM, or Ctrl-C, does the same. It takes the ticket that `hopline bootstrap` printed: one made for a
single node gives no right to this.")]
pub(super) struct Args {
    /// The relay's name or id
    #[arg(value_name = "RELAY")]
    relay: String,
    /// How long to wait until it has left
    #[arg(long, default_value = "60s", value_name = "TIME", value_parser = duration::parse)]
    timeout: Duration,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    join: JoinArgs,
}

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let endpoint = args.join.visitor().await?;
    let began = Instant::now();
    let drained = tokio::select! {
        drained = drain(&args, &endpoint) => drained,
        ended = signals::ended() => Err(ended),
    };
    endpoint.shutdown().await;
    let status = drained?;
    let mut out = std::io::stdout().lock();
    let seconds = began.elapsed().as_secs_f64();
    if args.json {
        writeln!(out, "{}", json!({ "relay": args.relay, "status": status.as_str(), "seconds": seconds }))?;
    } else {
        writeln!(out, "{} {} after {seconds:.1} s", args.relay, says(status))?;
    }
    Ok(())
}

const fn says(status: Status) -> &'static str {
    match status {
        Status::Left => "has moved its flows and left",
        Status::Offline => "is gone",
        Status::Registered | Status::Online | Status::Suspect | Status::Draining => "is draining",
    }
}

async fn drain(args: &Args, endpoint: &Endpoint) -> Result<Status, Failure> {
    let wait = &args.join.wait;
    let before = wait.until(async || find(endpoint, &args.relay).await).await?;
    wait.until(async || Ok(endpoint.drain(&args.relay).await?)).await?;
    let spinner = ProgressBar::new_spinner();
    let deadline = Instant::now() + args.timeout;
    let mut looks = interval(LOOK);
    loop {
        let Some(relay) = find(endpoint, &args.relay).await?.or_else(|| before.clone()) else {
            return Ok(Status::Left);
        };
        if matches!(relay.status, Status::Left | Status::Offline) || args.timeout.is_zero() {
            return Ok(relay.status);
        }
        if Instant::now() >= deadline {
            return Err(Failure::new(
                Exit::Failed,
                format!(
                    "{} is still {} with {} flows after {} s; it goes on: `hopline status` shows when it has left",
                    args.relay,
                    relay.status.as_str(),
                    relay.load.flows,
                    args.timeout.as_secs()
                ),
            ));
        }
        spinner.set_message(format!("{}: {}, {} flows", args.relay, relay.status.as_str(), relay.load.flows));
        looks.tick().await;
        spinner.tick();
    }
}

/// The relay, as the bootstrap lists it; whoever has left only if nobody else has its name.
async fn find(endpoint: &Endpoint, name: &str) -> Result<Option<RelayInfo>, Failure> {
    let listing = endpoint.list().await.map_err(|_| {
        Failure::no_bootstrap("the bootstrap let this node in, but did not answer; try again")
    })?;
    let named =
        listing.relays.into_iter().filter(|relay| relay.name == name || relay.node.to_string() == name);
    Ok(named.min_by_key(|relay| matches!(relay.status, Status::Left | Status::Offline)))
}
