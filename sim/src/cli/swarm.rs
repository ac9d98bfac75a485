//! `swarm`, `splices` and `replay`.
#![expect(clippy::print_stdout, reason = "the result of the runs")]

use super::stopwatch;
use crate::splices::SPLICES;
use crate::swarm::{Found, Game, Hunt, SWARM, Trim, hunt, shrink};
use clap::Args;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How long a failing seed is shrunk at most.
const TIMEOUT: Duration = Duration::from_secs(120);
/// Failing seeds that are shrunk.
const SHRUNK: usize = 3;

/// Run many seeds: random networks or splices, traffic and faults.
#[derive(Debug, Args)]
pub(super) struct Swarm {
    /// Number of seeds.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// First seed.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Threads.
    #[arg(long, default_value_t = cores())]
    threads: usize,
    /// Break this law of the protocol and report which check notices; `all` breaks one after the other.
    #[cfg(feature = "planted")]
    #[arg(long)]
    plant: Option<String>,
    /// Continue after a failure.
    #[arg(long)]
    keep_going: bool,
    /// No faults: checks that no relay is blamed for slow links and readers.
    #[arg(long)]
    in_peace: bool,
}

/// Run one seed again, with its timeline.
#[derive(Debug, Args)]
pub(super) struct Replay {
    /// Which.
    seed: u64,
    /// One of `splices`, not of `swarm`.
    #[arg(long)]
    splices: bool,
    /// Faults to leave out.
    #[arg(long, value_delimiter = ',')]
    without_faults: Vec<usize>,
    /// Flows to leave out.
    #[arg(long, value_delimiter = ',')]
    without_flows: Vec<usize>,
    /// Number of relays to leave out.
    #[arg(long, default_value_t = 0)]
    fewer_relays: usize,
    /// How often to halve the size of all that is sent.
    #[arg(long, default_value_t = 0)]
    halvings: u32,
    /// No loss, no jitter, unlimited bandwidth.
    #[arg(long)]
    fair_weather: bool,
    /// Print only the result.
    #[arg(long)]
    quiet: bool,
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

impl Swarm {
    pub(super) fn run(&self, game: Game) -> ExitCode {
        std::panic::set_hook(Box::new(|_| ()));
        #[cfg(feature = "planted")]
        if let Some(name) = &self.plant {
            return self.plant(game, name);
        }
        let clock = stopwatch();
        let done = AtomicU64::new(0);
        let task = self.task(game, !self.keep_going);
        let found = hunt(
            task,
            || (),
            |seed, outcome| {
                let done = done.fetch_add(1, Ordering::Relaxed) + 1;
                if let Some(failure) = &outcome.failure {
                    println!("seed {seed} FAILED {failure}");
                }
                if done.is_multiple_of((self.seeds / 10).max(1000)) {
                    println!("{done} seeds");
                }
            },
        );
        println!("{}", summary(&found, clock()));
        for (event, count) in &found.counts {
            println!("{count:>10} {event}");
        }
        for (seed, failure) in found.failures.iter().take(SHRUNK) {
            let trim = shrink(game, *seed, failure.checker, TIMEOUT, &clock);
            println!("seed {seed}: {failure}\n  repeat with: hopline-sim replay {seed}{}{trim}", game.name);
        }
        if found.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

impl Swarm {
    const fn task(&self, game: Game, stops: bool) -> Hunt {
        let Self { from, seeds, threads, in_peace, .. } = *self;
        Hunt { game, from, seeds, threads, stops, in_peace }
    }
}

#[cfg(feature = "planted")]
impl Swarm {
    /// Breaks laws, and tells for each which check noticed, at which seed and after how many.
    fn plant(&self, game: Game, name: &str) -> ExitCode {
        use hopline_proto::planted::{Law, break_law};
        let is_meant = |law: &Law| name == "all" || format!("{law:?}").eq_ignore_ascii_case(name);
        let mut missed = 0;
        println!("| planted bug | caught by | seed | after seeds |\n|---|---|---|---|");
        // What bare splices do not have they cannot break.
        let laws = if game.name.is_empty() { &Law::PLANTED[..] } else { &Law::OF_SPLICES };
        for law in laws.iter().copied().filter(is_meant) {
            let task = self.task(game, true);
            let found = hunt(task, || break_law(Some(law)), |_, _| ());
            match found.failures.first() {
                Some((seed, failure)) => {
                    println!("| {law:?} | {} | {seed} | {} |", failure.checker, seed - self.from + 1);
                }
                None => {
                    missed += 1;
                    println!("| {law:?} | **nobody** | | {} |", found.runs);
                }
            }
        }
        if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

fn summary(found: &Found, took: Duration) -> String {
    format!(
        "{} seeds, {} failed; {:.1} simulated hours in {:.1} s; the last flow was over at most {:.0} s after the healing (seed {})",
        found.runs,
        found.failures.len(),
        found.simulated.as_secs_f64() / 3600.0,
        took.as_secs_f64(),
        found.slowest.0.as_secs_f64(),
        found.slowest.1,
    )
}

impl Replay {
    pub(super) fn run(&self) -> ExitCode {
        let trim = Trim {
            ordeals: self.without_faults.iter().copied().collect(),
            flows: self.without_flows.iter().copied().collect(),
            relays: self.fewer_relays,
            halvings: self.halvings,
            fair_weather: self.fair_weather,
        };
        let clock = stopwatch();
        let game = if self.splices { SPLICES } else { SWARM };
        let outcome = (game.run)(self.seed, &trim, !self.quiet);
        println!(
            "seed {}: {:.1} s simulated in {:.2} s, trace hash {:016x}",
            self.seed,
            outcome.simulated.as_secs_f64(),
            clock().as_secs_f64(),
            outcome.hash
        );
        match outcome.failure {
            None => ExitCode::SUCCESS,
            Some(failure) => {
                println!("FAILED {failure}");
                ExitCode::FAILURE
            }
        }
    }
}
