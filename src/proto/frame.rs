//! What nodes say to each other over a link: the header of a leg, its answer, control messages, heartbeats.
//!
//! A link carries, in each direction, one unidirectional *control stream* (a [`Hello`], then [`Control`] frames),
//! datagrams (one [`Heartbeat`] each), and any number of bidirectional streams, the legs: an [`Attach`] frame and raw
//! forward bytes one way, an [`AttachOk`] frame and raw backward bytes the other. In control messages a leg is named by
//! the number that its [`Attach`] gives it.

use super::cause::SEALED_CAUSE_BYTES;
use super::codec::MAX_FRAME_BYTES;
use super::crypto::Sealed;
use super::epoch::{Epoch, MAX_HOPS};
use super::id::{BootId, FlowId};
use super::lane::MAX_OFFSET;
use super::record::{MAX_CANDIDATES, MAX_RECORDS, Record, Tag};
use super::splice::Opening;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The version of the data plane that this code speaks. A link's ALPN says it too.
pub const VERSION: u8 = 1;
/// Largest [`Attach`] or [`AttachOk`], in bytes.
pub const MAX_HEADER_BYTES: usize = 16 * 1024;
/// Largest [`Control`] frame, in bytes.
pub const MAX_CONTROL_BYTES: usize = MAX_FRAME_BYTES;
/// Most acks in one [`Control::Acks`].
pub const MAX_ACKS: usize = 1024;

/// The first frame of a control stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`VERSION`].
    pub version: u8,
    /// The life of the process at this end.
    pub boot: BootId,
}

/// Opens, resumes or rebuilds a leg (Law 3). Raw forward bytes from `forward_start` follow at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attach {
    /// [`VERSION`].
    pub version: u8,
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

/// Why a leg ends: the code with which its QUIC stream is reset and stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
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

/// What a relay tells the origin about a repair. Candidates are named by their place in the hop's record, so that the
/// relays between learn nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reroute {
    /// The hop whose relay was replaced.
    pub hop: u8,
    /// The version of the record that the places refer to.
    pub version: u32,
    /// Place of the candidate that failed.
    pub from: u8,
    /// Place of the candidate that took over.
    pub to: u8,
    /// What showed the failure.
    pub cause: Cause,
    /// From the last sign of life over the failed leg to the new leg's [`AttachOk`], in microseconds.
    pub gap_us: u32,
    /// How much of that it took to notice, in microseconds.
    pub detected_us: u32,
    /// Bytes that went over the hop before and once more over the new leg, both ways.
    pub replayed: u64,
    /// By what it was noticed.
    pub reason: Reason,
}

/// By what a node noticed that a neighbour had failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Reason {
    /// What spoke against the neighbour.
    pub evidence: Evidence,
    /// What the link's detector went by, if it was that which judged.
    pub watch: Option<Watch>,
}

impl Reason {
    /// Evidence that was no detector's.
    #[must_use]
    pub const fn of(evidence: Evidence) -> Self {
        Self { evidence, watch: None }
    }
}

/// What spoke against a neighbour. Append-only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Evidence {
    /// Nothing was heard from it within the deadline.
    Silence,
    /// Its heartbeats came, and none echoed ours: what goes to it is lost.
    Deafness,
    /// The network said that it can't be reached (ICMP), and it left a probe unanswered.
    Refusal,
    /// Another neighbour had failed, and it left a probe unanswered.
    Hint,
    /// It was heard, but what went to it over legs was lost again and again.
    Stall,
    /// The connection to it was closed or reset.
    Transport,
    /// It said so itself: it closed the leg.
    Word,
    /// It did not answer an attach, or could not be dialled.
    NoAnswer,
    /// Nothing: it has not failed.
    None,
}

impl Evidence {
    /// As events and tables show it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Silence => "silence",
            Self::Deafness => "deafness",
            Self::Refusal => "icmp refusal",
            Self::Hint => "hint",
            Self::Stall => "stall",
            Self::Transport => "transport",
            Self::Word => "its word",
            Self::NoAnswer => "no answer",
            Self::None => "none",
        }
    }
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What a detector knew when it found a neighbour suspect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Watch {
    /// How long ago the neighbour was last heard, in microseconds.
    pub silence_us: u32,
    /// How much silence is suspicious without other evidence, in microseconds.
    pub deadline_us: u32,
    /// At which interval the neighbour was to be heard, in microseconds.
    pub interval_us: u32,
    /// The smoothed round-trip time, in microseconds.
    pub rtt_us: u32,
    /// How much the node doubted its own punctuality: the deadline was multiplied by one more than this.
    pub doubt: u8,
}

/// A relay asks the origin for another candidate for the hop after its own. Candidates are named by their place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupWish {
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

/// Why a node gave up on a neighbour for a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Cause {
    /// Its link's detector found it suspect.
    Silence,
    /// The link to it broke, or it restarted.
    LinkLost,
    /// It closed the leg.
    Closed,
    /// It could reach none of its own next.
    NoPath,
    /// It is draining.
    Drain,
    /// It did not answer an attach in time, or could not be dialled.
    Unreachable,
    /// Nothing was wrong with it: the hop before is served by another relay, which chose for itself.
    Followed,
    /// It lives, and yet the flow's bytes do not arrive.
    Gray,
    /// Nothing was wrong with it: when the flow was opened another candidate could be had sooner.
    Chosen,
}

impl Cause {
    /// Whether the relay that was left failed, or will leave: it stands by no more.
    #[must_use]
    pub const fn is_failure(self) -> bool {
        !matches!(self, Self::Followed | Self::Chosen)
    }

    /// What a node goes by that finds it without a detector.
    #[must_use]
    pub const fn evidence(self) -> Evidence {
        match self {
            Self::Silence => Evidence::Silence,
            Self::LinkLost => Evidence::Transport,
            Self::Closed | Self::NoPath | Self::Drain => Evidence::Word,
            Self::Unreachable | Self::Gray => Evidence::NoAnswer,
            Self::Followed | Self::Chosen => Evidence::None,
        }
    }

    /// As events and tables show it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Silence => "silence",
            Self::LinkLost => "link lost",
            Self::Closed => "closed",
            Self::NoPath => "no path",
            Self::Drain => "drain",
            Self::Unreachable => "unreachable",
            Self::Followed => "followed the hop before",
            Self::Gray => "gray",
            Self::Chosen => "chosen",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
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
        wish: BackupWish,
    },
    /// A relay further down repaired its next hop.
    Rerouted {
        /// The leg.
        leg: u32,
        /// What happened.
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
        /// How far.
        progress: Progress,
    },
    /// From a relay on its way down to the target: the way to the origin is lost, or there is one again.
    Orphaned {
        /// The leg.
        leg: u32,
        /// Whether it is lost.
        orphaned: bool,
    },
}

/// One datagram. Sent both ways at each end's own pace; each carries the echo of the last.
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
mod tests {
    use super::*;
    use crate::codec;
    use crate::crypto::Key;

    #[test]
    fn close_codes_keep_their_numbers() {
        for (number, code) in CloseCode::ALL.into_iter().enumerate() {
            assert_eq!(code.number() as usize, number);
            assert_eq!(CloseCode::from_number(number as u64), code);
        }
        assert_eq!(CloseCode::from_number(1 << 40), CloseCode::Lost);
        assert_eq!((CloseCode::Moved.number(), CloseCode::Overloaded.number()), (1, 10));
    }

    #[test]
    fn golden_vectors() {
        let hello = Hello { version: 1, boot: BootId::from_bytes([5; 16]) };
        assert_eq!(codec::to_bytes(&hello), [&[1][..], &[5; 16]].concat());
        let acks = Control::Acks(vec![(4, 70_000), (8, 0)]);
        assert_eq!(codec::to_bytes(&acks), [0, 2, 4, 252, 0x70, 0x11, 1, 0, 8, 0]);
        assert_eq!(codec::to_bytes(&Control::Fin { leg: 4, offset: 9 }), [1, 4, 9]);
        let why = Why::won(Epoch::ORIGIN.child(1).child(2));
        let close = Control::Close { leg: 4, code: CloseCode::Replaced, why };
        assert_eq!(codec::to_bytes(&close), [2, 4, 3, 1, 2, 1, 2, 0]);
        let ok = AttachOk { backward_start: 1, backward_fin: Some(2), forward_ack: 3 };
        assert_eq!(codec::to_bytes(&ok), [1, 1, 2, 3]);
        let orphaned = Control::Orphaned { leg: 4, orphaned: true };
        assert_eq!(codec::to_bytes(&orphaned), [11, 4, 1]);
        let cause = Some(Key::from_bytes([3; 32]).seal_once(b"", b""));
        let close = Control::Close { leg: 4, code: CloseCode::Aborted, why: Why { winner: None, cause } };
        assert_eq!(codec::to_bytes(&close)[..5], [2, 4, 6, 0, 1]);
        let beat = Heartbeat { sequence: 1, heard: 2, heard_ago_us: 3, wanted_us: 10_000, probe: true };
        assert_eq!(codec::to_bytes(&beat), [1, 2, 3, 251, 0x10, 0x27, 1]);
        let watch = Watch { silence_us: 1, deadline_us: 2, interval_us: 3, rtt_us: 4, doubt: 5 };
        let reason = Reason { evidence: Evidence::Refusal, watch: Some(watch) };
        let mut reroute = Reroute {
            hop: 2,
            version: 7,
            from: 0,
            to: 1,
            cause: Cause::Silence,
            gap_us: 9,
            detected_us: 8,
            replayed: 6,
            reason,
        };
        let told = codec::to_bytes(&Control::Rerouted { leg: 4, reroute });
        assert_eq!(told, [5, 4, 2, 7, 0, 1, 0, 9, 8, 6, 2, 1, 1, 2, 3, 4, 5]);
        let way = |quiet_ms| Way { quiet_ms, repair_ms: 6 };
        let passage = |received| Passage { received, written: 4, inward: way(5), outward: way(7) };
        let waypoint = Waypoint { forward: passage(3), backward: passage(8) };
        let progress = Progress { probe: 2, reader_blocked: true, target: waypoint, relays: vec![waypoint] };
        let passages = [3, 4, 5, 6, 7, 6, 8, 4, 5, 6, 7, 6];
        let told = codec::to_bytes(&Control::Progress { leg: 4, progress });
        assert_eq!(told, [&[10, 4, 2, 1][..], &passages, &[1], &passages].concat());
        reroute.reason = Reason::of(Evidence::NoAnswer);
        let told = codec::to_bytes(&Control::Rerouted { leg: 4, reroute });
        assert_eq!(told, [5, 4, 2, 7, 0, 1, 0, 9, 8, 6, 7, 0]);
    }
}
