//! The data: how fast it goes out, what comes back, and how long it pauses.

use crate::pattern::{Faults, Pattern, Verifier};
use aws_lc_rs::digest::{Context, Digest, SHA256};
use hopline::endpoint::Flow;
use hopline_command::{Exit, Failure};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

/// How often data goes out while there are relays to kill.
const TICK: Duration = Duration::from_millis(2);
/// The most that goes out at once, and the most that one read takes.
const BLOCK_BYTES: usize = 64 << 10;
/// After how long without data something is badly wrong.
const STALL: Duration = Duration::from_secs(30);
/// What a kill and its repair are expected to take, before the first.
const FIRST_ROUND: Duration = Duration::from_secs(1);

/// How a transfer stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Transfer {
    /// Bytes handed to the flow, and bytes that came back.
    pub(super) sent: u64,
    pub(super) received: u64,
    last_read: Instant,
    size: u64,
    kills_left: u32,
    round: Duration,
    round_start: Instant,
    in_gap: bool,
    gap: Duration,
    longest_other: Duration,
}

/// A transfer in progress, as those who move its data and those who disturb it share it.
#[derive(Debug)]
pub(super) struct Progress(watch::Sender<Transfer>);

impl Progress {
    pub(super) fn new(size: u64, kills: u32, now: Instant) -> Self {
        Self(watch::Sender::new(Transfer {
            sent: 0,
            received: 0,
            last_read: now,
            size,
            kills_left: kills,
            round: FIRST_ROUND,
            round_start: now,
            in_gap: false,
            gap: Duration::ZERO,
            longest_other: Duration::ZERO,
        }))
    }

    pub(super) fn now(&self) -> Transfer {
        *self.0.borrow()
    }

    /// A relay is about to be killed: from the last byte before this until [`Progress::flows_again`] is its gap.
    pub(super) fn killing(&self) {
        self.0.send_modify(|transfer| {
            transfer.in_gap = true;
            transfer.gap = Duration::ZERO;
        });
    }

    /// Waits until something is back that was sent after now: the longest pause between two reads until then is the gap.
    pub(super) async fn flows_again(&self) -> Result<Duration, Failure> {
        let Transfer { sent, size, .. } = self.now();
        // The last byte is held back until all kills are done.
        let enough = (sent + 1).min(size - 1);
        let mut transfers = self.0.subscribe();
        let flows = transfers.wait_for(|transfer| transfer.received >= enough);
        if timeout(STALL, flows).await.is_err() {
            return Err(stalled(&self.now()));
        }
        let mut gap = Duration::ZERO;
        self.0.send_modify(|transfer| {
            transfer.in_gap = false;
            gap = transfer.gap;
        });
        Ok(gap)
    }

    /// A kill and all that comes with it is over.
    pub(super) fn killed(&self, now: Instant) {
        self.0.send_modify(|transfer| {
            transfer.kills_left = transfer.kills_left.saturating_sub(1);
            transfer.round = now - transfer.round_start;
            transfer.round_start = now;
        });
    }

    /// Resolves when no data has come for far too long, though there is some to come.
    pub(super) async fn stall(&self) -> Failure {
        let mut transfers = self.0.subscribe();
        loop {
            let received = transfers.borrow_and_update().received;
            let moved = timeout(STALL, transfers.wait_for(|transfer| transfer.received > received)).await;
            if moved.is_err() && received < self.now().size {
                return stalled(&self.now());
            }
        }
    }

    fn wrote(&self, bytes: usize) {
        self.0.send_modify(|transfer| transfer.sent += bytes as u64);
    }

    fn read(&self, bytes: usize, now: Instant) {
        self.0.send_modify(|transfer| {
            let pause = now - transfer.last_read;
            transfer.last_read = now;
            transfer.received += bytes as u64;
            let longest = if transfer.in_gap { &mut transfer.gap } else { &mut transfer.longest_other };
            // Before the first byte there is nothing to pause.
            if transfer.received > bytes as u64 {
                *longest = pause.max(*longest);
            }
        });
    }
}

impl Transfer {
    /// The longest pause that no kill explains.
    pub(super) const fn longest_other_pause(&self) -> Duration {
        self.longest_other
    }

    /// How much to send `elapsed` after the last: so much that what is left lasts for the kills that are left, and never
    /// nothing. The longer a kill takes, the less, so that it finds data under way however long that is.
    fn allowance(&self, left: u64, elapsed: Duration, now: Instant) -> usize {
        let round = self.round.max((now - self.round_start) * 2);
        let horizon = round.as_secs_f64() * (f64::from(self.kills_left) + 0.5);
        let share = (elapsed.as_secs_f64() / horizon).min(0.1);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a part of a size, and not negative"
        )]
        let bytes = (left as f64 * share) as usize;
        bytes.clamp(1, BLOCK_BYTES)
    }
}

fn stalled(transfer: &Transfer) -> Failure {
    let Transfer { sent, received, size, .. } = transfer;
    Failure::new(
        Exit::FlowLost,
        format!(
            "no data for {} s: of {size} bytes {sent} were sent and {received} are back; this is a bug: run it again \
             with --logs DIR, and report it",
            STALL.as_secs()
        ),
    )
}

/// What came back.
pub(super) struct Received {
    pub(super) bytes: u64,
    pub(super) faults: Faults,
    pub(super) sha256: Digest,
}

/// Sends `size` bytes; the last of them not before the last kill.
pub(super) async fn send(
    mut writer: WriteHalf<Flow>,
    pattern: Pattern,
    size: u64,
    progress: &Progress,
) -> std::io::Result<(WriteHalf<Flow>, Digest)> {
    let mut sha256 = Context::new(&SHA256);
    let mut block = vec![0; BLOCK_BYTES];
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = Instant::now();
    let mut left = size;
    while left > 0 {
        let transfer = progress.now();
        let mut bytes = BLOCK_BYTES;
        if transfer.kills_left > 0 {
            let tick = ticks.tick().await;
            bytes = transfer.allowance(left, tick - last, tick);
            last = tick;
            if left == 1 {
                continue;
            }
        }
        let bytes = bytes.min(usize::try_from(left).unwrap_or(usize::MAX));
        let (part, _) = block.split_at_mut(bytes);
        pattern.fill(size - left, part);
        sha256.update(part);
        progress.wrote(bytes);
        writer.write_all(part).await?;
        writer.flush().await?;
        left -= bytes as u64;
    }
    writer.shutdown().await?;
    Ok((writer, sha256.finish()))
}

/// Takes what comes back and checks it as it comes.
pub(super) async fn receive(
    mut reader: ReadHalf<Flow>,
    pattern: Pattern,
    size: u64,
    progress: &Progress,
) -> std::io::Result<(ReadHalf<Flow>, Received)> {
    let mut sha256 = Context::new(&SHA256);
    let mut verifier = Verifier::new(pattern, size);
    let mut block = vec![0; BLOCK_BYTES];
    let mut bytes = 0;
    loop {
        let count = reader.read(&mut block).await?;
        if count == 0 {
            break;
        }
        let (part, _) = block.split_at(count);
        progress.read(count, Instant::now());
        verifier.came(part);
        sha256.update(part);
        bytes += count as u64;
    }
    Ok((reader, Received { bytes, faults: verifier.faults(), sha256: sha256.finish() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_lasts_until_the_last_kill_however_long_the_kills_take() {
        for (kills, seconds) in [(1, 1), (1, 60), (6, 1), (6, 40), (40, 3)] {
            let mut now = Instant::now();
            let progress = Progress::new(64 << 20, kills, now);
            let mut left = 64 << 20;
            for _ in 0..kills {
                for _ in 0..seconds * 500 {
                    now += TICK;
                    let bytes = progress.now().allowance(left, TICK, now) as u64;
                    assert!(bytes > 0, "data moves all the time");
                    left -= bytes;
                }
                progress.killed(now);
            }
            assert!(left > 100_000, "{kills} kills of {seconds} s leave {left}");
        }
    }

    #[tokio::test]
    async fn the_gap_is_the_longest_pause_around_a_kill() {
        let ms = Duration::from_millis;
        let start = Instant::now();
        let progress = Progress::new(4000, 1, start);
        progress.wrote(2500);
        progress.read(1000, start + ms(500));
        progress.read(1000, start + ms(507));
        progress.killing();
        let after = async {
            progress.read(500, start + ms(602));
            progress.wrote(500);
            progress.read(500, start + ms(605));
        };
        let (gap, ()) = tokio::join!(progress.flows_again(), after);
        assert_eq!(gap.unwrap(), ms(95));
        assert_eq!(progress.now().longest_other_pause(), ms(7), "before the first byte there is no pause");
    }
}
