//! `hopline pipe`

use super::join::JoinArgs;
use super::journal::Stamped;
use super::{Failure, signals};
use crate::endpoint::{Aborter, Endpoint, Flow};
use tokio::io::{AsyncWriteExt, copy, split};
use tokio::sync::broadcast;

/// Open a flow to a name: stdin goes there, what comes back goes to stdout.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  hopline pipe printer < file
  tar c dir | hopline pipe backup --hops 2
  printf hello | hopline pipe x --events     also tell on stderr what happens to the chain, in JSON")]
pub(super) struct Args {
    /// The name to reach
    #[arg(value_parser = super::name::parse)]
    name: String,
    /// Relays on the chain
    #[arg(long, env = "HOPLINE_HOPS", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=8))]
    hops: u8,
    /// Print what happens to the flow's chain on stderr, a JSON object a line
    #[arg(long)]
    events: bool,
    #[command(flatten)]
    join: JoinArgs,
}

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let stop = async { Err(signals::ended().await.at("not everything arrived")) };
    let work = async |endpoint: &Endpoint| {
        if args.events {
            print_events(endpoint);
        }
        let flow = args.join.wait.until(async || Ok(endpoint.open(&args.name).await?)).await?;
        Ok(join(flow).await?)
    };
    args.join.with_endpoint(args.hops, stop, work).await
}

/// Joins a flow with stdin and stdout until both directions have ended and everything was taken at both ends. If this end
/// fails, the other one is told why; if the flow is lost, nobody waits for stdin.
pub(super) async fn join(flow: Flow) -> std::io::Result<()> {
    let aborter = flow.aborter();
    tokio::select! {
        biased;
        result = copy_both(flow, &aborter) => result,
        Err(lost) = aborter.ended() => Err(lost.into()),
    }
}

async fn copy_both(flow: Flow, aborter: &Aborter) -> std::io::Result<()> {
    let (mut reader, mut writer) = split(flow);
    let send = async {
        copy(&mut tokio::io::BufReader::with_capacity(64 << 10, tokio::io::stdin()), &mut writer).await?;
        writer.shutdown().await
    };
    let receive = async {
        let mut out = tokio::io::stdout();
        copy(&mut tokio::io::BufReader::with_capacity(64 << 10, &mut reader), &mut out).await?;
        out.flush().await
    };
    // Before the flow is dropped, which would say less.
    tokio::try_join!(send, receive)
        .inspect_err(|error| aborter.abort(format!("its standard input or output failed: {error}")))?;
    reader.unsplit(writer).finished().await?;
    Ok(())
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

#[expect(clippy::print_stderr, reason = "events go to stderr")]
fn print_event(event: &crate::endpoint::FlowEvent) {
    if let Ok(json) = serde_json::to_string(&Stamped::now(event)) {
        eprintln!("{json}");
    }
}
