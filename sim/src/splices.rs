//! Laws 1 to 5 and completion, tried on the real [`Splice`](hopline_proto::splice::Splice) in random worlds that have
//! nothing else.
//!
//! A world is a chain of one to five relays, each with a candidate or two beside it, that carries one flow while nearly
//! everything goes wrong: relays crash, restart empty, freeze and go on, forget, or are full; links flap, and some pairs
//! part for good; neighbours are suspected wrongly, and told late or never; messages are late, resets overtake bytes.
//! The only thing granted is that some path remains. Then the faults end, and everything must come right.
//!
//! The swarm runs the same laws in whole networks, where time orders what happens. Here is no time: of all that can happen
//! chance picks one thing after the other, so any order is tried, and a run costs a hundredth.
#![expect(
    clippy::indexing_slicing,
    reason = "a number of a node, hop or leg leads there; a panic is a failure"
)]

mod actions;
mod applications;
mod checks;
mod faults;
mod leg;
mod machine;
mod run;
mod world;

use crate::swarm::{Game, Parts, Trim};
use world::World;

/// Bare splices and their legs.
pub(crate) const SPLICES: Game = Game {
    name: " --splices",
    run: |seed, trim, told| {
        let mut world = World::new(seed, trim);
        if told {
            world.trace.start();
            let sizes = world.streams.map(|stream| stream.size);
            let setup = format!("{sizes:?} bytes there and back; {:?}", world.habits);
            world.note(format_args!("{setup}"));
        }
        run::play(world, trim)
    },
    parts: |seed| Parts { ordeals: World::new(seed, &Trim::default()).faults, flows: 1, relays: 0 },
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::swarm::{Hunt, Outcome, hunt};
    use hopline_proto::planted::{Law, break_law};
    use std::io::Write;

    /// How many seeds are tried: as many as take some ten seconds of one core in a test build.
    const SEEDS: u64 = 50_000;
    /// What must have happened in so many: what never happened was not tried.
    const RARE: [&str; 18] = [
        "dials",
        "dials that failed at once",
        "attaches refused as stale",
        "legs replaced by a greater epoch",
        "relays freed because their path was outranked",
        "relays that forgot what they held, to fit their prev",
        "relays freed because next's answer left a gap",
        "relays that gave up: no path",
        "relays freed because prev moved on",
        "attaches refused for want of room",
        "relays that freed the flow in doubt",
        "streams that ended without a code",
        "legs lost with their link",
        "steps of relays that know acks beyond what they received",
        "attaches answered by the tombstone",
        "attaches replayed by somebody",
        "origins that lingered in vain",
        "nodes freed by their orphan timer",
    ];

    #[test]
    fn the_laws_hold_whatever_goes_wrong() {
        let seeds = std::env::var("HOPLINE_LAWS_RUNS").ok();
        let seeds = seeds.map_or(SEEDS, |seeds| seeds.parse().expect("HOPLINE_LAWS_RUNS is a number"));
        let task = Hunt { game: SPLICES, from: 1, seeds, threads: 2, stops: false, in_peace: false };
        let found = hunt(task, || (), |_, _| ());
        assert!(found.failures.is_empty(), "hopline-sim replay --splices {:?}", found.failures.first());
        let missing: Vec<&str> = RARE.into_iter().filter(|event| !found.counts.contains_key(event)).collect();
        assert!(missing.is_empty() || seeds < SEEDS, "there were no {missing:?}: {:?}", found.counts);
    }

    /// The run of a seed in which nothing is checked but what applications feel.
    fn felt(seed: u64, trim: &Trim, _: bool) -> Outcome {
        run::play(World { only_felt: true, ..World::new(seed, trim) }, trim)
    }

    /// Checks that never fail prove nothing: with a law broken they must fail, for the six that the protocol rests on also
    /// those alone that see what the applications see and whether the flow comes to its end.
    #[test]
    fn a_broken_law_is_caught() {
        for (number, law) in Law::OF_SPLICES.into_iter().enumerate() {
            for game in
                [SPLICES, Game { run: felt, ..SPLICES }].into_iter().take(if number < 6 { 2 } else { 1 })
            {
                let task = Hunt { game, from: 1, seeds: SEEDS, threads: 2, stops: true, in_peace: false };
                let found = hunt(task, || break_law(Some(law)), |_, _| ());
                let (seed, failure) = found.failures.first().expect("a broken law is noticed");
                writeln!(std::io::stderr(), "{law:?} broken, seed {seed}: {failure}").expect("stderr");
            }
        }
    }
}
