//! What a measured flow carries, one [`Stream`] each way: data at a steady rate or as fast as it goes, checked as it comes,
//! hashed at both ends, with the times between its arrivals.

use crate::pattern::{Faults, Pattern, Verifier};
use aws_lc_rs::digest::{Context, Digest, SHA256};
use hopline::endpoint::Flow;
use hopline::net::timer::Timer;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// Longer than any run.
const UNKNOWN_TOTAL: u64 = u64::MAX >> 8;

/// Ticks of at least so long need no timer of their own, of which each takes a file descriptor.
const COARSE: Duration = Duration::from_millis(10);

/// How fast data is sent, and in what portions.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Bytes a second; `None` is as many as there is room for.
    pub rate: Option<u64>,
    /// How often something is sent, if the rate is limited.
    pub tick: Duration,
    /// The most that is written or read at once, in bytes.
    pub block: usize,
}

/// One direction of a flow, as both its ends and those who disturb it know it.
#[derive(Debug)]
pub struct Stream {
    /// `forward` or `backward`.
    pub name: &'static str,
    pattern: Pattern,
    pace: Pace,
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
    /// A direction that carries the data of this seed.
    #[must_use]
    pub fn new(name: &'static str, seed: u64, pace: Pace) -> Self {
        let (came, hurried) = (Notify::new(), Notify::new());
        Self { name, pattern: Pattern::new(seed), pace, known: Mutex::default(), came, hurried }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The longest pause since this was asked last, one that is not over included.
    pub fn take_longest(&self) -> Duration {
        let mut known = self.lock();
        let open = known.last.map_or(Duration::ZERO, |last| last.elapsed());
        std::mem::take(&mut known.longest).max(open)
    }

    /// How long the slowest portion took from being written to being read since this was asked last, one that is still
    /// under way included.
    pub fn take_latest(&self) -> Duration {
        let mut known = self.lock();
        let open = known.under_way.front().map_or(Duration::ZERO, |(_, at)| at.elapsed());
        std::mem::take(&mut known.latest).max(open)
    }

    /// Bytes handed to the flow so far.
    pub fn sent(&self) -> u64 {
        self.lock().sent
    }

    /// Bytes that have come so far.
    pub fn received(&self) -> u64 {
        self.lock().received
    }

    /// Has the next portion written now.
    pub fn hurry(&self) {
        self.hurried.notify_one();
    }

    /// Waits until so many bytes have come.
    pub async fn has_received(&self, bytes: u64) {
        loop {
            let news = self.came.notified();
            if self.lock().received >= bytes {
                return;
            }
            news.await;
        }
    }

    /// Sends until it is stopped, then the end: the hash of all that.
    async fn send(
        &self,
        mut writer: impl AsyncWrite + Unpin,
        stop: &CancellationToken,
    ) -> std::io::Result<Digest> {
        let (mut clock, mut sent, mut sha256) = (Clock::start(self.pace)?, 0, Context::new(&SHA256));
        let mut block = vec![0; self.pace.block];
        while !stop.is_cancelled() {
            let is_hurried = tokio::select! {
                waited = clock.tick() => {
                    waited?;
                    false
                }
                () = self.hurried.notified() => true,
            };
            let due = clock.due(sent).max(sent + u64::from(is_hurried));
            while sent < due {
                let count = usize::try_from(due - sent).map_or(block.len(), |due| due.min(block.len()));
                let part = block.split_at_mut(count).0;
                self.pattern.fill(sent, part);
                sha256.update(part);
                sent += count as u64;
                self.lock().wrote(sent);
                writer.write_all(part).await?;
                writer.flush().await?;
            }
        }
        writer.shutdown().await?;
        Ok(sha256.finish())
    }

    /// Takes what comes, until the end: what was wrong with it, and its hash.
    async fn receive(&self, mut reader: impl AsyncRead + Unpin) -> std::io::Result<(Faults, Digest)> {
        let mut verifier = Verifier::new(self.pattern, UNKNOWN_TOTAL);
        let mut sha256 = Context::new(&SHA256);
        let mut block = vec![0; self.pace.block];
        loop {
            let count = reader.read(&mut block).await?;
            let now = Instant::now();
            if count == 0 {
                return Ok((verifier.faults_of(self.sent()), sha256.finish()));
            }
            let part = block.split_at(count).0;
            verifier.came(part);
            sha256.update(part);
            self.lock().took(count as u64, now);
            self.came.notify_waiters();
        }
    }
}

/// What one end of a flow sent and took.
#[derive(Debug)]
pub struct Carried {
    /// The SHA-256 of what it sent,
    pub sent: Digest,
    /// and of what it took.
    pub took: Digest,
    /// What was wrong with that.
    pub faults: Faults,
}

impl Carried {
    /// Whether `other` took what this end sent.
    #[must_use]
    pub fn is_whole_at(&self, other: &Self) -> bool {
        self.sent.as_ref() == other.took.as_ref()
    }
}

/// One end of a flow: sends one stream until it is stopped, and takes the other until both ends are known to have everything.
///
/// # Errors
/// Why the flow broke.
pub async fn carry(
    flow: Flow,
    sends: Arc<Stream>,
    takes: Arc<Stream>,
    stop: CancellationToken,
) -> std::io::Result<Carried> {
    let (mut reader, mut writer) = split(flow);
    let (sent, (faults, took)) =
        tokio::try_join!(sends.send(&mut writer, &stop), takes.receive(&mut reader))?;
    reader.unsplit(writer).finished().await?;
    Ok(Carried { sent, took, faults })
}

/// Says when how much is due.
struct Clock {
    pace: Pace,
    start: Instant,
    next: Instant,
    timer: Option<Timer>,
}

impl Clock {
    fn start(pace: Pace) -> std::io::Result<Self> {
        let start = Instant::now();
        let timer = (pace.rate.is_some() && pace.tick < COARSE).then(Timer::new).transpose()?;
        Ok(Self { pace, start, next: start, timer })
    }

    /// Waits for the next tick. What was missed is made up for by the next portion, in step with the others as before.
    async fn tick(&mut self) -> std::io::Result<()> {
        if self.pace.rate.is_none() {
            return Ok(());
        }
        wait_until(self.timer.as_ref(), self.next).await?;
        let now = Instant::now();
        while self.next <= now {
            self.next += self.pace.tick;
        }
        Ok(())
    }

    /// Up to where data is due after `sent` bytes.
    fn due(&self, sent: u64) -> u64 {
        let Some(rate) = self.pace.rate else { return sent + self.pace.block as u64 };
        let due = u128::from(rate) * self.start.elapsed().as_micros() / 1_000_000;
        u64::try_from(due).unwrap_or(u64::MAX)
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
