//! What a node and a bootstrap say to each other, one request and one response per bidirectional stream.
//!
//! The pure protocol's questions ([`Request`]) ride inside, next to what concerns certificates, which the protocol
//! knows nothing of. A newcomer, which shows no certificate, may only [`Join`](BootstrapRequest::Join), and a member
//! anything else; a request of the wrong kind, or bytes that are no request, end the connection with a
//! [`BootstrapClose`].

use super::authority::Issued;
use super::join::{self, JoinRequest};
use hopline_proto::codec::{Growing, MAX_FRAME_BYTES};
use hopline_proto::rpc::{MAX_REQUEST_BYTES, Request, Response};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The largest [`BootstrapRequest`], in bytes: a [`Request`] and the name of its variant.
pub const MAX_BOOTSTRAP_REQUEST_BYTES: usize = MAX_REQUEST_BYTES + 1;
/// The largest [`BootstrapResponse`], in bytes.
pub const MAX_BOOTSTRAP_RESPONSE_BYTES: usize = MAX_FRAME_BYTES;

/// What a node asks. Append-only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BootstrapRequest {
    /// A newcomer wants a certificate, for a ticket.
    Join(JoinRequest),
    /// A member wants the next certificate.
    Renew,
    /// A member asks something of the protocol.
    Ask(Request),
    /// A member that holds a ticket for any number of nodes, as whoever runs the network does, wants a relay to drain.
    Drain {
        /// The relay's name or id.
        relay: String,
        /// That it holds the ticket.
        proof: JoinRequest,
    },
    /// Something that only newer nodes ask.
    #[serde(other)]
    Unknown,
}

impl Growing for BootstrapRequest {
    fn is_unknown(&self) -> bool {
        match self {
            Self::Ask(request) => request.is_unknown(),
            Self::Unknown => true,
            Self::Join(_) | Self::Renew | Self::Drain { .. } => false,
        }
    }
}

/// What a bootstrap answers. Append-only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BootstrapResponse {
    /// To `Join` and `Renew`.
    Issued(Issued),
    /// To `Join` and `Drain`.
    JoinRefused(join::Refusal),
    /// To `Ask` and `Drain`.
    Answer(Response),
    /// Something that only a newer bootstrap answers.
    #[serde(other)]
    Unknown,
}

impl Growing for BootstrapResponse {
    fn is_unknown(&self) -> bool {
        match self {
            Self::Issued(_) => false,
            Self::JoinRefused(refusal) => matches!(refusal, join::Refusal::Unknown),
            Self::Answer(response) => response.is_unknown(),
            Self::Unknown => true,
        }
    }
}

/// Why a connection between a node and a bootstrap, or a stream of it, ended: the QUIC error code. Append-only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BootstrapClose {
    /// It is of no more use.
    Done,
    /// The bootstrap's process ends.
    ShuttingDown,
    /// The other side sent bytes that are no request.
    Malformed,
    /// A newcomer asked for more than to join, or a member asked to join.
    NotAllowed,
    /// The node was removed from the network.
    Removed,
    /// The bootstrap has too many connections.
    Overloaded,
    /// Nothing came for too long.
    TimedOut,
    /// The connection was up for so long that the certificate has to be shown again.
    Aged,
    /// A fault of this side's own.
    Internal,
    /// Nobody waits for the answer any more.
    Cancelled,
    /// The member has too many connections, and this one is the oldest: its process may have been killed. One that lives
    /// connects again when it has something to ask.
    Replaced,
}

impl BootstrapClose {
    const ALL: [Self; 11] = [
        Self::Done,
        Self::ShuttingDown,
        Self::Malformed,
        Self::NotAllowed,
        Self::Removed,
        Self::Overloaded,
        Self::TimedOut,
        Self::Aged,
        Self::Internal,
        Self::Cancelled,
        Self::Replaced,
    ];

    /// Its number on the wire.
    #[must_use]
    pub const fn number(self) -> u32 {
        self as u32
    }

    /// The code with this number; an unknown one counts as [`BootstrapClose::Done`].
    #[must_use]
    pub fn from_number(number: u64) -> Self {
        usize::try_from(number).ok().and_then(|n| Self::ALL.get(n)).copied().unwrap_or(Self::Done)
    }

    /// The code with which the other side closed a connection, `None` if something else ended it.
    #[must_use]
    pub fn of(error: &quinn::ConnectionError) -> Option<Self> {
        if let quinn::ConnectionError::ApplicationClosed(close) = error {
            Some(Self::from_number(close.error_code.into()))
        } else {
            None
        }
    }

    /// As logs show it, and as it is sent along with the code.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::ShuttingDown => "shutting down",
            Self::Malformed => "malformed request",
            Self::NotAllowed => "request not allowed",
            Self::Removed => "node removed from the network",
            Self::Overloaded => "overloaded",
            Self::TimedOut => "timed out",
            Self::Aged => "connection too old",
            Self::Internal => "internal error",
            Self::Cancelled => "cancelled",
            Self::Replaced => "replaced by a newer connection of this node",
        }
    }

    /// Closes `connection` with it.
    pub fn close(self, connection: &quinn::Connection) {
        connection.close(self.number().into(), self.as_str().as_bytes());
    }
}

impl fmt::Display for BootstrapClose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hopline_proto::{BootId, Time, codec};

    #[test]
    fn close_codes_keep_their_numbers() {
        for (number, code) in BootstrapClose::ALL.into_iter().enumerate() {
            assert_eq!(code.number() as usize, number);
            assert_eq!(BootstrapClose::from_number(number as u64), code);
        }
        assert_eq!(BootstrapClose::from_number(1 << 40), BootstrapClose::Done);
        assert_eq!((BootstrapClose::Malformed.number(), BootstrapClose::Cancelled.number()), (2, 9));
    }

    #[test]
    fn what_only_newer_nodes_know_is_read_as_unknown() {
        fn read<T: Growing>(bytes: &[u8]) -> Result<T, codec::CodecError> {
            codec::from_growing_bytes(bytes)
        }
        assert_eq!(read(&[4, 255, 255]), Ok(BootstrapRequest::Unknown));
        assert_eq!(read(&[2, 200, 255, 255]), Ok(BootstrapRequest::Ask(Request::Unknown)));
        assert_eq!(read(&[3, 255, 255]), Ok(BootstrapResponse::Unknown));
        assert_eq!(read(&[1, 7, 255, 255]), Ok(BootstrapResponse::JoinRefused(join::Refusal::Unknown)));
        assert_eq!(read(&[2, 200, 255, 255]), Ok(BootstrapResponse::Answer(Response::Unknown)));
        assert!(read::<BootstrapRequest>(&[1, 0]).is_err(), "a known one with more than it has");
        assert!(read::<BootstrapResponse>(&[1, 3, 0]).is_err());
    }

    #[test]
    fn golden_vectors() {
        assert_eq!(codec::to_bytes(&BootstrapRequest::Renew), [1]);
        let goodbye = Request::Deregister { boot: BootId::from_bytes([7; 16]) };
        let mut expected = vec![2, 2];
        expected.extend([7; 16]);
        assert_eq!(codec::to_bytes(&BootstrapRequest::Ask(goodbye)), expected);
        let [renew, expires, now] = [1, 2, 3].map(Time::from_micros);
        let issued = Issued { certificate: vec![9], renew, expires, now };
        assert_eq!(codec::to_bytes(&BootstrapResponse::Issued(issued)), [0, 1, 9, 1, 2, 3]);
        assert_eq!(codec::to_bytes(&BootstrapResponse::JoinRefused(join::Refusal::Used)), [1, 3]);
        let expired = join::Refusal::Expired { expires, now };
        assert_eq!(codec::to_bytes(&BootstrapResponse::JoinRefused(expired)), [1, 1, 2, 3]);
        assert_eq!(codec::to_bytes(&BootstrapResponse::Answer(Response::Done)), [2, 1]);
    }
}
