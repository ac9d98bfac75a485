//! How long a node takes to notice that a neighbour is gone, found by running the real detectors at both ends of a link.

use crate::dice::Dice;
use hopline_proto::Time;
use hopline_proto::detector::{Config, Detector, Outcome, Pace};
use std::collections::BTreeMap;
use std::time::Duration;

/// Draws kept for each class of links.
const DRAWS: usize = 16;
/// How long a link is watched before its peer dies, at most, in milliseconds.
const HEALTHY_MS: u64 = 3000;

/// Draws delays of detection. Links are classed by the binary logarithm of their delay, and by whether they carry flows,
/// and by how often idle ones are looked at.
#[derive(Debug)]
pub(crate) struct Detection {
    dice: Dice,
    drawn: BTreeMap<(u32, bool, Duration), Vec<Duration>>,
}

impl Detection {
    pub(crate) const fn new(seed: u64) -> Self {
        Self { dice: Dice::new(seed, 2), drawn: BTreeMap::new() }
    }

    /// After how long a node would suspect the peer at the end of a link of that delay, had its detectors been running.
    pub(crate) fn draw(&mut self, config: Config, delay: Duration, busy: bool) -> Duration {
        let micros = u64::try_from(delay.as_micros()).unwrap_or(u64::MAX).max(1);
        let class = (micros.ilog2(), busy, config.idle);
        let dice = &mut self.dice;
        let draws = self.drawn.entry(class).or_insert_with(|| {
            let config = Config { pace: Pace::Auto, ..config };
            (0..DRAWS).map(|_| silence(config, Duration::from_micros(1 << class.0), busy, dice)).collect()
        });
        dice.pick(draws).unwrap_or_default()
    }
}

/// Lets a link of that delay live for a while, then kills one end: how long until the other suspects it.
fn silence(config: Config, delay: Duration, busy: bool, dice: &mut Dice) -> Duration {
    let start = Time::from_micros(1 << 40);
    let healthy = if busy { dice.millis(500, HEALTHY_MS) } else { config.idle * 3 };
    let death = start + healthy + dice.millis(0, 1000);
    let mut ends = [(); 2].map(|()| Detector::new(config, delay * 2, start));
    ends.iter_mut().for_each(|end| end.set_busy(busy, start));
    let mut under_way: Vec<(Time, usize, hopline_proto::frame::Heartbeat)> = Vec::new();
    let mut now = start;
    for _ in 0..100_000 {
        for (side, end) in ends.iter_mut().enumerate().filter(|(side, _)| *side == 0 || now < death) {
            while let Some(outcome) = end.poll(now) {
                match outcome {
                    Outcome::SendHeartbeat(heartbeat) => {
                        let jitter = Duration::from_micros(dice.below(1000));
                        under_way.push((now + delay + jitter, 1 - side, heartbeat));
                    }
                    Outcome::Suspect if now >= death => return now.since(death),
                    Outcome::Suspect | Outcome::Down | Outcome::Recovered => {}
                }
            }
        }
        let due = ends.iter().enumerate().filter(|(side, _)| *side == 0 || now < death);
        let due = due.filter_map(|(_, end)| end.poll_timeout());
        let Some(next) = due.chain(under_way.iter().map(|(at, ..)| *at)).min() else { break };
        now = next.max(now);
        under_way.sort_by_key(|(at, ..)| *at);
        while under_way.first().is_some_and(|(at, ..)| *at <= now) {
            let (_, side, heartbeat) = under_way.remove(0);
            if let Some(end) = ends.get_mut(side).filter(|_| side == 0 || now < death) {
                end.on_heartbeat(&heartbeat, now);
            }
        }
    }
    config.down_after
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_links_notice_within_a_few_round_trips_and_idle_ones_within_seconds() {
        let mut detection = Detection::new(1);
        for _ in 0..20 {
            let config = Config { pace: Pace::Off, ..Config::default() };
            let busy = detection.draw(config, Duration::from_millis(10), true);
            assert!((40..400).contains(&busy.as_millis()), "{busy:?}");
            let idle = detection.draw(config, Duration::from_millis(10), false);
            assert!((5..40).contains(&idle.as_secs()), "{idle:?}");
        }
    }
}
