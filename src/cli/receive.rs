//! `hopline receive`

use super::join::JoinArgs;
use super::{Exit, Failure, ready, signals};
use crate::endpoint::{Incoming, Listener};
use serde_json::json;
use std::io::Write;

/// Serve a name and print each message, a line each. A message counts as taken once it is printed.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  hopline receive printer
  hopline receive printer --count 1")]
pub(super) struct Args {
    /// The name to serve
    #[arg(value_parser = super::name::parse)]
    name: String,
    /// End after so many messages
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    #[command(flatten)]
    join: JoinArgs,
}

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let endpoint = args.join.endpoint(1).await?;
    let mut listener = endpoint.listen(&args.name).await?;
    ready::print(&json!({"role": "receive", "name": args.name, "id": endpoint.id().to_string()}));
    let result = tokio::select! {
        result = receive(&mut listener, args.count) => result,
        () = signals::shutdown() => Ok(()),
    };
    endpoint.shutdown().await;
    result
}

async fn receive(listener: &mut Listener, count: Option<u64>) -> Result<(), Failure> {
    let mut left = count.unwrap_or(u64::MAX);
    while left > 0 {
        match listener.next().await {
            Some(Incoming::Message(message)) => {
                let mut out = std::io::stdout().lock();
                out.write_all(message.payload())?;
                out.write_all(b"\n")?;
                out.flush()?;
                drop(out);
                let _ = message.take();
                left -= 1;
            }
            Some(Incoming::Flow(flow)) => {
                tracing::warn!(from = ?flow.peer(), "refused a flow: use `hopline listen`");
            }
            None => return Err(Failure::new(Exit::Failed, "the node ended")),
        }
    }
    Ok(())
}
