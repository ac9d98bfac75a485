//! Moves a flow's bytes between its lanes and its application, on the node's thread.

use super::flow_io::{Reached, ToNode};
use crate::net::node::Node;
use bytes::Bytes;
use hopline_proto::endpoint::Endpoint as Machine;
use hopline_proto::flows::{FlowKey, Flows};
use hopline_proto::splice::Splice;
use std::rc::Rc;
use tokio::sync::{mpsc, watch};

type Driven = Rc<Node<Machine>>;

/// Gives the application what arrives; no chunks are the end.
pub(super) async fn give(node: Driven, flow: FlowKey, to_app: mpsc::Sender<Vec<Bytes>>) {
    let signal = node.signal(flow);
    loop {
        let Some((direction, chunks, ended)) = node.flows(|flows| flows.to_take(&flow)) else { return };
        let taken: usize = chunks.iter().map(Bytes::len).sum();
        if taken == 0 && !ended {
            signal.data(direction).notified().await;
            continue;
        }
        // Whoever drops a flow says what that means.
        if to_app.send(chunks).await.is_err() {
            return;
        }
        node.with_flows(|flows, now, actions| flows.took(flow, taken, now, actions));
        signal.room(direction).notify_waiters();
        if taken == 0 {
            return;
        }
    }
}

/// Takes what the application sends, up to its end, and tells how far that has got then.
pub(super) async fn take(
    node: Driven,
    flow: FlowKey,
    mut from_app: mpsc::Receiver<ToNode>,
    told: watch::Sender<Reached>,
) {
    let signal = node.signal(flow);
    while let Some(message) = from_app.recv().await {
        let ToNode::Data(bytes) = message else {
            node.with_flows(|flows, now, actions| flows.finish(flow, now, actions));
            return follow(&node, flow, &told).await;
        };
        while let Some((false, direction)) = node.flows(|flows| flows.may_send(&flow)) {
            signal.room(direction).notified().await;
        }
        let sent = node.with_flows(|flows, now, actions| flows.send(flow, bytes, now, actions));
        if sent.is_err() {
            return;
        }
    }
}

/// Tells how far all that the application sent has got, until it was taken.
async fn follow(node: &Driven, flow: FlowKey, told: &watch::Sender<Reached>) {
    let signal = node.signal(flow);
    let look = |flows: &mut Flows| flows.splice(&flow).map(|splice| (splice.source(), reached(splice)));
    while let Some((direction, reached)) = node.flows(look) {
        told.send_replace(reached);
        if reached == Reached::Taken {
            return;
        }
        signal.room(direction).notified().await;
    }
}

fn reached(splice: &Splice) -> Reached {
    let lane = splice.lane(splice.source());
    match lane.fin() {
        Some(end) if lane.acked() > end => Reached::Taken,
        Some(end) if lane.acked() == end => Reached::Arrived,
        Some(_) | None => Reached::Nothing,
    }
}
