//! Law 4: the epoch under which a node is attached for a flow only grows, for as long as it keeps the flow.

use crate::network::NodeIndex;
use hopline_proto::Epoch;
use hopline_proto::flows::FlowKey;
use std::collections::BTreeMap;

/// The greatest epoch seen of each flow at each node.
#[derive(Default)]
pub(super) struct Epochs(BTreeMap<(NodeIndex, FlowKey), Epoch>);

impl Epochs {
    pub(super) fn check(&mut self, node: NodeIndex, key: FlowKey, epoch: &Epoch) -> Result<(), String> {
        match self.0.get_mut(&(node, key)) {
            Some(seen) if *epoch < *seen => Err(format!("epoch {epoch:?} after {seen:?}")),
            Some(seen) if epoch == seen => Ok(()),
            Some(seen) => {
                seen.clone_from(epoch);
                Ok(())
            }
            None if epoch.hop() == usize::from(key.hop) || epoch.hop() == 0 => {
                self.0.insert((node, key), epoch.clone());
                Ok(())
            }
            None => Err(format!("epoch {epoch:?} is not a path of {} hops", key.hop)),
        }
    }

    pub(super) fn forget(&mut self, node: NodeIndex, key: FlowKey) {
        self.0.remove(&(node, key));
    }

    pub(super) fn forget_node(&mut self, node: NodeIndex) {
        self.0.retain(|(at, _), _| *at != node);
    }
}
