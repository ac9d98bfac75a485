//! How many bytes a node keeps for replay, over all its flows.
//!
//! Every lane may hold [`RESERVE_BYTES`] whatever the others do, so that each flow goes on and two relays can't wait for
//! each other's room. What a lane holds beyond that counts against one shared budget. Nothing is ever dropped: while the
//! budget is spent, whoever feeds a lane beyond its reserve waits.
//!
//! They wait in a queue and are woken one by one, in its order: whoever was woken looks first, and takes what it can, and
//! only then, if there is room left, the next is woken. So room that returns never wakes more than can use it, and nobody
//! who has nothing to take keeps it from the others.
//!
//! Room is looked for before a read, so a lane may go beyond it by what one read brings.
//!
//! Knows no lanes: it is told what each holds.

use super::key::FlowKey;
use crate::splice::Direction;
use foldhash::{HashMap, HashMapExt};
use std::collections::BTreeMap;

/// What every lane may hold outside the shared budget, in bytes.
pub const RESERVE_BYTES: u64 = 64 << 10;

/// A direction of a flow.
pub(super) type LaneKey = (FlowKey, Direction);

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Budget {
    limit: u64,
    used: u64,
    /// Who waits, in the order in which they came, and where each stands.
    queue: BTreeMap<u64, LaneKey>,
    places: HashMap<LaneKey, u64>,
    next_place: u64,
    /// Who was woken and has not looked yet.
    woken: Option<LaneKey>,
    /// Whether the owner has still to wake that one.
    to_wake: bool,
}

impl Budget {
    pub(super) fn new(limit: u64) -> Self {
        let (queue, places) = (BTreeMap::new(), HashMap::new());
        // Places begin in the middle, so that there are some before the first.
        Self { limit, used: 0, queue, places, next_place: 1 << 63, woken: None, to_wake: false }
    }

    /// What counts against the budget of what a lane holds.
    pub(super) const fn share(held: u64) -> u64 {
        held.saturating_sub(RESERVE_BYTES)
    }

    /// What all lanes together have taken of it.
    pub(super) const fn used(&self) -> u64 {
        self.used
    }

    /// A lane's share was `before` and is `after`.
    pub(super) fn moved(&mut self, before: u64, after: u64) {
        self.used = self.used - before + after;
        self.wake_next();
    }

    /// Whether a lane that holds that much may take more. If not, it waits.
    pub(super) fn admits(&mut self, lane: LaneKey, held: u64) -> bool {
        let was_woken = self.woken == Some(lane);
        if was_woken {
            self.woken = None;
        }
        // Nobody overtakes those who wait, except within its reserve.
        let has_room =
            held < RESERVE_BYTES || (self.used < self.limit && (was_woken || self.queue.is_empty()));
        if has_room {
            self.forget(lane);
        } else if !self.places.contains_key(&lane) {
            // Whoever asks again keeps its place.
            self.enqueue(lane, was_woken);
        }
        self.wake_next();
        has_room
    }

    /// Whoever was woken in vain stays the first.
    fn enqueue(&mut self, lane: LaneKey, first: bool) {
        let place = match self.queue.first_key_value() {
            Some((place, _)) if first => place.wrapping_sub(1),
            _ => self.next_place,
        };
        self.next_place = self.next_place.max(place + 1);
        self.queue.insert(place, lane);
        self.places.insert(lane, place);
    }

    /// A lane waits no more: it has room of its own, or is gone.
    pub(super) fn forget(&mut self, lane: LaneKey) {
        if let Some(place) = self.places.remove(&lane) {
            self.queue.remove(&place);
        }
        // It will not look any more, and nobody else would be woken until it had.
        if self.woken == Some(lane) {
            self.woken = None;
            self.wake_next();
        }
    }

    fn wake_next(&mut self) {
        if self.woken.is_none()
            && self.used < self.limit
            && let Some((_, lane)) = self.queue.pop_first()
        {
            self.places.remove(&lane);
            (self.woken, self.to_wake) = (Some(lane), true);
        }
    }

    /// Who is to be woken, once.
    pub(super) fn take_woken(&mut self) -> Option<FlowKey> {
        let to_wake = std::mem::take(&mut self.to_wake);
        self.woken.filter(|_| to_wake).map(|(flow, _)| flow)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{FlowId, Pseudonym};
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    const KIB: u64 = 1 << 10;
    const LIMIT: u64 = 256 * KIB;

    fn lane(n: u8) -> LaneKey {
        let flow =
            FlowKey { origin: Pseudonym::from_bytes([0; 16]), flow: FlowId::from_bytes([n; 16]), hop: 1 };
        (flow, Direction::Forward)
    }

    /// Lanes, what each holds, and the budget that counts them.
    struct Node {
        budget: Budget,
        held: Vec<u64>,
    }

    impl Node {
        fn new(lanes: usize) -> Self {
            Self { budget: Budget::new(LIMIT), held: vec![0; lanes] }
        }

        fn set(&mut self, n: u8, held: u64) {
            let before = std::mem::replace(&mut self.held[usize::from(n)], held);
            self.budget.moved(Budget::share(before), Budget::share(held));
        }

        fn admits(&mut self, n: u8) -> bool {
            self.budget.admits(lane(n), self.held[usize::from(n)])
        }

        fn sum(&self) -> u64 {
            self.held.iter().map(|held| Budget::share(*held)).sum()
        }
    }

    #[test]
    fn a_reserve_is_nobody_elses() {
        let mut node = Node::new(3);
        node.set(0, RESERVE_BYTES + LIMIT);
        assert!(!node.admits(0), "the budget is spent");
        node.set(1, RESERVE_BYTES - 1);
        assert!(node.admits(1), "but this one has room of its own");
        node.set(1, RESERVE_BYTES);
        assert!(!node.admits(1) && node.admits(2));
        assert_eq!(node.budget.used(), node.sum());
    }

    #[test]
    fn room_goes_round_in_order_and_wakes_nobody_for_nothing() {
        let mut node = Node::new(4);
        node.set(0, RESERVE_BYTES + LIMIT);
        for n in 1..4 {
            node.set(n, RESERVE_BYTES);
            assert!(!node.admits(n));
        }
        assert_eq!(node.budget.take_woken(), None);
        node.set(0, RESERVE_BYTES + LIMIT - 8 * KIB);
        assert_eq!(node.budget.take_woken(), Some(lane(1).0));
        assert_eq!(node.budget.take_woken(), None, "once, and one at a time");
        assert!(!node.admits(0), "whoever did not wait does not come first");
        assert!(node.admits(1));
        assert_eq!(node.budget.take_woken(), Some(lane(2).0), "there is room left: the next may look");
        node.set(1, RESERVE_BYTES + 8 * KIB);
        assert!(!node.admits(2), "it was taken meanwhile");
        assert_eq!(node.budget.take_woken(), None);
        node.set(1, RESERVE_BYTES);
        assert_eq!(node.budget.take_woken(), Some(lane(2).0), "who was woken in vain stays the first");
        node.budget.forget(lane(2));
        assert_eq!(node.budget.take_woken(), Some(lane(3).0), "nobody waits for one that is gone");
        assert!(node.admits(3));
        assert_eq!(node.budget.take_woken(), Some(lane(0).0));
    }

    /// Whatever happens: the account is the sum over all lanes, each lane goes beyond the budget by one portion at most, and
    /// nobody waits while there is room.
    #[test]
    fn the_account_is_exact_and_everybody_gets_on() {
        const LANES: u8 = 12;
        const PORTION: u64 = 16 * KIB;
        for seed in 0..200 {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut node = Node::new(LANES.into());
            let mut blocked = [false; LANES as usize];
            let mut moved = [0u64; LANES as usize];
            for _ in 0..2000 {
                let n = rng.random_range(0..LANES);
                let place = usize::from(n);
                if rng.random_bool(0.5) && !blocked[place] {
                    if node.admits(n) {
                        node.set(n, node.held[place] + rng.random_range(1..=PORTION));
                        moved[place] += 1;
                    } else {
                        blocked[place] = true;
                    }
                } else if rng.random_bool(0.3) {
                    node.set(n, node.held[place].saturating_sub(rng.random_range(0..4 * PORTION)));
                    // What a lane's own room is worth, its owner sees for itself.
                    if node.held[place] < RESERVE_BYTES {
                        blocked[place] = false;
                    }
                }
                while let Some(flow) = node.budget.take_woken() {
                    let woken = (0..LANES).find(|n| lane(*n).0 == flow).unwrap();
                    blocked[usize::from(woken)] = !node.admits(woken);
                }
                assert_eq!(node.budget.used(), node.sum(), "seed {seed}");
                assert!(node.budget.used() <= LIMIT + u64::from(LANES) * PORTION, "seed {seed}");
                let waits = (0..LANES).any(|n| blocked[usize::from(n)]);
                assert!(
                    !waits || node.budget.used() >= LIMIT,
                    "seed {seed}: somebody waits beside free room"
                );
            }
            assert!(moved.iter().all(|count| *count > 10), "seed {seed}: {moved:?}");
        }
    }
}
