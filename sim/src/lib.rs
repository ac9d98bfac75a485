//! Hopline's machines in virtual time: the very code that runs in production, driven by an event queue instead of
//! sockets and clocks. A run depends on its seed alone.

mod chain;
mod trace;
mod world;

pub use chain::{Outcome, Scenario};
pub use trace::Trace;
pub use world::{NodeIndex, World};
