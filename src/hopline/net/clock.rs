//! Time, the only place that reads a clock.
//!
//! The wall clock is read once, at start, and from then on advanced by the monotonic one: within a process a
//! [`Time`] never goes back, whatever happens to the wall clock (RFC 5905 daemons, people, leap seconds).

use hopline_proto::Time;
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

/// The furthest a timer is ever set; beyond it an [`Instant`] need not be representable.
const HORIZON: Duration = Duration::from_secs(365 * 24 * 3600);
/// The wall clock has been set if it and the monotonic one have moved apart by more than this.
const JUMP: Duration = Duration::from_secs(5);
const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// A process's clock. Copies of it agree; two started apart may differ by what the wall clock was set in between, so a
/// process starts one and hands out copies.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: Instant,
    at: Time,
}

impl Clock {
    /// A clock that starts at the wall clock's time.
    #[must_use]
    pub fn start() -> Self {
        Self { started: Instant::now(), at: Self::wall() }
    }

    /// The present, in a time that never goes back.
    ///
    /// A machine that sleeps may stop it (Linux does), so it can fall behind [`Clock::wall`].
    #[must_use]
    pub fn now(self) -> Time {
        self.at + self.started.elapsed()
    }

    /// What the wall clock says: for the end of certificates and tickets, which other machines judge by theirs. May
    /// jump, so no timer may rest on it.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is where the shell reads the clock")]
    pub fn wall() -> Time {
        Time::ZERO + SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }

    /// When tokio should wake for `time`: at once if it has passed, in a year if it is further away than that (a timer
    /// that fires early only asks its machine for the next timeout again).
    #[must_use]
    pub fn instant(self, time: Time) -> Instant {
        self.started + time.since(self.at).min(self.started.elapsed() + HORIZON)
    }
}

/// How far one clock is from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Skew {
    by: Duration,
    is_ahead: bool,
}

impl Skew {
    /// Of a clock that says `this` while the other says `other`.
    #[must_use]
    pub fn of(this: Time, other: Time) -> Self {
        let is_ahead = this >= other;
        Self { by: if is_ahead { this.since(other) } else { other.since(this) }, is_ahead }
    }

    /// By how much, either way.
    #[must_use]
    pub const fn by(self) -> Duration {
        self.by
    }
}

impl fmt::Display for Skew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = if self.is_ahead { "ahead" } else { "behind" };
        write!(f, "{} {way}", Rough(self.by))
    }
}

/// A duration in the unit that people would choose.
#[derive(Clone, Copy, Debug)]
pub struct Rough(pub Duration);

impl fmt::Display for Rough {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let units = [(DAY, "days"), (HOUR, "hours"), (MINUTE, "minutes")];
        match units.iter().find(|(unit, _)| seconds >= unit * 2) {
            Some((unit, name)) => write!(f, "{} {name}", (seconds + unit / 2) / unit),
            None => write!(f, "{seconds} s"),
        }
    }
}

/// Notices that the wall clock was set, or that the machine slept: then it moves otherwise than the monotonic one.
#[derive(Debug)]
pub struct Jumps {
    wall: Time,
    at: Instant,
}

impl Jumps {
    /// Since now.
    #[must_use]
    pub fn new() -> Self {
        Self { wall: Clock::wall(), at: Instant::now() }
    }

    /// How far the wall clock was set since this was asked last, if it was.
    pub fn look(&mut self) -> Option<Skew> {
        self.look_at(Clock::wall(), Instant::now())
    }

    fn look_at(&mut self, wall: Time, at: Instant) -> Option<Skew> {
        let skew = Skew::of(wall, self.wall + (at - self.at));
        // From look to look, so that a clock that merely drifts was not set.
        *self = Self { wall, at };
        (skew.by > JUMP).then_some(skew)
    }
}

impl Default for Jumps {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_is_noticed_and_one_that_runs_is_not() {
        let mut jumps = Jumps::new();
        let (wall, at) = (jumps.wall, jumps.at);
        let day = Duration::from_secs(DAY);
        assert_eq!(jumps.look_at(wall + day, at + day), None);
        let jump = jumps.look_at(wall + day * 31, at + day + Duration::from_secs(1)).unwrap();
        assert_eq!(jump.to_string(), "30 days ahead");
        let jump = jumps.look_at(wall + day * 31 - Duration::from_secs(2 * HOUR), at + day).unwrap();
        assert_eq!(jump.to_string(), "2 hours behind");
    }

    #[test]
    fn durations_are_shown_in_a_unit_that_fits() {
        let shown = |seconds| Rough(Duration::from_secs(seconds)).to_string();
        assert_eq!(["59 s", "119 s", "2 minutes", "119 minutes"], [59, 119, 120, 7140].map(shown)[..]);
        assert_eq!(["47 hours", "2 days", "20786 days"], [47 * HOUR, 2 * DAY, 20786 * DAY].map(shown)[..]);
    }

    #[test]
    fn time_advances_from_the_wall_clock() {
        let before = Clock::wall();
        let clock = Clock::start();
        let now = clock.now();
        assert!(before <= now && now <= clock.now());
        assert!(now.since(before) < Duration::from_secs(60));
    }

    #[test]
    fn instants_keep_distances_and_have_bounds() {
        let clock = Clock::start();
        let now = clock.now();
        let second = Duration::from_secs(1);
        assert_eq!(clock.instant(now + second) - clock.instant(now), second);
        assert_eq!(clock.instant(Time::ZERO), clock.started, "the past is due at once");
        assert!(clock.instant(Time::MAX) >= clock.instant(now) + HORIZON - second);
    }
}
