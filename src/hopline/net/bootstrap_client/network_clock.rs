//! The network's time, as bootstraps tell it with their answers: certificates are good by it. A node whose own clock says
//! something else is told so, and renews in time all the same.

use crate::net::clock::{Clock, Skew};
use crate::net::outage::Outage;
use hopline_proto::Time;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// A difference below this is no matter: an answer has been under way for a while, too.
pub(super) const AGREEMENT: Duration = Duration::from_secs(60);
/// How often it is told that the clocks differ.
const REMINDER: Duration = Duration::from_secs(3600);

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct NetworkClock {
    /// What a bootstrap's clock said, and when.
    heard: Mutex<Option<(Time, Instant)>>,
    changed: Notify,
    disagreement: Outage,
}

impl Default for NetworkClock {
    fn default() -> Self {
        Self {
            heard: Mutex::default(),
            changed: Notify::new(),
            disagreement: Outage::with_reminders(REMINDER),
        }
    }
}

impl NetworkClock {
    /// A bootstrap's clock says this now.
    pub(super) fn hear(&self, at: Time) {
        *self.heard() = Some((at, Instant::now()));
        self.changed.notify_one();
        let own = Clock::wall();
        let skew = Skew::of(own, at);
        if skew.by() <= AGREEMENT {
            if self.disagreement.is_over().is_some() {
                tracing::info!("this machine's clock and the bootstrap's agree again");
            }
        } else if self.disagreement.goes_on().is_some() {
            tracing::warn!(
                own = %own.shown(),
                bootstrap = %at.shown(),
                "this machine's clock is {skew} of the bootstrap's: set the one that is wrong, or certificates will not be \
                 taken for valid"
            );
        }
    }

    /// The network's time, or this machine's as long as nothing else is known.
    pub(super) fn now(&self) -> Time {
        self.heard().map_or_else(Clock::wall, |(at, heard)| at + heard.elapsed())
    }

    /// Resolves when a bootstrap's clock was heard: it may have been set. For one task.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    fn heard(&self) -> MutexGuard<'_, Option<(Time, Instant)>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
