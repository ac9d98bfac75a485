//! Which members are connected, and how their connections ended.

use crate::net::bootstrap_rpc::BootstrapClose;
use crate::net::ping;
use hopline_proto::NodeId;
use quinn::{Connection, ConnectionError};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Most connections of one member. It needs one; of those of before this side may not have heard yet that they ended.
const MOST: usize = 8;
/// How long a member that was reported down may take to show that it lives.
const TIMEOUT: Duration = Duration::from_secs(1);

/// The connections of each member. It knows those only that have any.
#[derive(Debug)]
pub(super) struct Presence<C>(Mutex<HashMap<NodeId, Vec<(usize, C)>>>);

impl<C> Default for Presence<C> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<C: Clone> Presence<C> {
    /// A member has one more, which is called by this number. Returns how many it has then, and, if it had as many as it may, the
    /// oldest, which it has no more: processes that were killed leave theirs behind.
    pub(super) fn arrive(&self, node: NodeId, number: usize, connection: C) -> (usize, Option<C>) {
        let mut members = self.members();
        let connections = members.entry(node).or_default();
        let replaced = (connections.len() >= MOST).then(|| connections.remove(0).1);
        connections.push((number, connection));
        (connections.len(), replaced)
    }

    /// Whether a member has any.
    pub(super) fn is_here(&self, node: &NodeId) -> bool {
        self.members().contains_key(node)
    }

    /// Those of a member, with their numbers.
    pub(super) fn of(&self, node: &NodeId) -> Vec<(usize, C)> {
        self.members().get(node).cloned().unwrap_or_default()
    }

    /// By which numbers those of a member are called.
    pub(super) fn numbers(&self, node: &NodeId) -> Vec<usize> {
        let members = self.members();
        members.get(node).into_iter().flatten().map(|(number, _)| *number).collect()
    }

    /// A member has this one no more. Returns whether it was the last.
    pub(super) fn leave(&self, node: NodeId, number: usize) -> bool {
        let mut members = self.members();
        let Some(connections) = members.get_mut(&node) else { return true };
        connections.retain(|(one, _)| *one != number);
        let is_gone = connections.is_empty();
        if is_gone {
            members.remove(&node);
        }
        is_gone
    }

    fn members(&self) -> MutexGuard<'_, HashMap<NodeId, Vec<(usize, C)>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A member's connection, as others may look whether it is whole.
#[derive(Clone, Debug)]
pub(super) struct Line {
    connection: Connection,
    /// One asks at a time.
    asking: Arc<Semaphore>,
}

impl Line {
    pub(super) fn new(connection: Connection) -> Self {
        Self { connection, asking: Arc::new(Semaphore::new(1)) }
    }

    /// Ends it.
    pub(super) fn close(&self, code: BootstrapClose) {
        code.close(&self.connection);
    }

    /// Has the member ask this bootstrap something now, if it has a lease. Whether that is on its way.
    pub(super) fn call(&self) -> bool {
        ping::call(&self.connection)
    }

    /// Whether the other end's transport still answers: it acknowledges a stream. `None` if that can't be said: somebody has
    /// been asking for all of `turn`, too much was asked before, the connection ends as it should, or this process was late
    /// itself.
    pub(super) async fn answers(&self, turn: Duration) -> Option<bool> {
        let _asking = timeout(turn, self.asking.acquire()).await.ok()?.ok()?;
        let acknowledges = ping::acknowledges(&self.connection, TIMEOUT).await;
        match self.connection.close_reason().filter(|_| acknowledges != Some(true)) {
            Some(end) => is_broken(&end).then_some(false),
            None => acknowledges,
        }
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
        assert_eq!([presence.arrive(node, 7, 'a'), presence.arrive(node, 9, 'b')], [(1, None), (2, None)]);
        assert_eq!((presence.leave(node, 7), presence.of(&node)), (false, vec![(9, 'b')]));
        assert!(!presence.leave(node, 7) && presence.leave(node, 9), "each once");
        assert!(presence.leave(node, 9) && !presence.is_here(&node));
    }

    #[test]
    fn the_newest_takes_the_place_of_the_oldest() {
        let (presence, node) = (Presence::default(), NodeId::from_bytes([1; 32]));
        let replaced = (0..20).filter_map(|number| presence.arrive(node, number, number).1);
        assert_eq!(replaced.collect::<Vec<_>>(), (0..20 - MOST).collect::<Vec<_>>());
        assert_eq!(presence.of(&node).len(), MOST);
        assert!(!presence.leave(node, 3), "it had left already, and others are there");
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
