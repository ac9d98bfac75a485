//! Whether an origin needs another route for its flow, and how often it asks for one.
//!
//! Invariant: one question at a time. After a question without a route the pause before the next is longer, up to a bound;
//! so it is after each route that was taken and led nowhere.

use crate::backoff::Pauses;
use crate::time::Time;
use std::time::Duration;

/// Before another route is asked for again.
const PAUSES: Pauses = Pauses::doubling(Duration::from_millis(25), Duration::from_millis(1600));

/// Routes that may lead an origin's flow nowhere before others are asked for ever more slowly.
const FREE_ROUTES: u32 = 2;
const FRUITLESS_PAUSES: Pauses = Pauses::doubling(Duration::from_millis(25), Duration::from_millis(800));
/// Routes that were taken further apart than this have nothing to do with each other.
const FRUITLESS_MEMORY: Duration = Duration::from_secs(5);

/// The routes that were taken without any progress on them.
#[derive(Clone, Copy, Debug)]
struct Fruitless {
    last: Time,
    count: u32,
    /// Bytes that had been acked and received.
    progress: u64,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(in crate::flows) struct RouteSearch {
    /// Whether the owner was asked and has not answered yet.
    is_asked: bool,
    /// When another may be asked for again, and after how many answers without one.
    due: Option<Time>,
    refusals: u32,
    fruitless: Option<Fruitless>,
}

impl RouteSearch {
    /// Another route is needed, by a flow that has come that far. Whether to ask for one now.
    pub(in crate::flows) fn want(&mut self, progress: u64, now: Time) -> bool {
        if let Some(at) = self.fruitless_until(progress).filter(|at| *at > now) {
            self.due = self.due.max(Some(at));
            return false;
        }
        let asks = !self.is_asked && self.due.is_none_or(|due| due <= now);
        if asks {
            (self.is_asked, self.due) = (true, None);
        }
        asks
    }

    /// When another may be asked for: the later, the more have led nowhere.
    fn fruitless_until(&self, progress: u64) -> Option<Time> {
        let past = self.fruitless.filter(|past| past.progress == progress)?;
        Some(past.last + FRUITLESS_PAUSES.after(past.count.checked_sub(FREE_ROUTES + 1)?))
    }

    /// When to look again whether another is needed.
    pub(in crate::flows) const fn due(&self) -> Option<Time> {
        self.due
    }

    /// That time has come.
    pub(in crate::flows) const fn look(&mut self) {
        self.due = None;
    }

    /// There is no other.
    pub(in crate::flows) fn not_found(&mut self, now: Time) {
        (self.is_asked, self.due) = (false, Some(now + PAUSES.after(self.refusals)));
        self.refusals = self.refusals.saturating_add(1);
    }

    /// The flow takes another, having come that far.
    pub(in crate::flows) fn taken(&mut self, progress: u64, now: Time) {
        (self.is_asked, self.refusals) = (false, 0);
        let is_same = |past: &Fruitless| past.progress == progress && now.since(past.last) < FRUITLESS_MEMORY;
        let before = self.fruitless.filter(is_same).map_or(0, |before| before.count);
        self.fruitless = Some(Fruitless { last: now, count: before + 1, progress });
    }

    /// The next hop answered.
    pub(in crate::flows) const fn answered(&mut self) {
        // Fruitless routes still count: the first hop answers, and proves nothing of those behind it.
        (self.due, self.refusals) = (None, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const START: Time = Time::from_micros(1_000_000_000);

    #[test]
    fn one_question_at_a_time() {
        let mut search = RouteSearch::default();
        assert!(search.want(0, START));
        assert!(!search.want(0, START));
        search.taken(0, START);
        assert!(search.want(0, START));
    }

    #[test]
    fn where_there_is_none_questions_get_rarer_until_the_next_hop_answers() {
        let (mut search, mut now, mut pauses) = (RouteSearch::default(), START, Vec::new());
        for _ in 0..9 {
            assert!(search.want(0, now));
            search.not_found(now);
            assert!(!search.want(0, now));
            let due = search.due().expect("it is looked again");
            pauses.push(due.since(now).as_millis() / 25);
            now = due;
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 64, 64]);
        search.not_found(now);
        search.answered();
        assert_eq!(search.due(), None);
        assert!(search.want(0, now));
        search.not_found(now);
        assert_eq!(search.due(), Some(now + MS * 25));
    }

    #[test]
    fn routes_that_lead_nowhere_are_taken_ever_more_slowly_until_one_leads_further() {
        let mut search = RouteSearch::default();
        let mut now = START;
        for pause in [0, 0, 25, 50, 100, 200, 400, 800, 800] {
            search.taken(7, now);
            if pause > 0 {
                assert!(!search.want(7, now + MS * (pause - 1)));
                assert_eq!(search.due(), Some(now + MS * pause));
                search.look();
            }
            now = now + MS * pause;
            assert!(search.want(7, now), "after {pause} ms");
        }
        search.taken(7, now);
        assert!(search.want(8, now), "bytes have come over the last one");
    }

    #[test]
    fn routes_far_apart_have_nothing_to_do_with_each_other() {
        let mut search = RouteSearch::default();
        for n in 0..5 {
            let now = START + FRUITLESS_MEMORY * n;
            search.taken(0, now);
            assert!(search.want(0, now));
        }
    }
}
