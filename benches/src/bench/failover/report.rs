//! What came of all runs, for people and for scripts.

use super::{Args, Cause};
use crate::pattern::Faults;
use crate::report::{QUANTILES, Report, Times, ms};
use hdrhistogram::Histogram;
use hopline::endpoint::Cause as Shown;
use hopline_command::Failure;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

/// One relay's misfortune, and what came of it.
#[derive(Clone, Debug)]
pub(super) struct Run {
    pub(super) hop: u8,
    /// The longest pause of data around it, in the directions that were asked for.
    pub(super) gap: Duration,
    /// What its prev did about it; `None` if the origin went on over another chain.
    pub(super) repair: Option<Repair>,
    /// Why the origin did, where it knew.
    pub(super) rebuilt_for: Option<Shown>,
    /// The longest pause just before, when nothing was wrong.
    pub(super) calm: Duration,
}

/// What the relay before said of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Repair {
    pub(super) evidence: &'static str,
    /// From the relay's last sign of life to its successor's answer.
    pub(super) gap: Duration,
    /// The part of that before the relay was missed.
    pub(super) detected: Duration,
    pub(super) replayed_bytes: u64,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) seed: u64,
    pub(super) runs: Vec<Run>,
    pub(super) faults: Faults,
    pub(super) bytes: u64,
}

/// An outcome whose pauses can be drawn.
pub(super) trait Pauses: Report<Args> {
    fn is_clean(&self) -> bool;
    /// The longest pauses around the faults, in milliseconds.
    fn gaps(&self) -> Vec<f64>;
    /// The longest pauses without one.
    fn calm(&self) -> Vec<f64>;
}

impl Outcome {
    fn repairs<T>(&self, of: fn(Repair) -> T) -> Vec<T> {
        self.runs.iter().filter_map(|run| run.repair).map(of).collect()
    }

    /// Bytes sent again, by quantile.
    fn replayed(&self) -> Result<[(&'static str, u64); 4], Failure> {
        let mut bytes = Histogram::<u64>::new(3).map_err(std::io::Error::other)?;
        for replayed in self.repairs(|repair| repair.replayed_bytes) {
            bytes.record(replayed).map_err(std::io::Error::other)?;
        }
        Ok(QUANTILES.map(|(name, quantile)| (name, bytes.value_at_quantile(quantile))))
    }

    fn noticed_by(&self) -> BTreeMap<&'static str, usize> {
        let mut counts = BTreeMap::new();
        for run in &self.runs {
            let rebuilt = run.rebuilt_for.filter(|cause| *cause == Shown::Gray);
            let rebuilt = rebuilt.map_or("rebuilt by the origin", Shown::as_str);
            *counts.entry(run.repair.map_or(rebuilt, |repair| repair.evidence)).or_default() += 1;
        }
        counts
    }
}

impl Pauses for Outcome {
    fn is_clean(&self) -> bool {
        self.faults == Faults::default()
    }

    fn gaps(&self) -> Vec<f64> {
        self.runs.iter().map(|run| ms(run.gap)).collect()
    }

    fn calm(&self) -> Vec<f64> {
        self.runs.iter().map(|run| ms(run.calm)).collect()
    }
}

impl Report<Args> for Outcome {
    fn print_table(&self, args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
        let cause = args.cause.name();
        writeln!(out, "{} runs: {cause} a relay of {} hops, seed {}", self.runs.len(), args.hops, self.seed)?;
        let mut row = |what: &str, times: &[Duration]| row(out, what, times);
        let all = |of: fn(&Run) -> Duration| self.runs.iter().map(of).collect::<Vec<_>>();
        row("longest pause without a fault, ms", &all(|run| run.calm))?;
        row("longest pause around the fault, ms", &all(|run| run.gap))?;
        row("last sign of life until it was missed, ms", &self.repairs(|repair| repair.detected))?;
        row("last sign of life to the next relay's answer, ms", &self.repairs(|repair| repair.gap))?;
        for hop in 1..=args.hops {
            let of_hop: Vec<Duration> =
                self.runs.iter().filter(|run| run.hop == hop).map(|run| run.gap).collect();
            if !of_hop.is_empty() {
                row(&format!("  pause, hop {hop} ({} runs)", of_hop.len()), &of_hop)?;
            }
        }
        let noticed: Vec<String> =
            self.noticed_by().iter().map(|(cause, count)| format!("{cause} {count}")).collect();
        writeln!(out, "noticed by: {}", noticed.join(", "))?;
        let [p50, .., max] = self.replayed()?.map(|(_, bytes)| bytes);
        writeln!(out, "sent again per repair: p50 {p50}, max {max} bytes")?;
        let Faults { lost, duplicated, reordered } = self.faults;
        writeln!(out, "{} bytes: lost {lost}, duplicated {duplicated}, reordered {reordered}", self.bytes)?;
        Ok(())
    }

    fn to_json(&self, args: &Args) -> Result<Value, Failure> {
        let all = |of: fn(&Run) -> Duration| self.runs.iter().map(of).collect::<Vec<_>>();
        let Faults { lost, duplicated, reordered } = self.faults;
        Ok(json!({
            "cause": args.cause.name(),
            "plane": args.plane.name(),
            "runs": self.runs.len(),
            "hops": args.hops,
            "seed": self.seed,
            "bytes": self.bytes,
            "lost": lost,
            "duplicated": duplicated,
            "reordered": reordered,
            "no_fault_ms": summary(&all(|run| run.calm))?,
            "gap_ms": summary(&all(|run| run.gap))?,
            "repair_ms": summary(&self.repairs(|repair| repair.gap))?,
            "detected_ms": summary(&self.repairs(|repair| repair.detected))?,
            "replayed_bytes": serde_json::Map::from_iter(
                self.replayed()?.map(|(name, bytes)| (name.to_owned(), json!(bytes))),
            ),
            "noticed_by": self.noticed_by(),
        }))
    }
}

impl Cause {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Freeze => "freeze",
            Self::Drain => "drain",
            Self::Cut => "cut",
            Self::Gray => "gray",
        }
    }
}

/// A line of the table: what, and how its times are spread.
pub(super) fn row(out: &mut dyn Write, what: &str, times: &[Duration]) -> Result<(), Failure> {
    Ok(writeln!(out, "{what:<46} {}", Times::of(times)?)?)
}

/// The same for scripts.
pub(super) fn summary(times: &[Duration]) -> Result<Value, Failure> {
    Ok(Times::of(times)?.to_json())
}
