//! What came of it, for people and for scripts.

use super::{Args, Rate};
use crate::pattern::Faults;
use bytesize::ByteSize;
use hdrhistogram::Histogram;
use hopline_command::{Exit, Failure};
use serde_json::{Value, json};
use std::io::Write;
use std::time::Duration;

/// The longest pause that is told apart from longer ones: an hour, in microseconds.
const LONGEST_US: u64 = 3_600_000_000;
const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0)];

/// All slices with a disturbance, or all without.
#[derive(Debug)]
pub(super) struct Side {
    bytes: u64,
    time: Duration,
    /// The longest pause of each turn, in microseconds.
    pauses: Histogram<u64>,
}

impl Side {
    pub(super) fn new() -> Result<Self, Failure> {
        let pauses = Histogram::new_with_bounds(1, LONGEST_US, 3)
            .map_err(|error| Failure::new(Exit::Failed, error.to_string()))?;
        Ok(Self { bytes: 0, time: Duration::ZERO, pauses })
    }

    pub(super) fn paused(&mut self, longest: Duration) {
        self.pauses.saturating_record(u64::try_from(longest.as_micros()).unwrap_or(u64::MAX));
    }

    pub(super) fn carried(&mut self, bytes: u64, time: Duration) {
        self.bytes += bytes;
        self.time += time;
    }

    /// Bytes a second that arrived.
    fn goodput(&self) -> f64 {
        self.bytes as f64 / self.time.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    fn pause_ms(&self, quantile: f64) -> f64 {
        self.pauses.value_at_quantile(quantile) as f64 / 1000.0
    }

    fn to_json(&self) -> Value {
        let pauses: serde_json::Map<String, Value> =
            QUANTILES.iter().map(|(name, q)| ((*name).to_owned(), json!(self.pause_ms(*q)))).collect();
        json!({
            "seconds": self.time.as_secs_f64(),
            "bytes": self.bytes,
            "mb_per_second": self.goodput() / 1e6,
            "pause_ms": pauses,
        })
    }
}

/// One relay's restart.
#[derive(Debug)]
pub(super) struct Restart {
    pub(super) relay: String,
    /// Whether it carried the flow.
    pub(super) on_chain: bool,
    /// From SIGTERM to its end.
    pub(super) left: Duration,
    /// The longest pause of data meanwhile.
    pub(super) pause: Duration,
}

/// All of it.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) seed: u64,
    pub(super) calm: Side,
    pub(super) faulty: Side,
    pub(super) kills: u32,
    pub(super) spared: u32,
    pub(super) failovers: u32,
    pub(super) rebuilds: u32,
    pub(super) restarts: Vec<Restart>,
    pub(super) bytes: u64,
    pub(super) faults: Faults,
    pub(super) equal: bool,
}

impl Outcome {
    pub(super) fn is_clean(&self) -> bool {
        self.faults == Faults::default() && self.equal
    }

    /// Goodput with the disturbance against that without.
    fn ratio(&self) -> f64 {
        self.faulty.goodput() / self.calm.goodput().max(f64::MIN_POSITIVE)
    }

    pub(super) fn print(&self, args: &Args, out: &mut impl Write) -> Result<(), Failure> {
        let rate = match args.rate() {
            Rate::Unlimited => "as much as there is room for".to_owned(),
            Rate::Limited(rate) => format!("{} a second", ByteSize(rate)),
        };
        let what = if args.rolling {
            format!("each of {} relays restarted once", self.restarts.len())
        } else {
            format!("a relay killed every {:?}, {} in all", args.kill_every, self.kills)
        };
        writeln!(out, "{what}; one flow over {} hops, {rate}; seed {}", args.hops, self.seed)?;
        let disturbed = if args.rolling { "around restarts" } else { "with kills" };
        for (name, side) in [("undisturbed", &self.calm), (disturbed, &self.faulty)] {
            let pauses = QUANTILES.map(|(name, q)| format!("{name} {:.1}", side.pause_ms(q)));
            let (seconds, goodput) = (side.time.as_secs_f64(), side.goodput() / 1e6);
            writeln!(
                out,
                "{name:<16} {seconds:>7.1} s {goodput:>9.2} MB/s   longest pauses, ms: {}",
                pauses.join("   ")
            )?;
        }
        writeln!(out, "goodput against undisturbed: {:.1} %", 100.0 * self.ratio())?;
        for Restart { relay, on_chain, left, pause } in &self.restarts {
            let role = if *on_chain { "carried the flow" } else { "" };
            let (left, pause) = (left.as_secs_f64() * 1000.0, pause.as_secs_f64() * 1000.0);
            writeln!(out, "  {relay:<6} left in {left:>6.0} ms, longest pause {pause:>6.1} ms   {role}")?;
        }
        if self.spared > 0 {
            writeln!(out, "{} kills were due when no relay of the chain was known to live", self.spared)?;
        }
        writeln!(out, "failovers {}, of these over another chain {}", self.failovers, self.rebuilds)?;
        let Faults { lost, duplicated, reordered } = self.faults;
        let equal = if self.equal { "equal" } else { "DIFFERENT" };
        writeln!(
            out,
            "{} bytes: lost {lost}, duplicated {duplicated}, reordered {reordered}; SHA-256 of both ways {equal}",
            self.bytes
        )?;
        Ok(())
    }

    pub(super) fn to_json(&self, args: &Args) -> Value {
        let Faults { lost, duplicated, reordered } = self.faults;
        let restarts: Vec<Value> = self
            .restarts
            .iter()
            .map(|restart| {
                json!({
                    "relay": restart.relay,
                    "on_chain": restart.on_chain,
                    "left_ms": restart.left.as_secs_f64() * 1000.0,
                    "pause_ms": restart.pause.as_secs_f64() * 1000.0,
                })
            })
            .collect();
        json!({
            "seed": self.seed,
            "hops": args.hops,
            "relays": args.relays,
            "rolling": args.rolling,
            "undisturbed": self.calm.to_json(),
            "disturbed": self.faulty.to_json(),
            "ratio": self.ratio(),
            "kills": self.kills,
            "kills_spared": self.spared,
            "failovers": self.failovers,
            "rebuilds": self.rebuilds,
            "restarts": restarts,
            "bytes": self.bytes,
            "lost": lost,
            "duplicated": duplicated,
            "reordered": reordered,
            "sha256_equal": self.equal,
        })
    }
}
