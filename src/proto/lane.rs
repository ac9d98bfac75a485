//! One direction of one flow at one node (Laws 1 and 2).
//!
//! A lane holds the bytes from the end-to-end ack up to what was received, so that they can be sent again over another
//! leg. The repair is that of chain replication (van Renesse and Schneider, OSDI 2004): keep what was sent until the
//! tail acks it; when the next node dies, send it again to its successor.
//!
//! Offsets count the direction's bytes from its beginning; its end, the FIN, counts as one more byte after the last, so
//! "FIN received" is `received == fin + 1` and "all acked" is `acked == fin + 1`.
//!
//! Invariant (Law 1): the lane holds exactly the bytes [`base`, `received`), where `base` is the lower of the ack and
//! the write cursor of the live out-leg. A leg is contiguous from its start: an ack never makes it skip bytes.
//!
//! A lane does not know who is at its ends, which leg is which, or the time.

use super::planted::{self, Law};
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;

/// No direction is longer than this: what a QUIC stream can carry (RFC 9000, section 4.5).
pub const MAX_OFFSET: u64 = (1 << 62) - 1;

/// More bytes than any sender holds for want of an ack: a leg that repeats so many brings nothing new.
pub const MAX_REPLAY_BYTES: u64 = 64 << 20;

/// Chunks shorter than this are copied (a slice would pin its whole receive batch) and merged with a short neighbour.
const SMALL_BYTES: usize = 1024;

/// What a peer sent can't be true.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FlowViolation {
    /// Bytes beyond the direction's end.
    #[error("data up to {end}, but the direction ends at {fin}")]
    PastFin {
        /// Where the data ends.
        end: u64,
        /// Where the direction ends.
        fin: u64,
    },
    /// An end that contradicts what was known.
    #[error("an end at {offset} contradicts what is known")]
    ContradictoryFin {
        /// The claimed end.
        offset: u64,
    },
    /// An ack of bytes that were never sent.
    #[error("an ack of {offset}, but only {sent} were sent")]
    AckBeyondSent {
        /// The claimed ack.
        offset: u64,
        /// What the source has sent.
        sent: u64,
    },
    /// More bytes that were received before than anybody holds.
    #[error("{bytes} bytes in a row that were received before")]
    EndlessReplay {
        /// The number of bytes.
        bytes: u64,
    },
    /// Bytes, an end or an ack on a leg that is not attached.
    #[error("a message on a leg that is not attached")]
    NotAttached,
}

/// One direction of a flow. See the module's documentation.
#[derive(Debug, Default)]
pub struct Lane {
    chunks: VecDeque<Bytes>,
    base: u64,
    acked: u64,
    received: u64,
    fin: Option<u64>,
    incoming: Option<u64>,
    /// Where the in-leg is that is being left, and still brings bytes.
    fading: Option<u64>,
    /// Bytes in a row that the in-leg brought although they were received before.
    replayed: u64,
    outgoing: Option<Cursor>,
    /// How far the out-legs before this one got.
    reached: u64,
}

/// How far the live out-leg has got, and where that is among the chunks.
#[derive(Clone, Copy, Debug)]
struct Cursor {
    offset: u64,
    chunk: usize,
    skip: usize,
    fin_told: bool,
}

impl Lane {
    /// A lane that begins at `start`, with nothing held.
    #[must_use]
    pub fn starting_at(start: u64) -> Self {
        Self { base: start, acked: start, received: start, ..Self::default() }
    }

    /// Everything before this was received, FIN included.
    #[must_use]
    #[inline]
    pub const fn received(&self) -> u64 {
        self.received
    }

    /// Everything before this was acked end to end, FIN included.
    #[must_use]
    #[inline]
    pub const fn acked(&self) -> u64 {
        self.acked
    }

    /// The direction's total length, when known.
    #[must_use]
    pub const fn fin(&self) -> Option<u64> {
        self.fin
    }

    /// Whether all of the direction, its end included, was received.
    #[must_use]
    pub fn is_received(&self) -> bool {
        self.fin.is_some_and(|fin| self.received > fin)
    }

    /// Whether all of the direction, its end included, was acked.
    #[must_use]
    pub fn is_acked(&self) -> bool {
        self.fin.is_some_and(|fin| self.acked > fin)
    }

    /// Bytes held.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.data_received() - self.base.min(self.data_received())
    }

    /// Bytes held that were not yet written to the live out-leg; all, without one.
    #[must_use]
    #[inline]
    pub fn unsent(&self) -> u64 {
        self.outgoing.map_or_else(|| self.held(), |cursor| self.data_received().saturating_sub(cursor.offset))
    }

    /// Whether the next byte of the in-leg was received before: then it costs no room.
    #[must_use]
    pub fn is_catching_up(&self) -> bool {
        self.incoming.is_some_and(|offset| offset < self.received)
    }

    /// Received bytes, the FIN not counted.
    fn data_received(&self) -> u64 {
        self.fin.map_or(self.received, |fin| self.received.min(fin))
    }

    // ---- the side that feeds the lane ----

    /// An in-leg begins, at an offset that is at most [`Lane::received`].
    ///
    /// # Panics
    /// If it lies beyond: whoever accepts a leg checks that first.
    pub fn attach_in(&mut self, start: u64) {
        assert!(start <= self.received, "an in-leg must not leave a gap");
        (self.incoming, self.replayed) = (Some(start), 0);
    }

    /// The in-leg is gone.
    pub fn detach_in(&mut self) {
        self.incoming = None;
    }

    /// The in-leg is being left for another: until [`Lane::detach_fading`] both bring bytes.
    pub fn fade_in(&mut self) {
        self.fading = self.incoming.take();
    }

    /// The in-leg that was being left is gone.
    pub fn detach_fading(&mut self) {
        self.fading = None;
    }

    /// The next bytes of the in-leg; those that were received before are dropped.
    ///
    /// # Errors
    /// [`FlowViolation`] if they lie beyond the direction's end, too many came before, or there is no in-leg.
    pub fn push(&mut self, bytes: Bytes) -> Result<(), FlowViolation> {
        let start = self.incoming.ok_or(FlowViolation::NotAttached)?;
        self.incoming = Some(self.take_in(start, bytes)?);
        Ok(())
    }

    /// The same for the in-leg that is being left.
    ///
    /// # Errors
    /// As [`Lane::push`].
    pub fn push_fading(&mut self, bytes: Bytes) -> Result<(), FlowViolation> {
        let start = self.fading.ok_or(FlowViolation::NotAttached)?;
        self.fading = Some(self.take_in(start, bytes)?);
        Ok(())
    }

    /// Takes what came at `start`, which is at most `received`; returns where it ends.
    fn take_in(&mut self, start: u64, bytes: Bytes) -> Result<u64, FlowViolation> {
        let end = start + bytes.len() as u64;
        if let Some(fin) = self.fin.filter(|fin| end > *fin) {
            return Err(FlowViolation::PastFin { end, fin });
        }
        if end > self.received {
            // Law 2: what was received before is dropped, so any replay is safe.
            let known = usize::try_from(self.received - start).unwrap_or(usize::MAX);
            let known = if planted::broken(Law::Dedup) { 0 } else { known };
            self.hold(bytes.slice(known..));
            (self.received, self.replayed) = (end, 0);
            // The FIN travels beside the data, so the end may be known before the last byte is here.
            self.count_fin();
        } else {
            self.replayed += bytes.len() as u64;
        }
        if self.replayed > MAX_REPLAY_BYTES {
            return Err(FlowViolation::EndlessReplay { bytes: self.replayed });
        }
        Ok(end)
    }

    /// The direction ends at `offset`.
    ///
    /// # Errors
    /// [`FlowViolation::ContradictoryFin`] if more was received, or another end is known.
    pub fn set_fin(&mut self, offset: u64) -> Result<(), FlowViolation> {
        if !self.may_end_at(offset) {
            return Err(FlowViolation::ContradictoryFin { offset });
        }
        self.fin = Some(offset);
        self.count_fin();
        Ok(())
    }

    /// Whether nothing that is known contradicts an end at `offset`.
    #[must_use]
    pub fn may_end_at(&self, offset: u64) -> bool {
        match self.fin {
            Some(fin) => fin == offset,
            // One more was received only if an ack from further on counted the end.
            None if self.received == offset.saturating_add(1) => offset <= MAX_OFFSET && self.acked > offset,
            None => offset <= MAX_OFFSET && self.received <= offset,
        }
    }

    /// Where the in-leg is: the direction's end, if its stream's end were taken for that.
    #[must_use]
    pub const fn incoming(&self) -> Option<u64> {
        self.incoming
    }

    fn count_fin(&mut self) {
        if self.fin == Some(self.received) && !planted::broken(Law::FinCounted) {
            self.received += 1;
        }
    }

    fn hold(&mut self, bytes: Bytes) {
        if bytes.len() >= SMALL_BYTES {
            self.chunks.push_back(bytes);
            return;
        }
        let last = self.chunks.len().saturating_sub(1);
        match self.chunks.back_mut() {
            Some(short) if short.len() < SMALL_BYTES => {
                // A cursor behind this chunk goes back to its old end, or the rest is never written.
                if !planted::broken(Law::MergedCursor)
                    && let Some(cursor) = self.outgoing.as_mut().filter(|cursor| cursor.chunk > last)
                {
                    (cursor.chunk, cursor.skip) = (last, short.len());
                }
                let mut merged = BytesMut::with_capacity(short.len() + bytes.len());
                merged.extend_from_slice(short);
                merged.extend_from_slice(&bytes);
                *short = merged.freeze();
            }
            _ if bytes.is_empty() => {}
            _ => self.chunks.push_back(Bytes::copy_from_slice(&bytes)),
        }
    }

    // ---- the side that the lane feeds ----

    /// An out-leg begins; returns the offset of its first byte, the lowest that is held.
    pub fn attach_out(&mut self) -> u64 {
        // Without the old cursor only the ack holds bytes back, so a new leg starts there.
        self.detach_out();
        // Law 2: each leg is told the end anew, as whoever was told over the last one may be gone.
        let fin_told = planted::broken(Law::FinRepeated) && self.acked > 0;
        self.outgoing = Some(Cursor { offset: self.base, chunk: 0, skip: 0, fin_told });
        self.base + u64::from(planted::broken(Law::ExactResume) && self.held() > 1)
    }

    /// The out-leg is gone.
    pub fn detach_out(&mut self) {
        self.reached = self.reached.max(self.outgoing.take().map_or(0, |cursor| cursor.offset));
        self.trim();
    }

    /// How many bytes an out-leg that begins at `start` gets though a former one had them.
    #[must_use]
    pub const fn sent_from(&self, start: u64) -> u64 {
        self.reached.saturating_sub(start)
    }

    /// The chunks still to be written to the out-leg, in order; none without one.
    pub fn front(&self) -> impl Iterator<Item = Bytes> + '_ {
        let (chunk, mut skip) = self.outgoing.map_or((usize::MAX, 0), |cursor| (cursor.chunk, cursor.skip));
        self.chunks.iter().skip(chunk).map(move |bytes| bytes.slice(std::mem::take(&mut skip)..))
    }

    /// Whether there is something for the out-leg, or there was the direction's end.
    #[must_use]
    pub fn has_more(&self) -> bool {
        self.is_received() || self.outgoing.is_some_and(|cursor| cursor.chunk < self.chunks.len())
    }

    /// `count` bytes from [`Lane::front`] were written to the out-leg.
    pub fn advance(&mut self, count: usize) {
        let Some(cursor) = &mut self.outgoing else { return };
        cursor.offset += count as u64;
        cursor.skip += count;
        while let Some(chunk) = self.chunks.get(cursor.chunk).filter(|chunk| chunk.len() <= cursor.skip) {
            cursor.skip -= chunk.len();
            cursor.chunk += 1;
        }
        debug_assert!(cursor.chunk < self.chunks.len() || cursor.skip == 0, "wrote more than there was");
        self.trim();
    }

    /// Whether every byte and the end of the direction have been written to the out-leg.
    #[must_use]
    pub fn is_written(&self) -> bool {
        self.is_received() && self.outgoing.is_some_and(|cursor| Some(cursor.offset) >= self.fin)
    }

    /// How far the out-leg has got, the FIN counted once everything is written; nothing without an out-leg.
    #[must_use]
    pub fn written(&self) -> Option<u64> {
        // A leg that begins after everything was acked starts beyond the FIN, which is counted by then.
        self.outgoing
            .map(|cursor| cursor.offset + u64::from(self.is_written() && Some(cursor.offset) == self.fin))
    }

    /// The direction's end, once for each out-leg: to be told to whoever is at its end.
    pub fn take_fin(&mut self) -> Option<u64> {
        let cursor = self.outgoing.as_mut().filter(|cursor| !cursor.fin_told)?;
        cursor.fin_told = self.fin.is_some();
        self.fin
    }

    /// Everything before `offset` was acked end to end.
    pub fn ack(&mut self, offset: u64) {
        // An attach or an answer may bring an older ack than the last one.
        if offset > self.acked {
            self.acked = offset;
            self.trim();
        }
    }

    /// Lets go of what is no longer needed (Law 1).
    fn trim(&mut self) {
        // The sink has these bytes over another path. Only a live leg must not skip any (Law 1).
        if self.outgoing.is_none() && self.acked > self.received {
            self.chunks.clear();
            (self.base, self.received) = (self.acked, self.acked);
            self.count_fin();
            return;
        }
        let keep = self.outgoing.filter(|_| !planted::broken(Law::TrimAfterWrite));
        let to = keep.map_or(self.acked, |cursor| cursor.offset.min(self.acked));
        self.drop_below(to);
    }

    fn drop_below(&mut self, to: u64) {
        while self.base < to {
            // The FIN counts as a byte, but no chunk holds it.
            let Some(first) = self.chunks.front_mut() else {
                self.base = self.base.max(to.min(self.received));
                return;
            };
            let excess = usize::try_from(to - self.base).unwrap_or(usize::MAX);
            let whole = first.len() <= excess;
            let dropped = first.len().min(excess);
            self.base += dropped as u64;
            if whole {
                self.chunks.pop_front();
            } else {
                let _ = first.split_to(dropped);
            }
            if let Some(cursor) = self.outgoing.as_mut().filter(|_| !planted::broken(Law::ShiftedCursor)) {
                cursor.shift(dropped, whole);
            }
        }
    }
}

impl Cursor {
    /// The first chunk lost its first `dropped` bytes, or, `whole`, went away.
    fn shift(&mut self, dropped: usize, whole: bool) {
        if self.chunk > 0 {
            self.chunk -= usize::from(whole);
        } else {
            self.skip = self.skip.saturating_sub(dropped);
        }
    }
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "small numbers")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fed(bytes: &'static [u8]) -> Lane {
        let mut lane = Lane::starting_at(0);
        lane.attach_in(0);
        lane.push(Bytes::from_static(bytes)).unwrap();
        lane
    }

    fn front(lane: &Lane) -> Vec<u8> {
        lane.front().flatten().collect()
    }

    #[test]
    fn holds_until_acked_and_written() {
        let mut lane = fed(b"abcdef");
        assert_eq!(lane.attach_out(), 0);
        lane.advance(2);
        lane.ack(4);
        assert_eq!((lane.held(), lane.unsent()), (4, 4), "acked but not written on this leg");
        lane.advance(3);
        assert_eq!((lane.held(), front(&lane)), (2, b"f".to_vec()));
        assert_eq!(lane.attach_out(), 4, "a new leg starts at the ack");
        assert_eq!(front(&lane), b"ef");
    }

    #[test]
    fn drops_what_it_has_and_never_leaves_a_gap() {
        let mut lane = fed(b"abcdef");
        lane.attach_in(3);
        lane.push(Bytes::from_static(b"defgh")).unwrap();
        lane.attach_out();
        assert_eq!((front(&lane), lane.received()), (b"abcdefgh".to_vec(), 8));
        lane.detach_in();
        assert_eq!(lane.push(Bytes::from_static(b"x")), Err(FlowViolation::NotAttached));
    }

    #[test]
    fn an_ack_from_further_on_moves_a_lane_without_out_leg() {
        let mut lane = fed(b"abc");
        lane.attach_out();
        lane.ack(9);
        assert_eq!((lane.received(), lane.held()), (3, 3), "a live leg skips nothing");
        lane.detach_out();
        assert_eq!((lane.received(), lane.held()), (9, 0));
        lane.push(Bytes::from_static(b"defghijk")).unwrap();
        assert_eq!((lane.received(), lane.held()), (11, 2), "the in-leg goes on from 3");
    }

    #[test]
    fn the_end_counts_as_a_byte_and_is_told_once_per_leg() {
        let mut lane = fed(b"abc");
        lane.attach_out();
        assert_eq!(lane.take_fin(), None);
        lane.set_fin(5).unwrap();
        assert_eq!((lane.take_fin(), lane.take_fin()), (Some(5), None));
        assert!(!lane.is_received());
        lane.push(Bytes::from_static(b"de")).unwrap();
        assert!(lane.is_received() && !lane.is_written());
        lane.advance(5);
        assert_eq!((lane.is_written(), lane.written()), (true, Some(6)));
        lane.ack(6);
        assert!(lane.is_acked() && lane.held() == 0);
        assert_eq!((lane.attach_out(), lane.take_fin()), (6, Some(5)));
    }

    #[test]
    fn an_end_before_the_last_byte_is_refused_unless_an_ack_counted_it() {
        let mut lane = fed(b"abc");
        assert_eq!(lane.set_fin(2), Err(FlowViolation::ContradictoryFin { offset: 2 }));
        lane.ack(4);
        assert_eq!((lane.received(), lane.may_end_at(3), lane.may_end_at(2)), (4, true, false));
    }

    #[test]
    fn what_contradicts_is_refused() {
        let mut lane = fed(b"abc");
        assert_eq!(lane.set_fin(1), Err(FlowViolation::ContradictoryFin { offset: 1 }));
        assert_eq!(lane.set_fin(u64::MAX), Err(FlowViolation::ContradictoryFin { offset: u64::MAX }));
        lane.set_fin(4).unwrap();
        assert_eq!(lane.set_fin(5), Err(FlowViolation::ContradictoryFin { offset: 5 }));
        assert_eq!(lane.push(Bytes::from_static(b"de")), Err(FlowViolation::PastFin { end: 5, fin: 4 }));
        lane.push(Bytes::from_static(b"d")).unwrap();
    }

    #[test]
    fn short_chunks_are_merged() {
        let mut lane = Lane::starting_at(0);
        lane.attach_in(0);
        for _ in 0..10_000 {
            lane.push(Bytes::from_static(b"x")).unwrap();
        }
        assert!(lane.chunks.len() <= 10, "{} chunks for 10,000 bytes", lane.chunks.len());
    }

    proptest! {
        /// Against the plainest model: the whole direction in one vector.
        #[test]
        fn a_lane_is_a_window_on_its_direction(steps in prop::collection::vec((0u8..6, 0usize..3000), 1..200)) {
            let source: Vec<u8> = (0..200_000usize).map(|i| (i % 251) as u8).collect();
            let (mut lane, mut fed, mut out) = (Lane::starting_at(0), 0usize, None::<usize>);
            lane.attach_in(0);
            for (what, n) in steps {
                match what {
                    0 | 1 => {
                        let to = (fed + n).min(source.len());
                        lane.push(Bytes::copy_from_slice(&source[fed..to])).unwrap();
                        fed = to;
                    }
                    2 => {
                        let bytes = front(&lane);
                        if let Some(at) = &mut out {
                            let count = n.min(bytes.len());
                            prop_assert_eq!(&bytes[..], &source[*at..lane.received() as usize]);
                            lane.advance(count);
                            *at += count;
                        }
                    }
                    3 => lane.ack((n as u64 * 7).min(lane.received())),
                    4 => out = Some(lane.attach_out() as usize),
                    _ => {
                        fed = fed.saturating_sub(n);
                        lane.attach_in(fed as u64);
                    }
                }
                let base = lane.acked().min(out.map_or(u64::MAX, |at| at as u64));
                prop_assert_eq!(lane.held(), lane.received() - base);
                prop_assert_eq!(lane.chunks.iter().map(Bytes::len).sum::<usize>() as u64, lane.held());
            }
        }
    }
}
