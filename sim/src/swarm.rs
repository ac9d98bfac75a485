//! Many small random networks, each with random traffic and random faults, and every check on.

mod faults;
mod flows;
mod hunt;
mod plan;
mod run;
mod scene;
mod shrink;

pub(crate) use hunt::{Found, Hunt, hunt};
pub(crate) use plan::{Plan, Trim};
pub(crate) use run::run;
pub(crate) use shrink::shrink;
