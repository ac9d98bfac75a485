//! `hopline pipe`

use crate::console::{Console, QuitArgs, SilenceLimits};
use hopline::endpoint::Endpoint;
use hopline_command::join::{OpenArgs, with_endpoint};
use hopline_command::journal::Stamped;
use hopline_command::stdio::Stdin;
use hopline_command::{Failure, say, signals};
use tokio::sync::broadcast;

/// Open a flow to a name: stdin is sent, received bytes go to stdout.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  hopline pipe printer < file
  tar c dir | hopline pipe backup --hops 2
  echo status | hopline pipe x -q 2          leave when nothing has come for 2 s
  printf hello | hopline pipe x --events     also print the chain's events on stderr, as JSON

The end of stdin ends this direction, as with `nc -N`. The command ends when the other direction has ended too and
both ends have taken everything.")]
pub(super) struct Args {
    /// The name to reach
    #[arg(value_parser = hopline_command::name::parse)]
    name: String,
    #[command(flatten)]
    quit: QuitArgs,
    /// Print the events of the flow's chain on stderr, one JSON object a line
    #[arg(long)]
    events: bool,
    #[command(flatten)]
    open: OpenArgs,
}

impl Args {
    const fn limits(&self) -> SilenceLimits {
        SilenceLimits {
            answer_within: self.quit.quit_after,
            speak_within: self.quit.quit_after,
            answer_hint: "everything was sent; this waits for the other end to finish (there with the end of its standard \
                          input; here --quit-after ends a flow that is silent)",
            speak_hint: "the other end has sent everything; this one waits for the end of standard input (Ctrl-D; \
                         --quit-after ends a flow that is silent)",
        }
    }
}

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let stop = async { Err(signals::ended().await.at("not everything arrived")) };
    let work = async |endpoint: &Endpoint| {
        if args.events {
            print_events(endpoint);
        }
        let mut console = Console::new(Stdin::new(), args.limits())?;
        let flow = args.open.join.network.wait.until(async || Ok(endpoint.open(&args.name).await?)).await?;
        Ok(console.join(flow).await?)
    };
    with_endpoint(args.open.endpoint().await?, stop, work).await
}

/// Prints each event of the endpoint's flows on stderr from now on.
pub(super) fn print_events(endpoint: &Endpoint) {
    let mut events = endpoint.events();
    tokio::spawn(async move {
        loop {
            match events.recv().await {
                Ok(event) => print_event(&event),
                Err(broadcast::error::RecvError::Lagged(missed)) => tracing::warn!(missed, "events missed"),
                Err(broadcast::error::RecvError::Closed) => return,
            }
        }
    });
}

fn print_event(event: &hopline::endpoint::FlowEvent) {
    if let Ok(json) = serde_json::to_string(&Stamped::now(event)) {
        say::line(json);
    }
}
