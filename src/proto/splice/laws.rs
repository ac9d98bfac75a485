//! The laws, tried.

mod actions;
mod checks;
mod dice;
mod faults;
mod leg;
mod machine;
mod run;
mod tally;
mod trace;
mod world;

use tally::{Event, Tally};
use trace::Trace;

#[test]
fn laws() {
    let runs: u64 = std::env::var("HOPLINE_LAWS_RUNS").map_or(10_000, |r| r.parse().unwrap());
    if let Ok(seed) = std::env::var("HOPLINE_LAWS_SEED") {
        let trace = Trace::kept();
        let o = run::run(seed.parse().unwrap(), &trace);
        println!("{}\n{:?}", trace.told(100000), o.finding);
        return;
    }
    let begin = std::process::Command::new("date").arg("+%s.%N").output().unwrap();
    let mut tally = Tally::default();
    let mut found = std::collections::BTreeMap::<_, (u64, u32, u64)>::new();
    let (mut steps, mut timers, mut healed) = (0u64, 0, 0);
    for seed in 0..runs {
        let o = run::run(seed, &Trace::default());
        tally.add_all(&o.tally);
        steps += u64::from(o.steps);
        timers += u64::from(o.timers);
        healed += u64::from(o.healed);
        if let Some(f) = o.finding {
            let e = found.entry(f.check).or_insert((0, u32::MAX, 0));
            e.0 += 1;
            if o.steps < e.1 {
                e.1 = o.steps;
                e.2 = seed;
            }
        }
    }
    let end = std::process::Command::new("date").arg("+%s.%N").output().unwrap();
    println!("{} {}", String::from_utf8_lossy(&begin.stdout), String::from_utf8_lossy(&end.stdout));
    println!("{runs} runs, {steps} steps, timers {timers}, healed {healed}");
    for (e, n) in Event::ALL {
        println!("{:>10} {n}", tally.of(e));
    }
    for (c, (n, steps, seed)) in found {
        println!("!! {n} {} shortest seed {seed} {steps}", c.name());
    }
}
