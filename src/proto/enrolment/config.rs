//! The timeouts and retries of an [`Enrolment`](super::Enrolment).

use crate::backoff::Pauses;
use std::time::Duration;

/// Timeouts and retries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// The wait before the first repetition of a registration, and at least between any two.
    pub first_retry: Duration,
    /// The wait before the next, doubled from then on,
    pub backoff: Duration,
    /// up to this.
    pub backoff_max: Duration,
    /// By how much waits vary, in percent up and down, so that nodes that lost the same bootstrap don't come at once.
    pub jitter_percent: u32,
    /// After so many failed registrations in a row the node is told.
    pub attempts: u32,
    /// After so many failures in a row everything is begun afresh.
    pub full_after: u32,
    /// A node whose bootstrap knows fewer relays asks the next one too.
    pub min_peers: u32,
    /// Whether heartbeats are sent at all.
    pub monitor: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            first_retry: Duration::from_millis(250),
            backoff: Duration::from_secs(5),
            backoff_max: Duration::from_secs(80),
            jitter_percent: 20,
            attempts: 5,
            full_after: 3,
            min_peers: 3,
            monitor: true,
        }
    }
}

impl Config {
    /// Between registrations that fail for as long as a bootstrap can be reached again at once.
    pub(super) const fn first_pauses(&self) -> Pauses {
        Pauses::doubling(self.first_retry, self.backoff_max)
    }

    /// Between registrations that fail, once the first few have.
    pub(super) const fn pauses(&self) -> Pauses {
        Pauses::doubling(self.backoff, self.backoff_max)
    }

    /// For tests and demonstrations on one machine: from 50 ms to 2 s.
    #[must_use]
    pub fn dev() -> Self {
        let short = Duration::from_millis(50);
        Self { first_retry: short, backoff: short, backoff_max: Duration::from_secs(2), ..Self::default() }
    }
}
