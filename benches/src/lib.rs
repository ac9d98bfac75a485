//! What shows and measures Hopline: the demo and the benchmarks, over real processes, with checked traffic, on networks that can be
//! broken at will.

#![allow(clippy::wildcard_enum_match_arm, reason = "a measurement counts the events that it is about")]

pub mod bench;
pub mod busy_flow;
pub mod demo;
pub mod pattern;
mod plot;
mod report;
mod splice;
pub mod stage;
#[cfg(target_os = "linux")]
pub mod testbed;
pub mod traffic;
pub mod watched;
