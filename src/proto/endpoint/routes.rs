//! The routes that an origin keeps, so that it need not ask a bootstrap for one, or can do without.
//!
//! For each destination it keeps a few: what plans gave it, in use or not, and among them a *spare* that shares no relay
//! with the chain in use. A new flow takes one that has not expired, when no bootstrap answers; a rebuild takes the spare at
//! once. Of several the best is one that has not led nowhere, whose relays did not fail lately, and that was planned last.
//!
//! Bounds: destinations ([`MAX_DESTINATIONS`]: the one that was used longest ago goes), routes of each ([`MAX_ROUTES`]: the
//! worst goes), relays that failed ([`MAX_FAILED`]: the earliest goes).

use super::Destination;
use crate::failure_memory::{Failure, FailureMemory, Ground};
use crate::id::{ChainId, NodeId};
use crate::record::{Record, Route};
use crate::time::{NetworkTime, Time};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

/// Destinations that routes are kept for.
pub const MAX_DESTINATIONS: usize = 32;
/// Routes that are kept for each.
pub const MAX_ROUTES: usize = 4;
/// Relays that failed, and for how long they count as doubtful: longer than for a flow's plans, as nobody looks a kept
/// route over before it is taken.
const MAX_FAILED: usize = 64;
const DOUBTFUL_FOR: Duration = Duration::from_secs(60);

/// A route and where it leads, as the shell stores it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Where it leads.
    pub to: Destination,
    /// It.
    pub route: Route,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Routes {
    known: BTreeMap<Destination, Known>,
    time: NetworkTime,
    failed: FailureMemory,
    uses: u64,
    /// The earliest [`Known::spare_due`].
    next_due: Option<Time>,
    /// Whether there is something that the shell has not stored.
    pub(super) changed: bool,
}

impl Default for Routes {
    fn default() -> Self {
        Self {
            known: BTreeMap::new(),
            time: NetworkTime::default(),
            failed: FailureMemory::new(MAX_FAILED, DOUBTFUL_FOR),
            uses: 0,
            next_due: None,
            changed: false,
        }
    }
}

#[derive(Debug, Default)]
struct Known {
    routes: Vec<Cached>,
    used: u64,
    /// When a spare is to be looked for.
    spare_due: Option<Time>,
}

#[derive(Debug)]
struct Cached {
    route: Route,
    chain: ChainId,
    /// Who may serve each hop.
    hops: Vec<Vec<NodeId>>,
    kept_at: Time,
    expires: Time,
    /// When it led nowhere.
    dead_since: Option<Time>,
}

/// What a flow goes over now, and must not go over again.
#[derive(Clone, Debug)]
pub(super) struct InUse {
    pub(super) chain: ChainId,
    pub(super) target: NodeId,
    /// Who may serve each hop, whoever serves it first.
    pub(super) hops: Vec<Vec<NodeId>>,
}

impl InUse {
    pub(super) fn relays(&self) -> impl Iterator<Item = NodeId> {
        self.hops.iter().flatten().copied()
    }

    pub(super) fn serving(&self) -> impl Iterator<Item = NodeId> {
        self.hops.iter().filter_map(|hop| hop.first().copied())
    }
}

impl Cached {
    fn new(route: Route, now: Time) -> Option<Self> {
        let mut hops: Vec<Vec<NodeId>> =
            route.open()?.iter().map(|hop| hop.iter().map(|candidate| candidate.node).collect()).collect();
        // The last hop is the target's, whom every route to it shares.
        hops.pop();
        let expires = route.records.iter().map(|record| record.scope.expires).min()?;
        let chain = route.scope()?.chain;
        Some(Self { route, chain, hops, kept_at: now, expires, dead_since: None })
    }

    fn shared(&self, with: &InUse) -> usize {
        self.hops.iter().flatten().filter(|node| with.relays().any(|used| used == **node)).count()
    }
}

impl Routes {
    /// Routes expire by this.
    pub(super) const fn set_time(&mut self, time: NetworkTime) {
        self.time = time;
    }

    /// A plan gave a route. Those to another node of that name lead nowhere any more.
    pub(super) fn keep(&mut self, to: &Destination, route: Route, now: Time) {
        let Some(cached) = Cached::new(route, now) else { return };
        let time = self.time;
        self.uses += 1;
        let known = self.known.entry(to.clone()).or_default();
        known.used = self.uses;
        known.routes.retain(|old| {
            old.route.target == cached.route.target && old.chain != cached.chain && old.expires > time.at(now)
        });
        known.routes.push(cached);
        if known.routes.len() > MAX_ROUTES {
            let rank = |(place, old): &(usize, &Cached)| (old.dead_since.is_none(), old.kept_at, *place);
            let worst = known.routes.iter().enumerate().min_by_key(rank).map(|(place, _)| place);
            worst.map(|place| known.routes.remove(place));
        }
        if self.known.len() > MAX_DESTINATIONS {
            let oldest = self.known.iter().min_by_key(|(_, known)| known.used).map(|(to, _)| to.clone());
            oldest.map(|to| self.known.remove(&to));
            self.next_due = self.earliest_due();
        }
        self.changed = true;
    }

    /// A flow's chain has these records now.
    pub(super) fn update(&mut self, to: &Destination, chain: ChainId, records: &[Record], now: Time) {
        let routes = self.known.get_mut(to).map(|known| &mut known.routes);
        let Some(cached) = routes.and_then(|routes| routes.iter_mut().find(|cached| cached.chain == chain))
        else {
            return;
        };
        if cached.route.records != records {
            let route = Route { records: records.to_vec(), ..cached.route.clone() };
            if let Some(fresh) = Cached::new(route, now) {
                *cached = fresh;
                self.changed = true;
            }
        }
    }

    /// Over this chain nobody could be reached.
    pub(super) fn led_nowhere(&mut self, to: &Destination, chain: ChainId, now: Time) {
        let routes = self.known.get_mut(to).into_iter().flat_map(|known| &mut known.routes);
        routes.filter(|cached| cached.chain == chain).for_each(|cached| cached.dead_since = Some(now));
    }

    /// A relay failed.
    pub(super) fn note_failed(&mut self, node: NodeId, ground: Ground, now: Time) {
        self.failed.note(node, ground, now);
    }

    /// A relay that failed is heard again.
    pub(super) fn note_alive(&mut self, node: NodeId) {
        self.failed.forgive(node);
    }

    /// Relays that failed lately.
    pub(super) fn failed(&self, now: Time) -> impl Iterator<Item = &Failure> {
        self.failed.iter(now)
    }

    /// Hops of a route that nobody serves, as far as is known.
    fn dead_hops(&self, cached: &Cached, now: Time) -> usize {
        cached.hops.iter().filter(|hop| hop.iter().all(|node| self.failed.get(*node, now).is_some())).count()
    }

    /// The best route for a new flow.
    pub(super) fn for_new_flow(&self, to: &Destination, now: Time) -> Option<Route> {
        let live = self.of(to).filter(|cached| cached.expires > self.time.at(now));
        // `None` sorts first, so routes that led nowhere come last.
        let rank =
            |cached: &&Cached| (cached.dead_since, self.dead_hops(cached, now), Reverse(cached.kept_at));
        live.min_by_key(rank).map(|cached| cached.route.clone())
    }

    /// The best other route for a flow that has been open, when there is no better way; expired or not.
    pub(super) fn for_rebuild(&self, to: &Destination, used: &InUse, now: Time) -> Option<Route> {
        let rank = |cached: &&Cached| {
            let (dead, shared) = (self.dead_hops(cached, now), cached.shared(used));
            (cached.dead_since, dead, shared, Reverse(cached.kept_at))
        };
        self.others(to, used).min_by_key(rank).map(|cached| cached.route.clone())
    }

    /// A route that shares no relay with the one in use and seems good.
    pub(super) fn spare(&self, to: &Destination, used: &InUse, now: Time) -> Option<Route> {
        let is_good = |cached: &&Cached| {
            let alive = cached.dead_since.is_none() && self.dead_hops(cached, now) == 0;
            alive && cached.expires > self.time.at(now) && cached.shared(used) == 0
        };
        let good = self.others(to, used).filter(is_good);
        good.max_by_key(|cached| cached.kept_at).map(|cached| cached.route.clone())
    }

    /// Until when there is a spare that is good enough; `None` if there is none.
    pub(super) fn spare_until(
        &self,
        to: &Destination,
        used: &InUse,
        life: Duration,
        now: Time,
    ) -> Option<Time> {
        let chain = self.spare(to, used, now)?.scope()?.chain;
        let spare = self.of(to).find(|cached| cached.chain == chain)?;
        let renew = spare.expires.since(self.time.at(spare.kept_at)) / 3 * 2;
        Some(spare.kept_at + renew.min(life))
    }

    fn of(&self, to: &Destination) -> impl Iterator<Item = &Cached> {
        self.known.get(to).into_iter().flat_map(|known| &known.routes)
    }

    fn others(&self, to: &Destination, used: &InUse) -> impl Iterator<Item = &Cached> {
        self.of(to).filter(|cached| cached.chain != used.chain && cached.route.target == used.target)
    }

    // ---- when to look for a spare ----

    /// A spare is to be looked for then, or not for now.
    pub(super) fn set_spare_due(&mut self, to: &Destination, due: Option<Time>) {
        if let Some(known) = self.known.get_mut(to) {
            known.spare_due = due;
            self.next_due = self.earliest_due();
        }
    }

    /// The destinations for which a spare is to be looked for now.
    pub(super) fn take_spare_due(&mut self, now: Time) -> Vec<Destination> {
        if self.next_due.is_none_or(|due| due > now) {
            return Vec::new();
        }
        let is_due = |known: &mut Known| known.spare_due.take_if(|due| *due <= now).is_some();
        let due = self.known.iter_mut().filter_map(|(to, known)| is_due(known).then(|| to.clone())).collect();
        self.next_due = self.earliest_due();
        due
    }

    fn earliest_due(&self) -> Option<Time> {
        self.known.values().filter_map(|known| known.spare_due).min()
    }

    /// When to look again.
    pub(super) const fn poll_timeout(&self) -> Option<Time> {
        self.next_due
    }

    // ---- for the shell ----

    /// All routes that have not expired, those of the destination that was used last at the end.
    pub(super) fn all(&self, now: Time) -> Vec<Kept> {
        let mut known: Vec<(&Destination, &Known)> = self.known.iter().collect();
        known.sort_by_key(|(_, known)| known.used);
        let live = |(to, known): (&Destination, &Known)| {
            let routes = known.routes.iter().filter(|cached| cached.expires > self.time.at(now));
            routes.map(|cached| Kept { to: to.clone(), route: cached.route.clone() }).collect::<Vec<Kept>>()
        };
        known.into_iter().flat_map(live).collect()
    }
}

#[cfg(test)]
mod tests;
