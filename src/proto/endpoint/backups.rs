//! Which hops of an origin's flows need another candidate, and when to ask for one again.
//!
//! A relay's request may die with the relay, and the bootstrap may have nobody yet (a target that lost an attachment relay
//! needs a moment to find another). So the origin itself goes on asking until it is told of one: soon at first, each second for
//! a while, as the next fault may come, and then seldom, as a small pool may never have anybody.

mod pace;

use crate::backoff::Pauses;
use crate::flows::FlowKey;
use crate::id::NodeId;
use crate::time::Time;
use crate::timers::Timers;
use pace::{Acquainted, Pace};
use std::collections::BTreeMap;
use std::time::Duration;

/// The longest pause between two questions for the same hop,
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// until so many were in vain,
const MANY_ATTEMPTS: u32 = 30;
/// and then.
const RARE_PAUSE: Duration = Duration::from_secs(10);
/// Before that, for a hop that somebody serves,
const PAUSES: Pauses = Pauses::doubling(Duration::from_millis(50), LONGEST_PAUSE);
/// and for one that nobody does.
const URGENT_PAUSES: Pauses = Pauses::doubling(Duration::from_millis(10), LONGEST_PAUSE);
/// After so many it is up to the relay to ask again, if nobody serves the hop (then another route is looked for too) or
/// the bootstrap does not accept the question.
const FEW_ATTEMPTS: u32 = 7;

/// Where another candidate was found and is no good either, the pauses grow in the same way. It counts as a new need if what was
/// found has served for so long.
const RESPITE: Duration = Duration::from_secs(2);

/// When many hops need another candidate at once, flows that stand still go first: hops that are served and are not among the
/// first few wait for so long.
const LULL: Duration = Duration::from_millis(500);

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Backups {
    pace: Pace,
    acquainted: Acquainted,
    /// Those that wait for their turn, in this order.
    queue: BTreeMap<u64, (FlowKey, u8)>,
    next_ticket: u64,
    wanted: BTreeMap<(FlowKey, u8), Wanted>,
    due: Timers<(FlowKey, u8)>,
    found: BTreeMap<(FlowKey, u8), Found>,
}

/// Another candidate was found for a hop.
#[derive(Clone, Copy, Debug)]
struct Found {
    /// Who served the hop then.
    active: Option<NodeId>,
    /// When it was found last.
    at: Time,
    /// How many were, one soon after the other.
    count: u32,
}

#[derive(Debug)]
struct Wanted {
    /// Who serves the hop now.
    active: Option<NodeId>,
    attempts: u32,
    asking: bool,
    /// Whether the question was taken from the pace.
    paced: bool,
    /// Until when the bootstrap has no time.
    not_before: Time,
    /// Its place in the queue, if it waits for its turn.
    ticket: Option<u64>,
}

impl Backups {
    /// A hop needs another candidate. Returns whether that is news to ask about now: if not, it is asked about when its turn
    /// comes.
    pub(super) fn want(&mut self, flow: FlowKey, hop: u8, active: Option<NodeId>, now: Time) -> bool {
        let key = (flow, hop);
        let wanted = self.wanted.entry(key).or_insert_with(|| Wanted::new(active));
        let is_new = wanted.attempts == 0 || wanted.active != active;
        if wanted.active != active {
            (wanted.active, wanted.attempts) = (active, 0);
        }
        let is_urgent = active.is_none();
        if let Some(again) = self.found.get(&key).and_then(|found| found.again(active)) {
            wanted.not_before = wanted.not_before.max(again);
            if wanted.not_before > now && !wanted.asking {
                self.due.set(key, Some(wanted.not_before));
            }
        }
        // A hop that waits for its turn keeps it, unless nobody serves it any more.
        if now < wanted.not_before || wanted.asking || !is_new || (wanted.ticket.is_some() && !is_urgent) {
            return false;
        }
        let is_turn = is_urgent || (self.queue.is_empty() && self.pace.turn() <= now);
        self.due.set(key, None);
        if let Some(ticket) = wanted.ticket.take() {
            self.queue.remove(&ticket);
        }
        if is_turn {
            // What is urgent takes nothing from the pace, and will give nothing back to it.
            (wanted.asking, wanted.paced) = (true, !is_urgent);
            if !is_urgent {
                self.pace.asked(now);
            }
        } else {
            wanted.ticket = Some(self.next_ticket);
            if self.queue.is_empty() {
                self.pace.not_before(now + LULL);
            }
            self.queue.insert(self.next_ticket, key);
            self.next_ticket += 1;
        }
        is_turn
    }

    /// A hop has another candidate, so that these are neighbours, each of the next.
    pub(super) fn found(&mut self, flow: FlowKey, hop: u8, neighbours: &[NodeId], now: Time) {
        let pairs = neighbours.iter().zip(neighbours.iter().skip(1));
        let new = pairs.filter(|(one, other)| self.acquainted.meet(**one, **other, now)).count();
        let key = (flow, hop);
        let Some(wanted) = self.wanted.get(&key) else { return };
        if wanted.paced {
            self.pace.answered(new > 0);
        }
        let fresh = Found { active: wanted.active, at: now, count: 0 };
        // Where what was found is no good either, it was asked for a thousand times a second.
        let before = self.found.get(&key).filter(|before| before.is_recent(wanted.active, now));
        self.found.insert(key, before.map_or(fresh, |before| Found { count: before.count + 1, ..fresh }));
        self.remove(flow, hop);
    }

    /// No more is to be asked for a hop.
    fn remove(&mut self, flow: FlowKey, hop: u8) {
        let wanted = self.wanted.remove(&(flow, hop));
        if let Some(ticket) = wanted.and_then(|wanted| wanted.ticket) {
            self.queue.remove(&ticket);
        }
        self.due.set((flow, hop), None);
    }

    /// Whether the bootstrap knew nobody for a hop when it was asked last.
    pub(super) fn is_short(&self, flow: FlowKey, hop: u8) -> bool {
        self.wanted.get(&(flow, hop)).is_some_and(|wanted| wanted.attempts > 0)
    }

    /// Whether it is still looked for somebody for a hop that nobody serves.
    pub(super) fn is_unserved(&self, flow: FlowKey, hop: u8) -> bool {
        self.wanted.get(&(flow, hop)).is_some_and(|wanted| wanted.active.is_none())
    }

    /// The hops of a flow for which somebody is still looked for, as nobody serves them.
    pub(super) fn unserved(&self, flow: FlowKey) -> impl Iterator<Item = u8> {
        let wanted = self.wanted.range((flow, 0)..=(flow, u8::MAX));
        wanted.filter(|(_, wanted)| wanted.active.is_none()).map(|((_, hop), _)| *hop)
    }

    /// There is none yet, and perhaps never. Returns whether nobody serves the hop: then another route may help.
    pub(super) fn refused(&mut self, flow: FlowKey, hop: u8, hopeful: bool, now: Time) -> bool {
        let Some(wanted) = self.wanted.get_mut(&(flow, hop)) else { return false };
        let is_urgent = wanted.active.is_none();
        let pause = match wanted.attempts {
            MANY_ATTEMPTS.. => RARE_PAUSE,
            attempts => pauses(wanted.active).after(attempts),
        };
        wanted.asking = false;
        if std::mem::take(&mut wanted.paced) {
            self.pace.answered(false);
        }
        wanted.attempts = wanted.attempts.saturating_add(1);
        if wanted.attempts >= FEW_ATTEMPTS && (is_urgent || !hopeful) {
            self.remove(flow, hop);
        } else {
            self.due.set((flow, hop), Some(now + pause));
        }
        is_urgent
    }

    /// The bootstrap had no time for the question, which is asked again then.
    pub(super) fn postpone(&mut self, flow: FlowKey, hop: u8, again: Time) {
        if let Some(wanted) = self.wanted.get_mut(&(flow, hop)) {
            (wanted.asking, wanted.not_before) = (false, again);
            self.due.set((flow, hop), Some(again));
            // The bootstrap has no time for the other hops either.
            self.pace.not_before(again);
        }
    }

    /// What to ask for again now.
    pub(super) fn take_due(&mut self, now: Time) -> Vec<(FlowKey, u8, Option<NodeId>)> {
        let mut due = Vec::new();
        while let Some(key) = self.due.pop_due(now) {
            due.extend(self.ask(key, false));
        }
        while self.pace.turn() <= now {
            let Some((_, key)) = self.queue.pop_first() else { break };
            self.pace.asked(now);
            due.extend(self.ask(key, true));
        }
        due
    }

    fn ask(&mut self, key: (FlowKey, u8), paced: bool) -> Option<(FlowKey, u8, Option<NodeId>)> {
        let wanted = self.wanted.get_mut(&key)?;
        (wanted.asking, wanted.paced, wanted.ticket) = (true, paced, None);
        Some((key.0, key.1, wanted.active))
    }

    /// When to look again.
    pub(super) fn poll_timeout(&self) -> Option<Time> {
        let turn = (!self.queue.is_empty()).then(|| self.pace.turn());
        [self.due.next(), turn].into_iter().flatten().min()
    }

    /// A flow is over, or goes over another chain.
    pub(super) fn forget(&mut self, flow: FlowKey) {
        let of_flow = (flow, 0)..=(flow, u8::MAX);
        let wanted = self.wanted.range(of_flow.clone()).map(|(key, _)| *key);
        let found = self.found.range(of_flow).map(|(key, _)| *key);
        for (flow, hop) in wanted.chain(found).collect::<Vec<_>>() {
            self.remove(flow, hop);
            self.found.remove(&(flow, hop));
        }
    }
}

impl Found {
    fn is_recent(&self, active: Option<NodeId>, now: Time) -> bool {
        self.active == active && now.since(self.at) < RESPITE
    }

    /// When it may be asked again, if the same relay serves the hop.
    fn again(&self, active: Option<NodeId>) -> Option<Time> {
        let times = self.count.checked_sub(1).filter(|_| self.active == active)?;
        Some(self.at + pauses(active).after(times))
    }
}

/// Between two questions for a hop that this relay serves, or nobody.
const fn pauses(active: Option<NodeId>) -> Pauses {
    if active.is_none() { URGENT_PAUSES } else { PAUSES }
}

impl Wanted {
    const fn new(active: Option<NodeId>) -> Self {
        let (attempts, asking, paced, not_before) = (0, false, false, Time::ZERO);
        Self { active, attempts, asking, paced, not_before, ticket: None }
    }
}

#[cfg(test)]
mod tests {
    use super::pace::AT_ONCE;
    use super::*;
    use crate::id::{FlowId, Pseudonym};

    const SERVES: NodeId = NodeId::from_bytes([1; 32]);

    fn flow() -> FlowKey {
        FlowKey { origin: Pseudonym::from_bytes([1; 16]), flow: FlowId::from_bytes([2; 16]), hop: 0 }
    }

    /// The pauses after which it is asked again, if it is always refused.
    fn pauses(active: Option<NodeId>, hopeful: bool, count: usize) -> Vec<Duration> {
        let (mut backups, mut now) = (Backups::default(), Time::ZERO);
        assert!(backups.want(flow(), 1, active, Time::ZERO) && !backups.is_short(flow(), 1));
        let mut pauses = Vec::new();
        for _ in 0..count {
            assert_eq!(backups.refused(flow(), 1, hopeful, now), active.is_none());
            let Some(due) = backups.poll_timeout() else { break };
            pauses.push(due.since(now));
            now = due;
            assert!(backups.is_short(flow(), 1));
            assert_eq!(backups.take_due(now), [(flow(), 1, active)]);
        }
        pauses
    }

    #[test]
    fn who_has_no_backup_goes_on_asking_each_second_and_then_seldom() {
        let pauses = pauses(Some(SERVES), true, 40);
        assert_eq!(pauses.len(), 40);
        assert_eq!(pauses[..3], [50, 100, 200].map(Duration::from_millis));
        assert!(pauses[5..30].iter().all(|pause| *pause == LONGEST_PAUSE), "{pauses:?}");
        assert!(pauses[30..].iter().all(|pause| *pause == RARE_PAUSE), "{pauses:?}");
    }

    #[test]
    fn what_is_not_to_be_had_is_asked_for_a_few_times() {
        for (active, hopeful) in [(None, true), (Some(SERVES), false)] {
            assert_eq!(pauses(active, hopeful, 40).len(), FEW_ATTEMPTS as usize - 1);
        }
    }

    #[test]
    fn of_many_hops_that_are_served_each_is_asked_for_in_its_turn_but_those_that_are_not_at_once() {
        let (mut backups, now) = (Backups::default(), Time::ZERO + Duration::from_secs(1));
        let hops = 1..=u8::try_from(AT_ONCE).unwrap() + 3;
        let asked: Vec<bool> = hops.clone().map(|hop| backups.want(flow(), hop, Some(SERVES), now)).collect();
        assert_eq!(asked.iter().filter(|now| **now).count(), AT_ONCE as usize);
        assert!(!asked.last().unwrap());
        assert!(!backups.want(flow(), *hops.end(), Some(SERVES), now), "it keeps its turn");
        assert_eq!(backups.poll_timeout(), Some(now + LULL));
        assert_eq!(backups.take_due(now + LULL).len(), 3);
        assert!(backups.want(flow(), 100, None, now), "nobody serves it");
    }

    /// How long it takes until so many hops have another candidate, if a question takes 2 ms and neighbours have to meet after
    /// each, or never.
    fn time_for(hops: u8, is_new: bool) -> Duration {
        let (mut backups, begin) = (Backups::default(), Time::ZERO + Duration::from_secs(1));
        let mut under_way: Vec<(Time, u8)> = Vec::new();
        let answer_at = |now: Time| now + Duration::from_millis(2);
        for hop in 0..hops {
            if backups.want(flow(), hop, Some(SERVES), begin) {
                under_way.push((answer_at(begin), hop));
            }
        }
        let (mut now, mut answered) = (begin, 0);
        while answered < hops {
            let next = under_way.iter().map(|(at, _)| *at).chain(backups.poll_timeout()).min();
            now = next.expect("no hop is forgotten");
            for (_, hop) in under_way.extract_if(.., |(at, _)| *at <= now) {
                let stands_by = NodeId::from_bytes([if is_new { hop } else { 0 }; 32]);
                backups.found(flow(), hop, &[SERVES, stands_by], now);
                answered += 1;
            }
            under_way.extend(backups.take_due(now).into_iter().map(|(_, hop, _)| (answer_at(now), hop)));
        }
        now.since(begin)
    }

    #[test]
    fn many_hops_wait_for_neighbours_that_have_to_meet_and_not_for_each_other() {
        let known = time_for(255, false);
        assert!(known < LULL + Duration::from_millis(40), "{known:?}");
        let new = time_for(255, true);
        assert!(new > LULL + Duration::from_secs(3), "{new:?}");
    }

    #[test]
    fn whoever_is_found_and_is_no_good_again_and_again_is_asked_for_less_and_less_often() {
        let (mut backups, end) = (Backups::default(), Duration::from_secs(10));
        let (mut now, mut asked) = (Time::ZERO, 0);
        while now < Time::ZERO + end {
            if !backups.want(flow(), 1, Some(SERVES), now) {
                now = backups.poll_timeout().expect("it is not forgotten");
                assert_eq!(backups.take_due(now), [(flow(), 1, Some(SERVES))]);
            }
            asked += 1;
            backups.found(flow(), 1, &[], now);
        }
        assert!((10..20).contains(&asked), "asked {asked} times in {end:?}");
        let other = Some(NodeId::from_bytes([2; 32]));
        assert!(backups.want(flow(), 1, other, now), "another serves: that is news");
        backups.found(flow(), 1, &[], now);
        assert!(backups.want(flow(), 1, other, now + RESPITE), "what was found served for a while");
    }

    #[test]
    fn a_question_that_was_postponed_is_asked_then_and_counts_as_new() {
        let mut backups = Backups::default();
        let again = Time::ZERO + Duration::from_millis(15);
        assert!(backups.want(flow(), 1, None, Time::ZERO));
        backups.postpone(flow(), 1, again);
        assert!(!backups.want(flow(), 1, None, Time::ZERO), "the bootstrap has no time");
        assert!(!backups.want(flow(), 1, Some(SERVES), Time::ZERO), "whoever serves");
        assert_eq!((backups.poll_timeout(), backups.take_due(Time::ZERO)), (Some(again), vec![]));
        assert_eq!(backups.take_due(again), [(flow(), 1, Some(SERVES))]);
        assert!(!backups.is_short(flow(), 1), "nothing has failed");
        backups.postpone(flow(), 2, again);
        assert_eq!(backups.poll_timeout(), None, "nobody wants that any more");
    }

    #[test]
    fn who_serves_now_needs_a_backup_at_once() {
        let mut backups = Backups::default();
        assert!(backups.want(flow(), 1, None, Time::ZERO) && !backups.want(flow(), 1, None, Time::ZERO));
        backups.refused(flow(), 1, true, Time::ZERO);
        assert!(!backups.want(flow(), 1, None, Time::ZERO), "that is under way");
        assert!(backups.want(flow(), 1, Some(SERVES), Time::ZERO) && !backups.is_short(flow(), 1));
    }
}
