//! How a node leaves: it drains, tells with how many flows, and says goodbye.

use super::{Action, Enrolment, Notice, Phase, Question, notify};
use crate::time::Time;

impl Enrolment {
    /// Whether the bootstrap is being told that the node leaves.
    #[must_use]
    pub const fn is_leaving(&self) -> bool {
        matches!(self.phase, Phase::Leaving)
    }

    pub(super) fn drain(&mut self, now: Time, actions: &mut Vec<Action>) {
        self.draining = true;
        if self.phase == Phase::Registered && !self.drained && !self.is_asking(Question::Drain) {
            self.ask(Question::Drain, now, actions);
        }
    }

    pub(super) fn shut_down(&mut self, now: Time, actions: &mut Vec<Action>) {
        match self.phase {
            Phase::Idle => {
                self.phase = Phase::Left;
                notify(actions, Notice::Left);
            }
            // A registration that seems to have failed may yet have been taken.
            Phase::Unregistered | Phase::Registered => {
                let has_news = self.phase == Phase::Registered && self.load.flows != self.told_flows;
                // Whoever had it drain wants to know with how many flows it left.
                let last = if self.draining && has_news { Question::Heartbeat } else { Question::Deregister };
                self.phase = Phase::Leaving;
                self.ask(last, now, actions);
            }
            // Who is told twice has no time for the answer to the last heartbeat.
            Phase::Leaving if self.is_asking(Question::Heartbeat) => {
                self.ask(Question::Deregister, now, actions)
            }
            Phase::Leaving | Phase::Left => {}
        }
    }

    /// Whether this was the last question before the goodbye, which follows whatever came of it.
    pub(super) fn is_last_heartbeat(&self, question: Question) -> bool {
        self.phase == Phase::Leaving && question == Question::Heartbeat
    }

    /// As long as nobody has heard it the node may be assigned to chains; but nobody waits for ever.
    pub(super) fn say_goodbye_again(&mut self, now: Time, actions: &mut Vec<Action>) {
        self.goodbyes += 1;
        if self.goodbyes < self.config.attempts {
            self.next = Some((now + self.jittered(self.config.first_retry), Question::Deregister));
        } else {
            self.leave(actions);
        }
    }

    pub(super) fn leave(&mut self, actions: &mut Vec<Action>) {
        self.phase = Phase::Left;
        self.next = None;
        notify(actions, Notice::Left);
    }
}
