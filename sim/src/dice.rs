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

    /// True once in `count` times.
    pub(crate) const fn one_in(&mut self, count: usize) -> bool {
        self.place(count) == 0
    }

    /// A place among `count`, which is not 0.
    #[expect(clippy::cast_possible_truncation, reason = "it is less than `count`")]
    pub(crate) const fn place(&mut self, count: usize) -> usize {
        self.below(count as u64) as usize
    }

    /// A size from `least` to `most`.
    pub(crate) const fn size(&mut self, least: usize, most: usize) -> usize {
        least + self.place(most - least + 1)
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
        if of.is_empty() { None } else { of.get(self.place(of.len())).copied() }
    }

    /// One of these, of which there are some.
    pub(crate) fn one_of<T: Copy>(&mut self, of: &[T]) -> T {
        self.pick(of).expect("one of none")
    }

    /// `count` of these, in some order; all if there are not so many.
    pub(crate) fn some<T: Copy>(&mut self, of: &[T], count: usize) -> Vec<T> {
        let mut left = of.to_vec();
        let mut taken = Vec::new();
        while taken.len() < count && !left.is_empty() {
            taken.push(left.swap_remove(self.place(left.len())));
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
