//! What members ask a bootstrap, and what it answers: one request and one response per QUIC stream.

use super::codec::Growing;
use super::crypto::Key;
use super::families::Families;
use super::id::{BootId, NodeId};
use super::record::{Candidate, Record, Route};
use super::time::Time;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::time::Duration;

/// Largest [`Request`], in bytes.
pub const MAX_REQUEST_BYTES: usize = 32 * 1024;
/// Most nodes in one list of a [`Request`].
pub const MAX_LISTED_NODES: usize = 64;
/// Longest version of a relay, in bytes.
pub const MAX_VERSION_BYTES: usize = 32;
/// Most names that one endpoint may register.
pub const MAX_NAMES: usize = 16;

/// What a node offers when it registers. Append-only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Offer {
    /// To carry flows.
    Relay {
        /// Where others dial it, the preferred address first; that one tells its host and subnet.
        addresses: Vec<SocketAddr>,
        /// Its failure domain, as its operator calls it; may be empty.
        zone: String,
        /// How many flows it is willing to carry.
        capacity: u32,
        /// The version of the software that it runs.
        version: String,
        /// How others may use it.
        capabilities: Capabilities,
    },
    /// To be reached under names, through the relays that it keeps links to, the preferred one first.
    Target {
        /// The names.
        names: Vec<String>,
        /// Its attachment relays.
        attachments: Vec<NodeId>,
    },
    /// Something that only newer nodes offer.
    #[serde(other)]
    Unknown,
}

impl Offer {
    /// A relay's, at one address, of no particular version and with the usual capabilities.
    #[must_use]
    pub fn relay(address: SocketAddr, zone: &str, capacity: u32) -> Self {
        let (zone, version) = (zone.to_owned(), String::new());
        let (addresses, capabilities) = (vec![address], Capabilities::default());
        Self::Relay { addresses, zone, capacity, version, capabilities }
    }
}

/// How a relay may be used. It may change: registering again says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// Anybody may dial it. A relay behind a NAT that lets nobody in is not assigned to chains. Nobody tests this: who runs
    /// the relay says so.
    pub reachable: bool,
    /// It is willing to bridge relays that are not reachable.
    pub bridge: bool,
}

impl Default for Capabilities {
    fn default() -> Self {
        Self { reachable: true, bridge: false }
    }
}

/// How busy a node is, as its heartbeats say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// Flows that it carries.
    pub flows: u32,
    /// Payload that it has received lately, in bytes a second.
    pub bytes_per_second: u64,
    /// What its machine has in use, if it can tell.
    pub resources: Option<Resources>,
}

/// What a machine has in use, in percent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Of the processors' time.
    pub cpu_percent: u8,
    /// Of the memory.
    pub memory_percent: u8,
    /// Of the disk that holds its data.
    pub disk_percent: u8,
}

/// What a heartbeat says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Counts this node's questions since it registered: of two heartbeats the one with the lower number is the older one,
    /// whenever it arrives.
    pub sequence: u64,
    /// When it was sent, by the node's clock: shows clocks that are wrong.
    pub sent_at: Time,
    /// How busy the node is.
    pub load: Load,
    /// The latest key epoch that it has a key of: only later keys come with the answer.
    pub key_epoch: Option<u32>,
}

/// A question to the bootstrap. The asker is known by its certificate. Append-only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Take a place in the pool (a relay), or announce names (a target).
    Register {
        /// What people call the node.
        name: String,
        /// Which of the node's processes asks.
        boot: BootId,
        /// What it offers.
        offer: Offer,
    },
    /// Keep the lease.
    Heartbeat(Heartbeat),
    /// Give the lease up. What this process has asked before and arrives later changes nothing any more.
    Deregister {
        /// Which of the node's processes asks.
        boot: BootId,
    },
    /// A neighbour was found dead.
    ReportDown {
        /// The node's id.
        node: NodeId,
    },
    /// Relays to attach to, for a target.
    Attachments {
        /// The number.
        count: u8,
        /// Those that will not do.
        exclude: Vec<NodeId>,
        /// The IP families that the asker can dial.
        dials: Families,
    },
    /// A route to a target.
    Plan {
        /// The target's name.
        target: String,
        /// How many relays the chain shall have.
        hops: u8,
        /// Those that will not do.
        exclude: Vec<NodeId>,
        /// The IP families that the asker can dial.
        dials: Families,
    },
    /// A new record for a hop of the asker's chain that lost a candidate.
    Replace {
        /// The hop.
        hop: u8,
        /// The chain's records, the target's last.
        records: Vec<Record>,
        /// The candidate that serves the hop now, which stays and comes first.
        active: Option<NodeId>,
        /// Those that will not do.
        exclude: Vec<NodeId>,
        /// The IP families that the asker can dial.
        dials: Families,
    },
    /// What there is.
    List,
    /// Assign me no more: I move my flows away and shall leave. A relay keeps its lease meanwhile.
    Drain,
    /// A neighbour that this node reported down is heard again.
    ReportUp {
        /// The node's id.
        node: NodeId,
    },
    /// As `Plan`, but the flow that it is for goes over another chain: nothing is assigned yet.
    Spare {
        /// The target's name.
        target: String,
        /// How many relays the chain shall have.
        hops: u8,
        /// Those that will not do.
        exclude: Vec<NodeId>,
        /// The IP families that the asker can dial.
        dials: Families,
    },
    /// The same records of the asker's chain anew: with a new expiry, sealed to the keys of today.
    Renew {
        /// All of them, the target's last.
        records: Vec<Record>,
    },
    /// A relay could not be dialled. It may live all the same.
    ReportUnreached {
        /// The node's id.
        node: NodeId,
    },
    /// A relay that this node could not dial it has dialled now.
    ReportReached {
        /// The node's id.
        node: NodeId,
    },
    /// Something that only newer nodes ask.
    #[serde(other)]
    Unknown,
}

impl Growing for Request {
    fn is_unknown(&self) -> bool {
        matches!(self, Self::Unknown | Self::Register { offer: Offer::Unknown, .. })
    }
}

/// Whether a name of a node, a zone or a target may be registered. Names go into logs, tables and command lines: 1 to
/// [`MAX_NAME_BYTES`](super::record::MAX_NAME_BYTES) letters, digits, dots, dashes and underscores.
#[must_use]
pub fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=super::record::MAX_NAME_BYTES).contains(&name.len()) && name.bytes().all(allowed)
}

/// A lease and what goes with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// How long it lasts without a heartbeat.
    pub duration: Duration,
    /// When to send the next heartbeat.
    pub next_heartbeat: Duration,
    /// The node's keys by key epoch: of this one's and the next's those that it does not have.
    pub keys: Vec<(u32, Key)>,
    /// Relays registered, and those of them that may be assigned.
    pub counts: Counts,
    /// Whether the node is to drain, if it does not already.
    pub drain: bool,
    /// The bootstrap's time.
    pub now: Time,
    /// Whether the bootstrap knows the node only from what it stored before a restart. That may be older than the node's last
    /// registration, so the node registers again.
    pub restored: bool,
}

/// How many relays there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Ever registered and not yet forgotten.
    pub registered: u32,
    /// Assignable now.
    pub online: u32,
    /// Taken out of the pool since the last answer.
    pub expired: u32,
}

/// What the bootstrap believes of a relay. Append-only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Status {
    /// It has registered and not yet sent a heartbeat.
    Registered,
    /// Its lease runs.
    Online,
    /// A neighbour reported it dead, or its lease is about to end.
    Suspect,
    /// It moves its flows away and takes no new ones.
    Draining,
    /// Its lease ended.
    Offline,
    /// It said goodbye.
    Left,
    /// Something that only a newer bootstrap says.
    #[serde(other)]
    Unknown,
}

impl Status {
    /// As listings show it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Registered => "registered",
            Self::Online => "online",
            Self::Suspect => "suspect",
            Self::Draining => "draining",
            Self::Offline => "offline",
            Self::Left => "left",
            Self::Unknown => "unknown",
        }
    }
}

/// A relay in a listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayInfo {
    /// Who it is.
    pub node: NodeId,
    /// What people call it.
    pub name: String,
    /// What the bootstrap believes of it.
    pub status: Status,
    /// Its failure domain.
    pub zone: String,
    /// How busy it was when it was heard last.
    pub load: Load,
    /// Flows it is willing to carry.
    pub capacity: u32,
    /// The version of the software that it runs.
    pub version: String,
    /// How it may be used.
    pub capabilities: Capabilities,
    /// Since its registration.
    pub age: Duration,
    /// What is left of its lease; zero when it ended.
    pub lease_left: Duration,
}

/// A target in a listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetInfo {
    /// Who it is.
    pub node: NodeId,
    /// The names it serves.
    pub names: Vec<String>,
    /// The names of its attachment relays.
    pub attachments: Vec<String>,
    /// What is left of its lease.
    pub lease_left: Duration,
}

/// What there is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// The bootstrap's time.
    pub now: Time,
    /// How long it has been up.
    pub uptime: Duration,
    /// Relays, by name; at most as many as fit a frame.
    pub relays: Vec<RelayInfo>,
    /// Targets, by name; at most as many as fit a frame.
    pub targets: Vec<TargetInfo>,
    /// How many relays there are in all, also those not listed.
    pub counts: Counts,
    /// For how long self-preservation has kept silent relays in the pool, if it does.
    pub preserving: Option<Duration>,
}

/// A chain as the bootstrap planned it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Planned {
    /// The route.
    pub route: Route,
    /// The hops for which the pool had no backup.
    pub unprotected: Vec<u8>,
    /// The bootstrap's time.
    pub now: Time,
}

/// An answer of the bootstrap. Append-only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    /// To `Register` and `Heartbeat`.
    Lease(Lease),
    /// To `Deregister`, `Drain`, and all reports.
    Done,
    /// To `Attachments`.
    Relays(Vec<Candidate>),
    /// To `Plan` and `Spare`.
    Planned(Box<Planned>),
    /// To `Replace`.
    Replaced(Box<Record>),
    /// To `List`.
    Listing(Box<Listing>),
    /// To any.
    Refused(Refusal),
    /// To `Renew`.
    Renewed(Vec<Record>),
    /// Something that only a newer bootstrap answers.
    #[serde(other)]
    Unknown,
}

impl Growing for Response {
    fn is_unknown(&self) -> bool {
        match self {
            Self::Refused(refusal) => refusal.is_unknown(),
            Self::Unknown => true,
            Self::Lease(_)
            | Self::Done
            | Self::Relays(_)
            | Self::Planned(_)
            | Self::Replaced(_)
            | Self::Listing(_)
            | Self::Renewed(_) => false,
        }
    }
}

/// Why a bootstrap did not do what it was asked. Append-only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// The asker holds no lease: register again.
    #[error("the bootstrap does not know this node")]
    UnknownNode,
    /// The bootstrap could not do it now, through no fault of the asker.
    #[error("the bootstrap had an internal error")]
    Internal,
    /// Too many requests.
    #[error("the bootstrap is busy: try again in {} ms", retry_after.as_millis())]
    Throttled {
        /// When to ask again.
        retry_after: Duration,
    },
    /// No target has that name.
    #[error("no such name \"{name}\"")]
    UnknownName {
        /// The name.
        name: String,
    },
    /// Another node holds that name.
    #[error("the name \"{name}\" is taken by another node")]
    NameTaken {
        /// The name.
        name: String,
    },
    /// There are fewer relays than hops.
    #[error("the pool is too small: {need} relays needed, {have} available")]
    PoolTooSmall {
        /// Relays that the chain needs.
        need: u32,
        /// Relays that there are.
        have: u32,
    },
    /// No relay is left that could serve as another candidate.
    #[error("no spare relay for this hop")]
    NoSpare,
    /// The request proves no right to what it asks.
    #[error("not allowed: {reason}")]
    Denied {
        /// The reason.
        reason: DenyReason,
    },
    /// None of the target's attachment relays is in the pool now: it will attach to others soon.
    #[error("\"{name}\" is attached to no relay at the moment: try again in a few seconds")]
    NotAttached {
        /// The target's name.
        name: String,
    },
    /// No relay of that name or id is in the pool.
    #[error("no relay \"{name}\" in the pool")]
    UnknownRelay {
        /// What was asked for.
        name: String,
    },
    /// Several relays have that name.
    #[error("several relays are called \"{name}\"")]
    AmbiguousRelay {
        /// What was asked for.
        name: String,
    },
    /// There are relays enough, but no path over them that begins with an address that the asker can dial.
    #[error("this node dials {dials} alone, and no path leads from there over the relays of the pool")]
    OutOfReach {
        /// What it said that it can dial.
        dials: Families,
    },
    /// The bootstrap does not know what it was asked.
    #[error("unknown request: this bootstrap is older than the node that asks it")]
    UnknownRequest,
    /// For a reason that only a newer bootstrap knows.
    #[error("refused for a reason that this node does not know: the bootstrap is newer than it")]
    #[serde(other)]
    Unknown,
}

impl Growing for Refusal {
    fn is_unknown(&self) -> bool {
        matches!(self, Self::Unknown)
    }
}

/// What made a request impermissible. Append-only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum DenyReason {
    /// A list, a name or a number is out of bounds.
    #[error("a field is out of bounds")]
    OutOfBounds,
    /// A record was not issued by this network, or was altered.
    #[error("a record is not genuine")]
    Record,
    /// The asker is not the chain's origin.
    #[error("not the origin of that chain")]
    NotOrigin,
    /// The node was removed from the network.
    #[error("revoked")]
    Revoked,
    /// Something that only a newer bootstrap says.
    #[error("for a reason that this node does not know: the bootstrap is newer than it")]
    #[serde(other)]
    Unknown,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{self, CodecError};
    use proptest::collection::vec;
    use proptest::prelude::*;

    /// A number that no member of any enum has.
    const UNKNOWN: u8 = 200;

    fn read<T: Growing>(bytes: &[u8]) -> Result<T, CodecError> {
        codec::from_growing_bytes(bytes)
    }

    #[test]
    fn what_only_newer_nodes_know_is_read_as_unknown() {
        let body = [255; 40];
        for kind in [14, UNKNOWN] {
            assert_eq!(read([&[kind][..], &body].concat().as_slice()), Ok(Request::Unknown));
        }
        for kind in [8, UNKNOWN] {
            assert_eq!(read([&[kind][..], &body].concat().as_slice()), Ok(Response::Unknown));
        }
        for kind in [13, UNKNOWN] {
            let refused = Ok(Response::Refused(Refusal::Unknown));
            assert_eq!(read([&[6, kind][..], &body].concat().as_slice()), refused);
        }
        let denied = Refusal::Denied { reason: DenyReason::Unknown };
        assert_eq!(read(&[6, 7, UNKNOWN]), Ok(Response::Refused(denied)));
        let (name, boot) = ("r".to_owned(), BootId::from_bytes([7; 16]));
        let bytes = [&[0, 1, b'r'][..], &[7; 16], &[UNKNOWN], &body].concat();
        assert_eq!(read(&bytes), Ok(Request::Register { name, boot, offer: Offer::Unknown }));
        assert_eq!(codec::from_bytes(&[UNKNOWN]), Ok(Status::Unknown));
        assert_eq!(codec::from_bytes(&[5]), Ok(Status::Left));
    }

    #[test]
    fn a_known_kind_that_does_not_decode_is_no_unknown_one() {
        assert_eq!(read::<Request>(&[7, 0]), Err(CodecError::Trailing { bytes: 1 }));
        assert_eq!(read::<Request>(&[3, 1]), Err(CodecError::Malformed));
        assert_eq!(read::<Response>(&[6, 0, 0]), Err(CodecError::Trailing { bytes: 1 }));
        assert_eq!(read::<Response>(&[6]), Err(CodecError::Malformed));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(kind in any::<u8>(), bytes in vec(prop_oneof![any::<u8>(), 0u8..16], 0..200)) {
            let bytes = [&[kind % 16][..], &bytes].concat();
            let _ = read::<Request>(&bytes);
            let _ = read::<Response>(&bytes);
        }
    }
}
