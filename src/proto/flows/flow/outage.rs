//! What is known of the time since a flow's next hop answered last, and why it does no more.
//!
//! Invariant: an answer ends it, and nothing of it is left while a next serves.

use crate::frame::{Cause, Evidence, Reason};
use crate::record::Candidate;
use crate::time::Time;

/// A next hop that failed and is being replaced: reported once another has answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::flows) struct Repair {
    pub(in crate::flows) cause: Cause,
    /// The candidate that failed first; a newer record may not name it any more.
    pub(in crate::flows) from: Option<Candidate>,
    /// The last sign of life from it since it was dialled.
    pub(in crate::flows) since: Time,
    /// When it was given up.
    pub(in crate::flows) noticed: Time,
    pub(in crate::flows) reason: Reason,
}

impl Repair {
    /// A flow that is being opened goes over another candidate than `planned`, which may have failed.
    pub(in crate::flows) fn unplanned(planned: Option<Candidate>, has_failed: bool, now: Time) -> Self {
        let cause = if has_failed { Cause::Unreachable } else { Cause::Chosen };
        Self { cause, from: planned, since: now, noticed: now, reason: Reason::of(cause.evidence()) }
    }

    /// Whoever takes the place of another relay chooses the next hop for itself: the origin may know it otherwise.
    pub(in crate::flows) fn followed(now: Time) -> Self {
        let reason = Reason::of(Evidence::None);
        Self { cause: Cause::Followed, from: None, since: now, noticed: now, reason }
    }
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(in crate::flows) struct Outage {
    unserved_since: Option<Time>,
    stuck_since: Option<Time>,
    repair: Option<Repair>,
}

impl Outage {
    /// Somebody is wanted to serve the hop. If it was before, it has been since then.
    pub(in crate::flows) fn unserved(&mut self, now: Time) {
        self.unserved_since.get_or_insert(now);
    }

    /// A candidate says that there is no way on, and has looked for long enough.
    pub(in crate::flows) const fn no_path(&mut self) {
        // As long ago as can be: this node need not look for as long again.
        self.unserved_since = Some(Time::ZERO);
    }

    pub(in crate::flows) const fn unserved_since(&self) -> Option<Time> {
        self.unserved_since
    }

    /// Since when no candidate could be had, if it begins no later than `now`.
    pub(in crate::flows) fn stuck_since(&self, now: Time) -> Time {
        self.stuck_since.unwrap_or(now)
    }

    /// No candidate can be had since then.
    pub(in crate::flows) const fn stuck(&mut self, since: Time) {
        self.stuck_since = Some(since);
    }

    /// The hop may be served by others, or was waited for in vain: the next wait is another one.
    pub(in crate::flows) const fn unstuck(&mut self) {
        self.stuck_since = None;
    }

    /// Why next is given up. Who failed first counts.
    pub(in crate::flows) fn repair(&mut self, why: impl FnOnce() -> Repair) {
        self.repair.get_or_insert_with(why);
    }

    pub(in crate::flows) fn cause(&self) -> Option<Cause> {
        self.repair.as_ref().map(|repair| repair.cause)
    }

    /// Next answered; what that repairs, if anything.
    pub(in crate::flows) fn end(&mut self) -> Option<Repair> {
        std::mem::take(self).repair
    }

    /// Whether nothing is known of one.
    pub(in crate::flows) const fn is_over(&self) -> bool {
        self.unserved_since.is_none() && self.stuck_since.is_none() && self.repair.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T1: Time = Time::from_micros(1);
    const T2: Time = Time::from_micros(2);

    #[test]
    fn the_first_moment_and_the_first_cause_count() {
        let mut outage = Outage::default();
        outage.unserved(T1);
        outage.unserved(T2);
        assert_eq!(outage.unserved_since(), Some(T1));
        outage.repair(|| Repair::unplanned(None, true, T1));
        outage.repair(|| Repair::followed(T2));
        assert_eq!(outage.cause(), Some(Cause::Unreachable));
    }

    #[test]
    fn an_answer_ends_it_all() {
        let mut outage = Outage::default();
        outage.unserved(T1);
        outage.stuck(T1);
        outage.repair(|| Repair::followed(T1));
        assert!(!outage.is_over());
        assert_eq!(outage.end(), Some(Repair::followed(T1)));
        assert!(outage.is_over());
        assert_eq!(outage.end(), None);
    }

    #[test]
    fn who_waits_for_others_begins_to_wait_anew() {
        let mut outage = Outage::default();
        outage.stuck(T1);
        assert_eq!(outage.stuck_since(T2), T1);
        outage.unstuck();
        assert_eq!(outage.stuck_since(T2), T2);
    }

    #[test]
    fn who_says_that_there_is_no_way_on_has_waited_long_enough() {
        let mut outage = Outage::default();
        outage.unserved(T2);
        outage.no_path();
        outage.unserved(T2);
        assert_eq!(outage.unserved_since(), Some(Time::ZERO));
    }
}
