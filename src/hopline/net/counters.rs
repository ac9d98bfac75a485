//! Counters of a node: received bytes, and how often it believed a neighbour suspect or down. The quality of detection shows in how
//! often it was wrong.

use super::clock::Clock;
use super::reach::Reach;
use hopline_proto::forward::Drop;
use hopline_proto::machine::NeighbourChange;
use hopline_proto::time::Time;
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Since the node started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Neighbours {
    /// Links that are up now.
    pub links: u32,
    /// For how long links were up, all of them together.
    pub link_seconds: f64,
    /// How often a neighbour was suspected.
    pub suspected: u64,
    /// How often a suspect was heard again.
    pub recovered: u64,
    /// How often a neighbour was held to be down.
    pub down: u64,
    /// How many messages of neighbours were skipped, as only newer nodes know their kinds.
    pub skipped: u64,
}

/// Keeps count.
#[derive(Debug)]
pub(crate) struct NodeCounters {
    clock: Clock,
    counts: Mutex<Counts>,
    received: AtomicU64,
    packets: PacketCounters,
    reach: Reach,
}

#[derive(Debug, Default)]
struct PacketCounters {
    passed: AtomicU64,
    passed_bytes: AtomicU64,
    held: AtomicU64,
    dropped: [AtomicU64; Drop::ALL.len()],
}

/// What became of forwarded packets, since the node started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Packets {
    /// Sealed and sent.
    pub passed: u64,
    /// How much that was, in bytes of UDP payload.
    pub passed_bytes: u64,
    /// Held until they had a way.
    pub held: u64,
    /// Dropped, by cause, in the order of [`Drop::ALL`].
    pub dropped: [u64; Drop::ALL.len()],
}

#[derive(Debug)]
struct Counts {
    neighbours: Neighbours,
    /// Up to when the time of links is counted.
    at: Time,
}

impl Counts {
    fn advance(&mut self, now: Time) -> &mut Neighbours {
        self.neighbours.link_seconds += f64::from(self.neighbours.links) * now.since(self.at).as_secs_f64();
        self.at = now;
        &mut self.neighbours
    }
}

impl NodeCounters {
    pub(crate) fn new(clock: Clock) -> Arc<Self> {
        let counts = Counts { neighbours: Neighbours::default(), at: clock.now() };
        Arc::new(Self {
            clock,
            counts: Mutex::new(counts),
            received: AtomicU64::new(0),
            packets: PacketCounters::default(),
            reach: Reach::default(),
        })
    }

    pub(crate) fn link_came(&self) {
        self.change(|neighbours| neighbours.links += 1);
    }

    pub(crate) fn link_went(&self) {
        self.change(|neighbours| neighbours.links -= 1);
    }

    pub(crate) fn skipped(&self) {
        self.change(|neighbours| neighbours.skipped += 1);
    }

    pub(crate) fn judged(&self, change: NeighbourChange) {
        self.change(|neighbours| match change {
            NeighbourChange::Suspect => neighbours.suspected += 1,
            NeighbourChange::Recovered => neighbours.recovered += 1,
            NeighbourChange::Down => neighbours.down += 1,
            NeighbourChange::Up => {}
        });
    }

    /// So much payload came over a leg.
    pub(crate) fn received(&self, bytes: usize) {
        add(&self.received, bytes);
    }

    /// The payload that came over all legs, in bytes.
    pub(crate) fn received_bytes(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// So many packets were passed on.
    pub(crate) fn packets_passed(&self, count: usize, bytes: usize) {
        add(&self.packets.passed, count);
        add(&self.packets.passed_bytes, bytes);
    }

    pub(crate) fn packets_held(&self, count: usize) {
        add(&self.packets.held, count);
    }

    pub(crate) fn packets_dropped(&self, cause: Drop, count: usize) {
        let of_cause = Drop::ALL.iter().zip(&self.packets.dropped).find(|(drop, _)| **drop == cause);
        if let Some((_, counter)) = of_cause {
            add(counter, count);
        }
    }

    /// What became of forwarded packets.
    pub(crate) fn packets(&self) -> Packets {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let PacketCounters { passed, passed_bytes, held, dropped } = &self.packets;
        Packets {
            passed: read(passed),
            passed_bytes: read(passed_bytes),
            held: read(held),
            dropped: dropped.each_ref().map(read),
        }
    }

    /// Whom it could reach.
    pub(crate) const fn reach(&self) -> &Reach {
        &self.reach
    }

    pub(crate) fn read(&self) -> Neighbours {
        self.change(|neighbours| *neighbours)
    }

    fn change<T>(&self, change: impl FnOnce(&mut Neighbours) -> T) -> T {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        change(counts.advance(self.clock.now()))
    }
}

fn add(counter: &AtomicU64, count: usize) {
    counter.fetch_add(u64::try_from(count).unwrap_or(u64::MAX), Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn time_counts_for_each_link_that_is_up() {
        let at = |seconds| Time::ZERO + Duration::from_secs(seconds);
        let mut counts = Counts { neighbours: Neighbours::default(), at: at(1) };
        counts.advance(at(5)).links = 2;
        counts.advance(at(8)).links = 1;
        assert!((counts.advance(at(10)).link_seconds - 8.0).abs() < 1e-9, "{counts:?}");
    }

    #[test]
    fn judgements_are_told_apart() {
        let counters = NodeCounters::new(Clock::start());
        counters.link_came();
        for change in [NeighbourChange::Up, NeighbourChange::Suspect, NeighbourChange::Suspect] {
            counters.judged(change);
        }
        counters.judged(NeighbourChange::Recovered);
        counters.judged(NeighbourChange::Down);
        let Neighbours { links, suspected, recovered, down, .. } = counters.read();
        assert_eq!((links, suspected, recovered, down), (1, 2, 1, 1));
        counters.link_went();
        assert_eq!(counters.read().links, 0);
    }
}
