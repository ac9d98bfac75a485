//! What a node knows of the hops after it: who serves each, which repairs it was told of, which relays failed, and which the flow avoids.
//! A relay knows of its own repairs, and of those after it; only the origin can tell who they name.
//!
//! Invariant: whoever failed serves no hop, until it is said to serve one again. All of it is bounded.

use super::avoided::AvoidedRelays;
use crate::failure_memory::{Failure, FailureMemory, Ground};
use crate::frame::Reroute;
use crate::id::NodeId;
use crate::time::Time;
use std::collections::BTreeMap;
use std::time::Duration;

/// Failed relays that an origin remembers for a flow, and for how long: by then the bootstrap has heard of it too.
const MAX_FAILED: usize = 32;
/// See [`MAX_FAILED`].
pub const FAILED_LIFETIME: Duration = Duration::from_secs(5);

/// See the module's documentation.
#[derive(Debug)]
pub(in crate::flows) struct ChainView {
    serving: BTreeMap<u8, NodeId>,
    reroutes: BTreeMap<u8, Reroute>,
    /// Who failed: no plan shall name them again soon.
    failed: FailureMemory,
    pub(in crate::flows) avoided: AvoidedRelays,
}

impl Default for ChainView {
    fn default() -> Self {
        Self {
            serving: BTreeMap::new(),
            reroutes: BTreeMap::new(),
            failed: FailureMemory::new(MAX_FAILED, FAILED_LIFETIME),
            avoided: AvoidedRelays::default(),
        }
    }
}

impl ChainView {
    /// Who was last said to serve `hop`.
    pub(in crate::flows) fn serves(&self, hop: u8) -> Option<NodeId> {
        self.serving.get(&hop).copied()
    }

    /// Whether `node` was last said to serve another hop than that.
    pub(in crate::flows) fn serves_another(&self, hop: u8, node: NodeId) -> bool {
        self.serving.iter().any(|(other, serves)| *other != hop && *serves == node)
    }

    pub(in crate::flows) fn now_serves(&mut self, hop: u8, node: NodeId) {
        self.serving.insert(hop, node);
    }

    /// Nobody serves `hop`.
    pub(in crate::flows) fn unserved(&mut self, hop: u8) {
        self.serving.remove(&hop);
    }

    /// A relay failed the flow.
    pub(in crate::flows) fn note_failed(&mut self, node: NodeId, ground: Ground, now: Time) {
        self.serving.retain(|_, serves| *serves != node);
        self.failed.note(node, ground, now);
    }

    /// The relays that no plan shall name, whoever failed last at the end, and then those where bytes stopped.
    pub(in crate::flows) fn avoided(&self, now: Time) -> impl Iterator<Item = Failure> {
        self.failed.iter(now).chain(self.avoided.failures(now)).copied()
    }

    /// Who has failed within the last `memory`.
    pub(in crate::flows) fn failed_lately(
        &self,
        memory: Duration,
        now: Time,
    ) -> impl Iterator<Item = NodeId> {
        let lately = self.failed.iter(now).filter(move |failure| now.since(failure.since) < memory);
        lately.map(|failure| failure.node)
    }

    /// A hop was repaired. Whether that is news.
    pub(in crate::flows) fn rerouted(&mut self, reroute: Reroute) -> bool {
        self.reroutes.insert(reroute.hop, reroute) != Some(reroute)
    }

    /// What was last said of each hop's repair, as long as the origin may not know of it: told again to a new prev, as the one
    /// before may have died with it. `version` is that of the newest record of a hop.
    pub(in crate::flows) fn untold(&mut self, version: impl Fn(u8) -> Option<u32>) -> Vec<Reroute> {
        self.reroutes.retain(|hop, reroute| version(*hop).is_some_and(|newest| newest <= reroute.version));
        self.reroutes.values().copied().collect()
    }

    /// The flow goes over another chain.
    pub(in crate::flows) fn new_chain(&mut self) {
        // Who failed stays known, as the plans for other chains shall not name it either.
        self.serving.clear();
        self.reroutes.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Cause, Evidence, Reason};

    const NOW: Time = Time::from_micros(1_000_000_000);

    fn node(n: u8) -> NodeId {
        NodeId::from_bytes([n; 32])
    }

    fn repair(hop: u8, version: u32) -> Reroute {
        Reroute {
            hop,
            version,
            from: 0,
            to: 1,
            cause: Cause::Silence,
            gap_us: 0,
            detected_us: 0,
            replayed: 0,
            reason: Reason::of(Evidence::None),
        }
    }

    #[test]
    fn who_failed_serves_nothing_until_it_is_said_to_again() {
        let mut view = ChainView::default();
        view.now_serves(1, node(1));
        view.now_serves(2, node(1));
        view.now_serves(3, node(3));
        assert!(view.serves_another(2, node(1)) && !view.serves_another(3, node(3)));
        view.note_failed(node(1), Ground::Hearsay, NOW);
        assert_eq!([1, 2, 3].map(|hop| view.serves(hop)), [None, None, Some(node(3))]);
        view.now_serves(1, node(1));
        assert_eq!(view.serves(1), Some(node(1)));
        view.unserved(1);
        assert_eq!(view.serves(1), None);
    }

    #[test]
    fn failures_are_remembered_for_a_while_and_not_too_many() {
        let mut view = ChainView::default();
        let second = Duration::from_secs(1);
        view.note_failed(node(1), Ground::Hearsay, NOW);
        view.note_failed(node(2), Ground::Hearsay, NOW + second);
        view.note_failed(node(1), Ground::Hearsay, NOW + second * 2);
        let lately = |view: &ChainView, memory| -> Vec<NodeId> {
            view.failed_lately(memory, NOW + second * 3).collect()
        };
        assert_eq!(lately(&view, second * 5), [node(2), node(1)], "each once, the latest last");
        assert_eq!(lately(&view, second * 2), [node(1)]);
        assert_eq!(lately(&view, second), []);
        (0..100).for_each(|n| view.note_failed(node(n), Ground::Hearsay, NOW + second * 3));
        let all = lately(&view, second);
        assert_eq!((all.len(), all.first(), all.last()), (32, Some(&node(68)), Some(&node(99))));
    }

    #[test]
    fn a_repair_is_told_again_until_a_newer_record_shows_that_it_is_known() {
        let mut view = ChainView::default();
        assert!(view.rerouted(repair(1, 3)) && view.rerouted(repair(2, 1)));
        assert!(!view.rerouted(repair(1, 3)), "the same again");
        let versions = |first, second| move |hop| [None, Some(first), Some(second)][usize::from(hop)];
        assert_eq!(view.untold(versions(3, 1)), [repair(1, 3), repair(2, 1)]);
        assert_eq!(view.untold(versions(3, 2)), [repair(1, 3)]);
        assert_eq!(view.untold(|_| None), []);
    }

    #[test]
    fn another_chain_has_other_relays_but_those_that_failed_failed() {
        let mut view = ChainView::default();
        view.now_serves(1, node(1));
        view.rerouted(repair(1, 1));
        view.note_failed(node(2), Ground::Hearsay, NOW);
        view.new_chain();
        assert_eq!((view.serves(1), view.untold(|_| Some(1))), (None, Vec::new()));
        assert_eq!(view.failed_lately(Duration::MAX, NOW).collect::<Vec<_>>(), [node(2)]);
    }
}
