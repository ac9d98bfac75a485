//! Members that don't keep to the truth, and clocks that jump: each gets a clear answer, and nobody else loses anything.

use super::{BOOT, TIMEOUT, ask_raw, list, raw, raw_newcomer, server};
use crate::bootstrap::Server;
use crate::net::authority::{Authority, DEFAULT_VALIDITY};
use crate::net::bootstrap_client::BootstrapClient;
use crate::net::bootstrap_rpc::{BootstrapRequest, BootstrapResponse};
use crate::net::clock::Clock;
use crate::net::error::ErrorKind;
use crate::net::identity::{Identity, Membership};
use crate::net::testing::{LOOPBACK, member};
use crate::net::ticket::{Grant, Ticket};
use crate::net::tls::{self, TlsError};
use crate::net::version;
use hopline_proto::bootstrap::{Bootstrap, Config, Registration};
use hopline_proto::crypto::Key;
use hopline_proto::families::Families;
use hopline_proto::pool::{Ignored, PoolEvent};
use hopline_proto::rpc::{
    DenyReason, Heartbeat, Lease, Load, MAX_LISTED_NODES, Offer, Refusal, RelayInfo, Request, Resources,
    Response, Status,
};
use hopline_proto::version::{Mismatch, Versions};
use hopline_proto::{BootId, NodeId, Time};
use quinn::{Connection, Endpoint};
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

const HOUR: Duration = Duration::from_secs(3600);

/// A member as its connection makes it: it says whatever a test has it say.
struct Member {
    node: NodeId,
    connection: Connection,
    _endpoint: Endpoint,
}

impl Member {
    async fn of(server: &Server) -> Self {
        let membership = member(&server.shared.authority);
        let (connection, endpoint) = raw(server, tls::bootstrap_client(&membership).unwrap()).await;
        Self { node: membership.node_id(), connection, _endpoint: endpoint }
    }

    async fn relay(server: &Server, name: &str) -> Self {
        let member = Self::of(server).await;
        member.lease(register(name)).await;
        member.lease(heartbeat(1, 0)).await;
        member
    }

    async fn ask(&self, request: Request) -> Response {
        let response = ask_raw(&self.connection, &BootstrapRequest::Ask(request)).await.unwrap();
        let BootstrapResponse::Answer(response) = response else { panic!("{response:?}") };
        response
    }

    async fn lease(&self, request: Request) -> Lease {
        let response = self.ask(request).await;
        let Response::Lease(lease) = response else { panic!("{response:?}") };
        lease
    }

    async fn refusal(&self, request: Request) -> Refusal {
        let response = self.ask(request).await;
        let Response::Refused(refusal) = response else { panic!("{response:?}") };
        refusal
    }

    /// As the bootstrap's listing shows it.
    async fn listed(&self) -> Option<RelayInfo> {
        let Response::Listing(listing) = self.ask(Request::List).await else { panic!("no listing") };
        listing.relays.into_iter().find(|relay| relay.node == self.node)
    }
}

fn register(name: &str) -> Request {
    Request::Register {
        name: name.to_owned(),
        offer: Offer::relay(([127, 0, 0, 1], 4433).into(), "", 100),
        boot: BOOT,
    }
}

fn announce(names: &[&str]) -> Request {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    Request::Register {
        name: "laptop".to_owned(),
        offer: Offer::Target { names, attachments: Vec::new() },
        boot: BOOT,
    }
}

fn heartbeat(sequence: u64, flows: u32) -> Request {
    let load = Load { flows, ..Load::default() };
    Request::Heartbeat(Heartbeat { sequence, sent_at: Time::ZERO, load, key_epoch: None })
}

#[tokio::test]
async fn what_only_newer_nodes_ask_is_refused_and_no_breach() {
    let server = server().await;
    let relay = Member::relay(&server, "r1").await;
    let (newcomer, _endpoint) = raw_newcomer(&server).await;
    let later = "what a later version says";
    let unknown = Ok(BootstrapResponse::Answer(Response::Refused(Refusal::UnknownRequest)));
    // Neither the request is known, nor the question inside, nor what is offered in it.
    assert_eq!(ask_raw(&relay.connection, &(200u32, later)).await, unknown);
    assert_eq!(ask_raw(&relay.connection, &(2u32, 200u32, later)).await, unknown);
    assert_eq!(ask_raw(&relay.connection, &(2u32, 0u32, "r1", BOOT, 200u32, later)).await, unknown);
    assert_eq!(ask_raw(&newcomer, &(200u32, later)).await, unknown);
    assert!(relay.listed().await.is_some(), "the connection goes on");
    assert_eq!(server.counters().violations, 0);
    server.shutdown().await;
}

#[tokio::test]
async fn a_newcomer_of_another_version_and_the_bootstrap_tell_each_other() {
    let server = server().await;
    let newer = Versions { oldest: 2, newest: 3 };
    let client = tls::join_client_of(server.network(), newer);
    let (connection, _endpoint) = raw(&server, client).await;
    let mismatch = version::agree(&connection, newer, true).await;
    assert_eq!(mismatch, Err(Mismatch { ours: newer, theirs: Some(Versions::OURS) }));
    let turned_away = async {
        while server.counters().handshakes_failed == 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(TIMEOUT, turned_away).await.unwrap();
    assert_eq!((server.counters().connections, server.counters().violations), (0, 0));
    server.shutdown().await;
}

#[tokio::test]
async fn a_bootstrap_of_another_version_is_a_refusal_that_names_both() {
    let authority = Authority::generate();
    let identity = Arc::new(Identity::generate());
    let issued = authority.issue_bootstrap(identity.public_key(), DEFAULT_VALIDITY, Clock::wall());
    let membership = Membership::new(identity, issued, authority.public_key());
    let newer = Versions { oldest: 2, newest: 3 };
    let config = tls::bootstrap_server_of(&membership, newer).unwrap();
    let endpoint = Endpoint::server(config, LOOPBACK).unwrap();
    let address = endpoint.local_addr().unwrap().to_string();
    let ticket = Ticket::issue(&authority, vec![address.clone()], Grant::DEFAULT).unwrap();
    let bootstrap = async {
        let connection = endpoint.accept().await.unwrap().await.unwrap();
        version::agree(&connection, newer, false).await.unwrap_err().told("the relay")
    };
    let (joined, told) = tokio::join!(BootstrapClient::join(ticket, None), bootstrap);
    let error = joined.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    let text = error.to_string();
    assert!(text.contains(&address) && text.contains("this node speaks version 1"), "{text}");
    assert!(text.ends_with("the bootstrap speaks versions 2 to 3: upgrade this node"), "{text}");
    assert!(
        told.ends_with("this node speaks versions 2 to 3, the relay speaks version 1: upgrade the relay"),
        "{told}"
    );
}

#[tokio::test]
async fn what_is_out_of_bounds_is_refused_and_changes_nothing() {
    let server = server().await;
    let relay = Member::relay(&server, "r1").await;
    let busy =
        Load { resources: Some(Resources { cpu_percent: 101, ..Resources::default() }), ..Load::default() };
    let nowhere = Offer::relay(([0, 0, 0, 0], 4433).into(), "", 100);
    let requests = [
        register("no name"),
        Request::Register { name: "r1".to_owned(), offer: nowhere, boot: BOOT },
        Request::Heartbeat(Heartbeat { sequence: 9, sent_at: Time::MAX, load: busy, key_epoch: None }),
        Request::Plan { target: "echo".to_owned(), hops: 200, exclude: Vec::new(), dials: Families::BOTH },
        Request::Attachments {
            count: 1,
            exclude: vec![relay.node; MAX_LISTED_NODES + 1],
            dials: Families::BOTH,
        },
        Request::Renew { records: Vec::new() },
    ];
    for request in requests {
        let refusal = relay.refusal(request.clone()).await;
        assert_eq!(refusal, Refusal::Denied { reason: DenyReason::OutOfBounds }, "{request:?}");
    }
    let listed = relay.listed().await.unwrap();
    assert_eq!((listed.name.as_str(), listed.status), ("r1", Status::Online));
    assert_eq!(server.counters().violations, 0, "it may go on asking");
}

#[tokio::test]
async fn a_heartbeat_that_is_replayed_or_comes_late_says_nothing() {
    let server = server().await;
    let relay = Member::relay(&server, "r1").await;
    relay.lease(heartbeat(7, 70)).await;
    for sequence in [7, 3, 0] {
        relay.lease(heartbeat(sequence, 999)).await;
        assert_eq!(relay.listed().await.unwrap().load.flows, 70, "number {sequence}");
    }
    relay.lease(heartbeat(8, 80)).await;
    assert_eq!(relay.listed().await.unwrap().load.flows, 80);
    // Another life of the same node counts from the beginning, once it has registered.
    relay.lease(register("r1")).await;
    relay.lease(heartbeat(1, 10)).await;
    assert_eq!(relay.listed().await.unwrap().load.flows, 10);
}

#[tokio::test]
async fn who_calls_everyone_dead_loses_its_voice() {
    let server = server().await;
    let mut relays = Vec::new();
    for n in 0..8 {
        relays.push(Member::relay(&server, &format!("r{n}")).await);
    }
    let liar = Member::of(&server).await;
    let mut suspected = 0;
    for (relay, sequence) in relays.iter().zip(2..) {
        assert_eq!(liar.ask(Request::ReportDown { node: relay.node }).await, Response::Done);
        suspected += u32::from(relay.listed().await.unwrap().status == Status::Suspect);
        relay.lease(heartbeat(sequence, 0)).await;
        assert_eq!(relay.listed().await.unwrap().status, Status::Online, "it said that it lives");
    }
    assert_eq!(suspected, 5, "then nobody listened any more");
    // Others are heard as before, and with the liar's word no report is confirmed.
    let witness = Member::of(&server).await;
    witness.ask(Request::ReportDown { node: relays[0].node }).await;
    liar.ask(Request::ReportDown { node: relays[0].node }).await;
    assert_eq!(relays[0].listed().await.unwrap().status, Status::Suspect);
    // Nor are nodes that there are not, or the reporter itself, worth a word.
    for node in [NodeId::from_bytes([9; 32]), witness.node] {
        assert_eq!(witness.ask(Request::ReportDown { node }).await, Response::Done);
    }
    assert_eq!(server.inspect(|machine| machine.pool().counts().registered), 8);
}

#[tokio::test]
async fn names_of_relays_may_repeat_and_names_of_targets_may_not() {
    let server = server().await;
    let (first, second) = (Member::relay(&server, "r1").await, Member::relay(&server, "r1").await);
    let listed = [first.listed().await.unwrap(), second.listed().await.unwrap()];
    assert!(listed.iter().all(|relay| relay.name == "r1"), "people tell them apart by their ids");
    let bootstrap_client = BootstrapClient::join(server.ticket().clone(), None).await.unwrap();
    let ambiguous = Refusal::AmbiguousRelay { name: "r1".to_owned() };
    assert_eq!(
        bootstrap_client.drain("r1").await.unwrap(),
        Response::Refused(ambiguous),
        "no guess at which"
    );
    assert_eq!(bootstrap_client.drain(&second.node.to_string()).await.unwrap(), Response::Done);
    let statuses = [first.listed().await.unwrap().status, second.listed().await.unwrap().status];
    assert_eq!(statuses, [Status::Online, Status::Draining]);

    let (holder, other) = (Member::of(&server).await, Member::of(&server).await);
    holder.lease(announce(&["echo"])).await;
    let taken = Refusal::NameTaken { name: "echo".to_owned() };
    assert_eq!(other.refusal(announce(&["mine", "echo"])).await, taken);
    let by_name =
        |name: &str| server.inspect(|machine| machine.targets().by_name(name).map(|target| target.node));
    assert_eq!((by_name("echo"), by_name("mine")), (Some(holder.node), None));
}

/// It need not wait for its next heartbeat to learn of an order; and whoever gives one again and again is heard once a second.
#[tokio::test]
async fn who_is_to_drain_is_called_and_not_all_the_time() {
    let server = server().await;
    let [relay, bystander, owner] = {
        let join = async || BootstrapClient::join(server.ticket().clone(), None).await.unwrap();
        [join().await, join().await, join().await]
    };
    for (node, name) in [(&relay, "r1"), (&bystander, "r2")] {
        let registered = node.ask(register(name), HOUR).await.unwrap();
        assert!(matches!(registered, Response::Lease(_)), "{registered:?}");
    }
    let (mut called, spared) = (relay.reached(), bystander.reached());
    for _ in 0..20 {
        assert_eq!(owner.drain("r1").await.unwrap(), Response::Done);
    }
    timeout(TIMEOUT, called.changed()).await.expect("it is called").unwrap();
    assert!(*called.borrow_and_update() <= 2, "{}", *called.borrow());
    let told = relay.ask(heartbeat(1, 0), HOUR).await.unwrap();
    assert!(matches!(told, Response::Lease(lease) if lease.drain), "so it hears of the order");
    assert!(!spared.has_changed().unwrap(), "nobody else is bothered");
}

/// A request says nowhere who asks: the certificate does, and it is of no use without its key.
#[tokio::test]
async fn nobody_speaks_for_another_node() {
    let server = server().await;
    let victim = Member::relay(&server, "r1").await;
    let thief = Member::of(&server).await;
    let earlier = BootId::from_bytes([2; 16]);
    for request in [Request::Deregister { boot: earlier }, Request::Drain, heartbeat(100, 0)] {
        assert_eq!(thief.refusal(request).await, Refusal::UnknownNode, "whatever it says, it says of itself");
    }
    thief.lease(register("r1")).await;
    thief.ask(Request::Deregister { boot: BOOT }).await;
    assert_eq!(victim.listed().await.unwrap().status, Status::Online);

    let (theirs, own) = (member(&server.shared.authority), member(&server.shared.authority));
    let stolen = Membership { identity: Arc::clone(&own.identity), ..theirs };
    assert!(
        matches!(tls::bootstrap_client(&stolen), Err(TlsError::Certificate(_))),
        "a certificate without its key"
    );
}

/// What a bootstrap says of itself after it was asked much nonsense.
#[tokio::test]
async fn a_bystander_notices_nothing() {
    let server = server().await;
    let bystander = BootstrapClient::join(server.ticket().clone(), None).await.unwrap();
    let relay = Member::relay(&server, "r1").await;
    for n in 0..200u32 {
        let node = NodeId::from_bytes([u8::try_from(n % 250).unwrap(); 32]);
        relay.ask(Request::ReportDown { node }).await;
        relay.ask(Request::ReportUp { node }).await;
        relay.ask(Request::Attachments { count: 0, exclude: Vec::new(), dials: Families::BOTH }).await;
    }
    let listing = list(&bystander).await.unwrap();
    assert_eq!((listing.relays.len(), listing.counts.online), (1, 1));
    assert!(bystander.failure().is_none());
}

// ---- clocks that jump: the machine is told the time ----

fn relay_id(n: u8) -> NodeId {
    NodeId::from_bytes([n; 32])
}

fn machine(now: Time) -> Bootstrap {
    Bootstrap::new(Config::default(), Key::from_bytes([7; 32]), StdRng::seed_from_u64(1), now)
}

/// Each relay's heartbeat, at this time; all must be answered with leases.
fn all_heartbeat(machine: &mut Bootstrap, sequence: u64, now: Time) {
    for n in 1..=8 {
        let response = machine.answer(relay_id(n), heartbeat(sequence, 0), now);
        assert!(matches!(response, Response::Lease(_)), "relay {n}: {response:?}");
    }
}

fn online(machine: &Bootstrap) -> usize {
    (1..=8)
        .filter(|n| machine.pool().get(&relay_id(*n)).is_some_and(|relay| relay.status == Status::Online))
        .count()
}

fn pool_of_eight(now: Time) -> Bootstrap {
    let mut machine = machine(now);
    for n in 1..=8 {
        assert!(matches!(machine.answer(relay_id(n), register(&format!("r{n}")), now), Response::Lease(_)));
    }
    all_heartbeat(&mut machine, 1, now);
    machine.take_events();
    machine
}

#[test]
fn a_clock_that_leaps_an_hour_ahead_costs_no_relay_its_place() {
    let start = Time::ZERO + HOUR * 24 * 20_000;
    let mut machine = pool_of_eight(start);
    machine.handle_timeout(start + HOUR);
    assert_eq!(online(&machine), 8, "so many silent at once: it is the bootstrap that is wrong");
    let events = machine.take_events();
    assert_eq!(events, [PoolEvent::Preserving { overdue: 8 }]);
    all_heartbeat(&mut machine, 2, start + HOUR + Duration::from_secs(10));
    machine.handle_timeout(start + HOUR + Duration::from_secs(20));
    assert_eq!((online(&machine), machine.pool().preserving_since()), (8, None));
    assert!(machine.take_events().contains(&PoolEvent::Resumed));
}

#[test]
fn a_clock_that_falls_an_hour_back_costs_no_relay_its_place() {
    let start = Time::ZERO + HOUR * 24 * 20_000;
    let mut machine = pool_of_eight(start);
    let past = start - HOUR;
    all_heartbeat(&mut machine, 2, past);
    for seconds in (0..120).step_by(10) {
        machine.handle_timeout(past + Duration::from_secs(seconds));
        all_heartbeat(&mut machine, 3 + seconds, past + Duration::from_secs(seconds));
    }
    assert_eq!(online(&machine), 8);
    assert!(
        !machine
            .take_events()
            .iter()
            .any(|event| matches!(event, PoolEvent::Offline(_) | PoolEvent::Ignored(_)))
    );
    // Leases are counted from the new time: who falls silent now is missed soon, not in an hour.
    let response = machine.answer(relay_id(1), heartbeat(1_000, 0), past + Duration::from_secs(150));
    assert!(matches!(response, Response::Lease(_)));
    assert!(machine.poll_timeout().unwrap() <= past + Duration::from_secs(180));
}

#[test]
fn a_restart_with_another_time_gives_every_relay_its_place_back() {
    let registered_at = Time::ZERO + HOUR * 24 * 20_000;
    for now in [registered_at + HOUR, registered_at - HOUR] {
        let mut machine = machine(now);
        for n in 1..=8 {
            let offer = Offer::relay(([127, 0, 0, 1], 4433).into(), "", 100);
            machine.restore(
                Registration { node: relay_id(n), name: format!("r{n}"), offer, registered_at },
                now,
            );
        }
        let grace = Config::default().pool.lease;
        machine.handle_timeout(now + grace / 2);
        assert_eq!(machine.pool().assignable().len(), 8, "the grace of one lease");
        all_heartbeat(&mut machine, 1, now + grace / 2);
        machine.handle_timeout(now + grace);
        assert_eq!(online(&machine), 8);
        let Response::Listing(listing) = machine.answer(relay_id(1), Request::List, now + grace) else {
            panic!()
        };
        assert!(listing.relays.iter().all(|relay| relay.age <= HOUR * 2 && relay.lease_left <= grace));
    }
}

#[test]
fn relays_whose_clocks_are_wrong_are_as_good_as_others() {
    let start = Time::ZERO + HOUR * 24 * 20_000;
    let mut machine = pool_of_eight(start);
    for (sequence, sent_at) in [(2, start + HOUR), (3, start - HOUR), (4, Time::MAX), (5, Time::ZERO)] {
        let request =
            Request::Heartbeat(Heartbeat { sequence, sent_at, load: Load::default(), key_epoch: None });
        assert!(matches!(machine.answer(relay_id(1), request, start), Response::Lease(_)));
        assert_eq!(online(&machine), 8);
    }
    assert_eq!(machine.take_events(), [], "order is told by numbers, not by clocks");
    machine.answer(relay_id(1), heartbeat(2, 0), start);
    assert_eq!(machine.take_events(), [PoolEvent::Ignored(Ignored::Heartbeat)]);
}
