//! Who has said goodbye lately.
//!
//! A process asks over several streams and connections, so what it asked first may arrive last. A registration that comes after
//! the goodbye of the same process is no registration: nobody would ever end it.
//!
//! Bounds: [`MAX_DEPARTED`] nodes, of which the one that left first is forgotten first, and each after [`REMEMBERED`].

use crate::id::{BootId, NodeId};
use crate::time::Time;
use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

const MAX_DEPARTED: usize = 16_384;
/// Longer than any question is under way.
const REMEMBERED: Duration = Duration::from_secs(600);

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Departed {
    /// The process of each that left, and when.
    known: HashMap<NodeId, (BootId, Time)>,
    order: BTreeSet<(Time, NodeId)>,
}

impl Departed {
    /// This process of the node has left.
    pub(super) fn note(&mut self, node: NodeId, boot: BootId, now: Time) {
        if let Some((_, before)) = self.known.insert(node, (boot, now)) {
            self.order.remove(&(before, node));
        }
        self.order.insert((now, node));
        let is_over = |(at, _): &(Time, NodeId)| now.since(*at) >= REMEMBERED;
        while self.order.len() > MAX_DEPARTED || self.order.first().is_some_and(is_over) {
            let Some((_, node)) = self.order.pop_first() else { break };
            self.known.remove(&node);
        }
    }

    /// Whether this process of the node has left.
    pub(super) fn has_left(&self, node: &NodeId, boot: BootId) -> bool {
        self.known.get(node).is_some_and(|(left, _)| *left == boot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(n: u32) -> NodeId {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&n.to_be_bytes());
        NodeId::from_bytes(bytes)
    }

    #[test]
    fn so_many_are_remembered_for_so_long() {
        let mut departed = Departed::default();
        let (boot, start) = (BootId::from_bytes([1; 16]), Time::from_micros(1_000_000));
        for n in 0..20_000 {
            departed.note(node(n), boot, start);
            departed.note(node(n), boot, start + Duration::from_millis(n.into()));
        }
        assert_eq!((departed.known.len(), departed.order.len()), (MAX_DEPARTED, MAX_DEPARTED));
        assert!(departed.has_left(&node(19_999), boot) && !departed.has_left(&node(0), boot));
        assert!(!departed.has_left(&node(19_999), BootId::from_bytes([2; 16])), "a later process of it");
        departed.note(node(1), boot, start + REMEMBERED * 2);
        assert_eq!((departed.known.len(), departed.order.len()), (1, 1));
    }
}
