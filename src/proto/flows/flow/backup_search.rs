//! Whether a flow's next hop needs other candidates, and how often they are asked for.
//!
//! Invariant: after each question the pause before the next is longer, up to a bound, until the candidates are others or
//! nobody needs any.

use crate::backoff::{Backoff, Pauses};
use crate::time::Time;
use std::time::Duration;

/// After each question.
const PAUSES: Pauses = Pauses::doubling(Duration::from_millis(100), Duration::from_millis(6400));

/// See the module's documentation.
#[derive(Debug)]
pub(in crate::flows) struct BackupSearch {
    asked: Backoff,
    is_unprotected: bool,
    is_stuck: bool,
}

impl Default for BackupSearch {
    fn default() -> Self {
        Self { asked: Backoff::new(PAUSES), is_unprotected: false, is_stuck: false }
    }
}

impl BackupSearch {
    /// Whether others may be asked for now.
    pub(in crate::flows) fn may_ask(&self, now: Time) -> bool {
        self.asked.is_due(now)
    }

    /// Others are asked for.
    pub(in crate::flows) fn ask(&mut self, now: Time) {
        self.asked.next(now);
    }

    /// When to look again whether others are needed.
    pub(in crate::flows) fn due(&self) -> Option<Time> {
        self.asked.due()
    }

    /// It was looked again. If nobody was asked, nobody is needed.
    pub(in crate::flows) fn looked(&mut self, now: Time) {
        if self.may_ask(now) {
            self.asked.reset();
        }
    }

    /// None of the candidates can be reached. The first question of that kind waits for no pause.
    pub(in crate::flows) fn is_stuck_now(&mut self) {
        if !std::mem::replace(&mut self.is_stuck, true) {
            self.asked.reset();
        }
    }

    /// Whether others were asked for because none of these can be reached.
    pub(in crate::flows) const fn is_stuck(&self) -> bool {
        self.is_stuck
    }

    /// One of the candidates answered.
    pub(in crate::flows) const fn answered(&mut self) {
        self.is_stuck = false;
    }

    /// Whether the candidate that stood by has taken over, or failed, and the origin knows of no other yet. One that recovers
    /// meanwhile stands by again, but only a new record tells the origin so.
    pub(in crate::flows) const fn is_unprotected(&self) -> bool {
        self.is_unprotected
    }

    pub(in crate::flows) const fn set_unprotected(&mut self, is_unprotected: bool) {
        self.is_unprotected = is_unprotected;
    }

    /// The hop has other candidates: they have all the time that the former ones had.
    pub(in crate::flows) fn new_candidates(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Time = Time::from_micros(1_000_000_000);

    /// Asks whenever it may, `times` times in a row; the pauses in between in tenths of a second.
    fn pauses(search: &mut BackupSearch, now: &mut Time, times: usize) -> Vec<u128> {
        let pause = |_| {
            assert!(search.may_ask(*now));
            search.ask(*now);
            assert!(!search.may_ask(*now));
            let due = search.due().expect("it was asked");
            let pause = due.since(*now);
            *now = due;
            pause.as_millis() / 100
        };
        (0..times).map(pause).collect()
    }

    #[test]
    fn questions_get_rarer_until_the_candidates_are_others() {
        let (mut search, mut now) = (BackupSearch::default(), START);
        assert_eq!(pauses(&mut search, &mut now, 9), [1, 2, 4, 8, 16, 32, 64, 64, 64]);
        search.new_candidates();
        assert_eq!(pauses(&mut search, &mut now, 2), [1, 2]);
    }

    #[test]
    fn who_needs_nobody_starts_anew_the_next_time() {
        let (mut search, mut now) = (BackupSearch::default(), START);
        pauses(&mut search, &mut now, 3);
        search.looked(START);
        assert!(search.due().is_some(), "it is still to be looked");
        search.looked(now);
        assert_eq!(search.due(), None);
        assert_eq!(pauses(&mut search, &mut now, 1), [1]);
    }

    #[test]
    fn to_be_stuck_ends_a_pause_once() {
        let mut search = BackupSearch::default();
        search.ask(START);
        search.is_stuck_now();
        assert!(search.may_ask(START) && search.is_stuck());
        search.ask(START);
        search.is_stuck_now();
        assert!(!search.may_ask(START));
        search.answered();
        assert!(!search.is_stuck() && !search.may_ask(START), "the pause stays");
    }

    #[test]
    fn new_candidates_protect() {
        let mut search = BackupSearch::default();
        search.set_unprotected(true);
        search.answered();
        assert!(search.is_unprotected(), "only a new record ends that");
        search.new_candidates();
        assert!(!search.is_unprotected());
    }
}
