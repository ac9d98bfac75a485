//! How often somebody may do something that costs work: so often at once, and so often a second from then on.

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

/// What is left of an [`Allowance`]: the moment up to which it is used up (the generic cell rate algorithm, ITU-T I.371).
#[derive(Clone, Copy, Debug, Default)]
pub struct Budget(Time);

impl Budget {
    /// Uses it once more; `false` if it is used up.
    pub fn spend(&mut self, allowed: Allowance, now: Time) -> bool {
        let each = Duration::from_secs(1) / allowed.per_second.max(1);
        let from = self.0.max(now);
        let is_left = from.since(now) + each <= each * allowed.burst;
        if is_left {
            self.0 = from + each;
        }
        is_left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_at_once_and_then_at_a_steady_pace() {
        let allowed = Allowance { burst: 3, per_second: 10 };
        let mut budget = Budget::default();
        let start = Time::from_micros(1_000_000_000);
        let spent = |budget: &mut Budget, ms: u64| {
            (0..100).filter(|_| budget.spend(allowed, start + Duration::from_millis(ms))).count()
        };
        assert_eq!(spent(&mut budget, 0), 3);
        assert_eq!(spent(&mut budget, 99), 0);
        assert_eq!(spent(&mut budget, 100), 1);
        assert_eq!(spent(&mut budget, 10_000), 3, "a rest is not saved up for longer");
    }
}
