//! Gray failures: a chain that lives and swallows a flow's bytes is left for another one.
//!
//! Probes travel down a flow's legs beside its bytes, and what the target says travels up; every relay on the way adds how
//! far the flow has come there. The origin's [`ProgressWatch`](super::probe::ProgressWatch) decides; then the origin goes over another
//! route, without any relay of the present chain if the pool has enough others, else at least without the one where the
//! bytes stop.

use super::front::{Front, waypoint};
use super::key::FlowKey;
use super::probe::Step;
use super::table::Flows;
use crate::frame::{Cause, Control, Progress};
use crate::id::NodeId;
use crate::links::Links;
use crate::machine::{Action, Violation};
use crate::splice::{Direction, LegId, Position, Splice};
use crate::time::Time;

impl Flows {
    /// An end of a flow looks whether its bytes arrive.
    pub(super) fn look_is_due(&mut self, key: FlowKey, now: Time, actions: &mut Vec<Action>) {
        let Some(flow) = self.flows.get_mut(&key) else { return };
        flow.look(now);
        let splice = &flow.splice;
        let is_whole = if splice.position() == Position::Origin {
            splice.is_next_answered()
        } else {
            splice.prev().is_some()
        };
        let Some(watch) = flow.end.as_mut().map(|end| &mut end.watch) else { return };
        if !is_whole {
            // It is being repaired from here already.
            return watch.restart(now);
        }
        match watch.poll(now) {
            Step::Wait => {}
            // Nobody answered, so nobody knows where the bytes stop.
            Step::Leave => self.abandon_chain(key, Cause::Gray, None, now),
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
        // Questions come from the origin's side only.
        if flow.splice.prev() != Some(leg) {
            return;
        }
        if flow.splice.position() == Position::Target {
            actions.push(progress_of(&flow.splice, &self.links, (leg, number), now));
        } else if let Some(next) = flow.splice.next().filter(|_| flow.splice.is_next_answered()) {
            // A next that has not answered may not know the leg yet. The origin asks again.
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
            return self.disconnect(leg.link(), Violation::OutOfBounds, now, actions);
        }
        if !self.may_ask(leg, now, actions) {
            return;
        }
        let Some(key) = self.legs.get(&leg).copied() else { return };
        let Some(flow) = self.flows.get_mut(&key).filter(|flow| flow.splice.next() == Some(leg)) else {
            return;
        };
        let here = waypoint(&flow.splice, &self.links, now);
        // A relay that has no prev has no watch either, so for it the answer ends below.
        if let Some(prev) = flow.splice.prev() {
            progress.relays.push(here);
            let control = Control::Progress { leg: prev.number(), progress };
            return actions.push(Action::Control { link: prev.link(), control });
        }
        // What has come by now must not count as missing.
        flow.look(now);
        let fronts = Front::both(&here, &progress);
        let convicted = flow.watch_mut().and_then(|watch| watch.hear(&progress, fronts, now));
        flow.see();
        if let Some(direction) = convicted {
            let relays = flow.carriers(direction, progress.relays.len());
            let front = Direction::BOTH.iter().zip(fronts).find(|(of, _)| **of == direction);
            let suspect = front.and_then(|(_, front)| front?.suspect(&relays));
            self.abandon_chain(key, Cause::Gray, suspect, now);
        }
        self.schedule(key);
    }

    /// The relays that must have swallowed a flow's bytes.
    #[must_use]
    pub fn suspects(&self, key: &FlowKey, now: Time) -> Vec<NodeId> {
        self.flows.get(key).map(|flow| flow.view.avoided.suspects(now).collect()).unwrap_or_default()
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
