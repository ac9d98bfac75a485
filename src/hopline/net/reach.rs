//! Which relays a node dials, and which it could not reach, so that a command that waits can say why.

use futures_util::future::BoxFuture;
use hopline_proto::NodeId;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;

/// Neighbours that are remembered for not having been reached.
const MAX_UNREACHED: usize = 1024;
/// When nobody was reached, it takes so long at most until others are dialled, if there are others.
const PAUSE: Duration = Duration::from_millis(400);

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Reach(watch::Sender<Dials>);

#[derive(Debug, Default)]
struct Dials {
    under_way: usize,
    unreached: BTreeSet<NodeId>,
    /// Whether anybody was ever reached.
    any: bool,
}

impl Dials {
    fn are_in_vain(&self) -> bool {
        self.under_way == 0 && !self.any && !self.unreached.is_empty()
    }
}

impl Reach {
    /// A neighbour is dialled.
    pub(crate) fn dials(&self) {
        self.0.send_modify(|dials| dials.under_way += 1);
    }

    /// That has ended.
    pub(crate) fn has_dialled(&self, peer: NodeId, reached: bool) {
        self.0.send_modify(|dials| {
            dials.under_way = dials.under_way.saturating_sub(1);
            dials.any |= reached;
            if reached {
                dials.unreached.remove(&peer);
            } else if dials.unreached.len() < MAX_UNREACHED {
                dials.unreached.insert(peer);
            }
        });
    }

    /// How many neighbours it dialled in vain, if it never reached any; else none.
    pub fn in_vain(&self) -> usize {
        let dials = self.0.borrow();
        if dials.any { 0 } else { dials.unreached.len() }
    }

    /// Ends when it has reached none of those whom it dialled, and dials nobody else.
    pub fn until_in_vain(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let mut dials = self.0.subscribe();
            while dials.wait_for(Dials::are_in_vain).await.is_ok() {
                if timeout(PAUSE, dials.changed()).await.is_err() {
                    return;
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use tokio::time::Instant;

    const fn peer(n: u8) -> NodeId {
        NodeId::from_bytes([n; 32])
    }

    #[tokio::test]
    async fn all_is_in_vain_when_the_last_has_failed_and_nobody_else_is_dialled() {
        let reach = Reach::default();
        assert!(reach.until_in_vain().now_or_never().is_none(), "nobody was dialled yet");
        reach.dials();
        reach.dials();
        reach.has_dialled(peer(1), false);
        assert!(reach.until_in_vain().now_or_never().is_none(), "the other may answer");
        reach.has_dialled(peer(2), false);
        reach.dials();
        reach.has_dialled(peer(2), false);
        let since = Instant::now();
        reach.until_in_vain().await;
        assert!(since.elapsed() >= PAUSE, "others may be named");
        assert_eq!(reach.in_vain(), 2, "each counts once");
    }

    #[tokio::test]
    async fn nothing_is_in_vain_once_somebody_was_reached() {
        let reach = Reach::default();
        for (peer, reached) in [(peer(1), false), (peer(2), true)] {
            reach.dials();
            reach.has_dialled(peer, reached);
        }
        assert!(reach.until_in_vain().now_or_never().is_none());
        assert_eq!(reach.in_vain(), 0);
    }
}
