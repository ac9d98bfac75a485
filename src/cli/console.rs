//! Standard input and output, joined with one flow after the other.
//!
//! A flow ends when both directions have ended; this end's direction ends with standard input. Once one direction has ended,
//! [`SilenceLimits`] say how long the other may be silent, and people are told once what the command waits for.
//!
//! Invariant: bytes of standard input that were not handed to a flow stay for the next one.

use futures_util::FutureExt;
use hopline::endpoint::{Aborter, Flow, FlowError};
use hopline_command::duration;
use hopline_command::say::say;
use hopline_command::stdio::{Stdin, Stdout};
use std::cell::Cell;
use std::future::pending;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, split};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout};

/// Why a flow is given up by an end that has said everything, and waits for no answer.
const QUIT: &str = "it sent everything and waits for nothing more (--quit-after)";
/// After so long without a byte people are told what is waited for.
const HINT_AFTER: Duration = Duration::from_secs(5);
/// How long a flow that failed may hold up its end with what is still to be written.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How long a flow may be silent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SilenceLimits {
    /// For how long the other end may be silent once this one has sent everything.
    pub(super) answer_within: Option<Duration>,
    /// For how long standard input may be silent once the other end has sent everything.
    pub(super) speak_within: Option<Duration>,
    /// What to tell people who wait for the other end.
    pub(super) answer_hint: &'static str,
    /// What to tell people who wait for standard input.
    pub(super) speak_hint: &'static str,
}

/// When to stop waiting.
#[derive(Debug, clap::Args)]
pub(super) struct QuitArgs {
    /// Once one direction has ended, end the flow after this time without bytes in the other, as `nc -q`
    #[arg(short, long, value_name = "SECONDS|TIME", value_parser = duration::parse_seconds)]
    pub(super) quit_after: Option<Duration>,
}

/// See the module's documentation.
pub(super) struct Console {
    stdin: Stdin,
    stdout: Stdout,
    limits: SilenceLimits,
}

impl Console {
    pub(super) fn new(stdin: Stdin, limits: SilenceLimits) -> io::Result<Self> {
        Ok(Self { stdin, stdout: Stdout::new()?, limits })
    }

    /// Joins a flow with standard input and output until both directions have ended and everything was taken at both ends. If
    /// this end fails, the other one is told why; if the flow is lost, nobody waits for standard input.
    pub(super) async fn join(&mut self, flow: Flow) -> io::Result<()> {
        let aborter = flow.aborter();
        let heard_all = Cell::new(false);
        let joined = tokio::select! {
            biased;
            result = self.exchange(flow, &aborter, &heard_all) => result,
            Err(lost) = aborter.ended() => Err(lost.into()),
        };
        match joined {
            Err(error) if heard_all.get() && has_quit(&error) => Ok(()),
            Err(error) => {
                let _ = timeout(LAST_WORDS, self.stdout.flush()).await;
                Err(error)
            }
            Ok(End::Done) => Ok(()),
            Ok(End::Quit { is_taken }) => {
                // So that nothing else is said before.
                let _ = aborter.ended().await;
                if is_taken { Ok(()) } else { Err(io::Error::other(NOT_TAKEN)) }
            }
        }
    }

    async fn exchange(&mut self, flow: Flow, aborter: &Aborter, heard_all: &Cell<bool>) -> io::Result<End> {
        let Self { stdin, stdout, limits } = self;
        let (mut reader, mut writer) = split(flow);
        let to_speak = Lull::new(limits.speak_within, limits.speak_hint);
        let to_answer = Lull::new(limits.answer_within, limits.answer_hint);
        let send = async {
            send(stdin, &mut writer, aborter, &to_speak).await?;
            aborter.arrived().await;
            to_answer.begin();
            Ok(())
        };
        let receive = async {
            heard_all.set(receive(&mut reader, stdout, &to_answer).await?);
            stdout.flush().await?;
            if heard_all.get() {
                aborter.taken();
            }
            to_speak.begin();
            Ok(())
        };
        // Before the flow is dropped, which would say less.
        tokio::try_join!(send, receive).inspect_err(|error: &io::Error| aborter.abort(error.to_string()))?;
        if !heard_all.get() {
            let is_taken = aborter.is_taken();
            // Before the flow is dropped, too.
            aborter.abort(QUIT);
            return Ok(End::Quit { is_taken });
        }
        reader.unsplit(writer).finished().await?;
        Ok(End::Done)
    }
}

/// How a flow ended that did not break.
enum End {
    /// Both directions have, and everything was taken.
    Done,
    /// The other end was silent for too long; whether it has said that it took everything.
    Quit { is_taken: bool },
}

/// What it means that the other end gave up if that is all that is known.
const NOT_TAKEN: &str =
    "everything arrived at the other end, but it did not say within --quit-after that it took it";

/// Hands standard input on up to its end, or until it was silent for too long, and ends this direction.
async fn send(
    stdin: &mut Stdin,
    writer: &mut (impl AsyncWrite + Unpin),
    aborter: &Aborter,
    lull: &Lull,
) -> io::Result<()> {
    loop {
        let piece = tokio::select! {
            biased;
            piece = stdin.fill_buf() => piece?,
            () = lull.lasts() => break,
        };
        if piece.is_empty() {
            break;
        }
        // A flow that is over takes nothing, though its queue may.
        if let Some(ended) = aborter.ended().now_or_never() {
            return Err(ended.err().unwrap_or(FlowError::Closed).into());
        }
        let count = writer.write(piece).await?;
        stdin.consume(count);
        if stdin.is_dry() {
            writer.flush().await?;
        }
        lull.moved();
    }
    writer.shutdown().await
}

/// Writes what comes up to its end: then it is all. Otherwise the other end was silent for too long.
async fn receive(
    reader: &mut (impl AsyncRead + Unpin),
    stdout: &mut Stdout,
    lull: &Lull,
) -> io::Result<bool> {
    loop {
        let more = tokio::select! {
            biased;
            more = stdout.fill(reader) => more?,
            () = lull.lasts() => return Ok(false),
        };
        if !more {
            return Ok(true);
        }
        stdout.push().await?;
        lull.moved();
    }
}

fn has_quit(error: &io::Error) -> bool {
    let flow = error.get_ref().and_then(|inner| inner.downcast_ref());
    matches!(flow, Some(FlowError::Aborted { cause }) if **cause == *QUIT)
}

/// The silence of one direction after the other has ended.
struct Lull {
    limit: Option<Duration>,
    hint: &'static str,
    /// When the last byte came, or the other direction ended.
    since: Cell<Option<Instant>>,
    began: Notify,
    hinted: Cell<bool>,
}

impl Lull {
    fn new(limit: Option<Duration>, hint: &'static str) -> Self {
        Self { limit, hint, since: Cell::default(), began: Notify::new(), hinted: Cell::default() }
    }

    fn begin(&self) {
        self.since.set(Some(Instant::now()));
        self.began.notify_waiters();
    }

    fn moved(&self) {
        self.since.set(self.since.get().map(|_| Instant::now()));
    }

    /// Resolves when it has lasted too long. Says what is waited for when it has lasted long.
    async fn lasts(&self) {
        let since = loop {
            match self.since.get() {
                Some(since) => break since,
                None => self.began.notified().await,
            }
        };
        let hint = async {
            sleep_until(since + HINT_AFTER).await;
            if !self.hinted.replace(true) {
                say(self.hint);
            }
            pending().await
        };
        let end = async {
            match self.limit {
                Some(limit) => sleep_until(since + limit).await,
                None => pending().await,
            }
        };
        tokio::select! {
            () = end => {}
            () = hint => {}
        }
    }
}
