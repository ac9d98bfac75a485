//! What a bootstrap remembers, what it does when it can't, and whom it lets wait.

use super::*;
use crate::store::format::FORMAT;
use crate::store::{Holder, Store, StoreKind};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, pending};
use hopline_proto::bootstrap::Registration;
use hopline_proto::rpc::{DenyReason, Heartbeat, Load, Refusal as NotDone, Status};
use std::collections::BTreeMap;
use tokio::time::Instant;

fn offer(capacity: u32) -> Request {
    let offer = Offer::relay("127.0.0.1:1".parse().unwrap(), "z", capacity);
    Request::Register { name: "r1".to_owned(), offer, boot: BOOT }
}

fn target() -> Request {
    let offer = Offer::Target { names: vec!["x".to_owned()], attachments: Vec::new() };
    Request::Register { name: "t1".to_owned(), offer, boot: BOOT }
}

fn heartbeat(sequence: u64) -> Request {
    let load = Load::default();
    Request::Heartbeat(Heartbeat { sequence, sent_at: Clock::wall(), load, key_epoch: None })
}

async fn lease(bootstrap_client: &BootstrapClient, request: Request) {
    let response = bootstrap_client.ask(request, TIMEOUT).await;
    assert!(matches!(response, Ok(Response::Lease(_))), "{response:?}");
}

fn status(server: &Server, node: &NodeId) -> Option<Status> {
    server.inspect(|machine| machine.pool().get(node).map(|relay| relay.status))
}

#[tokio::test]
async fn who_registered_keeps_its_place_over_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(options(Some(directory.path()))).await.unwrap();
    let address = server.local_addr();
    let bootstrap_client = join(server.ticket(), None).await.unwrap();
    let node = bootstrap_client.node_id();
    lease(&bootstrap_client, offer(7)).await;
    lease(&bootstrap_client, target()).await;
    assert_eq!(server.counters().store_writes, 2);
    lease(&bootstrap_client, offer(7)).await;
    for sequence in 1..5 {
        lease(&bootstrap_client, heartbeat(sequence)).await;
    }
    let counters = server.counters();
    assert_eq!((counters.store_writes, counters.registrations_saved), (2, 3), "nothing new, nothing written");
    server.shutdown().await;

    let server = server_at(address, directory.path()).await;
    assert_eq!((server.counters().registrations_restored, server.counters().answered), (2, 0));
    assert_eq!(status(&server, &node), Some(Status::Registered));
    assert!(server.inspect(|machine| machine.targets().by_name("x").is_some_and(|x| x.node == node)));
    lease(&bootstrap_client, heartbeat(5)).await;
    assert_eq!(status(&server, &node), Some(Status::Online));
    assert_eq!(bootstrap_client.ask(Request::Deregister { boot: BOOT }, TIMEOUT).await, Ok(Response::Done));
    server.shutdown().await;

    let server = server_at(address, directory.path()).await;
    assert_eq!((server.counters().registrations_restored, status(&server, &node)), (0, None));
}

#[tokio::test]
async fn who_was_removed_is_not_restored_but_remembered() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(options(Some(directory.path()))).await.unwrap();
    let address = server.local_addr();
    let bootstrap_client = join(server.ticket(), None).await.unwrap();
    lease(&bootstrap_client, offer(7)).await;
    server.remove(bootstrap_client.node_id()).await.unwrap();
    server.shutdown().await;
    let server = server_at(address, directory.path()).await;
    assert_eq!(status(&server, &bootstrap_client.node_id()), None);
    let ask = |machine: &mut Bootstrap, now| machine.answer(bootstrap_client.node_id(), offer(7), now);
    let answer = server.shared.driver.with(ask);
    assert_eq!(answer, Response::Refused(NotDone::Denied { reason: DenyReason::Revoked }));
}

#[tokio::test]
async fn ten_thousand_are_restored_within_a_second() {
    let directory = tempfile::tempdir().unwrap();
    let store = RedbFile.open(Some(directory.path())).unwrap().store;
    let registration = |n: u16| {
        let Request::Register { name, offer, .. } = offer(u32::from(n)) else { panic!("a registration") };
        let mut node = [1; 32];
        node[..2].copy_from_slice(&n.to_be_bytes());
        Registration { node: NodeId::from_bytes(node), name, offer, registered_at: Clock::wall() }
    };
    let puts: Vec<_> = (0..10_000).map(|n| store.put(registration(n))).collect();
    futures_util::future::try_join_all(puts).await.unwrap();
    store.close().await;
    let before = Instant::now();
    let server = Server::start(options(Some(directory.path()))).await.unwrap();
    let took = before.elapsed();
    assert_eq!(server.inspect(|machine| machine.pool().counts().registered), 10_000);
    assert!(took < Duration::from_secs(1), "{took:?}");
}

/// All files in a directory, and what is in them.
fn files(directory: &Path) -> BTreeMap<PathBuf, (Vec<u8>, std::time::SystemTime)> {
    let file = |entry: std::io::Result<fs::DirEntry>| {
        let path = entry.unwrap().path();
        let changed = fs::metadata(&path).unwrap().modified().unwrap();
        (path.clone(), (fs::read(path).unwrap(), changed))
    };
    fs::read_dir(directory).unwrap().map(file).collect()
}

#[tokio::test]
async fn a_directory_of_a_later_version_is_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(options(Some(directory.path()))).await.unwrap();
    lease(&join(server.ticket(), None).await.unwrap(), offer(7)).await;
    server.shutdown().await;
    let version = directory.path().join("version");
    assert_eq!(fs::read_to_string(&version).unwrap(), format!("{FORMAT}\n"));
    fs::write(&version, format!("{}\n", FORMAT + 1)).unwrap();
    let before = files(directory.path());
    assert!(before.len() >= 5, "{:?}", before.keys());
    let error = Server::start(options(Some(directory.path()))).await.unwrap_err();
    let StartError::Store(StoreError::Newer { found, known, .. }) = error else { panic!("{error}") };
    assert_eq!((found, known), (FORMAT + 1, FORMAT));
    assert_eq!(files(directory.path()), before);
    fs::remove_file(&version).unwrap();
    let server = Server::start(options(Some(directory.path()))).await.unwrap();
    assert_eq!(server.counters().registrations_restored, 1, "one from before there were versions");
    assert_eq!(fs::read_to_string(&version).unwrap(), format!("{FORMAT}\n"));
}

/// A store that can't write registrations, or takes for ever.
#[derive(Debug)]
struct Broken {
    hangs: bool,
}

impl Store for Broken {
    fn put(&self, _: Registration) -> BoxFuture<'static, Result<(), NotStored>> {
        if self.hangs { pending().boxed() } else { async { Err(NotStored) }.boxed() }
    }

    fn remove(&self, _: crate::store::Key) -> BoxFuture<'static, Result<(), NotStored>> {
        async { Err(NotStored) }.boxed()
    }

    fn registrations(&self) -> BoxFuture<'static, Result<Vec<Registration>, NotStored>> {
        async { Err(NotStored) }.boxed()
    }

    fn bind(&self, _: [u8; 16], _: NodeId) -> BoxFuture<'static, Result<Holder, NotStored>> {
        async { Err(NotStored) }.boxed()
    }

    fn deny(&self, _: NodeId) -> BoxFuture<'static, Result<(), NotStored>> {
        async { Err(NotStored) }.boxed()
    }

    fn is_denied(&self, _: &NodeId) -> bool {
        false
    }

    fn denied(&self) -> Vec<NodeId> {
        Vec::new()
    }

    fn health(&self) -> StoreHealth {
        StoreHealth { failures: 3, ..StoreHealth::default() }
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        async {}.boxed()
    }
}

async fn with_store(store: Broken) -> Server {
    let opened = Opened { store: Arc::new(store), registrations: Vec::new() };
    let (authority, identity) = (Authority::generate(), Arc::new(Identity::generate()));
    Server::serve(options(None), opened, authority, identity).await.unwrap()
}

#[tokio::test]
async fn a_store_that_fails_keeps_nobody_from_registering() {
    for hangs in [false, true] {
        let server = with_store(Broken { hangs }).await;
        let bootstrap_client = join(server.ticket(), None).await.unwrap();
        lease(&bootstrap_client, offer(7)).await;
        lease(&bootstrap_client, heartbeat(1)).await;
        assert_eq!(status(&server, &bootstrap_client.node_id()), Some(Status::Online));
        let counters = server.counters();
        assert_eq!((counters.registrations_unsaved, counters.store_failures), (1, 3));
        let refused = join(&server.invite(single_use(7)), None).await;
        assert!(refused.is_err(), "a single-use ticket that can't be noted admits nobody");
        assert_eq!(server.remove(bootstrap_client.node_id()).await, Err(NotStored));
        lease(&bootstrap_client, heartbeat(2)).await;
    }
}

#[tokio::test]
async fn a_member_that_asks_too_often_is_told_to_wait() {
    let limits = Limits { requests_of_member: 1, ..Limits::default() };
    let server = Server::start(Options { limits, ..options(None) }).await.unwrap();
    let bootstrap_client = join(server.ticket(), None).await.unwrap();
    lease(&bootstrap_client, offer(7)).await;
    list(&bootstrap_client).await.unwrap();
    let response = bootstrap_client.ask(Request::List, TIMEOUT).await;
    let Ok(Response::Refused(NotDone::Throttled { retry_after })) = response else { panic!("{response:?}") };
    assert!(retry_after >= Duration::from_millis(100), "{retry_after:?}");
    list(&join(server.ticket(), None).await.unwrap()).await.expect("another one is answered");
    let counters = server.counters();
    assert_eq!((counters.throttled_listings, counters.throttled_plans, counters.answered), (1, 0, 3));
}

#[tokio::test]
async fn a_broken_connection_confirms_a_report() {
    let server = server().await;
    let (relay, _endpoint) = raw_member(&server).await;
    let register = BootstrapRequest::Ask(offer(7));
    ask_raw(&relay, &register).await.unwrap();
    let node = server.inspect(|machine| machine.pool().iter().next().map(|relay| relay.node)).unwrap();
    let neighbour = join(server.ticket(), None).await.unwrap();
    let report = neighbour.ask(Request::ReportDown { node }, TIMEOUT).await;
    assert_eq!((report, status(&server, &node)), (Ok(Response::Done), Some(Status::Suspect)));
    BootstrapClose::Internal.close(&relay);
    let confirmed = async {
        while status(&server, &node) != Some(Status::Offline) {
            tokio::task::yield_now().await;
        }
    };
    timeout(TIMEOUT, confirmed).await.unwrap();
    assert_eq!(server.counters().cut_off, 1);
}

/// A relay on a thread of its own, which stands still once it has registered, until it is told to go on.
async fn frozen_relay(server: &Server) -> (NodeId, std::sync::mpsc::Sender<()>) {
    let client = tls::bootstrap_client(&member(&server.shared.authority)).unwrap();
    let (address, register) = (server.local_addr(), BootstrapRequest::Ask(offer(7)));
    let (registered, is_registered) = tokio::sync::oneshot::channel();
    let (go_on, told) = std::sync::mpsc::channel::<()>();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let endpoint = Endpoint::client(LOOPBACK).unwrap();
            let connecting = endpoint.connect_with(client, address, tls::BOOTSTRAP_NAME).unwrap();
            let connection = connecting.await.unwrap();
            ask_raw(&connection, &register).await.unwrap();
            let _ = registered.send(());
            let _ = told.recv(); // on purpose: nothing of this runtime goes on
        });
    });
    is_registered.await.unwrap();
    let node = server.inspect(|machine| machine.pool().iter().next().map(|relay| relay.node));
    (node.unwrap(), go_on)
}

#[tokio::test]
async fn a_relay_that_is_reported_and_does_not_answer_the_bootstrap_either_is_dead() {
    let server = server().await;
    let (node, _go_on) = frozen_relay(&server).await;
    let neighbour = join(server.ticket(), None).await.unwrap();
    let report = neighbour.ask(Request::ReportDown { node }, TIMEOUT).await;
    assert_eq!((report, status(&server, &node)), (Ok(Response::Done), Some(Status::Suspect)));
    let confirmed = async {
        while status(&server, &node) != Some(Status::Offline) {
            tokio::task::yield_now().await;
        }
    };
    timeout(TIMEOUT, confirmed).await.expect("long before its lease or its connection ends");
}

#[tokio::test]
async fn a_relay_that_is_reported_and_answers_is_not() {
    let server = server().await;
    let (relay, _endpoint) = raw_member(&server).await;
    ask_raw(&relay, &BootstrapRequest::Ask(offer(7))).await.unwrap();
    let node = server.inspect(|machine| machine.pool().iter().next().map(|relay| relay.node)).unwrap();
    let neighbour = join(server.ticket(), None).await.unwrap();
    neighbour.ask(Request::ReportDown { node }, TIMEOUT).await.unwrap();
    let looked_after = server.shared.look_after(&node);
    timeout(TIMEOUT, looked_after).await.unwrap();
    assert_eq!((status(&server, &node), server.counters().cut_off), (Some(Status::Suspect), 0));
}
