//! How links are watched on networks of a kind. All figures that a preset stands for are here.

use super::{Config, MAX_INTERVAL, MIN_INTERVAL, Pace};
use std::time::Duration;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Machines in one room, round trips below a millisecond: a missing relay shows within 30 ms of silence. The pace is fixed,
/// as it would be at its shortest anyway and a handshake that a busy machine delays must not slow it down; heartbeats cost next
/// to nothing there, so idle neighbours are heard each second and given up soon.
const LAN: Config = Config {
    pace: Pace::Fixed(MIN_INTERVAL),
    idle: Duration::from_secs(1),
    auto_min: MIN_INTERVAL,
    auto_max: MIN_INTERVAL,
    down_after: ms(500),
};

/// The Internet, round trips of 10 to 300 ms: jitter of tens of milliseconds is ordinary there, so that asking to be heard
/// more often than every 50 ms only brings false alarms and 20 packets a second for each link; who went silent is dialled
/// anew, which costs several round trips, only after three seconds.
const WAN: Config = Config {
    pace: Pace::Auto,
    idle: Duration::from_secs(5),
    auto_min: ms(50),
    auto_max: Duration::from_secs(1),
    down_after: Duration::from_secs(3),
};

/// Geostationary links, round trips from 500 ms: an interval below the round trip tells nothing sooner than the round trip
/// lets it be acted on, capacity is dear (idle links are heard four times a minute), and handovers and rain cause outages of
/// seconds.
const SATELLITE: Config = Config {
    pace: Pace::Auto,
    idle: Duration::from_secs(15),
    auto_min: ms(500),
    auto_max: Duration::from_secs(3),
    down_after: Duration::from_secs(10),
};

/// How links are watched, in a word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Liveness {
    /// As the measured round trips suggest: 10 ms on a LAN, up to a second elsewhere.
    #[default]
    Auto,
    /// Machines in one room.
    Lan,
    /// The Internet.
    Wan,
    /// Geostationary satellites.
    Satellite,
    /// Not at all: only the transport tells that a neighbour is gone.
    Off,
}

impl Liveness {
    /// The figures that it stands for.
    #[must_use]
    pub fn config(self) -> Config {
        match self {
            Self::Auto => Config::default(),
            Self::Lan => LAN,
            Self::Wan => WAN,
            Self::Satellite => SATELLITE,
            Self::Off => Config { pace: Pace::Off, ..Config::default() },
        }
    }
}

impl Config {
    /// The same with another pace for links that carry flows; zero is off. `None` if that is not within [`MIN_INTERVAL`] and
    /// [`MAX_INTERVAL`].
    #[must_use]
    pub fn with_heartbeat(self, interval: Duration) -> Option<Self> {
        let pace = match interval {
            Duration::ZERO => Pace::Off,
            _ if (MIN_INTERVAL..=MAX_INTERVAL).contains(&interval) => Pace::Fixed(interval),
            _ => return None,
        };
        // Nobody wants to hear a busy neighbour less often than an idle one.
        Some(Self { pace, idle: self.idle.max(interval), ..self })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detector::Detector;
    use crate::time::Time;

    /// How soon a busy link whose handshake took `rtt` would miss its peer, if it ever would.
    fn deadline(config: Config, rtt: Duration) -> Option<Duration> {
        let mut detector = Detector::new(config, rtt, Time::ZERO);
        detector.set_busy(true, Time::ZERO);
        while detector.poll(Time::ZERO).is_some() {}
        detector.interval().map(|interval| detector.deadline(interval))
    }

    #[test]
    fn each_fits_its_network() {
        let usual = [
            (Liveness::Lan, 1, 30),
            (Liveness::Auto, 1, 30),
            (Liveness::Wan, 1, 150),
            (Liveness::Wan, 100, 600),
            (Liveness::Auto, 100, 600),
            (Liveness::Satellite, 600, 3600),
        ];
        for (preset, rtt, expected) in usual {
            assert_eq!(deadline(preset.config(), ms(rtt)), Some(ms(expected)), "{preset:?} at {rtt} ms");
        }
        assert_eq!(deadline(Liveness::Off.config(), ms(1)), None);
        for preset in [Liveness::Auto, Liveness::Lan, Liveness::Wan, Liveness::Satellite] {
            let config = preset.config();
            assert!(MIN_INTERVAL <= config.auto_min && config.auto_min <= config.auto_max, "{preset:?}");
            assert!(config.auto_max <= config.idle && config.idle <= MAX_INTERVAL, "{preset:?}");
        }
    }

    #[test]
    fn a_heartbeat_is_bounded_and_zero_is_off() {
        let with = |interval| Liveness::Wan.config().with_heartbeat(interval);
        assert_eq!(with(Duration::ZERO).map(|config| config.pace), Some(Pace::Off));
        assert_eq!(with(ms(250)).map(|config| config.pace), Some(Pace::Fixed(ms(250))));
        assert_eq!(with(MAX_INTERVAL).map(|config| config.idle), Some(MAX_INTERVAL));
        assert_eq!((with(ms(9)), with(MAX_INTERVAL + ms(1))), (None, None));
    }
}
