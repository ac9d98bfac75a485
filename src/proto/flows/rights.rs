//! What a node may do for a flow: the records and tags that it holds (Law 6), as origin, relay or target.

use crate::crypto::Key;
use crate::frame::{Attach, Opening};
use crate::id::FlowId;
use crate::machine::Forbidden;
use crate::planted::{self, Law};
use crate::record::{Candidate, Entry, MAX_KEY_EPOCHS, Record, Route, Tag};
use std::collections::VecDeque;

/// A node's own keys by key epoch, the latest that came last; entries are sealed to them. At most [`MAX_KEY_EPOCHS`]: those
/// that came first go first.
#[derive(Clone, Debug, Default)]
pub struct KeyRing(VecDeque<(u32, Key)>);

/// Replaced records whose candidates an origin remembers for a flow.
const MAX_PAST_RECORDS: usize = 32;

impl KeyRing {
    /// Adds the keys that came with a lease.
    pub fn extend(&mut self, keys: impl IntoIterator<Item = (u32, Key)>) {
        for key in keys {
            self.0.retain(|(epoch, _)| *epoch != key.0);
            self.0.push_back(key);
            if self.0.len() > MAX_KEY_EPOCHS {
                self.0.pop_front();
            }
        }
    }

    /// Whether an entry sealed for `key_epoch` may be for this node though it can't tell: it has no key of that epoch, or
    /// of a later one, yet.
    pub(super) fn may_lack(&self, key_epoch: u32) -> bool {
        self.0.iter().all(|(epoch, _)| *epoch < key_epoch)
    }

    /// The entry in `record` that is sealed to this node.
    #[must_use]
    pub fn entry(&self, record: &Record) -> Option<Entry> {
        let is_meant = |(epoch, _): &&(u32, Key)| *epoch == record.scope.key_epoch;
        self.0.iter().find(is_meant).and_then(|(_, key)| record.entry(key))
    }
}

/// The records of the hops to come (the next one's first, the target's last) and what goes with them.
#[derive(Debug)]
pub(super) enum Rights {
    /// The origin computes every tag itself.
    Origin(Chain),
    /// A relay folds what it was given. `tags` has a list for each record to come.
    Relay { reach_next: Key, records: Vec<Record>, tags: Vec<Vec<Tag>> },
    /// Nothing comes after the target.
    Target,
}

/// A route as its origin knows it: its records, opened.
#[derive(Debug)]
pub(super) struct Chain {
    route: Route,
    /// Who each record names, with the keys that their tags start from.
    hops: Vec<Vec<(Candidate, Key)>>,
    /// Hop, version and candidates of records that were replaced, the latest last: a relay may yet speak of them.
    past: VecDeque<(u8, u32, Vec<Candidate>)>,
}

impl Chain {
    /// `None` if a record is not genuine or a hop is missing.
    fn new(route: Route) -> Option<Self> {
        let hops = route.open()?.into_iter().zip(&route.records);
        let hops = hops.map(|(hop, record)| with_keys(&route, record.scope.hop, hop)).collect();
        Some(Self { route, hops, past: VecDeque::new() })
    }

    pub(super) const fn route(&self) -> &Route {
        &self.route
    }

    fn adopt(&mut self, place: usize, record: &Record) -> bool {
        let known = self.route.records.get_mut(place).zip(self.hops.get_mut(place));
        let Some((known, hop)) = known.filter(|(known, _)| record.scope.version > known.scope.version) else {
            return false;
        };
        let Some(candidates) = self.route.secret.open(record) else { return false };
        let before = std::mem::replace(known, record.clone()).scope;
        let candidates = with_keys(&self.route, before.hop, candidates);
        self.past.push_back((before.hop, before.version, named(&std::mem::replace(hop, candidates))));
        if self.past.len() > MAX_PAST_RECORDS {
            self.past.pop_front();
        }
        true
    }

    /// Who served `hop` by the record of that version; nobody if that is not known.
    pub(super) fn named(&self, hop: u8, version: u32) -> Vec<Candidate> {
        let past = self.past.iter().find(|(of, was, _)| (*of, *was) == (hop, version));
        past.map_or_else(|| self.now_named(hop, version), |(.., candidates)| candidates.clone())
    }

    fn now_named(&self, hop: u8, version: u32) -> Vec<Candidate> {
        let present = self.route.records.iter().zip(&self.hops);
        let is_meant = |record: &Record| (record.scope.hop, record.scope.version) == (hop, version);
        present.filter(|(record, _)| is_meant(record)).flat_map(|(_, hop)| named(hop)).collect()
    }

    /// The candidates of every hop, the target last.
    pub(super) fn hops(&self) -> impl ExactSizeIterator<Item = Vec<Candidate>> {
        self.hops.iter().map(|hop| named(hop))
    }

    /// The candidates that a record of this chain names, which may not be adopted yet. `None` if it is not genuine.
    pub(super) fn open(&self, record: &Record) -> Option<Vec<Candidate>> {
        self.route.secret.open(record)
    }

    fn tags(&self, flow: FlowId, counter: u32) -> Vec<Vec<Tag>> {
        let hops = self.route.records.iter().zip(&self.hops);
        hops.map(|(record, hop)| {
            hop.iter().map(|(_, key)| Tag::start(key, flow, record.scope.hop, counter)).collect()
        })
        .collect()
    }
}

fn with_keys(route: &Route, hop: u8, candidates: Vec<Candidate>) -> Vec<(Candidate, Key)> {
    let with_key = |candidate: Candidate| {
        let key = route.secret.candidate_key(hop, &candidate.node);
        (candidate, key)
    };
    candidates.into_iter().map(with_key).collect()
}

fn named(hop: &[(Candidate, Key)]) -> Vec<Candidate> {
    hop.iter().map(|(candidate, _)| candidate.clone()).collect()
}

impl Rights {
    /// An origin's. `None` if a record of the route is not genuine or a hop is missing.
    pub(super) fn origin(route: Route) -> Option<Self> {
        Chain::new(route).map(Self::Origin)
    }

    /// The chain, at the origin.
    pub(super) const fn chain(&self) -> Option<&Chain> {
        match self {
            Self::Origin(chain) => Some(chain),
            Self::Relay { .. } | Self::Target => None,
        }
    }

    /// What an attach gives its acceptor, whose `entry` was checked.
    pub(super) fn accepted(entry: &Entry, attach: &Attach) -> Option<Self> {
        let Some(reach_next) = &entry.reach_next else { return Some(Self::Target) };
        let records = attach.records.get(1..)?.to_vec();
        Some(Self::Relay { reach_next: reach_next.clone(), records, tags: attach.tags.clone() })
    }

    pub(super) fn records(&self) -> &[Record] {
        match self {
            Self::Origin(chain) => &chain.route.records,
            Self::Relay { records, .. } => records,
            Self::Target => &[],
        }
    }

    /// Whether `newer` are for another chain than these.
    pub(super) fn leads_elsewhere(&self, newer: &Self) -> bool {
        let chain = |rights: &Self| rights.records().first().map(|record| record.scope.chain);
        chain(self).is_some_and(|known| chain(newer).is_some_and(|newer| newer != known))
    }

    /// The candidates of the next hop. `None` if its record is not for this node's eyes.
    pub(super) fn next_candidates(&self) -> Option<Vec<Candidate>> {
        match self {
            Self::Origin(chain) => chain.hops().next(),
            Self::Relay { reach_next, records, .. } => records.first()?.candidates(reach_next),
            Self::Target => None,
        }
    }

    /// The header of a leg to the next hop's candidate at `place`, by a dialer that has lost the way to the origin or not.
    pub(super) fn attach(
        &self,
        leg: u32,
        flow: FlowId,
        opening: Opening,
        place: usize,
        orphaned: bool,
    ) -> Option<Attach> {
        let counter = *opening.epoch.counters().last()?;
        let mut tags = self.tags(flow, counter)?;
        let tag = *tags.first()?.get(place)?;
        tags.remove(0);
        let Opening { epoch, forward_start, forward_fin, backward_ack } = opening;
        let records = self.records().to_vec();
        Some(Attach {
            leg,
            flow,
            epoch,
            tag,
            records,
            tags,
            forward_start,
            forward_fin,
            backward_ack,
            orphaned,
        })
    }

    /// A list of tags for each record to come, as they are after a dial with `counter`.
    pub(super) fn tags(&self, flow: FlowId, counter: u32) -> Option<Vec<Vec<Tag>>> {
        match self {
            Self::Origin(chain) => Some(chain.tags(flow, counter)),
            Self::Relay { tags, .. } => Some(fold(tags, counter)),
            Self::Target => None,
        }
    }

    /// Takes newer records, at a relay with their tags. Returns whether the next hop's candidates may have changed.
    pub(super) fn adopt(&mut self, newer: &[Record], newer_tags: &[Vec<Tag>]) -> bool {
        let mut next_changed = false;
        for (n, record) in newer.iter().enumerate() {
            let known = self.records().iter().position(|known| known.scope.hop == record.scope.hop);
            // A neighbour may name a hop that the chain does not have.
            let Some(place) = known else { continue };
            let accepted = match self {
                Self::Origin(chain) => chain.adopt(place, record),
                Self::Relay { records, tags, .. } => {
                    newer_tags.get(n).is_some_and(|list| adopt_at_relay(records, tags, place, (record, list)))
                }
                Self::Target => false,
            };
            next_changed |= accepted && place == 0;
        }
        next_changed
    }
}

/// The tags after a dial with `counter`.
fn fold(tags: &[Vec<Tag>], counter: u32) -> Vec<Vec<Tag>> {
    tags.iter().map(|list| list.iter().map(|tag| tag.fold(counter)).collect()).collect()
}

fn adopt_at_relay(
    records: &mut [Record],
    tags: &mut [Vec<Tag>],
    place: usize,
    newer: (&Record, &Vec<Tag>),
) -> bool {
    match (records.get_mut(place), tags.get_mut(place)) {
        (Some(known), Some(known_tags)) if newer.0.scope.version >= known.scope.version => {
            *known = newer.0.clone();
            if !planted::broken(Law::TagsOfTheirRecord) {
                known_tags.clone_from(newer.1);
            }
            true
        }
        _ => false,
    }
}

/// Checks what an attach has to prove: returns the entry, or what it lacks.
pub(super) fn check(ring: &KeyRing, attach: &Attach) -> Result<Entry, Forbidden> {
    let record = attach.records.first().ok_or(Forbidden::NoEntry)?;
    let entry = ring.entry(record).ok_or(Forbidden::NoEntry)?;
    let expected = Tag::expected(&entry.key, attach.flow, record.scope.hop, &attach.epoch);
    if expected == Some(attach.tag) { Ok(entry) } else { Err(Forbidden::WrongTag) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::epoch::Epoch;
    use crate::id::{ChainId, NodeId, Pseudonym};
    use crate::record::{ChainSecret, Scope, relay_key};
    use crate::time::Time;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    const FLOW: FlowId = FlowId::from_bytes([7; 16]);
    const CHAIN: ChainId = ChainId::from_bytes([1; 16]);
    const ORIGIN: Pseudonym = Pseudonym::from_bytes([2; 16]);

    fn network() -> Key {
        Key::from_bytes([9; 32])
    }

    fn secret() -> ChainSecret {
        ChainSecret::derive(&network(), CHAIN, ORIGIN)
    }

    fn candidate(n: u8) -> Candidate {
        Candidate { node: NodeId::from_bytes([n; 32]), name: String::new(), addresses: Vec::new() }
    }

    fn record(hop: u8, version: u32, nodes: &[u8]) -> Record {
        let scope = Scope { chain: CHAIN, origin: ORIGIN, hop, version, key_epoch: 0, expires: Time::MAX };
        let keyed = |n: &u8| (candidate(*n), relay_key(&network(), &candidate(*n).node, 0));
        let keyed: Vec<(Candidate, Key)> = nodes.iter().map(keyed).collect();
        secret().issue(scope, &keyed, hop == 3, &mut StdRng::seed_from_u64(1))
    }

    /// Of an origin whose chain is 11 or 12, then 21, then the target 31.
    fn origin() -> Rights {
        let records = vec![record(1, 1, &[11, 12]), record(2, 1, &[21]), record(3, 1, &[31])];
        let route = Route { target: candidate(31).node, records, secret: secret() };
        Rights::origin(route).expect("a genuine route")
    }

    fn opening(dial: u32) -> Opening {
        Opening { epoch: Epoch::ORIGIN.child(dial), forward_start: 0, forward_fin: None, backward_ack: 0 }
    }

    fn ring(n: u8) -> KeyRing {
        let mut ring = KeyRing::default();
        ring.extend([(0, relay_key(&network(), &candidate(n).node, 0))]);
        ring
    }

    /// The rights that relay `n` has by an attach.
    fn accepted(n: u8, attach: &Attach) -> Result<Rights, Forbidden> {
        let entry = check(&ring(n), attach)?;
        Ok(Rights::accepted(&entry, attach).expect("it comes with the records"))
    }

    fn nodes(rights: &Rights) -> Option<Vec<NodeId>> {
        rights.next_candidates().map(|all| all.into_iter().map(|candidate| candidate.node).collect())
    }

    #[test]
    fn each_hop_is_given_what_it_needs_and_no_more() {
        let attach = origin().attach(0, FLOW, opening(1), 0, false).expect("a candidate");
        assert_eq!((attach.records.len(), attach.tags.len()), (3, 2));
        let first = accepted(11, &attach).expect("its right is proven");
        assert_eq!(nodes(&first), Some(vec![candidate(21).node]));
        let onward = Opening { epoch: Epoch::ORIGIN.child(1).child(4), ..opening(1) };
        let attach = first.attach(0, FLOW, onward, 0, false).expect("a candidate");
        let second = accepted(21, &attach).expect("the folded tag proves the path");
        assert_eq!(nodes(&second), Some(vec![candidate(31).node]));
        let last = Opening { epoch: Epoch::ORIGIN.child(1).child(4).child(2), ..opening(1) };
        let attach = second.attach(0, FLOW, last, 0, false).expect("a candidate");
        let target = accepted(31, &attach).expect("and once more");
        assert!(matches!(target, Rights::Target));
        assert_eq!((nodes(&target), target.records().len()), (None, 0));
    }

    #[test]
    fn a_tag_is_for_one_candidate_and_one_path() {
        let attach = origin().attach(0, FLOW, opening(1), 1, false).expect("a candidate");
        assert!(accepted(12, &attach).is_ok());
        assert_eq!(accepted(11, &attach).err(), Some(Forbidden::WrongTag));
        let other_path = Attach { epoch: Epoch::ORIGIN.child(2), ..attach.clone() };
        assert_eq!(accepted(12, &other_path).err(), Some(Forbidden::WrongTag));
        assert_eq!(accepted(21, &attach).err(), Some(Forbidden::NoEntry));
        assert!(origin().attach(0, FLOW, opening(1), 2, false).is_none(), "there are two");
    }

    #[test]
    fn newer_records_replace_older_ones_and_no_others() {
        let mut rights = origin();
        assert!(rights.adopt(&[record(1, 2, &[12, 13])], &[]), "the next hop's");
        assert_eq!(nodes(&rights), Some(vec![candidate(12).node, candidate(13).node]));
        assert!(!rights.adopt(&[record(1, 1, &[11])], &[]));
        assert!(!rights.adopt(&[record(2, 2, &[22])], &[]), "adopted, and not the next hop's");
        assert_eq!(rights.records()[1].scope.version, 2);
        assert!(!rights.adopt(&[record(9, 2, &[22])], &[]), "there is no such hop");
        let past = rights.chain().expect("an origin").named(1, 1);
        assert_eq!(past, [candidate(11), candidate(12)], "relays may yet speak of the old one");
    }

    #[test]
    fn a_relay_takes_a_record_only_with_its_tags() {
        let attach = origin().attach(0, FLOW, opening(1), 0, false).expect("a candidate");
        let mut relay = accepted(11, &attach).expect("its right is proven");
        let newer = record(2, 2, &[22, 23]);
        assert!(!relay.adopt(std::slice::from_ref(&newer), &[]));
        let start = |n| Tag::start(&secret().candidate_key(2, &candidate(n).node), FLOW, 2, 1);
        assert!(relay.adopt(&[newer], &[vec![start(22), start(23)]]));
        let onward = Opening { epoch: Epoch::ORIGIN.child(1).child(1), ..opening(1) };
        let attach = relay.attach(0, FLOW, onward, 1, false).expect("a candidate");
        assert!(accepted(23, &attach).is_ok());
    }

    #[test]
    fn a_chain_is_told_by_its_name() {
        let rights = origin();
        assert!(!rights.leads_elsewhere(&origin()));
        assert!(!Rights::Target.leads_elsewhere(&rights) && !rights.leads_elsewhere(&Rights::Target));
    }

    #[test]
    fn a_ring_holds_the_keys_that_came_last() {
        let mut ring = KeyRing::default();
        let key = |epoch: u32| (epoch, Key::from_bytes([u8::try_from(epoch).unwrap(); 32]));
        let most = u32::try_from(MAX_KEY_EPOCHS).unwrap();
        ring.extend((1..=most + 1).map(key));
        let epochs = |ring: &KeyRing| ring.0.iter().map(|(epoch, _)| *epoch).collect::<Vec<_>>();
        assert_eq!(epochs(&ring), (2..=most + 1).collect::<Vec<_>>());
        ring.extend([key(2)]);
        assert_eq!(epochs(&ring).last(), Some(&2), "one that comes again is the latest");
        assert!(ring.may_lack(most + 2) && !ring.may_lack(2));
    }
}
