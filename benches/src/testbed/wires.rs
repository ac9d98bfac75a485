//! What becomes of packets between hosts: pure, told the time, seeded.

use hopline_proto::time::Time;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::time::Duration;

/// What packets from one host to another meet with. By default nothing: they arrive at once.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Wire {
    /// How long each is under way.
    pub delay: Duration,
    /// Up to this much longer, at random. No packet overtakes another.
    pub jitter: Duration,
    /// The share that is lost at random, 0 to 1.
    pub loss: f64,
    /// How much gets through; `None` for all of it.
    pub bandwidth: Option<Bandwidth>,
    /// Larger packets than this, IP header included, vanish without a word; `None` for none. (Hosts send 1500 bytes at most.)
    pub largest: Option<usize>,
    /// Whether nothing gets through.
    pub cut: bool,
}

/// A bottleneck and the queue before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bandwidth {
    /// What gets through.
    pub bytes_per_second: u64,
    /// What may wait; what comes when the queue is full is lost.
    pub queue_bytes: u64,
}

/// The wires between all hosts.
#[derive(Debug)]
pub(super) struct Wires {
    hosts: usize,
    /// From each to each.
    wires: Vec<State>,
    rng: StdRng,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    wire: Wire,
    /// When the bottleneck has let everything through.
    free: Time,
    /// When the last packet arrives.
    last: Time,
}

impl Wires {
    pub(super) fn new(hosts: usize, seed: u64) -> Self {
        Self { hosts, wires: vec![State::default(); hosts * hosts], rng: StdRng::seed_from_u64(seed) }
    }

    /// Changes those wires, given as from and to, that `which` picks.
    pub(super) fn change(&mut self, which: impl Fn(usize, usize) -> bool, mut change: impl FnMut(&mut Wire)) {
        let hosts = self.hosts;
        let picked =
            self.wires.iter_mut().enumerate().filter(|(place, _)| which(place / hosts, place % hosts));
        picked.for_each(|(_, state)| change(&mut state.wire));
    }

    pub(super) fn wire(&self, from: usize, to: usize) -> Wire {
        self.state(from, to).wire
    }

    /// When a packet that is sent now arrives; `None` if it does not.
    pub(super) fn admit(&mut self, from: usize, to: usize, bytes: usize, now: Time) -> Option<Time> {
        let State { wire, free, last } = self.state(from, to);
        if wire.cut || wire.largest.is_some_and(|largest| bytes > largest) {
            return None;
        }
        let through = match wire.bandwidth {
            Some(bandwidth) => bandwidth.pass(free.max(now), bytes, now)?,
            None => now,
        };
        let lost = wire.loss > 0.0 && self.rng.random_bool(wire.loss.min(1.0));
        let jitter = wire.jitter.mul_f64(self.rng.random());
        let arrives = last.max(through + wire.delay + jitter);
        if let Some(state) = self.wires.get_mut(from * self.hosts + to) {
            state.free = through;
            state.last = if lost { last } else { arrives };
        }
        (!lost).then_some(arrives)
    }

    /// Whether a packet that was admitted earlier may arrive now.
    pub(super) fn is_whole(&self, from: usize, to: usize) -> bool {
        !self.state(from, to).wire.cut
    }

    fn state(&self, from: usize, to: usize) -> State {
        self.wires.get(from * self.hosts + to).copied().unwrap_or_default()
    }
}

impl Bandwidth {
    /// When a packet is through that comes now to a bottleneck that is free then; `None` if the queue is full.
    fn pass(self, free: Time, bytes: usize, now: Time) -> Option<Time> {
        let rate = self.bytes_per_second.max(1);
        let queued = u128::from(rate) * free.since(now).as_micros() / 1_000_000;
        let fits = queued + bytes as u128 <= u128::from(self.queue_bytes);
        fits.then(|| free + Duration::from_micros(bytes as u64 * 1_000_000 / rate))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time::from_micros(1_000_000);
    const MS: Duration = Duration::from_millis(1);

    fn wires(wire: Wire) -> Wires {
        let mut wires = Wires::new(3, 7);
        wires.change(|from, to| (from, to) == (0, 1), |each| *each = wire);
        wires
    }

    #[test]
    fn a_wire_concerns_one_direction_between_two_hosts() {
        let mut wires = wires(Wire { cut: true, ..Wire::default() });
        assert_eq!(wires.admit(0, 1, 100, NOW), None);
        assert!(!wires.is_whole(0, 1));
        for (from, to) in [(1, 0), (0, 2), (2, 1), (1, 2)] {
            assert_eq!(wires.admit(from, to, 100, NOW), Some(NOW), "{from} to {to}");
            assert!(wires.is_whole(from, to));
        }
    }

    #[test]
    fn jitter_lies_above_the_delay_and_keeps_the_order() {
        let mut wires = wires(Wire { delay: 5 * MS, jitter: 2 * MS, ..Wire::default() });
        let mut last = Time::ZERO;
        for n in 0..1000 {
            let now = NOW + MS * n / 10;
            let arrives = wires.admit(0, 1, 100, now).unwrap();
            assert!(arrives >= last && arrives >= now + 5 * MS);
            last = arrives;
        }
        let spread: Vec<Time> = (1..100).map(|n| NOW + Duration::from_secs(n)).collect();
        let late = |now: &Time| wires.admit(0, 1, 100, *now).unwrap().since(*now);
        let late: Vec<Duration> = spread.iter().map(late).collect();
        assert!(late.iter().all(|late| (5 * MS..=7 * MS).contains(late)));
        assert!(
            late.iter().any(|late| *late < 5500 * MS / 1000)
                && late.iter().any(|late| *late > 6500 * MS / 1000)
        );
    }

    #[test]
    fn the_share_is_lost_that_was_asked_for() {
        let mut wires = wires(Wire { loss: 0.1, ..Wire::default() });
        let arrived = (0..10_000).filter(|_| wires.admit(0, 1, 100, NOW).is_some()).count();
        assert!((8_800..=9_200).contains(&arrived), "{arrived}");
        wires.change(|_, _| true, |wire| wire.loss = 1.0);
        assert_eq!(wires.admit(0, 1, 100, NOW), None);
    }

    #[test]
    fn a_bottleneck_spaces_packets_and_drops_what_its_queue_has_no_room_for() {
        let bandwidth = Bandwidth { bytes_per_second: 1_000_000, queue_bytes: 3000 };
        let mut wires = wires(Wire { bandwidth: Some(bandwidth), ..Wire::default() });
        let mut send = |now| wires.admit(0, 1, 1000, now);
        assert_eq!(send(NOW), Some(NOW + MS));
        assert_eq!(send(NOW), Some(NOW + 2 * MS));
        assert_eq!(send(NOW), Some(NOW + 3 * MS));
        assert_eq!(send(NOW), None, "the queue is full");
        assert_eq!(send(NOW + MS), Some(NOW + 4 * MS), "one has left it");
        assert_eq!(send(NOW + 100 * MS), Some(NOW + 101 * MS), "an idle time is not saved up");
    }

    #[test]
    fn a_black_hole_lets_small_packets_through() {
        let mut wires = wires(Wire { largest: Some(1280), ..Wire::default() });
        assert!(wires.admit(0, 1, 1280, NOW).is_some() && wires.admit(0, 1, 1281, NOW).is_none());
    }
}
