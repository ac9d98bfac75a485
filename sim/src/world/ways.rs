//! Whether packets of sessions would get through: what the machines answer is followed from node to node.
//!
//! A flow's packets take the legs that its bytes take. So a packet comes out at the flow's other end or is held somewhere, and
//! where bytes get through all the time, packets do, too.

use super::World;
use crate::conn::{Stage, link_id, of_link};
use crate::network::NodeIndex;
use hopline_proto::epoch::MAX_HOPS;
use hopline_proto::flows::{FlowKey, Way};
use hopline_proto::machine::Machine;
use hopline_proto::splice::LegId;

/// So many looks in a row, a second each, at which bytes have come and packets would not have. A broken chain's relays still have bytes to
/// give, but after 25 s without a way the flow ends.
const MAX_MISSES: u32 = 30;

/// One direction of a flow, as it was looked at last.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    taken: u64,
    misses: u32,
}

impl World {
    /// Looks at both ways of each flow.
    pub(crate) fn check_ways(&mut self) {
        for app in 0..self.apps.iter().count() {
            for end in [0, 1] {
                if let Err(what) = self.check_way(app, end) {
                    let now = self.now;
                    self.checks.fail("ways", now, format!("flow {app} from end {end}: {what}"));
                }
            }
        }
    }

    fn check_way(&mut self, app: usize, end: usize) -> Result<(), String> {
        let Some(flow) = self.apps.get(app) else { return Ok(()) };
        let nodes = [flow.plan.origin, flow.plan.target];
        let [from, to] = if end == 0 { nodes } else { [nodes[1], nodes[0]] };
        let (near, far) = (flow.half(end), flow.half(1 - end));
        let (Some(key), Some(there), taken) = (near.key, far.key, far.taken) else { return Ok(()) };
        if near.ended.is_some() || far.ended.is_some() {
            return Ok(());
        }
        let gets_through = match self.follow(from, key)? {
            Some(out) if out != (to, there) => return Err(format!("its packets come out at {out:?}")),
            out => out.is_some(),
        };
        let seen = self.ways.entry((app, end)).or_default();
        let has_moved = std::mem::replace(&mut seen.taken, taken) != taken;
        seen.misses = if gets_through || !has_moved { 0 } else { seen.misses + 1 };
        if seen.misses > MAX_MISSES {
            return Err("its bytes come, and packets would not".to_owned());
        }
        Ok(())
    }

    /// Where a packet comes out that an end of a flow sends now; `None` if it would be held or lost.
    fn follow(&mut self, from: NodeIndex, key: FlowKey) -> Result<Option<(NodeIndex, FlowKey)>, String> {
        let Some(mut leg) = self.asks(from, |flows| flows.way_out(&key)).flatten() else { return Ok(None) };
        for _ in 0..=MAX_HOPS {
            let (conn, side) = of_link(leg.link());
            let Some(this) = self.conn_mut(conn).filter(|this| this.end(1 - side).stage == Stage::Up) else {
                return Ok(None);
            };
            let node = this.end(1 - side).node;
            let there = LegId::new(link_id(conn, 1 - side), leg.number());
            match self.asks(node, |flows| flows.way(there)) {
                Some(Way::Leg(next)) => leg = next,
                Some(Way::Here(key)) => return Ok(Some((node, key))),
                Some(Way::Later) | None => return Ok(None),
            }
        }
        Err("its packets go in circles".to_owned())
    }

    /// What a node's flows answer, if it lives.
    pub(super) fn asks<T>(
        &mut self,
        index: NodeIndex,
        ask: impl FnOnce(&hopline_proto::flows::Flows) -> T,
    ) -> Option<T> {
        let role = self.nodes.at_mut(index).role.as_mut()?;
        Some(ask(Machine::flows(role)))
    }
}
