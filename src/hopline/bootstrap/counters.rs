//! What a bootstrap counts.

use super::throttle::Class;
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
        pub(super) struct LiveCounters {
            $(pub(super) $name: Counter,)*
        }

        impl LiveCounters {
            pub(super) fn read(&self) -> Counters {
                Counters { $($name: self.$name.0.load(Ordering::Relaxed),)* }
            }
        }
    };
}

counters! {
    /// Connections established.
    connections,
    /// Connections closed because there were too many.
    connections_refused,
    /// Connection attempts told to prove their address first, because there were many.
    retries,
    /// Connections of a member closed because it has newer ones.
    replaced,
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
    /// Renewals (heartbeats, goodbyes, reports, certificates) that were told to come later.
    throttled_renewals,
    /// Registrations that were.
    throttled_registrations,
    /// Plans, and requests for what keeps chains whole, that were.
    throttled_plans,
    /// Listings that were.
    throttled_listings,
    /// Registrations put back in their places at the start.
    registrations_restored,
    /// Registrations that were on disk when they were answered.
    registrations_saved,
    /// Registrations that were answered though the store could not write them yet.
    registrations_unsaved,
    /// Writes of the store; each takes all that waits.
    store_writes,
    /// Attempts of the store to write that failed.
    store_failures,
    /// Names freed because their holders did not answer.
    names_freed,
    /// Members whose last connection broke.
    cut_off,
    /// Connections closed because the other side sent what is no request, or not one that it may send.
    violations,
    /// Streams and newcomers given up because nothing came.
    timed_out,
    /// Connections of removed nodes closed.
    removed_refused,
}

impl LiveCounters {
    /// Counts a request that was told to come later.
    pub(super) fn throttled(&self, class: Class) {
        match class {
            Class::Renewal => self.throttled_renewals.count(),
            Class::Registration => self.throttled_registrations.count(),
            Class::Plan => self.throttled_plans.count(),
            Class::Listing => self.throttled_listings.count(),
        }
    }
}

/// One number.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn count(&self) {
        self.add(1);
    }

    pub(super) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// For what is counted elsewhere.
    pub(super) fn set(&self, count: u64) {
        self.0.store(count, Ordering::Relaxed);
    }
}
