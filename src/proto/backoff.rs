//! Backoff: how long to wait before another attempt, the longer the more have failed.
//!
//! [`Pauses`] are the figures. A [`Backoff`] counts the attempts of one thing by them and tells when the next is due. Whoever
//! counts failures anyway, for another reason, asks the pauses alone. Neither knows what is attempted, nor when to give up.

use super::time::Time;
use rand::{Rng, RngExt};
use std::iter::successors;
use std::time::Duration;

/// How pauses grow: from the first on, each is `factor` times as long as the one before, up to the longest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pauses {
    first: Duration,
    longest: Duration,
    factor: u32,
}

impl Pauses {
    /// Each twice as long as the one before.
    #[must_use]
    pub const fn doubling(first: Duration, longest: Duration) -> Self {
        Self::growing(first, longest, 2)
    }

    /// Each `factor` times as long as the one before.
    #[must_use]
    pub const fn growing(first: Duration, longest: Duration, factor: u32) -> Self {
        Self { first, longest, factor }
    }

    /// The pause that comes after so many others.
    #[must_use]
    pub fn after(self, others: u32) -> Duration {
        self.first.saturating_mul(self.factor.saturating_pow(others)).min(self.longest)
    }

    /// All of them, one after the other, without end.
    pub fn sequence(self) -> impl Iterator<Item = Duration> {
        successors(Some(0u32), |others| Some(others.saturating_add(1))).map(move |others| self.after(others))
    }
}

/// Attempts of one thing, and when the next is due. See the module's documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    pauses: Pauses,
    failures: u32,
    due: Option<Time>,
}

impl Backoff {
    /// Nothing has failed yet.
    #[must_use]
    pub const fn new(pauses: Pauses) -> Self {
        Self { pauses, failures: 0, due: None }
    }

    /// An attempt failed at `now`: when the next is due.
    pub fn next(&mut self, now: Time) -> Time {
        let due = now + self.pause();
        (self.failures, self.due) = (self.failures.saturating_add(1), Some(due));
        due
    }

    /// An attempt succeeded, or there is a reason to begin anew.
    pub const fn reset(&mut self) {
        (self.failures, self.due) = (0, None);
    }

    /// When the next attempt is due; `None` if none has failed since the last reset.
    #[must_use]
    pub const fn due(&self) -> Option<Time> {
        self.due
    }

    /// Whether an attempt may be made now.
    #[must_use]
    pub fn is_due(&self, now: Time) -> bool {
        self.due.is_none_or(|due| due <= now)
    }

    /// Attempts that have failed since the last reset.
    #[must_use]
    pub const fn failures(&self) -> u32 {
        self.failures
    }

    /// The pause that the next failure will bring.
    #[must_use]
    pub fn pause(&self) -> Duration {
        self.pauses.after(self.failures)
    }
}

/// `pause`, longer or shorter by up to so many percent, so that nodes that lost the same peer don't come back together.
pub fn jittered(pause: Duration, percent: u32, rng: &mut impl Rng) -> Duration {
    let spread = percent.min(100);
    pause * rng.random_range(100 - spread..=100 + spread) / 100
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn pauses_grow_from_the_first_to_the_longest() {
        let pauses = Pauses::growing(MS * 2, MS * 50, 4);
        assert_eq!(pauses.sequence().take(5).collect::<Vec<_>>(), [2, 8, 32, 50, 50].map(|n| MS * n));
        assert_eq!(pauses.after(u32::MAX), MS * 50, "nothing overflows");
        assert_eq!(Pauses::doubling(MS * 7, MS * 5).after(0), MS * 5, "the longest is never exceeded");
    }

    #[test]
    fn each_failure_puts_the_next_attempt_off_and_a_success_forgets_them() {
        let mut backoff = Backoff::new(Pauses::doubling(MS * 10, MS * 30));
        let start = Time::from_micros(5_000_000);
        assert!(backoff.is_due(start) && backoff.due().is_none());
        let due = backoff.next(start);
        assert_eq!((due, backoff.due(), backoff.failures()), (start + MS * 10, Some(due), 1));
        assert!(!backoff.is_due(start + MS * 9) && backoff.is_due(due));
        assert_eq!([backoff.next(due), backoff.next(due)], [due + MS * 20, due + MS * 30]);
        backoff.reset();
        assert_eq!(backoff, Backoff::new(Pauses::doubling(MS * 10, MS * 30)));
    }

    #[test]
    fn jitter_spreads_both_ways_and_a_seed_repeats_it() {
        let drawn = |seed| {
            let mut rng = StdRng::seed_from_u64(seed);
            (0..1000).map(|_| jittered(MS * 100, 20, &mut rng)).collect::<Vec<_>>()
        };
        let pauses = drawn(1);
        assert_eq!((pauses.iter().min(), pauses.iter().max()), (Some(&(MS * 80)), Some(&(MS * 120))));
        assert_eq!(pauses, drawn(1));
        assert_eq!(jittered(MS, 0, &mut StdRng::seed_from_u64(1)), MS);
    }
}
