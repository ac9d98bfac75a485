//! Who may be believed when it reports relays down.
//!
//! A report that its relay refutes (it sends a heartbeat) was wrong: somebody could not reach it, which others may. Whoever is
//! refuted over [`MAX_WRONG`] relays within [`MEMORY`] is not believed for as long as that; nor is, at any time, whoever reports
//! a larger part of the pool than self-preservation would let go: it is the one that is cut off. A report that its reporter
//! takes back itself counts for nothing.
//!
//! Bounds: [`MAX_REPORTERS`] are remembered; a further one takes the place of the one whose last report is the oldest.

use super::reach::{Reach, Voices};
use super::relay::{Relay, Report};
use super::{Config, Ignored, Pool, PoolEvent};
use crate::id::NodeId;
use crate::rpc::Status;
use crate::time::Time;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

/// Over how many relays a reporter may be wrong.
const MAX_WRONG: usize = 4;
/// How long that is held against it.
const MEMORY: Duration = Duration::from_secs(300);
/// How many reporters are remembered.
const MAX_REPORTERS: usize = 4096;
/// However small the pool is, so many relays may be reported by one node.
const LEAST_OPEN: usize = 32;
/// However large it is, no more than these.
const MOST_OPEN: usize = 256;

/// The reporters. See the module's documentation.
#[derive(Debug)]
pub(super) struct Reporters {
    percent: usize,
    known: HashMap<NodeId, Reporter>,
}

#[derive(Debug, Default)]
struct Reporter {
    /// Whom it reported and when, as far as that is neither decided nor taken back, nor long ago.
    open: BTreeMap<NodeId, Time>,
    /// Over whom it was wrong.
    wrong: BTreeSet<NodeId>,
    /// When it was last.
    wrong_at: Time,
    /// When it reported last.
    reported_at: Time,
}

impl Pool {
    /// Takes note that `reporter` found `node` dead. Reports on nodes that are gone or unknown change nothing. Returns whether
    /// it is believed.
    pub fn report_down(&mut self, node: &NodeId, reporter: NodeId, now: Time) -> bool {
        if reporter == *node || self.get(node).is_none_or(Relay::is_gone) {
            return false;
        }
        if !self.reporters.may_report(reporter, *node, self.population(), now) {
            self.events.push(PoolEvent::Ignored(Ignored::Report));
            return false;
        }
        let Some(relay) = self.get(node) else { return false };
        let (assignable, window) = (relay.is_assignable(), self.config.report_window);
        if relay.is_confirmed_by(reporter, now, window) {
            self.reporters.settled(reporter, node);
            self.update(node, now, |relay| relay.confirm(Report { reporter, at: now }));
            self.set_status(node, Status::Offline, now);
            return true;
        }
        self.update(node, now, |relay| relay.set_report(Some(Report { reporter, at: now })));
        if assignable {
            self.set_status(node, Status::Suspect, now);
        }
        true
    }

    /// Takes note that `reporter` hears `node` again: if nobody else reported it, it is as good as before.
    pub fn report_up(&mut self, node: &NodeId, reporter: NodeId, now: Time) {
        let was_wrong = |relay: &&Relay| relay.report().is_some_and(|report| report.reporter == reporter);
        let Some(status) = self.get(node).filter(was_wrong).map(|relay| relay.status) else { return };
        self.reporters.settled(reporter, node);
        self.update(node, now, |relay| relay.set_report(None));
        if status == Status::Suspect {
            self.set_status(node, Status::Online, now);
        }
    }

    /// Takes note that `reporter` could not dial `node`, beside what [`Pool::report_down`] makes of it.
    pub fn report_unreached(&mut self, node: &NodeId, reporter: NodeId, now: Time) {
        if self.report_down(node, reporter, now) {
            let domain = self.get(&reporter).filter(|known| !known.is_gone()).map(Relay::subnet);
            let doubted = self.by_id(node).is_some_and(|relay| {
                let (reach, voices) = relay.reach_mut();
                reach.failed(voices, domain, now)
            });
            if doubted {
                self.events.push(PoolEvent::Unreached(*node));
            }
        }
    }

    /// Takes note that `reporter`, which could not dial `node` before, has a link to it now.
    pub fn report_reached(&mut self, node: &NodeId, reporter: NodeId, now: Time) {
        self.report_up(node, reporter, now);
        self.reached(node);
    }

    /// Takes note that somebody who is not the relay itself has dialled it.
    pub fn reached(&mut self, node: &NodeId) {
        if let Some(relay) = self.by_id(node) {
            let (reach, voices) = relay.reach_mut();
            (*reach, *voices) = (Reach::Proven, Voices::default());
        }
    }

    /// Whether somebody who is believed reported this relay down lately, and when its lease ends then.
    #[must_use]
    pub fn reported(&self, node: &NodeId, now: Time) -> Option<Time> {
        let relay = self.get(node).filter(|relay| !relay.is_gone())?;
        relay.is_reported(now, self.config.report_window).then_some(relay.lease_ends)
    }

    /// A relay that was reported down by these says something.
    pub(super) fn disproved(&mut self, reports: [Option<Report>; 2], node: NodeId, now: Time) {
        for report in reports.into_iter().flatten() {
            if self.reporters.refuted(report.reporter, node, now) {
                self.events.push(PoolEvent::Distrusted(report.reporter));
            }
        }
    }
}

impl Reporters {
    pub(super) fn new(config: &Config) -> Self {
        let percent = usize::try_from(config.preserve_percent).unwrap_or(usize::MAX);
        Self { percent, known: HashMap::new() }
    }

    /// Whether a report by `reporter` on `node` counts, in a pool of so many relays.
    pub(super) fn may_report(
        &mut self,
        reporter: NodeId,
        node: NodeId,
        population: usize,
        now: Time,
    ) -> bool {
        self.make_room(&reporter);
        let most = (population.saturating_mul(self.percent) / 100).clamp(LEAST_OPEN, MOST_OPEN);
        let known = self.known.entry(reporter).or_default();
        known.forget(now);
        known.reported_at = now;
        if known.wrong.len() > MAX_WRONG {
            return false;
        }
        // To report the same relay again is to report no larger part of the pool.
        let may = known.open.contains_key(&node) || known.open.len() < most;
        if may {
            known.open.insert(node, now);
        }
        may
    }

    /// The reporter was right, or takes its report back itself.
    pub(super) fn settled(&mut self, reporter: NodeId, node: &NodeId) {
        if let Some(known) = self.known.get_mut(&reporter) {
            known.open.remove(node);
        }
    }

    /// `node`, which `reporter` had reported down, lives. Whether the reporter is believed no more, from now on.
    pub(super) fn refuted(&mut self, reporter: NodeId, node: NodeId, now: Time) -> bool {
        let Some(known) = self.known.get_mut(&reporter) else { return false };
        known.forget(now);
        known.open.remove(&node);
        known.wrong_at = now;
        // True once, at the first one that is too many.
        known.wrong.insert(node) && known.wrong.len() == MAX_WRONG + 1
    }

    fn make_room(&mut self, reporter: &NodeId) {
        if self.known.len() < MAX_REPORTERS || self.known.contains_key(reporter) {
            return;
        }
        let oldest = self.known.iter().min_by_key(|(_, known)| known.reported_at).map(|(node, _)| *node);
        self.known.remove(&oldest.unwrap_or(*reporter));
    }
}

impl Reporter {
    fn forget(&mut self, now: Time) {
        if now.since(self.wrong_at) >= MEMORY {
            self.wrong.clear();
        }
        self.open.retain(|_, at| now.since(*at) < MEMORY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const LIAR: NodeId = NodeId::from_bytes([99; 32]);

    fn at(s: u32) -> Time {
        Time::ZERO + SECOND * s
    }

    fn node(n: u8) -> NodeId {
        NodeId::from_bytes([n; 32])
    }

    #[test]
    fn who_is_wrong_too_often_is_not_believed_for_a_while() {
        let mut reporters = Reporters::new(&Config::default());
        for n in 0..4 {
            assert!(reporters.may_report(LIAR, node(n), 100, at(0)));
            assert!(!reporters.refuted(LIAR, node(n), at(1)));
            assert!(!reporters.refuted(LIAR, node(n), at(2)), "the same relay counts once");
        }
        assert!(reporters.may_report(LIAR, node(4), 100, at(3)));
        assert!(reporters.refuted(LIAR, node(4), at(3)));
        assert!(!reporters.may_report(LIAR, node(5), 100, at(4)));
        assert!(!reporters.may_report(LIAR, node(5), 100, at(302)));
        assert!(reporters.may_report(LIAR, node(5), 100, at(303)), "it may have been the network");
        assert!(reporters.may_report(node(1), node(5), 100, at(4)), "others are believed");
    }

    #[test]
    fn who_calls_everyone_dead_is_cut_off_itself() {
        let mut reporters = Reporters::new(&Config::default());
        let believed = |reporters: &mut Reporters, population: usize| {
            (0..100).filter(|n| reporters.may_report(LIAR, node(*n), population, at(0))).count()
        };
        assert_eq!(believed(&mut reporters, 10), 32);
        assert_eq!(believed(&mut reporters, 400), 60);
        reporters.settled(LIAR, &node(0));
        assert!(
            reporters.may_report(LIAR, node(98), 400, at(1)),
            "what was right or is taken back does not count"
        );
        assert!(!reporters.may_report(LIAR, node(99), 400, at(1)));
    }

    #[test]
    fn so_many_reporters_are_remembered() {
        let mut reporters = Reporters::new(&Config::default());
        let many = |n: u32| {
            let mut bytes = [0; 32];
            bytes[..4].copy_from_slice(&n.to_be_bytes());
            NodeId::from_bytes(bytes)
        };
        for n in 0..10_000 {
            assert!(reporters.may_report(many(n), LIAR, 100, at(n)));
        }
        assert_eq!(reporters.known.len(), MAX_REPORTERS);
        assert!(reporters.known.contains_key(&many(9_999)) && !reporters.known.contains_key(&many(0)));
    }
}
