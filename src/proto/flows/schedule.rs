//! When a node wakes for a flow, and why.

use super::flow::Flow;
use super::flow::timer::{Timer, TimerTable};
use super::key::FlowKey;
use super::table::Flows;
use crate::planted::{self, Law};
use crate::splice::Position;
use crate::time::Time;
use std::time::Duration;

impl Flows {
    /// When a flow's node will wake for it, and why.
    #[must_use]
    pub fn next_timeout(&self, key: &FlowKey) -> Option<(Time, Timer)> {
        self.timers_of(key)?.next_timeout()
    }

    pub(super) fn timers_of(&self, key: &FlowKey) -> Option<TimerTable> {
        self.flows.get(key).map(|flow| flow.timers(self.alone_until(flow)))
    }

    /// Has the node wake for a flow when the first of its timers is due.
    pub(super) fn schedule(&mut self, key: FlowKey) {
        self.timers.set(key, self.next_timeout(&key).map(|(until, _)| until));
    }

    /// When a flow's node will have been alone for too long.
    pub(super) fn alone_until(&self, flow: &Flow) -> Option<Time> {
        flow.alone.since().map(|since| since + self.alone_timeout(flow))
    }

    /// How long a flow's node stays alone before it ends the flow.
    pub(super) fn alone_timeout(&self, flow: &Flow) -> Duration {
        match flow.splice.position() {
            Position::Relay | Position::Target if planted::broken(Law::OrphanTimeout) => {
                self.config.stuck_timeout
            }
            Position::Origin | Position::Target => self.config.give_up,
            Position::Relay => self.config.orphan_timeout,
        }
    }
}
