//! Real servers, real requests.

use super::events::Streams;
use super::testing::{Answer, Events, TIMEOUT, connect, exchange, get};
use super::*;
use crate::bootstrap::{self, Observer, Server};
use crate::net::testing::LOOPBACK;
use crate::relay::Relay;
use axum::extract::{Extension, Query, State};
use axum::http::StatusCode;
use futures_util::StreamExt;
use hopline_proto::backoff::Pauses;
use hopline_proto::rpc::{Offer, Request, Response as Reply};
use hopline_proto::{BootId, NodeId};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

/// The process that nodes say they are.
const BOOT: BootId = BootId::from_bytes([1; 16]);

fn node(n: u16) -> NodeId {
    let mut bytes = [0; 32];
    bytes[..2].copy_from_slice(&n.to_be_bytes());
    NodeId::from_bytes(bytes)
}

fn ask(observer: &Observer, node: NodeId, request: Request) {
    let reply = observer.change(|machine, now| machine.answer(node, request, now));
    assert!(!matches!(reply, Reply::Refused(_)), "{reply:?}");
}

fn register(observer: &Observer, n: u16) {
    register_process(observer, n, BOOT);
}

fn register_process(observer: &Observer, n: u16, boot: BootId) {
    let offer = Offer::relay("192.0.2.7:4433".parse().unwrap(), "z1", 50);
    ask(observer, node(n), Request::Register { name: format!("r{n}"), offer, boot });
}

/// A bootstrap with its pages.
struct Stage {
    server: Server,
    url: String,
    _admin: Admin,
}

impl Stage {
    async fn new(policies: hopline_proto::bootstrap::Config) -> Self {
        let options = bootstrap::Options { listen: LOOPBACK, policies, ..bootstrap::Options::default() };
        let server = Server::start(options).await.unwrap();
        let listener = Listener::bind(LOOPBACK).await.unwrap();
        let url = listener.url();
        let admin = listener.serve(super::bootstrap::pages(server.observe()));
        Self { server, url, _admin: admin }
    }

    async fn get(&self, path: &str) -> Answer {
        get(&self.url, path).await
    }
}

async fn stage() -> Stage {
    Stage::new(hopline_proto::bootstrap::Config::default()).await
}

#[tokio::test]
async fn a_bootstrap_shows_its_pool() {
    let stage = stage().await;
    let observer = stage.server.observe();
    register(&observer, 7);
    let names = vec!["inbox".to_owned()];
    let offer = Offer::Target { names, attachments: vec![node(7)] };
    ask(&observer, node(9), Request::Register { name: "t".to_owned(), offer, boot: BOOT });
    let shown = stage.get("/peers").await;
    assert!(shown.status == 200 && shown.head.contains("content-type: application/json"), "{shown:?}");
    let shown = shown.json();
    assert_eq!(shown["network"], stage.server.network().to_string());
    assert_eq!(shown["bootstrap"]["id"], stage.server.id().to_string());
    assert_eq!(
        (&shown["bootstrap"]["store"], &shown["bootstrap"]["preserving_seconds"]),
        (&json!("ok"), &Value::Null)
    );
    assert_eq!((&shown["total"], &shown["totalRegistered"]), (&json!(1), &json!(1)));
    let [peer] = shown["peers"].as_array().unwrap().as_slice() else { panic!("{shown}") };
    let expected = json!({
        "name": "r7", "id": node(7).to_string(), "overlay": node(7).overlay().to_string(), "status": "registered",
        "zone": "z1", "flows": 0, "capacity": 50, "bytes_per_second": 0, "cpu_percent": null, "memory_percent": null,
        "disk_percent": null, "version": "", "reachable": true, "bridge": false, "clock_ahead_ms": 0.0,
        "age_seconds": peer["age_seconds"], "lease_seconds": peer["lease_seconds"],
    });
    assert_eq!(*peer, expected);
    assert!((0.0..=30.0).contains(&peer["lease_seconds"].as_f64().unwrap()));
    let target = &shown["targets"][0];
    assert_eq!((&target["names"], &target["attachments"]), (&json!(["inbox"]), &json!(["r7"])));
    assert!(shown["timestamp"].as_f64().unwrap() > 1.7e9);
}

#[tokio::test]
async fn all_relays_are_shown_however_many_and_those_that_are_asked_for() {
    let stage = stage().await;
    let observer = stage.server.observe();
    (0..700).for_each(|n| register(&observer, n));
    ask(&observer, node(3), Request::Drain);
    let count = async |query: &str| {
        let shown = stage.get(&format!("/peers{query}")).await.json();
        assert_eq!(shown["totalRegistered"], 700);
        shown["peers"].as_array().unwrap().len()
    };
    assert_eq!(count("").await, 700);
    assert_eq!(count("?limit=257").await, 257);
    assert_eq!(count("?limit=0").await, 0);
    assert_eq!(count("?status=draining").await, 1);
    assert_eq!(count("?status=registered&limit=9").await, 9);
    assert_eq!(count("?status=left").await, 0);
    for query in ["?status=happy", "?limit=-1", "?limit=many", "?adresses=true", "?addresses=perhaps"] {
        let refused = stage.get(&format!("/peers{query}")).await;
        assert_eq!(refused.status, 400, "{query}");
        assert!(!refused.json()["error"].as_str().unwrap().is_empty());
    }
}

#[tokio::test]
async fn real_addresses_are_for_the_same_machine_only() {
    let stage = stage().await;
    let observer = stage.server.observe();
    register(&observer, 7);
    let shown = stage.get("/peers?addresses=true").await.json();
    assert_eq!(shown["peers"][0]["addresses"], serde_json::json!(["192.0.2.7:4433"]));
    assert!(!stage.get("/peers").await.body.contains("192.0.2.7"));
    let page = async |from: &str, query: &str| {
        let query = Query::try_from_uri(&format!("/peers?{query}").parse().unwrap());
        let client = Extension(Client(from.parse().unwrap()));
        peers::page(State(observer.clone()), client, query).await.status()
    };
    for from in ["192.0.2.1:5", "[2001:db8::1]:5", "[::ffff:192.0.2.1]:5"] {
        assert_eq!(page(from, "addresses=true").await, StatusCode::FORBIDDEN, "{from}");
        assert_eq!(page(from, "addresses=false").await, StatusCode::OK, "{from}");
    }
    assert_eq!(page("[::ffff:127.0.0.1]:5", "addresses=true").await, StatusCode::OK);
}

#[tokio::test]
async fn what_a_bootstrap_counts_can_be_read() {
    let stage = stage().await;
    let observer = stage.server.observe();
    (0..3).for_each(|n| register(&observer, n));
    ask(&observer, node(1), Request::Deregister { boot: BOOT });
    let ticket = stage.server.ticket().clone();
    let bootstrap_client = crate::net::bootstrap_client::BootstrapClient::join(ticket, None).await.unwrap();
    bootstrap_client.ask(Request::List, TIMEOUT).await.unwrap();
    bootstrap_client.ask(Request::Deregister { boot: BOOT }, TIMEOUT).await.unwrap();
    let shown = stage.get("/metrics").await;
    assert!(shown.head.contains("openmetrics-text"), "{}", shown.head);
    let samples = shown.samples();
    let value = |name: &str| *samples.get(name).unwrap_or_else(|| panic!("no {name} in {}", shown.body));
    assert_eq!(value("hopline_pool_relays{status=\"registered\"}"), 2.0);
    assert_eq!(value("hopline_pool_relays{status=\"left\"}"), 1.0);
    assert_eq!(value("hopline_pool_relays{status=\"offline\"}"), 0.0);
    assert_eq!((value("hopline_pool_preserving"), value("hopline_store_failing")), (0.0, 0.0));
    assert_eq!(value("hopline_pool_events_total{event=\"joined\"}"), 3.0);
    assert_eq!(value("hopline_pool_events_total{event=\"left\"}"), 1.0);
    assert_eq!(value("hopline_bootstrap_requests_total{kind=\"join\"}"), 1.0);
    assert_eq!(value("hopline_bootstrap_requests_total{kind=\"list\"}"), 1.0);
    assert_eq!(value("hopline_bootstrap_request_seconds_count{kind=\"list\"}"), 1.0);
    assert_eq!(value("hopline_bootstrap_refusals_total{kind=\"deregister\",reason=\"unknown_node\"}"), 1.0);
    assert_eq!(
        (value("hopline_bootstrap_joined_total"), value("hopline_bootstrap_answered_total")),
        (1.0, 2.0)
    );
    assert!(value("process_resident_memory_bytes") > 1e6);
    let version = env!("CARGO_PKG_VERSION");
    assert!(samples.keys().any(|name| name.starts_with("hopline_build_info{") && name.contains(version)));
}

#[tokio::test]
async fn it_is_ready_unless_it_doubts_itself_or_stops() {
    let mut policies = hopline_proto::bootstrap::Config::default();
    policies.pool.lease = Duration::from_millis(50);
    policies.heartbeat = Duration::from_millis(20);
    let stage = Stage::new(policies).await;
    let ready = stage.get("/readyz").await;
    assert_eq!((ready.status, ready.json()), (200, json!({"ready": true, "reasons": []})));
    let mut events = Events::open(&stage.url).await;
    (0..40).for_each(|n| register(&stage.server.observe(), n)); // and none sends a heartbeat
    while events.next().await["event"] != "preserving" {}
    let doubtful = stage.get("/readyz").await;
    assert_eq!(doubtful.status, 503);
    assert!(doubtful.json()["reasons"][0].as_str().unwrap().starts_with("self-preservation"), "{doubtful:?}");
    assert_eq!(stage.get("/healthz").await.body, "ok\n");
    let url = stage.url.clone();
    stage.server.shutdown().await;
    let stopped = get(&url, "/readyz").await;
    let reasons = stopped.json()["reasons"].clone();
    assert!(stopped.status == 503 && reasons.to_string().contains("shutting down"), "{reasons}");
}

#[tokio::test]
async fn what_is_no_good_request_is_told_so() {
    let stage = stage().await;
    let unknown = stage.get("/peer").await;
    assert_eq!(unknown.status, 404);
    let paths = json!(["/healthz", "/readyz", "/metrics", "/peers", "/events"]);
    assert_eq!(unknown.json(), json!({"error": "there is no page /peer", "paths": paths}));
    for (request, status) in [
        ("POST /peers HTTP/1.0\r\nHost: localhost\r\n\r\n", 405),
        ("DELETE /nowhere HTTP/1.0\r\nHost: localhost\r\n\r\n", 405),
        ("HEAD /healthz HTTP/1.0\r\nHost: localhost\r\n\r\n", 200),
        ("GET /healthz HTTP/1.0\r\nHost: 127.0.0.1:80\r\n\r\n", 200),
        ("GET /healthz HTTP/1.0\r\nHost: [::1]\r\n\r\n", 200),
        ("GET /healthz HTTP/1.0\r\n\r\n", 200),
        ("GET /healthz HTTP/1.0\r\nHost: evil.example\r\n\r\n", 421),
        ("GET /healthz HTTP/1.0\r\nHost: localhost\r\nHost: evil.example\r\n\r\n", 421),
        ("GET http://evil.example/healthz HTTP/1.0\r\nHost: localhost\r\n\r\n", 421),
        ("GET /nowhere HTTP/1.0\r\nHost: :\r\n\r\n", 421),
        ("nonsense\r\n\r\n", 400),
    ] {
        let answer = exchange(&stage.url, request).await;
        assert_eq!(answer.status, status, "{request}");
    }
    let long = format!("GET /{} HTTP/1.0\r\nHost: localhost\r\n\r\n", "a".repeat(MAX_HEAD_BYTES));
    assert_eq!(exchange(&stage.url, &long).await.status, 431);
}

#[tokio::test]
async fn who_keeps_silent_or_listens_keeps_nobody_from_asking() {
    let stage = stage().await;
    let mut listeners = Vec::new();
    for _ in 0..MAX_CONNECTIONS / 2 {
        listeners.push(Events::open(&stage.url).await);
    }
    let refused = stage.get("/events").await;
    assert_eq!(refused.status, 503, "{refused:?}");
    let mut silent = Vec::new();
    for _ in 0..MAX_CONNECTIONS / 2 - 1 {
        silent.push(connect(&stage.url).await);
    }
    assert_eq!(stage.get("/healthz").await.status, 200, "the last seat");
    silent.push(connect(&stage.url).await);
    // All seats are taken: the next has to wait until one is given up.
    let (next, ()) = tokio::join!(stage.get("/healthz"), async { drop(silent.pop()) });
    assert_eq!(next.status, 200);
}

#[tokio::test]
async fn what_happens_is_told_in_order() {
    let stage = stage().await;
    let observer = stage.server.observe();
    let (mut one, mut two) = (Events::open(&stage.url).await, Events::open(&stage.url).await);
    register(&observer, 7);
    ask(&observer, node(7), Request::Drain);
    ask(&observer, node(7), Request::Deregister { boot: BOOT });
    for events in [&mut one, &mut two] {
        for event in ["joined", "draining", "left"] {
            let told = events.next().await;
            let expected =
                json!({"event": event, "node": node(7).to_string(), "name": "r7", "at": told["at"]});
            assert_eq!(told, expected);
            assert!(told["at"].as_f64().unwrap() > 1.7e9);
        }
    }
}

#[tokio::test]
async fn a_slow_reader_is_told_what_it_missed() {
    let stage = stage().await;
    let observer = stage.server.observe();
    let response = events::page(State(Streams::new(observer.clone()))).await;
    for n in 0..600_u128 {
        // Who has said goodbye comes back as another process only.
        let boot = BootId::from_bytes(n.to_be_bytes());
        register_process(&observer, 7, boot);
        ask(&observer, node(7), Request::Deregister { boot });
    }
    let mut body = response.into_body().into_data_stream();
    let mut next = async || {
        let part = timeout(TIMEOUT, body.next()).await.unwrap().unwrap().unwrap();
        let text = String::from_utf8(part.to_vec()).unwrap();
        serde_json::from_str::<Value>(text.strip_prefix("data: ").unwrap().trim_end()).unwrap()
    };
    assert_eq!(next().await, json!({"event": "missed", "count": 1200 - 1024}));
    assert_eq!(next().await["event"], "joined", "and it goes on");
}

/// A request that a webhook got, its connection, and what to answer.
async fn hook(listener: &TcpListener, answer: &str) -> Value {
    let (mut stream, _) = timeout(TIMEOUT, listener.accept()).await.unwrap().unwrap();
    let mut text = String::new();
    while !text.ends_with('}') {
        let mut bytes = [0; 1024];
        let count = stream.read(&mut bytes).await.unwrap();
        assert_ne!(count, 0, "{text}");
        text += std::str::from_utf8(&bytes[..count]).unwrap();
    }
    stream.write_all(answer.as_bytes()).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("POST /hook?a=b HTTP/1.1\r\n"), "{head}");
    serde_json::from_str(body).unwrap()
}

#[tokio::test]
async fn a_webhook_is_tried_again_and_then_given_up() {
    const OK: &str = "HTTP/1.1 204 No Content\r\n\r\n";
    const BUSY: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";
    let mut policies = hopline_proto::bootstrap::Config::default();
    policies.pool.lease = Duration::from_millis(50);
    policies.heartbeat = Duration::from_millis(20);
    let stage = Stage::new(policies).await;
    let observer = stage.server.observe();
    let listener = TcpListener::bind(LOOPBACK).await.unwrap();
    let url = format!("http://{}/hook?a=b", listener.local_addr().unwrap()).parse().unwrap();
    let pauses = Pauses::growing(Duration::from_millis(1), Duration::from_millis(4), 4);
    let policy = webhook::RetryPolicy { timeout: Duration::from_secs(2), pauses };
    let mut events = observer.events();
    let running = tokio::spawn(webhook::run_with(url, observer.clone(), policy));
    tokio::task::yield_now().await;
    register(&observer, 7); // it is never heard again, and so goes offline
    let told = [hook(&listener, "").await, hook(&listener, BUSY).await, hook(&listener, OK).await];
    assert_eq!(told[0]["event"], "offline");
    assert!(told[1] == told[0] && told[2] == told[0], "{told:?}");
    register(&observer, 7);
    for _ in 0..3 {
        assert_eq!(hook(&listener, BUSY).await["event"], "back");
    }
    assert_eq!(hook(&listener, OK).await["event"], "offline", "and it goes on");
    let metrics = stage.get("/metrics").await.samples();
    assert_eq!(metrics["hopline_webhook_events_total{outcome=\"failed\"}"], 1.0);
    assert!(metrics["hopline_webhook_events_total{outcome=\"delivered\"}"] >= 1.0);
    assert_eq!(events.recv().await.unwrap().word(), "joined", "which no webhook is told of");
    running.abort();
}

#[tokio::test]
async fn a_relay_shows_how_it_fares() {
    let bootstrap = stage().await;
    let options = crate::relay::Options { listen: LOOPBACK, ..crate::relay::Options::default() };
    let mut relay = Relay::start(bootstrap.server.ticket().clone(), options).await.unwrap();
    let listener = Listener::bind(LOOPBACK).await.unwrap();
    let url = listener.url();
    let _admin = listener.serve(relay::pages(relay.observe()));
    relay.enrolled().await.unwrap();
    assert_eq!(get(&url, "/healthz").await.body, "ok\n");
    let ready = get(&url, "/readyz").await;
    assert_eq!((ready.status, ready.json()), (200, json!({"ready": true, "reasons": []})));
    let samples = get(&url, "/metrics").await.samples();
    assert_eq!((samples["hopline_relay_enrolled"], samples["hopline_relay_draining"]), (1.0, 0.0));
    assert_eq!((samples["hopline_relay_flows"], samples["hopline_relay_links"]), (0.0, 0.0));
    assert_eq!(samples["hopline_relay_questions_total{kind=\"register\"}"], 1.0);
    assert_eq!(samples["hopline_relay_leases_total{kind=\"register\"}"], 1.0);
    assert_eq!(samples["hopline_relay_setbacks_total{cause=\"timeout\"}"], 0.0);
    assert_eq!(samples["hopline_relay_gap_seconds_count"], 0.0);
    assert_eq!(get(&url, "/peers").await.status, 404);
    relay.drain().await;
    let left = get(&url, "/readyz").await;
    assert_eq!(left.status, 503);
    assert!(left.json()["reasons"][0].as_str().unwrap().starts_with("draining"));
}

#[tokio::test]
async fn a_port_in_use_is_told_with_what_to_do() {
    let first = Listener::bind(LOOPBACK).await.unwrap();
    let error = Listener::bind(first.address).await.unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains(&first.address.to_string()) && text.contains("in use") && text.contains("--admin"),
        "{text}"
    );
    let admin = first.serve(Pages::new());
    drop(admin);
}
