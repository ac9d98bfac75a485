//! Self-preservation: how many relays may fall silent before the pool suspects itself.

use super::Config;
use crate::time::Time;
use std::time::Duration;

/// Counts losses by windows of one lease.
#[derive(Debug)]
pub(super) struct Preservation {
    lease: Duration,
    percent: usize,
    above: usize,
    window: Option<Window>,
    held: Option<Held>,
}

/// How many relays fell silent since `began`, of how many.
#[derive(Clone, Copy, Debug)]
struct Window {
    began: Time,
    population: usize,
    silent: usize,
}

/// Expiry is stopped.
#[derive(Clone, Copy, Debug)]
struct Held {
    since: Time,
    review_at: Time,
}

impl Preservation {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            lease: config.lease,
            percent: usize::try_from(config.preserve_percent).unwrap_or(usize::MAX),
            above: usize::try_from(config.preserve_above).unwrap_or(usize::MAX),
            window: None,
            held: None,
        }
    }

    /// Since when expiry is stopped, if it is.
    pub(super) const fn since(&self) -> Option<Time> {
        match self.held {
            Some(held) => Some(held.since),
            None => None,
        }
    }

    /// When to ask again, if expiry is stopped.
    pub(super) fn review_at(&self) -> Option<Time> {
        self.held.map(|held| held.review_at)
    }

    /// Whether `silent` more of the `population` may be taken for dead; if so, `ending` of them are, and the others will be
    /// asked about again. While expiry is stopped these are all that are overdue.
    pub(super) fn may_lose(&mut self, silent: usize, ending: usize, population: usize, now: Time) -> bool {
        let mut window = self.current(population, now);
        let total = window.silent + silent;
        let too_many =
            total > self.above && total.saturating_mul(100) > window.population.saturating_mul(self.percent);
        window.silent += ending;
        if too_many {
            let review_at = now + (self.lease / 6).max(Duration::from_millis(1));
            self.held = Some(Held { since: self.since().unwrap_or(now), review_at });
        } else {
            self.held = None;
            // A window begins with its first loss: a partition must not get the rest of one, and then another.
            self.window = (window.silent > 0).then_some(window);
        }
        !too_many
    }

    fn current(&self, population: usize, now: Time) -> Window {
        let running = self.window.filter(|window| now.since(window.began) < self.lease);
        running.unwrap_or(Window { began: now, population, silent: 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: u32) -> Time {
        Time::ZERO + Duration::from_secs(1) * s
    }

    #[test]
    fn a_few_may_go_and_many_may_not() {
        let mut few = Preservation::new(&Config::default());
        assert!(few.may_lose(3, 3, 4, at(0)), "three are never too many");
        assert!(!few.may_lose(1, 1, 4, at(29)), "in one window");
        let mut many = Preservation::new(&Config::default());
        assert!(many.may_lose(10, 10, 100, at(0)));
        assert!(many.may_lose(5, 5, 100, at(1)), "15 of 100");
        assert!(!many.may_lose(1, 1, 100, at(2)));
        assert_eq!((many.since(), many.review_at()), (Some(at(2)), Some(at(7))));
    }

    #[test]
    fn those_that_have_gone_count_until_the_window_is_over() {
        let mut preservation = Preservation::new(&Config::default());
        assert!(preservation.may_lose(15, 15, 100, at(0)));
        assert!(!preservation.may_lose(15, 15, 100, at(1)), "30 of 100");
        assert!(!preservation.may_lose(15, 15, 85, at(6)));
        assert!(preservation.may_lose(0, 0, 85, at(11)), "all but the first are heard again");
        assert!(!preservation.may_lose(1, 1, 85, at(29)));
        assert!(preservation.may_lose(12, 12, 85, at(30)));
    }

    #[test]
    fn a_window_begins_with_the_first_loss() {
        let mut preservation = Preservation::new(&Config::default());
        assert!(preservation.may_lose(0, 0, 20, at(0)));
        assert!(preservation.may_lose(3, 3, 20, at(29)));
        assert!(!preservation.may_lose(1, 1, 20, at(31)), "4 of 20");
    }

    #[test]
    fn it_ends_when_most_are_heard_again() {
        let mut preservation = Preservation::new(&Config::default());
        assert!(!preservation.may_lose(50, 50, 100, at(0)));
        assert!(!preservation.may_lose(16, 16, 100, at(5)));
        assert_eq!(preservation.since(), Some(at(0)));
        assert!(preservation.may_lose(15, 15, 100, at(10)));
        assert_eq!(preservation.since(), None);
        assert!(!preservation.may_lose(1, 1, 85, at(11)), "those 15 count in the new window");
    }
}
