//! Makes a failing run as small as it can be and still fail in the same check.

use super::game::{Game, Trim};
use std::time::Duration;

/// Runs at most, however much is left to try.
const MAX_RUNS: usize = 150;

/// Leaves out faults, flows, relays, bytes and bad weather for as long as the run fails in the same check.
pub(crate) fn shrink(
    game: Game,
    seed: u64,
    checker: &str,
    limit: Duration,
    clock: impl Fn() -> Duration,
) -> Trim {
    let parts = (game.parts)(seed);
    let fails =
        |trim: &Trim| game.guarded(seed, trim).failure.is_some_and(|failure| failure.checker == checker);
    let mut trim = Trim::default();
    let (mut runs, begun) = (0, clock());
    let mut accept = |trim: &mut Trim, candidate: Trim| {
        runs += 1;
        let may = runs <= MAX_RUNS && clock().saturating_sub(begun) < limit;
        let better = may && candidate != *trim && fails(&candidate);
        if better {
            *trim = candidate;
        }
        better
    };
    let all: Trim = Trim { ordeals: (0..parts.ordeals).collect(), ..Trim::default() };
    accept(&mut trim, all);
    loop {
        let before = trim.clone();
        for n in 0..parts.ordeals {
            let mut candidate = trim.clone();
            candidate.ordeals.insert(n);
            accept(&mut trim, candidate);
        }
        for n in (0..parts.flows).filter(|n| *n + 1 < parts.flows || *n > 0) {
            let mut candidate = trim.clone();
            candidate.flows.insert(n);
            if candidate.flows.len() < parts.flows {
                accept(&mut trim, candidate);
            }
        }
        let fair = Trim { fair_weather: true, ..trim.clone() };
        accept(&mut trim, fair);
        while trim.relays < parts.relays {
            let fewer = Trim { relays: trim.relays + 1, ..trim.clone() };
            if !accept(&mut trim, fewer) {
                break;
            }
        }
        while trim.halvings < 20 {
            let smaller = Trim { halvings: trim.halvings + 1, ..trim.clone() };
            if !accept(&mut trim, smaller) {
                break;
            }
        }
        if trim == before {
            return trim;
        }
    }
}
