//! What an origin has against its chain, and relays where its bytes stopped.
//!
//! Invariant: a bounded number of suspects, each for a while. Why the present chain is to be left is forgotten when it is.

use crate::failure_memory::{Failure, FailureMemory, Ground};
use crate::frame::Cause;
use crate::id::NodeId;
use crate::time::Time;
use std::time::Duration;

/// How long a flow avoids the relay where its bytes stopped: nobody else may know of it.
const SUSPECT_LIFETIME: Duration = Duration::from_secs(30);
/// Such relays that a flow avoids at most; of more the first are forgotten.
const MAX_SUSPECTS: usize = 32;

/// See the module's documentation.
#[derive(Clone, Debug)]
pub(in crate::flows) struct AvoidedRelays {
    suspects: FailureMemory,
    /// Why the present chain is to be left.
    pending: Option<Cause>,
}

impl Default for AvoidedRelays {
    fn default() -> Self {
        Self { suspects: FailureMemory::new(MAX_SUSPECTS, SUSPECT_LIFETIME), pending: None }
    }
}

impl AvoidedRelays {
    /// The present chain is to be left, and `suspect` avoided.
    pub(in crate::flows) fn note(&mut self, cause: Cause, suspect: Option<NodeId>, now: Time) {
        self.pending = Some(cause);
        suspect.map(|node| self.suspects.note(node, Ground::Gray, now));
    }

    /// Whether the present chain is to be left though its next hop answers.
    pub(in crate::flows) const fn is_pending(&self) -> bool {
        self.pending.is_some()
    }

    /// The chain is left: why.
    pub(in crate::flows) const fn take_cause(&mut self) -> Option<Cause> {
        self.pending.take()
    }

    /// Who is still to be avoided.
    pub(in crate::flows) fn suspects(&self, now: Time) -> impl Iterator<Item = NodeId> {
        self.suspects.nodes(now)
    }

    /// Since when, and until when.
    pub(in crate::flows) fn failures(&self, now: Time) -> impl Iterator<Item = &Failure> {
        self.suspects.iter(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time::from_micros(1_000_000_000);

    fn node(n: u8) -> NodeId {
        NodeId::from_bytes([n; 32])
    }

    #[test]
    fn a_suspect_is_avoided_for_a_while_from_the_last_time_on() {
        let mut avoided = AvoidedRelays::default();
        let second = Duration::from_secs(1);
        avoided.note(Cause::Gray, Some(node(1)), NOW);
        avoided.note(Cause::Gray, Some(node(2)), NOW + second);
        avoided.note(Cause::Gray, Some(node(1)), NOW + second * 2);
        let at = |seconds| avoided.suspects(NOW + second * seconds).collect::<Vec<_>>();
        assert_eq!(at(30), [node(2), node(1)]);
        assert_eq!(at(31), [node(1)]);
        assert_eq!(at(32), []);
    }

    #[test]
    fn suspects_are_bounded_and_the_first_forgotten() {
        let mut avoided = AvoidedRelays::default();
        (0..100).for_each(|n| avoided.note(Cause::Gray, Some(node(n)), NOW));
        let all: Vec<NodeId> = avoided.suspects(NOW).collect();
        assert_eq!((all.len(), all.first(), all.last()), (32, Some(&node(68)), Some(&node(99))));
    }

    #[test]
    fn a_chain_is_left_once_and_its_suspects_are_avoided_further() {
        let mut avoided = AvoidedRelays::default();
        assert!(!avoided.is_pending());
        avoided.note(Cause::Gray, Some(node(1)), NOW);
        avoided.note(Cause::Closed, None, NOW);
        assert!(avoided.is_pending());
        assert_eq!((avoided.take_cause(), avoided.take_cause()), (Some(Cause::Closed), None));
        assert_eq!(avoided.suspects(NOW).collect::<Vec<_>>(), [node(1)]);
    }
}
