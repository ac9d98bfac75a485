//! What a driver stores of the machine, so that a restart takes nobody's place: which registrations, and when they are to go.
//!
//! Leases and heartbeats are not in it. Whoever is restored has the grace of a lease to show that it lives.

use super::{Bootstrap, RelayOffer};
use crate::id::NodeId;
use crate::pool::PoolEvent;
use crate::rpc::{Offer, Request, Response, Status};
use crate::time::Time;
use serde::{Deserialize, Serialize};

/// What a node registered, as a driver may store it: it gives it its place back after a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// The node's id.
    pub node: NodeId,
    /// What people call it.
    pub name: String,
    /// What it offers.
    pub offer: Offer,
    /// When it took its place.
    pub registered_at: Time,
}

/// As what a node registered: it may be both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// To carry flows.
    Relay,
    /// To be reached under names.
    Target,
}

impl Kind {
    /// The kind of what is offered.
    #[must_use]
    pub const fn of(offer: &Offer) -> Self {
        match offer {
            Offer::Relay { .. } => Self::Relay,
            Offer::Target { .. } | Offer::Unknown => Self::Target,
        }
    }
}

/// Which registration: a node has one of each kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The node's id.
    pub node: NodeId,
    /// The kind.
    pub kind: Kind,
}

impl Key {
    /// That of a registration.
    #[must_use]
    pub const fn of(registration: &Registration) -> Self {
        Self { node: registration.node, kind: Kind::of(&registration.offer) }
    }
}

/// What is to be stored, or to be there no longer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// This registration, in place of any other with its key.
    Put(Registration),
    /// None with this key.
    Remove(Key),
}

impl Bootstrap {
    /// As [`Bootstrap::answer`], with what has to be stored before the answer counts.
    pub fn answer_kept(&mut self, from: NodeId, request: Request, now: Time) -> (Response, Vec<Change>) {
        let leaves = matches!(request, Request::Deregister { .. });
        let registering = if let Request::Register { name, offer, .. } = &request {
            Some((name.clone(), offer.clone()))
        } else {
            None
        };
        let response = self.answer(from, request, now);
        let taken = registering.filter(|_| matches!(response, Response::Lease(_)));
        let changes = match taken {
            Some((name, offer)) => {
                let registered_at = self.registered_at(&from, &offer, now);
                vec![Change::Put(Registration { node: from, name, offer, registered_at })]
            }
            None if leaves => {
                [Kind::Relay, Kind::Target].map(|kind| Change::Remove(Key { node: from, kind })).to_vec()
            }
            None => Vec::new(),
        };
        (response, changes)
    }

    /// Puts a node that had registered before a restart back in its place, with the grace of one lease. `false` if there is
    /// none for it: what is stored of it is of no use.
    pub fn restore(&mut self, registration: Registration, now: Time) -> bool {
        let key = Key::of(&registration);
        let was_held = self.holds(key);
        let Registration { node, name, offer, registered_at } = registration;
        match offer {
            Offer::Relay { addresses, zone, capacity, version, capabilities } => {
                let offer = RelayOffer { name, addresses, zone, capacity, version, capabilities };
                self.pool.restore(node, offer, registered_at, now);
            }
            // A name that somebody else has registered meanwhile is theirs.
            Offer::Target { names, attachments } if self.targets.get(&node).is_none() => {
                let _ = self.targets.register(node, names, attachments, now);
            }
            Offer::Target { .. } | Offer::Unknown => {}
        }
        let is_held = self.holds(key);
        if is_held && !was_held {
            self.restored.insert(node);
        }
        is_held
    }

    /// What is to be stored no longer, after this event.
    #[must_use]
    pub fn lost(&self, event: &PoolEvent) -> Option<Key> {
        lost_place(event).filter(|key| !self.holds(*key))
    }

    /// Whether there is a place for this registration.
    #[must_use]
    pub fn holds(&self, key: Key) -> bool {
        match key.kind {
            Kind::Relay => self.pool.get(&key.node).is_some_and(|relay| relay.status != Status::Left),
            Kind::Target => self.targets.get(&key.node).is_some(),
        }
    }

    /// Since when a node that has just registered has its place.
    fn registered_at(&self, node: &NodeId, offer: &Offer, now: Time) -> Time {
        match offer {
            Offer::Relay { .. } => self.pool.get(node).map_or(now, |relay| relay.registered_at),
            Offer::Target { .. } | Offer::Unknown => now,
        }
    }
}

/// Whose place may be gone after an event.
const fn lost_place(event: &PoolEvent) -> Option<Key> {
    match event {
        PoolEvent::Left(node) | PoolEvent::Forgotten(node) => Some(Key { node: *node, kind: Kind::Relay }),
        PoolEvent::TargetLeft(node) => Some(Key { node: *node, kind: Kind::Target }),
        PoolEvent::Joined(_)
        | PoolEvent::Online(_)
        | PoolEvent::Suspect(_)
        | PoolEvent::Draining(_)
        | PoolEvent::Offline(_)
        | PoolEvent::Back(_)
        | PoolEvent::TargetJoined(_)
        | PoolEvent::Unreached(_)
        | PoolEvent::Distrusted(_)
        | PoolEvent::Preserving { .. }
        | PoolEvent::Resumed
        | PoolEvent::Ignored(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bootstrap::Config;
    use crate::crypto;
    use crate::id::BootId;
    use crate::rpc::{Heartbeat, Load, Refusal};
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    const NODE: NodeId = NodeId::from_bytes([1; 32]);
    const BOOT: BootId = BootId::from_bytes([1; 16]);
    const NOW: Time = Time::from_micros(1_000_000_000);

    fn machine() -> Bootstrap {
        let secret = crypto::Key::from_bytes([7; 32]);
        Bootstrap::new(Config::default(), secret, StdRng::seed_from_u64(1), NOW)
    }

    fn register(offer: Offer) -> Request {
        Request::Register { name: "n".to_owned(), boot: BOOT, offer }
    }

    /// What a store holds after these changes.
    fn stored(changes: Vec<Change>) -> Vec<Registration> {
        let put = |change| if let Change::Put(kept) = change { Some(kept) } else { None };
        changes.into_iter().filter_map(put).collect()
    }

    #[test]
    fn who_registers_is_kept_and_restored_until_it_leaves() {
        let offers = [
            Offer::relay(([127, 0, 0, 1], 1).into(), "", 1),
            Offer::Target { names: vec!["x".to_owned()], attachments: Vec::new() },
        ];
        for (offer, kind) in offers.into_iter().zip([Kind::Relay, Kind::Target]) {
            let (mut before, key) = (machine(), Key { node: NODE, kind });
            let (response, changes) = before.answer_kept(NODE, register(offer), NOW);
            assert!(matches!(response, Response::Lease(_)));
            let kept = stored(changes);
            let [registration] = &kept[..] else { panic!("{kept:?}") };
            assert_eq!((Key::of(registration), registration.registered_at), (key, NOW));

            let mut after = machine();
            assert!(!after.holds(key));
            assert!(after.restore(registration.clone(), NOW) && after.holds(key));
            // What was stored may be older than what the node has become since: it is to say that again, once.
            let heartbeat = |sequence| {
                let load = Load::default();
                Request::Heartbeat(Heartbeat { sequence, sent_at: NOW, load, key_epoch: None })
            };
            let mut is_restored = |request| {
                let Response::Lease(lease) = after.answer(NODE, request, NOW) else { panic!() };
                lease.restored
            };
            assert!(is_restored(heartbeat(1)) && is_restored(heartbeat(2)));
            assert!(!is_restored(register(registration.offer.clone())) && !is_restored(heartbeat(3)));
            assert!(after.restore(registration.clone(), NOW), "it keeps its place");
            assert!(!after.restored.contains(&NODE), "and is no older than it was");
            let (response, changes) = after.answer_kept(NODE, Request::Deregister { boot: BOOT }, NOW);
            assert_eq!(response, Response::Done);
            assert!(changes.contains(&Change::Remove(key)), "{changes:?}");
            let lost: Vec<Key> = after.take_events().iter().filter_map(|event| after.lost(event)).collect();
            assert_eq!(lost, [key]);
        }
    }

    #[test]
    fn what_is_refused_is_not_kept_and_what_is_unknown_has_no_place() {
        let mut machine = machine();
        let refused = machine.answer_kept(NODE, register(Offer::Unknown), NOW);
        assert_eq!(refused, (Response::Refused(Refusal::UnknownRequest), Vec::new()));
        let (node, name, registered_at) = (NODE, "n".to_owned(), NOW);
        assert!(!machine.restore(Registration { node, name, offer: Offer::Unknown, registered_at }, NOW));
    }
}
