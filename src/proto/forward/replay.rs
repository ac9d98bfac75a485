//! Which of the latest counters have come (RFC 6479's window, as IPsec and WireGuard have it).

/// Counters behind the newest that are told apart, in words of 64: packets overtake each other by no more.
const WORDS: usize = 16;
const WINDOW: u64 = WORDS as u64 * 64;

/// See the module's documentation. Counters start at 0.
#[derive(Clone, Debug, Default)]
pub(super) struct ReplayWindow {
    /// One more than the newest.
    end: u64,
    /// One bit for each counter, at its remainder by the window.
    seen: [u64; WORDS],
}

impl ReplayWindow {
    /// Whether a counter has not come before; one that is too old to tell has.
    pub(super) fn is_new(&self, counter: u64) -> bool {
        counter >= self.end || (self.end - counter <= WINDOW && self.word(counter) & bit(counter) == 0)
    }

    /// It has come now.
    pub(super) fn take(&mut self, counter: u64) {
        if counter >= self.end {
            let skipped = counter - self.end;
            if skipped >= WINDOW {
                self.seen = [0; WORDS];
            } else {
                (self.end..counter).for_each(|skipped| *self.word_mut(skipped) &= !bit(skipped));
            }
            self.end = counter.saturating_add(1);
        }
        *self.word_mut(counter) |= bit(counter);
    }

    fn word(&self, counter: u64) -> u64 {
        self.seen.get(place(counter)).copied().unwrap_or(u64::MAX)
    }

    fn word_mut(&mut self, counter: u64) -> &mut u64 {
        self.seen.get_mut(place(counter)).expect("a remainder is within the window")
    }
}

const fn bit(counter: u64) -> u64 {
    1 << (counter % 64)
}

const fn place(counter: u64) -> usize {
    (counter / 64) as usize % WORDS
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn it_takes_each_counter_once_and_none_that_is_old(
            steps in prop::collection::vec((0_u64..3 * WINDOW, prop::bool::weighted(0.1)), 1..400),
        ) {
            let (mut window, mut came, mut base) = (ReplayWindow::default(), BTreeSet::new(), 0);
            for (step, jumps) in steps {
                base += if jumps { step } else { 0 };
                let counter = base + step % WINDOW;
                let newest = came.last().copied().unwrap_or(0);
                let expected = counter + WINDOW > newest && !came.contains(&counter);
                prop_assert_eq!(window.is_new(counter), expected, "{} after {}", counter, newest);
                if expected {
                    window.take(counter);
                    came.insert(counter);
                }
            }
        }
    }
}
