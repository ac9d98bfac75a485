//! What every measured run has: a seed, logs, an end by Ctrl-C, a report for people or scripts, and a verdict.

use crate::stage::Stage;
use hdrhistogram::Histogram;
use hopline::net::entropy;
use hopline_command::{Exit, Failure, say, signals};
use rand::Rng;
use serde_json::{Value, json};
use std::fmt;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

/// How a run can be repeated, and where it tells what came of it.
#[derive(Debug, clap::Args)]
pub(crate) struct RunArgs {
    /// Seed of the data and the faults; random by default
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Keep detailed logs of the processes in this directory
    #[arg(long, value_name = "DIR")]
    logs: Option<PathBuf>,
}

impl RunArgs {
    /// The given seed, or any.
    pub(crate) fn seed(&self) -> u64 {
        self.seed.unwrap_or_else(|| entropy::seeded_rng().next_u64())
    }

    /// A place for the run's processes.
    pub(crate) fn stage(&self) -> Result<Stage, Failure> {
        Stage::new(self.logs.as_deref())
    }

    /// Prints what came of a run.
    pub(crate) fn print<A>(&self, report: &(impl Report<A> + ?Sized), args: &A) -> Result<(), Failure> {
        let mut out = say::output();
        if self.json {
            Ok(writeln!(out, "{}", report.to_json(args)?)?)
        } else {
            report.print_table(args, &mut out)
        }
    }
}

/// What came of a run.
pub(crate) trait Report<A> {
    /// For people.
    fn print_table(&self, args: &A, out: &mut dyn Write) -> Result<(), Failure>;
    /// For scripts.
    fn to_json(&self, args: &A) -> Result<Value, Failure>;
}

/// What `work` comes to, unless somebody interrupts it; a failure tells how to run `command` again.
pub(crate) async fn uninterrupted<T>(
    command: &str,
    seed: u64,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let performed = tokio::select! {
        performed = work => performed,
        interrupted = signals::interrupted() => Err(interrupted),
    };
    performed.map_err(|failure| failure.at(format!("{command} with --seed {seed}")))
}

/// The run's exit: a failure unless everything arrived exactly once and in order.
pub(crate) fn verdict(is_clean: bool) -> Result<(), Failure> {
    if is_clean {
        return Ok(());
    }
    Err(Failure::new(
        Exit::Failed,
        "not everything arrived exactly once and in order; this is a bug: run it again with --logs DIR, and report it",
    ))
}

pub(crate) const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0)];
/// The longest time that is told apart from longer ones: an hour, in microseconds.
const LONGEST_US: u64 = 3_600_000_000;

/// A histogram of microseconds.
pub(crate) fn histogram() -> Result<Histogram<u64>, Failure> {
    Histogram::new_with_bounds(1, LONGEST_US, 3)
        .map_err(|error| Failure::new(Exit::Failed, error.to_string()))
}

/// How times are spread. Shown in milliseconds.
#[derive(Debug)]
pub(crate) struct Times(Histogram<u64>);

impl Times {
    pub(crate) fn new() -> Result<Self, Failure> {
        Ok(Self(histogram()?))
    }

    pub(crate) fn of(times: &[Duration]) -> Result<Self, Failure> {
        let mut all = Self::new()?;
        times.iter().for_each(|time| all.record(*time));
        Ok(all)
    }

    pub(crate) fn record(&mut self, time: Duration) {
        self.0.saturating_record(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }

    /// So much of them is at most this, in milliseconds.
    pub(crate) fn quantile_ms(&self, share: f64) -> f64 {
        self.0.value_at_quantile(share) as f64 / 1000.0
    }

    pub(crate) fn to_json(&self) -> Value {
        self.quantiles().map(|(name, ms)| (name.to_owned(), json!(ms))).collect()
    }

    fn quantiles(&self) -> impl Iterator<Item = (&'static str, f64)> {
        QUANTILES.iter().map(|(name, share)| (*name, self.quantile_ms(*share)))
    }
}

impl fmt::Display for Times {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quantiles: Vec<String> = self.quantiles().map(|(name, ms)| format!("{name} {ms:.1}")).collect();
        out.write_str(&quantiles.join("   "))
    }
}

/// In milliseconds.
pub(crate) fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
