//! What a plan is drawn for, before its flows and faults are.

use std::time::Duration;

/// When the first flow may open: by then relays and targets are registered.
pub(super) const WARM_UP: Duration = Duration::from_secs(2);

/// What there is for flows to go over and faults to hit.
pub(super) struct Scene {
    pub(super) relays: usize,
    pub(super) crowd: usize,
    pub(super) zones: u16,
    pub(super) endpoints: usize,
    pub(super) calm: Duration,
    pub(super) is_long: bool,
}
