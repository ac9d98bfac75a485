//! The operating system's randomness, the only place that draws it.
//!
//! The protocol never does: its machines get a generator at construction, so that a simulation can replay them.

use rand::SeedableRng;
use rand::rngs::StdRng;

/// A generator (ChaCha) for machines and for ids, seeded with 256 bits of the operating system.
#[must_use]
pub fn seeded_rng() -> StdRng {
    StdRng::from_seed(bytes())
}

/// `N` bytes fit for keys.
///
/// # Panics
/// If the operating system has no randomness to give: nothing could be kept secret then.
#[must_use]
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).expect("the operating system gives randomness");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::Rng;

    #[test]
    fn no_two_draws_agree() {
        assert_ne!(bytes::<16>(), bytes::<16>());
        assert_ne!(seeded_rng().next_u64(), seeded_rng().next_u64());
    }
}
