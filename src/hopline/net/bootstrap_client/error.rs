//! Why there is no bootstrap to talk to.

use crate::net::bootstrap_rpc::BootstrapClose;
use crate::net::error::{BindError, ErrorKind};
use crate::net::frames::FrameError;
use crate::net::join::Refusal;
use crate::net::keyfile::KeyFileError;
use crate::net::local::Obstacle;
use crate::net::tls::{OutOfTime, TlsError};
use hopline_proto::version::Mismatch;
use std::fmt;
use std::time::Duration;

/// Why a node is not, or no more, in touch with its network's bootstraps.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// None of the ticket's bootstraps could be reached.
    #[error(
        "no bootstrap answers: {}; check that it is running, and that the ticket names an address that leads to it",
        Listed(attempts)
    )]
    NoBootstrap {
        /// What was tried, in this order.
        attempts: Vec<Attempt>,
    },
    /// A bootstrap of another network answers at the ticket's address, and none of ours.
    #[error(
        "the bootstrap at {address} belongs to another network than the ticket; if it was set up anew, ask for a new \
         ticket (`hopline ticket new`)"
    )]
    OtherNetwork {
        /// The address.
        address: String,
    },
    /// All bootstraps that answer speak other versions of the protocol than this node.
    #[error("the bootstrap at {address} can't be asked: {}", mismatch.told("the bootstrap"))]
    Version {
        /// Where the first of them is.
        address: String,
        /// What it speaks, and what this node does.
        mismatch: Mismatch,
    },
    /// A bootstrap answers, but either its clock or this machine's is wrong.
    #[error(
        "the bootstrap at {address} cannot be trusted because of a wrong clock: {cause}; set the clock that is wrong"
    )]
    Clock {
        /// The address.
        address: String,
        /// Both times.
        cause: OutOfTime,
    },
    /// A bootstrap doesn't admit this node.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The node's key or certificate can't be read or written.
    #[error(transparent)]
    KeyFile(#[from] KeyFileError),
    /// The node's certificate is of no use.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The node can't have a socket.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The tokio runtime on which the node joined has ended.
    #[error("this node is shutting down")]
    Ended,
}

impl JoinError {
    /// What to do about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            // One that is busy may have time soon, whatever is wrong with the others.
            Self::NoBootstrap { attempts } if attempts.iter().any(Attempt::met_overload) => {
                ErrorKind::Overloaded
            }
            Self::NoBootstrap { .. } => ErrorKind::Unreachable,
            Self::OtherNetwork { .. } | Self::Version { .. } | Self::Refused(_) => ErrorKind::Refused,
            Self::Clock { .. } | Self::KeyFile(_) | Self::Tls(_) | Self::Bind(_) => ErrorKind::Local,
            Self::Ended => ErrorKind::Closed,
        }
    }

    /// Whether somebody said no: trying again does not help, another ticket may.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        self.kind() == ErrorKind::Refused
    }

    /// What to make of attempts of which none succeeded.
    pub(super) fn of_attempts(attempts: Vec<Attempt>) -> Self {
        if attempts.iter().any(|attempt| matches!(attempt.cause, Cause::Closed(BootstrapClose::Removed))) {
            return Self::Refused(Refusal::Removed);
        }
        let out_of_time = |attempt: &Attempt| {
            let Cause::OutOfTime(cause) = attempt.cause else { return None };
            Some(Self::Clock { address: attempt.address.clone(), cause })
        };
        if let Some(error) = attempts.iter().find_map(out_of_time) {
            return error;
        }
        if let Some(attempt) = attempts.iter().find(|attempt| matches!(attempt.cause, Cause::OtherNetwork)) {
            return Self::OtherNetwork { address: attempt.address.clone() };
        }
        // While bootstraps are upgraded one by one, one that is down may be of this node's version.
        let is_version = |attempt: &Attempt| matches!(attempt.cause, Cause::Version(_));
        if let Some(Attempt { address, cause: Cause::Version(mismatch) }) = attempts.first()
            && attempts.iter().all(is_version)
        {
            return Self::Version { address: address.clone(), mismatch: *mismatch };
        }
        Self::NoBootstrap { attempts }
    }
}

/// One bootstrap that was tried in vain.
#[derive(Debug)]
pub struct Attempt {
    /// Its address as the ticket names it, and what a name was resolved to.
    pub address: String,
    /// What went wrong.
    pub cause: Cause,
}

impl Attempt {
    /// Whether the same may succeed soon.
    pub(super) const fn met_overload(&self) -> bool {
        matches!(self.cause, Cause::Overloaded)
    }
}

/// What went wrong with one bootstrap.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Cause {
    /// The name could not be resolved.
    #[error("name not resolved: {0}")]
    Name(#[source] std::io::Error),
    /// The name leads to no address.
    #[error("the name has no address")]
    NoAddress,
    /// Packets to that address can't leave this machine.
    #[error("{0}")]
    NoWay(Obstacle),
    /// Nothing came back.
    #[error("no answer within {} s", within.as_secs_f32())]
    NoAnswer {
        /// How long that was.
        within: Duration,
    },
    /// The network says that nobody is there.
    #[error("the network says that it is not there")]
    Unreachable,
    /// The address can't be dialled at all.
    #[error(transparent)]
    Dial(quinn::ConnectError),
    /// The connection failed, or broke.
    #[error("{0}")]
    Connection(#[source] quinn::ConnectionError),
    /// It has more connections than it can take.
    #[error("it is overloaded")]
    Overloaded,
    /// It has another network's key.
    #[error("it belongs to another network")]
    OtherNetwork,
    /// It speaks no version of the protocol that this node does.
    #[error("{}", .0.told("it"))]
    Version(Mismatch),
    /// Its certificate is not good at this time.
    #[error("{0}")]
    OutOfTime(OutOfTime),
    /// It says that this node's certificate has ended.
    #[error("by its clock this node's certificate has expired, or is not valid yet")]
    OwnCertificateExpired,
    /// It closed the connection, or the question's stream.
    #[error("it closed the connection: {0}")]
    Closed(BootstrapClose),
    /// What it answered is no answer.
    #[error("bad answer: {0}")]
    Answer(#[source] FrameError),
    /// It answered what this node does not know.
    #[error("an answer of a kind that this node does not know, as the bootstrap is newer: upgrade this node")]
    NewerAnswer,
    /// It answered something else than was asked.
    #[error("the answer does not fit the request")]
    WrongAnswer,
}

impl Cause {
    /// Whether the connection is over, so that another one may do better.
    pub(super) const fn is_lost(&self) -> bool {
        matches!(self, Self::Connection(_) | Self::Closed(_) | Self::Overloaded | Self::OwnCertificateExpired)
    }
}

/// Attempts in one line.
struct Listed<'a>(&'a [Attempt]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, Attempt { address, cause }) in self.0.iter().enumerate() {
            let comma = if place == 0 { "" } else { ", " };
            write!(f, "{comma}{address} ({cause})")?;
        }
        Ok(())
    }
}
