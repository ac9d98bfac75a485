//! What a run cost, counted as it goes.

use crate::conn::Packet;
use crate::world::Fidelity;
use hdrhistogram::Histogram;
use hopline::proto::Time;
use hopline::proto::codec;
use hopline::proto::frame::{Cause, Control};
use hopline::proto::machine::{ChainChange, Notice};
use hopline::proto::rpc::{Request, Response};

/// Bytes of a heartbeat to the bootstrap and of its answer, framed: not worth encoding each time.
const BEAT_BYTES: (u64, u64) = (7, 96);

/// See the module's documentation.
pub(crate) struct Tally {
    pub(crate) connections: u64,
    /// Control frames sent by relays, and their bytes: acks, everything else, headers of legs.
    pub(crate) acks: (u64, u64),
    pub(crate) repairs: (u64, u64),
    pub(crate) headers: (u64, u64),
    pub(crate) opened: u64,
    pub(crate) open_failures: u64,
    pub(crate) reroutes: u64,
    pub(crate) rebuilds: u64,
    pub(crate) backups: u64,
    /// From the last sign of life of a next hop to its successor's answer, in microseconds.
    pub(crate) gaps: Histogram<u64>,
    pub(crate) asks: u64,
    pub(crate) ask_bytes: u64,
    pub(crate) answer_bytes: u64,
    pub(crate) refused: u64,
}

impl Default for Tally {
    fn default() -> Self {
        let gaps = Histogram::new_with_bounds(1, 3_600_000_000, 3).expect("these bounds are sound");
        let none = (0, 0);
        Self {
            connections: 0,
            acks: none,
            repairs: none,
            headers: none,
            opened: 0,
            open_failures: 0,
            reroutes: 0,
            rebuilds: 0,
            backups: 0,
            gaps,
            asks: 0,
            ask_bytes: 0,
            answer_bytes: 0,
            refused: 0,
        }
    }
}

impl Tally {
    pub(crate) const fn control(&mut self, by_relay: bool, bytes: usize, packet: &Packet) {
        if by_relay {
            let counter = match packet {
                Packet::Control(Control::Acks(_)) => &mut self.acks,
                Packet::Open(_) | Packet::Answer(..) => &mut self.headers,
                _ => &mut self.repairs,
            };
            counter.0 += 1;
            counter.1 += bytes as u64;
        }
    }

    pub(crate) fn notice(&mut self, notice: &Notice) {
        match notice {
            Notice::Opened { .. } => self.opened += 1,
            Notice::OpenFailed { .. } => self.open_failures += 1,
            // The origin hears of every repair; a relay's own notice is about the same.
            Notice::Rerouted { flow, reroute, .. } if flow.hop == 0 => {
                self.reroutes += 1;
                if reroute.cause != Cause::Unreachable {
                    self.gaps.saturating_record(reroute.gap_us.into());
                }
            }
            Notice::Chain { change: ChainChange::Rebuilt, .. } => self.rebuilds += 1,
            Notice::Chain { change: ChainChange::BackupReplaced { .. }, .. } => self.backups += 1,
            _ => {}
        }
    }

    pub(crate) fn ask(&mut self, _now: Time, request: &Request, fidelity: Fidelity) {
        self.asks += 1;
        self.ask_bytes += match (request, fidelity) {
            (Request::Heartbeat { .. }, Fidelity::Lean) => BEAT_BYTES.0,
            _ => codec::to_bytes(request).len() as u64,
        };
    }

    pub(crate) fn answer(&mut self, response: &Response, fidelity: Fidelity) {
        self.refused += u64::from(matches!(response, Response::Refused(_)));
        self.answer_bytes += match (response, fidelity) {
            (Response::Lease(_), Fidelity::Lean) => BEAT_BYTES.1,
            _ => codec::to_bytes(response).len() as u64,
        };
    }
}

/// How evenly a load is spread (Jain, Chiu and Hawe, 1984): 1 if all carry the same, 1/n if one carries all.
#[expect(clippy::cast_precision_loss, reason = "an index for people")]
pub(crate) fn jain(loads: &[u32]) -> f64 {
    let sum: f64 = loads.iter().map(|load| f64::from(*load)).sum();
    let squares: f64 = loads.iter().map(|load| f64::from(*load).powi(2)).sum();
    if squares == 0.0 { 1.0 } else { sum * sum / (loads.len() as f64 * squares) }
}
