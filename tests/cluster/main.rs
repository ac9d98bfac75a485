//! Black-box tests: real processes of the `hopline` binary on loopback, real QUIC, real kills.
#![allow(unreachable_pub, reason = "a test binary has no outside")]

mod fixture;

mod failover;
mod messages;
mod misuse;
mod secrecy;
