//! The shell: sockets, clocks, keys and files around the pure protocol.
//!
//! Identity and trust come first. [`identity`] is who a node is, [`authority`] who may belong to a network and what its
//! certificates say, [`tls`] turns both into TLS configurations, [`ticket`] is the string that invites a newcomer, and
//! [`join`] the proof by which the newcomer uses it. [`clock`] and [`entropy`] are the only sources of time and
//! randomness.

pub mod authority;
pub mod clock;
pub mod entropy;
pub mod identity;
pub mod join;
pub mod keyfile;
pub mod ticket;
pub mod tls;
