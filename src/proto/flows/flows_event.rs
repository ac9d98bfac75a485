//! What comes of events beside actions: for the relay's or endpoint's machine that owns the flows.

use super::key::FlowKey;
use crate::id::NodeId;

/// What the owner of [`Flows`](super::Flows) has to act on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FlowsEvent {
    /// The last link to a neighbour went away.
    PeerGone(NodeId),
    /// A link to a neighbour is up.
    PeerUp(NodeId),
    /// A neighbour that is wanted could not be dialled; each time.
    PeerUnreachable {
        /// The node's id.
        node: NodeId,
        /// Whether others should know: it seemed fine before, and there is a way to it from here.
        is_new: bool,
    },
    /// A flow is over.
    Ended(FlowKey),
    /// A neighbour has been silent for too long.
    PeerSuspect {
        /// The node's id.
        node: NodeId,
        /// Whether the network says as well that it can't be reached.
        refused: bool,
    },
    /// A neighbour that was suspect is heard again.
    PeerRecovered(NodeId),
    /// A neighbour will leave.
    PeerDraining(NodeId),
    /// A hop of an origin's flow has no backup left.
    WantsBackup {
        /// The flow.
        flow: FlowKey,
        /// The hop.
        hop: u8,
        /// Who serves it now.
        active: Option<NodeId>,
    },
    /// An origin reaches nobody on its flow's chain.
    WantsRoute(FlowKey),
}
