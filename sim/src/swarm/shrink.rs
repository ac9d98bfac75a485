//! Makes a failing run as small as it can be and still fail in the same check.

use super::plan::{Plan, Trim};
use std::time::Duration;

/// Runs at most, however much is left to try.
const MAX_RUNS: usize = 150;

/// Whether a trimmed run fails by this checker.
fn fails(seed: u64, trim: &Trim, checker: &str) -> bool {
    let plan = Plan::draw(seed).trimmed(trim);
    super::hunt::guarded(&plan, trim).failure.is_some_and(|failure| failure.checker == checker)
}

/// Leaves out faults, flows, relays, bytes and bad weather for as long as the run fails in the same check.
pub(crate) fn shrink(seed: u64, checker: &str, limit: Duration, clock: impl Fn() -> Duration) -> Trim {
    let plan = Plan::draw(seed);
    let mut trim = Trim::default();
    let (mut runs, begun) = (0, clock());
    let mut accept = |trim: &mut Trim, candidate: Trim| {
        runs += 1;
        let may = runs <= MAX_RUNS && clock().saturating_sub(begun) < limit;
        let better = may && candidate != *trim && fails(seed, &candidate, checker);
        if better {
            *trim = candidate;
        }
        better
    };
    let all: Trim = Trim { ordeals: (0..plan.ordeals.len()).collect(), ..Trim::default() };
    accept(&mut trim, all);
    loop {
        let before = trim.clone();
        for n in 0..plan.ordeals.len() {
            let mut candidate = trim.clone();
            candidate.ordeals.insert(n);
            accept(&mut trim, candidate);
        }
        for n in (0..plan.flows.len()).filter(|n| *n + 1 < plan.flows.len() || *n > 0) {
            let mut candidate = trim.clone();
            candidate.flows.insert(n);
            if candidate.flows.len() < plan.flows.len() {
                accept(&mut trim, candidate);
            }
        }
        let fair = Trim { fair_weather: true, ..trim.clone() };
        accept(&mut trim, fair);
        while trim.relays + plan.longest_chain() + 2 < plan.relays {
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
