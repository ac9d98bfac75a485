//! Which relays an endpoint avoids, and why.

use super::Endpoint;
use crate::failure_memory::{Failure, Ground};
use crate::flows::FlowKey;
use crate::frame::Evidence;
use crate::id::{FlowId, NodeId};
use crate::links::Standing;
use crate::time::Time;

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

impl Endpoint {
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
