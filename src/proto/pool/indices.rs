//! Where each relay is in the pool's indices, which agree with what it is.

use super::Pool;
use super::relay::Relay;
use crate::proto::id::NodeId;
use crate::proto::time::Time;
use std::collections::BTreeSet;

/// What decides in which of the pool's indices a relay is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kind {
    gone: bool,
    /// Whether it is neither gone nor suspect, and does not leave.
    well: bool,
    /// Its capacity, if it may be assigned.
    assignable: Option<u32>,
}

impl Kind {
    pub(super) fn of(relay: &Relay) -> Self {
        Self {
            gone: relay.is_gone(),
            well: relay.is_well(),
            assignable: relay.is_assignable().then_some(relay.capacity),
        }
    }
}

impl Pool {
    pub(super) fn insert(&mut self, relay: Relay) {
        let place = self.relays.len();
        self.places.insert(relay.node, place);
        let (kind, due) = (Kind::of(&relay), relay.due(self.config.lease));
        self.weights.push(relay.capacity);
        self.relays.push(relay);
        self.enter(place, kind, due);
    }

    /// Changes a relay and puts it where it then belongs: its place may be another afterwards.
    pub(super) fn update(&mut self, node: &NodeId, change: impl FnOnce(&mut Relay)) {
        let Some(place) = self.place(node) else { return };
        let relay = self.relays.get_mut(place).expect("places lead to relays");
        let before = Kind::of(relay);
        change(relay);
        self.settle(place, before);
    }

    /// Puts a relay, which was of this kind before it changed, where it belongs now. In the index it may be earlier.
    pub(super) fn settle(&mut self, place: usize, before: Kind) {
        let lease = self.config.lease;
        let relay = self.relays.get_mut(place).expect("places lead to relays");
        let (node, at, after) = (relay.node, relay.queued_at, Kind::of(relay));
        if before != after {
            let due = relay.due(lease);
            self.leave(place, before, at);
            let place = self.place(&node).unwrap_or(place);
            self.enter(place, after, due);
        } else if relay.due(lease) < at {
            relay.queued_at = relay.due(lease);
            let entry = (relay.queued_at, node);
            let index = self.index(after);
            index.remove(&(at, node));
            index.insert(entry);
        }
    }

    /// As [`Pool::update`], for a change that may put the relay into another failure domain.
    pub(super) fn reoffer(&mut self, node: &NodeId, change: impl FnOnce(&mut Relay)) {
        let Some(place) = self.place(node) else { return };
        if let Some(relay) = self.relays.get(place) {
            self.domains.remove(relay);
        }
        self.update(node, change);
        let Some(place) = self.place(node) else { return };
        let (Some(relay), Some(weight)) = (self.relays.get(place), self.weights.get_mut(place)) else {
            return;
        };
        *weight = relay.capacity;
        if relay.is_assignable() {
            self.domains.insert(relay);
        }
    }

    pub(super) fn index(&mut self, kind: Kind) -> &mut BTreeSet<(Time, NodeId)> {
        match (kind.gone, kind.well) {
            (true, _) => &mut self.gone,
            (false, true) => &mut self.leases,
            (false, false) => &mut self.doubtful,
        }
    }

    /// Takes a relay, as it was, out of all indices but `places`; its place is then behind the assignable ones.
    pub(super) fn leave(&mut self, place: usize, was: Kind, due: Time) {
        let node = self.at(place).node;
        self.index(was).remove(&(due, node));
        let Some(capacity) = was.assignable else { return };
        if let Some(relay) = self.relays.get(place) {
            self.domains.remove(relay);
        }
        if let Some(count) = self.capacities.get_mut(&capacity) {
            *count -= 1;
            if *count == 0 {
                self.capacities.remove(&capacity);
            }
        }
        self.assignable -= 1;
        self.exchange(place, self.assignable);
    }

    /// The reverse of [`Pool::leave`], for the relay as it is.
    fn enter(&mut self, place: usize, kind: Kind, due: Time) {
        let relay = self.relays.get_mut(place).expect("places lead to relays");
        relay.queued_at = due;
        let node = relay.node;
        self.index(kind).insert((due, node));
        if let Some(capacity) = kind.assignable {
            *self.capacities.entry(capacity).or_default() += 1;
            if let Some(relay) = self.relays.get(place) {
                self.domains.insert(relay);
            }
            self.exchange(place, self.assignable);
            self.assignable += 1;
        }
    }

    pub(super) fn exchange(&mut self, a: usize, b: usize) {
        self.relays.swap(a, b);
        self.weights.swap(a, b);
        for place in [a, b] {
            let node = self.at(place).node;
            self.places.insert(node, place);
        }
    }
}
