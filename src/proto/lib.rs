//! The pure protocol: parts (plain structs whose methods take the time and return values) and machines (events in,
//! actions out).
//!
//! Nothing here does I/O, reads a clock or draws ambient randomness: time is a [`Time`] argument, randomness a seed
//! given at construction. The production shell and the simulator drive the very same code.
//!
//! # The laws
//!
//! Comments cite them by number. `docs/PROTOCOL.md` has them in full, with the test that guards each.
//!
//! 1. **Lanes.** A node holds a direction's bytes until they were acked end to end and written to the live outgoing leg.
//! 2. **Offsets.** A receiver drops what it has and accepts no gap. Only an explicit FIN ends a direction.
//! 3. **One message.** `Attach` opens, resumes and rebuilds a leg. Acks for a leg follow its `AttachOk`.
//! 4. **Epochs.** An epoch is the path of dial counters from the origin. Only a strictly greater one is accepted.
//! 5. **Relays may forget.** A relay in doubt forgets the flow; one that reaches no candidate says `NoPath`.
//! 6. **Rights.** A relay forwards only for a record sealed to it and a tag that fits the path.
//! 7. **No bootstrap needed.** An open flow outlives any outage of the bootstrap.
//! 8. **Purity.** No I/O, no clock and no randomness of its own.

pub mod admission;
pub mod agent;
pub mod allowance;
pub mod backoff;
pub mod bootstrap;
pub mod cause;
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
pub mod forward;
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
pub mod version;

pub use epoch::Epoch;
pub use id::{BootId, ChainId, FlowId, NodeId, Pseudonym};
pub use time::Time;
