//! What the applications at both ends do: send pieces and an end, take bytes and compare them.

use super::checks::value;
use super::finding::Check;
use super::world::{Stream, World};
use crate::splice::{Direction, Splice};
use bytes::Bytes;

impl World {
    /// Whether the application that sends in `direction` may send its end now.
    fn may_end(&self, direction: Direction) -> bool {
        let waits = self.habits.half_close && direction == Direction::Backward;
        !waits || self.stream(Direction::Forward).ended
    }

    /// Whether the application at an endpoint has something to send, and is let.
    pub(super) fn can_feed(&self, splice: &Splice) -> bool {
        let direction = splice.source();
        let stream = self.stream(direction);
        let rests = self.hush || stream.sender_rests > self.now;
        let possible = if stream.sent == stream.size {
            self.may_end(direction)
        } else {
            splice.has_room(direction, &self.habits.limits)
        };
        !rests && !stream.finished && possible
    }

    /// The application sends a piece, or the end, or both.
    pub(super) fn feed(&mut self, node: usize) {
        let direction = self.splice(node).source();
        let Stream { size, sent, .. } = *self.stream(direction);
        let left = usize::try_from(size - sent).expect("small");
        let count = self.portion(left.min(self.habits.piece));
        let with_end = count == 0 || self.dice.one_in(2);
        let ends = count == left && with_end && self.may_end(direction);
        if count > 0 {
            let bytes: Bytes = (sent..).take(count).map(|offset| value(direction, offset)).collect();
            self.splice(node).send(bytes).expect("a source may send until its end");
        }
        if ends {
            self.splice(node).finish();
        }
        let stream = self.stream_mut(direction);
        stream.sent += count as u64;
        stream.finished = ends;
    }

    /// Whether the application at a sink has something to take, and cares.
    pub(super) fn can_take(&self, splice: &Splice, direction: Direction) -> bool {
        let lane = splice.lane(direction);
        let rests = self.stream(direction).taker_rests > self.now;
        !rests && (lane.unsent() > 0 || (lane.is_received() && !lane.is_acked()))
    }

    /// The application takes bytes, or the end.
    pub(super) fn take(&mut self, node: usize, direction: Direction) {
        let bytes = self.splice(node).lane(direction).front().next().unwrap_or_default();
        let count = self.portion(bytes.len());
        let taken = self.stream(direction).taken;
        for (offset, byte) in (taken..).zip(&bytes[..count]) {
            if *byte != value(direction, offset) {
                self.find(Check::Delivered, format_args!("a wrong byte at {offset} {direction:?}"));
            }
        }
        let splice = self.splice(node);
        splice.wrote(direction, count);
        if count == 0 && splice.lane(direction).is_written() {
            splice.taken();
            splice.ack_end();
        }
        let (ended, fin) = (splice.lane(direction).is_acked(), splice.lane(direction).fin());
        let stream = self.stream_mut(direction);
        stream.taken += count as u64;
        stream.ended = ended;
        let (taken, size) = (stream.taken, stream.size);
        self.note(format_args!(
            "{} takes {count} bytes{} {direction:?}, has {taken}",
            self.name(node),
            if ended { " and the end" } else { "" }
        ));
        if taken > size || (ended && (taken, fin) != (size, Some(size))) {
            self.find(Check::Delivered, format_args!("{taken} of {size} bytes {direction:?}, end {ended}"));
        }
    }
}
