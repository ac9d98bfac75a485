//! The relays that are well, by when it has to be looked whether they were heard.
//!
//! Nearly all were: their heartbeats put nothing here in order, and when it is looked they are put in again for a later
//! time. So the far times are kept by *parts* of a lease, within which there is no order, as in a timing wheel (Varghese
//! and Lauck, SOSP 1987): to put a relay in is to append it. When a part begins, its relays are taken out, and only those
//! that were not heard come into an order.
//!
//! What is not of use any more stays in its part until that begins, so it is for who takes it out to see whether it is:
//! there is at most one entry for each time that a relay was put in within one lease.

use crate::id::NodeId;
use crate::time::Time;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Parts of a lease.
const PARTS: u32 = 256;

/// A relay, and where it was in the pool when it was put in: most are still there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) at: Time,
    pub(super) node: NodeId,
    pub(super) place: usize,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Leases {
    part: Duration,
    /// By the part's number, counted from the epoch.
    far: BTreeMap<u64, Vec<Entry>>,
    /// Those of parts that have begun.
    near: BTreeSet<(Time, NodeId)>,
}

impl Leases {
    /// None yet, of relays with leases of this length.
    pub(super) fn new(lease: Duration) -> Self {
        let part = (lease / PARTS).max(Duration::from_micros(1));
        Self { part, far: BTreeMap::new(), near: BTreeSet::new() }
    }

    /// A relay is to be looked at; what was put in for it before is not taken out.
    pub(super) fn insert(&mut self, entry: Entry, now: Time) {
        let part = self.part_of(entry.at);
        if part > self.part_of(now) {
            self.far.entry(part).or_default().push(entry);
        } else {
            self.near.insert((entry.at, entry.node));
        }
    }

    /// A relay that was put in for this time is no longer to be looked at.
    pub(super) fn remove(&mut self, at: Time, node: NodeId) {
        self.near.remove(&(at, node));
    }

    /// Takes an entry out whose part has begun.
    pub(super) fn pop(&mut self, now: Time) -> Option<Entry> {
        let begun = self.part_of(now);
        let mut first = self.far.first_entry().filter(|first| *first.key() <= begun)?;
        let entry = first.get_mut().pop();
        if first.get().is_empty() {
            first.remove();
        }
        entry
    }

    /// Those of parts that have begun and were not taken out, in their order.
    pub(super) const fn near(&self) -> &BTreeSet<(Time, NodeId)> {
        &self.near
    }

    /// When to look next.
    pub(super) fn next(&self) -> Option<Time> {
        let near = self.near.first().map(|(at, _)| *at);
        let far = self.far.first_key_value().map(|(part, _)| Time::from_micros(part * micros(self.part)));
        [near, far].into_iter().flatten().min()
    }

    /// Whether a relay was put in for this time and not taken out.
    #[cfg(test)]
    pub(super) fn contains(&self, at: Time, node: NodeId) -> bool {
        let far = self.far.values().flatten().any(|entry| (entry.at, entry.node) == (at, node));
        far || self.near.contains(&(at, node))
    }

    fn part_of(&self, at: Time) -> u64 {
        at.as_micros() / micros(self.part)
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Time {
        Time::ZERO + Duration::from_millis(ms)
    }

    fn entry(ms: u64, n: u8) -> Entry {
        Entry { at: at(ms), node: NodeId::from_bytes([n; 32]), place: n.into() }
    }

    fn popped(leases: &mut Leases, now: Time) -> Vec<usize> {
        let mut places: Vec<usize> =
            std::iter::from_fn(|| leases.pop(now)).map(|entry| entry.place).collect();
        places.sort_unstable();
        places
    }

    #[test]
    fn far_ones_come_out_when_their_part_begins_and_near_ones_lie_in_order() {
        let mut leases = Leases::new(Duration::from_millis(100 * u64::from(PARTS)));
        for (ms, n) in [(250, 1), (210, 2), (390, 3), (130, 4), (110, 5)] {
            leases.insert(entry(ms, n), at(105));
        }
        let near: Vec<Time> = leases.near().iter().map(|(at, _)| *at).collect();
        assert_eq!(near, [at(110), at(130)]);
        assert_eq!((leases.next(), popped(&mut leases, at(199))), (Some(at(110)), vec![]));
        leases.remove(at(110), NodeId::from_bytes([5; 32]));
        leases.remove(at(130), NodeId::from_bytes([4; 32]));
        assert_eq!((leases.next(), popped(&mut leases, at(200))), (Some(at(200)), vec![1, 2]));
        assert_eq!((leases.next(), popped(&mut leases, at(1000))), (Some(at(300)), vec![3]));
        assert_eq!(leases.next(), None);
    }
}
