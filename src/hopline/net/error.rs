//! What a caller can do about an error. The errors themselves stand with the operations they belong to, but
//! for the one that every socket has.

use std::io;
use std::net::SocketAddr;

/// The kinds of errors of the shell's public operations: each error type answers `kind()`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Somebody said no, for good: change what was asked.
    Refused,
    /// Nobody answered: try again later or elsewhere.
    Unreachable,
    /// Somebody is too busy: try again later.
    Overloaded,
    /// The other side ended it, or this side did: start anew.
    Closed,
    /// Something on this machine stands in the way (a port, a file, a permission): its user has to change it.
    Local,
    /// A fault of Hopline's own: report it.
    Bug,
}

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
#[error("can't {purpose} {address}: {source}; choose another {remedy}")]
pub struct BindError {
    /// Where it should be.
    pub address: SocketAddr,
    /// What the operating system said.
    #[source]
    pub source: io::Error,
    purpose: &'static str,
    remedy: &'static str,
}

impl BindError {
    /// Of a socket for QUIC.
    pub(crate) const fn quic(address: SocketAddr, source: io::Error) -> Self {
        Self { address, source, purpose: "use UDP address", remedy: "with --listen" }
    }

    /// Of a socket for the admin pages.
    #[cfg(feature = "admin")]
    pub(crate) const fn http(address: SocketAddr, source: io::Error) -> Self {
        let remedy = "address with --admin, or none with --admin off";
        Self { address, source, purpose: "serve HTTP at", remedy }
    }

    /// What to do about it: always [`ErrorKind::Local`].
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        ErrorKind::Local
    }
}
