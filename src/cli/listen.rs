//! `hopline listen`

use super::join::JoinArgs;
use super::{Exit, Failure, ready, signals};
use crate::endpoint::{Endpoint, Flow, Incoming, Listener};
use serde_json::json;
use std::cell::Cell;
use tokio::io::{AsyncWriteExt, copy, split};
use tokio::task::JoinSet;

/// Serve a name: the bytes of each flow go to stdout, stdin goes back.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  hopline listen printer > received          take one flow
  hopline listen x --echo --keep             return what comes, for as many flows as come")]
pub(super) struct Args {
    /// The name to serve
    #[arg(value_parser = super::name::parse)]
    name: String,
    /// Return what comes
    #[arg(long)]
    echo: bool,
    /// Serve on after the first flow
    #[arg(long)]
    keep: bool,
    #[command(flatten)]
    join: JoinArgs,
}

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let open = Cell::new(0);
    let stop = async {
        let ended = signals::ended().await;
        if args.keep || open.get() == 0 { Ok(()) } else { Err(ended.at("not everything arrived")) }
    };
    let work = async |endpoint: &Endpoint| {
        let listener = args.join.wait.within(async { Ok(endpoint.listen(&args.name).await?) }).await?;
        ready::print(&json!({"role": "listen", "name": args.name, "id": endpoint.id().to_string()}));
        serve(&args, listener, &open).await
    };
    args.join.with_endpoint(1, stop, work).await
}

/// Serves flows until one has ended, or for good; says how many are open.
async fn serve(args: &Args, mut listener: Listener, open: &Cell<usize>) -> Result<(), Failure> {
    let mut flows = JoinSet::new();
    loop {
        open.set(flows.len());
        tokio::select! {
            incoming = listener.next() => match incoming {
                Some(Incoming::Flow(flow)) if args.echo => drop(flows.spawn(echo(flow))),
                Some(Incoming::Flow(flow)) => drop(flows.spawn(print(flow))),
                Some(Incoming::Message(message)) => {
                    tracing::warn!(from = ?message.from(), "refused a message: use `hopline receive`");
                    message.refuse(format!("\"{}\" takes flows: use `hopline pipe`", args.name));
                }
                None => return Err(Failure::new(Exit::Failed, "the node ended")),
            },
            Some(ended) = flows.join_next() => {
                let result = ended.unwrap_or_else(|error| Err(std::io::Error::other(error)));
                match result {
                    Err(error) if args.keep => tracing::warn!(%error, "a flow ended badly"),
                    result if !args.keep => return result.map_err(Failure::from),
                    _ => {}
                }
            }
        }
    }
}

async fn echo(flow: Flow) -> std::io::Result<()> {
    let (mut reader, mut writer) = split(flow);
    copy(&mut reader, &mut writer).await?;
    writer.shutdown().await?;
    reader.unsplit(writer).finished().await?;
    Ok(())
}

async fn print(flow: Flow) -> std::io::Result<()> {
    super::pipe::join(flow).await
}
