//! One deadline per key, in order.

use super::time::Time;
use foldhash::{HashMap, HashMapExt};
use std::collections::BTreeSet;
use std::hash::Hash;

/// At most one deadline for each key. Setting and taking cost the logarithm of how many there are.
#[derive(Debug)]
pub struct Timers<K> {
    /// The earliest: it is asked for far more often than it changes.
    next: Option<Time>,
    due: BTreeSet<(Time, K)>,
    at: HashMap<K, Time>,
}

impl<K> Default for Timers<K> {
    fn default() -> Self {
        Self { next: None, due: BTreeSet::new(), at: HashMap::new() }
    }
}

impl<K: Copy + Ord + Hash> Timers<K> {
    /// The key's deadline is `time` from now on; `None` takes it away.
    pub fn set(&mut self, key: K, time: Option<Time>) {
        let before = match time {
            Some(time) => self.at.insert(key, time),
            None => self.at.remove(&key),
        };
        if before == time {
            return;
        }
        if let Some(before) = before {
            self.due.remove(&(before, key));
        }
        self.due.extend(time.map(|time| (time, key)));
        self.next = self.due.first().map(|(time, _)| *time);
    }

    /// The earliest deadline.
    #[must_use]
    pub const fn next(&self) -> Option<Time> {
        self.next
    }

    /// Takes a key whose deadline has passed.
    pub fn pop_due(&mut self, now: Time) -> Option<K> {
        self.next.filter(|next| *next <= now)?;
        let (_, key) = self.due.first().copied()?;
        self.set(key, None);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_first_and_one_per_key() {
        let at = Time::from_micros;
        let mut timers = Timers::default();
        timers.set('a', Some(at(5)));
        timers.set('b', Some(at(3)));
        timers.set('a', Some(at(2)));
        assert_eq!((timers.next(), timers.pop_due(at(1))), (Some(at(2)), None));
        assert_eq!(
            (timers.pop_due(at(3)), timers.pop_due(at(3)), timers.pop_due(at(9))),
            (Some('a'), Some('b'), None)
        );
    }
}
