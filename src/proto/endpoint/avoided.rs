//! Which relays an endpoint avoids, and why.

use super::Endpoint;
use crate::failure_memory::{Failure, Ground};
use crate::frame::Evidence;
use crate::id::NodeId;
use crate::links::Standing;
use crate::time::Time;

/// What avoids a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Avoider {
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
    /// The relays that this endpoint avoids now.
    #[must_use]
    pub fn avoided(&self, now: Time) -> Vec<Avoided> {
        let kept = self.routes.failed(now).map(|failure| (Avoider::KeptRoutes, *failure));
        let lost = self.target.iter().flat_map(|target| target.lost.iter(now));
        let lost = lost.map(|failure| (Avoider::Attachments, *failure));
        kept.chain(lost).map(|(by, failure)| Avoided { by, failure }).collect()
    }

    /// These relays failed a flow: routes that lead over them are doubtful.
    pub(super) fn note_failed(&mut self, nodes: &[NodeId], now: Time) {
        for node in nodes {
            let ground = self.evidence(*node).map_or(Ground::Hearsay, Ground::Seen);
            self.routes.note_failed(*node, ground, now);
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
