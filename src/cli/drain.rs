//! `hopline drain`

use hopline::endpoint::Endpoint;
use hopline_command::join::NetworkArgs;
use hopline_command::say;
use hopline_command::{Exit, Failure, duration, signals};
use hopline_proto::rpc::{RelayInfo, Status};
use indicatif::ProgressBar;
use serde_json::json;
use std::io::Write;
use std::time::Duration;
use tokio::time::{Instant, interval};

/// How often the bootstrap is asked whether the relay has left.
const LOOK: Duration = Duration::from_millis(200);

/// Have a relay move its flows to others and end. The bootstrap tells it at once, or, if it cannot reach the relay, with the
/// answer to its next heartbeat.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  hopline drain r3                    wait until it has left
  hopline drain r3 --timeout 0s       do not wait
  hopline status                      shows which relays are draining

A relay that gets SIGTERM or Ctrl-C does the same. This command needs the ticket that `hopline bootstrap` printed; a
single-use ticket does not allow it.")]
pub(super) struct Args {
    /// The relay's name or id
    #[arg(value_name = "RELAY")]
    relay: String,
    /// How long to wait for the relay to end
    #[arg(long, default_value = "60s", value_name = "TIME", value_parser = duration::parse)]
    timeout: Duration,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    network: NetworkArgs,
}

/// What became of the relay.
#[derive(Clone, Copy, Debug)]
struct Outcome {
    status: Status,
    /// That it carried when it was heard last.
    flows: u32,
}

impl Outcome {
    const fn of(relay: &RelayInfo) -> Self {
        Self { status: relay.status, flows: relay.load.flows }
    }

    const fn is_final(self) -> bool {
        matches!(self.status, Status::Left | Status::Offline)
    }

    /// What there is to say of it after so long.
    fn judge(self, relay: &str, seconds: f64) -> Result<String, Failure> {
        let flows = match self.flows {
            1 => "1 flow".to_owned(),
            more => format!("{more} flows"),
        };
        match (self.status, self.flows) {
            (Status::Left, 0) => {
                Ok(format!("{relay} carries no flow any more and has left after {seconds:.1} s"))
            }
            (Status::Offline, 0) => Ok(format!("{relay} is gone after {seconds:.1} s, without a goodbye")),
            (Status::Left, _) => Err(Failure::new(
                Exit::Failed,
                format!(
                    "{relay} left after {seconds:.1} s with {flows} still on it, which no other relay took in time; `hopline \
                     status` shows the relays that are up, and its --drain-timeout says how long it waits"
                ),
            )),
            (Status::Offline, _) => Err(Failure::new(
                Exit::Failed,
                format!(
                    "{relay} is gone after {seconds:.1} s, without a goodbye, and had {flows} when it was heard last; see \
                     whether its process runs"
                ),
            )),
            (
                Status::Registered | Status::Online | Status::Suspect | Status::Draining | Status::Unknown,
                _,
            ) => Ok(format!("{relay} is draining, with {flows}")),
        }
    }
}

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let endpoint = args.network.visitor().await?;
    let began = Instant::now();
    let drained = tokio::select! {
        drained = drain(&args, &endpoint) => drained,
        ended = signals::ended() => Err(ended),
    };
    endpoint.shutdown().await;
    let outcome = drained?;
    let seconds = began.elapsed().as_secs_f64();
    let Outcome { status, flows } = outcome;
    let verdict = outcome.judge(&args.relay, seconds);
    let mut out = say::output();
    if args.json {
        let fields =
            json!({ "relay": args.relay, "status": status.as_str(), "flows": flows, "seconds": seconds });
        writeln!(out, "{fields}")?;
        verdict.map(drop)
    } else {
        Ok(writeln!(out, "{}", verdict?)?)
    }
}

async fn drain(args: &Args, endpoint: &Endpoint) -> Result<Outcome, Failure> {
    let wait = &args.network.wait;
    let before = wait.until(async || find(endpoint, &args.relay).await).await?;
    wait.until(async || Ok(endpoint.drain(&args.relay).await?)).await?;
    // From now on it is that one, whoever else takes its name.
    let name = before.as_ref().map_or_else(|| args.relay.clone(), |before| before.node.to_string());
    let spinner = ProgressBar::new_spinner();
    let deadline = Instant::now() + args.timeout;
    let mut looks = interval(LOOK);
    loop {
        let Some(relay) = find(endpoint, &name).await?.or_else(|| before.clone()) else {
            return Err(Failure::new(
                Exit::Failed,
                format!(
                    "{} was told to drain, but is not among the relays that the bootstrap lists; see its log",
                    args.relay
                ),
            ));
        };
        let outcome = Outcome::of(&relay);
        if outcome.is_final() || args.timeout.is_zero() {
            return Ok(outcome);
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
        Failure::no_bootstrap("the bootstrap admitted this node, but did not answer; try again")
    })?;
    let named =
        listing.relays.into_iter().filter(|relay| relay.name == name || relay.node.to_string() == name);
    Ok(named.min_by_key(|relay| matches!(relay.status, Status::Left | Status::Offline)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_leaves_with_flows_has_not_done_as_it_was_told() {
        let cases = [
            (Status::Left, 0, true, "carries no flow any more and has left after 1.5 s"),
            (Status::Left, 1, false, "with 1 flow still on it"),
            (Status::Left, 2, false, "with 2 flows still on it"),
            (Status::Offline, 0, true, "gone"),
            (Status::Offline, 2, false, "had 2 flows when it was heard last"),
            (Status::Draining, 2, true, "is draining, with 2 flows"),
        ];
        for (status, flows, is_good, says) in cases {
            let verdict = Outcome { status, flows }.judge("r1", 1.5);
            assert_eq!(verdict.is_ok(), is_good, "{status:?} {flows}");
            let said = verdict.unwrap_or_else(|failure| failure.message().to_owned());
            assert!(said.starts_with("r1 ") && said.contains(says), "{said}");
        }
    }
}
