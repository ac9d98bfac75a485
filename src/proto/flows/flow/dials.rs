//! How often, and when last, the next hop of a flow was dialled.

use crate::allowance::{Allowance, Spent};
use crate::time::Time;

/// How often a node dials one flow's next hop, whatever its links look like: a neighbour could not tell more from a storm.
pub(in crate::flows) const DIALS: Allowance = Allowance { burst: 32, per_second: 4 };

/// See the module's documentation.
#[derive(Debug)]
pub(in crate::flows) struct Dials {
    spent: Spent,
    last: Time,
    /// How often it was dialled over former chains.
    former: u32,
}

impl Dials {
    /// None yet. Nothing of the flow waited for its next hop before `now`.
    pub(in crate::flows) fn new(now: Time) -> Self {
        Self { spent: Spent::default(), last: now, former: 0 }
    }

    /// When it may be dialled: now, unless it was over and over again, lately.
    pub(in crate::flows) fn due(&self, now: Time) -> Time {
        self.spent.due(DIALS, now)
    }

    /// Whether it may be dialled now.
    pub(in crate::flows) fn may(&self, now: Time) -> bool {
        self.due(now) <= now
    }

    pub(in crate::flows) fn dialled(&mut self, now: Time) {
        self.spent.spend(DIALS, now);
        self.last = now;
    }

    pub(in crate::flows) const fn last(&self) -> Time {
        self.last
    }

    /// The flow goes over another chain, after so many dials.
    pub(in crate::flows) const fn new_chain(&mut self, so_far: u32) {
        self.former = so_far;
    }

    /// Whether the last of so many dials was the first over the present chain.
    pub(in crate::flows) const fn is_first(&self, so_far: u32) -> bool {
        so_far == self.former + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_burst_and_then_at_a_steady_pace() {
        let mut now = Time::from_micros(1_000_000_000);
        let mut dials = Dials::new(now);
        let mut burst = 0;
        while dials.may(now) {
            dials.dialled(now);
            burst += 1;
        }
        assert_eq!(burst, DIALS.burst);
        assert_eq!(dials.due(now), now + Duration::from_millis(250));
        now = dials.due(now);
        assert!(dials.may(now));
        dials.dialled(now);
        assert_eq!((dials.last(), dials.may(now)), (now, false));
    }

    #[test]
    fn each_chain_has_its_first_dial() {
        let mut dials = Dials::new(Time::ZERO);
        assert_eq!((dials.is_first(1), dials.is_first(2)), (true, false));
        dials.new_chain(5);
        assert_eq!((dials.is_first(5), dials.is_first(6), dials.is_first(7)), (false, true, false));
    }
}
