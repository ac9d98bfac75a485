//! The bootstrap is killed again and again, at random moments, and comes back: nothing that it answered is lost.

use crate::fixture::{Cluster, Process, TIMEOUT, run};
use hopline::endpoint::Flow;
use hopline::net::bootstrap_client::BootstrapClient;
use hopline::net::clock::Clock;
use hopline::net::entropy;
use hopline::store::redb::RedbFile;
use hopline::store::{Opened, StoreKind};
use hopline_proto::bootstrap::Registration;
use hopline_proto::rpc::{
    Capabilities, Heartbeat, Listing, Load, Offer, Refusal, RelayInfo, Request, Response, Status,
};
use hopline_proto::{BootId, NodeId};
use rand::RngExt;
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// The process that nodes say they are.
const BOOT: BootId = BootId::from_bytes([1; 16]);
const RELAYS: usize = 6;
const REGISTRARS: usize = 8;
/// Relays that the bootstrap knows beside those, and that are not heard any more.
const CROWD: u16 = 10_000;
/// How soon a bootstrap that was started again answers, as a rule: on a busy machine a single start may take longer.
const SOON: Duration = Duration::from_secs(1);
/// The longest pause of a flow that may be a busy machine's.
const PAUSE: Duration = Duration::from_secs(2);

/// What each registrar offered last and was given a lease for.
type Answered = Arc<Mutex<BTreeMap<NodeId, u32>>>;

/// Of a relay that nobody can dial.
fn unreachable(capacity: u32) -> Offer {
    Offer::Relay {
        addresses: vec!["127.0.0.1:1".parse().unwrap()],
        zone: String::new(),
        capacity,
        version: String::new(),
        capabilities: Capabilities { reachable: false, bridge: false },
    }
}

/// A relay that registers anew all the time, with another capacity each time, and heartbeats in between. Nobody can dial it.
async fn register_and_heartbeat(bootstrap_client: BootstrapClient, answered: Answered) {
    let node = bootstrap_client.node_id();
    let first = answered.lock().unwrap().get(&node).copied().unwrap_or(0) + 1;
    for capacity in first.. {
        let offer = unreachable(capacity);
        let name = format!("registrar-{}", &node.short()[..4]);
        if is_leased(&bootstrap_client, Request::Register { name, offer, boot: BOOT }).await {
            answered.lock().unwrap().insert(node, capacity);
        }
        let heartbeat = Heartbeat {
            sequence: u64::from(capacity),
            sent_at: Clock::wall(),
            load: Load::default(),
            key_epoch: None,
        };
        is_leased(&bootstrap_client, Request::Heartbeat(heartbeat)).await;
    }
}

async fn is_leased(bootstrap_client: &BootstrapClient, request: Request) -> bool {
    match bootstrap_client.ask(request, TIMEOUT).await {
        Ok(Response::Lease(_)) => true,
        Ok(Response::Refused(Refusal::Throttled { retry_after })) => {
            sleep(retry_after).await;
            false
        }
        Err(_) => false,
        other => panic!("{other:?}"),
    }
}

async fn list(bootstrap_client: &BootstrapClient) -> Listing {
    loop {
        match bootstrap_client.ask(Request::List, TIMEOUT).await {
            Ok(Response::Listing(listing)) => return *listing,
            Ok(Response::Refused(Refusal::Throttled { retry_after })) => sleep(retry_after).await,
            Err(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// Lets a bootstrap that does not run know of many more relays.
async fn register_crowd(data: &Path) {
    let Opened { store, .. } = RedbFile.open(Some(data)).unwrap();
    let registered = (0..CROWD).map(|number| {
        let mut bytes = [0xc0; 32];
        bytes[..2].copy_from_slice(&number.to_be_bytes());
        // Behind those that are looked at, in the order of names.
        let (node, name) = (NodeId::from_bytes(bytes), format!("z-{number}"));
        let offer = unreachable(1);
        store.put(Registration { node, name, offer, registered_at: Clock::wall() })
    });
    for saved in registered.collect::<Vec<_>>() {
        saved.await.unwrap();
    }
    store.close().await;
}

/// Sends numbers through a `pipe` process and waits for each to come back, until told to stop; the longest that one took.
fn keep_talking(mut pipe: Process, stop: Arc<AtomicBool>) -> JoinHandle<Duration> {
    std::thread::spawn(move || {
        let (mut stdin, mut longest) = (pipe.stdin(), Duration::ZERO);
        let mut said = 0_u64;
        while !stop.load(Ordering::Relaxed) {
            let before = Instant::now();
            writeln!(stdin, "{said}").unwrap();
            assert_eq!(pipe.line(), said.to_string());
            longest = longest.max(before.elapsed());
            said += 1;
        }
        drop(stdin);
        let ended = pipe.finish();
        assert!(ended.status.success() && ended.stdout.is_empty(), "{:?} {}", ended.stdout, ended.stderr);
        assert!(said > 100, "{said} exchanges are no steady flow");
        longest
    })
}

/// Whether every relay is in its place, and every registrar in one that it was given last or since.
fn assert_complete(listing: &Listing, cluster: &Cluster, answered: &BTreeMap<NodeId, u32>) {
    for name in cluster.relays.keys() {
        let relay = listing.relays.iter().find(|relay| relay.name == *name);
        let lives = |relay: &RelayInfo| matches!(relay.status, Status::Registered | Status::Online);
        assert!(relay.is_some_and(lives), "{name} is {relay:?}");
    }
    for (node, capacity) in answered {
        let listed = listing.relays.iter().find(|relay| relay.node == *node).map(|relay| relay.capacity);
        assert!(listed.is_some_and(|listed| listed >= *capacity), "{node}: {listed:?}, was given {capacity}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bootstrap_that_is_killed_at_any_moment_forgets_nothing() {
    let kills: usize = std::env::var("HOPLINE_KILLS").map_or(10, |kills| kills.parse().unwrap());
    let mut cluster = Cluster::start(RELAYS);
    let _echo = cluster.serve(&["listen", "echo", "--echo", "--keep"]);
    cluster.bootstrap.kill();
    register_crowd(&cluster.home.path().join("bootstrap")).await;
    cluster.restart_bootstrap();
    let stop = Arc::new(AtomicBool::new(false));
    let flow = keep_talking(cluster.start_process(&["pipe", "echo"]), Arc::clone(&stop));
    let ticket = || cluster.ticket.parse().unwrap();
    let observer = BootstrapClient::join(ticket(), None).await.unwrap();
    let mut registrars = Vec::new();
    for _ in 0..REGISTRARS {
        registrars.push(BootstrapClient::join(ticket(), None).await.unwrap());
    }
    let (answered, mut rng, mut starts) = (Answered::default(), entropy::seeded_rng(), Vec::new());
    for kill in 0..kills {
        let before = answered.lock().unwrap().clone();
        let mut load = JoinSet::new();
        for registrar in &registrars {
            load.spawn(register_and_heartbeat(registrar.clone(), Arc::clone(&answered)));
        }
        let some_are_answered = async {
            while *answered.lock().unwrap() == before {
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(TIMEOUT, some_are_answered).await.expect("answers");
        let known = answered.lock().unwrap().clone();
        let listing = timeout(TIMEOUT, list(&observer)).await.expect("an answer");
        assert_complete(&listing, &cluster, &known);
        sleep(Duration::from_micros(rng.random_range(0..300_000))).await;
        cluster.bootstrap.kill();
        // Whoever has no answer yet must not register again at the next one.
        load.shutdown().await;
        let before = Instant::now();
        cluster.restart_bootstrap();
        let listing = timeout(TIMEOUT, list(&observer)).await.expect("an answer");
        starts.push(before.elapsed());
        assert_complete(&listing, &cluster, &answered.lock().unwrap());
        assert!(!flow.is_finished(), "the flow ended at kill {kill}");
    }
    let status = cluster.run(&["status", "--json"], b"").stdout.concat();
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["totalRegistered"], RELAYS + REGISTRARS + usize::from(CROWD), "{status}");
    stop.store(true, Ordering::Relaxed);
    let pause = tokio::task::spawn_blocking(|| flow.join().unwrap()).await.unwrap();
    let last: u32 = answered.lock().unwrap().values().sum();
    starts.sort_unstable();
    let (median, slowest) = (starts[kills / 2], starts[kills - 1]);
    eprintln!(
        "{kills} kills, {last} registrations answered; it served again after {median:?}, at most {slowest:?}; the flow's longest \
         exchange took {pause:?}"
    );
    assert!(median < SOON, "it took {median:?} to serve again");
    assert!(pause < PAUSE, "the flow paused for {pause:?}");
}

/// Sends a byte and waits until it has come back.
async fn exchange(flow: &mut Flow) {
    flow.write_u8(b'?').await.unwrap();
    flow.flush().await.unwrap();
    assert_eq!(timeout(TIMEOUT, flow.read_u8()).await.expect("an answer").unwrap(), b'?');
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hop_that_loses_both_its_relays_while_the_bootstrap_restarts_is_served_soon_after() {
    for at in 1..=3 {
        let mut cluster = Cluster::start(RELAYS);
        let _echo = cluster.serve(&["listen", "echo", "--echo", "--keep"]);
        let endpoint = cluster.join().await;
        let mut flow = endpoint.open("echo").await.unwrap();
        let chain = flow.watch_chain();
        exchange(&mut flow).await;
        cluster.bootstrap.kill();
        let hop = chain.borrow().hops()[at - 1].clone();
        [Some(hop.primary), hop.backup].iter().flatten().for_each(|relay| cluster.kill(relay));
        let before = Instant::now();
        cluster.restart_bootstrap();
        exchange(&mut flow).await;
        let pause = before.elapsed();
        eprintln!("hop {at}: served again after {pause:?}");
        assert!(pause < PAUSE, "hop {at}: {pause:?}");
        endpoint.shutdown().await;
    }
}

/// All files in a directory, and what is in them.
fn files(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let paths = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    paths.map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

#[test]
fn a_data_directory_of_a_later_version_is_refused_and_left_alone() {
    let mut cluster = Cluster::start(1);
    cluster.bootstrap.kill();
    let data = cluster.home.path().join("bootstrap");
    fs::write(data.join("version"), "99\n").unwrap();
    let before = files(&data);
    let ended = run(cluster.home.path(), "", &["bootstrap", "--data", data.to_str().unwrap()], b"");
    assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
    let last = ended.stderr.lines().last().unwrap_or_default();
    for words in ["format 99", "up to 2", data.to_str().unwrap(), "--data"] {
        assert!(last.contains(words), "{words:?} is not in the last line {last:?}");
    }
    assert!(files(&data) == before, "something in it was changed");
}

#[test]
fn who_keeps_an_identity_has_its_name_back_at_once() {
    let cluster = Cluster::start(4);
    let data = cluster.home.path().join("listener");
    let args = ["listen", "x", "--echo", "--keep", "--data", data.to_str().unwrap()];
    let mut listener = cluster.serve(&args);
    for round in 0..3 {
        listener.kill();
        listener = cluster.serve(&args); // ready within TIMEOUT, where a lease lasts longer
        let ended = cluster.run(&["pipe", "x"], b"hello");
        assert_eq!(ended.stdout, ["hello"], "round {round}: {}", ended.stderr);
    }
}
