//! What a run cost, counted as it goes.
#![expect(clippy::wildcard_enum_match_arm, reason = "a counter counts what it counts")]

use crate::conn::Packet;
use crate::settings::Fidelity;
use hdrhistogram::Histogram;
use hopline_proto::Time;
use hopline_proto::codec;
use hopline_proto::flows::FlowKey;
use hopline_proto::frame::{Cause, Control};
use hopline_proto::machine::{ChainChange, Notice};
use hopline_proto::rpc::{Request, Response};
use std::collections::HashMap;

/// See the module's documentation.
pub(crate) struct Statistics {
    pub(crate) connections: u64,
    /// Control frames sent by relays, and their bytes: acks, everything else, headers of legs.
    pub(crate) acks: (u64, u64),
    pub(crate) repairs: (u64, u64),
    pub(crate) headers: (u64, u64),
    pub(crate) opened: u64,
    pub(crate) open_failures: u64,
    pub(crate) reroutes: u64,
    pub(crate) rebuilds: u64,
    /// Those for want of progress.
    pub(crate) gray: u64,
    pub(crate) backups: u64,
    /// From the last sign of life of a next hop to its successor's answer, in microseconds.
    pub(crate) gaps: Histogram<u64>,
    /// Without heartbeats ([`Fidelity::Lean`]): how long deaths went unnoticed at links with flows, in microseconds.
    pub(crate) noticed: Histogram<u64>,
    /// Since when flows have had a hop without a backup, and how long others had, in microseconds.
    unprotected: HashMap<FlowKey, Time>,
    pub(crate) protected: Histogram<u64>,
    pub(crate) asks: u64,
    pub(crate) ask_bytes: u64,
    pub(crate) answer_bytes: u64,
    pub(crate) refused: u64,
    sizes: [Sizes; 13],
    asked: [Sizes; 3],
    answered: [Sizes; 3],
}

impl Default for Statistics {
    fn default() -> Self {
        let times = Histogram::new_with_bounds(1, 3_600_000_000, 3).expect("these bounds are sound");
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
            gray: 0,
            backups: 0,
            gaps: times.clone(),
            noticed: times.clone(),
            unprotected: HashMap::new(),
            protected: times,
            asks: 0,
            ask_bytes: 0,
            answer_bytes: 0,
            refused: 0,
            sizes: Default::default(),
            asked: Default::default(),
            answered: Default::default(),
        }
    }
}

/// The sizes of frames of one kind, by encoding some of them.
#[derive(Clone, Copy, Debug, Default)]
struct Sizes {
    seen: u64,
    encoded: u64,
    bytes: u64,
}

/// So many are encoded at first, and one in so many after that.
const ENCODED_AT_FIRST: u64 = 32;
const ENCODED_ONE_IN: u64 = 32;

impl Sizes {
    fn size(&mut self, encode: impl FnOnce() -> Vec<u8>) -> u64 {
        self.seen += 1;
        if self.seen <= ENCODED_AT_FIRST || self.seen.is_multiple_of(ENCODED_ONE_IN) {
            self.encoded += 1;
            self.bytes += encode().len() as u64;
        }
        self.bytes / self.encoded.max(1)
    }
}

impl Statistics {
    /// About how large a packet's frame is: some of each kind are encoded.
    pub(crate) fn sampled_size(&mut self, packet: &Packet) -> usize {
        let kind = match packet {
            Packet::Control(Control::Acks(acks)) => return 3 + 6 * acks.len(),
            Packet::Control(Control::Prepare { .. }) => 0,
            Packet::Control(Control::Update { .. }) => 1,
            Packet::Control(_) => 2,
            Packet::Open(attach) => 3 + attach.records.len().min(9),
            _ => return 8,
        };
        let encode = || match packet {
            Packet::Control(control) => codec::to_bytes(control),
            Packet::Open(attach) => codec::to_bytes(attach),
            _ => Vec::new(),
        };
        let size = self.sizes.get_mut(kind).map_or(0, |sizes| sizes.size(encode));
        usize::try_from(size).unwrap_or(0)
    }

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

    pub(crate) fn notice(&mut self, notice: &Notice, now: Time) {
        self.note_protection(notice, now);
        match notice {
            Notice::Opened { .. } => self.opened += 1,
            Notice::OpenFailed { .. } => self.open_failures += 1,
            // The origin hears of every repair; a relay's own notice is about the same.
            Notice::Rerouted { flow, reroute, .. } if flow.hop == 0 => {
                self.reroutes += u64::from(reroute.cause != Cause::Chosen);
                if !matches!(reroute.cause, Cause::Unreachable | Cause::Followed | Cause::Chosen) {
                    self.gaps.saturating_record(reroute.gap_us.into());
                }
            }
            Notice::Chain { change: ChainChange::Rebuilt { cause }, .. } => {
                self.rebuilds += 1;
                self.gray += u64::from(*cause == Some(Cause::Gray));
            }
            Notice::Chain { change: ChainChange::BackupReplaced { .. }, .. } => self.backups += 1,
            _ => {}
        }
    }

    /// Flows with a hop that has no backup.
    pub(crate) fn unprotected(&self) -> usize {
        self.unprotected.len()
    }

    fn note_protection(&mut self, notice: &Notice, now: Time) {
        match notice {
            Notice::Rerouted { flow, reroute, .. } if flow.hop == 0 && reroute.cause.is_failure() => {
                self.unprotected.entry(*flow).or_insert(now);
            }
            Notice::Chain { flow, hops, .. } if hops.iter().any(|hop| hop.len() < 2) => {
                self.unprotected.entry(*flow).or_insert(now);
            }
            Notice::Chain { flow, .. } => {
                if let Some(since) = self.unprotected.remove(flow) {
                    let took = u64::try_from(now.since(since).as_micros()).unwrap_or(u64::MAX);
                    self.protected.saturating_record(took);
                }
            }
            Notice::Ended { flow, .. } => drop(self.unprotected.remove(flow)),
            _ => {}
        }
    }

    pub(crate) fn ask(&mut self, request: &Request, fidelity: Fidelity) {
        self.asks += 1;
        let kind = match (request, fidelity) {
            (_, Fidelity::Full) => {
                self.ask_bytes += codec::to_bytes(request).len() as u64;
                return;
            }
            (Request::Heartbeat { .. }, _) => 0,
            (Request::Replace { .. }, _) => 1,
            _ => 2,
        };
        let size = self.asked.get_mut(kind).map_or(0, |sizes| sizes.size(|| codec::to_bytes(request)));
        self.ask_bytes += size;
    }

    pub(crate) fn answer(&mut self, response: &Response, fidelity: Fidelity) {
        self.refused += u64::from(matches!(response, Response::Refused(_)));
        let kind = match (response, fidelity) {
            (_, Fidelity::Full) => {
                self.answer_bytes += codec::to_bytes(response).len() as u64;
                return;
            }
            (Response::Lease(_), _) => 0,
            (Response::Planned(_), _) => 1,
            _ => 2,
        };
        let size = self.answered.get_mut(kind).map_or(0, |sizes| sizes.size(|| codec::to_bytes(response)));
        self.answer_bytes += size;
    }
}

/// How evenly a load is spread (Jain, Chiu and Hawe, 1984): 1 if all carry the same, 1/n if one carries all.
#[expect(clippy::cast_precision_loss, reason = "an index for people")]
pub(crate) fn jain(loads: &[u32]) -> f64 {
    let sum: f64 = loads.iter().map(|load| f64::from(*load)).sum();
    let squares: f64 = loads.iter().map(|load| f64::from(*load).powi(2)).sum();
    if squares == 0.0 { 1.0 } else { sum * sum / (loads.len() as f64 * squares) }
}
