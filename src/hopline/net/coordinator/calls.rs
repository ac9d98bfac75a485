//! Calls of a bootstrap, which has news for this node and wants to hear from it now, rather than with its next heartbeat.
//!
//! The node is told at most once a second, however often it is called and by whom; calls that come closer together are one.
//! Whatever else a bootstrap says on such a stream is read and forgotten.

use super::line::Shared;
use crate::net::pulse;
use quinn::Connection;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::sleep;

/// How long a call is heeded after the one before, at least.
const PAUSE: Duration = Duration::from_secs(1);
/// How long one may take to arrive once it has begun.
const PATIENCE: Duration = Duration::from_secs(1);

/// Takes note of calls over a connection until that is over.
pub(super) async fn hear(called: Arc<Notify>, connection: Connection) {
    while let Ok(stream) = connection.accept_uni().await {
        if pulse::is_call(stream, PATIENCE).await {
            called.notify_one();
        }
    }
}

/// Has the node know of calls. Never ends.
pub(super) async fn pass_on(shared: Arc<Shared>) {
    loop {
        shared.called.notified().await;
        tracing::debug!("a bootstrap wants to hear from this node");
        shared.reached.send_modify(|times| *times += 1);
        sleep(PAUSE).await;
    }
}
