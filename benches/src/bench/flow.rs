//! The ends of a measured flow: a source that sends when it is told to, and a sink that counts.

use hopline::endpoint::Flow;
use hopline_command::join::{OpenArgs, ServeArgs};
use hopline_command::{Exit, Failure, ready, say, signals};
use serde_json::json;
use std::io::Write;
use std::time::Instant;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

/// Bytes that are written or read at once.
const CHUNK_BYTES: usize = 64 << 10;

#[derive(Debug, clap::Args)]
pub(super) struct SinkArgs {
    /// The name to serve
    target: String,
    #[command(flatten)]
    serve: ServeArgs,
}

#[derive(Debug, clap::Args)]
pub(super) struct SourceArgs {
    /// The name to reach
    target: String,
    /// How much to send
    bytes: u64,
    #[command(flatten)]
    open: OpenArgs,
}

/// Answers each flow with how many bytes came over it.
pub(super) async fn sink(args: SinkArgs) -> Result<(), Failure> {
    let endpoint = args.serve.endpoint().await?;
    let mut listener = endpoint.listen(&args.target).await?;
    ready::print(&json!({"role": "sink"}));
    let serve = async {
        while let Some(flow) = listener.accept().await {
            if let Err(failure) = count(flow).await {
                tracing::warn!(cause = failure.cause(), "a flow was not counted");
            }
        }
    };
    tokio::select! {
        () = serve => {}
        () = signals::shutdown() => {}
    }
    Ok(())
}

async fn count(mut flow: Flow) -> Result<(), Failure> {
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut bytes: u64 = 0;
    loop {
        match flow.read(&mut buffer).await? {
            0 => break,
            count => bytes += count as u64,
        }
    }
    flow.write_all(&bytes.to_be_bytes()).await?;
    flow.shutdown().await?;
    Ok(flow.finished().await?)
}

/// Opens a flow, waits for a line on stdin, sends, and says how long it took until the sink had counted everything.
pub(super) async fn source(args: SourceArgs) -> Result<(), Failure> {
    let endpoint = args.open.endpoint().await?;
    let mut flow = endpoint.open(&args.target).await?;
    ready::print(&json!({"role": "source"}));
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    lines.next_line().await?;
    let start = now();
    let chunk = vec![0x5a; CHUNK_BYTES];
    let mut left = args.bytes;
    while left > 0 {
        let count = CHUNK_BYTES.min(usize::try_from(left).unwrap_or(CHUNK_BYTES));
        flow.write_all(chunk.get(..count).unwrap_or_default()).await?;
        left -= count as u64;
    }
    flow.shutdown().await?;
    let counted = flow.read_u64().await?;
    let seconds = start.elapsed().as_secs_f64();
    if counted != args.bytes {
        return Err(Failure::new(Exit::Failed, format!("{} bytes sent, {counted} counted", args.bytes)));
    }
    flow.finished().await?;
    print_line(&format!(r#"done {{"seconds":{seconds}}}"#))?;
    // The CPU time of this process is read by its parent before it may end.
    lines.next_line().await?;
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "a stopwatch, not the protocol's clock")]
fn now() -> Instant {
    Instant::now()
}

pub(super) fn print_line(line: &str) -> std::io::Result<()> {
    let mut out = say::output();
    writeln!(out, "{line}")?;
    out.flush()
}
