//! Whether what goes to the peer over legs gets there, though the peer may be heard: a path may carry small packets and
//! swallow large ones.
//!
//! QUIC finds each packet acked or lost. When for three spells on end nearly all bytes were lost, in packets as large as
//! only legs send them, the link is stalled. A spell lasts for several probe timeouts, and until enough packets were lost
//! to rule out chance: at a random loss of one half this happens once in some years. A reader that takes its time loses
//! nothing, and neither does a slow link whose packets arrive.

use crate::time::Time;
use std::time::Duration;

/// What a link's transport has counted since the link came up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transfer {
    /// Bytes of all packets sent.
    pub sent_bytes: u64,
    /// Bytes of those that count as lost.
    pub lost_bytes: u64,
    /// How many of them count as lost.
    pub lost_packets: u64,
}

/// Probe timeouts that a spell lasts at least.
const SPELL_TIMEOUTS: u32 = 4;
/// By how much a peer may put off an acknowledgement (RFC 9000, `max_ack_delay`).
pub(super) const ACK_DELAY: Duration = Duration::from_millis(25);
/// Packets that must be lost in a spell.
const LEAST_LOST: u64 = 32;
/// Their least mean size, in bytes: heartbeats and acks are smaller by far.
const LEAST_SIZE: u64 = 600;
/// Spells in a row that make a stall.
const SPELLS: u32 = 3;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Stall {
    since: Time,
    at_start: Transfer,
    bad_spells: u32,
}

impl Stall {
    pub(super) fn new(now: Time) -> Self {
        Self { since: now, at_start: Transfer::default(), bad_spells: 0 }
    }

    /// Takes what has been counted by now; `round_trip` is an upper estimate. Returns whether the link is stalled.
    pub(super) fn count(&mut self, counted: Transfer, round_trip: Duration, now: Time) -> bool {
        let sent = counted.sent_bytes.saturating_sub(self.at_start.sent_bytes);
        let lost = counted.lost_bytes.saturating_sub(self.at_start.lost_bytes);
        let packets = counted.lost_packets.saturating_sub(self.at_start.lost_packets);
        let arrives = lost * 10 < sent * 9;
        // What was sent last may not be found lost yet, which matters less, the longer a spell is.
        let is_long = now.since(self.since) >= (round_trip + ACK_DELAY) * SPELL_TIMEOUTS;
        if is_long && (arrives || packets >= LEAST_LOST) {
            let is_bad = !arrives && lost >= packets * LEAST_SIZE;
            self.bad_spells = if is_bad { self.bad_spells + 1 } else { 0 };
            (self.since, self.at_start) = (now, counted);
        }
        self.bad_spells >= SPELLS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    /// Whether a link stalls within ten minutes that sends packets of such sizes each ten milliseconds and loses those that
    /// `is_lost` says.
    fn stalls(sizes: &[u64], mut is_lost: impl FnMut(u64) -> bool) -> bool {
        let (mut stall, mut counted) = (Stall::new(Time::ZERO), Transfer::default());
        (1..60_000).any(|n| {
            let before = counted.lost_packets;
            for size in sizes {
                let lost = u64::from(is_lost(*size));
                counted.sent_bytes += size;
                counted.lost_bytes += size * lost;
                counted.lost_packets += lost;
            }
            let now = Time::ZERO + Duration::from_millis(10) * n;
            counted.lost_packets > before && stall.count(counted, Duration::from_millis(1), now)
        })
    }

    #[test]
    fn random_loss_is_none() {
        for (loss, seed) in [(0.1, 1), (0.5, 2), (0.5, 3), (0.7, 4)] {
            for sizes in [&[1200, 1200, 60][..], &[1200, 60, 60, 60, 60], &[60, 60], &[1200; 100]] {
                let mut rng = StdRng::seed_from_u64(seed);
                assert!(!stalls(sizes, |_| rng.random_bool(loss)), "{loss} of {sizes:?}");
            }
        }
    }

    #[test]
    fn slowness_is_none_and_swallowed_bytes_are_one() {
        assert!(!stalls(&[60], |_| false), "a reader that takes its time");
        let mut sent = 0;
        let overflowing = |_| {
            sent += 1;
            sent % 50 < 20
        };
        assert!(!stalls(&[1200; 4], overflowing), "a slow link loses in bursts, and carries the rest");
        assert!(stalls(&[1200, 1200, 60], |size| size > 600));
    }
}
