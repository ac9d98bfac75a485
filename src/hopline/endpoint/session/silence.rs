//! Whether packets come back over a session. A relay that heartbeats and passes on nothing shows nowhere else: a carrier has no bytes whose
//! acks could be missed.

use hopline_proto::time::Time;
use std::time::Duration;

/// How long packets may leave while none come, at least: longer than an ack is ever delayed.
const MIN_LIMIT: Duration = Duration::from_millis(100);
/// The same, in round trips.
const ROUND_TRIPS: u32 = 3;
/// How long after a doubt the next may come.
const AGAIN: Duration = Duration::from_secs(1);

/// See the module's documentation. It is looked at from time to time.
#[derive(Debug, Default)]
pub(super) struct Silence {
    sent: u64,
    came: u64,
    /// Since when packets have left, and none come.
    since: Option<Time>,
}

/// What a look shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Look {
    /// Whether packets have left since the last one.
    pub(super) has_sent: bool,
    /// Whether one should have come long ago.
    pub(super) is_doubtful: bool,
}

impl Silence {
    /// So many packets have left and come so far.
    pub(super) fn look(&mut self, sent: u64, came: u64, rtt: Duration, now: Time) -> Look {
        let has_sent = std::mem::replace(&mut self.sent, sent) != sent;
        let has_come = std::mem::replace(&mut self.came, came) != came;
        if has_come {
            self.since = None;
        } else if has_sent {
            self.since.get_or_insert(now);
        }
        let limit = MIN_LIMIT.max(rtt * ROUND_TRIPS);
        let is_doubtful = self.since.is_some_and(|since| now.since(since) >= limit);
        if is_doubtful {
            self.since = Some(now + AGAIN.saturating_sub(limit));
        }
        Look { has_sent, is_doubtful }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks every 50 ms: which of them, by number, are doubtful.
    fn doubts(packets: &[(u64, u64)], rtt_ms: u64) -> Vec<usize> {
        let (mut silence, rtt) = (Silence::default(), Duration::from_millis(rtt_ms));
        let at = |n: usize| Time::ZERO + Duration::from_millis(50) * u32::try_from(n).unwrap();
        let looks =
            packets.iter().enumerate().map(|(n, (sent, came))| silence.look(*sent, *came, rtt, at(n)));
        let doubtful: Vec<bool> = looks.map(|look| look.is_doubtful).collect();
        (0..doubtful.len()).filter(|n| doubtful[*n]).collect()
    }

    #[test]
    fn a_session_on_which_packets_leave_and_none_come_is_doubtful_now_and_then() {
        let one_way: Vec<(u64, u64)> = (1..40).map(|n| (n, 7)).collect();
        assert_eq!(doubts(&one_way, 1), [3, 23], "the first look sees the packets that came before");
        assert_eq!(doubts(&one_way, 100), [7, 27], "on a longer path later");
    }

    #[test]
    fn one_that_is_quiet_or_is_answered_is_not() {
        assert!(doubts(&[(5, 5); 40], 1).is_empty());
        let answered: Vec<(u64, u64)> = (1..40).map(|n| (n * 10, n / 2)).collect();
        assert!(doubts(&answered, 1).is_empty());
    }
}
