//! What goes wrong says so: exit codes, last lines, and peers that break the protocol.

use crate::fixture::{Cluster, Ended, run};
use hopline::net::authority::Authority;
use hopline::net::bootstrap_client::BootstrapClient;
use hopline::net::clock::Clock;
use hopline::net::ticket::{Grant, Ticket};
use hopline::net::transport::{self, TransportSettings};
use hopline::net::{entropy, tls};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn assert_ends(ended: &Ended, code: i32, saying: &[&str]) {
    assert_eq!(ended.status.code(), Some(code), "{}", ended.stderr);
    let last = ended.stderr.lines().last().unwrap_or_default();
    for words in saying {
        assert!(last.contains(words), "{words:?} is not in the last line {last:?}");
    }
}

#[test]
fn an_unknown_name() {
    let cluster = Cluster::start(3);
    let ended = cluster.run(&["pipe", "nobody"], b"hello");
    assert_ends(&ended, 4, &["no such name \"nobody\"", "hopline listen"]);
}

#[test]
fn a_name_that_is_none_is_refused_before_anything_is_done_with_it() {
    let home = tempfile::tempdir().unwrap();
    let long = "n".repeat(65);
    for name in ["", " ", "a b", "a/b", "ünïcode", "名前", "a\nb", "a\u{202e}b", &long] {
        for command in ["pipe", "send", "listen", "receive"] {
            // Nobody answers there: a bad name needs no network to be told.
            let ended = run(home.path(), "", &[command, name], b"");
            assert_eq!(ended.status.code(), Some(2), "{command} {name:?}: {}", ended.stderr);
            assert!(ended.stderr.contains("letters, digits, dots"), "{command} {name:?}: {}", ended.stderr);
        }
    }
}

#[test]
fn fewer_relays_than_hops() {
    let cluster = Cluster::start(2);
    let _echo = cluster.serve(&["listen", "x", "--echo", "--keep"]);
    let ended = cluster.run(&["pipe", "x", "--hops", "5"], b"hello");
    assert_ends(&ended, 5, &["5", "2"]);
}

#[test]
fn too_few_relays_for_backups() {
    let cluster = Cluster::start(3);
    let _echo = cluster.serve(&["listen", "x", "--echo", "--keep"]);
    // Nothing has gone wrong yet: whoever wants to know asks.
    let asked: [(&[&str], &str); 3] =
        [(&[], ""), (&["--events"], r#""backup":null"#), (&["--log", "info"], "no backup")];
    for (asking, said) in asked {
        let ended = cluster.run(&[&["pipe", "x"], asking].concat(), b"hello");
        assert!(ended.status.success(), "{}", ended.stderr);
        assert_eq!(ended.stdout, ["hello"]);
        assert!(ended.stderr.contains(said), "{}", ended.stderr);
        assert!(!asking.is_empty() || !ended.stderr.contains("backup"), "{}", ended.stderr);
    }
}

#[test]
fn no_bootstrap() {
    let mut cluster = Cluster::start(0);
    cluster.bootstrap.kill();
    let ended = cluster.run(&["status"], b"");
    assert_ends(&ended, 3, &["no bootstrap", "no answer", "check that it is running"]);
}

#[test]
fn no_ticket_and_a_mistyped_one() {
    let home = tempfile::tempdir().unwrap();
    let none = run(home.path(), "", &["status"], b"");
    assert_eq!(none.status.code(), Some(2), "{}", none.stderr);
    let mistyped = run(home.path(), "hopline1abcdefg", &["status"], b"");
    assert_ends(&mistyped, 2, &["ticket"]);
}

#[test]
fn a_relay_with_a_wrong_or_used_up_secret_is_refused() {
    let mut cluster = Cluster::start(0);
    let data = cluster.home.path().join("bootstrap");
    let ticket = cluster.run(&["ticket", "new", "--single-use", "--data", data.to_str().unwrap()], b"");
    let single = ticket.stdout[0].clone();
    let relay = crate::fixture::Process::serve(cluster.home.path(), &single, &["relay", "--name", "first"]);
    let second = run(cluster.home.path(), &single, &["relay", "--name", "second"], b"");
    assert_ends(&second, 4, &["another has used it", "hopline ticket new"]);
    drop(relay);
    // Another network's relay that is led here by its ticket: neither side takes the other for one of its own.
    let here: Ticket = cluster.ticket.parse().unwrap();
    let elsewhere =
        Ticket::issue(&Authority::generate(), here.bootstraps().to_vec(), Grant::DEFAULT).unwrap();
    let stray = run(cluster.home.path(), &elsewhere.to_string(), &["relay", "--name", "stray"], b"");
    assert_ends(&stray, 4, &["belongs to another network than the ticket"]);
    let log = cluster.bootstrap_log();
    assert!(log.contains("another has used it"), "the bootstrap tells whom it refused: {log}");
}

/// A member that connects to a relay and speaks as it likes.
async fn connect(cluster: &Cluster, relay: &str) -> quinn::Connection {
    let bootstrap_client = BootstrapClient::join(cluster.ticket.parse().unwrap(), None).await.unwrap();
    let membership = bootstrap_client.membership();
    let settings = TransportSettings::default();
    let mut client = tls::link_client(&membership).unwrap();
    let mut transport = transport::transport(&settings);
    std::sync::Arc::get_mut(&mut transport).unwrap().datagram_send_buffer_size(64 << 10);
    client.transport_config(transport);
    let endpoint = transport::bind_client(&settings, &membership.identity.reset_secret()).unwrap();
    let ready = &cluster.relays[relay].ready;
    let node = ready["id"].as_str().unwrap().parse().unwrap();
    let address = ready["addr"].as_str().unwrap().parse().unwrap();
    endpoint.connect_with(client, address, &tls::node_name(node).to_str()).unwrap().await.unwrap()
}

fn noise(length: usize) -> Vec<u8> {
    let mut rng = entropy::seeded_rng();
    let mut bytes = vec![0; length];
    rand::Rng::fill_bytes(&mut rng, &mut bytes);
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_closes_its_link_and_nobody_else_notices() {
    let cluster = Cluster::start(3);
    let _echo = cluster.serve(&["listen", "x", "--echo", "--keep"]);
    let endpoint = cluster.join().await;
    let mut flow = endpoint.open("x").await.unwrap();
    let oversize = [&u32::MAX.to_be_bytes()[..], &noise(100)].concat();
    let truncated = [&100u32.to_be_bytes()[..], &noise(10)].concat();
    let well_formed_nonsense = [&100u32.to_be_bytes()[..], &noise(100)].concat();
    for relay in cluster.relays.keys() {
        for garbage in [&oversize, &truncated, &well_formed_nonsense] {
            let connection = connect(&cluster, relay).await;
            let mut control = connection.open_uni().await.unwrap();
            control.write_all(garbage).await.unwrap();
            control.finish().unwrap();
            connection.closed().await;
            let connection = connect(&cluster, relay).await;
            connection.send_datagram(noise(900).into()).unwrap();
            let (mut leg, _answer) = connection.open_bi().await.unwrap();
            let _ = leg.write_all(garbage).await;
            let mut control = connection.open_uni().await.unwrap();
            let _ = control.write_all(&noise(50)).await;
            connection.closed().await;
        }
        flow.write_all(relay.as_bytes()).await.unwrap();
        let mut returned = vec![0; relay.len()];
        flow.read_exact(&mut returned).await.unwrap();
        assert_eq!(returned, relay.as_bytes());
    }
}

#[test]
fn wall_time_is_wall_time() {
    assert!(Clock::wall().as_micros() > 1_700_000_000_000_000, "microseconds since 1970");
}
