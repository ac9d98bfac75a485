//! All flows at one node, whatever its part in each, and the links that carry them.
//!
//! This is where the laws meet the neighbours. The relay's and the endpoint's machines own one [`Flows`] each, and act on its
//! [`FlowsEvent`].
//!
//! - One flow, and the parts that decide about it: `flow.rs`, `flow/`. Its next hop is a state machine: `flow/next.rs`.
//! - All of them, and the indices over them: `table.rs`. What is still to be done: `tasks.rs`.
//! - Facts come in: `events.rs`, `timeouts.rs`, and from applications and legs `traffic.rs`.
//! - Where packets of sessions go: `forward.rs`.
//! - Legs begin and end: `attach.rs`, `legs.rs`, `ends.rs`. Peers misbehave: `violations.rs`.
//! - The next hop is dialled, given up, and left before it drains: `dial.rs`, `repair.rs`, `drain.rs`.
//! - The chain stays usable: `records.rs`, `backups.rs`, `upkeep.rs`, `routes.rs`.
//! - How bytes are judged: `probe.rs` (at the ends), `front.rs` (where they stop), `gray.rs`, `reach.rs`.
//! - Limits: `budget.rs` (bytes for replay), `pace.rs` (attaches over one link), `config.rs`. Rights: `rights.rs` (Law 6).
//! - What is told: `tell.rs` (to peers), `flows_event.rs` (to the machine), `avoided.rs`.
//! - After every change a flow is settled (acks, FINs and completion follow): `settle.rs`, `schedule.rs`.
//!
//! Bounds: flows (`max_flows`: more are refused as overloaded), links ([`Links`](super::links::Links)), bytes of each lane
//! ([`Limits`](super::splice::Limits)) and of all together (`replay_bytes`, and [`RESERVE_BYTES`] for each lane): reading
//! stops; tombstones (as many as flows; the oldest goes first).

mod attach;
mod avoided;
mod backups;
mod budget;
mod config;
mod dial;
mod drain;
mod ends;
mod events;
mod flow;
mod flows_event;
mod forward;
mod front;
mod gray;
mod key;
mod legs;
mod pace;
mod probe;
mod reach;
mod records;
mod repair;
mod rights;
mod routes;
mod schedule;
mod settle;
mod table;
mod tasks;
mod tell;
mod timeouts;
mod traffic;
mod upkeep;
mod violations;

pub use budget::RESERVE_BYTES;
pub use config::FlowsConfig;
pub use flow::timer::Timer;
pub use flow::view::FAILED_LIFETIME;
pub use flows_event::FlowsEvent;
pub use forward::Way;
pub use key::FlowKey;
pub use rights::KeyRing;
pub use table::Flows;

#[cfg(test)]
#[expect(clippy::wildcard_enum_match_arm, reason = "tests look for what they look for")]
mod tests;
