//! What the applications at both ends do: send pieces and an end, take bytes and compare them.

use super::world::{Stream, World};
use crate::traffic::pattern;
use hopline_proto::splice::{Direction, Splice};

/// What the bytes of a direction are drawn by, so that any that is lost, doubled or out of order shows.
pub(super) const fn salt(direction: Direction) -> u64 {
    (direction as u64) << 20
}

impl World {
    /// Whether the application that sends in `direction` may send its end now.
    const fn may_end(&self, direction: Direction) -> bool {
        let waits = self.habits.half_close && matches!(direction, Direction::Backward);
        !waits || self.streams[0].ended
    }

    /// Whether the application at an endpoint has something to send, and is let.
    pub(super) fn can_feed(&self, splice: &Splice) -> bool {
        let direction = splice.source();
        let stream = &self.streams[direction as usize];
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
        let splice = self.splice(node);
        if count > 0 {
            splice.send(pattern(salt(direction), sent, count)).expect("a source may send until its end");
        }
        if ends {
            splice.finish();
        }
        let stream = self.stream(direction);
        stream.sent += count as u64;
        stream.finished = ends;
    }

    /// Whether the application at a sink has something to take, and cares.
    pub(super) fn can_take(&self, splice: &Splice, direction: Direction) -> bool {
        let lane = splice.lane(direction);
        let rests = self.streams[direction as usize].taker_rests > self.now;
        !rests && (lane.unsent() > 0 || (lane.is_received() && !lane.is_acked()))
    }

    /// The application takes bytes, or the end.
    pub(super) fn take(&mut self, node: usize, direction: Direction) {
        let mut bytes = self.splice(node).lane(direction).front().next().unwrap_or_default();
        let count = self.portion(bytes.len());
        bytes.truncate(count);
        let Stream { taken, size, .. } = *self.stream(direction);
        if bytes != pattern(salt(direction), taken, count) {
            self.fail("delivery", format_args!("wrong bytes {direction:?} from {taken} on"));
        }
        let splice = self.splice(node);
        splice.wrote(direction, count);
        if count == 0 && splice.lane(direction).is_written() {
            splice.taken();
            splice.ack_end();
        }
        let (ended, fin) = (splice.lane(direction).is_acked(), splice.lane(direction).fin());
        let taken = taken + count as u64;
        let stream = self.stream(direction);
        (stream.taken, stream.ended) = (taken, ended);
        if taken > size || (ended && (taken, fin) != (size, Some(size))) {
            self.fail("delivery", format_args!("{taken} of {size} bytes {direction:?}, end {ended}"));
        }
    }
}
