//! Calls of a bootstrap, which has news for this node and wants to hear from it now, rather than with its next heartbeat.
//!
//! Whatever else a bootstrap says on such a stream is read and forgotten.

use crate::net::ping;
use quinn::Connection;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// How long one may take to arrive once it has begun.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Takes note of calls over a connection until that is over.
pub(super) async fn hear(called: Arc<Notify>, connection: Connection) {
    while let Ok(stream) = connection.accept_uni().await {
        if ping::is_call(stream, TIMEOUT).await {
            called.notify_one();
        }
    }
}
