//! Time, the only place that reads a clock.
//!
//! The wall clock is read once, at start, and from then on advanced by the monotonic one: within a process a
//! [`Time`] never goes back, whatever happens to the wall clock (RFC 5905 daemons, people, leap seconds).

use crate::proto::Time;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

/// The furthest a timer is ever set; beyond it an [`Instant`] need not be representable.
const HORIZON: Duration = Duration::from_secs(365 * 24 * 3600);

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

#[cfg(test)]
mod tests {
    use super::*;

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
