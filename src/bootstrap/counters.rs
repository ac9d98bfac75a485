//! What a bootstrap counts.

use std::sync::atomic::{AtomicU64, Ordering};

/// Declares the counters twice: as they are counted, and as they are read.
macro_rules! counters {
    ($($(#[doc = $doc:literal])* $name:ident,)*) => {
        /// Since the start of the process.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Counters {
            $($(#[doc = $doc])* pub $name: u64,)*
        }

        impl Counters {
            /// Each with its name and what it counts.
            pub(crate) fn each(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
                [$((stringify!($name), concat!($($doc),*).trim_ascii(), self.$name),)*].into_iter()
            }
        }

        /// [`Counters`] in the making.
        #[derive(Debug, Default)]
        pub(super) struct Tally {
            $(pub(super) $name: Counter,)*
        }

        impl Tally {
            pub(super) fn read(&self) -> Counters {
                Counters { $($name: self.$name.0.load(Ordering::Relaxed),)* }
            }
        }
    };
}

counters! {
    /// Connections established.
    connections,
    /// Connection attempts refused because there were too many.
    connections_refused,
    /// Connection attempts told to prove their address first, because there were many.
    retries,
    /// Handshakes that failed: another network, an expired certificate, no answer.
    handshakes_failed,
    /// Newcomers admitted.
    joined,
    /// Newcomers refused.
    joins_refused,
    /// Certificates renewed.
    renewed,
    /// Questions answered.
    answered,
    /// Connections closed because the other side sent what is no request, or not one that it may send.
    violations,
    /// Streams and newcomers given up because nothing came.
    timed_out,
    /// Connections of removed nodes closed.
    removed_refused,
}

/// One number.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn count(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}
