//! A kill and its repair, as the demo tells of them.

use hopline::endpoint::Cause;
use std::time::Duration;

/// A relay's death, and what came of it.
#[derive(Clone, Debug)]
pub(super) struct Kill {
    pub(super) relay: String,
    pub(super) hop: u8,
    pub(super) repair: Repair,
    /// The longest pause between two reads at the receiver, around the kill.
    pub(super) gap: Duration,
    /// The relay that was started in its place.
    pub(super) replacement: String,
}

/// How the flow went on.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Repair {
    /// Another relay took over the hop.
    Rerouted { to: String, cause: Cause, gap_ms: f64 },
    /// The flow went on over another chain.
    Rebuilt,
}
