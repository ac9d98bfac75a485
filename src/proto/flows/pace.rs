//! How fast flows that have to go elsewhere together may attach over one link.
//!
//! Each attach costs its acceptor some cryptography, and it has to dial in turn: hundreds at once would keep a backup from
//! its heartbeats until it looks dead itself. So a link takes [`BURST`] at once, one more for each that is answered, and as
//! many again after each [`PERIOD`], so that a long way does not make a failover slow. The others queue: small flows
//! before bulky ones.

use super::key::FlowKey;
use crate::machine::LinkId;
use crate::time::Time;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Attaches that a link takes at once.
const BURST: u32 = 32;
/// How long until it takes as many again, answered or not.
const PERIOD: Duration = Duration::from_millis(5);

/// The links over which flows attach. See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Paces {
    links: BTreeMap<LinkId, Pace>,
    /// How many flows wait: mostly none, and after every event it is asked whose turn it is.
    waiting: usize,
}

#[derive(Debug)]
struct Pace {
    free: u32,
    since: Time,
    /// Who waits: bulky or not, and which flow.
    queue: BTreeSet<(bool, FlowKey)>,
}

impl Pace {
    fn refill(&mut self, now: Time) {
        if now.since(self.since) >= PERIOD {
            (self.free, self.since) = (BURST, now);
        }
    }
}

impl Paces {
    /// Whether `flow` may attach over `link` now; if not, it waits there.
    pub(super) fn admits(&mut self, link: LinkId, flow: FlowKey, is_bulky: bool, now: Time) -> bool {
        let new = || Pace { free: BURST, since: now, queue: BTreeSet::new() };
        let pace = self.links.entry(link).or_insert_with(new);
        pace.refill(now);
        if pace.free == 0 {
            // A flow that asks again is not counted twice.
            self.waiting += usize::from(pace.queue.insert((is_bulky, flow)));
            return false;
        }
        pace.free -= 1;
        true
    }

    /// An attach over `link` was answered, one way or the other.
    pub(super) fn answered(&mut self, link: LinkId) {
        if let Some(pace) = self.links.get_mut(&link) {
            pace.free = (pace.free + 1).min(BURST);
        }
    }

    /// A flow that may attach now; it waits no more.
    pub(super) fn next(&mut self, now: Time) -> Option<FlowKey> {
        if self.waiting == 0 {
            return None;
        }
        let next = self.links.values_mut().find_map(|pace| {
            pace.refill(now);
            if pace.free > 0 { pace.queue.pop_first().map(|(_, flow)| flow) } else { None }
        });
        self.waiting -= usize::from(next.is_some());
        next
    }

    /// When one may that may not yet.
    pub(super) fn poll_timeout(&self) -> Option<Time> {
        if self.waiting == 0 {
            return None;
        }
        let waited = self.links.values().filter(|pace| !pace.queue.is_empty());
        waited.map(|pace| pace.since + PERIOD).min()
    }

    /// The link is no more: the flows that wait for it.
    pub(super) fn remove(&mut self, link: LinkId) -> impl Iterator<Item = FlowKey> + use<> {
        let queue = self.links.remove(&link).map(|pace| pace.queue).unwrap_or_default();
        self.waiting -= queue.len();
        queue.into_iter().map(|(_, flow)| flow)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{FlowId, Pseudonym};

    const LINK: LinkId = LinkId(1);

    fn flow(n: u8) -> FlowKey {
        FlowKey { origin: Pseudonym::from_bytes([0; 16]), flow: FlowId::from_bytes([n; 16]), hop: 1 }
    }

    fn at(ms: u64) -> Time {
        Time::ZERO + Duration::from_millis(ms)
    }

    /// Lets flows 0 to 99 attach, the odd ones bulky; how many may at once.
    fn crowd(paces: &mut Paces, now: Time) -> usize {
        (0..100).filter(|n| paces.admits(LINK, flow(*n), n % 2 == 1, now)).count()
    }

    /// Who may attach now, in this order.
    fn admitted(paces: &mut Paces, now: Time) -> Vec<FlowKey> {
        let mut flows = Vec::new();
        while let Some(flow) = paces.next(now) {
            assert!(paces.admits(LINK, flow, false, now), "whose turn it is may");
            flows.push(flow);
        }
        flows
    }

    #[test]
    fn a_burst_at_once_and_one_for_each_answer() {
        let mut paces = Paces::default();
        assert_eq!(crowd(&mut paces, at(0)), 32);
        assert_eq!(admitted(&mut paces, at(1)), []);
        paces.answered(LINK);
        paces.answered(LINK);
        assert_eq!(admitted(&mut paces, at(1)), [flow(32), flow(34)], "small ones first");
    }

    #[test]
    fn as_many_again_after_each_period_though_nobody_answers() {
        let mut paces = Paces::default();
        crowd(&mut paces, at(0));
        let mut all = Vec::new();
        let mut periods = 0;
        while let Some(due) = paces.poll_timeout() {
            assert_eq!(due, at(5 * (periods + 1)));
            all.extend(admitted(&mut paces, due));
            periods += 1;
        }
        assert_eq!((periods, all.len()), (3, 68));
        let small = (16..50).map(|n| flow(2 * n)).collect::<Vec<_>>();
        assert_eq!(all[..34], small);
    }

    #[test]
    fn who_waits_for_a_link_that_is_lost_is_told() {
        let mut paces = Paces::default();
        crowd(&mut paces, at(0));
        assert_eq!(paces.remove(LINK).count(), 68);
        assert_eq!((paces.next(at(9)), paces.poll_timeout()), (None, None));
    }
}
