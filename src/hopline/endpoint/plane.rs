//! How an endpoint's flows travel.

/// How an endpoint's flows travel over their chains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Plane {
    /// Each flow has a chain of its own, whose relays keep its bytes until they are acked: a lost packet is repaired on its link alone.
    #[default]
    Stored,
    /// All flows to one name share a QUIC connection from end to end, whose packets relays only pass on. A flow opens without a round trip,
    /// and relays hold nothing for it.
    Session,
}

impl Plane {
    /// Every plane.
    pub const ALL: [Self; 2] = [Self::Stored, Self::Session];

    /// Its name on the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Session => "session",
        }
    }
}
