//! How often a node can afford to hear its neighbours.

use crate::detector::MIN_INTERVAL;
use crate::time::Time;
use std::time::Duration;

/// Links that carry flows, up to which each is heard as often as it likes.
const FEW_LINKS: u32 = 5;
/// By so much longer is every interval for each more, so that a node in a crowd hears 100 heartbeats a second from it, and not
/// 100 from each neighbour.
const PER_LINK: Duration = Duration::from_millis(10);
/// Intervals are so many times as long as this node's own timers come late, for each few links: what heartbeats cost grows
/// with the links.
const SLIPS: u32 = 64;
/// The part of an interval by which a link may be looked after early.
const SLACK_PART: u32 = 8;
/// A slip counts as twice the usual one and this at most: a stall now and then is not usual, however long.
const UNUSUAL: Duration = Duration::from_micros(500);
/// The weight of what was before, against one new slip.
const MEMORY: u32 = 31;

/// The shortest interval of a node's links: longer for each that carries flows, and on a machine that has no time to spare.
/// There more heartbeats would only make everything later, and what they tell would be how late this node is itself.
#[derive(Debug, Default)]
pub(super) struct MinInterval {
    slip: Duration,
}

impl MinInterval {
    /// What was due then is done now.
    pub(super) fn note(&mut self, due: Time, now: Time) {
        let slip = now.since(due).min(self.slip * 2 + UNUSUAL);
        self.slip = (self.slip * MEMORY + slip) / (MEMORY + 1);
    }

    pub(super) fn interval(&self, busy: u32) -> Duration {
        (PER_LINK * busy.saturating_sub(FEW_LINKS)).max(self.slip * SLIPS * busy.max(FEW_LINKS) / FEW_LINKS)
    }

    /// How much sooner than it is due a node looks after a link when it is awake for another one.
    pub(super) fn slack(&self, busy: u32) -> Duration {
        self.interval(busy).max(MIN_INTERVAL) / SLACK_PART
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_and_a_busy_machine_are_heard_less_often() {
        let mut min_interval = MinInterval::default();
        let at = |micros: u64| Time::from_micros(1_000_000 + micros);
        assert_eq!(min_interval.interval(FEW_LINKS), Duration::ZERO);
        assert_eq!(min_interval.interval(FEW_LINKS + 100), PER_LINK * 100);
        (0..500).for_each(|_| min_interval.note(at(0), at(5000)));
        let busy = min_interval.interval(FEW_LINKS);
        let slips = Duration::from_millis(5) * SLIPS;
        assert!(busy > slips * 9 / 10 && busy <= slips, "{busy:?}");
        assert_eq!(min_interval.interval(FEW_LINKS * 3), busy * 3, "so many links cost so much more");
        min_interval.note(at(0), at(60_000_000));
        assert!(min_interval.interval(0) < busy * 11 / 10, "one long stall counts little");
        (0..500).for_each(|_| min_interval.note(at(0), at(50)));
        assert!(min_interval.interval(0) < MIN_INTERVAL / 2);
        (0..5).for_each(|_| min_interval.note(at(0), at(200_000)));
        assert!(min_interval.interval(0) < MIN_INTERVAL, "nor do five");
    }
}
