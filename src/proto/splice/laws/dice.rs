//! Chance, from a seed.

/// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): so that a seed means the same run whatever version of a crate.
pub(super) struct Dice(u64);

impl Dice {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    const fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// One of 0, 1, ... `count` - 1.
    pub(super) fn below(&mut self, count: usize) -> usize {
        assert!(count > 0, "one of none");
        usize::try_from(self.roll() % count as u64).expect("less than a usize")
    }

    /// One of `low`, ... `high`.
    pub(super) fn within(&mut self, low: usize, high: usize) -> usize {
        low + self.below(high - low + 1)
    }

    /// True once in `count` times.
    pub(super) fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    pub(super) fn pick<T: Copy>(&mut self, among: &[T]) -> T {
        among[self.below(among.len())]
    }

    /// A time in the next few dozen steps.
    pub(super) fn soon(&mut self, now: u32) -> u32 {
        now + u32::try_from(self.below(80)).expect("small")
    }
}
