//! Data that tells its own place.
//!
//! It looks random, but each aligned word of it can be turned back into its index (SplitMix64 is a bijection: Steele, Lea
//! and Flood, OOPSLA 2014). So a receiver that finds something else than what should come next can say where it belongs:
//! whether bytes were lost, came twice, or came in another order.

use std::ops::Range;

/// Step from one state of the generator to the next.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
const FACTOR_1: u64 = 0xbf58_476d_1ce4_e5b9;
const FACTOR_2: u64 = 0x94d0_49bb_1331_11eb;
const WORD_BYTES: usize = 8;

/// So many bytes always suffice for [`Pattern::locate`].
pub const LOCATABLE_BYTES: usize = 3 * WORD_BYTES;

/// The data of one seed.
#[derive(Clone, Copy, Debug)]
pub struct Pattern {
    seed: u64,
}

impl Pattern {
    /// The data of this seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// Fills `out` with the data from offset `at` on.
    pub fn fill(&self, at: u64, out: &mut [u8]) {
        let within = usize::try_from(at % WORD_BYTES as u64).unwrap_or(0);
        let mut index = at / WORD_BYTES as u64;
        let (head, rest) = out.split_at_mut(out.len().min((WORD_BYTES - within) % WORD_BYTES));
        if !head.is_empty() {
            let word = self.word(index).to_le_bytes();
            head.iter_mut().zip(word.iter().skip(within)).for_each(|(byte, word)| *byte = *word);
            index += 1;
        }
        for (chunk, index) in rest.chunks_mut(WORD_BYTES).zip(index..) {
            let word = self.word(index).to_le_bytes();
            chunk.iter_mut().zip(word).for_each(|(byte, word)| *byte = word);
        }
    }

    /// Where in the data, below `end`, these bytes belong; `None` if nowhere, or they are too few to tell.
    pub fn locate(&self, bytes: &[u8], end: u64) -> Option<u64> {
        (0..WORD_BYTES).find_map(|skipped| {
            let (first, rest) = bytes.get(skipped..)?.split_first_chunk()?;
            let (second, _) = rest.split_first_chunk()?;
            let index = self.index(u64::from_le_bytes(*first));
            let at = index.checked_mul(WORD_BYTES as u64).filter(|at| *at < end)?;
            let follows = self.index(u64::from_le_bytes(*second)) == index + 1;
            at.checked_sub(skipped as u64).filter(|_| follows)
        })
    }

    const fn word(&self, index: u64) -> u64 {
        let mut z = index.wrapping_mul(STEP).wrapping_add(self.seed);
        z = (z ^ (z >> 30)).wrapping_mul(FACTOR_1);
        z = (z ^ (z >> 27)).wrapping_mul(FACTOR_2);
        z ^ (z >> 31)
    }

    /// The inverse of [`Pattern::word`].
    const fn index(&self, word: u64) -> u64 {
        let mut z = word ^ (word >> 31) ^ (word >> 62);
        z = z.wrapping_mul(inverse(FACTOR_2));
        z = z ^ (z >> 27) ^ (z >> 54);
        z = z.wrapping_mul(inverse(FACTOR_1));
        z = z ^ (z >> 30) ^ (z >> 60);
        z.wrapping_sub(self.seed).wrapping_mul(inverse(STEP))
    }
}

/// The inverse of an odd number modulo 2^64, by Newton's method: each step doubles the bits that are right, from three.
const fn inverse(odd: u64) -> u64 {
    let mut inverse = odd;
    let mut right_bits = 3;
    while right_bits < 64 {
        inverse = inverse.wrapping_mul(2u64.wrapping_sub(odd.wrapping_mul(inverse)));
        right_bits *= 2;
    }
    inverse
}

/// What did not come once and in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Never came.
    pub lost: u64,
    /// Came again.
    pub duplicated: u64,
    /// Came after something that should have come later.
    pub reordered: u64,
}

impl std::ops::Add for Faults {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            lost: self.lost + other.lost,
            duplicated: self.duplicated + other.duplicated,
            reordered: self.reordered + other.reordered,
        }
    }
}

/// Keeps book of which parts of a sequence came, whatever the order: bytes by offset, or messages by number.
#[derive(Debug, Default)]
pub struct SequenceCounts {
    /// The end of the furthest part that came.
    top: u64,
    /// What below it did not come yet.
    missing: Vec<Range<u64>>,
    faults: Faults,
}

impl SequenceCounts {
    /// `count` came, of which the first is number `at`.
    pub fn came(&mut self, at: u64, count: u64) {
        let end = at + count;
        if count == 0 {
            return;
        }
        if at > self.top {
            self.missing.push(self.top..at);
        } else if at < self.top {
            let late = self.fill(at..end);
            self.faults.reordered += late;
            self.faults.duplicated += end.min(self.top) - at - late;
        }
        self.top = self.top.max(end);
    }

    /// What came wrongly so far, and what is lost if `total` was all there is.
    pub fn faults(&self, total: u64) -> Faults {
        let missing: u64 = self.missing.iter().map(|part| part.end - part.start).sum();
        Faults { lost: missing + total.saturating_sub(self.top), ..self.faults }
    }

    /// How much came at least once.
    pub fn distinct(&self) -> u64 {
        self.top - self.missing.iter().map(|part| part.end - part.start).sum::<u64>()
    }

    /// Takes what came out of what is missing, and tells how much that is.
    fn fill(&mut self, came: Range<u64>) -> u64 {
        let mut filled = 0;
        let mut left = Vec::new();
        for part in self.missing.drain(..) {
            let (start, end) = (part.start.max(came.start), part.end.min(came.end));
            if start >= end {
                left.push(part);
                continue;
            }
            filled += end - start;
            left.extend([part.start..start, end..part.end].into_iter().filter(|part| !part.is_empty()));
        }
        self.missing = left;
        filled
    }
}

/// Checks data as it comes, byte by byte.
#[derive(Debug)]
pub struct Verifier {
    pattern: Pattern,
    total: u64,
    next: u64,
    counts: SequenceCounts,
    /// Bytes that are not what should come next, and too few to tell where they belong.
    odd: Vec<u8>,
    expected: Vec<u8>,
}

impl Verifier {
    /// Expects `total` bytes of this data.
    #[must_use]
    pub const fn new(pattern: Pattern, total: u64) -> Self {
        Self {
            pattern,
            total,
            next: 0,
            counts: SequenceCounts { top: 0, missing: Vec::new(), faults: NO_FAULTS },
            odd: Vec::new(),
            expected: Vec::new(),
        }
    }

    /// Takes in what came next.
    pub fn came(&mut self, bytes: &[u8]) {
        if self.odd.is_empty() {
            return self.check(bytes);
        }
        let mut odd = std::mem::take(&mut self.odd);
        odd.extend_from_slice(bytes);
        self.check(&odd);
    }

    /// What is wrong if nothing more comes.
    pub fn faults(&self) -> Faults {
        self.counts.faults(self.total)
    }

    /// What is wrong if nothing more comes, and `total` was all there is: for data whose end is not known before.
    pub fn faults_of(&self, total: u64) -> Faults {
        self.counts.faults(total)
    }

    fn check(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let right = self.right(bytes);
            self.counts.came(self.next, right as u64);
            self.next += right as u64;
            bytes = bytes.split_at(right).1;
            match self.pattern.locate(bytes, self.total) {
                Some(at) if at != self.next => self.next = at,
                None if bytes.len() < LOCATABLE_BYTES => {
                    self.odd = bytes.to_vec();
                    return;
                }
                // A byte that is nobody's: what should be in its place counts as lost.
                _ => {
                    self.next += 1;
                    bytes = bytes.split_at(1).1;
                }
            }
        }
    }

    /// How many of these bytes are what should come next.
    fn right(&mut self, bytes: &[u8]) -> usize {
        self.expected.resize(bytes.len(), 0);
        self.pattern.fill(self.next, &mut self.expected);
        if self.expected == bytes && self.next + bytes.len() as u64 <= self.total {
            return bytes.len();
        }
        let left = usize::try_from(self.total.saturating_sub(self.next)).unwrap_or(usize::MAX);
        bytes.iter().zip(&self.expected).take(left).take_while(|(byte, expected)| byte == expected).count()
    }
}

const NO_FAULTS: Faults = Faults { lost: 0, duplicated: 0, reordered: 0 };

#[cfg(test)]
#[expect(
    clippy::cast_possible_truncation,
    clippy::single_range_in_vec_init,
    reason = "small numbers, and lists of ranges"
)]
mod tests {
    use super::*;

    const PATTERN: Pattern = Pattern::new(42);
    const TOTAL: u64 = 4096;

    fn data(part: Range<u64>) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(part.end - part.start).unwrap()];
        PATTERN.fill(part.start, &mut bytes);
        bytes
    }

    #[test]
    fn any_part_is_filled_like_the_whole_and_tells_its_place() {
        let whole = data(0..200);
        for start in 0..60 {
            for length in 0..40 {
                assert_eq!(data(start..start + length), whole[start as usize..(start + length) as usize]);
            }
            let part = data(start..start + LOCATABLE_BYTES as u64);
            assert_eq!(PATTERN.locate(&part, 200), Some(start));
        }
        assert_eq!(PATTERN.locate(&[7; 64], TOTAL), None);
        assert_eq!(PATTERN.locate(&data(0..15), TOTAL), None, "one word alone proves nothing");
    }

    #[test]
    fn whatever_goes_wrong_is_counted_as_what_it_is() {
        let faults = |lost, duplicated, reordered| Faults { lost, duplicated, reordered };
        let cases: [(&str, &[Range<u64>], Faults); 8] = [
            ("all is well", &[0..TOTAL], NO_FAULTS),
            ("nothing came", &[], faults(TOTAL, 0, 0)),
            ("the end is missing", &[0..4000], faults(96, 0, 0)),
            ("a gap", &[0..1000, 1033..TOTAL], faults(33, 0, 0)),
            ("a replay", &[0..1000, 900..TOTAL], faults(0, 100, 0)),
            ("all twice", &[0..TOTAL, 0..TOTAL], faults(0, TOTAL, 0)),
            ("parts swapped", &[0..1001, 2003..3001, 1001..2003, 3001..TOTAL], faults(0, 0, 1002)),
            ("late, and only in part", &[0..100, 300..400, 150..250, 400..TOTAL], faults(100, 0, 100)),
        ];
        for (what, parts, expected) in cases {
            for step in [1, 7, 64, 5000] {
                let mut verifier = Verifier::new(PATTERN, TOTAL);
                let bytes: Vec<u8> = parts.iter().cloned().flat_map(data).collect();
                bytes.chunks(step).for_each(|chunk| verifier.came(chunk));
                assert_eq!(verifier.faults(), expected, "{what}, {step} bytes at a time");
            }
        }
    }

    #[test]
    fn an_altered_byte_is_a_lost_one() {
        for place in [0, 1, 8, 2000, 4095] {
            let mut bytes = data(0..TOTAL);
            bytes[place] ^= 1;
            let mut verifier = Verifier::new(PATTERN, TOTAL);
            bytes.chunks(100).for_each(|chunk| verifier.came(chunk));
            assert!((1..=24).contains(&verifier.faults().lost), "{place}: {:?}", verifier.faults());
            assert_eq!(verifier.faults().duplicated, 0);
        }
    }

    #[test]
    fn messages_are_tallied_by_number() {
        let mut counts = SequenceCounts::default();
        [0, 1, 3, 2, 2, 5].into_iter().for_each(|number| counts.came(number, 1));
        assert_eq!(counts.faults(7), Faults { lost: 2, duplicated: 1, reordered: 1 });
        assert_eq!(counts.distinct(), 5);
    }
}
