//! Targets: under which names endpoints can be reached, and through which relays.
//!
//! A name belongs to the node that announced it first, for as long as its lease runs or until it is known to be gone. Nothing here knows what a relay is.

use super::{BATCH, PAUSE, PoolEvent, PoolFull};
use crate::id::NodeId;
use crate::time::Time;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// An endpoint that can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Who it is.
    pub node: NodeId,
    /// The names that it serves.
    pub names: BTreeSet<String>,
    /// Its attachment relays, the preferred one first.
    pub attachments: Vec<NodeId>,
    /// When its lease ends unless it is renewed.
    pub lease_ends: Time,
}

/// Why a target could not announce itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnnounceError {
    /// Another node holds the name.
    #[error("the name \"{0}\" is taken by another node")]
    NameTaken(String),
    /// There is no place for another target.
    #[error(transparent)]
    Full(#[from] PoolFull),
}

/// The targets. See the module's documentation.
#[derive(Debug)]
pub struct Targets {
    lease: Duration,
    max_targets: usize,
    targets: BTreeMap<NodeId, Target>,
    names: BTreeMap<String, NodeId>,
    leases: BTreeSet<(Time, NodeId)>,
    /// No lease ends before this.
    not_before: Time,
    events: Vec<PoolEvent>,
}

impl Targets {
    /// None yet.
    #[must_use]
    pub const fn new(lease: Duration, max_targets: usize) -> Self {
        Self {
            lease,
            max_targets,
            targets: BTreeMap::new(),
            names: BTreeMap::new(),
            leases: BTreeSet::new(),
            not_before: Time::ZERO,
            events: Vec::new(),
        }
    }

    /// Takes what a target announces, in place of what it announced before.
    ///
    /// # Errors
    /// [`AnnounceError`] if a name is taken or there is no place; then nothing has changed.
    pub fn register(
        &mut self,
        node: NodeId,
        names: Vec<String>,
        attachments: Vec<NodeId>,
        now: Time,
    ) -> Result<(), AnnounceError> {
        let taken = |name: &&String| self.names.get(*name).is_some_and(|holder| *holder != node);
        if let Some(name) = names.iter().find(taken) {
            return Err(AnnounceError::NameTaken(name.clone()));
        }
        let is_new = !self.targets.contains_key(&node);
        if is_new && self.targets.len() >= self.max_targets {
            return Err(PoolFull.into());
        }
        // First, or names that it no longer announces would stay its own.
        self.remove(&node);
        let target =
            Target { node, names: names.into_iter().collect(), attachments, lease_ends: now + self.lease };
        self.insert(target);
        if is_new {
            self.events.push(PoolEvent::TargetJoined(node));
        }
        Ok(())
    }

    /// Renews a target's lease. `false` if it has none.
    pub fn heartbeat(&mut self, node: &NodeId, now: Time) -> bool {
        // Out and in again, as an index has it by the end of its lease.
        let Some(target) = self.remove(node) else { return false };
        self.insert(Target { lease_ends: now + self.lease, ..target });
        true
    }

    /// Takes a target out. `false` if there was none.
    pub fn deregister(&mut self, node: &NodeId) -> bool {
        let known = self.remove(node).is_some();
        if known {
            self.events.push(PoolEvent::TargetLeft(*node));
        }
        known
    }

    /// Takes those out whose leases have ended; of very many a part, and the others soon.
    pub fn expire(&mut self, now: Time) {
        if now < self.not_before {
            return;
        }
        for _ in 0..BATCH {
            let Some((_, node)) = self.leases.first().filter(|(at, _)| *at <= now).copied() else { return };
            self.deregister(&node);
        }
        self.not_before = now + PAUSE;
    }

    /// Gives all the grace of one lease: they could not be heard.
    pub fn spare(&mut self, now: Time) {
        self.not_before = now + self.lease;
    }

    /// When to [`Targets::expire`] next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        self.leases.first().map(|(at, _)| self.not_before.max(*at))
    }

    /// Who serves a name.
    #[must_use]
    pub fn by_name(&self, name: &str) -> Option<&Target> {
        self.names.get(name).and_then(|node| self.targets.get(node))
    }

    /// What a node announced.
    #[must_use]
    pub fn get(&self, node: &NodeId) -> Option<&Target> {
        self.targets.get(node)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.targets.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.targets.is_empty()
    }

    /// All targets, by the first of their names.
    pub fn iter_by_name(&self) -> impl Iterator<Item = &Target> {
        // A target may have several names, and is listed once.
        let first = |name: &String, target: &Target| target.names.first() == Some(name);
        self.names
            .iter()
            .filter_map(move |(name, node)| self.targets.get(node).filter(|target| first(name, target)))
    }

    /// What has happened since the last call.
    pub fn take_events(&mut self) -> Vec<PoolEvent> {
        std::mem::take(&mut self.events)
    }

    fn insert(&mut self, target: Target) {
        self.leases.insert((target.lease_ends, target.node));
        self.names.extend(target.names.iter().map(|name| (name.clone(), target.node)));
        self.targets.insert(target.node, target);
    }

    fn remove(&mut self, node: &NodeId) -> Option<Target> {
        let target = self.targets.remove(node)?;
        self.leases.remove(&(target.lease_ends, *node));
        for name in &target.names {
            self.names.remove(name);
        }
        Some(target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(30);

    fn at(s: u32) -> Time {
        Time::ZERO + Duration::from_secs(1) * s
    }

    fn node(n: u8) -> NodeId {
        NodeId::from_bytes([n; 32])
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_name_belongs_to_one_node_while_its_lease_runs() {
        let mut targets = Targets::new(LEASE, 10);
        targets.register(node(1), names(&["a", "b"]), vec![], at(0)).unwrap();
        let refused = targets.register(node(2), names(&["c", "b"]), vec![], at(1));
        assert_eq!(refused, Err(AnnounceError::NameTaken("b".to_owned())));
        assert!(targets.by_name("c").is_none(), "all or nothing");
        targets.register(node(1), names(&["a"]), vec![node(9)], at(2)).unwrap();
        targets.register(node(2), names(&["b"]), vec![], at(3)).unwrap();
        assert_eq!(targets.by_name("a").map(|target| target.attachments.clone()), Some(vec![node(9)]));
        let events = [1, 2].map(|n| PoolEvent::TargetJoined(node(n)));
        assert_eq!(targets.take_events(), events);
    }

    #[test]
    fn leases_end_unless_renewed() {
        let mut targets = Targets::new(LEASE, 10);
        targets.register(node(1), names(&["a"]), vec![], at(0)).unwrap();
        targets.register(node(2), names(&["b"]), vec![], at(0)).unwrap();
        assert!(targets.heartbeat(&node(1), at(10)));
        assert!(!targets.heartbeat(&node(3), at(10)));
        assert_eq!(targets.poll_timeout(), Some(at(30)));
        targets.expire(at(30));
        assert!(targets.by_name("a").is_some() && targets.by_name("b").is_none());
        assert_eq!(targets.poll_timeout(), Some(at(40)));
        assert!(targets.deregister(&node(1)) && !targets.deregister(&node(1)));
        assert_eq!(targets.poll_timeout(), None);
    }

    #[test]
    fn who_could_not_be_heard_is_spared() {
        let mut targets = Targets::new(LEASE, 10);
        targets.register(node(1), names(&["a"]), vec![], at(0)).unwrap();
        targets.spare(at(100));
        targets.expire(at(129));
        assert_eq!(targets.poll_timeout(), Some(at(130)));
        assert!(targets.by_name("a").is_some());
        targets.expire(at(130));
        assert!(targets.by_name("a").is_none());
    }

    #[test]
    fn there_is_place_for_so_many_and_they_are_listed_by_name() {
        let mut targets = Targets::new(LEASE, 2);
        targets.register(node(1), names(&["z", "b"]), vec![], at(0)).unwrap();
        targets.register(node(2), names(&["a"]), vec![], at(0)).unwrap();
        assert_eq!(targets.register(node(3), names(&["c"]), vec![], at(0)), Err(PoolFull.into()));
        targets.register(node(1), names(&["z", "b", "c"]), vec![], at(0)).unwrap();
        let listed: Vec<NodeId> = targets.iter_by_name().map(|target| target.node).collect();
        assert_eq!(listed, [node(2), node(1)]);
    }
}
