//! The network between nodes: delay, jitter, loss, bandwidth, and ways that are cut or clogged.
//!
//! Links are QUIC connections, so a lost packet of a stream is a late one: it comes after a retransmission, or several. Only
//! datagrams (heartbeats) are really lost. A *cut* way loses everything, and what streams wanted to send comes when it is
//! healed; a *held* way keeps everything, heartbeats too, and gives it all at once when it is released.

use crate::dice::{Dice, mix};
use std::collections::BTreeSet;
use std::time::Duration;

/// The payload of a packet, and how many pieces a connection carries in a second at least.
const PACKET_BYTES: usize = 1200;
const PIECES_PER_SECOND: u64 = 100;

/// A node's place in the world.
pub(crate) type NodeIndex = usize;
/// Where the bootstrap stands.
pub(crate) const BOOTSTRAP: NodeIndex = NodeIndex::MAX;

/// How ways behave that nothing was done to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    /// One way, between any two nodes: the shortest and the longest.
    pub(crate) delay: (Duration, Duration),
    /// How much of its delay a packet may come later, in percent.
    pub(crate) jitter_percent: u64,
    /// Packets lost of a million.
    pub(crate) loss_ppm: u64,
    /// What a connection carries each way, in bytes a second; 0 is without limit.
    pub(crate) bandwidth: u64,
    /// Whether a packet for a process that is no more brings an ICMP error back.
    pub(crate) refusals: bool,
}

/// What becomes of a packet now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Open,
    Cut,
    Held,
}

#[derive(Clone, Debug)]
struct Closure {
    number: u32,
    way: Way,
    from: BTreeSet<NodeIndex>,
    to: BTreeSet<NodeIndex>,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) weather: Weather,
    seed: u64,
    closures: Vec<Closure>,
}

impl Network {
    pub(crate) const fn new(weather: Weather, seed: u64) -> Self {
        Self { weather, seed, closures: Vec::new() }
    }

    /// Closes all ways from nodes in `from` to others in `to`.
    pub(crate) fn close(
        &mut self,
        number: u32,
        way: Way,
        from: BTreeSet<NodeIndex>,
        to: BTreeSet<NodeIndex>,
    ) {
        self.closures.push(Closure { number, way, from, to });
    }

    /// Opens what was closed under this number.
    pub(crate) fn open(&mut self, number: u32) {
        self.closures.retain(|closure| closure.number != number);
    }

    pub(crate) fn open_all(&mut self) {
        self.closures.clear();
    }

    pub(crate) fn way(&self, from: NodeIndex, to: NodeIndex) -> Way {
        let closed = |closure: &&Closure| closure.from.contains(&from) && closure.to.contains(&to);
        let ways = self.closures.iter().filter(closed).map(|closure| closure.way);
        ways.fold(Way::Open, |worst, way| if way == Way::Cut || worst == Way::Open { way } else { worst })
    }

    /// How long a packet takes that is neither late nor lost.
    pub(crate) fn delay(&self, from: NodeIndex, to: NodeIndex) -> Duration {
        let (least, most) = self.weather.delay;
        let range = micros(most.saturating_sub(least)) + 1;
        let pair = (from.min(to) as u64).rotate_left(32) ^ (from.max(to) as u64);
        least + Duration::from_micros(mix(self.seed ^ pair) % range)
    }

    /// How long this packet takes, losses not counted.
    pub(crate) fn travel(&self, from: NodeIndex, to: NodeIndex, dice: &mut Dice) -> Duration {
        let delay = self.delay(from, to);
        let most = micros(delay) * self.weather.jitter_percent / 100;
        delay + if most == 0 { Duration::ZERO } else { Duration::from_micros(dice.below(most + 1)) }
    }

    pub(crate) fn is_lost(&self, dice: &mut Dice) -> bool {
        self.weather.loss_ppm > 0 && dice.below(1_000_000) < self.weather.loss_ppm
    }

    /// How much later a packet of a stream comes for being lost, perhaps several times.
    pub(crate) fn retransmissions(&self, from: NodeIndex, to: NodeIndex, dice: &mut Dice) -> Duration {
        let mut pause = self.delay(from, to) * 3 + Duration::from_millis(5);
        let mut late = Duration::ZERO;
        while self.is_lost(dice) {
            late += pause;
            pause *= 2;
        }
        late
    }

    /// How many bytes travel as one, at most: on a narrow way no more than a reader would see of them at a time.
    pub(crate) fn piece_bytes(&self, most: usize) -> usize {
        match self.weather.bandwidth {
            0 => most,
            bandwidth => {
                usize::try_from(bandwidth / PIECES_PER_SECOND).unwrap_or(most).clamp(PACKET_BYTES, most)
            }
        }
    }

    /// How long a connection is busy with so many bytes.
    pub(crate) fn transmission(&self, bytes: usize) -> Duration {
        match (bytes as u64 * 1_000_000).checked_div(self.weather.bandwidth) {
            Some(micros) => Duration::from_micros(micros),
            None => Duration::ZERO,
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEATHER: Weather = Weather {
        delay: (Duration::from_millis(1), Duration::from_millis(5)),
        jitter_percent: 0,
        loss_ppm: 0,
        bandwidth: 1_000_000,
        refusals: false,
    };

    #[test]
    fn ways_close_one_way_and_a_cut_is_worse_than_a_hold() {
        let mut network = Network::new(WEATHER, 1);
        network.close(1, Way::Held, [1].into(), [2, 3].into());
        network.close(2, Way::Cut, [1].into(), [2].into());
        let ways = |network: &Network| [(1, 2), (2, 1), (1, 3)].map(|(a, b)| network.way(a, b));
        assert_eq!(ways(&network), [Way::Cut, Way::Open, Way::Held]);
        network.open(2);
        assert_eq!(ways(&network), [Way::Held, Way::Open, Way::Held]);
    }

    #[test]
    fn both_ways_between_two_nodes_take_equally_long() {
        let network = Network::new(WEATHER, 1);
        assert_eq!(network.delay(3, 9), network.delay(9, 3));
        assert!((1..=5).contains(&network.delay(3, 9).as_millis()));
        assert_eq!(network.transmission(1000), Duration::from_millis(1));
    }
}
