//! Over which chain an origin's flow goes: when another is needed, how it is taken, and what the application hears of it.

use super::flow::Flow;
use super::flows_event::FlowsEvent;
use super::key::FlowKey;
use super::rights::{Chain, Rights};
use super::table::Flows;
use crate::frame::{Cause, CloseCode};
use crate::id::NodeId;
use crate::machine::{Action, ChainChange, Notice};
use crate::record::{Candidate, Route};
use crate::time::Time;

impl Flows {
    /// An origin reaches nobody on its flow's chain, or somebody there nobody: asks its owner for another one.
    pub fn want_route(&mut self, key: FlowKey, now: Time) {
        let Some(flow) = self.flows.get_mut(&key) else { return };
        if flow.route.want(flow.progress(), now) {
            self.events.push(FlowsEvent::WantsRoute(key));
        }
        self.schedule(key);
    }

    /// The present chain swallows an origin's bytes, or lies: another route is asked for. Until there is one the flow stays.
    pub(super) fn abandon_chain(&mut self, key: FlowKey, cause: Cause, suspect: Option<NodeId>, now: Time) {
        let Some(flow) = self.flows.get_mut(&key).filter(|flow| flow.is_origin()) else { return };
        flow.view.avoided.note(cause, suspect, now);
        self.want_route(key, now);
    }

    /// There was no other route when it was asked for last, or it led nowhere.
    pub(super) fn want_route_again(&mut self, key: FlowKey, now: Time) {
        let Some(flow) = self.flows.get_mut(&key) else { return };
        flow.route.look();
        if !flow.splice.is_next_answered() {
            self.want_route(key, now);
        }
    }

    /// The origin has another route for a flow: it goes on over that one.
    pub fn reroute(&mut self, key: FlowKey, route: Route, now: Time, actions: &mut Vec<Action>) {
        let same_origin = route.scope().is_some_and(|scope| scope.origin == key.origin);
        // Under another pseudonym it would be another flow to every relay.
        if !same_origin || !self.flows.get(&key).is_some_and(Flow::is_origin) {
            return;
        }
        let Some(rights) = Rights::origin(route) else { return };
        let Some(candidates) = rights.next_candidates() else { return };
        self.stop_waiting(key);
        self.set_candidates(key, candidates);
        let Some(flow) = self.flows.get_mut(&key) else { return };
        let cause = flow.leave_chain(now);
        flow.rights = rights;
        flow.outage.unstuck();
        flow.dials.new_chain(flow.splice.dials());
        flow.route.taken(flow.progress(), now);
        // That the new relays answer will prove nothing: the target has to.
        flow.lose_sight(now);
        // The former chain's records mean nothing to this one.
        flow.late_update.clear();
        flow.view.new_chain();
        let left = [flow.leave_next(), flow.splice.detach_fading()];
        self.tell_chain(key, ChainChange::Rebuilt { cause }, actions);
        for leg in left.into_iter().flatten() {
            self.drop_leg(leg, CloseCode::Moved, now, actions);
        }
        self.keep_warm(key, now, actions);
        self.tasks.dial_and_settle(key);
        self.run_tasks(now, actions);
    }

    /// No other route was to be had: it will be asked for again, if it is still needed then.
    pub fn route_not_found(&mut self, key: FlowKey, now: Time) {
        let Some(flow) = self.flows.get_mut(&key) else { return };
        flow.route.not_found(now);
        self.schedule(key);
    }

    /// The chain that an origin's flow goes over, and by whom: those who serve it first.
    #[must_use]
    pub fn in_use(&self, key: &FlowKey) -> Option<(&Route, Vec<Vec<Candidate>>)> {
        let flow = self.flows.get(key)?;
        let chain = flow.rights.chain()?;
        let relays = chain.hops().len().saturating_sub(1);
        let mut hops: Vec<Vec<Candidate>> = chain.hops().take(relays).collect();
        for (hop, candidates) in (1u8..).zip(&mut hops) {
            let serves = |candidate: &Candidate| flow.view.serves(hop) == Some(candidate.node);
            if let Some(place) = candidates.iter().position(serves) {
                candidates.get_mut(..=place).into_iter().for_each(|front| front.rotate_right(1));
            }
        }
        Some((chain.route(), hops))
    }

    /// The route of an origin's flow.
    #[must_use]
    pub fn route(&self, key: &FlowKey) -> Option<&Route> {
        self.flows.get(key)?.rights.chain().map(Chain::route)
    }

    /// Who a hop's backup is a neighbour of, and it in between: whoever dials it, and the next hop's relay. Nobody if it has none.
    #[must_use]
    pub fn around_backup(&self, key: &FlowKey, hop: u8) -> Vec<NodeId> {
        let Some((_, hops)) = self.in_use(key) else { return Vec::new() };
        let candidate = |hop: usize, place| Some(hops.get(hop)?.get::<usize>(place)?.node);
        let place = usize::from(hop).wrapping_sub(1);
        let Some(backup) = candidate(place, 1) else { return Vec::new() };
        let before = place.checked_sub(1).map_or(Some(self.me), |before| candidate(before, 0));
        [before, Some(backup), candidate(place + 1, 0)].into_iter().flatten().collect()
    }

    /// Whether somebody is known to have taken over a hop of an origin's flow since its relay was last found wanting.
    #[must_use]
    pub fn is_served(&self, key: &FlowKey, hop: u8) -> bool {
        self.flows.get(key).is_some_and(|flow| flow.view.serves(hop).is_some())
    }

    /// Whether the next hop of a flow has answered.
    #[must_use]
    pub fn reaches_next(&self, key: &FlowKey) -> bool {
        self.flows
            .get(key)
            .is_some_and(|flow| flow.splice.is_next_answered() && !flow.view.avoided.is_pending())
    }

    /// Tells the application what the chain of its flow looks like.
    pub fn tell_chain(&self, key: FlowKey, change: ChainChange, actions: &mut Vec<Action>) {
        let Some((_, hops)) = self.in_use(&key) else { return };
        actions.push(Action::Notify(Notice::Chain { flow: key, hops, change }));
    }
}
