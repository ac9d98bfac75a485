//! Hopline: ordered byte streams and messages over chains of relays, of which any may be killed, frozen, cut off,
//! drained or upgraded in the middle of a stream without one byte lost, doubled or reordered.
//!
//! [`proto`] is the protocol itself: pure, without I/O, clock or ambient randomness. [`churn`] is as pure, and tells how
//! relays come and go in simulations and benchmarks. `testbed` is a network for tests. Everything else is the shell that
//! runs the protocol over QUIC.

#[cfg(feature = "net")]
pub mod admin;
#[cfg(feature = "net")]
pub mod bootstrap;
pub mod churn;
#[cfg(feature = "net")]
pub mod cli;
#[cfg(feature = "net")]
pub mod endpoint;
#[cfg(feature = "net")]
pub mod net;
pub mod proto;
#[cfg(feature = "net")]
pub mod relay;
#[cfg(feature = "net")]
pub mod store;
#[cfg(all(feature = "net", target_os = "linux"))]
pub mod testbed;
