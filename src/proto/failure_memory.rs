//! Who failed lately, when, on which ground, and until when that is held against it.
//!
//! A memory only remembers: whoever owns one decides what a failure is, whom it keeps from what, and for how long. The
//! evidence is for people, who want to know why a relay gets no work.
//!
//! | memory | holds | for | keeps it from |
//! |---|---|---|---|
//! | a flow's failed relays (`flows/flow/view.rs`) | 32 | 5 s | plans for that flow |
//! | a flow's gray relays (`flows/flow/avoided.rs`) | 32 | 30 s | the same |
//! | an origin's kept routes (`endpoint/routes.rs`) | 64 | 60 s | being the only candidate of a hop of a kept route |
//! | a target's lost attachments (`endpoint/target.rs`) | 16 | until nobody else is left | being named as an attachment relay |
//!
//! Other things are remembered elsewhere, as they are not this. A ban (`links/bans.rs`) answers a violation, and grows.
//! The failures of a next hop's candidates (`flows/flow/candidates.rs`) rank them for as long as the flow names them, without any
//! time. What a node reported to its bootstrap (`agent.rs`) is kept to be taken back. What a bootstrap was told of a relay
//! (`pool/reach.rs`, `pool/reports.rs`) is weighed by who says so.
//!
//! Bounds: each memory has its own; when it is full, whoever failed longest ago is forgotten.

use super::frame::Evidence;
use super::id::NodeId;
use super::time::Time;
use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

/// What speaks against a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ground {
    /// What a neighbour of it went by.
    Seen(Evidence),
    /// A flow's bytes stopped there, though it lives.
    Gray,
    /// The relay before it called it unusable, and not why.
    Hearsay,
}

impl fmt::Display for Ground {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Seen(evidence) => evidence.as_str(),
            Self::Gray => "gray",
            Self::Hearsay => "hearsay",
        })
    }
}

/// A node that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The node's id.
    pub node: NodeId,
    /// When it did, the last time.
    pub since: Time,
    /// When that will be forgotten; [`Time::MAX`] if not by itself.
    pub until: Time,
    /// What shows it.
    pub ground: Ground,
}

/// See the module's documentation.
#[derive(Clone, Debug)]
pub struct FailureMemory {
    lifetime: Duration,
    max: usize,
    /// The latest last, each node once.
    failures: VecDeque<Failure>,
}

impl FailureMemory {
    /// Of so many nodes, each for so long.
    #[must_use]
    pub const fn new(max: usize, lifetime: Duration) -> Self {
        Self { lifetime, max, failures: VecDeque::new() }
    }

    /// A node failed, perhaps once more.
    pub fn note(&mut self, node: NodeId, ground: Ground, now: Time) -> Failure {
        let failure = Failure { node, since: now, until: now + self.lifetime, ground };
        self.failures.retain(|known| known.until > now && known.node != node);
        self.failures.push_back(failure);
        if self.failures.len() > self.max {
            self.failures.pop_front();
        }
        failure
    }

    /// It is held against this node no more.
    pub fn forgive(&mut self, node: NodeId) {
        self.failures.retain(|failure| failure.node != node);
    }

    /// Nor against anybody.
    pub fn forgive_all(&mut self) {
        self.failures.clear();
    }

    /// Everybody whom it is held against, whoever failed last at the end.
    pub fn iter(&self, now: Time) -> impl Iterator<Item = &Failure> {
        self.failures.iter().filter(move |failure| failure.until > now)
    }

    /// The nodes among them.
    pub fn nodes(&self, now: Time) -> impl Iterator<Item = NodeId> {
        self.iter(now).map(|failure| failure.node)
    }

    /// What is held against a node.
    #[must_use]
    pub fn get(&self, node: NodeId, now: Time) -> Option<&Failure> {
        self.iter(now).find(|failure| failure.node == node)
    }

    /// Whether nothing is held against anybody.
    #[must_use]
    pub fn is_empty(&self, now: Time) -> bool {
        self.iter(now).next().is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SILENT: Ground = Ground::Seen(Evidence::Silence);

    fn node(n: u8) -> NodeId {
        NodeId::from_bytes([n; 32])
    }

    fn at(s: u64) -> Time {
        Time::from_micros(s * 1_000_000)
    }

    #[test]
    fn it_tells_who_failed_when_by_what_and_until_when() {
        let mut memory = FailureMemory::new(9, Duration::from_secs(5));
        let noted = memory.note(node(1), SILENT, at(10));
        assert_eq!(noted, Failure { node: node(1), since: at(10), until: at(15), ground: SILENT });
        assert_eq!((memory.get(node(1), at(14)), memory.get(node(2), at(14))), (Some(&noted), None));
        assert!(memory.get(node(1), at(15)).is_none() && memory.is_empty(at(15)));
    }

    #[test]
    fn who_fails_again_is_held_to_the_last_time_and_who_is_forgiven_to_none() {
        let mut memory = FailureMemory::new(9, Duration::from_secs(5));
        memory.note(node(1), SILENT, at(10));
        memory.note(node(2), Ground::Hearsay, at(11));
        memory.note(node(1), Ground::Gray, at(12));
        assert_eq!(memory.nodes(at(13)).collect::<Vec<_>>(), [node(2), node(1)]);
        assert_eq!(memory.get(node(1), at(16)).map(|failure| failure.ground), Some(Ground::Gray));
        memory.forgive(node(1));
        assert_eq!(memory.nodes(at(13)).collect::<Vec<_>>(), [node(2)]);
        memory.forgive_all();
        assert!(memory.is_empty(at(13)));
    }

    #[test]
    fn a_full_memory_forgets_who_failed_longest_ago() {
        let mut memory = FailureMemory::new(2, Duration::MAX);
        for n in 1..=3 {
            memory.note(node(n), SILENT, at(n.into()));
        }
        assert_eq!(memory.nodes(at(1_000_000)).collect::<Vec<_>>(), [node(2), node(3)]);
        assert_eq!(memory.get(node(3), at(4)).map(|failure| failure.until), Some(Time::MAX));
    }
}
