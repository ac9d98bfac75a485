//! Which members are connected, and how their connections ended.

use crate::net::bootstrap_rpc::BootstrapClose;
use crate::proto::NodeId;
use quinn::ConnectionError;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Most connections of one member: it needs one, and those of before may not have ended yet.
const MOST: usize = 8;

/// How many connections each member has. It knows those only that have any.
#[derive(Debug, Default)]
pub(super) struct Presence(Mutex<HashMap<NodeId, usize>>);

impl Presence {
    /// A member wants one more. Returns how many it has then; none if it has too many already.
    pub(super) fn arrive(&self, node: NodeId) -> Option<usize> {
        let mut connections = self.connections();
        let count = connections.entry(node).or_default();
        (*count < MOST).then(|| {
            *count += 1;
            *count
        })
    }

    /// Whether a member has any.
    pub(super) fn is_here(&self, node: &NodeId) -> bool {
        self.connections().contains_key(node)
    }

    /// A member has one less. Returns whether it was the last.
    pub(super) fn leave(&self, node: NodeId) -> bool {
        let mut connections = self.connections();
        let left = connections.get_mut(&node).map_or(0, |count| {
            *count -= 1;
            *count
        });
        if left == 0 {
            connections.remove(&node);
        }
        left == 0
    }

    fn connections(&self) -> MutexGuard<'_, HashMap<NodeId, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a member's connection broke: neither end meant to end it.
pub(super) fn is_broken(end: &ConnectionError) -> bool {
    match end {
        // By this side: too old, shutting down, or against somebody who lives and breaks the protocol.
        ConnectionError::LocallyClosed => false,
        ConnectionError::ApplicationClosed(_) => BootstrapClose::of(end) != Some(BootstrapClose::Done),
        ConnectionError::VersionMismatch
        | ConnectionError::TransportError(_)
        | ConnectionError::ConnectionClosed(_)
        | ConnectionError::Reset
        | ConnectionError::TimedOut
        | ConnectionError::CidsExhausted => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quinn::ApplicationClose;

    #[test]
    fn the_last_connection_is_told_from_others() {
        let (presence, node) = (Presence::default(), NodeId::from_bytes([1; 32]));
        assert_eq!([presence.arrive(node), presence.arrive(node)], [Some(1), Some(2)]);
        assert_eq!([presence.leave(node), presence.leave(node)], [false, true]);
        assert!(presence.leave(node) && !presence.is_here(&node));
        assert_eq!((0..20).filter(|_| presence.arrive(node).is_some()).count(), MOST);
    }

    #[test]
    fn a_goodbye_breaks_nothing() {
        let closed = |code: BootstrapClose| {
            let (error_code, reason) = (code.number().into(), bytes::Bytes::new());
            ConnectionError::ApplicationClosed(ApplicationClose { error_code, reason })
        };
        for ended in [closed(BootstrapClose::Done), ConnectionError::LocallyClosed] {
            assert!(!is_broken(&ended), "{ended}");
        }
        let broken = [closed(BootstrapClose::Internal), ConnectionError::TimedOut, ConnectionError::Reset];
        assert!(broken.iter().all(is_broken));
    }
}
