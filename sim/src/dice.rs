//! Randomness of one purpose: each has its own, so that changing how one is used leaves the others' draws alone.

use std::time::Duration;

/// SplitMix64 (Steele, Lea and Flood, 2014): eight bytes of state, and fast. Nothing here needs to be unpredictable.
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    /// The dice for `purpose` in the run with this seed.
    pub(crate) const fn new(seed: u64, purpose: u64) -> Self {
        Self(mix(seed ^ mix(purpose)))
    }

    pub(crate) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `end`, which is not 0.
    pub(crate) const fn below(&mut self, end: u64) -> u64 {
        let wide = (self.next() as u128) * (end as u128);
        (wide >> 64) as u64
    }

    /// A number from `least` to `most`.
    pub(crate) const fn within(&mut self, least: u64, most: u64) -> u64 {
        least + self.below(most - least + 1)
    }

    /// A duration from `least` to `most` milliseconds.
    pub(crate) const fn millis(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_micros(self.within(least * 1000, most * 1000))
    }

    /// A duration from `least` to `most` milliseconds, each order of magnitude as likely as any other.
    pub(crate) fn log_millis(&mut self, least: u64, most: u64) -> Duration {
        let doublings = (most / least.max(1)).max(1).ilog2();
        let low = least << self.below(u64::from(doublings) + 1);
        self.millis(low, (low * 2).min(most.max(low)))
    }

    pub(crate) const fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        for chunk in bytes.chunks_mut(8) {
            let word = self.next().to_le_bytes();
            chunk.iter_mut().zip(word).for_each(|(to, from)| *to = from);
        }
        bytes
    }

    /// One of these. `None` if there is none.
    pub(crate) fn pick<T: Copy>(&mut self, of: &[T]) -> Option<T> {
        if of.is_empty() {
            return None;
        }
        of.get(usize::try_from(self.below(of.len() as u64)).unwrap_or(0)).copied()
    }

    /// `count` of these, in some order; all if there are not so many.
    pub(crate) fn some<T: Copy>(&mut self, of: &[T], count: usize) -> Vec<T> {
        let mut left = of.to_vec();
        let mut taken = Vec::new();
        while taken.len() < count && !left.is_empty() {
            let place = usize::try_from(self.below(left.len() as u64)).unwrap_or(0);
            taken.push(left.swap_remove(place));
        }
        taken
    }
}

/// A number that looks random and depends on `n` alone (the finaliser of SplitMix64).
pub(crate) const fn mix(n: u64) -> u64 {
    let n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}
