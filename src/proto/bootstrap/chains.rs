//! Chains: planning one, and replacing what serves one hop of it.
//!
//! The right to a replacement follows from the records alone: they name the chain's origin, and nobody else may ask.

use super::{Bootstrap, candidate};
use crate::crypto::Key;
use crate::families::Families;
use crate::id::{ChainId, NodeId, Pseudonym};
use crate::planner::{Hop, PlanError, Planner, attached, fits};
use crate::pool::Relay;
use crate::record::{Candidate, ChainSecret, Record, Route, Scope, pseudonym, relay_key};
use crate::rpc::{DenyReason, Planned, Refusal};
use crate::time::Time;

/// How many candidates a hop is given.
const CANDIDATES: usize = 2;

/// A request to replace the record of `hop`.
pub(super) struct Replacement<'r> {
    pub(super) hop: u8,
    pub(super) records: &'r [Record],
    pub(super) active: Option<NodeId>,
    pub(super) exclude: Vec<NodeId>,
    pub(super) dials: Families,
}

/// The records of a [`Replacement`], opened.
struct Opened {
    secret: ChainSecret,
    /// Of the record to replace.
    scope: Scope,
    /// Who serves the hops before it.
    before: Vec<Vec<Candidate>>,
    /// Who serves the hop now.
    old: Vec<Candidate>,
    /// Who serves the hops after it, the target's at the end.
    after: Vec<Vec<Candidate>>,
}

impl Bootstrap {
    /// A chain, and the primaries that are to be assigned if a flow goes over it at once.
    pub(super) fn plan(
        &mut self,
        (from, dials): (NodeId, Families),
        name: &str,
        hops: u8,
        mut exclude: Vec<NodeId>,
        now: Time,
    ) -> Result<(Planned, Vec<NodeId>), Refusal> {
        let target =
            self.targets.by_name(name).ok_or_else(|| Refusal::UnknownName { name: name.to_owned() })?;
        let target_node = target.node;
        // A node may be registered as a relay, too, and must not be on its own chain.
        exclude.extend([from, target_node]);
        let plan = Planner::new(&self.pool, now, &mut self.rng)
            .dialling(dials)
            .plan(hops, &target.attachments, &exclude)
            .map_err(|error| refusal(error, name, dials))?;
        let unprotected = plan.unprotected();
        let primaries: Vec<NodeId> = plan.hops.iter().map(|hop| hop.primary.node).collect();
        let mut served: Vec<Vec<Candidate>> = plan.hops.iter().map(candidates).collect();
        served.push(vec![Candidate { node: target_node, name: name.to_owned(), addresses: Vec::new() }]);
        let route = self.route(from, target_node, &served, now);
        Ok((Planned { route, unprotected, now: self.time.at(now) }, primaries))
    }

    pub(super) fn replace(
        &mut self,
        from: NodeId,
        request: Replacement<'_>,
        now: Time,
    ) -> Result<Record, Refusal> {
        let opened = Opened::new(&self.secret, from, &request)?;
        let candidates = match opened.target_if_next() {
            Some(target) => self.attachments_of(target, &opened, &request)?,
            None => self.relays_for(&opened, &request, now)?,
        };
        // Whoever has a working relay needs a second, or at least to know that the other one is of no use; whoever has
        // none is helped by one.
        let is_of_no_use = |node: &NodeId| Some(*node) != request.active && request.exclude.contains(node);
        let shrinks = opened.old.iter().any(|old| is_of_no_use(&old.node));
        let needed = if request.active.is_some() && !shrinks { CANDIDATES } else { 1 };
        if candidates.len() < needed {
            return Err(Refusal::NoSpare);
        }
        let Scope { chain, origin, hop, version, .. } = opened.scope;
        let version = version.checked_add(1).ok_or(DenyReason::OutOfBounds)?;
        let scope = Scope { hop, version, ..self.scope(chain, origin, now) };
        Ok(self.issue(&opened.secret, scope, &candidates, false))
    }

    /// The records of a chain anew, whether they have expired or not: the flows on it live on, and whoever serves them needs
    /// keys that are not forgotten.
    pub(super) fn renew(
        &mut self,
        from: NodeId,
        records: &[Record],
        now: Time,
    ) -> Result<Vec<Record>, Refusal> {
        let (exclude, dials) = (Vec::new(), Families::BOTH);
        let whole = Replacement { hop: 1, records, active: None, exclude, dials };
        let Opened { secret, scope, old, after, .. } = Opened::new(&self.secret, from, &whole)?;
        let fresh = self.scope(scope.chain, scope.origin, now);
        let served = [old].into_iter().chain(after);
        let present = |hop: Vec<Candidate>| hop.into_iter().map(|known| self.present(known)).collect();
        let served: Vec<Vec<Candidate>> = served.map(present).collect();
        let renewed = records.iter().zip(served).map(|(record, candidates)| {
            let Scope { hop, version, .. } = record.scope;
            let version = version.checked_add(1).ok_or(DenyReason::OutOfBounds)?;
            let is_last = usize::from(hop) == records.len();
            Ok(self.issue(&secret, Scope { hop, version, ..fresh }, &candidates, is_last))
        });
        renewed.collect()
    }

    /// A route of a new chain, with these candidates for its hops and its target.
    fn route(&mut self, origin: NodeId, target: NodeId, served: &[Vec<Candidate>], now: Time) -> Route {
        let chain = ChainId::random(&mut self.rng);
        let scope = self.scope(chain, pseudonym(&self.secret, &origin), now);
        let secret = ChainSecret::derive(&self.secret, chain, scope.origin);
        let records = (1u8..)
            .zip(served)
            .map(|(hop, candidates)| {
                let last = usize::from(hop) == served.len();
                self.issue(&secret, Scope { hop, ..scope }, candidates, last)
            })
            .collect();
        Route { target, secret, records }
    }

    /// The scope of a first record, issued now.
    fn scope(&self, chain: ChainId, origin: Pseudonym, now: Time) -> Scope {
        let expires = self.time.at(now) + self.config.record_lifetime;
        Scope { chain, origin, hop: 1, version: 1, key_epoch: self.key_epoch(now), expires }
    }

    fn issue(&mut self, chain: &ChainSecret, scope: Scope, candidates: &[Candidate], last: bool) -> Record {
        let keyed: Vec<(Candidate, Key)> = candidates
            .iter()
            .map(|candidate| (candidate.clone(), relay_key(&self.secret, &candidate.node, scope.key_epoch)))
            .collect();
        chain.issue(scope, &keyed, last, &mut self.rng)
    }

    /// For a hop before another relay's: the active candidate, others that are alive, and fresh ones up to the number
    /// needed.
    fn relays_for(
        &mut self,
        opened: &Opened,
        request: &Replacement<'_>,
        now: Time,
    ) -> Result<Vec<Candidate>, Refusal> {
        let mut chosen = Vec::new();
        if let Some(active) = &request.active {
            // The relay before the hop may have gone on to a candidate of an older record meanwhile.
            let known = self.pool.get(active).filter(|_| opened.others().all(|node| node != *active));
            let old = opened.old(active).map(|old| self.present(old));
            let serves = old.or_else(|| known.map(candidate));
            chosen.push(serves.ok_or(DenyReason::OutOfBounds)?);
        }
        let (old, dialer) = (opened.old.iter().map(|candidate| candidate.node), opened.dialer());
        let kept = old.filter(|node| {
            request.active != Some(*node) && dialer != Some(*node) && !request.exclude.contains(node)
        });
        let alive = kept.filter_map(|node| self.pool.get(&node)).filter(|relay| relay.is_assignable());
        chosen.extend(alive.map(candidate));
        chosen.truncate(CANDIDATES);
        let mut serving = request.exclude.clone();
        serving.extend(request.active);
        serving.extend(opened.old.iter().map(|candidate| candidate.node));
        let mut taken = serving.clone();
        taken.extend(opened.others());
        serving.extend(opened.serving_others());
        let others: Vec<&Relay> = opened.others().filter_map(|node| self.pool.get(&node)).collect();
        let between = [self.dialer_families(opened, request.dials), self.next_families(opened)];
        let target = opened.target().and_then(|target| self.targets.get(&target));
        let attachments = target.map(|target| target.attachments.as_slice()).unwrap_or_default();
        while chosen.len() < CANDIDATES {
            let partner = chosen.first().and_then(|first| self.pool.get(&first.node));
            let mut planner = Planner::new(&self.pool, now, &mut self.rng);
            // Better one that stands by for another hop, too, than none.
            let found = [&taken, &serving]
                .into_iter()
                .find_map(|taken| planner.replacement(partner, &others, taken, attachments, between));
            let Some(relay) = found else { break };
            taken.push(relay.node);
            serving.push(relay.node);
            chosen.push(candidate(relay));
        }
        Ok(chosen)
    }

    /// A candidate with the addresses that it has now, as far as this bootstrap knows.
    fn present(&self, known: Candidate) -> Candidate {
        let relay = self.pool.get(&known.node).filter(|_| !known.is_target());
        relay.map_or(known, candidate)
    }

    /// The families that whoever dials the hop can dial: the origin, which says so itself, or the relay before it.
    fn dialer_families(&self, opened: &Opened, origin: Families) -> Families {
        opened.before.last().map_or(origin, |hop| self.families(hop))
    }

    fn next_families(&self, opened: &Opened) -> Families {
        opened.after.first().map_or(Families::BOTH, |hop| self.families(hop))
    }

    /// Those of the candidate that serves a hop.
    fn families(&self, hop: &[Candidate]) -> Families {
        let serves = hop.first().map(|first| self.present(first.clone()).addresses);
        serves.map_or(Families::BOTH, |addresses| Families::of_all(&addresses))
    }

    /// For the hop before the target: the active candidate, and those relays that the target is attached to now.
    fn attachments_of(
        &self,
        target: NodeId,
        opened: &Opened,
        request: &Replacement<'_>,
    ) -> Result<Vec<Candidate>, Refusal> {
        let attachments =
            self.targets.get(&target).map(|target| target.attachments.as_slice()).unwrap_or_default();
        let mut chosen = Vec::new();
        if let Some(active) = &request.active {
            let attached = self.pool.get(active).filter(|_| attachments.contains(active)).map(candidate);
            let old = opened.old(active).map(|old| self.present(old));
            chosen.push(old.or(attached).ok_or(DenyReason::OutOfBounds)?);
        }
        let mut exclude = request.exclude.clone();
        exclude.extend(request.active);
        let mut others = attached(&self.pool, attachments, &exclude);
        // Better a backup that also serves another hop than none.
        let dialer = opened.dialer();
        let between = [self.dialer_families(opened, request.dials), Families::BOTH];
        others.retain(|relay| Some(relay.node) != dialer && fits(relay, between));
        others.sort_by_key(|relay| opened.others().any(|node| node == relay.node));
        chosen.extend(others.into_iter().map(candidate));
        chosen.truncate(CANDIDATES);
        Ok(chosen)
    }
}

impl Opened {
    /// Opens what was handed in, if it is genuine and `from` is the chain's origin.
    fn new(network: &Key, from: NodeId, request: &Replacement<'_>) -> Result<Self, DenyReason> {
        let place = usize::from(request.hop).checked_sub(1).ok_or(DenyReason::OutOfBounds)?;
        let scope = request.records.get(place).ok_or(DenyReason::OutOfBounds)?.scope;
        if pseudonym(network, &from) != scope.origin {
            return Err(DenyReason::NotOrigin);
        }
        let secret = ChainSecret::derive(network, scope.chain, scope.origin);
        let open = |(record, hop): (&Record, u8)| {
            let fits = record.scope.chain == scope.chain && record.scope.origin == scope.origin;
            secret.open(record).filter(|_| fits && record.scope.hop == hop).ok_or(DenyReason::Record)
        };
        let mut before = request.records.iter().zip(1u8..).map(open).collect::<Result<Vec<_>, _>>()?;
        let after = before.split_off(place + 1);
        let old = before.pop().ok_or(DenyReason::OutOfBounds)?;
        let opened = Self { secret, scope, before, old, after };
        if opened.ends_at_target() { Ok(opened) } else { Err(DenyReason::OutOfBounds) }
    }

    /// Whether the records lead to the target: all but the last name relays.
    fn ends_at_target(&self) -> bool {
        let is_target = |hop: &[Candidate]| matches!(hop, [only] if only.is_target());
        let Some((last, relays)) = self.after.split_last() else { return false };
        is_target(last) && !self.before.iter().chain([&self.old]).chain(relays).any(|hop| is_target(hop))
    }

    /// The target, if its record comes next.
    fn target_if_next(&self) -> Option<NodeId> {
        match self.after.as_slice() {
            [only] => only.first().map(|target| target.node),
            [] | [_, _, ..] => None,
        }
    }

    /// The target.
    fn target(&self) -> Option<NodeId> {
        self.after.last()?.first().map(|target| target.node)
    }

    /// The relay before the hop, which must not have to dial itself.
    fn dialer(&self) -> Option<NodeId> {
        self.before.last()?.first().map(|candidate| candidate.node)
    }

    /// Everybody known to be on the chain but for the hop itself.
    fn others(&self) -> impl Iterator<Item = NodeId> {
        self.before.iter().chain(&self.after).flatten().map(|candidate| candidate.node)
    }

    /// Who serves the other hops, as far as the records tell.
    fn serving_others(&self) -> impl Iterator<Item = NodeId> {
        self.before.iter().chain(&self.after).filter_map(|hop| hop.first()).map(|candidate| candidate.node)
    }

    /// The hop's candidate with this identity.
    fn old(&self, node: &NodeId) -> Option<Candidate> {
        self.old.iter().find(|candidate| candidate.node == *node).cloned()
    }
}

/// A hop's candidates, the primary first.
fn candidates(hop: &Hop<'_>) -> Vec<Candidate> {
    [Some(hop.primary), hop.backup].into_iter().flatten().map(candidate).collect()
}

fn refusal(error: PlanError, name: &str, dials: Families) -> Refusal {
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    match error {
        PlanError::NotAttached => Refusal::NotAttached { name: name.to_owned() },
        PlanError::OutOfReach => Refusal::OutOfReach { dials },
        PlanError::TooSmall { need, have } => Refusal::PoolTooSmall { need: count(need), have: count(have) },
    }
}
