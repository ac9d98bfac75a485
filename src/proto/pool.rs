//! The pool: which relays there are, and which of them may be assigned to chains.
//!
//! A relay takes its place by registering and keeps it by heartbeats: each renews its *lease*. A lease near its end makes
//! it suspect, an ended one offline, and so does a neighbour's report that it is down (suspect) and a second one by
//! another neighbour (offline). A later heartbeat brings it back, and so does the reporter if it hears it again before
//! anybody else reports it. In place of the second report, a connection to the bootstrap that broke will do. Who reports
//! many that live is not believed any more, for a while (see `pool/reports.rs`). A relay that others can't dial, though it lives,
//! stays in the pool and is the last choice (see `pool/reach.rs`).
//!
//! Self-preservation, as in Netflix's Eureka: when a larger part of the pool than [`Config::preserve_percent`] would fall
//! silent within one lease, the likelier cause is this bootstrap's own network. Then no lease is ended for silence alone
//! until most of those relays are heard again; reports still count. [`Pool::preserving_since`] says so.
//!
//! Invariants: the assignable relays are the first of [`Pool`]'s dense list, so that one can be drawn at random in
//! constant time; only methods that take `&mut self` and a `now` change anything; expiry costs what expires, not what
//! there is, and no call ends more than [`BATCH`] leases, so that nobody waits for long. A heartbeat only notes the time:
//! the index of leases is put right when the relay's old time has come, once in a lease. At most [`Config::max_relays`]
//! are known: a newcomer then takes the place of the relay that has been gone the longest, or is turned away if none is
//! gone.
//!
//! A pool knows nothing of chains, secrets or targets (those are in [`targets`]).

mod domains;
mod expiry;
mod indices;
mod leases;
mod preservation;
mod reach;
pub mod relay;
mod reports;
mod subnet;
pub mod targets;

use super::id::{BootId, NodeId};
use super::planted::{self, Law};
use super::rpc::{Counts, Heartbeat, Status};
use super::time::Time;
pub use domains::Apart;
use domains::Domains;
use expiry::{BATCH, PAUSE};
use foldhash::{HashMap, HashMapExt};
use indices::Kind;
use leases::Leases;
use preservation::Preservation;
use rand::RngExt;
pub use relay::{Relay, RelayOffer};
use reports::Reporters;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
pub use subnet::Subnet;

/// How many relays are drawn at once for a sample by capacity,
const ROUND: usize = 16;
/// and how often, before some are taken regardless of their capacities.
const MAX_ROUNDS: usize = 8;

/// The pool's policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// How many relays may be known at once, those included that are gone but not forgotten.
    pub max_relays: usize,
    /// How many targets may be known at once.
    pub max_targets: usize,
    /// How long a node keeps its place without a heartbeat.
    pub lease: Duration,
    /// Two reports within this time confirm each other.
    pub report_window: Duration,
    /// How long a relay that is gone is still listed.
    pub forget_after: Duration,
    /// Expiry stops when more than this part of the pool would expire within one lease, in percent,
    pub preserve_percent: u32,
    /// and more than so many relays.
    pub preserve_above: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_relays: 100_000,
            max_targets: 100_000,
            lease: Duration::from_secs(30),
            report_window: Duration::from_secs(30),
            forget_after: Duration::from_secs(600),
            preserve_percent: 15,
            preserve_above: 3,
        }
    }
}

/// What happened to the pool, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PoolEvent {
    /// A relay registered that was not known, or had left.
    Joined(NodeId),
    /// Its first heartbeat came.
    Online(NodeId),
    /// It was reported down, or its lease is about to end.
    Suspect(NodeId),
    /// It moves its flows away.
    Draining(NodeId),
    /// Its lease ended, or its death was confirmed.
    Offline(NodeId),
    /// It is assignable again.
    Back(NodeId),
    /// It said goodbye.
    Left(NodeId),
    /// It has been gone for so long that nothing is known of it any more.
    Forgotten(NodeId),
    /// Self-preservation began: this many relays fell silent at once.
    Preserving {
        /// The number of overdue relays.
        overdue: usize,
    },
    /// Self-preservation ended.
    Resumed,
    /// A target announced its names for the first time.
    TargetJoined(NodeId),
    /// A target's lease ended, or it said goodbye.
    TargetLeft(NodeId),
    /// Others could not dial it, though it may be heard here: it is the last choice for a while.
    Unreached(NodeId),
    /// This node reported so many relays down that live that its reports count no more for a while.
    Distrusted(NodeId),
    /// A report was not believed, or a heartbeat came after a later one: counted, no more.
    Ignored(Ignored),
}

/// What was not taken at its word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ignored {
    /// A report by somebody whose reports count no more.
    Report,
    /// A heartbeat that is older than the last one.
    Heartbeat,
}

/// There is no place for another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the pool is full")]
pub struct PoolFull;

/// The relays. See the module's documentation.
#[derive(Debug)]
pub struct Pool {
    config: Config,
    /// The assignable ones come first.
    relays: Vec<Relay>,
    /// The capacity of each in `relays`, close together: many of those looked at for a sample are not taken.
    weights: Vec<u32>,
    assignable: usize,
    /// Place of each relay in `relays`.
    places: HashMap<NodeId, usize>,
    /// Relays that are well, by when it has to be looked whether their silence makes them suspect.
    leases: Leases,
    /// Relays that are suspect or leave, by when it has to be looked whether their lease has ended.
    doubtful: BTreeSet<(Time, NodeId)>,
    /// Relays that are gone, by when they are forgotten.
    gone: BTreeSet<(Time, NodeId)>,
    /// Up to where the leases that are due were looked through: who is still there was not heard.
    looked_at: Option<(Time, NodeId)>,
    /// When to go on, if more was due than one call does.
    more_at: Option<Time>,
    /// How many relays have which status.
    statuses: BTreeMap<Status, usize>,
    /// How many assignable relays have which capacity.
    capacities: BTreeMap<u32, usize>,
    /// The assignable relays by failure domain.
    domains: Domains,
    preservation: Preservation,
    reporters: Reporters,
    expired: u32,
    events: Vec<PoolEvent>,
}

impl Pool {
    /// An empty pool.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            config,
            relays: Vec::new(),
            weights: Vec::new(),
            assignable: 0,
            places: HashMap::new(),
            leases: Leases::new(config.lease),
            doubtful: BTreeSet::new(),
            gone: BTreeSet::new(),
            looked_at: None,
            more_at: None,
            statuses: BTreeMap::new(),
            capacities: BTreeMap::new(),
            domains: Domains::default(),
            preservation: Preservation::new(&config),
            reporters: Reporters::new(&config),
            expired: 0,
            events: Vec::new(),
        }
    }

    /// Takes a relay in, or renews the lease of one that registers again.
    ///
    /// # Errors
    /// [`PoolFull`] if there is no place for another.
    pub fn register(&mut self, node: NodeId, offer: RelayOffer, now: Time) -> Result<(), PoolFull> {
        let lease_ends = now + self.config.lease;
        let before = self.get(&node).map(|relay| relay.status);
        if before.is_none() {
            self.make_room(now)?;
            self.insert(Relay::new(node, offer, now, lease_ends), now);
        } else {
            // Who has started anew may well have been dead.
            let reports = self.get(&node).filter(|relay| !relay.is_gone()).map(Relay::reports);
            self.reoffer(&node, now, |relay| relay.register_again(offer, now, lease_ends));
            self.disproved(reports.unwrap_or_default(), node, now);
        }
        match before {
            None | Some(Status::Left) => self.events.push(PoolEvent::Joined(node)),
            Some(Status::Suspect | Status::Draining | Status::Offline) => {
                self.events.push(PoolEvent::Back(node));
            }
            Some(Status::Registered | Status::Online | Status::Unknown) => {}
        }
        Ok(())
    }

    /// The same for a certain process of the relay: if it drains, it goes on to, however often it registers.
    ///
    /// # Errors
    /// As [`Pool::register`].
    pub fn register_process(
        &mut self,
        node: NodeId,
        boot: BootId,
        offer: RelayOffer,
        now: Time,
    ) -> Result<(), PoolFull> {
        let drains = self.get(&node).is_some_and(|relay| relay.boot() == Some(boot) && relay.is_draining());
        self.register(node, offer, now)?;
        if let Some(relay) = self.place(&node).and_then(|place| self.relays.get_mut(place)) {
            relay.set_boot(boot);
        }
        if drains {
            self.drain(&node, now);
        }
        Ok(())
    }

    /// Puts a relay back in its place after a restart of the bootstrap, which has not heard it since: with the grace of one
    /// lease. Who has registered meanwhile keeps that place.
    pub fn restore(&mut self, node: NodeId, offer: RelayOffer, registered_at: Time, now: Time) {
        if !self.places.contains_key(&node) && self.relays.len() < self.config.max_relays {
            let grace = if planted::broken(Law::RestoredGrace) { Duration::ZERO } else { self.config.lease };
            // By a clock that was set back since, the time may lie ahead.
            let relay = Relay::new(node, offer, registered_at.min(now), now + grace);
            self.insert(relay, now);
        }
    }

    /// Renews a relay's lease. `false` if it has none to renew and must register.
    pub fn heartbeat(&mut self, node: &NodeId, heartbeat: &Heartbeat, now: Time) -> bool {
        let lease_ends = now + self.config.lease;
        let Some(place) = self.place(node) else { return false };
        let Some(relay) = self.relays.get_mut(place) else { return false };
        let status = relay.status;
        // After a goodbye nothing that was sent before it has an effect.
        if status == Status::Left {
            return false;
        }
        // It came late. The lease stands, so the node need not register.
        if !relay.is_new(heartbeat) {
            self.events.push(PoolEvent::Ignored(Ignored::Heartbeat));
            return true;
        }
        let (before, reports) = (Kind::of(relay), relay.reports());
        relay.renew(heartbeat, now, lease_ends);
        let drains = relay.is_draining();
        self.settle(place, before, now);
        match status {
            Status::Registered => self.events.push(PoolEvent::Online(*node)),
            Status::Suspect | Status::Offline if drains => self.events.push(PoolEvent::Draining(*node)),
            Status::Suspect | Status::Offline => self.events.push(PoolEvent::Back(*node)),
            Status::Online | Status::Draining | Status::Left | Status::Unknown => {}
        }
        // Of two who confirmed each other both were wrong, or liars could evict relays without end.
        self.disproved(reports, *node, now);
        true
    }

    /// Stops assigning a relay, which wants to leave. `false` if it is not in the pool.
    pub fn drain(&mut self, node: &NodeId, now: Time) -> bool {
        self.depart(node, Status::Draining, now)
    }

    /// Takes a relay out that says goodbye. `false` if it was not in the pool.
    pub fn deregister(&mut self, node: &NodeId, now: Time) -> bool {
        self.depart(node, Status::Left, now)
    }

    /// Takes note that a relay's connection to the bootstrap broke: if a neighbour reported it down lately, it is.
    pub fn cut_off(&mut self, node: &NodeId, now: Time) {
        let window = self.config.report_window;
        let Some(relay) = self.get(node).filter(|relay| !relay.is_gone()) else { return };
        if relay.is_reported(now, window) {
            return self.set_status(node, Status::Offline, now);
        }
        self.update(node, now, |relay| relay.cut_off = true);
    }

    /// Takes note that a relay is connected to the bootstrap again.
    pub fn connected(&mut self, node: &NodeId) {
        if let Some(relay) = self.by_id(node) {
            relay.cut_off = false;
        }
    }

    /// Counts a flow that will soon lead over this relay, until its next heartbeat tells how many there are.
    pub fn assign(&mut self, node: &NodeId) {
        if let Some(relay) = self.by_id(node) {
            relay.assigned = relay.assigned.saturating_add(1);
        }
    }

    /// What has happened since the last call.
    pub fn take_events(&mut self) -> Vec<PoolEvent> {
        std::mem::take(&mut self.events)
    }

    /// How many leases have ended since the last call.
    pub fn take_expired(&mut self) -> u32 {
        std::mem::take(&mut self.expired)
    }

    /// How many relays there are.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Counts { registered: count(self.relays.len()), online: count(self.assignable), expired: self.expired }
    }

    /// How many relays have this status.
    #[must_use]
    pub fn count(&self, status: Status) -> usize {
        self.statuses.get(&status).copied().unwrap_or(0)
    }

    /// Since when self-preservation has kept silent relays in the pool, if it does.
    #[must_use]
    pub const fn preserving_since(&self) -> Option<Time> {
        self.preservation.since()
    }

    /// The relay with this identity.
    #[must_use]
    pub fn get(&self, node: &NodeId) -> Option<&Relay> {
        self.place(node).map(|place| self.at(place))
    }

    /// All relays, those included that are gone, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &Relay> {
        self.relays.iter()
    }

    /// The relays that may be assigned to chains, in no particular order.
    #[must_use]
    pub fn assignable(&self) -> &[Relay] {
        self.relays.get(..self.assignable).unwrap_or_default()
    }

    /// Assignable relays drawn at random, in proportion to their capacities; some may be the same. Empty if there is none with
    /// any.
    ///
    /// Relays are drawn evenly, and each is kept by chance, as its capacity says; many at a time, so that the memory of a large
    /// pool answers for all of them at once.
    pub fn sample<const N: usize>(&self, rng: &mut impl rand::Rng) -> [Option<&Relay>; N] {
        let mut sample = [None; N];
        let Some((largest, _)) = self.capacities.last_key_value().filter(|(largest, _)| **largest > 0) else {
            return sample;
        };
        let mut drawn = [(0, 0); ROUND];
        let mut slots = sample.iter_mut();
        for _ in 0..MAX_ROUNDS {
            drawn = std::array::from_fn(|_| {
                (rng.random_range(0..self.assignable), rng.random_range(0..*largest))
            });
            let weights = drawn.map(|(place, _)| self.weights.get(place).copied().unwrap_or(0));
            let kept = drawn.iter().zip(weights).filter(|((_, least), weight)| least < weight);
            // In this order, as a slot that is taken is to be filled.
            kept.zip(&mut slots).for_each(|(((place, _), _), slot)| *slot = self.relays.get(*place));
            if slots.len() == 0 {
                break;
            }
        }
        // One relay has nearly all of the capacity.
        slots.zip(drawn).for_each(|(slot, (place, _))| *slot = self.relays.get(place));
        sample
    }

    /// Up to `count` good relays drawn at random from those that are in none of these zones and subnets, whatever their
    /// capacity. Some of them may be the same.
    pub fn draw_apart(
        &self,
        apart: &Apart<'_>,
        count: usize,
        rng: &mut impl rand::Rng,
        good: impl Fn(&Relay) -> bool,
    ) -> Vec<&Relay> {
        let is_good = |node: &NodeId| self.get(node).is_some_and(&good);
        let drawn = self.domains.draw(apart, count, rng, is_good);
        drawn.iter().filter_map(|node| self.get(node)).collect()
    }

    /// Relays that are not gone.
    fn population(&self) -> usize {
        self.relays.len() - self.gone.len()
    }

    fn place(&self, node: &NodeId) -> Option<usize> {
        self.places.get(node).copied()
    }

    /// To change what decides about none of the indices.
    fn by_id(&mut self, node: &NodeId) -> Option<&mut Relay> {
        self.place(node).and_then(|place| self.relays.get_mut(place))
    }

    fn at(&self, place: usize) -> &Relay {
        self.relays.get(place).expect("places lead to relays")
    }

    fn depart(&mut self, node: &NodeId, status: Status, now: Time) -> bool {
        let Some(relay) = self.get(node).filter(|relay| !relay.is_gone()) else { return false };
        if relay.status != status {
            self.set_status(node, status, now);
        }
        true
    }

    fn set_status(&mut self, node: &NodeId, status: Status, now: Time) {
        let node = *node;
        let forget_at = now + self.config.forget_after;
        let report = self.get(&node).and_then(Relay::report).filter(|_| status == Status::Offline);
        if let Some(report) = report {
            // It was right: the report is not held against it any more.
            self.reporters.settled(report.reporter, &node);
        }
        self.update(&node, now, |relay| relay.set_status(status, forget_at));
        self.expired = self.expired.saturating_add(u32::from(status == Status::Offline));
        self.events.push(match status {
            Status::Registered | Status::Online | Status::Unknown => PoolEvent::Online(node),
            Status::Suspect => PoolEvent::Suspect(node),
            Status::Draining => PoolEvent::Draining(node),
            Status::Offline => PoolEvent::Offline(node),
            Status::Left => PoolEvent::Left(node),
        });
    }

    /// Frees a place for a newcomer if all are taken.
    fn make_room(&mut self, now: Time) -> Result<(), PoolFull> {
        self.expire(now);
        if self.relays.len() < self.config.max_relays {
            return Ok(());
        }
        let (_, longest_gone) = self.gone.first().copied().ok_or(PoolFull)?;
        self.forget(&longest_gone);
        Ok(())
    }

    fn forget(&mut self, node: &NodeId) {
        let Some(place) = self.place(node) else { return };
        let relay = self.at(place);
        self.leave(place, Kind::of(relay), relay.queued_at);
        // To leave the indices may have moved it.
        let place = self.place(node).unwrap_or(place);
        self.exchange(place, self.relays.len() - 1);
        self.relays.pop();
        self.weights.pop();
        self.places.remove(node);
        self.events.push(PoolEvent::Forgotten(*node));
    }
}

#[cfg(test)]
mod tests;
