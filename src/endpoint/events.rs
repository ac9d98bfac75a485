//! What happens to an origin's flows, for whoever wants to know.

use crate::proto::frame::CloseCode;
use crate::proto::id::FlowId;
use crate::proto::machine::{ChainChange, Notice};
use crate::proto::record::Candidate;
use serde::{Serialize, Serializer};

/// A hop of a chain: who serves it and who stands by, by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Hop {
    /// The relay that serves the hop.
    pub primary: String,
    /// The relay that takes over if it dies; `None` if the pool had none.
    pub backup: Option<String>,
}

/// Something happened to a flow that this endpoint opened. Serialises to the JSON that `--events` prints.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum FlowEvent {
    /// The flow was opened over this chain.
    Chain {
        /// The flow.
        #[serde(serialize_with = "as_text")]
        flow: FlowId,
        /// Its hops, the nearest first.
        hops: Vec<Hop>,
    },
    /// A hop's relay failed and its backup took over.
    Rerouted {
        /// The flow.
        #[serde(serialize_with = "as_text")]
        flow: FlowId,
        /// Which hop, the nearest being 1.
        hop: u8,
        /// Who failed; `?` if this endpoint does not know it.
        from: String,
        /// Who took over.
        to: String,
        /// What showed the failure.
        cause: &'static str,
        /// From the last sign of life over the old leg to the answer over the new one, in milliseconds.
        gap_ms: f64,
    },
    /// A hop has another backup.
    BackupReplaced {
        /// The flow.
        #[serde(serialize_with = "as_text")]
        flow: FlowId,
        /// Which hop.
        hop: u8,
        /// All hops, as they are now.
        hops: Vec<Hop>,
    },
    /// The flow goes over another chain.
    Rebuilt {
        /// The flow.
        #[serde(serialize_with = "as_text")]
        flow: FlowId,
        /// Its hops now.
        hops: Vec<Hop>,
    },
    /// The flow is over.
    Closed {
        /// The flow.
        #[serde(serialize_with = "as_text")]
        flow: FlowId,
        /// Whether everything arrived, both ways.
        complete: bool,
    },
}

fn as_text<S: Serializer>(flow: &FlowId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(flow)
}

impl FlowEvent {
    /// The flow that it is about.
    #[must_use]
    pub const fn flow(&self) -> FlowId {
        match self {
            Self::Chain { flow, .. }
            | Self::Rerouted { flow, .. }
            | Self::BackupReplaced { flow, .. }
            | Self::Rebuilt { flow, .. }
            | Self::Closed { flow, .. } => *flow,
        }
    }

    /// The event in what an origin's machine says, if there is one.
    #[expect(clippy::wildcard_enum_match_arm, reason = "few notices are about an origin's flow")]
    pub(super) fn of(notice: &Notice) -> Option<Self> {
        let event = match notice {
            Notice::Chain { flow, hops, change } => {
                let hops = hops.iter().map(|candidates| Hop::of(candidates)).collect();
                match change {
                    ChainChange::Opened => Self::Chain { flow: flow.flow, hops },
                    ChainChange::BackupReplaced { hop } => {
                        Self::BackupReplaced { flow: flow.flow, hop: *hop, hops }
                    }
                    ChainChange::Rebuilt => Self::Rebuilt { flow: flow.flow, hops },
                }
            }
            Notice::Rerouted { flow, reroute, from, to } => Self::Rerouted {
                flow: flow.flow,
                hop: reroute.hop,
                from: name(from.as_ref()),
                to: name(to.as_ref()),
                cause: reroute.cause.as_str(),
                gap_ms: f64::from(reroute.gap_us) / 1000.0,
            },
            Notice::Ended { flow, code } if flow.hop == 0 => {
                Self::Closed { flow: flow.flow, complete: *code == CloseCode::Done }
            }
            _ => return None,
        };
        Some(event)
    }
}

impl Hop {
    fn of(candidates: &[Candidate]) -> Self {
        Self {
            primary: name(candidates.first()),
            backup: candidates.get(1).map(|backup| backup.name.clone()),
        }
    }
}

fn name(candidate: Option<&Candidate>) -> String {
    candidate.map_or_else(|| "?".to_owned(), |candidate| candidate.name.clone())
}
