//! `hopline listen`

use crate::console::{Console, QuitArgs, SilenceLimits};
use hopline::endpoint::{Endpoint, Flow, FlowError, Listener};
use hopline_command::join::{ServeArgs, with_endpoint};
use hopline_command::stdio::Stdin;
use hopline_command::{Exit, Failure, ready, signals};
use serde_json::json;
use std::cell::Cell;
use std::io::{self, IsTerminal};
use std::pin::pin;
use std::time::Duration;
use tokio::io::copy;
use tokio::task::JoinSet;

/// Serve a name: received bytes go to stdout, stdin is sent back.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  hopline listen printer > received          take one flow
  hopline listen printer --keep --receive-only >> received
                                             take one after the other, and send nothing back
  hopline listen file < file                 give a file to the first flow
  hopline listen x --echo --keep             echo received bytes, flow after flow

One flow at a time has stdin and stdout; other flows are refused as busy. With --echo --keep all flows are served at
once. Input on stdin while there is no flow goes to the next flow.

A flow ends when both directions have ended. This direction ends with the end of stdin. If stdin is a terminal, it ends when
the other direction ends, as with `nc -l`; --quit-after changes that.")]
pub(super) struct Args {
    /// The name to serve
    #[arg(value_parser = hopline_command::name::parse)]
    name: String,
    /// Echo received bytes
    #[arg(long)]
    echo: bool,
    /// Keep serving after the first flow
    #[arg(long)]
    keep: bool,
    /// Send nothing back: stdin is not read
    #[arg(short = 'd', long, conflicts_with = "echo")]
    receive_only: bool,
    #[command(flatten)]
    quit: QuitArgs,
    #[command(flatten)]
    serve: ServeArgs,
}

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let open = Cell::new(false);
    let stop = async {
        let ended = signals::ended().await;
        if args.keep || !open.get() { Ok(()) } else { Err(ended.at("not everything arrived")) }
    };
    let work = async |endpoint: &Endpoint| {
        let listener = args.serve.serve(endpoint, endpoint.listen(&args.name)).await?;
        ready::print(&json!({"role": "listen", "name": args.name, "id": endpoint.id().to_string()}));
        if args.echo && args.keep { echo_all(listener).await } else { serve(listener, &args, &open).await }
    };
    with_endpoint(args.serve.endpoint().await?, stop, work).await
}

/// The next flow.
async fn next(listener: &mut Listener) -> Result<Flow, Failure> {
    listener.accept().await.ok_or_else(|| Failure::new(Exit::Failed, "the node ended"))
}

/// Standard input and output, for one flow at a time.
fn console(args: &Args) -> io::Result<Console> {
    let stdin = if args.receive_only { Stdin::closed() } else { Stdin::new() };
    let by_default = io::stdin().is_terminal().then_some(Duration::ZERO);
    let limits = SilenceLimits {
        answer_within: args.quit.quit_after,
        speak_within: args.quit.quit_after.or(by_default),
        answer_hint: "everything was sent, and the other end has not finished; --quit-after ends a flow that is silent",
        speak_hint: "the other end has sent everything; this one waits for the end of standard input (Ctrl-D; \
                     --receive-only does not read it, --quit-after ends a flow that is silent)",
    };
    Console::new(stdin, limits)
}

/// Serves one flow at a time, and says whether one is open.
async fn serve(mut listener: Listener, args: &Args, open: &Cell<bool>) -> Result<(), Failure> {
    let mut console = if args.echo { None } else { Some(console(args)?) };
    loop {
        let flow = next(&mut listener).await?;
        open.set(true);
        let ended = {
            let mut served = pin!(async {
                match &mut console {
                    Some(console) => console.join(flow).await,
                    None => echo(flow).await,
                }
            });
            loop {
                tokio::select! {
                    biased;
                    ended = &mut served => break ended,
                    another = next(&mut listener) => {
                        another?.abort("busy: it serves another flow, and takes one at a time; try again later");
                    }
                }
            }
        };
        open.set(false);
        match ended {
            Err(error) if args.keep && is_of_flow(&error) => tracing::warn!(%error, "a flow ended badly"),
            Ok(()) if args.keep => {}
            ended => return Ok(ended?),
        }
    }
}

/// Whether the flow is to blame, and another may fare better.
fn is_of_flow(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<FlowError>())
}

/// Returns what comes, over all flows at once.
async fn echo_all(mut listener: Listener) -> Result<(), Failure> {
    let mut flows = JoinSet::new();
    loop {
        tokio::select! {
            flow = next(&mut listener) => drop(flows.spawn(echo(flow?))),
            Some(ended) = flows.join_next() => {
                if let Err(error) = ended.unwrap_or_else(|error| Err(io::Error::other(error))) {
                    tracing::warn!(%error, "a flow ended badly");
                }
            }
        }
    }
}

async fn echo(flow: Flow) -> io::Result<()> {
    let (mut send, mut receive) = flow.split();
    copy(&mut receive, &mut send).await?;
    drop(receive); // everything was taken
    Ok(send.finish().await?)
}
