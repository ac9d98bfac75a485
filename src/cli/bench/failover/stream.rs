//! One direction of the flow: data at a steady rate, and the times between its arrivals.

use crate::cli::pattern::{Faults, Pattern, Verifier};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// How often something is sent.
const TICK: Duration = Duration::from_millis(1);
/// The most that is written or read at once.
const BLOCK_BYTES: usize = 64 << 10;
/// Longer than any run.
const UNKNOWN_TOTAL: u64 = u64::MAX >> 8;

/// What is known of one direction.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) name: &'static str,
    pattern: Pattern,
    known: Mutex<Known>,
    came: Notify,
}

#[derive(Debug, Default)]
struct Known {
    sent: u64,
    received: u64,
    last: Option<Instant>,
    longest: Duration,
}

impl Stream {
    pub(super) fn new(name: &'static str, seed: u64) -> Self {
        Self { name, pattern: Pattern::new(seed), known: Mutex::default(), came: Notify::new() }
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

    pub(super) fn sent(&self) -> u64 {
        self.lock().sent
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

    /// Sends at this rate until it is stopped, then the end.
    pub(super) async fn send(
        &self,
        mut writer: impl AsyncWrite + Unpin,
        rate: u64,
        stop: &CancellationToken,
    ) -> std::io::Result<()> {
        let (start, mut sent) = (Instant::now(), 0);
        let mut block = vec![0; BLOCK_BYTES];
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        while !stop.is_cancelled() {
            ticks.tick().await;
            let due = u128::from(rate) * start.elapsed().as_micros() / 1_000_000;
            let due = u64::try_from(due).unwrap_or(u64::MAX);
            while sent < due {
                let count = usize::try_from(due - sent).map_or(BLOCK_BYTES, |due| due.min(BLOCK_BYTES));
                let part = block.split_at_mut(count).0;
                self.pattern.fill(sent, part);
                writer.write_all(part).await?;
                writer.flush().await?;
                sent += count as u64;
                self.lock().sent = sent;
            }
        }
        writer.shutdown().await
    }

    /// Takes what comes, until the end: what was wrong with it.
    pub(super) async fn receive(&self, mut reader: impl AsyncRead + Unpin) -> std::io::Result<Faults> {
        let mut verifier = Verifier::new(self.pattern, UNKNOWN_TOTAL);
        let mut block = vec![0; BLOCK_BYTES];
        loop {
            let count = reader.read(&mut block).await?;
            let now = Instant::now();
            if count == 0 {
                let sent = self.sent();
                return Ok(verifier.faults_of(sent));
            }
            verifier.came(block.split_at(count).0);
            let mut known = self.lock();
            known.received += count as u64;
            if let Some(last) = known.last.replace(now) {
                known.longest = known.longest.max(now - last);
            }
            drop(known);
            self.came.notify_waiters();
        }
    }
}
