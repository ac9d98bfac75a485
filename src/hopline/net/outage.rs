//! Logs a problem that lasts: when it begins, now and then while it lasts, and when it ends, but not at each failure.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How often it is told that it still goes on, unless said otherwise.
const REMINDER: Duration = Duration::from_secs(60);

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Outage {
    since: Mutex<Option<Since>>,
    reminder: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Since {
    began: Instant,
    told: Instant,
}

impl Default for Outage {
    fn default() -> Self {
        Self::with_reminders(REMINDER)
    }
}

impl Outage {
    /// One of which it is told so often that it still goes on.
    pub(crate) fn with_reminders(reminder: Duration) -> Self {
        Self { since: Mutex::default(), reminder }
    }

    /// Something failed. For how long that has gone on, if it is to be told now.
    pub(crate) fn goes_on(&self) -> Option<Duration> {
        self.goes_on_at(Instant::now())
    }

    fn goes_on_at(&self, now: Instant) -> Option<Duration> {
        let mut since = self.since();
        let Some(Since { began, told }) = &mut *since else {
            *since = Some(Since { began: now, told: now });
            return Some(Duration::ZERO);
        };
        (now - *told >= self.reminder).then(|| {
            *told = now;
            now - *began
        })
    }

    /// All is well. How long it was not, if that was told.
    pub(crate) fn is_over(&self) -> Option<Duration> {
        self.since().take().map(|since| since.began.elapsed())
    }

    fn since(&self) -> MutexGuard<'_, Option<Since>> {
        self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_told_when_it_begins_each_minute_and_when_it_ends() {
        let (outage, began, mut told) = (Outage::default(), Instant::now(), Vec::new());
        assert_eq!(outage.is_over(), None);
        for second in 0..150 {
            let now = began + Duration::from_secs(second);
            told.extend(outage.goes_on_at(now).map(|lasted| lasted.as_secs()));
        }
        assert_eq!(told, [0, 60, 120]);
        assert!(outage.is_over().is_some());
        assert_eq!(outage.is_over(), None);
        assert_eq!(outage.goes_on(), Some(Duration::ZERO));
    }
}
