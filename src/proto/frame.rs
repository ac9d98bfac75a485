//! What nodes say to each other over a link: the header of a leg, its answer, control messages, heartbeats.
//!
//! A link carries, in each direction, one unidirectional *control stream* (a [`Hello`], then [`Control`] frames),
//! datagrams (see [`Datagram`]), and any number of bidirectional streams, the legs: an [`Attach`] frame and raw
//! forward bytes one way, an [`AttachOk`] frame and raw backward bytes the other. In control messages a leg is named by
//! the number that its [`Attach`] gives it.

use super::codec::{self, CodecError, Growing, MAX_FRAME_BYTES};
use super::crypto::Sealed;
use super::epoch::{Epoch, MAX_HOPS};
use super::id::{BootId, FlowId};
use super::lane::{Lane, MAX_OFFSET};
use super::record::{MAX_CANDIDATES, MAX_RECORDS, Record, Tag};
use serde::{Deserialize, Serialize};

mod reroute;

pub use reroute::{Cause, Evidence, Reason, Reroute, Watch};

/// Largest [`Attach`] or [`AttachOk`], in bytes.
pub const MAX_HEADER_BYTES: usize = 16 * 1024;
/// Largest [`Control`] frame, in bytes.
pub const MAX_CONTROL_BYTES: usize = MAX_FRAME_BYTES;
/// Most acks in one [`Control::Acks`].
pub const MAX_ACKS: usize = 1024;
/// Longest text of why an end gave a flow up, in bytes of UTF-8; what is longer loses its end.
pub const MAX_CAUSE_BYTES: usize = 256;
/// What a sealed one takes: the text, filled up with zeros, an authentication tag, a nonce.
pub const SEALED_CAUSE_BYTES: usize = MAX_CAUSE_BYTES + 16 + 12;

/// The first frame of a control stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The life of the process at this end.
    pub boot: BootId,
    /// What this end calls the link: forwarded packets to it say so.
    pub link: u32,
}

/// Opens, resumes or rebuilds a leg (Law 3). Raw forward bytes from `forward_start` follow at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attach {
    /// What both ends call the leg: unique on the link, even if whoever dialled the link opens it, else odd.
    pub leg: u32,
    /// The flow.
    pub flow: FlowId,
    /// The dialer's path and counter; its length is the acceptor's hop.
    pub epoch: Epoch,
    /// Proves the epoch to the acceptor.
    pub tag: Tag,
    /// The acceptor's own record, then those of the hops to come, the target's last.
    pub records: Vec<Record>,
    /// For each record after the first, a tag for each of its candidates, folded up to the dialer.
    pub tags: Vec<Vec<Tag>>,
    /// Offset of the first forward byte on this leg: the lowest that the dialer holds.
    pub forward_start: u64,
    /// Total length of the forward direction, when known.
    pub forward_fin: Option<u64>,
    /// Up to where the backward direction has been acked.
    pub backward_ack: u64,
    /// The dialer has lost the way to the origin.
    pub orphaned: bool,
}

impl Attach {
    /// Whether its lists are within bounds and fit each other.
    #[must_use]
    pub fn is_bounded(&self) -> bool {
        let hop = self.epoch.hop();
        (1..=MAX_HOPS + 1).contains(&hop)
            && (1..=MAX_RECORDS).contains(&self.records.len())
            && self.records.iter().zip(hop..).all(|(r, h)| r.is_bounded() && usize::from(r.scope.hop) == h)
            && tags_fit(self.records.get(1..).unwrap_or_default(), &self.tags)
            && self.opening().is_consistent()
    }

    /// The part that concerns the flow's splice.
    #[must_use]
    pub fn opening(&self) -> Opening {
        Opening {
            epoch: self.epoch.clone(),
            forward_start: self.forward_start,
            forward_fin: self.forward_fin,
            backward_ack: self.backward_ack,
        }
    }
}

/// The part of an [`Attach`] that concerns a splice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    /// The dialer's path and counter.
    pub epoch: Epoch,
    /// Offset of the leg's first forward byte.
    pub forward_start: u64,
    /// Total length of the forward direction, when known.
    pub forward_fin: Option<u64>,
    /// Up to where the backward direction has been acked.
    pub backward_ack: u64,
}

impl Opening {
    /// Whether its offsets are possible at all.
    #[must_use]
    pub fn is_consistent(&self) -> bool {
        self.forward_start <= MAX_OFFSET + 1
            && self.backward_ack <= MAX_OFFSET + 1
            && self.forward_fin.is_none_or(|fin| Lane::starting_at(self.forward_start).may_end_at(fin))
    }
}

/// Whether there is a list of tags for each record and no list is longer than a record may be.
#[must_use]
pub fn tags_fit(records: &[Record], tags: &[Vec<Tag>]) -> bool {
    records.len() == tags.len() && tags.iter().all(|list| list.len() <= MAX_CANDIDATES)
}

/// The acceptor's answer. Raw backward bytes from `backward_start` follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachOk {
    /// Offset of the first backward byte on this leg.
    pub backward_start: u64,
    /// Total length of the backward direction, when known.
    pub backward_fin: Option<u64>,
    /// Up to where the forward direction has been acked.
    pub forward_ack: u64,
}

impl AttachOk {
    /// Whether its offsets are within bounds.
    #[must_use]
    pub const fn is_bounded(&self) -> bool {
        self.backward_start <= MAX_OFFSET + 1 && self.forward_ack <= MAX_OFFSET + 1
    }
}

/// Why a leg ends: the code with which its QUIC stream is reset and stopped. Append-only; an unknown one counts as
/// [`CloseCode::Lost`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "u32", into = "u32")]
pub enum CloseCode {
    /// Its node lost or forgot the flow, or the link broke: attach again.
    Lost,
    /// prev goes on over another relay: forget the flow.
    Moved,
    /// The acceptor knows a greater epoch (a [`Control::Close`] carries it).
    Stale,
    /// The acceptor has since taken a greater epoch (a [`Control::Close`] carries it).
    Replaced,
    /// The acceptor can reach none of its next hop's candidates.
    NoPath,
    /// The target has everything, and everything it sent was acked: forget the flow.
    Done,
    /// An endpoint gave the flow up (a [`Control::Close`] carries why, for the other one's eyes).
    Aborted,
    /// The target does not know the flow.
    Unknown,
    /// The attach proves no right to this flow.
    Forbidden,
    /// The peer broke the protocol.
    Malformed,
    /// The node is full.
    Overloaded,
}

impl CloseCode {
    const ALL: [Self; 11] = [
        Self::Lost,
        Self::Moved,
        Self::Stale,
        Self::Replaced,
        Self::NoPath,
        Self::Done,
        Self::Aborted,
        Self::Unknown,
        Self::Forbidden,
        Self::Malformed,
        Self::Overloaded,
    ];

    /// Its number on the wire.
    #[must_use]
    pub const fn number(self) -> u32 {
        self as u32
    }

    /// The code with this number; an unknown one counts as [`CloseCode::Lost`].
    #[must_use]
    pub fn from_number(number: u64) -> Self {
        usize::try_from(number).ok().and_then(|n| Self::ALL.get(n)).copied().unwrap_or(Self::Lost)
    }

    /// Whether who closes with this code also sends a [`Control::Close`], which alone counts: it names the epoch that won,
    /// comes after the last acks, or says why.
    #[must_use]
    pub const fn is_explained(self) -> bool {
        matches!(self, Self::Stale | Self::Replaced | Self::Done | Self::Aborted)
    }
}

impl From<u32> for CloseCode {
    fn from(number: u32) -> Self {
        Self::from_number(number.into())
    }
}

impl From<CloseCode> for u32 {
    fn from(code: CloseCode) -> Self {
        code.number()
    }
}

/// What goes with a [`Control::Close`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Why {
    /// The epoch that won, if one did.
    pub winner: Option<Epoch>,
    /// Why an endpoint gave the flow up, sealed for the other one: see [`CauseKey`](super::cause::CauseKey).
    pub cause: Option<Sealed>,
}

impl Why {
    /// Another path has won.
    #[must_use]
    pub const fn won(winner: Epoch) -> Self {
        Self { winner: Some(winner), cause: None }
    }

    /// Whether it is within bounds.
    #[must_use]
    pub fn is_bounded(&self) -> bool {
        self.winner.as_ref().is_none_or(|winner| winner.hop() <= MAX_HOPS + 1)
            && self.cause.as_ref().is_none_or(|cause| cause.as_bytes().len() == SEALED_CAUSE_BYTES)
    }
}

/// A relay asks the origin for another candidate for the hop after its own. Candidates are named by their place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupRequest {
    /// The hop.
    pub hop: u8,
    /// The version of the record that the places refer to.
    pub version: u32,
    /// Place of the candidate that serves the hop now, if one does.
    pub active: Option<u8>,
    /// The places of those that will not do, as bits.
    pub unusable: u8,
}

/// What a target says of a flow: the answer to a probe, or said unasked because its own bytes are not acked. Offsets
/// count the FIN.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The probe that this answers; 0 if nobody asked.
    pub probe: u32,
    /// Whether the target's application has yet to take some of what has come.
    pub reader_blocked: bool,
    /// What has come to the target, and what its application has sent.
    pub target: Waypoint,
    /// What each relay on the way added, the target's neighbour first.
    pub relays: Vec<Waypoint>,
}

impl Progress {
    /// Whether its list is within bounds.
    #[must_use]
    pub const fn is_bounded(&self) -> bool {
        self.relays.len() <= MAX_HOPS
    }
}

/// How far a flow has come at a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waypoint {
    /// The forward direction.
    pub forward: Passage,
    /// The backward one.
    pub backward: Passage,
}

/// How far one direction has come at a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passage {
    /// Everything before this has come.
    pub received: u64,
    /// Everything before this was passed on, as far as this node can tell.
    pub written: u64,
    /// The link that it comes over, and the one that it leaves by.
    pub inward: Way,
    /// See `inward`.
    pub outward: Way,
}

/// What tells a link that is slow from one where nothing moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Way {
    /// How long ago bytes of any flow last moved over it in this direction, in milliseconds.
    pub quiet_ms: u16,
    /// How long its transport may take to make up for losses, in milliseconds.
    pub repair_ms: u16,
}

impl Default for Way {
    /// Nothing moves.
    fn default() -> Self {
        Self { quiet_ms: u16::MAX, repair_ms: 0 }
    }
}

/// A message on a link's control stream. Append-only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Control {
    /// Up to where the other side's bytes on these legs were acked end to end: (leg, offset), FIN counting as a byte.
    Acks(Vec<(u32, u64)>),
    /// The direction that the sender feeds on this leg ends at `offset`.
    Fin {
        /// The leg.
        leg: u32,
        /// Total length of the direction in bytes.
        offset: u64,
    },
    /// The acceptor ends a leg; if an endpoint gave the flow up, also the dialer. The stream's reset may come earlier.
    Close {
        /// The leg.
        leg: u32,
        /// One that [is explained](CloseCode::is_explained).
        code: CloseCode,
        /// What goes with it.
        why: Why,
    },
    /// From the origin on its way down: newer records.
    Update {
        /// The leg.
        leg: u32,
        /// The records, of hops that lie beyond the receiver.
        records: Vec<Record>,
        /// For each record a tag for each of its candidates, folded up to the sender.
        tags: Vec<Vec<Tag>>,
    },
    /// To the origin on its way up: a hop needs another candidate.
    BackupWanted {
        /// The leg.
        leg: u32,
        /// Which hop, and who of its candidates may stay.
        request: BackupRequest,
    },
    /// A relay further down repaired its next hop.
    Rerouted {
        /// The leg.
        leg: u32,
        /// The repair.
        reroute: Reroute,
    },
    /// To a backup: keep links to the candidates of `next` warm, as you may be needed.
    Prepare {
        /// The backup's own record.
        own: Box<Record>,
        /// The record of the hop after it.
        next: Box<Record>,
    },
    /// The sender will leave: it takes no new flows, and those that it carries are to go on over others. Until they do, it
    /// serves them.
    Draining,
    /// From the target on its way up: other relays may serve the last hop from now on.
    Reattached {
        /// The leg.
        leg: u32,
    },
    /// From the origin on its way down to the target: how far has the flow come?
    Probe {
        /// The leg.
        leg: u32,
        /// The probe's number, to be repeated in the answer.
        number: u32,
    },
    /// From the target on its way up: that far.
    Progress {
        /// The leg.
        leg: u32,
        /// How far the flow has come.
        progress: Progress,
    },
    /// From a relay on its way down to the target: the way to the origin is lost, or there is one again.
    Orphaned {
        /// The leg.
        leg: u32,
        /// Whether it is lost.
        orphaned: bool,
    },
    /// Something that only newer nodes say: nothing follows from it.
    #[serde(other)]
    Unknown,
}

impl Growing for Control {
    fn is_unknown(&self) -> bool {
        matches!(self, Self::Unknown)
    }
}

/// One datagram: its kind in the first byte, then what that kind says. Append-only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Datagram {
    /// Kind 0.
    Heartbeat(Heartbeat),
    /// A kind that only newer nodes know: nothing follows from it.
    Unknown,
}

impl Datagram {
    const HEARTBEAT: u8 = 0;

    /// The bytes of a heartbeat.
    #[must_use]
    pub fn of_heartbeat(heartbeat: &Heartbeat) -> Vec<u8> {
        codec::to_bytes(&(Self::HEARTBEAT, heartbeat))
    }

    /// The datagram that these bytes are.
    ///
    /// # Errors
    /// [`CodecError`] if there is no kind, or what follows is not what a known kind says.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CodecError> {
        match bytes.split_first() {
            Some((&Self::HEARTBEAT, heartbeat)) => codec::from_bytes(heartbeat).map(Self::Heartbeat),
            Some(_) => Ok(Self::Unknown),
            None => Err(CodecError::Malformed),
        }
    }
}

/// Sent both ways at each end's own pace; each carries the echo of the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Counts the sender's heartbeats on this link.
    pub sequence: u32,
    /// The greatest sequence that the sender has heard; 0 if none.
    pub heard: u32,
    /// How long ago it heard that one, in microseconds.
    pub heard_ago_us: u32,
    /// At what interval the sender wants to hear from its peer, in microseconds.
    pub wanted_us: u32,
    /// Whether the sender doubts that its peer lives: this one is answered at once.
    pub probe: bool,
}

#[cfg(test)]
mod tests;
