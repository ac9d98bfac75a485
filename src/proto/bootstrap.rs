//! The bootstrap's machine: it answers members' requests about the pool, and plans chains.
//!
//! Its only state is the pool and the targets, and nodes restore both by registering again. It keeps no table of the chains that it
//! planned. A node that wants a hop replaced sends the records (see [`record`](super::record)), and any bootstrap with the network
//! secret can check that they are genuine. So it may be restarted at any time: flows go on without it, and the
//! [`Registration`]s that its driver stored give every node its place back, for one lease ([`Bootstrap::restore`]).
//!
//! Invariants: a request's bounds are checked before anything else; a refused request changes nothing; only members' own requests and
//! [`Bootstrap::handle_timeout`] end leases, reading never does. A response tells a relay's address only to its future neighbours:
//! candidates are sealed in the records.
//!
//! It does not know how requests arrive, or who may send them: the driver has checked the sender's certificate.

mod bounds;
pub mod cadence;
mod chains;
mod departed;
pub mod kept;
mod listing;

pub use kept::Registration;
pub use listing::relay_info;

use super::crypto::Key;
use super::families::Families;
use super::id::{BootId, NodeId};
use super::planner::Planner;
use super::pool::targets::{AnnounceError, Targets};
use super::pool::{self, Pool, PoolEvent, Relay, RelayOffer};
use super::record::{Candidate, MAX_KEY_EPOCHS, relay_key};
use super::rpc::{DenyReason, Heartbeat, Lease, Offer, Refusal, Request, Response, Status};
use super::time::{NetworkTime, Time};
use chains::Replacement;
use departed::Departed;
use rand::RngExt;
use rand::rngs::StdRng;
use std::collections::BTreeSet;
use std::time::Duration;

/// The bootstrap's policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Those of the pool, the duration of leases among them.
    pub pool: pool::Config,
    /// How often nodes send a heartbeat: several times within a lease. Zero for no monitoring: no lease ends for silence, and
    /// nodes come only for new keys.
    pub heartbeat: Duration,
    /// How often the driver has the machine look for what is due, whether or not a timer says that anything is.
    pub sweep: Duration,
    /// How long new flows may start on a record.
    pub record_lifetime: Duration,
    /// How long relays' keys are in use; key epochs are counted from the Unix epoch in this unit.
    pub key_epoch: Duration,
}

/// For how many key epochs a node is not heard without monitoring: few of as many keys as it has.
const KEY_EPOCHS_UNHEARD: u32 = 8;
/// A lease that does not end for as long as anybody will care.
const ENDLESS: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Shorter than this no key epoch, and no route's life, can be.
const SHORTEST: Duration = Duration::from_secs(1);

/// Why policies make no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// Nodes could not keep up.
    #[error(
        "a key epoch of {key_epoch:?}, a route lifetime of {route:?} and a sweep every {sweep:?}: each must be at least \
         {SHORTEST:?}"
    )]
    TooShort {
        /// How often the driver looks for what is due.
        sweep: Duration,
        /// How long a key epoch is.
        key_epoch: Duration,
        /// How long new flows may start on a record.
        route: Duration,
    },
    /// Nodes that live would lose their places.
    #[error(
        "a lease of {lease:?} with a heartbeat every {heartbeat:?}: it must last for at least two of them; or turn monitoring off \
         with a heartbeat of 0"
    )]
    ShortLease {
        /// How long a lease is.
        lease: Duration,
        /// How often nodes send a heartbeat.
        heartbeat: Duration,
    },
    /// More keys than a node keeps.
    #[error(
        "a route lifetime of {route:?} spans too many key epochs of {key_epoch:?}: with leases of {lease:?}, a key epoch must \
         be at least {least:?}"
    )]
    TooManyEpochs {
        /// How long new flows may start on a record.
        route: Duration,
        /// How long a key epoch is.
        key_epoch: Duration,
        /// How long a lease is.
        lease: Duration,
        /// The shortest key epoch that goes with the two.
        least: Duration,
    },
}

impl Config {
    /// Whether relays can hold the key to every record that has not expired.
    ///
    /// # Errors
    /// [`PolicyError`] if not.
    pub fn validate(&self) -> Result<(), PolicyError> {
        let (route, key_epoch, heartbeat) = (self.record_lifetime, self.key_epoch, self.heartbeat);
        // Without monitoring nodes ask for keys before those that they have are used up.
        let lease = if heartbeat.is_zero() { key_epoch } else { self.pool.lease };
        if lease < heartbeat * 2 {
            return Err(PolicyError::ShortLease { lease, heartbeat });
        }
        if route.min(key_epoch).min(self.sweep) < SHORTEST {
            return Err(PolicyError::TooShort { key_epoch, route, sweep: self.sweep });
        }
        // One begun before the first, one after the last, and one that comes early.
        let epochs = u32::try_from(MAX_KEY_EPOCHS - 3).unwrap_or(1);
        let least = (route + lease) / epochs;
        if key_epoch < least {
            return Err(PolicyError::TooManyEpochs { route, key_epoch, lease, least });
        }
        Ok(())
    }
}

const DAY: Duration = Duration::from_secs(24 * 3600);

impl Default for Config {
    fn default() -> Self {
        Self {
            pool: pool::Config::default(),
            heartbeat: Duration::from_secs(10),
            sweep: Duration::from_secs(15 * 60),
            record_lifetime: DAY * 7,
            key_epoch: DAY,
        }
    }
}

/// The machine. See the module's documentation.
#[derive(Debug)]
pub struct Bootstrap {
    config: Config,
    secret: Key,
    rng: StdRng,
    started_at: Time,
    /// What the wall clock says, which may be set at any time: other machines compare what this one issues with theirs.
    time: NetworkTime,
    pool: Pool,
    targets: Targets,
    revoked: BTreeSet<NodeId>,
    departed: Departed,
    /// Who was restored and has not registered since.
    restored: BTreeSet<NodeId>,
}

impl Bootstrap {
    /// A bootstrap that knows nobody yet.
    #[must_use]
    pub fn new(mut config: Config, network_secret: Key, rng: StdRng, now: Time) -> Self {
        if config.heartbeat.is_zero() {
            config.pool.lease = ENDLESS;
        }
        Self {
            config,
            secret: network_secret,
            rng,
            started_at: now,
            time: NetworkTime::default(),
            pool: Pool::new(config.pool),
            targets: Targets::new(config.pool.lease, config.pool.max_targets),
            revoked: BTreeSet::new(),
            departed: Departed::default(),
            restored: BTreeSet::new(),
        }
    }

    /// The wall clock says `wall` now. What is issued expires by it; leases and everything else go by `now`, which never jumps.
    pub const fn set_clock(&mut self, wall: Time, now: Time) {
        self.time.hear(wall, now);
    }

    /// Answers a question of the member `from`.
    pub fn answer(&mut self, from: NodeId, request: Request, now: Time) -> Response {
        self.try_answer(from, request, now).unwrap_or_else(Response::Refused)
    }

    /// A member is connected, over a first connection.
    pub fn connected(&mut self, node: &NodeId) {
        self.pool.connected(node);
    }

    /// The connection of a member broke, over which it sent its heartbeats.
    pub fn cut_off(&mut self, node: &NodeId, now: Time) {
        self.pool.cut_off(node, now);
    }

    /// The process that announced a target is gone: its names are free before its lease ends.
    pub fn vacate(&mut self, node: &NodeId) {
        self.targets.deregister(node);
    }

    /// Does what is due. Afterwards [`Bootstrap::poll_timeout`] lies after `now`.
    pub fn handle_timeout(&mut self, now: Time) {
        let was_preserving = self.pool.preserving_since().is_some();
        self.pool.expire(now);
        // When most relays seem silent, the targets' silence means as little.
        if self.pool.preserving_since().is_some() {
            return;
        }
        // They could not be heard, and would lose their names the moment that it ends.
        if was_preserving {
            self.targets.spare(now);
        }
        self.targets.expire(now);
    }

    /// When something will be due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        let preserving = self.pool.preserving_since().is_some();
        // While the pool preserves itself no target's lease ends: to wake for one would be in vain.
        let targets = self.targets.poll_timeout().filter(|_| !preserving);
        [self.pool.poll_timeout(), targets].into_iter().flatten().min()
    }

    /// What has happened since the last call, for the log.
    pub fn take_events(&mut self) -> Vec<PoolEvent> {
        let mut events = self.pool.take_events();
        events.extend(self.targets.take_events());
        events
    }

    /// The relays.
    #[must_use]
    pub const fn pool(&self) -> &Pool {
        &self.pool
    }

    /// The targets.
    #[must_use]
    pub const fn targets(&self) -> &Targets {
        &self.targets
    }

    /// Refuses a node from now on, and forgets what it registered.
    pub fn revoke(&mut self, node: NodeId, now: Time) {
        self.revoked.insert(node);
        self.pool.deregister(&node, now);
        self.targets.deregister(&node);
    }

    fn try_answer(&mut self, from: NodeId, request: Request, now: Time) -> Result<Response, Refusal> {
        if self.revoked.contains(&from) {
            return Err(DenyReason::Revoked.into());
        }
        bounds::check(&request)?;
        match request {
            Request::Register { name, boot, offer } => {
                self.register(from, name, offer, boot, now).map(Response::Lease)
            }
            Request::Heartbeat(heartbeat) => self.heartbeat(from, &heartbeat, now).map(Response::Lease),
            Request::Deregister { boot } => self.deregister(from, boot, now),
            Request::Drain => self.drain(from, now),
            Request::ReportDown { node } => {
                self.pool.report_down(&node, from, now);
                Ok(self.noted(now))
            }
            Request::ReportUnreached { node } => {
                self.pool.report_unreached(&node, from, now);
                Ok(self.noted(now))
            }
            Request::ReportUp { node } => {
                self.pool.report_up(&node, from, now);
                Ok(Response::Done)
            }
            Request::ReportReached { node } => {
                self.pool.report_reached(&node, from, now);
                Ok(Response::Done)
            }
            Request::Attachments { count, exclude, dials } => {
                self.attachments((from, dials), count, exclude, now).map(Response::Relays)
            }
            Request::Plan { target, hops, exclude, dials } => {
                let (planned, primaries) = self.plan((from, dials), &target, hops, exclude, now)?;
                primaries.iter().for_each(|node| self.pool.assign(node));
                Ok(Response::Planned(Box::new(planned)))
            }
            Request::Spare { target, hops, exclude, dials } => {
                let (planned, _) = self.plan((from, dials), &target, hops, exclude, now)?;
                Ok(Response::Planned(Box::new(planned)))
            }
            Request::Replace { hop, records, active, exclude, dials } => {
                let replacement = Replacement { hop, records: &records, active, exclude, dials };
                self.replace(from, replacement, now).map(|record| Response::Replaced(Box::new(record)))
            }
            Request::Renew { records } => self.renew(from, &records, now).map(Response::Renewed),
            Request::List => Ok(Response::Listing(Box::new(self.listing(now)))),
            Request::Unknown => Err(Refusal::UnknownRequest),
        }
    }

    fn register(
        &mut self,
        from: NodeId,
        name: String,
        offer: Offer,
        boot: BootId,
        now: Time,
    ) -> Result<Lease, Refusal> {
        // First, as leases that have ended free names and places.
        self.handle_timeout(now);
        if self.departed.has_left(&from, boot) {
            return Err(Refusal::UnknownNode);
        }
        let throttled = Refusal::Throttled { retry_after: self.interval() };
        match offer {
            Offer::Relay { addresses, zone, capacity, version, capabilities } => {
                let offer = RelayOffer { name, addresses, zone, capacity, version, capabilities };
                self.pool.register_process(from, boot, offer, now).map_err(|_| throttled)?;
            }
            Offer::Target { names, attachments } => {
                let attached = attachments.clone();
                self.targets.register(from, names, attachments, now).map_err(|error| match error {
                    AnnounceError::NameTaken(name) => Refusal::NameTaken { name },
                    AnnounceError::Full(_) => throttled,
                })?;
                // A target has dialled the relays that it is attached to.
                attached.iter().for_each(|relay| self.pool.reached(relay));
            }
            Offer::Unknown => return Err(Refusal::UnknownRequest),
        }
        self.restored.remove(&from);
        // The first heartbeats of nodes that registered at once (after a restart) come spread out.
        let interval = self.interval();
        Ok(self.lease(from, None, (interval / 10, interval), now))
    }

    fn heartbeat(&mut self, from: NodeId, heartbeat: &Heartbeat, now: Time) -> Result<Lease, Refusal> {
        // Before leases end, as this one is renewed.
        let as_relay = self.pool.heartbeat(&from, heartbeat, now);
        let as_target = self.targets.heartbeat(&from, now);
        self.handle_timeout(now);
        if !as_relay && !as_target {
            return Err(Refusal::UnknownNode);
        }
        let interval = self.interval();
        Ok(self.lease(from, heartbeat.key_epoch, (interval * 9 / 10, interval * 11 / 10), now))
    }

    fn deregister(&mut self, from: NodeId, boot: BootId, now: Time) -> Result<Response, Refusal> {
        self.departed.note(from, boot, now);
        self.restored.remove(&from);
        let as_relay = self.pool.deregister(&from, now);
        let as_target = self.targets.deregister(&from);
        self.handle_timeout(now);
        if as_relay || as_target { Ok(Response::Done) } else { Err(Refusal::UnknownNode) }
    }

    fn drain(&mut self, from: NodeId, now: Time) -> Result<Response, Refusal> {
        self.handle_timeout(now);
        if self.pool.drain(&from, now) { Ok(Response::Done) } else { Err(Refusal::UnknownNode) }
    }

    /// Has the relay of this name or id drain: it hears of it with the answer to its next heartbeat. For whoever runs the
    /// network; the right to it was checked.
    ///
    /// # Errors
    /// [`Refusal::UnknownRelay`] if none in the pool is called so, [`Refusal::AmbiguousRelay`] if several are.
    pub fn order_drain(&mut self, relay: &str, now: Time) -> Result<NodeId, Refusal> {
        let named = |known: &&Relay| {
            !known.is_gone() && (known.offer().name == relay || known.node.to_string() == relay)
        };
        let found: Vec<NodeId> = self.pool.iter().filter(named).map(|known| known.node).take(2).collect();
        let node = match found.as_slice() {
            [only] => *only,
            [] => return Err(Refusal::UnknownRelay { name: relay.to_owned() }),
            _ => return Err(Refusal::AmbiguousRelay { name: relay.to_owned() }),
        };
        self.drain(node, now)?;
        Ok(node)
    }

    /// A report changed the pool.
    fn noted(&mut self, now: Time) -> Response {
        self.handle_timeout(now);
        Response::Done
    }

    fn attachments(
        &mut self,
        (from, dials): (NodeId, Families),
        count: u8,
        mut exclude: Vec<NodeId>,
        now: Time,
    ) -> Result<Vec<Candidate>, Refusal> {
        exclude.push(from);
        let has = self.targets.get(&from).map(|target| target.attachments.as_slice()).unwrap_or_default();
        let mut planner = Planner::new(&self.pool, now, &mut self.rng).dialling(dials);
        let relays = planner.attachments(count.into(), has, &exclude);
        if relays.is_empty() {
            let any = planner.dialling(Families::BOTH).attachments(1, has, &exclude);
            return Err(if any.is_empty() {
                Refusal::PoolTooSmall { need: count.into(), have: 0 }
            } else {
                Refusal::OutOfReach { dials }
            });
        }
        Ok(relays.into_iter().map(candidate).collect())
    }

    /// When nodes are to be heard again. Without monitoring they come for keys alone, long before the last one is used up.
    fn interval(&self) -> Duration {
        let heartbeat = self.config.heartbeat;
        if heartbeat.is_zero() { self.config.key_epoch * KEY_EPOCHS_UNHEARD } else { heartbeat }
    }

    /// A lease with the keys of later epochs than the one known, and a heartbeat at some time between two.
    ///
    /// They are those of each epoch whose records may not have expired, as a relay that restarted may be named in them, and
    /// of those that begin before the lease ends: no record is sealed to a key that its relay does not have yet.
    fn lease(
        &mut self,
        node: NodeId,
        known: Option<u32>,
        (earliest, latest): (Duration, Duration),
        now: Time,
    ) -> Lease {
        let first = self.key_epoch(now - self.config.record_lifetime);
        let last = self.key_epoch(now + self.config.pool.lease).max(self.key_epoch(now).saturating_add(1));
        // Of an epoch that is yet to come nothing can be known, unless epochs were longer then.
        let known = known.filter(|known| *known <= last.saturating_add(1));
        // Without monitoring the lease is endless, and a node gets as many keys as it keeps.
        let needed = (first..=last).filter(|epoch| Some(*epoch) > known).take(MAX_KEY_EPOCHS);
        let counts = self.pool.counts();
        self.pool.take_expired();
        Lease {
            duration: self.config.pool.lease,
            next_heartbeat: self.between(earliest, latest),
            keys: needed.map(|epoch| (epoch, relay_key(&self.secret, &node, epoch))).collect(),
            counts,
            drain: self.pool.get(&node).is_some_and(|relay| relay.status == Status::Draining),
            now: self.time.at(now),
            restored: self.restored.contains(&node),
        }
    }

    fn key_epoch(&self, now: Time) -> u32 {
        let length = u64::try_from(self.config.key_epoch.as_micros()).unwrap_or(u64::MAX);
        u32::try_from(now.as_micros() / length.max(1)).unwrap_or(u32::MAX)
    }

    fn between(&mut self, earliest: Duration, latest: Duration) -> Duration {
        let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.rng.random_range(micros(earliest)..=micros(latest)))
    }
}

/// A relay as neighbours know it.
fn candidate(relay: &Relay) -> Candidate {
    let offer = relay.offer();
    Candidate { node: relay.node, name: offer.name.clone(), addresses: offer.addresses.clone() }
}

impl From<DenyReason> for Refusal {
    fn from(reason: DenyReason) -> Self {
        Self::Denied { reason }
    }
}

#[cfg(test)]
mod tests;
