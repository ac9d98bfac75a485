//! What a world is like, and when it begins.

use crate::network::Weather;
use hopline_proto::flows::FlowsConfig;
use hopline_proto::{Time, bootstrap};
use std::time::Duration;

/// When the world begins: long enough after the Unix epoch that nothing underflows.
pub(crate) const START: Time = Time::from_micros(1_000_000_000_000_000);

/// How faithfully links are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fidelity {
    /// Every heartbeat travels, every detector judges, every idle connection times out, every message is encoded.
    Full,
    /// No heartbeats: whoever loses a neighbour is told after a time that real detectors, run for a link of that delay,
    /// would have taken.
    Lean,
}

/// What a world is like.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) seed: u64,
    pub(crate) weather: Weather,
    pub(crate) fidelity: Fidelity,
    pub(crate) flows: FlowsConfig,
    pub(crate) bootstrap: bootstrap::Config,
    /// Bytes that may be on their way on one stream.
    pub(crate) stream_window: usize,
    /// After this long without a packet an end gives its connection up.
    pub(crate) idle_timeout: Duration,
    /// How much later than asked for timers fire, at most.
    pub(crate) timer_slack: Duration,
}
