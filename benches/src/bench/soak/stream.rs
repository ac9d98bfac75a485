//! One direction of the flow: hashed at both ends, checked as it comes, and the times between its arrivals.

use super::Rate;
use crate::pattern::{Faults, Pattern, Verifier};
use aws_lc_rs::digest::{Context, SHA256};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// How often something is sent where the rate is limited.
const TICK: Duration = Duration::from_millis(1);
/// The most that is written or read at once.
const BLOCK_BYTES: usize = 64 << 10;
/// Longer than any run.
const UNKNOWN_TOTAL: u64 = u64::MAX >> 8;

/// What one end sent and took.
#[derive(Debug)]
pub(super) struct Digests {
    pub(super) sent: Vec<u8>,
    pub(super) took: Vec<u8>,
    /// What was wrong with what it took.
    pub(super) faults: Faults,
}

/// What is known of one direction.
#[derive(Debug)]
pub(super) struct Stream {
    name: &'static str,
    pattern: Pattern,
    rate: Rate,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    sent: u64,
    received: u64,
    last: Option<Instant>,
    longest: Duration,
}

impl Stream {
    pub(super) fn new(name: &'static str, seed: u64, rate: Rate) -> Self {
        Self { name, pattern: Pattern::new(seed), rate, known: Mutex::default() }
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

    pub(super) fn received(&self) -> u64 {
        self.lock().received
    }

    /// Sends until it is stopped, then the end: the hash of all that.
    pub(super) async fn send(
        &self,
        mut writer: impl AsyncWrite + Unpin,
        stop: &CancellationToken,
    ) -> std::io::Result<Vec<u8>> {
        let (start, mut sent, mut sha256) = (Instant::now(), 0, Context::new(&SHA256));
        let mut block = vec![0; BLOCK_BYTES];
        while !stop.is_cancelled() {
            let count = self.due(start, sent);
            if count == 0 {
                sleep(TICK).await;
                continue;
            }
            let part = block.split_at_mut(count).0;
            self.pattern.fill(sent, part);
            sha256.update(part);
            writer.write_all(part).await?;
            writer.flush().await?;
            sent += count as u64;
            self.lock().sent = sent;
        }
        writer.shutdown().await?;
        Ok(sha256.finish().as_ref().to_vec())
    }

    /// How much may be sent at once, now.
    fn due(&self, start: Instant, sent: u64) -> usize {
        let Rate::Limited(rate) = self.rate else { return BLOCK_BYTES };
        let due = u128::from(rate) * start.elapsed().as_micros() / 1_000_000;
        usize::try_from(due.saturating_sub(sent.into())).map_or(BLOCK_BYTES, |due| due.min(BLOCK_BYTES))
    }

    /// Takes what comes, until the end: what was wrong with it, and its hash.
    pub(super) async fn receive(
        &self,
        mut reader: impl AsyncRead + Unpin,
    ) -> std::io::Result<(Faults, Vec<u8>)> {
        let mut verifier = Verifier::new(self.pattern, UNKNOWN_TOTAL);
        let mut sha256 = Context::new(&SHA256);
        let mut block = vec![0; BLOCK_BYTES];
        loop {
            let count = reader.read(&mut block).await?;
            let now = Instant::now();
            if count == 0 {
                tracing::debug!(way = self.name, "all of it");
                return Ok((verifier.faults_of(self.lock().sent), sha256.finish().as_ref().to_vec()));
            }
            let part = block.split_at(count).0;
            verifier.came(part);
            sha256.update(part);
            let mut known = self.lock();
            known.received += count as u64;
            if let Some(last) = known.last.replace(now) {
                known.longest = known.longest.max(now - last);
            }
        }
    }
}
