//! What a detector estimates: round-trip times, how late heartbeats arrive, and how many don't.

use std::time::Duration;

/// A mean and a mean deviation, smoothed as RFC 6298 does round-trip times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Smoothed {
    pub(crate) mean: Duration,
    deviation: Duration,
}

impl Smoothed {
    /// After the first sample.
    pub(crate) fn first(sample: Duration) -> Self {
        Self { mean: sample, deviation: sample / 2 }
    }

    /// After another sample.
    pub(crate) fn with(self, sample: Duration) -> Self {
        let error = self.mean.abs_diff(sample);
        Self { mean: (self.mean * 7 + sample) / 8, deviation: (self.deviation * 3 + error) / 4 }
    }

    /// What a sample rarely exceeds.
    pub(crate) fn bound(self) -> Duration {
        self.mean + self.deviation * 4
    }
}

/// How much later than asked for heartbeats come, on a bad day.
///
/// It rises by a third of what a gap is off, so that four times it covers a gap like the one just seen, and falls by a
/// 512th with every punctual one: a machine that stalls now and then will do so for a while. Lateness is a matter of
/// the machines and the network, not of the interval, so it outlives a change of pace.
///
/// A gap that was judged to be a fault is covered from then on too, if it was short: so busy machines surprise but once. It
/// never teaches more than that, however often it comes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Lateness(Duration);

/// Gaps beyond so many intervals count as that many: one outage must not blunt the detector for long.
const MAX_GAP_INTERVALS: u32 = 10;
/// The same for gaps that were judged to be faults.
const MAX_FAULT_INTERVALS: u32 = 4;
/// The most that is carried over to another interval, in intervals of that.
const MAX_CARRIED_INTERVALS: u32 = 2;
const RISE: u32 = 3;
const FALL: u32 = 512;

impl Lateness {
    /// Takes another gap between heartbeats that were to come at `interval`.
    pub(super) fn add(&mut self, gap: Duration, interval: Duration) {
        let late = gap.min(interval * MAX_GAP_INTERVALS).saturating_sub(interval);
        self.0 =
            if late > self.0 { self.0 + (late - self.0) / RISE } else { self.0 - (self.0 - late) / FALL };
    }

    /// As [`Lateness::add`], of a gap that made the peer suspect.
    pub(super) fn add_fault(&mut self, gap: Duration, interval: Duration) {
        let late = gap.min(interval * MAX_FAULT_INTERVALS).saturating_sub(interval);
        self.0 = self.0.max(late / RISE);
    }

    /// From now on heartbeats are to come at `interval`.
    pub(super) fn carry_over(&mut self, interval: Duration) {
        self.0 = self.0.min(interval * MAX_CARRIED_INTERVALS);
    }

    /// The longest gap at `interval` that is still nothing unusual.
    pub(super) fn bound(self, interval: Duration) -> Duration {
        interval + self.0 * 4
    }
}

/// How many of the peer's heartbeats are lost on their way: how long a run of losses is nothing unusual.
///
/// Sequence numbers tell what was lost from what is late. A share of losses makes the deadline longer, as it goes on by chance; a
/// long gap does not: a path that was cut, or a queue that overflowed, is whole again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Losses {
    /// The share of heartbeats that are lost, in [`WHOLE`]ths.
    share: u64,
}

const WHOLE: u64 = 1 << 20;
/// By what part of it each heartbeat moves the share.
const WEIGHT: u64 = 64;
/// More heartbeats lost in a row than these are no chance, and do not count,
const MAX_RUN: u32 = 6;
/// nor are more than these on a path that has not lost enough before to make them likely.
const MAX_FIRST_RUN: u32 = 2;
/// A run of losses that comes as rarely as once in so many heartbeats is unusual.
const RARE: u64 = 100_000;
/// The longest run of losses that is waited out, in heartbeats.
const MAX_TOLERATED_RUN: u32 = 20;

impl Losses {
    /// A heartbeat came after `missing` that did not.
    pub(super) fn add(&mut self, missing: u32) {
        let likely = self.bound().clamp(MAX_FIRST_RUN, MAX_RUN);
        let by_chance = if missing > likely { 0 } else { missing };
        for _ in 0..by_chance {
            self.share += (WHOLE - self.share) / WEIGHT;
        }
        // Rounded up, so that a path that loses nothing any more gets back to none.
        self.share -= self.share.div_ceil(WEIGHT);
    }

    /// How many heartbeats in a row chance rarely takes.
    pub(super) fn bound(self) -> u32 {
        let mut chance = WHOLE;
        let mut run = 0;
        while run < MAX_TOLERATED_RUN && chance * RARE > WHOLE {
            chance = chance * self.share / WHOLE;
            run += 1;
        }
        run
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const INTERVAL: Duration = Duration::from_millis(10);

    #[test]
    fn round_trips_are_smoothed_as_in_rfc_6298() {
        let first = Smoothed::first(MS * 100);
        assert_eq!((first.mean, first.bound()), (MS * 100, MS * 300));
        let second = first.with(MS * 180);
        assert_eq!(second.mean, MS * 110);
        assert_eq!(second.bound(), MS * 110 + MS * 50 * 3 + MS * 80);
    }

    #[test]
    fn one_long_gap_is_covered_at_once_and_forgotten_slowly() {
        let mut lateness = Lateness::default();
        lateness.add(MS * 60, INTERVAL);
        assert!(lateness.bound(INTERVAL) >= MS * 60);
        (0..50).for_each(|_| lateness.add(INTERVAL, INTERVAL));
        assert!(lateness.bound(INTERVAL) >= MS * 60, "half a second later");
        (0..1000).for_each(|_| lateness.add(INTERVAL, INTERVAL));
        assert!(lateness.bound(INTERVAL) <= MS * 30, "ten seconds later");
    }

    #[test]
    fn an_outage_does_not_blunt_it() {
        let mut lateness = Lateness::default();
        lateness.add(Duration::from_secs(600), INTERVAL);
        assert!(lateness.bound(INTERVAL) <= MS * 130);
        lateness.add(Duration::from_secs(50), Duration::from_secs(5));
        lateness.carry_over(INTERVAL);
        assert!(lateness.bound(INTERVAL) <= MS * 90);
    }

    #[test]
    fn faults_are_covered_while_they_are_short_and_never_add_up() {
        let mut lateness = Lateness::default();
        lateness.add_fault(MS * 40, INTERVAL);
        let once = lateness;
        assert!((MS * 40..MS * 60).contains(&once.bound(INTERVAL)));
        (0..100).for_each(|_| lateness.add_fault(Duration::from_secs(600), INTERVAL));
        assert_eq!(lateness, once);
    }

    #[test]
    fn losses_make_patient_and_are_forgotten() {
        let mut losses = Losses::default();
        assert!(losses.bound() <= 3);
        losses.add(1_000_000);
        assert!(losses.bound() <= 3, "an outage");
        (0..10).for_each(|_| losses.add(4));
        assert!(losses.bound() <= 3, "short outages");
        losses.add(2);
        assert!((2..=5).contains(&losses.bound()), "a short run");
        (0..100).for_each(|_| losses.add(0));
        assert!(losses.bound() <= 3, "a second later: {losses:?}");
        (0..200).for_each(|_| losses.add(1));
        assert!((13..=20).contains(&losses.bound()), "every second one: {losses:?}");
        (0..10_000).for_each(|_| losses.add(MAX_RUN));
        assert_eq!(losses.bound(), MAX_TOLERATED_RUN);
        (0..2000).for_each(|_| losses.add(0));
        assert_eq!(losses, Losses::default());
    }

    #[test]
    fn early_arrivals_are_not_irregular() {
        let mut lateness = Lateness::default();
        (0..100).for_each(|_| lateness.add(MS, INTERVAL));
        assert_eq!(lateness.bound(INTERVAL), INTERVAL);
    }
}
