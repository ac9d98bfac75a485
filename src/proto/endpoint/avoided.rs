//! Which relays an endpoint avoids, and why.

use super::Endpoint;
use crate::failure_memory::{Failure, Ground};
use crate::flows::{FlowKey, FlowsEvent};
use crate::frame::Evidence;
use crate::id::{FlowId, NodeId};
use crate::links::Standing;
use crate::machine::{Action, Notice};
use crate::record::Candidate;
use crate::time::Time;
use std::collections::{BTreeSet, HashMap};

/// What avoids a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Avoider {
    /// The plans for a flow of this origin.
    Flow(FlowId),
    /// This origin, when it chooses among the routes that it keeps.
    KeptRoutes,
    /// This target, when it looks for attachment relays.
    Attachments,
}

/// A relay that is avoided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Avoided {
    /// By what.
    pub by: Avoider,
    /// Which relay, since when, until when, and on which ground.
    pub failure: Failure,
}

/// Whom each flow was said to avoid, and until when.
#[derive(Debug, Default)]
pub(super) struct Told(HashMap<FlowKey, Vec<(NodeId, Time)>>);

impl Told {
    /// Whether this is news. A relay that fails again while it is avoided is avoided for longer, which is no news.
    fn is_new(&mut self, flow: FlowKey, failure: &Failure) -> bool {
        let told = self.0.entry(flow).or_default();
        told.retain(|(_, until)| *until > failure.since);
        let is_new = told.iter().all(|(node, _)| *node != failure.node);
        told.extend(is_new.then_some((failure.node, failure.until)));
        is_new
    }

    /// A flow is over.
    pub(super) fn forget(&mut self, flow: FlowKey) {
        self.0.remove(&flow);
    }
}

/// The flows that relays may have failed since the events were taken last.
fn concerned(events: &[FlowsEvent], actions: &[Action]) -> BTreeSet<FlowKey> {
    let wanting = events.iter().filter_map(|event| match event {
        FlowsEvent::WantsRoute(flow) | FlowsEvent::WantsBackup { flow, .. } => Some(*flow),
        FlowsEvent::PeerGone(_)
        | FlowsEvent::PeerUp(_)
        | FlowsEvent::PeerUnreachable { .. }
        | FlowsEvent::Ended(_)
        | FlowsEvent::PeerSuspect { .. }
        | FlowsEvent::PeerRecovered(_)
        | FlowsEvent::PeerDraining(_) => None,
    });
    wanting.chain(failures_told(actions).map(|(flow, _)| flow)).collect()
}

/// Whom a repair was said to replace, and for which flow.
fn failures_told(actions: &[Action]) -> impl Iterator<Item = (FlowKey, &Candidate)> {
    actions.iter().filter_map(|action| {
        let Action::Notify(Notice::Rerouted { flow, from, .. }) = action else { return None };
        Some((*flow, from.as_ref()?))
    })
}

impl Endpoint {
    /// Tells whom flows avoid from now on.
    pub(super) fn tell_avoided(&mut self, events: &[FlowsEvent], now: Time, actions: &mut Vec<Action>) {
        for flow in concerned(events, actions) {
            let failures = self.flows.avoided_by(flow, now);
            let told = &mut self.told;
            let new: Vec<Failure> = failures.filter(|failure| told.is_new(flow, failure)).collect();
            for failure in new {
                let relay = self.named(flow, failure.node, actions);
                actions.push(Action::Notify(Notice::Avoided { flow, relay, failure }));
            }
        }
    }

    /// A relay of a flow's chain, or that was just replaced in it.
    fn named(&self, flow: FlowKey, node: NodeId, actions: &[Action]) -> Option<Candidate> {
        let hops = self.flows.in_use(&flow).map(|(_, hops)| hops).unwrap_or_default();
        let in_use = hops.into_iter().flatten().find(|candidate| candidate.node == node);
        let replaced = || failures_told(actions).map(|(_, from)| from).find(|from| from.node == node);
        in_use.or_else(|| replaced().cloned())
    }

    /// The relays that this endpoint avoids now, flow by flow and then for all.
    #[must_use]
    pub fn avoided(&self, now: Time) -> Vec<Avoided> {
        let flows = self.flows.avoided(now).map(|(flow, failure)| (Avoider::Flow(flow.flow), failure));
        let kept = self.routes.failed(now).map(|failure| (Avoider::KeptRoutes, *failure));
        let lost = self.target.iter().flat_map(|target| target.lost.iter(now));
        let lost = lost.map(|failure| (Avoider::Attachments, *failure));
        flows.chain(kept).chain(lost).map(|(by, failure)| Avoided { by, failure }).collect()
    }

    /// These relays failed a flow: routes that lead over them are doubtful.
    pub(super) fn note_failed(&mut self, flow: FlowKey, nodes: &[NodeId], now: Time) {
        for node in nodes {
            let remembered = self.flows.avoided_by(flow, now).find(|failure| failure.node == *node);
            let seen = || self.evidence(*node).map(Ground::Seen);
            let ground = remembered.map(|failure| failure.ground).or_else(seen);
            self.routes.note_failed(*node, ground.unwrap_or(Ground::Hearsay), now);
        }
    }

    /// What speaks against a neighbour now, as its link shows.
    pub(super) fn evidence(&self, node: NodeId) -> Option<Evidence> {
        let links = self.flows.links();
        match links.standing(node) {
            Standing::Up | Standing::Absent => None,
            Standing::Draining => Some(Evidence::Word),
            Standing::Suspect => {
                let reason = links.active(node).and_then(|link| links.reason(link));
                Some(reason.map_or(Evidence::Silence, |reason| reason.evidence))
            }
            Standing::Failed => Some(Evidence::NoAnswer),
        }
    }
}
