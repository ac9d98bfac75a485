//! Runs many seeds, on as many threads as there are cores.

use super::game::{Game, Outcome, Trim};
use crate::check::Failure;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Which seeds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hunt {
    pub(crate) game: Game,
    pub(crate) from: u64,
    pub(crate) seeds: u64,
    pub(crate) threads: usize,
    /// Whether to stop at the first failure.
    pub(crate) stops: bool,
    /// Whether nothing is done to the networks: then nobody is to be blamed for anything.
    pub(crate) in_peace: bool,
}

/// What came of all.
#[derive(Clone, Debug, Default)]
pub(crate) struct Found {
    pub(crate) runs: u64,
    pub(crate) simulated: Duration,
    pub(crate) slowest: (Duration, u64),
    /// How often what happened.
    pub(crate) counts: BTreeMap<&'static str, u64>,
    pub(crate) failures: Vec<(u64, Failure)>,
}

impl Found {
    fn add(&mut self, seed: u64, outcome: Outcome) {
        self.runs += 1;
        self.simulated += outcome.simulated;
        self.slowest = self.slowest.max((outcome.settled, seed));
        for (event, count) in outcome.counts {
            *self.counts.entry(event).or_default() += count;
        }
        self.failures.extend(outcome.failure.map(|failure| (seed, failure)));
    }
}

/// Runs the seeds; `prepare` is called once on each thread.
pub(crate) fn hunt(hunt: Hunt, prepare: impl Fn() + Sync, seen: impl Fn(u64, &Outcome) + Sync) -> Found {
    let (next, stop) = (AtomicU64::new(hunt.from), AtomicBool::new(false));
    let found = Mutex::new(Found::default());
    std::thread::scope(|scope| {
        for _ in 0..hunt.threads.max(1) {
            scope.spawn(|| {
                prepare();
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= hunt.from.saturating_add(hunt.seeds) {
                        return;
                    }
                    let ordeals = if hunt.in_peace { (hunt.game.parts)(seed).ordeals } else { 0 };
                    let trim = Trim { ordeals: (0..ordeals).collect(), ..Trim::default() };
                    let outcome = hunt.game.guarded(seed, &trim);
                    seen(seed, &outcome);
                    stop.fetch_or(hunt.stops && outcome.failure.is_some(), Ordering::Relaxed);
                    found.lock().unwrap_or_else(PoisonError::into_inner).add(seed, outcome);
                }
            });
        }
    });
    let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    found.failures.sort_by_key(|(seed, _)| *seed);
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::swarm::SWARM;
    use std::hash::{BuildHasher, Hasher, RandomState};
    use std::io::Write;

    /// The first of some seeds that nobody has run before, unless the environment says which.
    fn fresh_seeds() -> u64 {
        let asked = std::env::var("HOPLINE_SEEDS_FROM").ok();
        let from = asked.map(|from| from.parse().expect("HOPLINE_SEEDS_FROM is a number"));
        from.unwrap_or_else(|| RandomState::new().build_hasher().finish() >> 24)
    }

    #[test]
    fn fresh_seeds_keep_every_law() {
        let task =
            Hunt { game: SWARM, from: fresh_seeds(), seeds: 300, threads: 2, stops: false, in_peace: false };
        // Not by `eprintln!`, which is heard only of tests that fail.
        writeln!(std::io::stderr(), "swarm: 300 seeds, HOPLINE_SEEDS_FROM={}", task.from).expect("stderr");
        let found = hunt(task, || (), |_, _| ());
        assert!(found.failures.is_empty(), "{:?}", found.failures);
        assert!(found.counts["faults"] > 1000 && found.counts["reroutes"] > 1000, "{found:?}");
    }

    #[test]
    fn seeds_that_failed_once_keep_every_law() {
        // An honest peer was taken for a storm of attaches.
        let seed = 102_931;
        assert_eq!(SWARM.guarded(seed, &Trim::default()).failure, None);
    }

    #[test]
    fn nothing_is_blamed_where_nothing_is_wrong() {
        // The last ones have small flows beside large ones, on links that are narrow.
        for seed in (1..60).chain([453, 1302, 2195, 102_519, 103_118, 2_001_269, 2_002_976]) {
            let trim = Trim { ordeals: (0..(SWARM.parts)(seed).ordeals).collect(), ..Trim::default() };
            assert_eq!(SWARM.guarded(seed, &trim).failure, None, "seed {seed}");
        }
    }

    #[test]
    fn a_seed_is_a_run() {
        let hash = |seed| SWARM.guarded(seed, &Trim::default()).hash;
        let first: Vec<u64> = (1..6).map(hash).collect();
        assert_eq!(first, (1..6).map(hash).collect::<Vec<u64>>());
        assert!(first.windows(2).all(|pair| pair[0] != pair[1]));
    }
}
