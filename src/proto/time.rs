//! Points in time, as told to the protocol by whoever drives it.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

/// Microseconds since the Unix epoch.
///
/// A driver reads the wall clock once, at start, and advances it by a monotonic clock, so within one process a `Time`
/// never goes back. Between nodes it is comparable only by way of [`NetworkTime`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Time(u64);

impl Time {
    /// The Unix epoch, also the start of a simulated clock.
    pub const ZERO: Self = Self(0);
    /// Later than anything that happens.
    pub const MAX: Self = Self(u64::MAX);

    /// The point that lies `micros` after the Unix epoch.
    #[must_use]
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Microseconds since the Unix epoch.
    #[must_use]
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// How long after `earlier` this is; zero if it is not after it.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// As a date and a time of day (UTC).
    #[must_use]
    pub const fn shown(self) -> Shown {
        Shown(self)
    }
}

/// Shows a [`Time`] to people.
#[derive(Clone, Copy, Debug)]
pub struct Shown(Time);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.0 / 1_000_000;
        let (days, second) = (seconds / 86_400, seconds % 86_400);
        let (year, month, day) = date(days);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        write!(f, "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
    }
}

/// Year, month and day so many days after 1970-01-01 (Hinnant, "chrono-compatible low-level date algorithms").
const fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468; // since 0000-03-01
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (era * 400 + year + (month <= 2) as u64, month, day)
}

/// What the bootstrap's clock says, as far as it is known: what it issues expires by that clock, whatever a node's own says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetworkTime {
    /// What it said last, and what the node's own time was then.
    heard: Option<(Time, Time)>,
}

impl NetworkTime {
    /// The bootstrap's clock says `at` now.
    pub const fn hear(&mut self, at: Time, now: Time) {
        self.heard = Some((at, now));
    }

    /// The bootstrap's time when the node's own is `now`; the same as long as nothing was heard.
    #[must_use]
    pub fn at(self, now: Time) -> Time {
        self.heard.map_or(
            now,
            // It may be asked for an earlier moment, as when a route was kept.
            |(at, heard)| if now < heard { at - heard.since(now) } else { at + now.since(heard) },
        )
    }
}

impl Add<Duration> for Time {
    type Output = Self;
    /// Saturates at [`Time::MAX`].
    fn add(self, by: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(by.as_micros()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Duration> for Time {
    type Output = Self;
    /// Saturates at [`Time::ZERO`].
    fn sub(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(by.as_micros()).unwrap_or(u64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_as_dates() {
        let shown = |seconds: u64| Time::from_micros(seconds * 1_000_000).shown().to_string();
        assert_eq!(shown(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(shown(951_827_696), "2000-02-29 12:34:56 UTC");
        assert_eq!(shown(1_796_011_200), "2026-11-30 04:00:00 UTC");
        assert_eq!(shown(4_107_542_399), "2100-02-28 23:59:59 UTC");
    }

    #[test]
    fn the_networks_time_runs_on_from_what_was_heard() {
        let (mut time, hour) = (NetworkTime::default(), Duration::from_secs(3600));
        let now = Time::from_micros(1_000_000);
        assert_eq!(time.at(now), now);
        time.hear(now + hour, now);
        assert_eq!((time.at(now), time.at(now + hour)), (now + hour, now + hour * 2));
        time.hear(Time::ZERO, now + hour);
        assert_eq!(time.at(now + hour * 2), Time::ZERO + hour);
    }
}
