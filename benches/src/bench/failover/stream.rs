//! One direction of the flow: data at a steady rate, and the times between its arrivals.

use crate::pattern::{Faults, Pattern, Verifier};
use hopline::net::timer::Timer;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// Longer than any run.
const UNKNOWN_TOTAL: u64 = u64::MAX >> 8;

/// Ticks of at least so long need no timer of their own, of which each takes a file descriptor.
const COARSE: Duration = Duration::from_millis(10);

/// How fast data is sent, and in what portions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Bytes a second.
    pub(super) rate: u64,
    /// How often something is sent.
    pub(super) tick: Duration,
    /// The most that is written or read at once, in bytes.
    pub(super) block: usize,
}

/// What is known of one direction.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) name: &'static str,
    pattern: Pattern,
    known: Mutex<Known>,
    came: Notify,
    hurried: Notify,
}

#[derive(Debug, Default)]
struct Known {
    sent: u64,
    received: u64,
    last: Option<Instant>,
    longest: Duration,
    /// What is under way: where each portion ends, and when it was written.
    under_way: VecDeque<(u64, Instant)>,
    latest: Duration,
}

impl Known {
    fn wrote(&mut self, end: u64) {
        self.sent = end;
        self.under_way.push_back((end, Instant::now()));
    }

    fn took(&mut self, count: u64, now: Instant) {
        self.received += count;
        if let Some(last) = self.last.replace(now) {
            self.longest = self.longest.max(now - last);
        }
        while let Some((_, at)) = self.under_way.front().filter(|(end, _)| *end <= self.received) {
            self.latest = self.latest.max(now.saturating_duration_since(*at));
            self.under_way.pop_front();
        }
    }
}

impl Stream {
    pub(super) fn new(name: &'static str, seed: u64) -> Self {
        let (came, hurried) = (Notify::new(), Notify::new());
        Self { name, pattern: Pattern::new(seed), known: Mutex::default(), came, hurried }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The longest pause since this was asked last, one that is not over included.
    pub(super) fn take_longest(&self) -> Duration {
        let mut known = self.lock();
        let open = known.last.map_or(Duration::ZERO, |last| last.elapsed());
        std::mem::take(&mut known.longest).max(open)
    }

    /// How long the slowest portion took from being written to being read since this was asked last, one that is still
    /// under way included.
    pub(super) fn take_latest(&self) -> Duration {
        let mut known = self.lock();
        let open = known.under_way.front().map_or(Duration::ZERO, |(_, at)| at.elapsed());
        std::mem::take(&mut known.latest).max(open)
    }

    pub(super) fn sent(&self) -> u64 {
        self.lock().sent
    }

    /// Has the next portion written now.
    pub(super) fn hurry(&self) {
        self.hurried.notify_one();
    }

    /// Waits until so many bytes have come.
    pub(super) async fn has_received(&self, bytes: u64) {
        loop {
            let news = self.came.notified();
            if self.lock().received >= bytes {
                return;
            }
            news.await;
        }
    }

    /// Sends at this pace until it is stopped, then the end.
    pub(super) async fn send(
        &self,
        mut writer: impl AsyncWrite + Unpin,
        pace: Pace,
        stop: &CancellationToken,
    ) -> std::io::Result<()> {
        let (start, mut sent) = (Instant::now(), 0);
        let mut block = vec![0; pace.block];
        let timer = (pace.tick < COARSE).then(Timer::new).transpose()?;
        let mut next = start;
        while !stop.is_cancelled() {
            let is_hurried = tokio::select! {
                waited = wait_until(timer.as_ref(), next) => {
                    waited?;
                    false
                }
                () = self.hurried.notified() => true,
            };
            // What was missed is made up for by the next portion, in step with the others as before.
            let now = Instant::now();
            while !is_hurried && next <= now {
                next += pace.tick;
            }
            let due = u128::from(pace.rate) * start.elapsed().as_micros() / 1_000_000;
            let due = u64::try_from(due).unwrap_or(u64::MAX).max(sent + u64::from(is_hurried));
            while sent < due {
                let count = usize::try_from(due - sent).map_or(pace.block, |due| due.min(pace.block));
                let part = block.split_at_mut(count).0;
                self.pattern.fill(sent, part);
                sent += count as u64;
                self.lock().wrote(sent);
                writer.write_all(part).await?;
                writer.flush().await?;
            }
        }
        writer.shutdown().await
    }

    /// Takes what comes, until the end: what was wrong with it.
    pub(super) async fn receive(
        &self,
        mut reader: impl AsyncRead + Unpin,
        pace: Pace,
    ) -> std::io::Result<Faults> {
        let mut verifier = Verifier::new(self.pattern, UNKNOWN_TOTAL);
        let mut block = vec![0; pace.block];
        loop {
            let count = reader.read(&mut block).await?;
            let now = Instant::now();
            if count == 0 {
                let sent = self.sent();
                return Ok(verifier.faults_of(sent));
            }
            verifier.came(block.split_at(count).0);
            self.lock().took(count as u64, now);
            self.came.notify_waiters();
        }
    }
}

/// The runtime's own timers come up to two milliseconds late, which would be taken for a pause where ticks are short.
async fn wait_until(timer: Option<&Timer>, at: Instant) -> std::io::Result<()> {
    match timer {
        Some(timer) => timer.sleep(at.saturating_duration_since(Instant::now())).await,
        None => {
            sleep_until(at).await;
            Ok(())
        }
    }
}
