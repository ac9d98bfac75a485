//! Gray failures: a chain that lives and swallows a flow's bytes is left for another one.
//!
//! Probes travel down a flow's legs beside its bytes, and what the target says travels up; every relay on the way adds how
//! far the flow has come there. The origin's [`Vigil`](super::probe::Vigil) decides; then the origin goes over another
//! route, without any relay of the present chain if the pool has enough others, else at least without the one where the
//! bytes stop.

use super::front::{Front, waypoint};
use super::probe::{Marks, Step};
use super::{Flow, FlowKey, Flows};
use crate::failure_memory::{FailureMemory, Ground};
use crate::frame::{Cause, Control, Progress};
use crate::id::NodeId;
use crate::links::Links;
use crate::machine::{Action, Misdeed};
use crate::record::Candidate;
use crate::splice::{Direction, LegId, Position, Splice};
use crate::time::Time;
use std::time::Duration;

/// How long a flow avoids the relay where its bytes stopped: nobody else may know of it.
const SUSPECT_LIFETIME: Duration = Duration::from_secs(30);
/// Such relays that a flow avoids at most; of more the first are forgotten.
const MAX_SUSPECTS: usize = 32;

/// What an origin has against its chain, and relays where its bytes stopped.
#[derive(Clone, Debug)]
pub(super) struct Distrust {
    pub(super) suspects: FailureMemory,
    /// Why the present chain is to be left.
    pending: Option<Cause>,
}

impl Flows {
    /// An end of a flow looks whether its bytes arrive.
    pub(super) fn look_is_due(&mut self, key: FlowKey, now: Time, actions: &mut Vec<Action>) {
        let Some(flow) = self.flows.get_mut(&key) else { return };
        flow.look(now);
        let (splice, vigil) = (&flow.splice, &mut flow.vigil);
        let is_whole = if flow.splice.position() == Position::Origin {
            splice.is_next_answered()
        } else {
            splice.prev().is_some()
        };
        let Some(vigil) = vigil.as_mut() else { return };
        if !is_whole {
            // It is being repaired from here already.
            return vigil.restart(now);
        }
        match vigil.poll(now) {
            Step::Wait => {}
            Step::Leave => self.distrust(key, Cause::Gray, None, now),
            Step::Speak(number) => match (splice.position(), splice.next(), splice.prev()) {
                (Position::Origin, Some(next), _) => {
                    let control = Control::Probe { leg: next.number(), number };
                    actions.push(Action::Control { link: next.link(), control });
                }
                (Position::Target, _, Some(prev)) => {
                    actions.push(progress_of(splice, &self.links, (prev, 0), now));
                }
                (Position::Origin | Position::Relay | Position::Target, ..) => {}
            },
        }
    }

    /// The origin asks how far a flow has come.
    pub(super) fn probe(&mut self, leg: LegId, number: u32, now: Time, actions: &mut Vec<Action>) {
        if !self.may_ask(leg, now, actions) {
            return;
        }
        let Some(flow) = self.legs.get(&leg).and_then(|key| self.flows.get(key)) else { return };
        if flow.splice.prev() != Some(leg) {
            return;
        }
        if flow.splice.position() == Position::Target {
            actions.push(progress_of(&flow.splice, &self.links, (leg, number), now));
        } else if let Some(next) = flow.splice.next().filter(|_| flow.splice.is_next_answered()) {
            let control = Control::Probe { leg: next.number(), number };
            actions.push(Action::Control { link: next.link(), control });
        }
    }

    /// The target says how far a flow has come.
    pub(super) fn progress(
        &mut self,
        leg: LegId,
        mut progress: Progress,
        now: Time,
        actions: &mut Vec<Action>,
    ) {
        if !progress.is_bounded() {
            return self.disconnect(leg.link(), Misdeed::OutOfBounds, now, actions);
        }
        if !self.may_ask(leg, now, actions) {
            return;
        }
        let Some(key) = self.legs.get(&leg).copied() else { return };
        let Some(flow) = self.flows.get_mut(&key).filter(|flow| flow.splice.next() == Some(leg)) else {
            return;
        };
        let here = waypoint(&flow.splice, &self.links, now);
        if let Some(prev) = flow.splice.prev() {
            progress.relays.push(here);
            let control = Control::Progress { leg: prev.number(), progress };
            return actions.push(Action::Control { link: prev.link(), control });
        }
        flow.look(now);
        let fronts = Front::both(&here, &progress);
        let convicted = flow.vigil.as_mut().and_then(|vigil| vigil.hear(&progress, fronts, now));
        flow.see();
        if let Some(direction) = convicted {
            let relays = flow.carriers(direction, progress.relays.len());
            let front = Direction::BOTH.iter().zip(fronts).find(|(of, _)| **of == direction);
            let suspect = front.and_then(|(_, front)| front?.suspect(&relays));
            self.distrust(key, Cause::Gray, suspect, now);
        }
        self.schedule(key);
    }

    /// The present chain swallows an origin's bytes, or lies: another route is asked for. Until there is one the flow stays.
    pub(super) fn distrust(&mut self, key: FlowKey, cause: Cause, suspect: Option<NodeId>, now: Time) {
        let Some(flow) = self.flows.get_mut(&key).filter(|flow| flow.is_origin()) else { return };
        flow.distrust.note(cause, suspect, now);
        self.want_route(key, now);
    }

    /// The relays that must have swallowed a flow's bytes.
    #[must_use]
    pub fn suspects(&self, key: &FlowKey, now: Time) -> Vec<NodeId> {
        self.flows.get(key).map(|flow| flow.distrust.suspects(now).collect()).unwrap_or_default()
    }
}

impl Flow {
    /// Looks how far the flow has come at this end of it. Returns whether there is something to wait for now that there
    /// was not before.
    pub(super) fn look(&mut self, now: Time) -> bool {
        let Some(vigil) = &mut self.vigil else { return false };
        let (sends, takes) = (self.splice.lane(self.splice.source()), self.splice.lane(self.splice.sink()));
        let marks = Marks {
            sent: sends.received(),
            acked: sends.acked(),
            received: takes.received(),
            reader_blocked: takes.acked() < takes.received(),
        };
        let before = vigil.due();
        vigil.note(marks, now);
        let is_news = vigil.due() != before;
        self.see();
        is_news
    }

    /// The flow goes over other relays.
    pub(super) fn watch_anew(&mut self, now: Time) {
        if let Some(vigil) = &mut self.vigil {
            vigil.restart(now);
        }
    }

    /// An origin leaves its chain for another one: why, where known.
    pub(super) fn rebuilt_for(&mut self, now: Time) -> Option<Cause> {
        self.watch_anew(now);
        self.distrust.pending.take().or_else(|| self.repair.as_ref().map(|repair| repair.cause))
    }

    /// The relays that carry an origin's flow, as far as it knows, from the direction's source on; none if there should be
    /// another number of them.
    fn carriers(&self, direction: Direction, number: usize) -> Vec<NodeId> {
        let Some(chain) = self.rights.chain() else { return Vec::new() };
        let relays = chain.hops().len().saturating_sub(1);
        let near = self.next_hop.current().map(|candidate| candidate.node);
        let carrier = |(hop, candidates): (u8, Vec<Candidate>)| {
            let first = candidates.into_iter().next().map(|candidate| candidate.node);
            near.filter(|_| hop == 1).or_else(|| self.serving.get(&hop).copied()).or(first)
        };
        let mut nodes: Vec<NodeId> = (1u8..).zip(chain.hops().take(relays)).filter_map(carrier).collect();
        if direction == Direction::Backward {
            nodes.reverse();
        }
        if nodes.len() == number { nodes } else { Vec::new() }
    }
}

impl Default for Distrust {
    fn default() -> Self {
        Self { suspects: FailureMemory::new(MAX_SUSPECTS, SUSPECT_LIFETIME), pending: None }
    }
}

impl Distrust {
    fn note(&mut self, cause: Cause, suspect: Option<NodeId>, now: Time) {
        self.pending = Some(cause);
        suspect.map(|node| self.suspects.note(node, Ground::Gray, now));
    }

    /// Whether the present chain is to be left though its next hop answers.
    pub(super) const fn is_pending(&self) -> bool {
        self.pending.is_some()
    }

    /// Who is still to be avoided.
    pub(super) fn suspects(&self, now: Time) -> impl Iterator<Item = NodeId> {
        self.suspects.nodes(now)
    }
}

fn progress_of(splice: &Splice, links: &Links, (prev, probe): (LegId, u32), now: Time) -> Action {
    let forward = splice.lane(Direction::Forward);
    let progress = Progress {
        probe,
        reader_blocked: forward.acked() < forward.received(),
        target: waypoint(splice, links, now),
        relays: Vec::new(),
    };
    Action::Control { link: prev.link(), control: Control::Progress { leg: prev.number(), progress } }
}
