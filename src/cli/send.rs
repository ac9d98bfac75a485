//! `hopline send`

use crate::pipe;
use bytes::Bytes;
use futures_util::FutureExt;
use hopline::endpoint::{Carrier, Endpoint, MAX_MESSAGE_BYTES, Receipt};
use hopline_command::join::{OpenArgs, with_endpoint};
use hopline_command::stdio::{Stdin, Stdout};
use hopline_command::wait::WaitArgs;
use hopline_command::{Exit, Failure, signals};
use serde_json::json;
use std::cell::Cell;
use std::ffi::OsString;
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncReadExt};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

/// Send messages to a name: each argument, or each line of stdin, is one. Prints `delivered <n> <ms>` when the target's
/// application has taken message n.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  hopline send printer \"paper is out\"
  seq 1000 | hopline send printer --json
  find . -print0 | hopline send names --null      messages may have several lines
  hopline send photos --raw a.jpg --raw b.jpg     each file is one message

A message is up to 1 MiB of any bytes; an empty line is an empty message. To send more, use `hopline pipe`.")]
pub(super) struct Args {
    /// The name to reach
    #[arg(value_parser = hopline_command::name::parse)]
    name: String,
    /// The messages; without any, each line of stdin is one
    text: Vec<OsString>,
    /// Messages on stdin end with a NUL instead of a newline
    #[arg(short = '0', long, conflicts_with = "text")]
    null: bool,
    /// Send this file as one message; - is stdin. May be given several times
    #[arg(long, value_name = "FILE", conflicts_with_all = ["text", "null"])]
    raw: Vec<PathBuf>,
    /// Print a JSON object for each receipt
    #[arg(long)]
    json: bool,
    /// Print the events of the flow's chain on stderr, one JSON object a line
    #[arg(long)]
    events: bool,
    #[command(flatten)]
    open: OpenArgs,
}

/// Receipts that may be outstanding.
const MAX_OUTSTANDING: usize = 4096;
/// Most bytes of receipts that are printed at once; one line more may be.
const PRINTED_AT_ONCE: usize = 64 << 10;
/// How long to hear, after a signal, of receipts that are already on their way; and after the end of the flow, of the end of
/// standard input.
const GRACE: Duration = Duration::from_millis(100);

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let Args { name, text, null, raw, json, events, open } = args;
    let work = async |endpoint: &Endpoint| {
        if events {
            pipe::print_events(endpoint);
        }
        let (sent, receipts) = mpsc::channel(MAX_OUTSTANDING);
        let counts = SendCounts::default();
        let mut printed = pin!(print_receipts(receipts, json, &counts));
        let line =
            Line { endpoint, name: &name, wait: &open.join.network.wait, counts: &counts, carrier: None };
        let messages = Messages::of(text, raw, null);
        let ended = {
            let mut sending = pin!(line.send_all(messages, sent));
            // What was sent before a message that can't be is delivered all the same, and said so.
            let transfer = async {
                tokio::select! {
                    printed = &mut printed => printed,
                    sent = &mut sending => printed.as_mut().await.and(sent),
                }
            };
            tokio::select! {
                biased;
                ended = signals::ended() => ended,
                done = transfer => return done,
            }
        };
        let _ = timeout(GRACE, printed).await;
        Err(counts.at_end(&ended))
    };
    with_endpoint(open.endpoint().await?, std::future::pending(), work).await
}

/// How far the command is.
#[derive(Debug, Default)]
struct SendCounts {
    /// Messages that were read, and maybe sent.
    begun: Cell<u64>,
    delivered: Cell<u64>,
    /// What is known of those that were not; nothing if there are none.
    rest: Cell<&'static str>,
}

impl SendCounts {
    fn delivered(&self) -> String {
        match self.delivered.get() {
            0 => "no message delivered".to_owned(),
            1 => "1 message delivered".to_owned(),
            count => format!("{count} messages delivered"),
        }
    }

    /// Where the flow was lost.
    fn so_far(&self) -> String {
        format!("{}{}", self.delivered(), self.rest.get())
    }

    /// What an end by a signal means.
    fn at_end(&self, ended: &Failure) -> Failure {
        let told = Failure::new(Exit::Failed, format!("{}; {}", ended.message(), self.delivered()));
        let is_all = self.delivered.get() == self.begun.get();
        if is_all { told } else { told.at("not every message was taken") }
    }
}

/// The way of messages to a name.
struct Line<'a> {
    endpoint: &'a Endpoint,
    name: &'a str,
    wait: &'a WaitArgs,
    counts: &'a SendCounts,
    /// The flow that carries them, from the first on. There is no second one: why it is lost would be lost with it.
    carrier: Option<Carrier>,
}

impl Line<'_> {
    async fn send_all(
        mut self,
        mut messages: Messages,
        sent: mpsc::Sender<(Instant, Receipt)>,
    ) -> Result<(), Failure> {
        self.counts.rest.set(messages.rest());
        while let Some(message) = self.next(&mut messages).await? {
            self.counts.begun.set(self.counts.begun.get() + 1);
            let (start, message) = (now(), Bytes::from(message));
            let receipt = self.send(message).await?;
            self.carrier.get_or_insert_with(|| receipt.carrier());
            if sent.send((start, receipt)).await.is_err() {
                return Ok(());
            }
        }
        self.counts.rest.set("");
        Ok(())
    }

    /// The next message. If the flow is lost first, that is all, unless there is none.
    async fn next(&mut self, messages: &mut Messages) -> Result<Option<Vec<u8>>, Failure> {
        let mut next = pin!(messages.next());
        let lost = tokio::select! {
            biased;
            next = &mut next => return next,
            lost = lost(&mut self.carrier) => lost,
        };
        match timeout(GRACE, next).await {
            Ok(Ok(None)) => Ok(None),
            _ => Err(lost.at(self.counts.so_far())),
        }
    }

    async fn send(&mut self, message: Bytes) -> Result<Receipt, Failure> {
        let send = self.wait.until(async || Ok(self.endpoint.send(self.name, message.clone()).await?));
        tokio::select! {
            biased;
            lost = lost(&mut self.carrier) => Err(lost.at(self.counts.so_far())),
            receipt = send => receipt,
        }
    }
}

/// Resolves once the flow is lost, with why.
async fn lost(carrier: &mut Option<Carrier>) -> Failure {
    match carrier {
        Some(carrier) => carrier.ended().await.into(),
        None => std::future::pending().await,
    }
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

    /// What to say of those that were not sent.
    const fn rest(&self) -> &'static str {
        match self {
            Self::Texts(_) | Self::Files(_) => ", not every message sent",
            Self::Split(_) => ", standard input not at its end",
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

/// Prints receipts as they come, those at once that have come at once.
async fn print_receipts(
    mut receipts: mpsc::Receiver<(Instant, Receipt)>,
    json: bool,
    counts: &SendCounts,
) -> Result<(), Failure> {
    let mut out = Stdout::new()?;
    let mut lines = Vec::new();
    let mut is_over = false;
    while !is_over {
        let mut next = pin!(next_receipt(&mut receipts, json, counts));
        let next = match next.as_mut().now_or_never() {
            Some(next) => next,
            None => {
                print(&mut out, &mut lines).await?;
                next.await
            }
        };
        match next {
            Ok(Some(line)) => lines.extend(line.into_bytes()),
            Ok(None) => is_over = true,
            Err(failure) => {
                print(&mut out, &mut lines).await?;
                return Err(failure);
            }
        }
        if lines.len() > PRINTED_AT_ONCE {
            print(&mut out, &mut lines).await?;
        }
    }
    print(&mut out, &mut lines).await
}

async fn print(out: &mut Stdout, lines: &mut Vec<u8>) -> Result<(), Failure> {
    if !lines.is_empty() {
        out.write(lines).await?;
        out.flush().await?;
        lines.clear();
    }
    Ok(())
}

/// The line of the next receipt; `None` when all have come.
async fn next_receipt(
    receipts: &mut mpsc::Receiver<(Instant, Receipt)>,
    json: bool,
    counts: &SendCounts,
) -> Result<Option<String>, Failure> {
    let Some((start, receipt)) = receipts.recv().await else { return Ok(None) };
    receipt.await.map_err(|error| Failure::from(error).at(counts.so_far()))?;
    let number = counts.delivered.get() + 1;
    counts.delivered.set(number);
    let ms = start.elapsed().as_secs_f64() * 1000.0;
    Ok(Some(match json {
        true => format!("{}\n", json!({"delivered": number, "ms": ms})),
        false => format!("delivered {number} {ms:.3}\n"),
    }))
}
