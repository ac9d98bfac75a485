//! What is done when something is due.

use super::flow::timer::Timer;
use super::key::FlowKey;
use super::table::Flows;
use super::tasks::Task;
use crate::frame::CloseCode;
use crate::machine::Action;
use crate::time::Time;

impl Flows {
    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Time, actions: &mut Vec<Action>) {
        self.links.handle_timeout(now, actions);
        self.act_on_links(now, actions);
        self.run_tasks(now, actions);
        while let Some(key) = self.timers.pop_due(now) {
            self.flow_due(key, now, actions);
            self.run_tasks(now, actions);
        }
        self.bury(now);
        self.audit();
    }

    /// When something will be due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        let tombstone = self.tombstone_ends.front().map(|(time, _)| *time);
        let paced = self.paces.poll_timeout();
        [self.links.poll_timeout(), self.timers.next(), tombstone, paced].into_iter().flatten().min()
    }

    /// Something of a flow is due.
    pub(super) fn flow_due(&mut self, key: FlowKey, now: Time, actions: &mut Vec<Action>) {
        // First, as what has come since may show that the other end is there.
        if let Some(flow) = self.flows.get_mut(&key) {
            flow.look(now);
        }
        for timer in Timer::ALL {
            // Asked for each timer anew, as what one of them does may end another, or the flow.
            if self.timers_of(&key).is_some_and(|timers| timers.is_due(timer, now)) {
                self.timer_due(key, timer, now, actions);
            }
        }
        self.look_is_due(key, now, actions);
        self.tasks.push(key, Task::Settle);
    }

    pub(super) fn timer_due(&mut self, key: FlowKey, timer: Timer, now: Time, actions: &mut Vec<Action>) {
        tracing::trace!(flow = %key.flow, hop = key.hop, ?timer, "due");
        match timer {
            Timer::Leave => self.end(key, CloseCode::Done, CloseCode::Done, now, actions),
            Timer::Alone => self.end_alone(key, now, actions),
            Timer::Next => self.next_is_due(key, now, actions),
            Timer::Doubt => self.doubt_is_due(key, now, actions),
            Timer::Route => self.want_route_again(key, now),
            Timer::Upkeep => {
                self.keep_warm(key, now, actions);
                self.want_backup(key, now, actions);
            }
            Timer::Backup => self.want_backup_again(key, now, actions),
            // Followed by the look and the settling that come after all timers.
            Timer::Look | Timer::Ack => {}
        }
    }
}
