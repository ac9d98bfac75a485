//! The planner: which relays serve which hop.
//!
//! A chain has for each hop a *primary* and a *backup*. The last hop's are relays that the target is attached to, the
//! others' are drawn from the pool: of [`SAMPLE`] relays drawn by capacity the least loaded (the power of d choices,
//! Mitzenmacher 2001), which costs the same in a pool of any size. In order of importance a relay
//! 1. is not on the chain yet and has room (nothing makes up for that),
//! 2. fails independently: a backup of its primary, then every relay of the other primaries; sharing a zone is bad,
//!    sharing a subnet worse, sharing a host worst, but better than no relay,
//! 3. as a backup, has been there for longer: who has stayed long will stay (machines' lifetimes are heavy-tailed),
//! 4. has little load for its capacity.
//!
//! Where none of a sample fails independently, one that does is looked for by its domains, so it is found if there is one.
//! When relays are short, all primaries come before the first backup, and the plan says which hops have none. A pool is
//! only called too small after all of it was looked at.
//!
//! Pure functions of the pool, the time and a generator: planning changes nothing, so whoever carries a plan out must
//! tell the pool (see [`Pool::assign`]). Knows nothing of records or secrets.

use super::id::NodeId;
use super::planted::{self, Law};
use super::pool::{Apart, Pool, Relay};
use super::rpc::Status;
use super::time::Time;
use rand::Rng;
use std::cmp::Reverse;

/// How many relays are drawn for one choice.
pub const SAMPLE: usize = 8;
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
#[non_exhaustive]
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
}

impl Plan<'_> {
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
}

/// What is asked of a relay.
#[derive(Clone, Copy, Debug, Default)]
struct Want<'w> {
    /// These will not do.
    exclude: &'w [NodeId],
    /// These only if there is no other.
    avoid: &'w [NodeId],
    /// It should fail independently of this one most of all,
    partner: Option<&'w Relay>,
    /// and of these.
    others: &'w [&'w Relay],
    /// It should be there for long.
    lasting: bool,
}

/// How well a relay fits; the lowest is the best.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Score {
    avoided: bool,
    shared: (Shared, Shared),
    age: Reverse<u32>,
    load: u64,
    tie: u64,
}

/// The smallest failure domain that two relays have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Shared {
    Nothing,
    Zone,
    Subnet,
    Host,
}

impl Shared {
    /// A zone without a name is unknown, so nobody shares it.
    fn between(a: &Relay, b: &Relay) -> Self {
        if a.host() == b.host() {
            Self::Host
        } else if a.subnet() == b.subnet() {
            Self::Subnet
        } else if a.shares_zone(b) {
            Self::Zone
        } else {
            Self::Nothing
        }
    }
}

impl Want<'_> {
    fn allows(&self, relay: &Relay) -> bool {
        let excluded = self.exclude.contains(&relay.node) && !planted::broken(Law::ExcludeHeeded);
        relay.has_room() && !excluded
    }

    /// What a relay should have nothing of, the most demanding wish first.
    fn wishes(&self) -> [Apart<'_>; 5] {
        let none = Vec::new();
        let partner: Vec<&Relay> = self.partner.into_iter().collect();
        let all: Vec<&Relay> = partner.iter().chain(self.others).copied().collect();
        [(&all, &all), (&partner, &all), (&partner, &partner), (&none, &all), (&none, &partner)].map(
            |(zones, subnets)| Apart {
                zones: zones.iter().map(|relay| relay.offer().zone.as_str()).collect(),
                subnets: subnets.iter().map(|relay| relay.subnet()).collect(),
            },
        )
    }

    fn score(&self, relay: &Relay, now: Time, tie: u64) -> Score {
        let shared = |other: &Relay| Shared::between(relay, other);
        let with_partner = self.partner.map_or(Shared::Nothing, shared);
        let with_others = self.others.iter().map(|other| shared(other)).max().unwrap_or(Shared::Nothing);
        let age = if self.lasting { age_class(relay, now) } else { 0 };
        Score {
            avoided: false,
            shared: (with_partner, with_others),
            age: Reverse(age),
            load: (u64::from(relay.flows()) << 24) / u64::from(relay.capacity.max(1)),
            tie,
        }
    }
}

impl Score {
    fn is_independent(&self) -> bool {
        !self.avoided && self.shared == (Shared::Nothing, Shared::Nothing)
    }
}

/// Relays of about the same age count as equal: the binary logarithm of the age in minutes.
fn age_class(relay: &Relay, now: Time) -> u32 {
    (now.since(relay.registered_at).as_secs() / 60 + 1).ilog2()
}

impl<'a, R: Rng> Planner<'a, R> {
    /// A planner for the pool as it is now.
    pub const fn new(pool: &'a Pool, now: Time, rng: &'a mut R) -> Self {
        Self { pool, now, rng }
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
        let last = attached(self.pool, attachments, exclude);
        let (last_primary, spares) = last.split_first().ok_or(PlanError::NotAttached)?;
        let mut taken = exclude.to_vec();
        taken.push(last_primary.node);
        let primaries = self.primaries(hops.into(), last_primary, spares, &mut taken)?;
        let spare = spares.iter().find(|relay| !taken.contains(&relay.node)).copied();
        taken.extend(spare.map(|relay| relay.node));
        let mut planned = Vec::with_capacity(primaries.len());
        let (_, before_last) = primaries.split_last().ok_or(PlanError::NotAttached)?;
        for primary in before_last {
            let backup = self.backup(primary, &primaries, &taken);
            taken.extend(backup.map(|relay| relay.node));
            planned.push(Hop { primary, backup });
        }
        planned.push(Hop { primary: last_primary, backup: spare });
        Ok(Plan { hops: planned })
    }

    /// Another relay for a hop that `active` serves, if any: none of `exclude`, and independent of `active` first and of
    /// `others` (the rest of the chain, as far as known) next.
    pub fn replacement(
        &mut self,
        active: Option<&Relay>,
        others: &[&Relay],
        exclude: &[NodeId],
    ) -> Option<&'a Relay> {
        self.choose(&Want { exclude, partner: active, others, lasting: true, ..Want::default() })
    }

    /// Up to `count` relays for a target to attach to, none of them in `exclude`: independent of each other and of those
    /// that it `has`, which come last.
    pub fn attachments(&mut self, count: usize, has: &[NodeId], exclude: &[NodeId]) -> Vec<&'a Relay> {
        let held = has.iter().filter(|node| !exclude.contains(node)).filter_map(|node| self.pool.get(node));
        let mut others: Vec<&'a Relay> = held.collect();
        let mut taken = exclude.to_vec();
        let mut chosen = Vec::new();
        for _ in 0..count {
            let want = Want { exclude: &taken, avoid: has, others: &others, ..Want::default() };
            let Some(relay) = self.choose(&want) else { break };
            taken.push(relay.node);
            others.push(relay);
            chosen.push(relay);
        }
        chosen
    }

    /// The primaries of all hops, `last` at the end; they are added to `taken`.
    fn primaries(
        &mut self,
        hops: usize,
        last: &'a Relay,
        spares: &[&'a Relay],
        taken: &mut Vec<NodeId>,
    ) -> Result<Vec<&'a Relay>, PlanError> {
        let avoid: Vec<NodeId> = spares.iter().map(|relay| relay.node).collect();
        let mut primaries = vec![last];
        while primaries.len() < hops {
            let want = Want { exclude: taken, avoid: &avoid, others: &primaries, ..Want::default() };
            let too_small = PlanError::TooSmall { need: hops, have: primaries.len() };
            let relay = self.choose(&want).ok_or(too_small)?;
            if !planted::broken(Law::DistinctPrimary) {
                taken.push(relay.node);
            }
            primaries.push(relay);
        }
        primaries.rotate_left(1);
        Ok(primaries)
    }

    fn backup(&mut self, primary: &Relay, primaries: &[&Relay], taken: &[NodeId]) -> Option<&'a Relay> {
        let others: Vec<&Relay> =
            primaries.iter().filter(|other| other.node != primary.node).copied().collect();
        if planted::broken(Law::DistinctBackup) {
            return self.pool.get(&primary.node);
        }
        self.replacement(Some(primary), &others, taken)
    }

    fn choose(&mut self, want: &Want<'_>) -> Option<&'a Relay> {
        if self.pool.assignable().len() > SCAN
            && let Some(relay) = self.choose_of_sample(want)
        {
            return Some(relay);
        }
        let pool = self.pool;
        self.best(pool.assignable().iter(), want).map(|(_, relay)| relay)
    }

    fn choose_of_sample(&mut self, want: &Want<'_>) -> Option<&'a Relay> {
        let pool = self.pool;
        let drawn: [Option<&'a Relay>; SAMPLE] = pool.sample(self.rng);
        // All at first, so that a large pool's memory answers for all at the same time.
        let drawn = drawn.map(|relay| relay.filter(|relay| relay.has_room()));
        let best = self.best(drawn.into_iter().flatten(), want);
        if best.is_some_and(|(score, _)| score.is_independent()) {
            return best.map(|(_, relay)| relay);
        }
        let apart = want.wishes().into_iter().find_map(|apart| self.best_apart(&apart, want));
        [best, apart].into_iter().flatten().min_by_key(|(score, _)| *score).map(|(_, relay)| relay)
    }

    /// The best of a sample of relays that are in none of these domains, if there is one.
    fn best_apart(&mut self, apart: &Apart<'_>, want: &Want<'_>) -> Option<(Score, &'a Relay)> {
        let pool = self.pool;
        let is_good = |relay: &Relay| want.allows(relay) && !want.avoid.contains(&relay.node);
        let drawn = pool.draw_apart(apart, SAMPLE, self.rng, is_good);
        self.best(drawn.into_iter(), want)
    }

    /// Who a relay is, is looked at last, and only if it is better than all before it: that is elsewhere in memory than what
    /// it is weighed by.
    fn best(
        &mut self,
        relays: impl Iterator<Item = &'a Relay>,
        want: &Want<'_>,
    ) -> Option<(Score, &'a Relay)> {
        let mut best: Option<(Score, &Relay)> = None;
        let mut avoided: Option<(Score, &Relay)> = None;
        for relay in relays.filter(|relay| relay.has_room()) {
            let score = want.score(relay, self.now, self.rng.next_u64());
            if best.is_some_and(|(known, _)| known <= score) || !want.allows(relay) {
                continue;
            }
            if want.avoid.contains(&relay.node) {
                let score = Score { avoided: true, ..score };
                avoided = avoided.filter(|(known, _)| *known <= score).or(Some((score, relay)));
            } else {
                best = Some((score, relay));
            }
        }
        best.or(avoided)
    }
}

/// Those of a target's attachment relays over which it can be reached, in its order. One that is not assignable (a
/// neighbour may have reported it falsely, and it is still attached) is better than none.
#[must_use]
pub fn attached<'a>(pool: &'a Pool, attachments: &[NodeId], exclude: &[NodeId]) -> Vec<&'a Relay> {
    let known = attachments.iter().filter(|node| !exclude.contains(node));
    let mut relays: Vec<&Relay> = Vec::new();
    for relay in known.filter_map(|node| pool.get(node)).filter(|relay| !relay.is_gone()) {
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
        Status::Registered | Status::Online if relay.has_room() => 0,
        Status::Registered | Status::Online => 1,
        Status::Suspect => 2,
        Status::Draining => 3,
        Status::Offline | Status::Left => 4,
    }
}

#[cfg(test)]
mod tests;
