//! How many bytes a flow may hold at a node, and what of those counts against the node's budget.
//!
//! A lane holds what was not acked. So with a window of `W` bytes it carries at most `W / T` bytes a second, where `T` is the time from
//! the reception of a byte to its ack. The first window does for short paths. On long ones a node measures `T`, and the rate at which bytes
//! are acked, once a round. The least `T` times the rate is what the path itself takes up: more would only wait in queues (as BBR
//! has it: Cardwell et al., ACM Queue 14(5), 2016). The window grows to twice that, so that a lane that its window holds back can get
//! faster with each round. It never shrinks. The least `T` is that of the flow's life.
//!
//! A round begins with bytes that come, and ends when they are acked.

use crate::lane::Lane;
use crate::splice::{Direction, Limits};
use crate::time::Time;
use std::time::Duration;

/// Paths whose acks take less do with the first window: its 4 MiB carry 200 MB/s. A sink may put off a single ack for 10 ms.
const LONG: Duration = Duration::from_millis(20);

/// See the module's documentation.
#[derive(Debug, Default)]
pub(in crate::flows) struct Room {
    /// What of the flow's lanes counts against the node's budget.
    pub(in crate::flows) charged: u64,
    forward: Window,
    backward: Window,
}

/// How many bytes of one direction may be held.
#[derive(Debug, Default)]
struct Window {
    bytes: u64,
    least: Option<Duration>,
    round: Option<Round>,
}

#[derive(Debug)]
struct Round {
    began: Time,
    /// It is over when everything before this is acked.
    end: u64,
    /// What was acked when it began.
    acked: u64,
}

impl Room {
    fn window_mut(&mut self, direction: Direction) -> &mut Window {
        match direction {
            Direction::Forward => &mut self.forward,
            Direction::Backward => &mut self.backward,
        }
    }

    /// What limits a direction now.
    pub(in crate::flows) fn limits(&self, direction: Direction, configured: &Limits) -> Limits {
        let window = match direction {
            Direction::Forward => &self.forward,
            Direction::Backward => &self.backward,
        };
        Limits { window_bytes: configured.window_bytes.max(window.bytes), ..*configured }
    }

    /// Bytes of a direction came.
    pub(in crate::flows) fn came(&mut self, direction: Direction, lane: &Lane, now: Time) {
        let round = &mut self.window_mut(direction).round;
        if round.is_none() && lane.received() > lane.acked() {
            *round = Some(Round { began: now, end: lane.received(), acked: lane.acked() });
        }
    }

    /// Bytes of a direction were acked.
    pub(in crate::flows) fn acked(&mut self, direction: Direction, acked: u64, limits: &Limits, now: Time) {
        let window = self.window_mut(direction);
        let Some(round) = window.round.take_if(|round| acked >= round.end) else { return };
        let took = now.since(round.began);
        let least = window.least.map_or(took, |least| least.min(took));
        window.least = Some(least);
        if least < LONG {
            return;
        }
        let twice = 2 * u128::from(acked - round.acked) * least.as_micros() / took.as_micros().max(1);
        let twice = u64::try_from(twice).unwrap_or(u64::MAX);
        window.bytes = window.bytes.max(twice.min(limits.max_window_bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    const MIB: u64 = 1 << 20;
    const LIMITS: Limits = Limits { window_bytes: MIB, max_window_bytes: 16 * MIB, backlog_bytes: MIB };

    /// Sends as much as the window allows once each round trip, over a path that takes up `rate` bytes a second at most. Returns the
    /// windows.
    fn windows(round_trip: Duration, rate: u64, rounds: u32) -> Vec<u64> {
        let (mut room, mut lane, mut now) = (Room::default(), Lane::default(), Time::ZERO);
        lane.attach_in(0);
        let of = |room: &Room| room.limits(Direction::Forward, &LIMITS).window_bytes;
        (0..rounds)
            .map(|round| {
                // The first bytes of a flow are few, so their ack meets no queue.
                let bytes = if round == 0 { 1000 } else { of(&room) };
                lane.push(Bytes::from(vec![0; usize::try_from(bytes).unwrap()])).unwrap();
                room.came(Direction::Forward, &lane, now);
                now = now + round_trip.max(Duration::from_micros(bytes * 1_000_000 / rate));
                let received = lane.received();
                lane.ack(received);
                room.acked(Direction::Forward, received, &LIMITS, now);
                of(&room)
            })
            .collect()
    }

    #[test]
    fn it_doubles_on_a_long_path_up_to_its_limit() {
        let windows = windows(Duration::from_millis(200), u64::MAX / 1_000_000, 8);
        assert_eq!(windows, [1, 2, 4, 8, 16, 16, 16, 16].map(|mib| mib * MIB));
    }

    #[test]
    fn on_a_short_path_it_stays() {
        assert_eq!(windows(Duration::from_millis(5), 1 << 30, 20), [MIB; 20]);
    }

    #[test]
    fn it_grows_no_further_than_to_twice_what_the_path_takes_up() {
        let windows = windows(Duration::from_millis(200), 10 * MIB, 20);
        let last = *windows.last().unwrap();
        assert!((2 * MIB..=4 * MIB).contains(&last), "{windows:?}");
    }

    #[test]
    fn a_direction_does_not_open_the_other() {
        let (mut room, mut lane) = (Room::default(), Lane::default());
        lane.attach_in(0);
        lane.push(Bytes::from(vec![0; 4 << 20])).unwrap();
        room.came(Direction::Backward, &lane, Time::ZERO);
        room.acked(Direction::Backward, 4 * MIB - 1, &LIMITS, Time::ZERO + LONG);
        assert_eq!(room.limits(Direction::Backward, &LIMITS), LIMITS, "not all is acked");
        room.acked(Direction::Backward, 4 * MIB, &LIMITS, Time::ZERO + LONG);
        assert_eq!(room.limits(Direction::Backward, &LIMITS).window_bytes, 8 * MIB);
        assert_eq!(room.limits(Direction::Forward, &LIMITS), LIMITS);
    }
}
