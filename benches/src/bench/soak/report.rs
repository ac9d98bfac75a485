//! What came of it, for people and for scripts.

use super::{Args, Rate};
use crate::pattern::Faults;
use crate::report::{Report, Times, ms};
use bytesize::ByteSize;
use hopline_command::Failure;
use serde_json::{Value, json};
use std::io::Write;
use std::time::Duration;

/// All slices with a disturbance, or all without.
#[derive(Debug)]
pub(super) struct Side {
    bytes: u64,
    time: Duration,
    /// The longest pause of each turn.
    pauses: Times,
}

impl Side {
    pub(super) fn new() -> Result<Self, Failure> {
        Ok(Self { bytes: 0, time: Duration::ZERO, pauses: Times::new()? })
    }

    pub(super) fn paused(&mut self, longest: Duration) {
        self.pauses.record(longest);
    }

    pub(super) fn carried(&mut self, bytes: u64, time: Duration) {
        self.bytes += bytes;
        self.time += time;
    }

    /// Bytes a second that arrived.
    fn goodput(&self) -> f64 {
        self.bytes as f64 / self.time.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    fn to_json(&self) -> Value {
        json!({
            "seconds": self.time.as_secs_f64(),
            "bytes": self.bytes,
            "mb_per_second": self.goodput() / 1e6,
            "pause_ms": self.pauses.to_json(),
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
}

impl Report<Args> for Outcome {
    fn print_table(&self, args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
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
            let (seconds, goodput) = (side.time.as_secs_f64(), side.goodput() / 1e6);
            writeln!(
                out,
                "{name:<16} {seconds:>7.1} s {goodput:>9.2} MB/s   longest pauses, ms: {}",
                side.pauses
            )?;
        }
        writeln!(out, "goodput against undisturbed: {:.1} %", 100.0 * self.ratio())?;
        for Restart { relay, on_chain, left, pause } in &self.restarts {
            let role = if *on_chain { "carried the flow" } else { "" };
            let (left, pause) = (ms(*left), ms(*pause));
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

    fn to_json(&self, args: &Args) -> Result<Value, Failure> {
        let Faults { lost, duplicated, reordered } = self.faults;
        let restarts: Vec<Value> = self
            .restarts
            .iter()
            .map(|restart| {
                json!({
                    "relay": restart.relay,
                    "on_chain": restart.on_chain,
                    "left_ms": ms(restart.left),
                    "pause_ms": ms(restart.pause),
                })
            })
            .collect();
        Ok(json!({
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
        }))
    }
}
