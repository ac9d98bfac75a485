//! Laws that a test may break, one at a time, to prove that the checks would notice.
//!
//! In a release nothing of this exists: without the feature `planted` (or `cfg(test)`) [`broken`] is a constant `false`.

/// A law, or a rule that follows from one, that can be broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Law {
    /// Law 1: bytes stay until they were acked *and* written to the live out-leg.
    TrimAfterWrite,
    /// Law 2: only an explicit FIN ends a direction, never the end of a QUIC stream.
    ExplicitFin,
    /// Law 3: acks go out on a leg only after its `AttachOk`.
    AckAfterAttachOk,
    /// Law 4: epochs are paths.
    PathEpochs,
    /// Law 5: a relay that reaches no candidate of its next says `NoPath`.
    NoPath,
    /// Completion: relays free a flow when they are told that it is done, not by their own idea.
    FreeOnDone,
}

impl Law {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::TrimAfterWrite,
        Self::ExplicitFin,
        Self::AckAfterAttachOk,
        Self::PathEpochs,
        Self::NoPath,
        Self::FreeOnDone,
    ];
}

#[cfg(any(test, feature = "planted"))]
mod switch {
    use super::Law;
    use std::cell::Cell;

    thread_local! {
        static BROKEN: Cell<Option<Law>> = const { Cell::new(None) };
    }

    /// Breaks one law on this thread, or none.
    pub fn break_law(law: Option<Law>) {
        BROKEN.set(law);
    }

    /// Whether `law` is broken on this thread.
    pub(crate) fn broken(law: Law) -> bool {
        BROKEN.get() == Some(law)
    }
}
#[cfg(any(test, feature = "planted"))]
pub use switch::break_law;
#[cfg(any(test, feature = "planted"))]
pub(crate) use switch::broken;

/// Whether `law` is broken: never.
#[cfg(not(any(test, feature = "planted")))]
pub(crate) const fn broken(_: Law) -> bool {
    false
}
