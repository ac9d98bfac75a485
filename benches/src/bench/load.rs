//! The flows of a run: what goes over them, and what arrives.
//!
//! A paced flow carries data both ways at a given rate, by the clock: what could not leave in time leaves later, all at
//! once. A bulk flow carries as much as there is room for, one way. Each end checks every byte that it gets. The times
//! between two arrivals of a paced flow are its pauses.

use super::ends::Number;
use crate::pattern::{Faults, Pattern, Verifier};
use hdrhistogram::Histogram;
use hopline::endpoint::Flow;
use hopline_command::Failure;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// How often a paced flow sends at most, and how much at least.
const TICK: Duration = Duration::from_millis(5);
const LEAST_BYTES: u64 = 256;
/// The most that is written or read at once.
const BLOCK_BYTES: usize = 64 << 10;
/// How finely goodput is shown over time.
pub(super) const BUCKET: Duration = Duration::from_millis(250);
/// Pauses from here on are kept one by one.
pub(super) const LONG_PAUSE: Duration = Duration::from_millis(50);
/// So many of them, for each direction of a flow.
const MAX_LONG_PAUSES: usize = 10_000;
/// Longer than any run.
const UNKNOWN_TOTAL: u64 = u64::MAX >> 8;

/// What a flow carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// So many bytes a second, both ways.
    Paced(u64),
    /// As much as there is room for, one way: forward or backward.
    Bulk { forward: bool },
}

/// What all ends of all flows share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) seed: u64,
    pub(super) start: Instant,
    /// Senders stop here.
    pub(super) end: Instant,
    /// Receivers give up when this is cancelled.
    pub(super) give_up: CancellationToken,
    pub(super) received: AtomicU64,
    /// Microseconds.
    pub(super) longest_pause: AtomicU64,
}

/// What came over one direction of one flow, and what went.
#[derive(Debug)]
pub(super) struct Direction {
    pub(super) flow: Number,
    /// Which end it came to.
    pub(super) to: &'static str,
    pub(super) paced: bool,
    pub(super) sent: u64,
    pub(super) received: u64,
    pub(super) faults: Faults,
    /// Bytes that arrived, by [`BUCKET`].
    pub(super) buckets: Vec<u64>,
    /// Pauses of a paced flow, in microseconds.
    pub(super) pauses: Histogram<u64>,
    /// The long ones: when they ended, and how long they were.
    pub(super) long_pauses: Vec<(Duration, Duration)>,
    /// Why it did not end well.
    pub(super) error: Option<String>,
}

/// Sends one direction's data, and keeps in `sent` how much that was.
async fn send(
    writer: &mut WriteHalf<Flow>,
    pattern: Pattern,
    kind: Kind,
    forward: bool,
    shared: &Shared,
    sent: &mut u64,
) -> std::io::Result<()> {
    match kind {
        Kind::Paced(rate) => send_paced(writer, pattern, rate, shared, sent).await?,
        Kind::Bulk { forward: this } if this == forward => send_bulk(writer, pattern, shared, sent).await?,
        Kind::Bulk { .. } => {}
    }
    writer.shutdown().await
}

async fn send_paced(
    writer: &mut WriteHalf<Flow>,
    pattern: Pattern,
    rate: u64,
    shared: &Shared,
    sent: &mut u64,
) -> std::io::Result<()> {
    let mut block = vec![0; BLOCK_BYTES];
    let mut ticks = interval(TICK.max(Duration::from_micros(LEAST_BYTES * 1_000_000 / rate.max(1))));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    while Instant::now() < shared.end {
        ticks.tick().await;
        let elapsed = shared.start.elapsed().min(shared.end - shared.start);
        let due = u128::from(rate) * elapsed.as_micros() / 1_000_000;
        let due = u64::try_from(due).unwrap_or(u64::MAX);
        while *sent < due {
            let count = usize::try_from(due - *sent).map_or(BLOCK_BYTES, |due| due.min(BLOCK_BYTES));
            write(writer, pattern, sent, block.split_at_mut(count).0).await?;
        }
    }
    Ok(())
}

async fn send_bulk(
    writer: &mut WriteHalf<Flow>,
    pattern: Pattern,
    shared: &Shared,
    sent: &mut u64,
) -> std::io::Result<()> {
    let mut block = vec![0; BLOCK_BYTES];
    while Instant::now() < shared.end {
        write(writer, pattern, sent, &mut block).await?;
    }
    Ok(())
}

async fn write(
    writer: &mut WriteHalf<Flow>,
    pattern: Pattern,
    sent: &mut u64,
    block: &mut [u8],
) -> std::io::Result<()> {
    pattern.fill(*sent, block);
    writer.write_all(block).await?;
    *sent += block.len() as u64;
    writer.flush().await
}

/// What one end gets.
#[derive(Debug)]
struct Receiver {
    shared: Arc<Shared>,
    verifier: Verifier,
    last: Option<Instant>,
    into: Direction,
}

impl Receiver {
    fn new(shared: &Arc<Shared>, flow: Number, kind: Kind, forward: bool) -> Result<Self, Failure> {
        let into = Direction {
            flow,
            to: if forward { "target" } else { "origin" },
            paced: matches!(kind, Kind::Paced(_)),
            sent: 0,
            received: 0,
            faults: Faults::default(),
            buckets: Vec::new(),
            pauses: crate::report::histogram()?,
            long_pauses: Vec::new(),
            error: None,
        };
        let verifier = Verifier::new(pattern(shared.seed, flow, forward), UNKNOWN_TOTAL);
        Ok(Self { shared: shared.clone(), verifier, last: None, into })
    }

    /// Takes what comes until the end or an error.
    async fn run(&mut self, reader: &mut ReadHalf<Flow>) -> std::io::Result<()> {
        let mut block = vec![0; BLOCK_BYTES];
        loop {
            let count = reader.read(&mut block).await;
            let now = Instant::now();
            match count {
                Ok(0) => {
                    // What comes after the end is no pause.
                    self.last = None;
                    return Ok(());
                }
                Ok(count) => self.came(block.split_at(count).0, now),
                Err(error) => return Err(error),
            }
        }
    }

    /// The verdict, once it is known how much was sent.
    fn finish(mut self, sent: u64, error: Option<String>) -> Direction {
        self.into.sent = sent;
        self.into.faults = self.verifier.faults_of(sent);
        self.into.error = error;
        self.into
    }

    fn came(&mut self, bytes: &[u8], now: Instant) {
        self.pause(now);
        self.last = Some(now);
        self.verifier.came(bytes);
        let count = bytes.len() as u64;
        self.into.received += count;
        self.shared.received.fetch_add(count, Ordering::Relaxed);
        let at = now.saturating_duration_since(self.shared.start);
        let bucket = usize::try_from(at.as_micros() / BUCKET.as_micros()).unwrap_or(0);
        if self.into.buckets.len() <= bucket {
            self.into.buckets.resize(bucket + 1, 0);
        }
        if let Some(bucket) = self.into.buckets.get_mut(bucket) {
            *bucket += count;
        }
    }

    /// The time since the last arrival is over; before the first there is none.
    fn pause(&mut self, now: Instant) {
        let (true, Some(last)) = (self.into.paced, self.last) else { return };
        let pause = now - last;
        let us = u64::try_from(pause.as_micros()).unwrap_or(u64::MAX);
        self.into.pauses.saturating_record(us);
        self.shared.longest_pause.fetch_max(us, Ordering::Relaxed);
        if pause >= LONG_PAUSE && self.into.long_pauses.len() < MAX_LONG_PAUSES {
            let at = now.saturating_duration_since(self.shared.start);
            self.into.long_pauses.push((at, pause));
            tracing::debug!(flow = self.into.flow.0, to = self.into.to, ?pause, "a pause");
        }
    }
}

/// What one end did: what it sent, what it got, and why it did not end well.
struct End {
    sent: u64,
    got: Receiver,
    error: Option<String>,
}

/// Carries a flow's data between both of its ends until all of it is known to have arrived, or something went wrong.
pub(super) async fn carry(
    number: Number,
    kind: Kind,
    origin: Flow,
    target: Flow,
    shared: Arc<Shared>,
) -> Result<[Direction; 2], Failure> {
    let run = |flow, is_origin| {
        AbortOnDropHandle::new(tokio::spawn(end(number, kind, is_origin, flow, shared.clone())))
    };
    let (origin, target) = tokio::join!(run(origin, true), run(target, false));
    let joined = |end: Result<_, tokio::task::JoinError>| end.map_err(std::io::Error::other);
    let (origin, target) = (joined(origin)??, joined(target)??);
    let error = |at: &str, end: &End| end.error.as_ref().map(|error| format!("at the {at}: {error}"));
    let errors = (error("origin", &origin), error("target", &target));
    Ok([target.got.finish(origin.sent, errors.0), origin.got.finish(target.sent, errors.1)])
}

/// One end of a flow: sends its direction, gets the other, and waits until both are complete.
async fn end(
    number: Number,
    kind: Kind,
    is_origin: bool,
    flow: Flow,
    shared: Arc<Shared>,
) -> Result<End, Failure> {
    let mut got = Receiver::new(&shared, number, kind, !is_origin)?;
    let (mut sent, data) = (0, pattern(shared.seed, number, is_origin));
    let (mut reader, mut writer) = split(flow);
    let mut step = "data was under way";
    let work = async {
        let send = send(&mut writer, data, kind, is_origin, &shared, &mut sent);
        tokio::try_join!(send, got.run(&mut reader))?;
        step = "all data was here, and the other end was not known to have all of its";
        Ok::<_, std::io::Error>(reader.unsplit(writer).finished().await?)
    };
    let error = tokio::select! {
        done = work => done.err().map(|error| error.to_string()),
        () = shared.give_up.cancelled() => Some(format!("it did not end in time: {step}")),
    };
    if error.is_some() {
        got.pause(Instant::now());
    }
    Ok(End { sent, got, error })
}

/// What one direction of one flow carries.
fn pattern(seed: u64, flow: Number, forward: bool) -> Pattern {
    Pattern::new(seed ^ (u64::from(flow.0) << 32) ^ u64::from(forward))
}
