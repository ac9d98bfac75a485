//! Whether the two ends of a connection have a version of the protocol in common, which TLS has settled; and if not, what each
//! tells the other before they part, so that people at both ends know which node to upgrade.
//!
//! The node that dialled says on a unidirectional stream what it speaks; the other one closes the connection, and its reason
//! is what it speaks itself.

use hopline_proto::version::{Mismatch, Versions};
use quinn::crypto::rustls::HandshakeData;
use quinn::{Connection, ConnectionError};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// How long the other side may take to say what it speaks.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Whether they have one.
pub(crate) fn is_common(connection: &Connection) -> bool {
    let data = connection.handshake_data().and_then(|data| data.downcast::<HandshakeData>().ok());
    data.and_then(|data| data.protocol).is_some_and(|name| Versions::is_version(&name))
}

/// If they have none, this node learns what the other one speaks, and tells it the same. The connection is over then.
///
/// # Errors
/// [`Mismatch`] if they have none.
pub(crate) async fn agree(connection: &Connection, ours: Versions, dialed: bool) -> Result<(), Mismatch> {
    if is_common(connection) {
        return Ok(());
    }
    let asked = async { if dialed { ask(connection, ours).await } else { tell(connection, ours).await } };
    let theirs = timeout(TIMEOUT, asked).await.ok().flatten();
    connection.close(0u32.into(), &ours.to_bytes());
    Err(Mismatch { ours, theirs })
}

async fn ask(connection: &Connection, ours: Versions) -> Option<Versions> {
    let mut sender = connection.open_uni().await.ok()?;
    sender.write_all(&ours.to_bytes()).await.ok()?;
    sender.finish().ok()?;
    if let ConnectionError::ApplicationClosed(close) = connection.closed().await {
        Versions::from_bytes(&close.reason)
    } else {
        None
    }
}

async fn tell(connection: &Connection, ours: Versions) -> Option<Versions> {
    let mut bytes = ours.to_bytes();
    let mut receiver = connection.accept_uni().await.ok()?;
    receiver.read_exact(&mut bytes).await.ok()?;
    Versions::from_bytes(&bytes)
}

/// The same over a stream of bytes that both ends have alone, which is of no use afterwards.
///
/// # Errors
/// What keeps the two from telling each other.
pub(crate) async fn exchange(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    ours: Versions,
) -> io::Result<Mismatch> {
    let mut bytes = ours.to_bytes();
    stream.write_all(&bytes).await?;
    stream.flush().await?;
    stream.read_exact(&mut bytes).await?;
    Ok(Mismatch { ours, theirs: Versions::from_bytes(&bytes) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::authority::Authority;
    use crate::net::testing::{LOOPBACK, member};
    use crate::net::tls;
    use quinn::Endpoint;

    /// What the node that dials and the one that is dialled make of it.
    async fn meet(dials: Versions, accepts: Versions) -> [Result<(), Mismatch>; 2] {
        let authority = Authority::generate();
        let (near, far) = (member(&authority), member(&authority));
        let accepting = Endpoint::server(tls::link_server_of(&far, accepts).unwrap(), LOOPBACK).unwrap();
        let dialling = Endpoint::client(LOOPBACK).unwrap();
        let client = tls::link_client_of(&near, dials).unwrap();
        let (to, name) = (accepting.local_addr().unwrap(), tls::node_name(far.node_id()));
        let dialled = async {
            let connection = dialling.connect_with(client, to, &name.to_str()).unwrap().await.unwrap();
            agree(&connection, dials, true).await
        };
        let accepted = async {
            let connection = accepting.accept().await.unwrap().await.unwrap();
            agree(&connection, accepts, false).await
        };
        let (dialled, accepted) = tokio::join!(dialled, accepted);
        [dialled, accepted]
    }

    #[tokio::test]
    async fn the_ends_of_a_stream_tell_each_other_too() {
        let (old, new) = (Versions { oldest: 1, newest: 1 }, Versions { oldest: 2, newest: 3 });
        let (mut near, mut far) = tokio::io::duplex(64);
        let (here, there) = tokio::join!(exchange(&mut near, old), exchange(&mut far, new));
        let here = here.unwrap();
        assert_eq!(here, Mismatch { ours: old, theirs: Some(new) });
        assert_eq!(there.unwrap(), here.reversed());
    }

    #[tokio::test]
    async fn nodes_without_a_common_version_tell_each_other_what_they_speak() {
        let (old, new) = (Versions { oldest: 1, newest: 1 }, Versions { oldest: 2, newest: 3 });
        let both = Versions { oldest: 1, newest: 3 };
        for (dials, accepts) in [(old, new), (new, old)] {
            let near = Mismatch { ours: dials, theirs: Some(accepts) };
            let far = Mismatch { ours: accepts, theirs: Some(dials) };
            assert_eq!(meet(dials, accepts).await, [Err(near), Err(far)]);
        }
        for (dials, accepts) in [(old, old), (old, both), (both, new)] {
            assert_eq!(meet(dials, accepts).await, [Ok(()), Ok(())]);
        }
    }
}
