//! What a node may do for a flow: the records and tags that it holds (Law 6), as origin, relay or target.

use crate::proto::crypto::Key;
use crate::proto::frame::{Attach, Control, VERSION};
use crate::proto::id::FlowId;
use crate::proto::machine::Forbidden;
use crate::proto::planted::{self, Law};
use crate::proto::record::{Candidate, Entry, Record, Route, Tag};
use crate::proto::splice::Opening;
use std::collections::{BTreeMap, VecDeque};

/// A node's own keys by key epoch; entries are sealed to them.
#[derive(Clone, Debug, Default)]
pub struct KeyRing(BTreeMap<u32, Key>);

/// Replaced records that an origin keeps for a flow.
const MAX_PAST_RECORDS: usize = 32;
/// Key epochs that a ring keeps: entries sealed to older ones have expired.
const KEPT_KEY_EPOCHS: usize = 64;

impl KeyRing {
    /// Adds the keys that came with a lease.
    pub fn extend(&mut self, keys: impl IntoIterator<Item = (u32, Key)>) {
        self.0.extend(keys);
        while self.0.len() > KEPT_KEY_EPOCHS {
            self.0.pop_first();
        }
    }

    /// Whether there are none: then nothing can be told of any entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The entry in `record` that is sealed to this node.
    #[must_use]
    pub fn entry(&self, record: &Record) -> Option<Entry> {
        record.entry(self.0.get(&record.scope.key_epoch)?)
    }
}

/// The records of the hops to come (the next one's first, the target's last) and what goes with them.
#[derive(Debug)]
pub(super) enum Rights {
    /// The origin computes every tag itself.
    /// `past` are the records that were replaced, the latest last: a relay may yet speak of them.
    Origin { route: Route, past: VecDeque<Record> },
    /// A relay folds what it was given. `tags` has a list for each record to come.
    Relay { reach_next: Key, records: Vec<Record>, tags: Vec<Vec<Tag>> },
    /// Nothing comes after the target.
    Target,
}

impl Rights {
    /// What an attach gives its acceptor, whose `entry` was checked.
    pub(super) fn accepted(entry: &Entry, attach: &Attach) -> Option<Self> {
        let Some(reach_next) = &entry.reach_next else { return Some(Self::Target) };
        let records = attach.records.get(1..)?.to_vec();
        Some(Self::Relay { reach_next: reach_next.clone(), records, tags: attach.tags.clone() })
    }

    pub(super) fn records(&self) -> &[Record] {
        match self {
            Self::Origin { route, .. } => &route.records,
            Self::Relay { records, .. } => records,
            Self::Target => &[],
        }
    }

    /// At the origin: who served `hop` by the record of that version; nobody if that is not known.
    pub(super) fn named(&self, hop: u8, version: u32) -> Vec<Candidate> {
        let Self::Origin { route, past } = self else { return Vec::new() };
        let is_meant = |record: &&Record| (record.scope.hop, record.scope.version) == (hop, version);
        let record = route.records.iter().chain(past).find(is_meant);
        record.and_then(|record| route.secret.open(record)).unwrap_or_default()
    }

    /// The candidates of the next hop. `None` if its record is not for this node's eyes.
    pub(super) fn next_candidates(&self) -> Option<Vec<Candidate>> {
        let record = self.records().first()?;
        match self {
            Self::Origin { route, .. } => route.secret.open(record),
            Self::Relay { reach_next, .. } => record.candidates(reach_next),
            Self::Target => None,
        }
    }

    /// The header of a leg to the next hop's candidate at `place`, dialled with `counter`.
    pub(super) fn attach(&self, leg: u32, flow: FlowId, opening: Opening, place: usize) -> Option<Attach> {
        let counter = *opening.epoch.counters().last()?;
        let mut tags = self.tags(flow, counter)?;
        let tag = *tags.first()?.get(place)?;
        tags.remove(0);
        let Opening { epoch, forward_start, forward_fin, backward_ack } = opening;
        let records = self.records().to_vec();
        Some(Attach {
            version: VERSION,
            leg,
            flow,
            epoch,
            tag,
            records,
            tags,
            forward_start,
            forward_fin,
            backward_ack,
        })
    }

    /// A list of tags for each record to come, as they are after a dial with `counter`.
    pub(super) fn tags(&self, flow: FlowId, counter: u32) -> Option<Vec<Vec<Tag>>> {
        match self {
            Self::Origin { route, .. } => {
                route.records.iter().map(|record| origin_tags(route, record, flow, counter)).collect()
            }
            Self::Relay { tags, .. } => Some(fold(tags, counter)),
            Self::Target => None,
        }
    }

    /// Takes newer records, at a relay with their tags. Returns whether the next hop's candidates may have changed.
    pub(super) fn adopt(&mut self, newer: &[Record], newer_tags: &[Vec<Tag>]) -> bool {
        let mut next_changed = false;
        for (n, record) in newer.iter().enumerate() {
            let known = self.records().iter().position(|known| known.scope.hop == record.scope.hop);
            let Some(place) = known else { continue };
            let accepted = match self {
                Self::Origin { route, past } => adopt_at_origin(route, past, place, record),
                Self::Relay { records, tags, .. } => {
                    newer_tags.get(n).is_some_and(|list| adopt_at_relay(records, tags, place, (record, list)))
                }
                Self::Target => false,
            };
            next_changed |= accepted && place == 0;
        }
        next_changed
    }

    /// What a backup for the next hop must know to keep its own next warm.
    pub(super) fn prepare(&self) -> Option<Control> {
        let [own, next, ..] = self.records() else { return None };
        Some(Control::Prepare { own: Box::new(own.clone()), next: Box::new(next.clone()) })
    }
}

fn origin_tags(route: &Route, record: &Record, flow: FlowId, counter: u32) -> Option<Vec<Tag>> {
    let hop = record.scope.hop;
    let start = |candidate: &Candidate| {
        Tag::start(&route.secret.candidate_key(hop, &candidate.node), flow, hop, counter)
    };
    Some(route.secret.open(record)?.iter().map(start).collect())
}

/// The tags after a dial with `counter`.
fn fold(tags: &[Vec<Tag>], counter: u32) -> Vec<Vec<Tag>> {
    tags.iter().map(|list| list.iter().map(|tag| tag.fold(counter)).collect()).collect()
}

fn adopt_at_origin(route: &mut Route, past: &mut VecDeque<Record>, place: usize, record: &Record) -> bool {
    let genuine = route.secret.open(record).is_some();
    match route.records.get_mut(place) {
        Some(known) if genuine && record.scope.version > known.scope.version => {
            past.push_back(std::mem::replace(known, record.clone()));
            if past.len() > MAX_PAST_RECORDS {
                past.pop_front();
            }
            true
        }
        _ => false,
    }
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
