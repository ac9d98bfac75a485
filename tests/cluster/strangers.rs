//! Strangers knock at every door, and nobody else has to wait for it.

use crate::fixture::{Cluster, TIMEOUT};
use crate::hostile::{Attack, Attacker, RATE};
use hopline::endpoint::{Endpoint, Options};
use hopline::net::ticket::Ticket;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

/// Newcomers, one after the other: each joins, opens a flow and has a word come back.
const NEWCOMERS: usize = 20;

/// How long a newcomer takes until its first word is back.
async fn visit(ticket: &Ticket) -> Duration {
    let began = Instant::now();
    let options = Options { hops: 2, ..Options::default() };
    let endpoint = Endpoint::join(ticket.clone(), options).await.expect("the bootstrap lets it in");
    let mut flow = endpoint.open("echo").await.expect("a flow");
    flow.write_all(b"hello").await.unwrap();
    flow.flush().await.unwrap();
    let mut word = [0; 5];
    flow.read_exact(&mut word).await.unwrap();
    let took = began.elapsed();
    endpoint.shutdown().await;
    took
}

async fn visits(ticket: &Ticket) -> Vec<Duration> {
    let mut took = Vec::new();
    for number in 0..NEWCOMERS {
        let visited = timeout(TIMEOUT / 4, visit(ticket)).await;
        took.push(visited.unwrap_or_else(|_| panic!("newcomer {number} waits for too long, after {took:?}")));
    }
    took.sort();
    took
}

async fn attacked(attack: Attack) {
    let cluster = Cluster::start(4);
    let _echo = cluster.serve(&["listen", "echo", "--echo", "--keep"]);
    let ticket: Ticket = cluster.ticket.parse().unwrap();
    let address =
        |ready: &serde_json::Value| -> SocketAddr { ready["addr"].as_str().unwrap().parse().unwrap() };
    let relays = cluster.relays.values().map(|relay| address(&relay.ready)).collect();
    let peace = visits(&ticket).await;
    let attacker = Attacker::start(attack, ticket.network(), relays, address(&cluster.bootstrap.ready));
    let began = Instant::now();
    while attacker.attempts() < u64::from(RATE) * 5 {
        assert!(began.elapsed() < TIMEOUT, "only {} attempts", attacker.attempts());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let war = visits(&ticket).await;
    let median = |took: &[Duration]| took[took.len() / 2];
    eprintln!(
        "{attack:?}: {:?} in peace, {:?} (at most {:?}) under {} attempts",
        median(&peace),
        median(&war),
        war[NEWCOMERS - 1],
        attacker.attempts()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn first_packets_keep_nobody_out() {
    attacked(Attack::FirstFlights).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn half_open_handshakes_keep_nobody_out() {
    attacked(Attack::HalfOpen).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_nothing_keeps_nobody_out() {
    attacked(Attack::Silent).await;
}
