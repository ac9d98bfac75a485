//! Leaving in peace: a node that drains says so to its neighbours, and serves its flows until each has gone elsewhere.
//!
//! The prev of a draining relay makes before it breaks. It dials another candidate while the old leg still stands; what it
//! has to send goes over the new leg at once, what comes back is taken from both until the old one closes. That happens
//! when the new path reaches the node after the one that drains, which then closes its leg as replaced. So neither
//! direction waits for a round trip.

use super::key::FlowKey;
use super::table::Flows;
use super::tasks::Task;
use crate::frame::{Cause, CloseCode, Control};
use crate::id::NodeId;
use crate::links::Standing;
use crate::machine::Action;
use crate::time::Time;

impl Flows {
    /// This node will leave: it takes no new flows, and every neighbour is asked to do without it.
    pub fn drain(&mut self, actions: &mut Vec<Action>) {
        if !std::mem::replace(&mut self.draining, true) {
            let links = self.links.ids().into_iter();
            actions.extend(links.map(|link| Action::Control { link, control: Control::Draining }));
        }
    }

    /// next will leave, or the newest record no longer names it. Goes on over another candidate that a link is up to; if there
    /// is none, asks for some, and stays.
    pub(super) fn move_on(&mut self, key: FlowKey, now: Time, actions: &mut Vec<Action>) {
        let Some(flow) = self.flows.get(&key) else { return };
        let chosen = flow.candidates.choose(|node| self.standing(node));
        let better = chosen.filter(|place| Some(*place) != flow.candidates.current_place());
        let better = better.and_then(|place| flow.candidates.get(place)).map(|candidate| candidate.node);
        match better.map(|node| self.standing(node)) {
            Some(Standing::Up) => {
                let cause = if flow.is_next_unnamed() { Cause::Followed } else { Cause::Drain };
                self.make_before_break(key, cause, now, actions);
            }
            // It is dialled already, as all candidates are, and moved to when it is up.
            Some(Standing::Absent) => {}
            Some(Standing::Draining | Standing::Suspect | Standing::Failed) | None => {
                self.want_candidates(key, now, actions);
            }
        }
    }

    fn make_before_break(&mut self, key: FlowKey, cause: Cause, now: Time, actions: &mut Vec<Action>) {
        self.begin_repair(key, cause, None, now);
        let Some(flow) = self.flows.get_mut(&key) else { return };
        if let Some(leg) = flow.part_from_next() {
            self.drop_leg(leg, CloseCode::Moved, now, actions);
        }
        self.tasks.dial_and_settle(key);
    }

    /// A link to `peer` is up: flows whose next is not to stay, or is silent over another link, may go on over it.
    pub(super) fn move_to(&mut self, peer: NodeId, now: Time, actions: &mut Vec<Action>) {
        for key in self.flows_with(peer) {
            let Some(flow) = self.flows.get(&key) else { continue };
            let over = flow.splice.next().map(|leg| leg.link());
            if over.is_some_and(|link| self.links.standing_over(link) >= Standing::Suspect) {
                self.reconsider(key, now, actions);
                continue;
            }
            let next = over.and_then(|link| self.links.peer(link));
            let will_leave = next.is_some_and(|node| self.standing(node) == Standing::Draining);
            if will_leave || flow.is_next_unnamed() {
                self.tasks.push(key, Task::MoveOn);
            }
        }
    }
}
