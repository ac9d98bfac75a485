//! What the commands of Hopline share: how they join a network, what they print, and how they end.
//! Data and `ready` lines go to stdout, logs and events to stderr.

pub mod duration;
mod failure;
pub mod join;
pub mod journal;
pub mod liveness;
pub mod name;
pub mod plane;
pub mod ready;
pub mod retry;
pub mod say;
mod serve;
pub mod signals;
pub mod size;
pub mod stdio;
pub mod wait;

pub use failure::{Exit, Failure};
