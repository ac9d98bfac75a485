//! Whether the transport at the other end of a connection still answers.

use futures_util::FutureExt;
use quinn::Connection;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// Whether it acknowledges a stream within `patience`, or four round trips. `None` if that can't be said: too much was asked
/// before, the connection is over, or this process was late itself.
pub(crate) async fn acknowledges(connection: &Connection, patience: Duration) -> Option<bool> {
    let mut stream = connection.open_uni().now_or_never()?.ok()?;
    let patience = patience.max(connection.rtt() * 4);
    let began = Instant::now();
    let acknowledged = async {
        stream.write_all(b"?").await.ok()?;
        stream.finish().ok()?;
        stream.stopped().await.ok()
    };
    if matches!(timeout(patience, acknowledged).await, Ok(Some(_))) {
        return Some(true);
    }
    let _ = stream.reset(0u32.into()); // fails only if it is over
    (began.elapsed() <= patience * 3 / 2).then_some(false)
}
