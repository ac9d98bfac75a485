//! `hopline send`

use super::join::JoinArgs;
use super::stdio::Stdin;
use super::wait::WaitArgs;
use super::{Exit, Failure, pipe, signals};
use crate::endpoint::{Endpoint, MAX_MESSAGE_BYTES, Receipt};
use bytes::Bytes;
use serde_json::json;
use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Instant;
use tokio::io::{AsyncBufReadExt, AsyncReadExt};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

/// Send messages to a name: one an argument, or a line of stdin. Prints `delivered <n> <ms>` when the target's
/// application has taken message n.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  hopline send printer \"paper is out\"
  seq 1000 | hopline send printer --json
  find . -print0 | hopline send names --null      messages may have several lines
  hopline send photos --raw a.jpg --raw b.jpg     each file is one message

A message is any bytes, up to 1 MiB; an empty line is an empty one. To move more, use `hopline pipe`.")]
pub(super) struct Args {
    /// The name to reach
    #[arg(value_parser = super::name::parse)]
    name: String,
    /// The messages; without any, each line of stdin is one
    text: Vec<OsString>,
    /// Messages on stdin end with a NUL in place of a newline
    #[arg(short = '0', long, conflicts_with = "text")]
    null: bool,
    /// Send what is in this file as one message, whatever it is; - is stdin. May be given several times
    #[arg(long, value_name = "FILE", conflicts_with_all = ["text", "null"])]
    raw: Vec<PathBuf>,
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
    let stop = async { Err(signals::ended().await.at("not every message was taken")) };
    let Args { name, text, null, raw, hops, json, events, join } = args;
    let work = async |endpoint: &Endpoint| {
        if events {
            pipe::print_events(endpoint);
        }
        let (sent, receipts) = mpsc::channel(MAX_OUTSTANDING);
        let mut printed = pin!(print_receipts(receipts, json));
        let messages = Messages::of(text, raw, null);
        // What was sent before a message that can't be is delivered all the same, and said so.
        tokio::select! {
            printed = &mut printed => printed,
            sent = send_all(endpoint, &name, &join.wait, messages, sent) => printed.await.and(sent),
        }
    };
    join.with_endpoint(hops, stop, work).await
}

async fn send_all(
    endpoint: &Endpoint,
    name: &str,
    wait: &WaitArgs,
    mut messages: Messages,
    sent: mpsc::Sender<(Instant, Receipt)>,
) -> Result<(), Failure> {
    while let Some(message) = messages.next().await? {
        let (start, message) = (now(), Bytes::from(message));
        let receipt = wait.until(async || Ok(endpoint.send(name, message.clone()).await?)).await?;
        if sent.send((start, receipt)).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// What is to be sent.
enum Messages {
    Texts(std::vec::IntoIter<OsString>),
    Files(std::vec::IntoIter<PathBuf>),
    Split(Split),
}

impl Messages {
    fn of(texts: Vec<OsString>, files: Vec<PathBuf>, null: bool) -> Self {
        if !files.is_empty() {
            Self::Files(files.into_iter())
        } else if !texts.is_empty() {
            Self::Texts(texts.into_iter())
        } else {
            Self::Split(Split { stdin: Stdin::new(), end: if null { b'\0' } else { b'\n' }, number: 0 })
        }
    }

    async fn next(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        match self {
            Self::Texts(texts) => texts.next().map(|text| bounded("the text", text.into_vec())).transpose(),
            Self::Files(files) => match files.next() {
                Some(file) => read_whole(file).await.map(Some),
                None => Ok(None),
            },
            Self::Split(split) => split.next().await,
        }
    }
}

/// Standard input, cut after each of these bytes.
struct Split {
    stdin: Stdin,
    end: u8,
    number: u64,
}

impl Split {
    /// The next message. The last one needs no end.
    async fn next(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        self.number += 1;
        let mut message = Vec::new();
        loop {
            let piece = self.stdin.fill_buf().await?;
            if piece.is_empty() {
                return Ok((!message.is_empty()).then_some(message));
            }
            let end = piece.iter().position(|byte| *byte == self.end);
            message.extend_from_slice(piece.get(..end.unwrap_or(piece.len())).unwrap_or_default());
            let count = end.map_or(piece.len(), |end| end + 1);
            self.stdin.consume(count);
            message = bounded(format_args!("message {} of standard input", self.number), message)?;
            if end.is_some() {
                return Ok(Some(message));
            }
        }
    }
}

/// All that is in a file, or on standard input.
async fn read_whole(path: PathBuf) -> Result<Vec<u8>, Failure> {
    let place = path.display().to_string();
    let limit = MAX_MESSAGE_BYTES as u64 + 1;
    let mut bytes = Vec::new();
    if path == Path::new("-") {
        Stdin::new().take(limit).read_to_end(&mut bytes).await?;
    } else {
        let read = spawn_blocking(move || {
            std::fs::File::open(path)?.take(limit).read_to_end(&mut bytes)?;
            Ok(bytes)
        });
        let read = read.await.unwrap_or_else(|error| Err(std::io::Error::other(error)));
        bytes =
            read.map_err(|error| Failure::new(Exit::Failed, format!("can't read it: {error}")).at(&place))?;
    }
    bounded(place, bytes)
}

/// The message, if it is not too long for one.
fn bounded(place: impl std::fmt::Display, message: Vec<u8>) -> Result<Vec<u8>, Failure> {
    if message.len() <= MAX_MESSAGE_BYTES {
        return Ok(message);
    }
    let what =
        format!("more than {MAX_MESSAGE_BYTES} bytes, the most a message may have; use `hopline pipe`");
    Err(Failure::new(Exit::Usage, what).at(place))
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
