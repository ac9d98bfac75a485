//! A limit for work that a peer can cause: a burst, and a rate from then on.

use super::time::Time;
use std::time::Duration;

/// What is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// At once, after a long rest.
    pub burst: u32,
    /// A second, for ever.
    pub per_second: u32,
}

/// How much of it is used up: the moment up to which an [`Allowance`] is (the generic cell rate algorithm, ITU-T I.371).
#[derive(Clone, Copy, Debug, Default)]
pub struct Spent(Time);

impl Spent {
    /// Uses it once more; `false` if it is used up.
    pub fn spend(&mut self, allowed: Allowance, now: Time) -> bool {
        let each = Duration::from_secs(1) / allowed.per_second.max(1);
        // A long rest earns the burst and no more.
        let from = self.0.max(now);
        let is_left = from.since(now) + each <= each * allowed.burst;
        if is_left {
            self.0 = from + each;
        }
        is_left
    }

    /// When there is some left: now, if there is.
    #[must_use]
    pub fn due(self, allowed: Allowance, now: Time) -> Time {
        let each = Duration::from_secs(1) / allowed.per_second.max(1);
        let excess = (self.0.max(now).since(now) + each).saturating_sub(each * allowed.burst);
        now + excess
    }

    /// Whether none of it is used up.
    #[must_use]
    pub fn is_whole(&self, now: Time) -> bool {
        self.0 <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_at_once_and_then_at_a_steady_pace() {
        let allowed = Allowance { burst: 3, per_second: 10 };
        let mut so_far = Spent::default();
        let start = Time::from_micros(1_000_000_000);
        let spent = |so_far: &mut Spent, ms: u64| {
            (0..100).filter(|_| so_far.spend(allowed, start + Duration::from_millis(ms))).count()
        };
        assert_eq!(spent(&mut so_far, 0), 3);
        assert_eq!(so_far.due(allowed, start), start + Duration::from_millis(100));
        assert_eq!(spent(&mut so_far, 99), 0);
        assert_eq!(spent(&mut so_far, 100), 1);
        let rested = start + Duration::from_secs(10);
        assert_eq!(so_far.due(allowed, rested), rested);
        assert_eq!(spent(&mut so_far, 10_000), 3, "a rest is not saved up for longer");
    }
}
