//! Whether the transport at the other end of a connection still answers, and a call over it that needs no answer.
//!
//! Both are one byte on a new unidirectional stream, and never wait for one to be free.

use futures_util::FutureExt;
use quinn::{Connection, RecvStream};
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// Wants nothing but the transport's acknowledgement.
const SIGN_OF_LIFE: u8 = b'?';
/// Wants to hear from the node now.
const CALL: u8 = b'!';

/// Calls the node at the other end. Whether that is on its way: not if too much was asked before, or the connection is over.
pub(crate) fn call(connection: &Connection) -> bool {
    let called = async {
        let mut stream = connection.open_uni().await.ok()?;
        let written = stream.write_all(&[CALL]).now_or_never();
        let sent = written.is_some_and(|written| written.is_ok()) && stream.finish().is_ok();
        if !sent {
            let _ = stream.reset(0u32.into()); // fails only if it is over
        }
        Some(sent)
    };
    called.now_or_never().flatten().unwrap_or(false)
}

/// Whether a stream is a call, if it says so within `limit`. Everything else says nothing.
pub(crate) async fn is_call(mut stream: RecvStream, limit: Duration) -> bool {
    matches!(timeout(limit, stream.read_to_end(1)).await, Ok(Ok(said)) if said == [CALL])
}

/// Whether it acknowledges a stream within `limit`, or four round trips. `None` if that can't be said: too much was asked
/// before, the connection is over, or this process was late itself.
pub(crate) async fn acknowledges(connection: &Connection, limit: Duration) -> Option<bool> {
    let mut stream = connection.open_uni().now_or_never()?.ok()?;
    let limit = limit.max(connection.rtt() * 4);
    let began = Instant::now();
    let acknowledged = async {
        stream.write_all(&[SIGN_OF_LIFE]).await.ok()?;
        stream.finish().ok()?;
        stream.stopped().await.ok()
    };
    if matches!(timeout(limit, acknowledged).await, Ok(Some(_))) {
        return Some(true);
    }
    let _ = stream.reset(0u32.into()); // fails only if it is over
    (began.elapsed() <= limit * 3 / 2).then_some(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::testing::pair;
    use crate::net::transport::TransportSettings;

    const TIMEOUT: Duration = Duration::from_secs(10);

    async fn next_is_call(connection: &Connection, limit: Duration) -> bool {
        is_call(timeout(TIMEOUT, connection.accept_uni()).await.unwrap().unwrap(), limit).await
    }

    #[tokio::test]
    async fn a_call_is_told_from_everything_else() {
        let ([near, far], _endpoints) = pair(&TransportSettings::default()).await;
        for said in [&b""[..], b"?", b"!!", b"nonsense", &[0; 4096]] {
            let mut stream = near.open_uni().await.unwrap();
            stream.write_all(said).await.unwrap();
            stream.finish().unwrap();
            assert!(!next_is_call(&far, TIMEOUT).await, "{said:?}");
        }
        assert!(call(&near));
        assert!(next_is_call(&far, TIMEOUT).await);
        assert_eq!(acknowledges(&near, TIMEOUT).await, Some(true));
        assert!(!next_is_call(&far, TIMEOUT).await, "nobody calls who looks for a sign of life");
        let mut unfinished = near.open_uni().await.unwrap();
        unfinished.write_all(b"!").await.unwrap();
        assert!(!next_is_call(&far, Duration::from_millis(20)).await, "nobody waits for the rest");
    }

    #[tokio::test]
    async fn who_is_not_heard_calls_so_often_and_never_waits() {
        let ([near, far], _endpoints) = pair(&TransportSettings::default()).await;
        let calls = (0..100).filter(|_| call(&near)).count();
        assert!((1..100).contains(&calls), "{calls}");
        for _ in 0..calls {
            assert!(next_is_call(&far, TIMEOUT).await);
        }
        far.close(0u32.into(), b"");
        near.closed().await;
        assert!(!call(&near));
    }
}
