//! What came of it, for people and for scripts.

use super::{Args, Direction};
use crate::pattern::Faults;
use crate::report::Report;
use hopline::endpoint::FlowEvent;
use hopline::net::counters::Neighbours;
use hopline_command::Failure;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

/// A node, and what it thought of its neighbours.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) name: String,
    pub(super) neighbours: Neighbours,
}

impl Node {
    /// What it thought since an earlier moment.
    pub(super) fn since(self, before: &Self) -> Self {
        let (now, then) = (self.neighbours, before.neighbours);
        let neighbours = Neighbours {
            links: now.links,
            link_seconds: now.link_seconds - then.link_seconds,
            suspected: now.suspected - then.suspected,
            recovered: now.recovered - then.recovered,
            down: now.down - then.down,
            skipped: now.skipped - then.skipped,
        };
        Self { neighbours, ..self }
    }
}

/// What was done to flows.
#[derive(Debug, Default)]
pub(super) struct Repairs {
    failovers: u64,
    /// By what the failure was noticed.
    causes: BTreeMap<&'static str, u64>,
    rebuilds: u64,
    /// Flows that ended before everything had arrived.
    closed: u64,
    /// Events that came too fast to be counted.
    pub(super) missed: u64,
}

impl Repairs {
    pub(super) fn count(&mut self, event: &FlowEvent) {
        match event {
            FlowEvent::Rerouted { cause, .. } => {
                self.failovers += 1;
                *self.causes.entry(cause.as_str()).or_default() += 1;
            }
            FlowEvent::Rebuilt { .. } => self.rebuilds += 1,
            FlowEvent::Closed { complete: false, .. } => self.closed += 1,
            _ => {}
        }
    }
}

/// All of it.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) seed: u64,
    pub(super) directions: Vec<Direction>,
    pub(super) nodes: Vec<Node>,
    pub(super) repairs: Repairs,
}

impl Outcome {
    pub(super) fn is_clean(&self) -> bool {
        self.faults() == Faults::default() && self.closed() == 0
    }

    fn faults(&self) -> Faults {
        self.directions.iter().fold(Faults::default(), |sum, direction| sum + direction.faults)
    }

    /// Why flows did not end well.
    fn failures(&self) -> BTreeSet<(u32, &str)> {
        let failed = |direction: &'_ Direction| direction.error.is_some();
        let failed = self.directions.iter().filter(|direction| failed(direction));
        failed.map(|direction| (direction.flow.0, direction.error.as_deref().unwrap_or_default())).collect()
    }

    /// Flows that did not end well.
    fn closed(&self) -> u64 {
        let failed: BTreeSet<u32> = self.failures().iter().map(|(flow, _)| *flow).collect();
        self.repairs.closed.max(failed.len() as u64)
    }

    fn sum(&self, of: fn(&Neighbours) -> u64) -> u64 {
        self.nodes.iter().map(|node| of(&node.neighbours)).sum()
    }

    /// Both ends of a link count its time.
    fn link_hours(&self) -> f64 {
        self.nodes.iter().map(|node| node.neighbours.link_seconds).sum::<f64>() / 2.0 / 3600.0
    }

    fn per_link_hour(&self, count: u64) -> f64 {
        count as f64 / self.link_hours().max(f64::MIN_POSITIVE)
    }

    /// What is counted, by its name in JSON and for people.
    fn counts(&self) -> [(&'static str, &'static str, u64); 4] {
        [
            ("suspicions", "false suspicions", self.sum(|neighbours| neighbours.suspected)),
            ("failovers", "needless failovers", self.repairs.failovers),
            ("rebuilds", "rebuilds", self.repairs.rebuilds),
            ("deaths", "false deaths", self.sum(|neighbours| neighbours.down)),
        ]
    }

    fn bytes(&self) -> u64 {
        self.directions.iter().map(|direction| direction.sent).sum()
    }

    fn longest_pause_ms(&self) -> f64 {
        let longest = self.directions.iter().map(|direction| direction.pauses.max()).max();
        longest.unwrap_or(0) as f64 / 1000.0
    }
}

impl Report<Args> for Outcome {
    fn print_table(&self, args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
        let Args { flows, relays, hops, busy, seconds, .. } = args;
        writeln!(
            out,
            "{flows} flows over {hops} of {relays} relays for {seconds} s, {busy} processes that spin, {} % of the datagrams lost, seed {}",
            args.loss * 100.0,
            self.seed
        )?;
        writeln!(out, "{:<24} {:>10} {:>18}", "", "in all", "per link-hour")?;
        for (_, what, count) in self.counts() {
            writeln!(out, "{what:<24} {count:>10} {:>18.2}", self.per_link_hour(count))?;
        }
        let causes = self.repairs.causes.iter().map(|(cause, count)| format!("{cause} {count}"));
        writeln!(out, "failovers by: {}", causes.collect::<Vec<_>>().join(", "))?;
        writeln!(out, "link-hours: {:.2}", self.link_hours())?;
        writeln!(out, "longest pause of data: {:.0} ms", self.longest_pause_ms())?;
        let Faults { lost, duplicated, reordered } = self.faults();
        writeln!(out, "{} bytes: lost {lost}, duplicated {duplicated}, reordered {reordered}", self.bytes())?;
        writeln!(out, "flows closed: {}", self.closed())?;
        for (flow, cause) in self.failures() {
            writeln!(out, "CLOSED flow {flow}: {cause}")?;
        }
        if self.repairs.missed > 0 {
            writeln!(
                out,
                "{} events were missed: there were more failovers and rebuilds",
                self.repairs.missed
            )?;
        }
        Ok(())
    }

    fn to_json(&self, args: &Args) -> Result<Value, Failure> {
        let Faults { lost, duplicated, reordered } = self.faults();
        let mut report = json!({
            "seconds": args.seconds,
            "flows": args.flows,
            "relays": args.relays,
            "hops": args.hops,
            "busy": args.busy,
            "loss": args.loss,
            "seed": self.seed,
            "link_hours": self.link_hours(),
            "failover_causes": self.repairs.causes,
            "longest_pause_ms": self.longest_pause_ms(),
            "bytes": self.bytes(),
            "lost": lost,
            "duplicated": duplicated,
            "reordered": reordered,
            "flows_closed": self.closed(),
            "failures": self.failures().iter().map(|(flow, cause)| json!({"flow": flow, "cause": cause})).collect::<Vec<_>>(),
            "events_missed": self.repairs.missed,
            "nodes": self.nodes.iter().map(|Node { name, neighbours }| (name.clone(), json!(neighbours))).collect::<serde_json::Map<_, _>>(),
        });
        if let Some(report) = report.as_object_mut() {
            for (name, _, count) in self.counts() {
                report.insert(name.to_owned(), json!(count));
                report.insert(format!("{name}_per_link_hour"), json!(self.per_link_hour(count)));
            }
        }
        Ok(report)
    }
}
