//! Laws 1 to 5 and completion, tried on the real [`Splice`](super::Splice) in random worlds.
//!
//! A world is a chain of one to five relays, each with a candidate or two beside it, that carries one flow while nearly
//! everything goes wrong: relays crash, restart empty, freeze and go on, forget, or are full; links flap, and some pairs
//! part for good; neighbours are suspected wrongly, and told late or never; messages are late, resets overtake bytes.
//! The only thing granted is that some path remains. Then the faults end, and everything must come right.
//!
//! - [`world`]: the nodes, the legs between them and the two applications;
//! - [`actions`]: what can happen next, of which chance picks one thing at a time;
//! - [`machine`], [`applications`]: what nodes and applications do then;
//! - [`leg`]: what is under way between two nodes;
//! - [`faults`]: what goes wrong;
//! - [`checks`]: what must be true after every step, and in the end;
//! - [`run`]: one case from its beginning to its end.
//!
//! A case is made by its seed alone. A failure prints the seed and what happened. `HOPLINE_LAWS_SEED=seed` repeats one
//! case and tells everything, `HOPLINE_LAWS_RUNS=count` tries more than the usual [`CASES`]:
//!
//! ```text
//! HOPLINE_LAWS_RUNS=1000000 cargo test --release -p hopline-proto the_laws_hold -- --nocapture
//! ```
//!
//! Checks that never fail prove nothing, so each law is also broken on purpose ([`planted`]), and then they must fail:
//! all of them together, and also those alone that see what the applications see and whether the flow comes to its end
//! (is it *felt*?). The tests below print the first case that fails; when this was written:
//!
//! | law | broken so that | failed first, in case | felt first, in case |
//! |---|---|---|---|
//! | 1 | bytes are let go when acked, written or not | a lane does not hold what it must, 7 | nothing moves any more, 7 |
//! | 2 | the end of a stream counts as the direction's end | received what was never sent, 69 | a wrong end was delivered, 69 |
//! | 3 | acks are told before the `AttachOk` | a control message came before its leg was known, 14 | not delivered, 112 |
//! | 4 | epochs are flat: the origin's counter alone | an epoch is not a path, 1 | nodes dial for ever, 5 |
//! | 5 | no relay ever says `NoPath` | nodes dial for ever, 7 | nodes dial for ever, 7 |
//! | completion | nobody says `Done`, all judge for themselves | the origin never learns that the flow is done, 3 | the same, 3 |

mod actions;
mod applications;
mod checks;
mod coverage;
mod dice;
mod fault;
mod faults;
mod finding;
mod leg;
mod machine;
mod run;
mod trace;
mod world;

use crate::planted::{self, Law};
use coverage::{Coverage, Event};
use finding::{Finding, Scope};
use run::Outcome;
use std::fmt;
use trace::Trace;

/// How many cases are tried: as many as take some ten seconds of one core in a test build.
const CASES: u64 = 50_000;
/// The seed of the first case.
const FIRST_SEED: u64 = 1;
/// After so many failures the rest is not tried: one of them is enough to look at.
const ENOUGH_FAILURES: usize = 20;
/// Lines of a failure's trace that are printed.
const TRACE_LINES: usize = 400;

#[test]
fn the_laws_hold_whatever_goes_wrong() {
    if let Some(seed) = from_environment("HOPLINE_LAWS_SEED") {
        return repeat(seed);
    }
    let cases = from_environment("HOPLINE_LAWS_RUNS").unwrap_or(CASES);
    let summary = Summary::of(cases);
    println!("{summary}");
    summary.expect_no_failure();
    if cases >= CASES {
        summary.expect_all_events();
    }
}

#[test]
fn a_broken_law_1_trimming_before_the_write_is_caught() {
    expect_caught(Law::TrimAfterWrite);
}

#[test]
fn a_broken_law_2_a_stream_end_as_fin_is_caught() {
    expect_caught(Law::ExplicitFin);
}

#[test]
fn a_broken_law_3_acks_before_the_answer_is_caught() {
    expect_caught(Law::AckAfterAttachOk);
}

#[test]
fn a_broken_law_4_flat_epochs_is_caught() {
    expect_caught(Law::PathEpochs);
}

#[test]
fn a_broken_law_5_never_saying_no_path_is_caught() {
    expect_caught(Law::NoPath);
}

#[test]
fn a_broken_completion_freeing_by_ones_own_idea_is_caught() {
    expect_caught(Law::FreeOnDone);
}

/// Breaks `law` and expects that the checks fail within the usual number of cases.
fn expect_caught(law: Law) {
    for scope in [Scope::All, Scope::Felt] {
        let broken = Broken::law(law);
        let caught = (0..CASES).find_map(|case| {
            let finding = run::run(FIRST_SEED + case, scope, &Trace::default()).finding;
            finding.map(|finding| (case + 1, finding))
        });
        drop(broken);
        let (case, finding) =
            caught.unwrap_or_else(|| panic!("{law:?} broken: {scope:?} checks notice nothing"));
        println!("{law:?} broken, {scope:?} checks: case {case}, {finding}");
    }
}

/// While this lives, a law is broken on this thread.
struct Broken;

impl Broken {
    fn law(law: Law) -> Self {
        planted::break_law(Some(law));
        Self
    }
}

impl Drop for Broken {
    fn drop(&mut self) {
        planted::break_law(None);
    }
}

/// Tells all about one case.
fn repeat(seed: u64) {
    let trace = Trace::kept();
    let Outcome { finding, steps, .. } = run::run(seed, Scope::All, &trace);
    println!("{}", trace.told(usize::MAX));
    assert!(finding.is_none(), "seed {seed}, {steps} steps: {}", finding.unwrap());
    println!("seed {seed}: nothing wrong in {steps} steps");
}

/// What many cases came to.
#[derive(Default)]
struct Summary {
    cases: u64,
    steps: u64,
    without_timers: u64,
    healed: u64,
    coverage: Coverage,
    failures: Vec<Failure>,
}

struct Failure {
    seed: u64,
    steps: u32,
    finding: Finding,
}

impl Summary {
    fn of(cases: u64) -> Self {
        let mut summary = Self::default();
        while summary.cases < cases && summary.failures.len() < ENOUGH_FAILURES {
            let seed = FIRST_SEED + summary.cases;
            summary.add(seed, run::run(seed, Scope::All, &Trace::default()));
        }
        summary
    }

    fn add(&mut self, seed: u64, outcome: Outcome) {
        let Outcome { finding, steps, coverage, timers, healed } = outcome;
        self.cases += 1;
        self.steps += u64::from(steps);
        self.without_timers += u64::from(!timers);
        self.healed += u64::from(healed);
        self.coverage.add_all(&coverage);
        self.failures.extend(finding.map(|finding| Failure { seed, steps, finding }));
    }

    /// Shows the shortest failure, if there is any.
    fn expect_no_failure(&self) {
        if let Some(Failure { seed, finding, .. }) = self.failures.iter().min_by_key(|failure| failure.steps)
        {
            let trace = Trace::kept();
            run::run(*seed, Scope::All, &trace);
            println!("{}", trace.told(TRACE_LINES));
            panic!("seed {seed} (repeat with HOPLINE_LAWS_SEED={seed}): {finding}");
        }
    }

    /// What never happened was not tried.
    fn expect_all_events(&self) {
        for (event, name) in Event::ALL {
            assert!(self.coverage.of(event) > 0 || event == Event::Rebuild, "there were no {name}");
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cases, steps, without_timers, healed, failures, .. } = self;
        writeln!(f, "{cases} cases, seeds from {FIRST_SEED} on, {steps} steps: {} failed", failures.len())?;
        for Failure { seed, steps, finding } in failures {
            writeln!(f, "  seed {seed}, {steps} steps: {finding}")?;
        }
        writeln!(f, "{healed:>10} stalled until the origin rebuilt")?;
        writeln!(f, "{without_timers:>10} needed no orphan timer")?;
        for (event, name) in Event::ALL {
            writeln!(f, "{:>10} {name}", self.coverage.of(event))?;
        }
        Ok(())
    }
}

fn from_environment(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} must be a number, not {text:?}")))
}
