//! When a registration that failed is tried again.

use super::{Action, Enrolment, Notice, Phase, Question, Setback, Trouble, notify};
use crate::backoff::{Backoff, jittered};
use crate::time::Time;
use rand::RngExt;
use std::time::Duration;

impl Enrolment {
    /// What waits for a bootstrap that can be reached waits no longer, and a heartbeat that may be under way to one that is
    /// gone is sent again.
    pub(super) fn on_reached(&mut self, now: Time, actions: &mut Vec<Action>) {
        match (self.phase, self.next, self.unreached) {
            (Phase::Registered, ..) => {
                self.use_connection();
                if self.is_asking(Question::Heartbeat) && now >= self.asked_at + self.config.first_retry {
                    self.ask(Question::Heartbeat, now, actions);
                } else {
                    self.revive(now);
                }
            }
            (Phase::Unregistered, Some((at, Question::Register)), Some(failed_at)) => {
                self.use_connection();
                let soon = at.min(self.reached_again.next(failed_at));
                self.next = Some((soon, Question::Register));
                self.handle_timeout(now, actions);
            }
            (Phase::Idle | Phase::Unregistered | Phase::Leaving | Phase::Left, ..) => {}
        }
    }

    /// The next question goes over the connection that there is.
    const fn use_connection(&mut self) {
        // A question to another bootstrap would go over a new connection.
        self.bootstrap = self.asked;
        self.reached = true;
    }

    pub(super) fn retry_registration(&mut self, setback: Setback, now: Time, actions: &mut Vec<Action>) {
        self.phase = Phase::Unregistered;
        self.failed_registrations = self.failed_registrations.saturating_add(1);
        self.unreached = matches!(setback, Setback::Timeout | Setback::Network).then_some(now);
        // A bootstrap that can be reached and does not answer is not asked more often for that.
        if setback == Setback::Timeout && self.reached_again.pause() < self.config.backoff {
            self.reached_again = Backoff::new(self.config.pauses());
        }
        let retry_after = self.backoff();
        self.next = Some((now + retry_after, Question::Register));
        notify(actions, Notice::Trouble(Trouble::Failed { setback, retry_after }));
        // It is said once, though it goes on failing.
        if self.failed_registrations == self.config.attempts {
            let attempts = self.config.attempts;
            notify(actions, Notice::Trouble(Trouble::Timeout { attempts }));
        }
    }

    /// How long to wait after the registrations that have failed so far.
    fn backoff(&mut self) -> Duration {
        let bootstraps = u32::try_from(self.bootstraps).unwrap_or(u32::MAX);
        let wait = match self.failed_registrations.checked_sub(bootstraps.max(1) + 1) {
            None => self.config.first_retry,
            Some(others) => self.config.pauses().after(others),
        };
        self.jittered(wait)
    }

    pub(super) fn jittered(&mut self, wait: Duration) -> Duration {
        jittered(wait, self.config.jitter_percent, &mut self.rng)
    }

    /// Never earlier than told.
    pub(super) fn jittered_up(&mut self, wait: Duration) -> Duration {
        let percent = self.rng.random_range(100..=100 + self.config.jitter_percent.min(100));
        wait * percent / 100
    }
}
