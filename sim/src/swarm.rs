//! Many small random networks, each with random traffic and random faults, and every check on.

mod faults;
mod flows;
mod game;
mod hunt;
mod plan;
mod run;
mod scene;
mod shrink;

pub(crate) use game::{Game, Outcome, Parts, Trim};
pub(crate) use hunt::{Found, Hunt, hunt};
pub(crate) use plan::Plan;
pub(crate) use run::run;
pub(crate) use shrink::shrink;

/// Whole networks.
pub(crate) const SWARM: Game = Game {
    name: "",
    run: |seed, trim, told| run(&Plan::draw(seed).trimmed(trim), trim, told),
    parts: |seed| Plan::draw(seed).parts(),
};
