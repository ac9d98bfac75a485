//! Flows of which nothing but the chain stands: to become a stored flow, or to carry a session.

use super::OpenError;
use super::driver::Command;
use super::flow_io::Raw;
use crate::net::entropy;
use hopline_proto::endpoint::Destination;
use hopline_proto::flows::FlowKey;
use hopline_proto::id::{FlowId, NodeId};
use tokio::sync::{mpsc, oneshot};

/// Opens one to a name, if possible without the relays of another flow. Returns also who is at its other end.
pub(super) async fn open(
    node: &mpsc::Sender<Command>,
    name: &str,
    hops: u8,
    apart_from: Option<FlowKey>,
) -> Result<(Raw, NodeId), OpenError> {
    let flow = FlowId::random(&mut entropy::seeded_rng());
    let (reply, opened) = oneshot::channel();
    let to = Destination { name: name.to_owned(), hops };
    node.send(Command::Open { flow, to, apart_from, reply }).await.map_err(|_| OpenError::Closed)?;
    Ok(opened.await.map_err(|_| OpenError::Closed)??)
}
