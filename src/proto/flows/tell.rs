//! Control messages about a leg, to whoever is at its other end.

use crate::frame::{CloseCode, Control, Why};
use crate::machine::Action;
use crate::splice::LegId;

/// A control message about `leg`, to whoever is at its other end.
pub(super) fn control(leg: LegId, message: impl FnOnce(u32) -> Control) -> Action {
    Action::Control { link: leg.link(), control: message(leg.number()) }
}

/// Tells why a leg is closed, where its code alone does not count.
pub(super) fn explain(leg: LegId, code: CloseCode, why: Why) -> Action {
    control(leg, |leg| Control::Close { leg, code, why })
}
