//! One direction of a flow: data at a steady rate, hashed at both ends, and the times between its arrivals.

use aws_lc_rs::digest::{Context, Digest, SHA256};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// Bytes a second.
pub const RATE: u64 = 1 << 20;
const TICK: Duration = Duration::from_millis(1);
const BLOCK_BYTES: usize = 64 << 10;

/// Bytes that look random; the same from the same seed.
struct Bytes(u64);

impl Bytes {
    fn fill(&mut self, out: &mut [u8]) {
        for byte in out {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            *byte = self.0.to_le_bytes()[3];
        }
    }
}

/// What is known of one direction, to both its ends and to those who disturb it.
pub struct Stream {
    pub name: &'static str,
    seed: u64,
    known: Mutex<Known>,
    came: Notify,
}

#[derive(Default)]
struct Known {
    sent: u64,
    received: u64,
    last: Option<Instant>,
    longest: Duration,
}

impl Stream {
    pub fn new(name: &'static str, seed: u64) -> Arc<Self> {
        Arc::new(Self { name, seed, known: Mutex::default(), came: Notify::new() })
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap()
    }

    pub fn sent(&self) -> u64 {
        self.known().sent
    }

    pub fn received(&self) -> u64 {
        self.known().received
    }

    /// The longest pause since this was asked last, one that is not over included.
    pub fn take_longest(&self) -> Duration {
        let mut known = self.known();
        let open = known.last.map_or(Duration::ZERO, |last| last.elapsed());
        std::mem::take(&mut known.longest).max(open)
    }

    /// Waits until so many bytes have come.
    pub async fn has_received(&self, bytes: u64) {
        loop {
            let news = self.came.notified();
            if self.received() >= bytes {
                return;
            }
            news.await;
        }
    }

    /// Sends until it is stopped, then the end: the hash of all that.
    pub async fn send(
        &self,
        mut writer: impl AsyncWrite + Unpin,
        stop: &CancellationToken,
    ) -> std::io::Result<Digest> {
        let (start, mut sent, mut hash) = (Instant::now(), 0, Context::new(&SHA256));
        let (mut bytes, mut block) = (Bytes(self.seed), vec![0; BLOCK_BYTES]);
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        while !stop.is_cancelled() {
            ticks.tick().await;
            let due = u128::from(RATE) * start.elapsed().as_micros() / 1_000_000;
            let due = usize::try_from(due - u128::from(sent)).unwrap().min(BLOCK_BYTES);
            let part = &mut block[..due];
            bytes.fill(part);
            hash.update(part);
            writer.write_all(part).await?;
            writer.flush().await?;
            sent += due as u64;
            self.known().sent = sent;
        }
        writer.shutdown().await?;
        Ok(hash.finish())
    }

    /// Takes what comes, until the end, and checks it as it comes: the hash of all that.
    pub async fn receive(&self, mut reader: impl AsyncRead + Unpin) -> std::io::Result<Digest> {
        let (mut bytes, mut hash) = (Bytes(self.seed), Context::new(&SHA256));
        let (mut block, mut expected) = (vec![0; BLOCK_BYTES], vec![0; BLOCK_BYTES]);
        loop {
            let count = reader.read(&mut block).await?;
            if count == 0 {
                return Ok(hash.finish());
            }
            let now = Instant::now();
            let (part, expected) = (&block[..count], &mut expected[..count]);
            bytes.fill(expected);
            hash.update(part);
            let mut known = self.known();
            if part != expected {
                let text = format!("{}: not what was sent, from {} on", self.name, known.received);
                return Err(std::io::Error::other(text));
            }
            known.received += count as u64;
            if let Some(last) = known.last.replace(now) {
                known.longest = known.longest.max(now - last);
            }
            drop(known);
            self.came.notify_waiters();
        }
    }
}
