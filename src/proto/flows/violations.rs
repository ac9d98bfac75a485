//! What a node does about peers that lie, or ask too much.

use super::table::Flows;
use crate::frame::{Cause, CloseCode, Why};
use crate::machine::{Action, DisconnectReason, LinkId, Notice, Violation};
use crate::splice::LegId;
use crate::time::Time;

impl Flows {
    /// What came over a leg can't be true, or is too much: the leg is lost, and whoever is behind it told why. An origin can't
    /// tell who on its chain lies, and leaves all of it.
    pub(super) fn leg_violation(
        &mut self,
        leg: LegId,
        what: impl Into<Violation>,
        now: Time,
        actions: &mut Vec<Action>,
    ) {
        self.violation(leg.link(), what.into(), actions);
        if let Some(key) = self.legs.get(&leg).copied() {
            self.abandon_chain(key, Cause::Closed, None, now);
        }
        // Before `leg_over`, which would close the stream as lost.
        actions.push(Action::CloseLeg { leg, code: CloseCode::Malformed });
        self.leg_over(leg, CloseCode::Malformed, Why::default(), now, actions);
    }

    pub(super) fn violation(&self, link: LinkId, what: Violation, actions: &mut Vec<Action>) {
        actions.push(Action::Notify(Notice::Violation { link, peer: self.links.peer(link), what }));
    }

    /// Whether whoever is behind `leg` may ask for something more for its flow. If not, the leg is lost.
    pub(super) fn may_ask(&mut self, leg: LegId, now: Time, actions: &mut Vec<Action>) -> bool {
        let Some((_, flow)) = self.by_leg(leg) else { return false };
        let may = flow.allowances.ask(now);
        if !may {
            self.leg_violation(leg, Violation::TooManyQuestions, now, actions);
        }
        may
    }

    /// The whole link is worth nothing: its peer does not speak the protocol, and is turned away for a while.
    pub(super) fn disconnect(&mut self, link: LinkId, what: Violation, now: Time, actions: &mut Vec<Action>) {
        self.violation(link, what, actions);
        self.links.ban(link, now);
        actions.push(Action::Disconnect { link, reason: DisconnectReason::Malformed });
    }
}
