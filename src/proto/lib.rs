//! The pure protocol: parts (plain structs whose methods take the time and return values) and machines (events in,
//! actions out).
//!
//! Nothing here does I/O, reads a clock or draws ambient randomness: time is a [`Time`] argument, randomness a seed
//! given at construction. The production shell and the simulator drive the very same code.

pub mod admission;
pub mod allowance;
pub mod backoff;
pub mod bootstrap;
pub mod cause;
pub mod clerk;
pub mod codec;
pub mod crypto;
pub mod detector;
pub mod dialable;
pub mod endpoint;
pub mod enrolment;
pub mod epoch;
pub mod failure_memory;
pub mod families;
pub mod flows;
pub mod frame;
pub mod id;
pub mod lane;
pub mod links;
pub mod machine;
pub mod planner;
pub mod planted;
pub mod pool;
pub mod record;
pub mod relay;
pub mod rpc;
pub mod splice;
pub mod time;
pub mod timers;

pub use epoch::Epoch;
pub use id::{BootId, ChainId, FlowId, NodeId, Pseudonym};
pub use time::Time;
