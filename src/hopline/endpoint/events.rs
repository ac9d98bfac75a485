//! What happens to an origin's flows, for whoever wants to know.

use hopline_proto::Time;
use hopline_proto::failure_memory::Ground;
use hopline_proto::frame::{Cause, CloseCode, Evidence, Reroute, Watch};
use hopline_proto::id::FlowId;
use hopline_proto::machine::{ChainChange, Notice};
use hopline_proto::record::Candidate;
use serde::{Deserialize, Serialize, Serializer};
use std::fmt::Display;

/// A hop of a chain: who serves it and who stands by, by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
        /// The flow that it happened to.
        #[serde(serialize_with = "as_text")]
        flow: FlowId,
        /// The name that it was opened to.
        name: String,
        /// Its hops, the nearest first.
        hops: Vec<Hop>,
    },
    /// A hop's relay failed and another took over.
    Rerouted {
        /// The flow that it happened to.
        #[serde(serialize_with = "as_text")]
        flow: FlowId,
        /// Which hop, the nearest being 1.
        hop: u8,
        /// Who failed; `?` if this endpoint does not know it.
        from: String,
        /// Who took over.
        to: String,
        /// What showed the failure.
        #[serde(serialize_with = "as_text")]
        cause: Cause,
        /// From the last sign of life over the old leg to the answer over the new one, in milliseconds.
        gap_ms: f64,
        /// Who noticed: the relay of the hop before, or `origin`; `?` if this endpoint does not know it.
        by: String,
        /// What spoke against the relay that failed.
        #[serde(serialize_with = "as_text")]
        evidence: Evidence,
        /// What of the gap it took to notice, in milliseconds.
        detected_ms: f64,
        /// Bytes that went over the hop before and were sent once more, both ways.
        replayed_bytes: u64,
        /// What the detector of who noticed went by, if it was that which judged.
        #[serde(skip_serializing_if = "Option::is_none")]
        watch: Option<Watched>,
    },
    /// As the flow was opened, the relay that should stand by at a hop could be had sooner than the one that was planned, and
    /// serves it. Nothing failed.
    Chosen {
        /// The flow that it happened to.
        #[serde(serialize_with = "as_text")]
        flow: FlowId,
        /// Which hop, the nearest being 1.
        hop: u8,
        /// Who was planned, and stands by; `?` if this endpoint does not know it.
        from: String,
        /// Who serves the hop.
        to: String,
    },
    /// A hop's relay drained, and another took over first.
    Drained {
        /// The flow that it happened to.
        #[serde(serialize_with = "as_text")]
        flow: FlowId,
        /// Which hop, the nearest being 1.
        hop: u8,
        /// Who leaves; `?` if this endpoint does not know it.
        from: String,
        /// Who took over.
        to: String,
        /// What the change kept bytes from flowing for at most, in milliseconds.
        gap_ms: f64,
        /// Bytes that went over the hop before and were sent once more, both ways.
        replayed_bytes: u64,
    },
    /// A hop has another backup.
    BackupReplaced {
        /// The flow that it happened to.
        #[serde(serialize_with = "as_text")]
        flow: FlowId,
        /// Which hop, the nearest being 1.
        hop: u8,
        /// All hops, as they are now.
        hops: Vec<Hop>,
    },
    /// The flow goes over another chain.
    Rebuilt {
        /// The flow that it happened to.
        #[serde(serialize_with = "as_text")]
        flow: FlowId,
        /// Its hops now.
        hops: Vec<Hop>,
        /// What was wrong with the chain before; `None` if that is not known.
        #[serde(serialize_with = "as_text_if_any")]
        cause: Option<Cause>,
    },
    /// A relay failed the flow, and no plan for it names that relay for a while. Failing again meanwhile prolongs it.
    Avoided {
        /// The flow that it happened to.
        #[serde(serialize_with = "as_text")]
        flow: FlowId,
        /// The relay; `?` if this endpoint does not know it.
        relay: String,
        /// What speaks against it.
        #[serde(serialize_with = "as_text")]
        evidence: Ground,
        /// When it failed, in milliseconds since the Unix epoch.
        since_ms: f64,
        /// Until when it is avoided, in milliseconds since the Unix epoch.
        until_ms: f64,
    },
    /// The flow is over.
    Closed {
        /// The flow that it happened to.
        #[serde(serialize_with = "as_text")]
        flow: FlowId,
        /// Whether everything arrived, both ways.
        complete: bool,
    },
}

/// What a detector knew when it found a relay suspect.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Watched {
    /// How long ago the relay was last heard, in milliseconds.
    pub silence_ms: f64,
    /// How much silence is suspicious without other evidence, in milliseconds.
    pub deadline_ms: f64,
    /// At which interval the relay was to be heard, in milliseconds.
    pub interval_ms: f64,
    /// The smoothed round trip, in milliseconds.
    pub rtt_ms: f64,
    /// How much the node doubted its own punctuality: its deadline was multiplied by one more than this.
    pub doubt: u8,
}

impl From<Watch> for Watched {
    fn from(watch: Watch) -> Self {
        Self {
            silence_ms: ms(watch.silence_us),
            deadline_ms: ms(watch.deadline_us),
            interval_ms: ms(watch.interval_us),
            rtt_ms: ms(watch.rtt_us),
            doubt: watch.doubt,
        }
    }
}

fn ms(us: u32) -> f64 {
    f64::from(us) / 1000.0
}

fn since_epoch_ms(time: Time) -> f64 {
    time.since(Time::ZERO).as_secs_f64() * 1000.0
}

fn as_text<S: Serializer>(value: &impl Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

#[expect(clippy::ref_option, reason = "serde hands it over so")]
fn as_text_if_any<S: Serializer>(value: &Option<impl Display>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => serializer.collect_str(value),
        None => serializer.serialize_none(),
    }
}

impl FlowEvent {
    /// The flow that it is about.
    #[must_use]
    pub const fn flow(&self) -> FlowId {
        match self {
            Self::Chain { flow, .. }
            | Self::Rerouted { flow, .. }
            | Self::Chosen { flow, .. }
            | Self::Drained { flow, .. }
            | Self::BackupReplaced { flow, .. }
            | Self::Rebuilt { flow, .. }
            | Self::Avoided { flow, .. }
            | Self::Closed { flow, .. } => *flow,
        }
    }

    /// The event in what an origin's machine says, if there is one. `opened_to` knows the names of flows that are being opened.
    #[expect(clippy::wildcard_enum_match_arm, reason = "few notices are about an origin's flow")]
    pub(super) fn of(notice: &Notice, opened_to: impl FnOnce(FlowId) -> String) -> Option<Self> {
        let event = match notice {
            Notice::Chain { flow, hops, change } => {
                let hops = hops.iter().map(|candidates| Hop::of(candidates)).collect();
                match change {
                    ChainChange::Opened => Self::Chain { flow: flow.flow, name: opened_to(flow.flow), hops },
                    ChainChange::BackupReplaced { hop } => {
                        Self::BackupReplaced { flow: flow.flow, hop: *hop, hops }
                    }
                    ChainChange::Rebuilt { cause } => Self::Rebuilt { flow: flow.flow, hops, cause: *cause },
                }
            }
            Notice::Rerouted { flow, reroute, by, from, to } => {
                Self::rerouted(flow.flow, reroute, by.as_deref(), [name(from.as_ref()), name(to.as_ref())])
            }
            Notice::Avoided { flow, relay, failure } => Self::Avoided {
                flow: flow.flow,
                relay: name(relay.as_ref()),
                evidence: failure.ground,
                since_ms: since_epoch_ms(failure.since),
                until_ms: since_epoch_ms(failure.until),
            },
            Notice::Ended { flow, code, .. } if flow.hop == 0 => {
                Self::Closed { flow: flow.flow, complete: *code == CloseCode::Done }
            }
            _ => return None,
        };
        Some(event)
    }

    fn rerouted(flow: FlowId, reroute: &Reroute, by: Option<&Candidate>, [from, to]: [String; 2]) -> Self {
        let Reroute { hop, cause, replayed: replayed_bytes, .. } = *reroute;
        let gap_ms = ms(reroute.gap_us);
        if cause == Cause::Drain {
            return Self::Drained { flow, hop, from, to, gap_ms, replayed_bytes };
        }
        if cause == Cause::Chosen {
            return Self::Chosen { flow, hop, from, to };
        }
        Self::Rerouted {
            flow,
            hop,
            from,
            to,
            cause,
            gap_ms,
            by: if hop == 1 { "origin".to_owned() } else { name(by) },
            evidence: reroute.reason.evidence,
            detected_ms: ms(reroute.detected_us),
            replayed_bytes,
            watch: reroute.reason.watch.map(Watched::from),
        }
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
