//! How a repair is told to the origin: what failed, what took over, and by what that was noticed.

use crate::codec;
use serde::{Deserialize, Serialize};
use std::fmt;

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
#[serde(from = "u32", into = "u32")]
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
    /// What only newer nodes know, by its number, under which it is passed on.
    Unknown(u32),
}

impl From<u32> for Evidence {
    fn from(number: u32) -> Self {
        codec::member(&Self::ALL, number).unwrap_or(Self::Unknown(number))
    }
}

impl From<Evidence> for u32 {
    fn from(evidence: Evidence) -> Self {
        if let Evidence::Unknown(number) = evidence {
            number
        } else {
            codec::number(&Evidence::ALL, &evidence)
        }
    }
}

impl Evidence {
    const ALL: [Self; 9] = [
        Self::Silence,
        Self::Deafness,
        Self::Refusal,
        Self::Hint,
        Self::Stall,
        Self::Transport,
        Self::Word,
        Self::NoAnswer,
        Self::None,
    ];

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
            Self::Unknown(_) => "unknown",
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

/// Why a node gave up on a neighbour for a flow. Append-only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "u32", into = "u32")]
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
    /// What only newer nodes know, by its number, under which it is passed on.
    Unknown(u32),
}

impl From<u32> for Cause {
    fn from(number: u32) -> Self {
        codec::member(&Self::ALL, number).unwrap_or(Self::Unknown(number))
    }
}

impl From<Cause> for u32 {
    fn from(cause: Cause) -> Self {
        if let Cause::Unknown(number) = cause { number } else { codec::number(&Cause::ALL, &cause) }
    }
}

impl Cause {
    const ALL: [Self; 9] = [
        Self::Silence,
        Self::LinkLost,
        Self::Closed,
        Self::NoPath,
        Self::Drain,
        Self::Unreachable,
        Self::Followed,
        Self::Gray,
        Self::Chosen,
    ];

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
            Self::Followed | Self::Chosen | Self::Unknown(_) => Evidence::None,
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
            Self::Unknown(_) => "unknown",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
