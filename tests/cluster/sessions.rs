//! Flows over sessions: one QUIC connection from end to end, whose packets relays pass on.

use crate::fixture::{Cluster, TIMEOUT, pattern, primary, second_chain, until};
use futures_util::future::try_join_all;
use hopline::endpoint::{Endpoint, Options, Plane};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, split};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

async fn origin(cluster: &Cluster) -> Endpoint {
    cluster.join_over(Plane::Session).await
}

#[tokio::test(flavor = "multi_thread")]
async fn many_flows_share_a_chain_and_outlive_its_relays() {
    let mut cluster = Cluster::start(8);
    let _echo = cluster.serve(&["listen", "echo", "--echo", "--keep"]);
    let origin = origin(&cluster).await;
    let mut flows = try_join_all((0..64).map(|_| origin.open("echo"))).await.unwrap();
    let first = flows.first().unwrap();
    let (id, mut chain) = (first.id(), first.watch_chain());
    assert!(flows.iter().all(|flow| flow.id() == id), "one flow carries them all");
    let data = pattern(64 << 10);
    for hop in [2, 1, 3] {
        let victim = primary(&chain, hop);
        cluster.kill(&victim);
        let echoes = flows.iter_mut().map(async |flow| {
            flow.write_all(&data).await?;
            let mut returned = vec![0; data.len()];
            flow.read_exact(&mut returned).await?;
            Ok::<_, std::io::Error>(returned == data)
        });
        let equal = timeout(TIMEOUT, try_join_all(echoes)).await.expect("a stall").unwrap();
        assert!(equal.iter().all(|equal| *equal), "it came back altered");
        until(&mut chain, |chain| !chain.carries(&victim)).await;
    }
    let ends = flows.into_iter().map(hopline::Flow::finished);
    timeout(TIMEOUT, try_join_all(ends)).await.expect("a stall").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flow_opens_on_a_live_session_though_no_bootstrap_answers() {
    let mut cluster = Cluster::start(4);
    let target = cluster.join().await;
    let mut listener = target.listen("x").await.unwrap();
    let origin = origin(&cluster).await;
    let _first = origin.open("x").await.unwrap();
    timeout(TIMEOUT, listener.accept()).await.expect("a flow").unwrap();
    cluster.bootstrap.kill();
    let mut flow = origin.open("x").await.unwrap();
    flow.write_all(b"!").await.unwrap();
    let mut came = timeout(TIMEOUT, listener.accept()).await.expect("a flow").unwrap();
    assert_eq!(came.read_u8().await.unwrap(), b'!');
    assert_eq!((came.peer(), flow.peer()), (origin.id(), target.id()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_when_it_is_idle_and_the_next_flow_opens_another() {
    let cluster = Cluster::start(4);
    let target = cluster.join().await;
    let mut listener = target.listen("x").await.unwrap();
    let session_idle = Duration::from_millis(200);
    let options = Options { plane: Plane::Session, session_idle, ..Options::default() };
    let origin = cluster.join_as(options).await;
    let mut carriers = Vec::new();
    for _ in 0..2 {
        let flow = origin.open("x").await.unwrap();
        let mut chain = flow.watch_chain();
        carriers.push(flow.id());
        let came = timeout(TIMEOUT, listener.accept()).await.expect("a flow").unwrap();
        let (here, there) = tokio::join!(flow.finished(), came.finished());
        here.unwrap();
        there.unwrap();
        let over = async { while chain.changed().await.is_ok() {} };
        timeout(TIMEOUT, over).await.expect("the session ends");
    }
    assert_ne!(carriers[0], carriers[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_gives_a_flow_up_breaks_no_other_and_the_other_end_knows_why() {
    let cluster = Cluster::start(4);
    let target = cluster.join().await;
    let mut listener = target.listen("x").await.unwrap();
    let origin = origin(&cluster).await;
    let (mut kept, mut given_up) = (origin.open("x").await.unwrap(), origin.open("x").await.unwrap());
    let mut came = Vec::new();
    for _ in 0..2 {
        came.push(timeout(TIMEOUT, listener.accept()).await.expect("a flow").unwrap());
    }
    given_up.write_all(b"2").await.unwrap();
    kept.write_all(b"1").await.unwrap();
    for mut flow in came {
        if flow.read_u8().await.unwrap() == b'2' {
            flow.abort("it is enough");
        } else {
            kept.write_all(b"more").await.unwrap();
            flow.write_all(b"answer").await.unwrap();
            let mut heard = [0; 4];
            flow.read_exact(&mut heard).await.unwrap();
            assert_eq!(&heard, b"more");
            flow.shutdown().await.unwrap();
            tokio::spawn(flow.finished());
        }
    }
    let error = timeout(TIMEOUT, given_up.read(&mut [0])).await.expect("an end").unwrap_err();
    assert!(error.to_string().contains("it is enough"), "{error}");
    let mut heard = Vec::new();
    kept.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"answer");
    timeout(TIMEOUT, kept.finished()).await.expect("an end").unwrap();
    let mut refused = origin.open("nobody").await.map(|_| ()).unwrap_err().to_string();
    refused.make_ascii_lowercase();
    assert!(refused.contains("nobody"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_ride_on_sessions() {
    let mut cluster = Cluster::start(6);
    let target = cluster.join().await;
    let mut inbox = target.receive("x").await.unwrap();
    let origin = origin(&cluster).await;
    let taking = tokio::spawn(async move {
        let mut taken = Vec::new();
        while taken.len() < 400 {
            taken.push(inbox.recv().await.unwrap().take());
        }
        taken
    });
    let mut receipts = Vec::new();
    for n in 0..400 {
        receipts.push(origin.send("x", format!("message {n}")).await.unwrap());
        if n == 200 {
            let victim = cluster.relays.keys().next().unwrap().clone();
            cluster.kill(&victim);
        }
    }
    timeout(TIMEOUT, try_join_all(receipts)).await.expect("a stall").unwrap();
    let taken = timeout(TIMEOUT, taking).await.expect("a stall").unwrap();
    assert!(taken.iter().enumerate().all(|(n, message)| *message == format!("message {n}")));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_leaves_tells_why_over_a_session() {
    let cluster = Cluster::start(4);
    let target = cluster.join().await;
    let mut listener = target.listen("x").await.unwrap();
    for leaves_first in [true, false] {
        let origin = origin(&cluster).await;
        let mut flow = origin.open("x").await.unwrap();
        let mut came = timeout(TIMEOUT, listener.accept()).await.expect("a flow").unwrap();
        let there = if leaves_first {
            origin.shutdown_because("the office closes").await;
            timeout(TIMEOUT, came.read(&mut [0])).await
        } else {
            target.shutdown_because("the office closes").await;
            timeout(TIMEOUT, flow.read(&mut [0])).await
        };
        let error = there.expect("an end").unwrap_err();
        assert!(error.to_string().contains("the office closes"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redundant_session_goes_on_over_the_other_chain_and_finds_another_second_one() {
    let mut cluster = Cluster::start(9);
    let target = cluster.join().await;
    let mut listener = target.listen("x").await.unwrap();
    let origin =
        cluster.join_as(Options { plane: Plane::Session, redundant: true, ..Options::default() }).await;
    let mut events = origin.events();
    let mut flow = origin.open("x").await.unwrap();
    let chain = flow.watch_chain();
    flow.write_all(b"!").await.unwrap();
    let mut came = timeout(TIMEOUT, listener.accept()).await.expect("a flow").unwrap();
    assert_eq!(came.read_u8().await.unwrap(), b'!');
    let second = second_chain(&mut events, flow.id()).await;
    let shared =
        second.iter().filter(|hop| chain.borrow().hops().iter().any(|first| first.primary == hop.primary));
    assert_eq!(shared.count(), 0, "{second:?} shares a relay with {:?}", chain.borrow());
    // Every relay of the first chain at once.
    let data = pattern(1 << 20);
    let victims: Vec<String> = chain.borrow().hops().iter().map(|hop| hop.primary.clone()).collect();
    victims.iter().for_each(|relay| cluster.kill(relay));
    let exchange = async {
        let mut returned = vec![0; data.len()];
        let (sent, read) = tokio::join!(flow.write_all(&data), came.read_exact(&mut returned));
        sent.unwrap();
        read.unwrap();
        returned
    };
    assert!(timeout(TIMEOUT, exchange).await.expect("a stall") == data);
    let (here, there) = tokio::join!(flow.finished(), came.finished());
    here.unwrap();
    there.unwrap();
}

/// Packets that came to a relay and were dropped for this cause, as its metrics say.
async fn dropped(admin: &str, cause: &str) -> u64 {
    let mut stream = TcpStream::connect(admin).await.unwrap();
    stream
        .write_all(format!("GET /metrics HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n").as_bytes())
        .await
        .unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).await.unwrap();
    let name = format!("hopline_relay_packets_dropped_total{{cause=\"{cause}\"}} ");
    let value = page.lines().find_map(|line| line.strip_prefix(&name)).unwrap_or_else(|| panic!("{page}"));
    value.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn packets_that_no_neighbour_sealed_are_dropped_counted_and_disturb_nobody() {
    let mut cluster = Cluster::start(0);
    for name in ["r1", "r2", "r3"] {
        let relay = cluster.serve(&["relay", "--name", name, "--admin", "127.0.0.1:0"]);
        cluster.relays.insert(name.to_owned(), relay);
    }
    let _echo = cluster.serve(&["listen", "echo", "--echo", "--keep"]);
    let origin = origin(&cluster).await;
    let mut flow = origin.open_over("echo", 1).await.unwrap();
    let relay = &cluster.relays[&primary(&flow.watch_chain(), 1)].ready;
    let admin = relay["admin"].as_str().unwrap().trim_start_matches("http://").trim_end_matches('/');
    let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    // Kind 1 for links 1 to 6 and one that nobody has; a kind that nobody knows; too short for any.
    let mut packets: Vec<Vec<u8>> =
        (1..=6_u8).map(|link| [&[1, 0, 0, 0, link], &[link; 95][..]].concat()).collect();
    packets.extend([vec![1; 100], vec![2; 100], vec![1; 20], vec![0]]);
    let data = pattern(64 << 10);
    for _ in 0..20 {
        for packet in &packets {
            stranger.send_to(packet, relay["addr"].as_str().unwrap()).await.unwrap();
        }
        let mut returned = vec![0; data.len()];
        let (mut reader, mut writer) = split(&mut flow);
        let exchange = async { tokio::try_join!(writer.write_all(&data), reader.read_exact(&mut returned)) };
        timeout(TIMEOUT, exchange).await.expect("a stall").unwrap();
        assert!(returned == data, "it came back altered");
    }
    for (cause, least) in [("forged", 1), ("unknown_link", 1), ("malformed", 20)] {
        let count = dropped(admin, cause).await;
        assert!(count >= least, "{cause}: {count}");
    }
    timeout(TIMEOUT, flow.finished()).await.expect("an end").unwrap();
}
