//! `hopline send`

use super::join::JoinArgs;
use super::{Failure, pipe};
use crate::endpoint::{Endpoint, Receipt};
use serde_json::json;
use std::io::Write;
use std::time::Instant;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::mpsc;

/// Send messages to a name: one an argument, or a line of stdin. Prints `delivered <n> <ms>` when the target's
/// application has taken message n.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  hopline send printer \"paper is out\"
  seq 1000 | hopline send printer --json")]
pub(super) struct Args {
    /// The name to reach
    #[arg(value_parser = super::name::parse)]
    name: String,
    /// The messages; without any, each line of stdin is one
    text: Vec<String>,
    /// Relays on the chain
    #[arg(long, env = "HOPLINE_HOPS", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=8))]
    hops: u8,
    /// Print an object a receipt
    #[arg(long)]
    json: bool,
    /// Print what happens to the flow's chain on stderr, a JSON object a line
    #[arg(long)]
    events: bool,
    #[command(flatten)]
    join: JoinArgs,
}

/// Receipts that may be outstanding.
const MAX_OUTSTANDING: usize = 4096;

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let endpoint = args.join.endpoint(args.hops).await?;
    if args.events {
        pipe::print_events(&endpoint);
    }
    let (sent, receipts) = mpsc::channel(MAX_OUTSTANDING);
    let result = tokio::try_join!(send_all(&endpoint, &args, sent), print_receipts(receipts, args.json));
    endpoint.shutdown().await;
    result.map(|_| ())
}

async fn send_all(
    endpoint: &Endpoint,
    args: &Args,
    sent: mpsc::Sender<(Instant, Receipt)>,
) -> Result<(), Failure> {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut texts = args.text.iter();
    loop {
        let text = match texts.next() {
            Some(text) => Some(text.clone()),
            None if args.text.is_empty() => lines.next_line().await?,
            None => None,
        };
        let Some(text) = text else { return Ok(()) };
        let start = now();
        let receipt = endpoint.send(&args.name, text).await?;
        if sent.send((start, receipt)).await.is_err() {
            return Ok(());
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the time that a receipt took is for people, not for the protocol"
)]
fn now() -> Instant {
    Instant::now()
}

async fn print_receipts(mut receipts: mpsc::Receiver<(Instant, Receipt)>, json: bool) -> Result<(), Failure> {
    let mut number = 0u64;
    while let Some((start, receipt)) = receipts.recv().await {
        receipt.await?;
        number += 1;
        let ms = start.elapsed().as_secs_f64() * 1000.0;
        let mut out = std::io::stdout().lock();
        if json {
            writeln!(out, "{}", json!({"delivered": number, "ms": ms}))?;
        } else {
            writeln!(out, "delivered {number} {ms:.3}")?;
        }
    }
    std::io::stdout().flush()?;
    Ok(())
}
