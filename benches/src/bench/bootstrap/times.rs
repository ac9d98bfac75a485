//! Times of one kind, and how they are spread.

use hdrhistogram::Histogram;
use hopline_command::{Exit, Failure};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The longest time that is told apart from longer ones: a minute, in nanoseconds.
const LONGEST_NS: u64 = 60_000_000_000;

/// Times of one kind.
pub(super) struct Times(Histogram<u64>);

/// What is told of them.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Spread {
    pub(super) p50: f64,
    pub(super) p90: f64,
    pub(super) p99: f64,
    pub(super) max: f64,
}

impl Times {
    pub(super) fn new() -> Result<Self, Failure> {
        let times = Histogram::new_with_bounds(1, LONGEST_NS, 3);
        times.map(Self).map_err(|error| Failure::new(Exit::Failed, error.to_string()))
    }

    pub(super) fn record(&mut self, time: Duration) {
        self.0.saturating_record(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    pub(super) fn count(&self) -> u64 {
        self.0.len()
    }

    /// In microseconds.
    pub(super) fn us(&self) -> Spread {
        self.spread(1e3)
    }

    /// In milliseconds.
    pub(super) fn ms(&self) -> Spread {
        self.spread(1e6)
    }

    fn spread(&self, unit_ns: f64) -> Spread {
        let at = |quantile| self.0.value_at_quantile(quantile) as f64 / unit_ns;
        Spread { p50: at(0.5), p90: at(0.9), p99: at(0.99), max: at(1.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_in_its_unit() {
        let mut times = Times::new().unwrap();
        (1..=100).for_each(|ms| times.record(Duration::from_millis(ms)));
        let Spread { p50, p99, max, .. } = times.ms();
        for (value, due) in [(p50, 50.0), (p99, 99.0), (max, 100.0), (times.us().p90, 90_000.0)] {
            assert!((value / due - 1.0).abs() < 0.002, "{value} instead of {due}");
        }
    }
}
