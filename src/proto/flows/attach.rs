//! How legs begin and end at a node.

use super::flow::Flow;
use super::flow::next::Event;
use super::key::FlowKey;
use super::rights::{self, Rights};
use super::table::Flows;
use super::tasks::Task;
use super::tell::explain;
use crate::crypto::Sealed;
use crate::epoch::Epoch;
use crate::frame::{Attach, AttachOk, CloseCode, Opening, Why};
use crate::machine::{Action, Forbidden, LinkId, Notice, Violation};
use crate::planted::{self, Law};
use crate::record::Entry;
use crate::splice::{Attached, LegId, Splice};
use crate::time::Time;

impl Flows {
    /// Somebody opens, resumes or rebuilds a leg (Law 3).
    pub(super) fn attach(&mut self, link: LinkId, attach: &Attach, now: Time, actions: &mut Vec<Action>) {
        let leg = LegId::new(link, attach.leg);
        if self.links.peer(link).is_none() {
            // The link was lost while the header came.
            return actions.push(Action::CloseLeg { leg, code: CloseCode::Lost });
        }
        // A number of the wrong parity, or one in use, would clash with another leg.
        if !attach.is_bounded() || !self.links.may_name(leg) || self.legs.contains_key(&leg) {
            actions.push(Action::CloseLeg { leg, code: CloseCode::Malformed });
            self.disconnect(link, Violation::OutOfBounds, now, actions);
            return;
        }
        let refused = match self.admit(attach, now) {
            Ok((key, entry)) => self.accept(leg, key, &entry, attach, now, actions).err(),
            // This node has restarted and has no lease yet, or missed its last: the dialer can't know that.
            Err(_) if self.lacks_key(attach) && !planted::broken(Law::KeysAwaited) => Some(CloseCode::Lost),
            Err(forbidden) => {
                self.violation(link, Violation::Forbidden(forbidden), actions);
                Some(CloseCode::Forbidden)
            }
        };
        let Some(code) = refused else { return };
        actions.push(Action::CloseLeg { leg, code });
        // A node that has no room, or no keys yet, is asked again and again for thousands of flows, and that is its own affair.
        let is_own = matches!(code, CloseCode::Lost | CloseCode::Overloaded);
        if !is_own && !self.links.may_err(link, now) {
            self.disconnect(link, Violation::TooManyAttaches, now, actions);
        }
    }

    fn lacks_key(&self, attach: &Attach) -> bool {
        attach.records.first().is_some_and(|record| self.ring.may_lack(record.scope.key_epoch))
    }

    /// Law 6: whether the attach proves its right to this node.
    fn admit(&self, attach: &Attach, now: Time) -> Result<(FlowKey, Entry), Forbidden> {
        let entry = rights::check(&self.ring, attach)?;
        let scope = attach.records.first().ok_or(Forbidden::NoEntry)?.scope;
        // Only a target's entry has no reach key, as nobody comes after it.
        if entry.reach_next.is_none() != self.is_target {
            return Err(Forbidden::WrongRole);
        }
        let key = FlowKey { origin: scope.origin, flow: attach.flow, hop: scope.hop };
        // Records limit new flows only (Law 7). An open one may come to a relay that never held it.
        let is_new = attach.forward_start == 0 && attach.backward_ack == 0 && !self.flows.contains_key(&key);
        if is_new && scope.expires < self.time.at(now) { Err(Forbidden::Expired) } else { Ok((key, entry)) }
    }

    fn accept(
        &mut self,
        leg: LegId,
        key: FlowKey,
        entry: &Entry,
        attach: &Attach,
        now: Time,
        actions: &mut Vec<Action>,
    ) -> Result<(), CloseCode> {
        let rights = Rights::accepted(entry, attach).ok_or(CloseCode::Malformed)?;
        let candidates = rights.next_candidates().unwrap_or_default();
        // The next hop's record is missing or does not open, so nobody could be dialled.
        if candidates.is_empty() && !self.is_target {
            return Err(CloseCode::Malformed);
        }
        let opening = attach.opening();
        if let Err((code, cause)) = self.admit_flow(key, &opening, actions, now) {
            // A bare reset is not believed: complete flows whose origins had missed DONE were lost.
            if code.is_explained() && !planted::broken(Law::DoneExplained) {
                actions.push(explain(leg, code, Why { winner: None, cause }));
            }
            return Err(code);
        }
        let flow = self.flows.get_mut(&key).ok_or(CloseCode::Unknown)?;
        // A stale attach changes nothing. It is refused below, and counted for its link.
        if opening.epoch > *flow.splice.epoch() && !flow.allowances.attach(now) {
            self.violation(leg.link(), Violation::TooManyAttaches, actions);
            return Err(CloseCode::Malformed);
        }
        match flow.splice.attach(leg, &opening) {
            Attached::Stale { winner } => {
                actions.push(explain(leg, CloseCode::Stale, Why::won(winner)));
                Err(CloseCode::Stale)
            }
            Attached::Impossible => {
                self.violation(leg.link(), Violation::Impossible, actions);
                Err(CloseCode::Malformed)
            }
            Attached::Accepted { answer, replaced, forgotten } => {
                // A repair further down than where the origin was lost changes nothing of that.
                flow.alone.as_prev(attach.orphaned, now);
                // The splice may have forgotten next as well (Law 5).
                flow.note_lost_leg();
                let over_another = flow.rights.leads_elsewhere(&rights);
                flow.rights = rights;
                self.new_candidates(key, candidates);
                self.legs.insert(leg, key);
                self.links.leg_added(leg.link(), now);
                actions.push(Action::AnswerLeg { leg, flow: key, answer });
                self.repeat_reroutes(key, actions);
                if let Some(old) = replaced.filter(|_| !planted::broken(Law::ReplacedLegClosed)) {
                    self.close_replaced(old, leg, opening.epoch, now, actions);
                }
                for old in forgotten {
                    self.drop_leg(old, CloseCode::Lost, now, actions);
                }
                self.keep_warm(key, now, actions);
                if over_another {
                    self.follow_chain(key, now, actions);
                }
                self.reconsider(key, now, actions);
                if self.flows.get(&key).is_some_and(|flow| flow.backup.is_unprotected()) {
                    self.want_backup(key, now, actions);
                }
                self.tasks.push(key, Task::Settle);
                Ok(())
            }
        }
    }

    /// Another leg has taken prev's place under this epoch.
    fn close_replaced(&mut self, old: LegId, by: LegId, epoch: Epoch, now: Time, actions: &mut Vec<Action>) {
        actions.push(explain(old, CloseCode::Replaced, Why::won(epoch)));
        self.drop_leg(old, CloseCode::Replaced, now, actions);
        // The flow came another way, so whoever was prev may have failed: a probe tells.
        if old.link() != by.link() {
            self.links.doubt(old.link(), now, actions);
        }
    }

    /// The origin goes over another chain: whoever came next on the last one may be what was wrong with it.
    fn follow_chain(&mut self, key: FlowKey, now: Time, actions: &mut Vec<Action>) {
        let Some(flow) = self.flows.get_mut(&key).filter(|flow| flow.splice.next().is_some()) else { return };
        flow.dials.new_chain(flow.splice.dials());
        if let Some(leg) = flow.part_from_next() {
            self.drop_leg(leg, CloseCode::Moved, now, actions);
        }
        self.tasks.push(key, Task::Dial);
    }

    /// Makes room for a flow that this node does not hold yet.
    fn admit_flow(
        &mut self,
        key: FlowKey,
        opening: &Opening,
        actions: &mut Vec<Action>,
        now: Time,
    ) -> Result<(), (CloseCode, Option<Sealed>)> {
        if self.flows.contains_key(&key) {
            return Ok(());
        }
        // Late attaches get their answer, and a replay can't open the flow again.
        if let Some(ending) = self.tombstones.get(&key).filter(|_| !planted::broken(Law::Tombstone)) {
            return Err(ending.clone());
        }
        if self.flows.len() >= self.config.max_flows || self.draining {
            return Err((CloseCode::Overloaded, None));
        }
        let splice = if self.is_target {
            Splice::target(opening).ok_or((CloseCode::Unknown, None))?
        } else {
            Splice::relay(opening)
        };
        // Its rights come with the attach, once that is accepted.
        self.flows.insert(key, Flow::new(splice, Rights::Target, now));
        if self.is_target {
            actions.push(Action::Notify(Notice::Accepted { flow: key }));
        }
        Ok(())
    }

    /// The acceptor of a leg answered.
    pub(super) fn answered(&mut self, leg: LegId, answer: &AttachOk, now: Time, actions: &mut Vec<Action>) {
        // Also if the leg is no more: its acceptor has done its work.
        self.paces.answered(leg.link());
        let Some((key, flow)) = self.by_leg(leg) else { return };
        match flow.splice.answered(leg, answer) {
            Ok(()) => {
                flow.on_next(Event::Answered);
                let repair = flow.outage.end();
                flow.backup.answered();
                flow.route.answered();
                flow.watch_anew(now);
                let late: Vec<u8> = std::mem::take(&mut flow.late_update).into_iter().collect();
                self.send_down(key, &late, actions);
                self.repaired(key, repair, now, actions);
                self.want_backup(key, now, actions);
                self.reconsider(key, now, actions);
                self.tasks.push(key, Task::Settle);
            }
            // The origin holds everything, so next is the one that is wrong.
            Err(violation) if flow.is_origin() => self.leg_violation(leg, violation, now, actions),
            // Law 5: what next says does not fit what this relay holds, so the relay forgets.
            Err(_) => self.end(key, CloseCode::Lost, CloseCode::Lost, now, actions),
        }
    }
}
