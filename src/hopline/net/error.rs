//! What a caller can do about an error. The errors themselves stand with the operations they belong to.

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
