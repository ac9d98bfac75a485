//! Where each relay is in the pool's indices, which agree with what it is.

use super::Pool;
use super::leases::Entry;
use super::relay::Relay;
use crate::id::NodeId;
use crate::rpc::Status;
use crate::time::Time;

/// What decides in which of the pool's indices a relay is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kind {
    status: Status,
    gone: bool,
    /// Whether it is neither gone nor suspect, and does not leave.
    well: bool,
    /// Its capacity, if it may be assigned.
    assignable: Option<u32>,
}

impl Kind {
    pub(super) fn of(relay: &Relay) -> Self {
        Self {
            status: relay.status,
            gone: relay.is_gone(),
            well: relay.is_well(),
            assignable: relay.is_assignable().then_some(relay.capacity),
        }
    }

    pub(super) const fn is_well(self) -> bool {
        self.well
    }
}

impl Pool {
    pub(super) fn insert(&mut self, relay: Relay, now: Time) {
        let place = self.relays.len();
        self.places.insert(relay.node, place);
        let (kind, due) = (Kind::of(&relay), relay.due(self.config.lease));
        self.weights.push(relay.capacity);
        self.relays.push(relay);
        self.enter(place, kind, due, now);
    }

    /// Changes a relay and puts it where it then belongs: its place may be another afterwards.
    pub(super) fn update(&mut self, node: &NodeId, now: Time, change: impl FnOnce(&mut Relay)) {
        let Some(place) = self.place(node) else { return };
        let relay = self.relays.get_mut(place).expect("places lead to relays");
        let before = Kind::of(relay);
        change(relay);
        self.settle(place, before, now);
    }

    /// Puts a relay, which was of this kind before it changed, where it belongs now. In the index it may be earlier.
    pub(super) fn settle(&mut self, place: usize, before: Kind, now: Time) {
        let lease = self.config.lease;
        let relay = self.relays.get_mut(place).expect("places lead to relays");
        let (node, at, after) = (relay.node, relay.queued_at, Kind::of(relay));
        if before != after {
            let due = relay.due(lease);
            self.leave(place, before, at);
            let place = self.place(&node).unwrap_or(place);
            self.enter(place, after, due, now);
        } else if relay.due(lease) < at {
            // One that an index has too early is put right when that time comes. Too late it would be missed.
            let due = relay.due(lease);
            self.unqueue(node, at, after);
            self.queue(place, due, after, now);
        }
    }

    /// As [`Pool::update`], for a change that may put the relay into another failure domain.
    pub(super) fn reoffer(&mut self, node: &NodeId, now: Time, change: impl FnOnce(&mut Relay)) {
        let Some(place) = self.place(node) else { return };
        if let Some(relay) = self.relays.get(place) {
            // By the zone that it has had so far.
            self.domains.remove(relay);
        }
        self.update(node, now, change);
        let Some(place) = self.place(node) else { return };
        let (Some(relay), Some(weight)) = (self.relays.get(place), self.weights.get_mut(place)) else {
            return;
        };
        *weight = relay.capacity;
        if relay.is_assignable() {
            self.domains.insert(relay);
        }
    }

    /// Has a relay of this kind looked at when that is `due`.
    pub(super) fn queue(&mut self, place: usize, due: Time, kind: Kind, now: Time) {
        let relay = self.relays.get_mut(place).expect("places lead to relays");
        relay.queued_at = due;
        let node = relay.node;
        match (kind.gone, kind.well) {
            (true, _) => drop(self.gone.insert((due, node))),
            (false, true) => self.leases.insert(Entry { at: due, node, place }, now),
            (false, false) => drop(self.doubtful.insert((due, node))),
        }
    }

    /// The reverse of [`Pool::queue`].
    pub(super) fn unqueue(&mut self, node: NodeId, at: Time, kind: Kind) {
        match (kind.gone, kind.well) {
            (true, _) => drop(self.gone.remove(&(at, node))),
            (false, true) => self.leases.remove(at, node),
            (false, false) => drop(self.doubtful.remove(&(at, node))),
        }
    }

    /// Takes a relay, as it was, out of all indices but `places`; its place is then behind the assignable ones.
    pub(super) fn leave(&mut self, place: usize, was: Kind, due: Time) {
        self.unqueue(self.at(place).node, due, was);
        if let Some(count) = self.statuses.get_mut(&was.status) {
            *count -= 1;
        }
        let Some(capacity) = was.assignable else { return };
        if let Some(relay) = self.relays.get(place) {
            self.domains.remove(relay);
        }
        if let Some(count) = self.capacities.get_mut(&capacity) {
            *count -= 1;
            // Samples are drawn by the largest capacity there is, so none may stay without relays.
            if *count == 0 {
                self.capacities.remove(&capacity);
            }
        }
        self.assignable -= 1;
        self.exchange(place, self.assignable);
    }

    /// The reverse of [`Pool::leave`], for the relay as it is.
    fn enter(&mut self, mut place: usize, kind: Kind, due: Time, now: Time) {
        *self.statuses.entry(kind.status).or_default() += 1;
        if let Some(capacity) = kind.assignable {
            *self.capacities.entry(capacity).or_default() += 1;
            if let Some(relay) = self.relays.get(place) {
                self.domains.insert(relay);
            }
            self.exchange(place, self.assignable);
            place = self.assignable;
            self.assignable += 1;
        }
        self.queue(place, due, kind, now);
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
