//! How an endpoint's flows travel.

use hopline::endpoint::Plane;

/// As on the command line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum PlaneArg {
    /// Relays keep a flow's bytes until they have arrived: for links that lose packets
    #[default]
    Stored,
    /// Relays pass packets on; all flows to a name share one QUIC connection from end to end: faster, and opened at once
    Session,
}

impl PlaneArg {
    /// What it names.
    #[must_use]
    pub const fn plane(self) -> Plane {
        match self {
            Self::Stored => Plane::Stored,
            Self::Session => Plane::Session,
        }
    }
}
