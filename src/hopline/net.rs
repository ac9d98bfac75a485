//! The shell: sockets, clocks, keys and files around the pure protocol.
//!
//! Identity and trust come first. [`identity`] is who a node is, [`authority`] who may belong to a network and what its
//! certificates say, [`tls`] turns both into TLS configurations, [`ticket`] is the string that invites a newcomer, and
//! [`join`] the proof by which the newcomer uses it. [`datadir`] is where a node keeps what it is. [`clock`] and
//! [`entropy`] are the only sources of time and randomness.
//!
//! Then comes talk. [`transport`] is the QUIC endpoint, [`frames`] puts one message on a stream, [`bootstrap_rpc`] is what
//! nodes and bootstraps say to each other, and [`coordinator`] the node's side of that. `gate` is the door for whoever dials. [`tally`] counts what a node thinks of
//! its neighbours, and `enrolment` passes on what becomes of its lease. `address` and `local` know which address is whose.

pub(crate) mod address;
pub mod authority;
pub mod bootstrap_rpc;
pub mod clock;
mod congestion;
pub mod coordinator;
pub mod datadir;
pub(crate) mod enrolment;
pub mod entropy;
pub mod error;
pub mod farewell;
pub mod frames;
pub(crate) mod gate;
pub mod identity;
pub mod join;
pub mod keyfile;
pub(crate) mod local;
pub mod memory;
pub(crate) mod node;
pub(crate) mod outage;
pub(crate) mod pulse;
pub mod reach;
mod socket;
pub mod state;
pub mod tally;
#[cfg(test)]
pub(crate) mod testing;
pub mod ticket;
pub mod timer;
pub mod tls;
pub mod transport;
