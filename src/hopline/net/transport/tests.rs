use super::*;
use crate::net::authority::Authority;
use crate::net::identity::Membership;
use crate::net::testing::{LOOPBACK, dial, endpoint, member, pair};
use quinn::ConnectionError;
use std::sync::mpsc;
use tokio::time::timeout;

const TIMEOUT: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_taken_address_is_an_error_that_names_it() {
    let key = Key::from_bytes([1; 32]);
    let first = bind(LOOPBACK, None, &TransportSettings::default(), &key).unwrap();
    let taken = first.local_addr().unwrap();
    let error = bind(taken, None, &TransportSettings::default(), &key).unwrap_err();
    assert_eq!((error.address, error.kind()), (taken, crate::net::error::ErrorKind::Local));
    assert!(error.to_string().contains(&taken.to_string()), "{error}");
}

#[tokio::test]
async fn settings_out_of_bounds_are_brought_within() {
    let settings = TransportSettings {
        mtu: u16::MAX,
        idle_timeout: Duration::MAX,
        streams: u32::MAX,
        control_streams: u32::MAX,
        stream_window_bytes: u32::MAX,
        ..TransportSettings::default()
    };
    let _connected = pair(&settings).await;
    let _connected = pair(&TransportSettings { mtu: 0, ..TransportSettings::control() }).await;
}

#[tokio::test]
async fn streams_that_are_not_read_do_not_block_another() {
    let settings = TransportSettings { stream_window_bytes: 1 << 16, ..TransportSettings::default() };
    let ([near, far], _endpoints) = pair(&settings).await;
    let full = vec![0; 1 << 16];
    let mut stuck = Vec::new();
    // More than a connection's window that is a multiple of the stream's would take if it were smaller than the sum.
    for _ in 0..300 {
        let (mut stream, _) = near.open_bi().await.unwrap();
        stream.write_all(&full).await.unwrap();
        stuck.push(stream);
    }
    let mut control = near.open_uni().await.unwrap();
    control.write_all(b"ack").await.unwrap();
    let mut read = [0; 3];
    timeout(TIMEOUT, async { far.accept_uni().await.unwrap().read_exact(&mut read).await.unwrap() })
        .await
        .unwrap();
    assert_eq!(&read, b"ack");
}

#[tokio::test]
async fn of_heartbeats_that_cannot_leave_only_the_newest_waits() {
    let ([near, far], _endpoints) = pair(&TransportSettings::default()).await;
    // Nothing leaves before this task rests.
    for n in 0..10 {
        near.send_datagram(vec![n; 32].into()).unwrap();
    }
    let first = timeout(TIMEOUT, far.read_datagram()).await.unwrap().unwrap();
    assert_eq!(first, vec![9; 32]);
}

#[tokio::test]
async fn the_mtu_rises_where_the_network_carries_it() {
    let ([near, _far], _endpoints) = pair(&TransportSettings::default()).await;
    let (mut stream, _) = near.open_bi().await.unwrap();
    let risen = async {
        while near.stats().path.current_mtu < 6000 {
            stream.write_all(b"x").await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    timeout(TIMEOUT, risen).await.unwrap();
}

/// A node that accepts so many connections and then dies without a word, as if killed; on which address it was.
fn crash<T>(server: Membership, peers: usize, connect: impl FnOnce(SocketAddr) -> T) -> (SocketAddr, T) {
    let (address, addressed) = mpsc::channel();
    let (die, dying) = tokio::sync::oneshot::channel::<()>();
    let node = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let handles = runtime.block_on(async {
            let endpoint = endpoint(&server, LOOPBACK, &TransportSettings::default());
            address.send(endpoint.local_addr().unwrap()).unwrap();
            let mut connections = Vec::new();
            for _ in 0..peers {
                connections.push(endpoint.accept().await.unwrap().await.unwrap());
            }
            dying.await.unwrap();
            (connections, endpoint)
        });
        drop(runtime); // before the handles, so that nothing is left that could say goodbye for them
        drop(handles);
    });
    let address = addressed.recv().unwrap();
    let connected = connect(address);
    die.send(()).unwrap();
    node.join().unwrap();
    (address, connected)
}

/// How a connection to a node ends that crashes and comes back on its address with `back`'s secret.
fn end_after_restart(
    settings: &TransportSettings,
    change: impl FnOnce(Membership) -> Membership,
) -> ConnectionError {
    let authority = Authority::generate();
    let (client, server) = (member(&authority), member(&authority));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _inside = runtime.enter();
    let near = endpoint(&client, LOOPBACK, settings);
    let (address, connection) = crash(server.clone(), 1, |address| {
        runtime.block_on(dial(&near, &client, address, &server, settings))
    });
    let _back = endpoint(&change(server), address, &TransportSettings::default());
    let talk = async {
        // Without a packet from this side nobody is told. Both steps fail if one was on its way already.
        if let Ok((mut stream, _)) = connection.open_bi().await {
            let _ = stream.write_all(b"still there?").await;
        }
        connection.closed().await
    };
    runtime.block_on(async { timeout(TIMEOUT, talk).await.unwrap() })
}

#[test]
fn a_node_that_restarts_says_so_at_once() {
    let error = end_after_restart(&TransportSettings::default(), |same| same);
    assert_eq!(error, ConnectionError::Reset);
}

#[test]
fn all_peers_of_a_node_that_restarts_are_told_at_once() {
    const PEERS: usize = 12;
    let authority = Authority::generate();
    let (client, server) = (member(&authority), member(&authority));
    let (runtime, settings) = (tokio::runtime::Runtime::new().unwrap(), TransportSettings::default());
    let _inside = runtime.enter();
    let near = endpoint(&client, LOOPBACK, &settings);
    let connect = |address| {
        let dials = (0..PEERS).map(|_| dial(&near, &client, address, &server, &settings));
        runtime.block_on(futures_util::future::join_all(dials))
    };
    let (address, connections) = crash(server.clone(), PEERS, connect);
    let _back = endpoint(&server, address, &settings);
    let ends = connections.iter().map(|connection| async {
        if let Ok((mut stream, _)) = connection.open_bi().await {
            let _ = stream.write_all(b"still there?").await;
        }
        connection.closed().await
    });
    let all = timeout(Duration::from_secs(1), futures_util::future::join_all(ends));
    let ends = runtime.block_on(all).expect("nobody has to wait for the others");
    assert_eq!(ends, vec![ConnectionError::Reset; PEERS]);
}

#[test]
fn nobody_else_can_reset_a_nodes_connections() {
    let settings = TransportSettings { idle_timeout: Duration::from_secs(1), ..TransportSettings::default() };
    let error = end_after_restart(&settings, |_| member(&Authority::generate()));
    assert_eq!(error, ConnectionError::TimedOut);
}
