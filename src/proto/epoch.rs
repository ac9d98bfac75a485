//! Path epochs (Law 4): which of two attaches for the same flow wins.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Hops of the longest chain, the target not counted.
pub const MAX_HOPS: usize = 8;

/// A path of dial counters: the origin's, then each relay's, down to whoever dialled.
///
/// Epochs compare lexicographically and an acceptor takes only a strictly greater one. Everybody raises only the last
/// component of what it sends, its own, so two repairs at once settle: the one nearer to the origin wins.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Epoch(Vec<u32>);

impl Epoch {
    /// The origin's own: nobody dialled it.
    pub const ORIGIN: Self = Self(Vec::new());

    /// The epoch of a dial: `self`, under which the dialer was attached, and the dialer's counter.
    #[must_use]
    pub fn child(&self, counter: u32) -> Self {
        let mut path = self.0.clone();
        path.push(counter);
        Self(path)
    }

    /// The counters, the origin's first.
    #[must_use]
    pub fn counters(&self) -> &[u32] {
        &self.0
    }

    /// How many hops lie on the path: the acceptor's hop index (the origin's is 0).
    #[must_use]
    pub const fn hop(&self) -> usize {
        self.0.len()
    }

    /// Whether this epoch's path has been outranked by `winner`, which was accepted further down.
    ///
    /// `false` also when `winner` continues this very path: then it was an earlier dial of our own.
    #[must_use]
    pub fn outranked_by(&self, winner: &Self) -> bool {
        let shared = self.0.len().min(winner.0.len());
        self.0.get(..shared) < winner.0.get(..shared)
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_repair_nearer_to_the_origin_wins() {
        let mine = Epoch::ORIGIN.child(1).child(3);
        assert!(mine.outranked_by(&Epoch::ORIGIN.child(2).child(1).child(1)));
        assert!(!mine.outranked_by(&mine.child(7)), "my own earlier dial");
        assert!(
            !mine.outranked_by(&Epoch::ORIGIN.child(1).child(2).child(9)),
            "a dial of my prev before the last"
        );
        assert!(Epoch::ORIGIN.child(2) > Epoch::ORIGIN.child(1));
        assert!(!Epoch::ORIGIN.outranked_by(&mine), "the origin never yields");
    }
}
