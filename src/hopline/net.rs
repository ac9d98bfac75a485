//! The shell: sockets, clocks, keys and files around the pure protocol.
//!
//! Identity and trust: [`identity`] is who a node is. [`authority`] says which nodes belong to a network and what their
//! certificates contain. [`tls`] turns both into TLS configurations. [`ticket`] is the string with which a new node joins, and
//! [`join`] is how it proves that it holds one. [`datadir`] is a node's directory. [`clock`] and [`entropy`] are the only sources of
//! time and randomness.
//!
//! Communication: [`transport`] is the QUIC endpoint, and [`frames`] puts one message on a stream. [`bootstrap_rpc`] has the messages
//! between nodes and bootstraps, and [`bootstrap_client`] is the node's side of it. `gate` admits incoming connections. [`counters`] counts what
//! a node believed of its neighbours, and `enrolment` reports changes of its lease. `address` and `local` know which address is whose. `tasks` starts
//! tasks.

pub(crate) mod address;
pub mod authority;
pub mod bootstrap_client;
pub mod bootstrap_rpc;
pub mod clock;
pub mod closing;
mod congestion;
pub mod counters;
pub mod datadir;
pub(crate) mod enrolment;
pub mod entropy;
pub mod error;
mod eyeballs;
pub mod frames;
pub(crate) mod gate;
pub mod identity;
pub mod join;
pub mod keyfile;
pub(crate) mod local;
pub mod memory;
pub(crate) mod node;
pub(crate) mod outage;
pub(crate) mod ping;
pub mod reach;
mod socket;
pub mod state;
pub(crate) mod tasks;
#[cfg(test)]
pub(crate) mod testing;
pub mod ticket;
pub mod timer;
pub mod tls;
pub mod transport;
pub(crate) mod version;
