//! What will happen, in order.

use hopline::proto::Time;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Things by the time at which they happen; of two at the same time the one that was put in first comes first.
///
/// The heap holds 24 bytes for each, whatever a thing's size; the things themselves lie still in a slab.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    heap: BinaryHeap<Reverse<(Time, u64, u32)>>,
    slab: Vec<Option<T>>,
    free: Vec<u32>,
    sequence: u64,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { heap: BinaryHeap::new(), slab: Vec::new(), free: Vec::new(), sequence: 0 }
    }
}

impl<T> Queue<T> {
    pub(crate) fn push(&mut self, at: Time, thing: T) {
        let place = self.free.pop().unwrap_or_else(|| {
            self.slab.push(None);
            u32::try_from(self.slab.len() - 1).expect("fewer than 2^32 things are under way")
        });
        if let Some(free) = self.slab.get_mut(place as usize) {
            *free = Some(thing);
        }
        self.sequence += 1;
        self.heap.push(Reverse((at, self.sequence, place)));
    }

    pub(crate) fn next_at(&self) -> Option<Time> {
        self.heap.peek().map(|Reverse((at, ..))| *at)
    }

    pub(crate) fn pop(&mut self) -> Option<(Time, T)> {
        let Reverse((at, _, place)) = self.heap.pop()?;
        self.free.push(place);
        let thing = self.slab.get_mut(place as usize).and_then(Option::take)?;
        Some((at, thing))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
