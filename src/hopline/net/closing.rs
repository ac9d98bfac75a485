//! What a process still has to send before it ends.
//!
//! A closed connection is announced in a packet. A process that ends before this packet has left leaves a dead connection behind:
//! the other end keeps it, and what depends on it, until it notices the silence. So a part that has connections holds a [`PendingClose`]
//! until its last packet has left, and the process's main function waits for all of them, for a limited time.

use futures_util::future::BoxFuture;
use std::sync::LazyLock;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;

static PENDING: LazyLock<watch::Sender<usize>> = LazyLock::new(watch::Sender::default);

/// Something that is still to be said; dropped when it is.
#[derive(Debug)]
pub(crate) struct PendingClose(());

impl PendingClose {
    pub(crate) fn new() -> Self {
        PENDING.send_modify(|pending| *pending += 1);
        Self(())
    }
}

impl Drop for PendingClose {
    fn drop(&mut self) {
        PENDING.send_modify(|pending| *pending -= 1);
    }
}

/// Waits until all is said, for so long at most.
pub fn all_sent(limit: Duration) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        let mut pending = PENDING.subscribe();
        // Who is late is not heard; and the sender lives as long as the process.
        let _ = timeout(limit, pending.wait_for(|pending| *pending == 0)).await;
    })
}
