//! Relays leave under a flow: it goes elsewhere first, and they end well.

use crate::fixture::{Cluster, Process, Signal, TIMEOUT, pattern};
use hopline::endpoint::{Endpoint, Flow, FlowEvent};
use hopline_lab::watched::Watched;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt, split};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Echoes what it is sent in small parts until it is told to stop; whether every part came back as it was.
async fn chat(flow: Flow, stop: watch::Receiver<bool>) -> bool {
    let (mut reader, mut writer) = split(flow);
    let parts = pattern(64 << 10);
    for part in parts.chunks(512).cycle() {
        let mut returned = vec![0; part.len()];
        writer.write_all(part).await.unwrap();
        writer.flush().await.unwrap();
        reader.read_exact(&mut returned).await.unwrap();
        if returned != part {
            return false;
        }
        if *stop.borrow() {
            break;
        }
    }
    writer.shutdown().await.unwrap();
    assert_eq!(reader.read(&mut [0]).await.unwrap(), 0, "nothing comes after the end");
    reader.unsplit(writer).finished().await.unwrap();
    true
}

/// A flow to the echo that is chatted over until it is told to stop.
async fn chatting(endpoint: &Endpoint) -> (Watched, watch::Sender<bool>, JoinHandle<bool>) {
    let flow = endpoint.open("echo").await.unwrap();
    let watched = Watched::new(&flow, endpoint.events());
    let (stop, stopped) = watch::channel(false);
    (watched, stop, tokio::spawn(chat(flow, stopped)))
}

fn is_about(event: &FlowEvent, relay: &str) -> bool {
    matches!(event, FlowEvent::Drained { from, .. } if from == relay)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_relay_of_a_chain_is_restarted_in_turn() {
    let mut cluster = Cluster::start(9);
    let _echo = cluster.serve(&["listen", "echo", "--echo", "--keep"]);
    let endpoint = cluster.join().await;
    let (mut watched, stop, chat) = chatting(&endpoint).await;
    for hop in 1..=3 {
        let name = watched.chain().primary(hop).unwrap().to_owned();
        let relay = cluster.relays.remove(&name).unwrap();
        relay.signal(Signal::TERM);
        let deadline = tokio::time::Instant::now() + TIMEOUT;
        while !is_about(&watched.event(deadline).await.unwrap().expect("it drains"), &name) {}
        let ended = relay.finish();
        assert!(ended.status.success(), "{name}: {}", ended.stderr);
        assert!(!ended.stderr.contains("not every flow"), "{name}: {}", ended.stderr);
        cluster.add_relay(&format!("{name}-again"));
    }
    stop.send(true).unwrap();
    assert!(timeout(TIMEOUT, chat).await.expect("a stall").unwrap(), "it came back altered");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_is_drained_by_its_name() {
    let mut cluster = Cluster::start(8);
    let _echo = cluster.serve(&["listen", "echo", "--echo", "--keep"]);
    let endpoint = cluster.join().await;
    let (mut watched, stop, chat) = chatting(&endpoint).await;
    let name = watched.chain().primary(2).unwrap().to_owned();
    let relay = cluster.relays.remove(&name).unwrap();
    let order = cluster.start_process(&["drain", &name, "--json"]);
    // On a busy machine it may have been left before, for being late.
    let deadline = tokio::time::Instant::now() + TIMEOUT;
    assert!(
        watched.until(deadline, |chain| !chain.carries(&name), |_| ()).await.unwrap(),
        "the flow leaves it"
    );
    let ended = (relay.finish(), order.finish());
    assert!(ended.0.status.success(), "{}", ended.0.stderr);
    assert!(ended.1.status.success(), "{}", ended.1.stderr);
    assert!(ended.1.stdout.concat().contains(r#""status":"left""#), "{:?}", ended.1.stdout);
    assert!(ended.1.stdout.concat().contains(r#""flows":0"#), "{:?}", ended.1.stdout);
    stop.send(true).unwrap();
    assert!(timeout(TIMEOUT, chat).await.expect("a stall").unwrap(), "it came back altered");
}

/// It is called: with heartbeats half a minute apart, or more, nobody would wait for one.
#[test]
fn an_idle_relay_is_gone_as_soon_as_it_is_told() {
    let mut cluster = Cluster::start_with(2, &["--cadence", "relaxed"]);
    let relay = cluster.relays.remove("r1").unwrap();
    let began = Instant::now();
    let drained = cluster.run(&["drain", "r1", "--json"], b"");
    let took = began.elapsed();
    assert!(drained.status.success(), "{}", drained.stderr);
    assert!(drained.stdout.concat().contains(r#""status":"left""#), "{:?}", drained.stdout);
    assert!(relay.finish().status.success());
    assert!(took < Duration::from_secs(2), "{took:?}");
}

/// A flow that had no time to go elsewhere, or had nowhere to go, ends with it, and whoever gave the order is told.
#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_leaves_with_flows_has_not_drained() {
    let cluster = Cluster::start(0);
    let _relay = cluster.serve(&["relay", "--name", "r1", "--drain-timeout", "0s"]);
    let _echo = cluster.serve(&["listen", "echo", "--echo", "--keep"]);
    let endpoint = cluster.join().await;
    let _flow = endpoint.open_over("echo", 1).await.unwrap();
    let order = cluster.start_process(&["drain", "r1", "--json"]);
    let ended = order.finish();
    assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("with 1 flow still on it"), "{}", ended.stderr);
    let outcome: serde_json::Value = serde_json::from_str(&ended.stdout.concat()).unwrap();
    assert_eq!((&outcome["status"], &outcome["flows"]), (&"left".into(), &1.into()), "{outcome}");
}

#[test]
fn nobody_is_drained_without_the_right_or_the_name() {
    let cluster = Cluster::start(1);
    let unknown = cluster.run(&["drain", "nobody"], b"");
    assert_eq!(unknown.status.code(), Some(4), "{}", unknown.stderr);
    assert!(unknown.stderr.contains("no relay \"nobody\""), "{}", unknown.stderr);
    let data = cluster.home.path().join("bootstrap");
    let single = cluster.run(&["ticket", "new", "--data", text(&data), "--single-use"], b"").stdout.concat();
    let mut refused = Process::start(cluster.home.path(), &single, &["drain", "r1"]);
    drop(refused.stdin());
    let refused = refused.finish();
    assert_eq!(refused.status.code(), Some(4), "{}", refused.stderr);
    assert!(refused.stderr.contains("single") || refused.stderr.contains("any number"), "{}", refused.stderr);
    let listed = cluster.run(&["status", "--json"], b"").stdout.concat();
    assert!(
        listed.contains(r#""status":"online""#) || listed.contains(r#""status":"registered""#),
        "{listed}"
    );
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The fewer there are, the more they look for a bootstrap that knows more: a relay that leaves must not.
#[test]
fn when_all_relays_are_drained_none_is_assignable() {
    let mut cluster = Cluster::start_with(0, &["--cadence", "dev"]);
    for n in 1..=4 {
        let name = format!("r{n}");
        let relay = cluster.serve(&["relay", "--name", &name, "--retry", "dev"]);
        cluster.relays.insert(name, relay);
    }
    let relays: Vec<(String, Process)> = std::mem::take(&mut cluster.relays).into_iter().collect();
    for (name, _) in &relays {
        let ordered = cluster.run(&["drain", name, "--timeout", "0s"], b"");
        assert!(ordered.status.success(), "{}", ordered.stderr);
    }
    for (name, relay) in relays {
        let ended = relay.finish();
        assert!(ended.status.success(), "{name}: {}", ended.stderr);
        let listed: serde_json::Value =
            serde_json::from_str(&cluster.run(&["status", "--json"], b"").stdout.concat()).unwrap();
        let its = |relay: &&serde_json::Value| relay["name"] == name.as_str();
        let relay = listed["relays"].as_array().unwrap().iter().find(its).unwrap();
        assert_eq!(relay["status"], "left", "{name} has ended: {listed}");
    }
}
