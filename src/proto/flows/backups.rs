//! When a flow's next hop needs other candidates, and who is asked for them.
//!
//! The node before a hop is the first to know that it needs another candidate; the origin alone knows everybody who is on
//! the chain already, may ask the bootstrap, and can compute tags. So a request travels up to the origin, and a new record
//! comes down.

use super::flow::Flow;
use super::flows_event::FlowsEvent;
use super::key::FlowKey;
use super::table::Flows;
use super::tasks::Task;
use super::tell::control;
use crate::frame::{BackupRequest, Control};
use crate::id::NodeId;
use crate::links::Standing;
use crate::machine::Action;
use crate::record::Candidate;
use crate::time::Time;

/// Candidates that a hop should have: one that serves and one that stands by.
const PROTECTED: usize = 2;

impl Flows {
    /// Asks for another candidate if one serves the next hop and none stands by.
    pub(super) fn want_backup(&mut self, key: FlowKey, now: Time, actions: &mut Vec<Action>) {
        let Some(flow) = self.flows.get(&key).filter(|flow| flow.backup.may_ask(now)) else { return };
        // The origin provides for those in its record, so the flow first goes to one of them.
        if flow.is_next_unnamed() {
            return self.tasks.push(key, Task::MoveOn);
        }
        // Until somebody serves, nobody can say whom the backup would stand beside.
        let current = flow.candidates.current().filter(|_| flow.splice.is_next_answered());
        let Some(active) = current.map(|candidate| candidate.node) else { return };
        let usable = self.usable(flow);
        // While the one that serves looks bad, the repair asks for candidates itself.
        if usable.contains(&active) && (flow.backup.is_unprotected() || usable.len() < PROTECTED) {
            self.ask_for_candidates(key, Some(active), &usable, now, actions);
        }
    }

    /// `peer` looks bad: flows that counted on it need somebody else.
    pub(super) fn want_backups(&mut self, peer: NodeId, now: Time, actions: &mut Vec<Action>) {
        for key in self.flows_with(peer) {
            self.want_backup(key, now, actions);
        }
    }

    /// Asks for other candidates as none of the present ones can be reached. The first time that can't wait.
    pub(super) fn want_candidates(&mut self, key: FlowKey, now: Time, actions: &mut Vec<Action>) {
        let Some(flow) = self.flows.get_mut(&key) else { return };
        flow.backup.is_stuck_now();
        let Some(flow) = self.flows.get(&key).filter(|flow| flow.backup.may_ask(now)) else { return };
        let mut usable = self.usable(flow);
        // Whoever has no link is of no use now, even if it has not failed.
        usable.retain(|node| self.standing(*node) == Standing::Up);
        self.ask_for_candidates(key, None, &usable, now, actions);
    }

    /// The origin asks its owner, a relay the origin.
    pub(super) fn ask_for_candidates(
        &mut self,
        key: FlowKey,
        active: Option<NodeId>,
        usable: &[NodeId],
        now: Time,
        actions: &mut Vec<Action>,
    ) {
        let Some(flow) = self.flows.get_mut(&key) else { return };
        let leads_to_target = flow.candidates.iter().any(Candidate::is_target);
        let Some(scope) = flow.rights.records().first().map(|record| record.scope) else { return };
        // Nobody but the target can take its place.
        if leads_to_target {
            return;
        }
        flow.backup.ask(now);
        if flow.is_origin() {
            self.events.push(FlowsEvent::WantsBackup { flow: key, hop: scope.hop, active });
        } else if let Some(prev) = flow.splice.prev() {
            // An orphan has nobody to ask: whoever attaches next is asked.
            let unusable = flow.candidates.iter().zip(0..8).filter(|(c, _)| !usable.contains(&c.node));
            let request = BackupRequest {
                hop: scope.hop,
                version: scope.version,
                active: active
                    .and_then(|node| flow.candidates.place(node))
                    .and_then(|n| u8::try_from(n).ok()),
                unusable: unusable.fold(0, |bits, (_, place)| bits | 1 << place),
            };
            actions.push(control(prev, |leg| Control::BackupWanted { leg, request }));
        }
        self.schedule(key);
    }

    /// The flows whose next hop somebody serves while nobody stands by for it.
    pub fn unprotected(&self) -> impl Iterator<Item = FlowKey> {
        let is_unprotected = |flow: &Flow| {
            let leads_to_target = flow.candidates.iter().any(Candidate::is_target);
            flow.splice.is_next_answered() && !leads_to_target && self.usable(flow).len() < PROTECTED
        };
        self.flows.iter().filter(move |(_, flow)| is_unprotected(flow)).map(|(key, _)| *key)
    }

    /// The candidates of a flow's next hop that look alive and have not failed it, the current one included.
    pub(super) fn usable(&self, flow: &Flow) -> Vec<NodeId> {
        let is_usable = |(place, candidate): &(usize, &Candidate)| {
            let is_current = flow.candidates.current_place() == Some(*place);
            let alive = self.links.standing(candidate.node) < Standing::Draining && candidate.node != self.me;
            // What the one that serves did before does not count: hops went without a backup for it.
            alive && (is_current || !flow.candidates.has_failed(*place))
        };
        let usable = flow.candidates.iter().enumerate().filter(is_usable);
        usable.map(|(_, candidate)| candidate.node).collect()
    }

    pub(super) fn want_backup_again(&mut self, key: FlowKey, now: Time, actions: &mut Vec<Action>) {
        let Some(flow) = self.flows.get(&key) else { return };
        if flow.backup.is_stuck() {
            self.want_candidates(key, now, actions);
        } else {
            self.want_backup(key, now, actions);
        }
        if let Some(flow) = self.flows.get_mut(&key) {
            flow.backup.looked(now);
        }
    }
}
