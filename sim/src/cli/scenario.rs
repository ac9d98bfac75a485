//! `scenario`.
#![expect(clippy::print_stdout, reason = "the result of the runs")]

use crate::scenario::{SCENARIOS, Scenario};
use crate::swarm::{Trim, run};
use clap::Args;
use std::process::ExitCode;

/// Run a script.
#[derive(Debug, Args)]
pub(super) struct Named {
    /// Which; without, all are listed.
    name: Option<String>,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Seeds to run; a single one is shown with its timeline.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
}

impl Named {
    pub(super) fn run(&self) -> ExitCode {
        let Some(scenario) = self.name.as_deref().and_then(Scenario::named) else {
            SCENARIOS.iter().for_each(|scenario| println!("{:<24} {}", scenario.name, scenario.about));
            return if self.name.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
        };
        let mut failed = false;
        for seed in self.seed..self.seed.saturating_add(self.seeds) {
            let outcome = run(&scenario.plan(seed), &Trim::default(), self.seeds == 1);
            println!(
                "{} {seed}: {:?}, longest delivery {:.1} ms, trace hash {:016x}",
                scenario.name,
                outcome.counts,
                outcome.longest.as_secs_f64() * 1e3,
                outcome.hash
            );
            if let Some(failure) = outcome.failure {
                println!("FAILED {failure}");
                failed = true;
            }
        }
        if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }
}
