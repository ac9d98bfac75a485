//! What hunting, shrinking and repeating need to know of the runs of a seed, be they of whole networks or of bare splices.

use crate::check::Failure;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// A kind of runs, each made by its seed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Game {
    /// What a command line that repeats one needs to say.
    pub(crate) name: &'static str,
    /// Runs a seed without what is left out, perhaps with its timeline.
    pub(crate) run: fn(seed: u64, trim: &Trim, told: bool) -> Outcome,
    /// What could be left out.
    pub(crate) parts: fn(seed: u64) -> Parts,
}

/// How much of a run could be left out.
pub(crate) struct Parts {
    pub(crate) ordeals: usize,
    pub(crate) flows: usize,
    pub(crate) relays: usize,
}

/// What came of a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) failure: Option<Failure>,
    pub(crate) hash: u64,
    pub(crate) simulated: Duration,
    /// From sending to taking, at most.
    pub(crate) longest: Duration,
    /// How long after the healing the last flow was over.
    pub(crate) settled: Duration,
    /// How often what happened.
    pub(crate) counts: BTreeMap<&'static str, u64>,
}

impl Game {
    /// A run in which a panic is a failure like any other.
    pub(crate) fn guarded(&self, seed: u64, trim: &Trim) -> Outcome {
        let caught = catch_unwind(AssertUnwindSafe(|| (self.run)(seed, trim, false)));
        caught.unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
            let failure = Failure { checker: "panic", what: text.to_owned(), at: Duration::ZERO };
            Outcome { failure: Some(failure), ..Outcome::default() }
        })
    }
}

/// What is left out of a plan, to find out what a failure needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Trim {
    /// Ordeals that don't happen.
    pub(crate) ordeals: BTreeSet<usize>,
    /// Flows that aren't opened.
    pub(crate) flows: BTreeSet<usize>,
    /// Relays that are never started.
    pub(crate) relays: usize,
    /// How often the bytes of each step are halved.
    pub(crate) halvings: u32,
    /// Whether the network is perfect but for the faults.
    pub(crate) fair_weather: bool,
}

impl fmt::Display for Trim {
    /// As arguments on a command line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |set: &BTreeSet<usize>| set.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        if !self.ordeals.is_empty() {
            write!(f, " --without-faults {}", list(&self.ordeals))?;
        }
        if !self.flows.is_empty() {
            write!(f, " --without-flows {}", list(&self.flows))?;
        }
        if self.relays > 0 {
            write!(f, " --fewer-relays {}", self.relays)?;
        }
        if self.halvings > 0 {
            write!(f, " --halvings {}", self.halvings)?;
        }
        if self.fair_weather {
            write!(f, " --fair-weather")?;
        }
        Ok(())
    }
}
