//! What came of all runs, for people and for scripts.

use super::super::Args;
use super::super::report::{Pauses, row, summary};
use super::book::Repair;
use crate::pattern::Faults;
use crate::report::{Report, ms};
use hopline_command::Failure;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

/// One flow around one fault.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pause {
    /// The longest time between two arrivals.
    pub(super) silence: Duration,
    /// The longest time that something took from its writing to its reading.
    pub(super) delay: Duration,
}

/// One fault, and what came of it.
#[derive(Clone, Debug)]
pub(super) struct Run {
    /// Whom it happened to.
    pub(super) relays: Vec<String>,
    /// How long it took until it had happened to all of them.
    pub(super) within: Duration,
    /// Flows that went over one of them.
    pub(super) struck: usize,
    /// How many of those went on.
    pub(super) resumed: usize,
    /// Flows that have ended too early, so far.
    pub(super) broken: usize,
    pub(super) pauses: Vec<Pause>,
    /// The same of the flows that lost no relay.
    pub(super) others: Vec<Pause>,
    /// The same of all just before.
    pub(super) calm: Vec<Pause>,
    pub(super) repairs: Vec<Repair>,
    /// How long until every hop of every flow had a primary and a backup that live; `None` if it never had.
    pub(super) protected: Option<Duration>,
}

/// Which flows' pauses.
type Of = fn(&Run) -> &[Pause];

/// All of them.
#[derive(Debug)]
pub(in super::super) struct Outcome {
    pub(super) seed: u64,
    pub(super) tick: Duration,
    pub(super) runs: Vec<Run>,
    pub(super) faults: Faults,
    /// Ends of flows that saw an error.
    pub(super) broken_ends: usize,
    pub(super) bytes: u64,
}

impl Outcome {
    fn all(&self, of: Of, what: fn(&Pause) -> Duration) -> Vec<Duration> {
        self.runs.iter().flat_map(of).map(what).collect()
    }

    fn sum(&self, of: fn(&Run) -> usize) -> usize {
        self.runs.iter().map(of).sum()
    }

    /// How long until all were protected again, of the runs where they were.
    fn protected(&self) -> Vec<Duration> {
        self.runs.iter().filter_map(|run| run.protected).collect()
    }

    fn repairs(&self) -> Vec<Duration> {
        self.runs.iter().flat_map(|run| &run.repairs).filter_map(|repair| repair.gap).collect()
    }

    fn noticed_by(&self) -> BTreeMap<&'static str, usize> {
        let mut counts = BTreeMap::new();
        for repair in self.runs.iter().flat_map(|run| &run.repairs) {
            *counts.entry(repair.noticed_by.unwrap_or("rebuilt by the origin")).or_default() += 1;
        }
        counts
    }

    fn within(&self) -> Duration {
        self.runs.iter().map(|run| run.within).max().unwrap_or_default()
    }

    fn broken(&self) -> usize {
        self.runs.last().map_or(0, |run| run.broken).max(self.broken_ends)
    }
}

impl Pauses for Outcome {
    fn is_clean(&self) -> bool {
        self.faults == Faults::default()
            && self.broken() == 0
            && self.sum(|run| run.resumed) == self.sum(|run| run.struck)
    }

    fn gaps(&self) -> Vec<f64> {
        self.all(|run| &run.pauses, |pause| pause.silence).into_iter().map(ms).collect()
    }

    fn calm(&self) -> Vec<f64> {
        self.all(|run| &run.calm, |pause| pause.silence).into_iter().map(ms).collect()
    }
}

impl Report<Args> for Outcome {
    fn print_table(&self, args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
        let cause = args.cause.name();
        writeln!(
            out,
            "{} runs: {cause} {} of {} relays within {:.1} ms under {} flows of {} hops, seed {}",
            self.runs.len(),
            args.at_once,
            args.relays,
            ms(self.within()),
            args.flows,
            args.hops,
            self.seed
        )?;
        let (struck, resumed) = (self.sum(|run| run.struck), self.sum(|run| run.resumed));
        writeln!(out, "{resumed} of {struck} flows that lost a relay went on, {} broke", self.broken())?;
        writeln!(out, "a portion every {} ms, each way", self.tick.as_millis())?;
        let rows: [(&str, Of); 3] = [
            ("without a fault", |run| &run.calm),
            ("flows that lost a relay", |run| &run.pauses),
            ("the others meanwhile", |run| &run.others),
        ];
        for (name, of) in rows {
            row(out, &format!("longest pause, {name}, ms"), &self.all(of, |pause| pause.silence))?;
        }
        for (name, of) in rows {
            row(out, &format!("slowest portion, {name}, ms"), &self.all(of, |pause| pause.delay))?;
        }
        row(out, "last sign of life to the next relay's answer, ms", &self.repairs())?;
        row(out, "until every hop had a backup again, ms", &self.protected())?;
        let never = self.runs.iter().filter(|run| run.protected.is_none()).count();
        if never > 0 {
            writeln!(out, "in {never} runs a hop stayed without a backup")?;
        }
        let noticed: Vec<String> =
            self.noticed_by().iter().map(|(cause, count)| format!("{cause} {count}")).collect();
        writeln!(out, "noticed by: {}", noticed.join(", "))?;
        let Faults { lost, duplicated, reordered } = self.faults;
        writeln!(out, "{} bytes: lost {lost}, duplicated {duplicated}, reordered {reordered}", self.bytes)?;
        Ok(())
    }

    fn to_json(&self, args: &Args) -> Result<Value, Failure> {
        let Faults { lost, duplicated, reordered } = self.faults;
        let silence = |of| summary(&self.all(of, |pause| pause.silence));
        let delay = |of| summary(&self.all(of, |pause| pause.delay));
        Ok(json!({
            "cause": args.cause.name(),
            "runs": self.runs.len(),
            "hops": args.hops,
            "relays": args.relays,
            "at_once": args.at_once,
            "within_ms": ms(self.within()),
            "flows": args.flows,
            "seed": self.seed,
            "tick_ms": ms(self.tick),
            "bytes": self.bytes,
            "lost": lost,
            "duplicated": duplicated,
            "reordered": reordered,
            "struck": self.sum(|run| run.struck),
            "resumed": self.sum(|run| run.resumed),
            "broken": self.broken(),
            "no_fault_ms": silence(|run| &run.calm)?,
            "gap_ms": silence(|run| &run.pauses)?,
            "others_gap_ms": silence(|run| &run.others)?,
            "no_fault_delay_ms": delay(|run| &run.calm)?,
            "delay_ms": delay(|run| &run.pauses)?,
            "others_delay_ms": delay(|run| &run.others)?,
            "repair_ms": summary(&self.repairs())?,
            "protected_ms": summary(&self.protected())?,
            "unprotected_runs": self.runs.iter().filter(|run| run.protected.is_none()).count(),
            "noticed_by": self.noticed_by(),
            "relays_struck": self.runs.iter().map(|run| &run.relays).collect::<Vec<_>>(),
        }))
    }
}
