//! `hopline listen`

use super::join::JoinArgs;
use super::{Exit, Failure, ready, signals};
use crate::endpoint::{Flow, Incoming};
use serde_json::json;
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
    let endpoint = args.join.endpoint(1).await?;
    let mut listener = args.join.wait.within(async { Ok(endpoint.listen(&args.name).await?) }).await?;
    ready::print(&json!({"role": "listen", "name": args.name, "id": endpoint.id().to_string()}));
    let mut flows = JoinSet::new();
    let serve = async {
        loop {
            tokio::select! {
                incoming = listener.next() => match incoming {
                    Some(Incoming::Flow(flow)) if args.echo => drop(flows.spawn(echo(flow))),
                    Some(Incoming::Flow(flow)) => drop(flows.spawn(print(flow))),
                    Some(Incoming::Message(message)) => {
                        tracing::warn!(from = ?message.from(), "refused a message: use `hopline receive`");
                        continue;
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
                    continue;
                }
            }
        }
    };
    let result = tokio::select! {
        result = serve => result,
        () = signals::shutdown() => Ok(()),
    };
    endpoint.shutdown().await;
    result
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
