//! The planner: which relays serve which hop.
//!
//! A chain has for each hop a *primary* and a *backup*. The last hop's are relays that the target is attached to, the
//! others' are drawn from the pool: of [`SAMPLE`] relays drawn by capacity the least loaded (the power of d choices,
//! Mitzenmacher 2001), which costs the same in a pool of any size. In order of importance a relay
//! 1. is not on the chain yet and has room (nothing makes up for that, but that a relay may stand by for two hops where there is no other),
//! 2. can be reached, as far as others have found out lately,
//! 3. fails independently: a backup of its primary, then every relay of the other primaries; sharing a zone is bad,
//!    sharing a subnet worse, sharing a host worst, but better than no relay,
//! 4. as a backup, has been there for longer: who has stayed long will stay (machines' lifetimes are heavy-tailed),
//! 5. is no newcomer that has not answered the first flow that it was given,
//! 6. has little load for its capacity.
//!
//! Neighbours need an IP family in common. So a chain keeps to one that the origin dials and the target's relays have, or
//! crosses from the one to the other at a relay that has both; of these ways the first is taken on which every hop has a backup of its own.
//!
//! Where none of a sample fails independently, one that does is looked for by its domains. When relays are short, all primaries
//! come before the first backup, and the plan says which hops have none. A pool is only called too small after all was looked at.
//!
//! Pure functions of the pool, the time and a generator: planning changes nothing, so whoever carries a plan out must
//! tell the pool (see [`Pool::assign`]). Knows nothing of records or secrets.

mod criteria;

pub use criteria::{Between, fits};

use super::families::Families;
use super::id::NodeId;
use super::planted::{self, Law};
use super::pool::{Apart, Pool, Relay};
use super::rpc::Status;
use super::time::Time;
use criteria::{Criteria, Score};
use rand::Rng;

/// How many relays are drawn for one choice.
pub const SAMPLE: usize = 8;
/// How many of a target's relays are tried for the last hop,
const MAX_ORDERS: usize = 3;
/// and how many hops for crossing from one IP family to the other.
const MAX_CROSSINGS: usize = 3;
/// A pool up to this size is looked at as a whole: that costs as much as drawing.
const SCAN: usize = SAMPLE * 4;

/// A chain without its target.
#[derive(Clone, Debug)]
pub struct Plan<'a> {
    /// Its hops, the first first.
    pub hops: Vec<Hop<'a>>,
}

/// One hop of a [`Plan`].
#[derive(Clone, Copy, Debug)]
pub struct Hop<'a> {
    /// The relay that serves it.
    pub primary: &'a Relay,
    /// The one that takes over when that fails.
    pub backup: Option<&'a Relay>,
}

/// Why there is no plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// None of the target's attachment relays is in the pool.
    #[error("the target is attached to no relay of the pool")]
    NotAttached,
    /// There are fewer relays than hops.
    #[error("{need} relays needed, {have} available")]
    TooSmall {
        /// Relays that the chain needs.
        need: usize,
        /// Relays that could be had.
        have: usize,
    },
    /// There are relays enough, but no path over them that begins with an IP family that the origin dials.
    #[error("no path from the IP families of the origin")]
    OutOfReach,
}

impl Plan<'_> {
    /// How many hops have no backup, and how many another hop's.
    fn lacks(&self) -> (usize, usize) {
        let mut backups: Vec<NodeId> =
            self.hops.iter().filter_map(|hop| hop.backup).map(|relay| relay.node).collect();
        let count = backups.len();
        backups.sort_unstable();
        backups.dedup();
        (self.hops.len() - count, count - backups.len())
    }

    /// The hops without a backup, counted from 1.
    #[must_use]
    pub fn unprotected(&self) -> Vec<u8> {
        (1..).zip(&self.hops).filter(|(_, hop)| hop.backup.is_none()).map(|(number, _)| number).collect()
    }
}

/// Chooses relays of one pool at one moment. See the module's documentation.
#[derive(Debug)]
pub struct Planner<'a, R> {
    pool: &'a Pool,
    now: Time,
    rng: &'a mut R,
    dials: Families,
}

/// In which IP families the links of a chain are: `near` before the hop at which it crosses, `far` after it.
#[derive(Clone, Copy, Debug)]
struct Way {
    near: Families,
    far: Families,
    crossing: usize,
}

impl Way {
    /// Whichever.
    const ANY: Self = Self { near: Families::BOTH, far: Families::BOTH, crossing: 0 };

    /// Those of a chain from an origin that dials these families to these relays of a target, the simple ones first.
    fn all(hops: usize, dials: Families, last: &[&Relay]) -> Vec<Self> {
        let offered = |family: &Families| last.iter().any(|relay| relay.families().meets(*family));
        let mut far: Vec<Families> = Families::BOTH.each().filter(offered).collect();
        far.sort_by_key(|family| !last.first().is_some_and(|relay| relay.families().meets(*family)));
        let kept = far.iter().filter(|family| family.meets(dials));
        let kept = kept.map(|family| Self { near: *family, far: *family, crossing: 0 });
        let others = |far: Families| dials.each().filter(move |near| *near != far);
        let crossed = far.iter().flat_map(|far| others(*far).map(|near| (near, *far)));
        let crossed = crossed.flat_map(|(near, far)| {
            (1..hops).take(MAX_CROSSINGS).map(move |crossing| Self { near, far, crossing })
        });
        kept.chain(crossed).collect()
    }

    /// What the relays of a hop need.
    const fn at(&self, hop: usize) -> Between {
        let before = if hop <= self.crossing { self.near } else { self.far };
        let after = if hop >= self.crossing { self.far } else { self.near };
        [before, after]
    }
}

impl<'a, R: Rng> Planner<'a, R> {
    /// A planner for the pool as it is now, and for whoever can dial both IP families.
    pub const fn new(pool: &'a Pool, now: Time, rng: &'a mut R) -> Self {
        Self { pool, now, rng, dials: Families::BOTH }
    }

    /// The same for whoever dials these.
    #[must_use]
    pub const fn dialling(self, dials: Families) -> Self {
        Self { dials, ..self }
    }

    /// A chain of `hops` relays, none of them in `exclude`, to a target with these attachment relays.
    ///
    /// # Errors
    /// [`PlanError`] if the pool can't supply a primary for each hop.
    pub fn plan(
        &mut self,
        hops: u8,
        attachments: &[NodeId],
        exclude: &[NodeId],
    ) -> Result<Plan<'a>, PlanError> {
        let (hops, last) = (usize::from(hops), attached(self.pool, attachments, exclude));
        let mut best: Option<Plan<'a>> = None;
        for way in Way::all(hops, self.dials, &last) {
            for last in self.orders(&last) {
                let Ok(plan) = self.plan_over(way, hops, &last, exclude) else { continue };
                let lacks = plan.lacks();
                if lacks == (0, 0) {
                    return Ok(plan);
                }
                best = best.filter(|known| known.lacks() <= lacks).or(Some(plan));
            }
        }
        match best {
            Some(plan) => Ok(plan),
            // If there is a chain regardless of families, these are what is in the way.
            None => self.plan_over(Way::ANY, hops, &last, exclude).and(Err(PlanError::OutOfReach)),
        }
    }

    /// In which orders to take the target's relays: the first one serves the last hop, which in a small pool may be a waste, as
    /// no other would do for another hop.
    fn orders(&self, last: &[&'a Relay]) -> Vec<Vec<&'a Relay>> {
        let most = if self.pool.assignable().len() > SCAN { 1 } else { MAX_ORDERS };
        let order = |first: usize| {
            let mut order = last.to_vec();
            order.get_mut(..=first).into_iter().for_each(|front| front.rotate_right(1));
            order
        };
        (0..last.len().min(most)).map(order).collect()
    }

    fn plan_over(
        &mut self,
        way: Way,
        hops: usize,
        last: &[&'a Relay],
        exclude: &[NodeId],
    ) -> Result<Plan<'a>, PlanError> {
        let last: Vec<&'a Relay> = last.iter().filter(|relay| fits(relay, way.at(hops))).copied().collect();
        let (last_primary, spares) = last.split_first().ok_or(PlanError::NotAttached)?;
        let mut taken = exclude.to_vec();
        taken.push(last_primary.node);
        let primaries = self.primaries(way, hops, last_primary, spares, &mut taken)?;
        let serving = taken.clone();
        // For want of others one of them may have become another hop's primary.
        let spare = spares.iter().find(|relay| !taken.contains(&relay.node)).copied();
        taken.extend(spare.map(|relay| relay.node));
        let attachments: Vec<NodeId> = spares.iter().map(|relay| relay.node).collect();
        let mut planned = Vec::with_capacity(primaries.len());
        let (_, before_last) = primaries.split_last().ok_or(PlanError::NotAttached)?;
        for (primary, hop) in before_last.iter().copied().zip(1..) {
            // Better one that stands by for another hop, too, than none.
            let backup = [&taken, &serving]
                .into_iter()
                .find_map(|taken| self.backup(primary, &primaries, taken, &attachments, way.at(hop)));
            taken.extend(backup.map(|relay| relay.node));
            planned.push(Hop { primary, backup });
        }
        planned.push(Hop { primary: last_primary, backup: spare });
        Ok(Plan { hops: planned })
    }

    /// Another relay for a hop that `active` serves, if any: none of `exclude`, and independent of `active` first and of
    /// `others` (the rest of the chain, as far as known) next. Of those that are as good none of `reserved`.
    pub fn replacement(
        &mut self,
        active: Option<&Relay>,
        others: &[&Relay],
        exclude: &[NodeId],
        reserved: &[NodeId],
        between: Between,
    ) -> Option<&'a Relay> {
        let lasting = Criteria { lasting: true, ..Criteria::default() };
        self.choose(&Criteria { exclude, reserved, partner: active, others, between, ..lasting })
    }

    /// Up to `count` relays for a target to attach to, none of them in `exclude`: independent of each other and of those
    /// that it `has`, which come last. Those are the best that anybody can dial.
    pub fn attachments(&mut self, count: usize, has: &[NodeId], exclude: &[NodeId]) -> Vec<&'a Relay> {
        let held = has.iter().filter(|node| !exclude.contains(node)).filter_map(|node| self.pool.get(node));
        let mut others: Vec<&'a Relay> = held.collect();
        let mut taken = exclude.to_vec();
        let mut chosen = Vec::new();
        for _ in 0..count {
            let between = [self.dials, Families::BOTH];
            let (exclude, others_so_far) = (taken.as_slice(), others.as_slice());
            let criteria = Criteria {
                exclude,
                avoid: has,
                others: others_so_far,
                between,
                wide: true,
                ..Criteria::default()
            };
            let Some(relay) = self.choose(&criteria) else { break };
            taken.push(relay.node);
            others.push(relay);
            chosen.push(relay);
        }
        chosen
    }

    /// The primaries of all hops, `last` at the end; they are added to `taken`.
    fn primaries(
        &mut self,
        way: Way,
        hops: usize,
        last: &'a Relay,
        spares: &[&'a Relay],
        taken: &mut Vec<NodeId>,
    ) -> Result<Vec<&'a Relay>, PlanError> {
        let avoid: Vec<NodeId> = spares.iter().map(|relay| relay.node).collect();
        let mut primaries = vec![last];
        while primaries.len() < hops {
            let between = way.at(primaries.len());
            let criteria = Criteria {
                exclude: taken,
                avoid: &avoid,
                others: &primaries,
                between,
                ..Criteria::default()
            };
            let too_small = PlanError::TooSmall { need: hops, have: primaries.len() };
            let relay = self.choose(&criteria).ok_or(too_small)?;
            if !planted::broken(Law::DistinctPrimary) {
                taken.push(relay.node);
            }
            primaries.push(relay);
        }
        primaries.rotate_left(1);
        Ok(primaries)
    }

    /// Those that the target is attached to are reserved: the last hop can be served by no others.
    fn backup(
        &mut self,
        primary: &Relay,
        primaries: &[&Relay],
        taken: &[NodeId],
        attachments: &[NodeId],
        between: Between,
    ) -> Option<&'a Relay> {
        let others: Vec<&Relay> =
            primaries.iter().filter(|other| other.node != primary.node).copied().collect();
        if planted::broken(Law::DistinctBackup) {
            return self.pool.get(&primary.node);
        }
        self.replacement(Some(primary), &others, taken, attachments, between)
    }

    fn choose(&mut self, criteria: &Criteria<'_>) -> Option<&'a Relay> {
        if self.pool.assignable().len() > SCAN
            && let Some(relay) = self.choose_of_sample(criteria)
        {
            return Some(relay);
        }
        let pool = self.pool;
        self.best(pool.assignable().iter(), criteria).map(|(_, relay)| relay)
    }

    fn choose_of_sample(&mut self, criteria: &Criteria<'_>) -> Option<&'a Relay> {
        let pool = self.pool;
        let drawn: [Option<&'a Relay>; SAMPLE] = pool.sample(self.rng);
        // All at first, so that a large pool's memory answers for all at the same time.
        let drawn = drawn.map(|relay| relay.filter(|relay| relay.has_room()));
        let best = self.best(drawn.into_iter().flatten(), criteria);
        if best.is_some_and(|(score, _)| score.is_independent()) {
            return best.map(|(_, relay)| relay);
        }
        let apart = criteria.preferences().into_iter().find_map(|apart| self.best_apart(&apart, criteria));
        [best, apart].into_iter().flatten().min_by_key(|(score, _)| *score).map(|(_, relay)| relay)
    }

    /// The best of a sample of relays that are in none of these domains, if there is one.
    fn best_apart(&mut self, apart: &Apart<'_>, criteria: &Criteria<'_>) -> Option<(Score, &'a Relay)> {
        let pool = self.pool;
        let is_good = |relay: &Relay| {
            criteria.allows(relay) && !relay.is_doubted() && !criteria.avoid.contains(&relay.node)
        };
        let drawn = pool.draw_apart(apart, SAMPLE, self.rng, is_good);
        self.best(drawn.into_iter(), criteria)
    }

    /// Who a relay is, is looked at last, and only if it is better than all before it: that is elsewhere in memory than what
    /// it is weighed by.
    fn best(
        &mut self,
        relays: impl Iterator<Item = &'a Relay>,
        criteria: &Criteria<'_>,
    ) -> Option<(Score, &'a Relay)> {
        let mut best: Option<(Score, &Relay)> = None;
        let mut avoided: Option<(Score, &Relay)> = None;
        for relay in relays.filter(|relay| relay.has_room()) {
            let score = criteria.score(relay, self.now, self.rng.next_u64());
            if best.is_some_and(|(known, _)| known <= score) || !criteria.allows(relay) {
                continue;
            }
            if criteria.avoid.contains(&relay.node) {
                let score = Score { avoided: true, ..score };
                avoided = avoided.filter(|(known, _)| *known <= score).or(Some((score, relay)));
            } else {
                let score = Score { reserved: criteria.reserved.contains(&relay.node), ..score };
                best = best.filter(|(known, _)| *known <= score).or(Some((score, relay)));
            }
        }
        best.or(avoided)
    }
}

/// Those of a target's attachment relays over which it can be reached, in its order. One that is suspect or has no room (a
/// neighbour may have reported it falsely, and it is still attached) is better than none. One that drains takes no new flows.
#[must_use]
pub fn attached<'a>(pool: &'a Pool, attachments: &[NodeId], exclude: &[NodeId]) -> Vec<&'a Relay> {
    let known = attachments.iter().filter(|node| !exclude.contains(node));
    let mut relays: Vec<&Relay> = Vec::new();
    let may_serve = |relay: &&Relay| !relay.is_gone() && relay.status != Status::Draining;
    for relay in known.filter_map(|node| pool.get(node)).filter(may_serve) {
        // A target may have named one twice, and nobody is its own backup.
        if !relays.iter().any(|listed| listed.node == relay.node) {
            relays.push(relay);
        }
    }
    relays.sort_by_key(|relay| unfitness(relay));
    let good = relays.iter().filter(|relay| relay.is_assignable()).count();
    relays.truncate(if good > 0 { good } else { usize::MAX });
    relays
}

/// Why an attachment relay should not be the first choice.
const fn unfitness(relay: &Relay) -> u8 {
    match relay.status {
        Status::Registered | Status::Online if relay.has_room() && !relay.is_doubted() => 0,
        Status::Registered | Status::Online => 1,
        Status::Suspect => 2,
        Status::Draining | Status::Offline | Status::Left | Status::Unknown => 3,
    }
}

#[cfg(test)]
mod tests;
