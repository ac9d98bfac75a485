//! Hopline: ordered byte streams and messages over chains of relays, of which any may be killed, frozen, cut off,
//! drained or upgraded in the middle of a stream without one byte lost, doubled or reordered.
//!
//! [`proto`] is the protocol itself: pure, without I/O, clock or ambient randomness. This crate is the shell that runs it over QUIC.

#![cfg_attr(
    not(all(feature = "endpoint", feature = "admin")),
    allow(dead_code, reason = "`net` has what every role needs; a build with fewer roles needs less of it")
)]

#[cfg(feature = "admin")]
pub mod admin;
#[cfg(feature = "bootstrap")]
pub mod bootstrap;
#[cfg(feature = "endpoint")]
pub mod endpoint;
pub mod net;
#[cfg(feature = "relay")]
pub mod relay;
#[cfg(feature = "bootstrap")]
pub mod store;

pub use hopline_proto as proto;
