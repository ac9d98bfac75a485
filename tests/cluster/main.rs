//! Black-box tests: real processes of the `hopline` binary on loopback, real QUIC, real kills.
#![allow(unreachable_pub, reason = "a test binary has no outside")]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test may fail any way it likes"
)]
#![allow(clippy::disallowed_methods, reason = "a test takes the time of what it runs")]
#![allow(clippy::wildcard_enum_match_arm, reason = "a test waits for what it waits for")]

#[path = "../common/fixture.rs"]
#[allow(dead_code, reason = "shared with tests/matrix")]
mod fixture;

mod accuracy;
mod addresses;
mod apart;
mod bench_bootstrap;
mod bootstraps;
mod churn;
#[cfg(target_os = "linux")]
mod clocks;
mod console;
mod cut;
mod datagrams;
mod directories;
mod drain;
mod echo;
mod ends;
mod explain;
mod failover;
#[cfg(target_os = "linux")]
mod families;
mod hostile;
mod latency;
mod library;
mod messages;
mod misuse;
mod names;
mod outlive;
#[cfg(target_os = "linux")]
mod partition;
mod pauses;
#[cfg(target_os = "linux")]
mod recovery;
mod restarts;
mod routes;
mod secrecy;
mod senders;
mod sessions;
mod short_runs;
mod soak;
mod strangers;
#[cfg(target_os = "linux")]
mod streams;
mod throughput;
mod visibility;
#[cfg(target_os = "linux")]
mod wan;
