//! Plans: no relay twice on a chain, no backup that is the primary, nobody who was excluded or has been dead for long.

use hopline_proto::NodeId;
use hopline_proto::rpc::{Request, Response};
use std::collections::BTreeSet;

/// Looks at an answer that names these relays, by hop.
pub(super) fn check(
    request: &Request,
    response: &Response,
    named: &[Vec<NodeId>],
    is_long_dead: impl Fn(NodeId) -> bool,
) -> Result<(), String> {
    if let Some(hop) = named.iter().find(|hop| !are_distinct(hop)) {
        return Err(format!("the candidates of a hop are not distinct: {hop:?}"));
    }
    let (Request::Plan { exclude, hops, .. } | Request::Spare { exclude, hops, .. }, Response::Planned(_)) =
        (request, response)
    else {
        return Ok(());
    };
    let relays = named.split_last().map_or(&[][..], |(_, relays)| relays);
    if relays.len() != usize::from(*hops) {
        return Err(format!("{} hops planned instead of {hops}", relays.len()));
    }
    let primaries: Vec<NodeId> = relays.iter().filter_map(|hop| hop.first().copied()).collect();
    if !are_distinct(&primaries) {
        return Err(format!("a relay is primary of two hops: {primaries:?}"));
    }
    if let Some(node) = relays.iter().flatten().find(|node| exclude.contains(node)) {
        return Err(format!("{node:?} was planned though excluded"));
    }
    match relays.iter().flatten().find(|node| is_long_dead(**node)) {
        Some(node) => Err(format!("{node:?} was planned though its lease must have ended")),
        None => Ok(()),
    }
}

fn are_distinct(nodes: &[NodeId]) -> bool {
    nodes.iter().collect::<BTreeSet<_>>().len() == nodes.len()
}
