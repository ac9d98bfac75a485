//! Law 6: whoever accepts a leg was named by the bootstrap as a candidate for that hop of that chain.

use hopline_proto::flows::FlowKey;
use hopline_proto::frame::Attach;
use hopline_proto::record::{Candidate, ChainSecret, Scope};
use hopline_proto::rpc::Response;
use hopline_proto::splice::LegId;
use hopline_proto::{ChainId, NodeId};
use std::collections::{BTreeSet, HashMap};

/// Everything that the bootstrap has issued.
#[derive(Default)]
pub(super) struct Issued {
    chains: HashMap<ChainId, (ChainSecret, BTreeSet<(u8, NodeId)>)>,
    offered: HashMap<LegId, Scope>,
}

impl Issued {
    /// The bootstrap answers; returns whom it names, by hop.
    #[expect(clippy::wildcard_enum_match_arm, reason = "only two answers name relays for a chain")]
    pub(super) fn answered(&mut self, response: &Response) -> Vec<Vec<NodeId>> {
        let (chain, first, hops) = match response {
            Response::Planned(planned) => {
                let Some(scope) = planned.route.scope() else { return Vec::new() };
                self.chains.insert(scope.chain, (planned.route.secret.clone(), BTreeSet::new()));
                (scope.chain, 1, planned.route.open().unwrap_or_default())
            }
            Response::Replaced(record) => {
                let chain = record.scope.chain;
                let secret = self.chains.get(&chain).map(|(secret, _)| secret);
                let candidates = secret.and_then(|secret| secret.open(record)).unwrap_or_default();
                (chain, record.scope.hop, vec![candidates])
            }
            _ => return Vec::new(),
        };
        let nodes = |hop: &Vec<Candidate>| hop.iter().map(|candidate| candidate.node).collect();
        let hops: Vec<Vec<NodeId>> = hops.iter().map(nodes).collect();
        if let Some((_, known)) = self.chains.get_mut(&chain) {
            for (hop, nodes) in (first..).zip(&hops) {
                known.extend(nodes.iter().map(|node| (hop, *node)));
            }
        }
        hops
    }

    pub(super) fn offered(&mut self, leg: LegId, attach: &Attach) {
        let scope = attach.records.first().map(|record| record.scope);
        self.offered.extend(scope.map(|scope| (leg, scope)));
    }

    pub(super) fn accepts(&mut self, leg: LegId, node: NodeId, flow: FlowKey) -> Result<(), String> {
        let scope = self.offered.remove(&leg).ok_or("a leg was answered that nobody opened")?;
        let (_, known) = self.chains.get(&scope.chain).ok_or("a leg of a chain that was never planned")?;
        if (scope.hop, scope.origin) != (flow.hop, flow.origin) {
            return Err(format!("a leg for hop {} was taken for one of hop {}", scope.hop, flow.hop));
        }
        if known.contains(&(scope.hop, node)) {
            Ok(())
        } else {
            Err(format!("{node:?} forwards at hop {}, for which nobody named it", scope.hop))
        }
    }
}
