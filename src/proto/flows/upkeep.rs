//! How links to those who may be needed are kept: to the candidates of a flow's next hop, and, at a backup, to the hop after.

use super::flow::timer::Timer;
use super::key::FlowKey;
use super::table::Flows;
use super::tasks::Task;
use crate::frame::Control;
use crate::id::NodeId;
use crate::machine::{Action, LinkId, Violation};
use crate::record::Record;
use crate::time::Time;

/// Backups that a node remembers having prepared.
const MAX_PREPARED: usize = 4096;

impl Flows {
    /// Asks for links to the candidates of a flow's next hop, and has the backups do the same for the hop after.
    pub(super) fn keep_warm(&mut self, key: FlowKey, now: Time, actions: &mut Vec<Action>) {
        let upkeep = self.config.upkeep;
        let Some(flow) = self.flows.get_mut(&key) else { return };
        if flow.candidates.len() == 0 {
            return;
        }
        flow.set_timer(Timer::Upkeep, Some(now + upkeep));
        if flow.splice.is_next_answered() {
            flow.candidates.forgive_current();
        }
        for candidate in flow.candidates.iter() {
            if !candidate.is_target() {
                self.links.want(candidate.node, &candidate.addresses, now + upkeep * 2, now, actions);
            }
        }
        let [own, next, ..] = flow.rights.records() else { return };
        for backup in flow.candidates.others() {
            let Some(link) = self.links.active(backup.node) else { continue };
            let known = (link, own.scope, next.scope.version);
            // It is told now and then only: repeated each time, this was nearly all of the control traffic.
            if self.prepared.get(&known).is_none_or(|at| now.since(*at) >= upkeep) {
                self.prepared.insert(known, now);
                let (own, next) = (Box::new(own.clone()), Box::new(next.clone()));
                actions.push(Action::Control { link, control: Control::Prepare { own, next } });
            }
        }
        if self.prepared.len() > MAX_PREPARED {
            self.prepared.retain(|_, at| now.since(*at) < upkeep);
        }
    }

    /// A link to `peer` is up: if it stands by for a flow, and is not about to be dialled, it is told what it has to know for
    /// that.
    pub(super) fn prepare_peer(&mut self, peer: NodeId) {
        for key in self.flows_with(peer) {
            self.tasks.push(key, Task::KeepWarm);
        }
    }

    /// This node may be needed as a backup: it asks for links to the hop after its own.
    pub(super) fn prepare(
        &mut self,
        link: LinkId,
        own: &Record,
        next: &Record,
        now: Time,
        actions: &mut Vec<Action>,
    ) {
        if !own.is_bounded() || !next.is_bounded() {
            self.disconnect(link, Violation::OutOfBounds, now, actions);
            return;
        }
        if !self.links.may_prepare(link, now) {
            return self.disconnect(link, Violation::TooManyQuestions, now, actions);
        }
        // Law 6: only what the bootstrap sealed to this node has it dial anybody.
        let reach = self.ring.entry(own).and_then(|entry| entry.reach_next);
        let candidates = reach.and_then(|reach| next.candidates(&reach)).unwrap_or_default();
        for candidate in candidates {
            if !candidate.is_target() {
                let until = now + self.config.upkeep * 2;
                // Welcome, not wanted: nobody depends on these links yet, so they are worth one dial.
                self.links.welcome(candidate.node, &candidate.addresses, until, now, actions);
            }
        }
    }
}
