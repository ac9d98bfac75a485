//! What will happen, in order.

use hopline_proto::Time;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap};

/// A slot is 2^10 µs wide.
const SLOT_BITS: u32 = 10;
/// Slots that are kept in the ring: those of the next 16.8 s. Few things are due later than that.
const SLOTS: usize = 1 << 14;
const WORD_BITS: usize = u64::BITS as usize;

/// Things by the time at which they happen; of two at the same time the one that was put in first comes first.
///
/// A timing wheel (Varghese and Lauck, 1987) with one ring: putting in costs nothing but for what is due within the
/// present slot, or beyond the ring. With hundreds of thousands of things under way a heap of them all would miss the
/// processor's caches at each of its levels.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    /// What is due in the present slot, or was put in late.
    present: BinaryHeap<Entry<T>>,
    /// The number of the present slot, counted from time zero.
    slot: u64,
    /// Later slots of the ring, each at its number modulo [`SLOTS`].
    ring: Vec<Vec<Entry<T>>>,
    /// Which of them hold something, a bit for each.
    filled: Vec<u64>,
    /// Slots beyond the ring.
    beyond: BTreeMap<u64, Vec<Entry<T>>>,
    sequence: u64,
}

#[derive(Debug)]
struct Entry<T> {
    at: Time,
    sequence: u64,
    thing: T,
}

impl<T> Ord for Entry<T> {
    /// The earliest is the greatest, as a heap yields it first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.sequence).cmp(&(self.at, self.sequence))
    }
}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<T> Eq for Entry<T> {}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self {
            present: BinaryHeap::new(),
            slot: 0,
            ring: std::iter::repeat_with(Vec::new).take(SLOTS).collect(),
            filled: vec![0; SLOTS / WORD_BITS],
            beyond: BTreeMap::new(),
            sequence: 0,
        }
    }
}

impl<T> Queue<T> {
    pub(crate) fn push(&mut self, at: Time, thing: T) {
        self.sequence += 1;
        let entry = Entry { at, sequence: self.sequence, thing };
        let slot = at.as_micros() >> SLOT_BITS;
        if slot <= self.slot {
            self.present.push(entry);
        } else if slot - self.slot < SLOTS as u64 {
            self.put(slot, entry);
        } else {
            self.beyond.entry(slot).or_default().push(entry);
        }
    }

    pub(crate) fn next_at(&mut self) -> Option<Time> {
        self.advance();
        self.present.peek().map(|entry| entry.at)
    }

    pub(crate) fn pop(&mut self) -> Option<(Time, T)> {
        self.advance();
        self.present.pop().map(|entry| (entry.at, entry.thing))
    }

    fn put(&mut self, slot: u64, entry: Entry<T>) {
        let place = place(slot);
        if let (Some(entries), Some(word)) =
            (self.ring.get_mut(place), self.filled.get_mut(place / WORD_BITS))
        {
            entries.push(entry);
            *word |= 1 << (place % WORD_BITS);
        }
    }

    /// Goes on to the next slot that holds something if the present one is empty.
    fn advance(&mut self) {
        while self.present.is_empty() {
            let Some(slot) = self.next_filled().or_else(|| self.beyond.keys().next().copied()) else {
                return;
            };
            self.slot = slot;
            while let Some(later) = self.beyond.first_entry().filter(|l| l.key() - slot < SLOTS as u64) {
                let (slot, entries) = later.remove_entry();
                entries.into_iter().for_each(|entry| self.put(slot, entry));
            }
            let place = place(slot);
            if let (Some(entries), Some(word)) =
                (self.ring.get_mut(place), self.filled.get_mut(place / WORD_BITS))
            {
                self.present.extend(entries.drain(..));
                *word &= !(1 << (place % WORD_BITS));
            }
        }
    }

    /// The next slot of the ring that holds something. What lies beyond the ring is later.
    fn next_filled(&self) -> Option<u64> {
        let start = place(self.slot);
        let words = self.filled.len();
        // The word of the present slot comes first, without the slots before it, and again at the end, for those.
        (0..=words).find_map(|n| {
            let number = (start / WORD_BITS + n) % words;
            let from = if n == 0 { !0 << (start % WORD_BITS) } else { !0 };
            let word = self.filled.get(number).map_or(0, |word| word & from);
            let found = (word != 0).then(|| number * WORD_BITS + word.trailing_zeros() as usize)?;
            Some(self.slot + ((found + SLOTS - start) % SLOTS) as u64)
        })
    }
}

/// A slot's place in the ring.
fn place(slot: u64) -> usize {
    usize::try_from(slot % SLOTS as u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dice::Dice;

    #[test]
    fn by_time_then_by_order_of_arrival() {
        let mut queue = Queue::default();
        for (at, thing) in [(2, 'c'), (1, 'a'), (1, 'b')] {
            queue.push(Time::from_micros(at), thing);
        }
        assert_eq!(queue.next_at(), Some(Time::from_micros(1)));
        let order: String = std::iter::from_fn(|| queue.pop()).map(|(_, thing)| thing).collect();
        assert_eq!(order, "abc");
    }

    #[test]
    fn as_a_sorted_list_would_give_them() {
        for seed in 0..20 {
            let mut dice = Dice::new(seed, 1);
            let (mut queue, mut list) = (Queue::default(), BTreeMap::new());
            let mut now = 1 << 40;
            for n in 0..20_000u64 {
                let reach = dice.pick(&[0, 500, 5_000, 1_000_000, 20_000_000, 200_000_000]).unwrap();
                let at = now + dice.below(reach + 1);
                queue.push(Time::from_micros(at), n);
                list.insert((at, n), ());
                for _ in 0..dice.below(3) {
                    let expected = list.pop_first().map(|((at, n), ())| (Time::from_micros(at), n));
                    assert_eq!(queue.next_at(), expected.map(|(at, _)| at));
                    assert_eq!(queue.pop(), expected);
                    now = expected.map_or(now, |(at, _)| at.as_micros());
                }
            }
            while let Some(((at, n), ())) = list.pop_first() {
                assert_eq!(queue.pop(), Some((Time::from_micros(at), n)));
            }
            assert_eq!(queue.pop(), None);
        }
    }
}
