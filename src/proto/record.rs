//! Route records: what lets a relay forward for a flow, and nothing more than it needs for that (Law 6).
//!
//! The bootstrap keeps no table of chains. It derives a *chain secret* from the network secret, and from that whatever a
//! record contains; so the record itself is the state, and any bootstrap of the network can open and replace one.
//!
//! Per hop there is one [`Record`], which changes on its own:
//! - its *candidates* (who may serve the hop, the active one first) are sealed under the hop's **reach key**, which only
//!   the hop before, the origin and the bootstrap hold: a relay learns its neighbours and nobody else;
//! - for each candidate an *entry*, sealed to that relay's own key (as a Kerberos ticket is sealed to its service, RFC
//!   4120), holds the key that its tags start from and the reach key of the next hop.
//!
//! A **tag** proves that an attach stems from the origin: a chain of MACs, as in macaroons (Birgisson et al., NDSS 2014),
//! started by the origin under the acceptor's candidate key and folded with every dialer's counter. Whoever has been
//! on the path can lengthen it, nobody can alter a counter that was folded in before.

use super::codec;
use super::crypto::{Key, Mac, Sealed};
use super::epoch::{Epoch, MAX_HOPS};
use super::id::{ChainId, FlowId, NodeId, Pseudonym};
use super::time::Time;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// Most candidates that a record may name.
pub const MAX_CANDIDATES: usize = 4;
/// Most records that a route has: its hops and the target.
pub const MAX_RECORDS: usize = MAX_HOPS + 1;
/// Most key epochs whose keys a node keeps: enough for every record that has not expired
/// ([`validate`](super::bootstrap::Config::validate)).
pub const MAX_KEY_EPOCHS: usize = 64;
/// Most addresses that a relay may have.
pub const MAX_ADDRESSES: usize = 4;
/// Longest name of a node, in bytes.
pub const MAX_NAME_BYTES: usize = 64;

/// A node that may serve a hop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// Who it is.
    pub node: NodeId,
    /// What people call it.
    pub name: String,
    /// Where to dial it, the preferred address first; none for a target, which dials its attachment relays itself.
    pub addresses: Vec<SocketAddr>,
}

impl Candidate {
    /// Whether it is the target of a chain, and not a relay.
    #[must_use]
    pub const fn is_target(&self) -> bool {
        self.addresses.is_empty()
    }
}

/// What every part of a record is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Scope {
    /// The chain that the record belongs to.
    pub chain: ChainId,
    /// The origin, as relays know it.
    pub origin: Pseudonym,
    /// 1 for the first relay, one more than the last relay's for the target.
    pub hop: u8,
    /// Of two records for one hop the one with the higher version wins.
    pub version: u32,
    /// Which of a relay's keys its entries are sealed to.
    pub key_epoch: u32,
    /// No new flow may start on this record after that.
    pub expires: Time,
}

/// One hop of a route. See the module's documentation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// What it is about.
    pub scope: Scope,
    candidates: Sealed,
    entries: Vec<Sealed>,
    seal: Mac,
}

/// What a candidate finds in the entry sealed to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The key that tags for this candidate start from.
    pub key: Key,
    /// Opens the candidates of the next hop; `None` at the target.
    pub reach_next: Option<Key>,
}

impl Record {
    /// Whether its sizes are within bounds: to be asked before anything else of a record from the network.
    #[must_use]
    pub const fn is_bounded(&self) -> bool {
        let entries = self.entries.len();
        entries >= 1
            && entries <= MAX_CANDIDATES
            && self.scope.hop >= 1
            && self.scope.hop as usize <= MAX_RECORDS
    }

    /// How many candidates it names.
    #[must_use]
    pub const fn candidate_count(&self) -> usize {
        self.entries.len()
    }

    /// The hop's candidates, for a holder of its reach key. `None` if that is not the key.
    #[must_use]
    pub fn candidates(&self, reach: &Key) -> Option<Vec<Candidate>> {
        let plain = reach.open(&codec::to_bytes(&self.scope), &self.candidates)?;
        let candidates: Vec<Candidate> = codec::from_bytes(&plain).ok()?;
        let is_bounded = |candidate: &Candidate| candidate.addresses.len() <= MAX_ADDRESSES;
        (candidates.len() == self.entries.len() && candidates.iter().all(is_bounded)).then_some(candidates)
    }

    /// The entry sealed to the holder of `relay_key`. `None` if there is none.
    #[must_use]
    pub fn entry(&self, relay_key: &Key) -> Option<Entry> {
        let context = self.entry_context();
        let plain = self.entries.iter().find_map(|entry| relay_key.open(&context, entry))?;
        codec::from_bytes(&plain).ok()
    }

    /// An entry counts only beside the scope and the candidates that it was issued with.
    fn entry_context(&self) -> Vec<u8> {
        codec::to_bytes(&(&self.scope, &self.candidates))
    }

    fn sealed_part(&self) -> Vec<u8> {
        codec::to_bytes(&(&self.scope, &self.candidates, &self.entries))
    }
}

/// The key of one relay for one key epoch, by which entries are sealed to it.
#[must_use]
pub fn relay_key(network_secret: &Key, node: &NodeId, key_epoch: u32) -> Key {
    network_secret.derive("relay key", &[node.as_bytes(), &key_epoch.to_be_bytes()])
}

/// The name under which relays and targets know `origin`.
#[must_use]
pub fn pseudonym(network_secret: &Key, origin: &NodeId) -> Pseudonym {
    let key = network_secret.derive("pseudonym", &[origin.as_bytes()]);
    let (half, _) = key.expose().split_first_chunk().expect("16 of 32 bytes");
    Pseudonym::from_bytes(*half)
}

/// Everything about one chain follows from this. Held by its origin, derived by the bootstrap.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainSecret(Key);

impl ChainSecret {
    /// The secret of a chain, as any bootstrap of the network derives it.
    #[must_use]
    pub fn derive(network_secret: &Key, chain: ChainId, origin: Pseudonym) -> Self {
        Self(network_secret.derive("chain", &[chain.as_bytes(), origin.as_bytes()]))
    }

    /// The key that tags for `node` at `hop` start from.
    #[must_use]
    pub fn candidate_key(&self, hop: u8, node: &NodeId) -> Key {
        self.0.derive("candidate", &[&[hop], node.as_bytes()])
    }

    /// The key that opens the candidates of `hop`.
    #[must_use]
    pub fn reach_key(&self, hop: u8) -> Key {
        self.0.derive("reach", &[&[hop]])
    }

    /// Writes the record of a hop served by `candidates` (active first), each given with the key of [`relay_key`].
    /// `last` says that this hop is the target.
    ///
    /// # Panics
    /// If there are no candidates or more than [`MAX_CANDIDATES`].
    pub fn issue(
        &self,
        scope: Scope,
        candidates: &[(Candidate, Key)],
        last: bool,
        rng: &mut impl rand::Rng,
    ) -> Record {
        assert!(
            (1..=MAX_CANDIDATES).contains(&candidates.len()),
            "a hop has 1 to {MAX_CANDIDATES} candidates"
        );
        let listed: Vec<&Candidate> = candidates.iter().map(|(candidate, _)| candidate).collect();
        let listed = codec::to_bytes(&listed);
        let sealed = self.reach_key(scope.hop).seal(&codec::to_bytes(&scope), &listed, rng);
        // The seal covers the entries, and an entry the candidates: the true seal comes last.
        let mut record = Record { scope, candidates: sealed, entries: Vec::new(), seal: self.0.mac(&[]) };
        let context = record.entry_context();
        for (candidate, key) in candidates {
            let entry = Entry {
                key: self.candidate_key(scope.hop, &candidate.node),
                reach_next: (!last).then(|| self.reach_key(scope.hop.saturating_add(1))),
            };
            record.entries.push(key.seal(&context, &codec::to_bytes(&entry), rng));
        }
        record.seal = self.seal_of(&record);
        record
    }

    /// The record's candidates, if it was issued under this very secret.
    #[must_use]
    pub fn open(&self, record: &Record) -> Option<Vec<Candidate>> {
        let genuine = record.is_bounded() && self.seal_of(record) == record.seal;
        if genuine { record.candidates(&self.reach_key(record.scope.hop)) } else { None }
    }

    fn seal_of(&self, record: &Record) -> Mac {
        self.0.derive("seal", &[]).mac(&[&record.sealed_part()])
    }
}

/// What an origin holds to open flows to one target over one chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Who the flow leads to.
    pub target: NodeId,
    /// The chain's secret.
    pub secret: ChainSecret,
    /// One for each hop, then the target's.
    pub records: Vec<Record>,
}

impl Route {
    /// The chain's identifier and the origin's pseudonym. `None` for a route without records.
    #[must_use]
    pub fn scope(&self) -> Option<Scope> {
        self.records.first().map(|record| record.scope)
    }

    /// The candidates of each hop, the target last; `None` if a record is not genuine or a hop is missing.
    #[must_use]
    pub fn open(&self) -> Option<Vec<Vec<Candidate>>> {
        let in_order = self.records.iter().zip(1..).all(|(record, hop)| record.scope.hop == hop);
        let bounded = (2..=MAX_RECORDS).contains(&self.records.len());
        if in_order && bounded {
            self.records.iter().map(|record| self.secret.open(record)).collect()
        } else {
            None
        }
    }
}

/// Proof that a path of dials began at the origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tag(Mac);

impl Tag {
    /// The origin's tag for a candidate at `hop` and a dial with `counter`.
    #[must_use]
    pub fn start(candidate_key: &Key, flow: FlowId, hop: u8, counter: u32) -> Self {
        Self(candidate_key.mac(&[flow.as_bytes(), &[hop], &counter.to_be_bytes()]))
    }

    /// The tag after one more dialer, with its counter.
    #[must_use]
    pub fn fold(self, counter: u32) -> Self {
        Self(self.0.into_key().mac(&[&counter.to_be_bytes()]))
    }

    /// The tag that an acceptor at `hop` expects for `epoch`; `None` for the origin's epoch, which nobody dials with.
    #[must_use]
    pub fn expected(candidate_key: &Key, flow: FlowId, hop: u8, epoch: &Epoch) -> Option<Self> {
        let (first, rest) = epoch.counters().split_first()?;
        let start = Self::start(candidate_key, flow, hop, *first);
        Some(rest.iter().fold(start, |tag, counter| tag.fold(*counter)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    fn scope(hop: u8) -> Scope {
        Scope {
            chain: ChainId::from_bytes([1; 16]),
            origin: Pseudonym::from_bytes([2; 16]),
            hop,
            version: 1,
            key_epoch: 0,
            expires: Time::MAX,
        }
    }

    fn node(n: u8) -> NodeId {
        NodeId::from_bytes([n; 32])
    }

    fn issue(secret: &ChainSecret, network: &Key) -> Record {
        let candidate = |n| Candidate { node: node(n), name: format!("r{n}"), addresses: Vec::new() };
        let keyed = [1, 2].map(|n| (candidate(n), relay_key(network, &node(n), 0)));
        secret.issue(scope(1), &keyed, false, &mut StdRng::seed_from_u64(1))
    }

    #[test]
    fn each_reader_finds_its_part_and_no_other() {
        let network = Key::from_bytes([9; 32]);
        let secret = ChainSecret::derive(&network, scope(1).chain, scope(1).origin);
        let record = issue(&secret, &network);
        assert_eq!(secret.open(&record).unwrap().len(), 2);
        assert!(record.candidates(&secret.reach_key(2)).is_none(), "another hop's reach key");
        let entry = record.entry(&relay_key(&network, &node(2), 0)).unwrap();
        assert_eq!(entry.key, secret.candidate_key(1, &node(2)));
        assert_eq!(entry.reach_next, Some(secret.reach_key(2)));
        assert!(record.entry(&relay_key(&network, &node(3), 0)).is_none(), "a stranger");
        assert!(record.entry(&relay_key(&network, &node(2), 1)).is_none(), "another key epoch");
    }

    #[test]
    fn an_altered_record_is_not_genuine() {
        let network = Key::from_bytes([9; 32]);
        let secret = ChainSecret::derive(&network, scope(1).chain, scope(1).origin);
        let mut record = issue(&secret, &network);
        record.scope.version += 1;
        assert!(secret.open(&record).is_none());
        assert!(record.entry(&relay_key(&network, &node(1), 0)).is_none());
        assert!(record.candidates(&secret.reach_key(1)).is_none());
    }

    #[test]
    fn a_tag_fits_one_acceptor_flow_hop_and_path() {
        let secret = ChainSecret(Key::from_bytes([9; 32]));
        let key = secret.candidate_key(2, &node(1));
        let flow = FlowId::from_bytes([3; 16]);
        let epoch = Epoch::ORIGIN.child(4).child(5);
        let tag = Tag::start(&key, flow, 2, 4).fold(5);
        assert_eq!(Tag::expected(&key, flow, 2, &epoch), Some(tag));
        assert_ne!(
            Tag::expected(&key, flow, 2, &Epoch::ORIGIN.child(5).child(5)),
            Some(tag),
            "a raised counter"
        );
        assert_ne!(Tag::expected(&key, FlowId::from_bytes([4; 16]), 2, &epoch), Some(tag), "another flow");
        let sibling = secret.candidate_key(2, &node(2));
        assert_ne!(Tag::expected(&sibling, flow, 2, &epoch), Some(tag), "another candidate");
    }
}
