//! Law 1, and what follows from it together with the truth: nobody has received what was not sent, nobody believes acked
//! what was not taken, and nobody holds more than a window.

use crate::traffic::App;
use hopline_proto::lane::Lane;
use hopline_proto::splice::{Direction, Limits, Splice};

/// What a lane may hold above its window: the piece that filled it.
const PIECE_BYTES: u64 = 64 << 10;

pub(super) fn check(splice: &Splice, app: Option<&App>, limits: &Limits) -> Result<(), String> {
    for direction in Direction::BOTH {
        let lane = splice.lane(direction);
        holds_what_it_must(lane, limits).map_err(|what| format!("{direction:?} lane {what}"))?;
        if let Some(app) = app {
            let (source, sink) = if direction == Direction::Forward { (0, 1) } else { (1, 0) };
            let (source, sink) = (app.half(source), app.half(sink));
            is_true(lane, source.sent + u64::from(source.finished), sink.taken + 1)
                .map_err(|what| format!("{direction:?} lane {what}"))?;
        }
    }
    Ok(())
}

/// Whether a lane knows nothing that is not true, where so much was sent and taken; an end counts as a byte.
pub(crate) fn is_true(lane: &Lane, sent: u64, taken: u64) -> Result<(), String> {
    if lane.received() > sent {
        return Err(format!("has {} of {sent} bytes sent", lane.received()));
    }
    if lane.acked() > taken {
        return Err(format!("is acked to {}, {taken} were taken", lane.acked()));
    }
    Ok(())
}

/// Law 1.
pub(crate) fn holds_what_it_must(lane: &Lane, limits: &Limits) -> Result<(), String> {
    let end = lane.fin().map_or(lane.received(), |fin| fin.min(lane.received()));
    let (acked, written) = (lane.acked(), lane.written());
    let base = written.map_or(acked, |written| acked.min(written)).min(end);
    if lane.held() != end - base {
        return Err(format!("holds {} bytes, should hold [{base}, {end})", lane.held()));
    }
    if written.is_none() && lane.received() < acked {
        return Err(format!("has no out-leg, and received {} < acked {acked}", lane.received()));
    }
    if lane.held() > limits.max_window_bytes + PIECE_BYTES {
        return Err(format!("holds {} bytes, more than its window", lane.held()));
    }
    Ok(())
}
