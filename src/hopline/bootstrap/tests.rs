//! Bootstraps and nodes in one process, on the loopback.

mod restarts;

use super::*;
use crate::net::bootstrap_client::{BootstrapClient, Cause, JoinError, JoinOptions};
use crate::net::bootstrap_rpc::{BootstrapRequest, BootstrapResponse, MAX_BOOTSTRAP_RESPONSE_BYTES};
use crate::net::frames::{self, FrameError};
use crate::net::join::{ChannelBinding, JoinRequest, Refusal};
use crate::net::testing::{LOOPBACK, member};
use hopline_proto::codec;
use hopline_proto::machine::AskFailure;
use hopline_proto::rpc::{Listing, Offer, Request, Response};
use hopline_proto::{BootId, Time};
use quinn::{Connection, Endpoint};
use rustls::AlertDescription::DecryptError;
use serde::Serialize;
use std::fs;
use std::net::UdpSocket;

mod misuse;
mod recovery;

/// The process that nodes say they are.
const BOOT: BootId = BootId::from_bytes([1; 16]);
const TIMEOUT: Duration = Duration::from_secs(10);
const SOON: Duration = Duration::from_millis(200);

fn options(data: Option<&Path>) -> Options {
    Options { listen: LOOPBACK, data: data.map(Path::to_owned), ..Options::default() }
}

async fn server() -> Server {
    Server::start(options(None)).await.unwrap()
}

/// A server on an address that another has just left: its socket lives until its last connection is drained.
async fn server_at(listen: SocketAddr, data: &Path) -> Server {
    let options = Options { listen, ..options(Some(data)) };
    let start = async {
        loop {
            match Server::start(options.clone()).await {
                Err(StartError::Bind(_) | StartError::Store(_)) => tokio::task::yield_now().await,
                other => return other.unwrap(),
            }
        }
    };
    timeout(TIMEOUT, start).await.unwrap()
}

/// Joins, or not, within a time that fits tests in which nobody answers.
async fn join(ticket: &Ticket, data: Option<&Path>) -> Result<BootstrapClient, JoinError> {
    let data = DataDir::take(data, Role::Endpoint).await.unwrap();
    let options = JoinOptions { data, connect_timeout: SOON * 10, ..JoinOptions::default() };
    timeout(TIMEOUT, BootstrapClient::join_with(ticket.clone(), options)).await.unwrap()
}

async fn list(bootstrap_client: &BootstrapClient) -> Result<Listing, AskFailure> {
    let response = bootstrap_client.ask(Request::List, TIMEOUT).await?;
    let Response::Listing(listing) = response else { panic!("{response:?}") };
    Ok(*listing)
}

fn single_use(id: u8) -> Grant {
    Grant { id: [id; 16], single_use: true, expires: Time::MAX }
}

/// Forgets the certificate but not the key: what a node is that failed between being admitted and storing it.
fn forget_certificate(data: &Path) {
    fs::remove_file(data.join("node.crt")).unwrap();
}

/// A connection that does not keep to the rules. Its endpoint has to outlive it.
async fn raw(server: &Server, client: quinn::ClientConfig) -> (Connection, Endpoint) {
    let endpoint = Endpoint::client(LOOPBACK).unwrap();
    let connecting = endpoint.connect_with(client, server.local_addr(), tls::BOOTSTRAP_NAME).unwrap();
    (connecting.await.unwrap(), endpoint)
}

async fn raw_member(server: &Server) -> (Connection, Endpoint) {
    raw(server, tls::bootstrap_client(&member(&server.shared.authority)).unwrap()).await
}

async fn raw_newcomer(server: &Server) -> (Connection, Endpoint) {
    raw(server, tls::join_client(server.network())).await
}

/// How the server ends a connection.
async fn closed(connection: &Connection) -> BootstrapClose {
    let error = timeout(TIMEOUT, connection.closed()).await.unwrap();
    BootstrapClose::of(&error).unwrap_or_else(|| panic!("{error}"))
}

async fn ask_raw(connection: &Connection, request: &impl Serialize) -> Result<BootstrapResponse, FrameError> {
    let (mut sender, mut receiver) = connection.open_bi().await.unwrap();
    frames::write_frame(&mut sender, request).await?;
    timeout(TIMEOUT, frames::read_frame(&mut receiver, MAX_BOOTSTRAP_RESPONSE_BYTES)).await.unwrap()
}

#[tokio::test]
async fn a_newcomer_joins_registers_and_asks() {
    let server = server().await;
    let bootstrap_client = join(server.ticket(), None).await.unwrap();
    assert_eq!(bootstrap_client.membership().node_id(), bootstrap_client.node_id());
    assert_eq!(bootstrap_client.bootstrap(), server.local_addr());
    let address = "127.0.0.1:1".parse().unwrap();
    let offer = Offer::relay(address, "z", 7);
    let register = Request::Register { name: "r1".to_owned(), offer, boot: BOOT };
    assert!(matches!(bootstrap_client.ask(register, TIMEOUT).await, Ok(Response::Lease(_))));
    let listing = list(&bootstrap_client).await.unwrap();
    let seen: Vec<_> = listing.relays.iter().map(|relay| (relay.node, relay.name.as_str())).collect();
    assert_eq!(seen, [(bootstrap_client.node_id(), "r1")]);
    let counters = server.counters();
    assert_eq!(
        (counters.connections, counters.joined, counters.answered),
        (2, 1, 2),
        "one connection is kept"
    );
    assert_eq!(server.inspect(|machine| machine.pool().counts().registered), 1);
    assert!(bootstrap_client.failure().is_none());
    server.shutdown().await;
}

#[tokio::test]
async fn a_wrong_secret_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (ours, theirs) = (directory.path().join("ours"), directory.path().join("theirs"));
    let server = Server::start(options(Some(&ours))).await.unwrap();
    // Somebody who has seen a ticket's network key, but not its secret.
    let text = fs::read_to_string(ours.join("network.key")).unwrap();
    let (_, pem) = text.split_once('\n').unwrap();
    fs::create_dir(&theirs).unwrap();
    fs::write(theirs.join("network.key"), format!("secret = {}\n{pem}", "ab".repeat(32))).unwrap();
    let forger = Authority::load_or_create(&theirs).unwrap();
    assert_eq!(forger.public_key(), server.network());
    let forged = Ticket::issue(&forger, server.ticket().bootstraps().to_vec(), Grant::DEFAULT).unwrap();
    let error = join(&forged, None).await.unwrap_err();
    assert!(matches!(error, JoinError::Refused(Refusal::WrongSecret)), "{error}");
    assert!(error.is_refusal());
    assert_eq!(server.counters().joins_refused, 1);
}

#[tokio::test]
async fn an_expired_ticket_is_refused() {
    let server = server().await;
    let ticket = server.invite(Grant { expires: Time::from_micros(1), ..Grant::DEFAULT });
    let error = join(&ticket, None).await.unwrap_err();
    assert!(matches!(error, JoinError::Refused(Refusal::Expired { .. })), "{error}");
}

#[tokio::test]
async fn a_single_use_ticket_is_for_its_first_user() {
    let directory = tempfile::tempdir().unwrap();
    let (boot, alice) = (directory.path().join("boot"), directory.path().join("alice"));
    let server = Server::start(options(Some(&boot))).await.unwrap();
    let address = server.local_addr();
    let ticket = server.invite(single_use(7));
    let first = join(&ticket, Some(&alice)).await.unwrap().node_id();
    let used = async || {
        let error = join(&ticket, None).await.unwrap_err();
        assert!(matches!(error, JoinError::Refused(Refusal::Used)), "{error}");
    };
    used().await;
    forget_certificate(&alice);
    assert_eq!(join(&ticket, Some(&alice)).await.unwrap().node_id(), first, "its first user may retry");
    server.shutdown().await;

    let server = server_at(address, &boot).await;
    used().await;
    forget_certificate(&alice);
    assert_eq!(join(&ticket, Some(&alice)).await.unwrap().node_id(), first, "also after a restart");
    join(&server.invite(single_use(8)), None).await.unwrap();
    assert_eq!((server.counters().joined, server.counters().joins_refused), (2, 1));
}

#[tokio::test]
async fn networks_keep_apart() {
    let (ours, theirs) = (server().await, server().await);
    let addresses = vec![ours.local_addr().to_string()];
    let stray = Ticket::issue(&theirs.shared.authority, addresses.clone(), Grant::DEFAULT).unwrap();
    let error = join(&stray, None).await.unwrap_err();
    let JoinError::OtherNetwork { address } = &error else { panic!("{error}") };
    assert_eq!(*address, addresses[0]);
    // A member of another network that trusts ours is still no member of ours.
    let intruder = Membership { network: ours.network(), ..member(&theirs.shared.authority) };
    let (connection, _endpoint) = raw(&ours, tls::bootstrap_client(&intruder).unwrap()).await;
    let error = timeout(TIMEOUT, connection.closed()).await.unwrap();
    assert_eq!(tls::alert(&error), Some(DecryptError));
    let bootstrap_client = join(ours.ticket(), None).await.unwrap();
    list(&bootstrap_client).await.unwrap();
    assert_eq!(ours.counters().answered, 1);
}

#[tokio::test]
async fn without_a_bootstrap_the_error_tells_what_was_tried() {
    let dead = UdpSocket::bind(LOOPBACK).unwrap();
    let silent = dead.local_addr().unwrap().to_string();
    let addresses = vec![silent.clone(), "no..name:1".to_owned()];
    let ticket = Ticket::issue(&Authority::generate(), addresses, Grant::DEFAULT).unwrap();
    let options = JoinOptions { connect_timeout: SOON, ..JoinOptions::default() };
    let error = BootstrapClient::join_with(ticket, options).await.unwrap_err();
    let text = error.to_string();
    let JoinError::NoBootstrap { attempts } = &error else { panic!("{error}") };
    let causes: Vec<_> = attempts.iter().map(|attempt| (attempt.address.as_str(), &attempt.cause)).collect();
    assert!(
        matches!(causes[..], [(first, Cause::NoAnswer { within: SOON }), ("no..name:1", Cause::Name(_))]
            if first == silent),
        "{text}"
    );
    assert!(text.contains(&silent) && text.contains("0.2 s") && text.contains("no..name:1"), "{text}");
    assert_eq!(error.kind(), ErrorKind::Unreachable);
}

#[tokio::test]
async fn a_dead_bootstrap_is_passed_over() {
    let server = server().await;
    let dead = UdpSocket::bind(LOOPBACK).unwrap();
    let addresses = vec![dead.local_addr().unwrap().to_string(), server.local_addr().to_string()];
    let ticket = Ticket::issue(&server.shared.authority, addresses, Grant::DEFAULT).unwrap();
    let options = JoinOptions { connect_timeout: SOON, ..JoinOptions::default() };
    let bootstrap_client = BootstrapClient::join_with(ticket, options).await.unwrap();
    assert_eq!(bootstrap_client.bootstrap(), server.local_addr());
    list(&bootstrap_client).await.unwrap();
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_bootstrap_that_the_network_says_is_gone_is_passed_over_at_once() {
    let server = server().await;
    let nobody = UdpSocket::bind(LOOPBACK).unwrap().local_addr().unwrap();
    let addresses = vec![nobody.to_string(), server.local_addr().to_string()];
    let ticket = Ticket::issue(&server.shared.authority, addresses, Grant::DEFAULT).unwrap();
    let options = JoinOptions { connect_timeout: TIMEOUT * 10, ..JoinOptions::default() };
    let joined = timeout(TIMEOUT, BootstrapClient::join_with(ticket, options)).await;
    let bootstrap_client = joined.expect("no handshake is waited for").unwrap();
    assert_eq!(bootstrap_client.bootstrap(), server.local_addr());
    list(&bootstrap_client).await.unwrap();
}

#[tokio::test]
async fn a_fresh_question_goes_to_the_next_bootstrap() {
    let directory = tempfile::tempdir().unwrap();
    let (one, two) = (directory.path().join("one"), directory.path().join("two"));
    let first = Server::start(options(Some(&one))).await.unwrap();
    fs::create_dir(&two).unwrap();
    fs::copy(one.join("network.key"), two.join("network.key")).unwrap();
    let second = Server::start(options(Some(&two))).await.unwrap();
    let addresses = vec![first.local_addr().to_string(), second.local_addr().to_string()];
    let ticket = Ticket::issue(&first.shared.authority, addresses, Grant::DEFAULT).unwrap();
    let bootstrap_client = join(&ticket, None).await.unwrap();
    let answered = || (first.counters().answered, second.counters().answered);
    list(&bootstrap_client).await.unwrap();
    assert_eq!(answered(), (1, 0));
    bootstrap_client.ask_fresh(Request::List, TIMEOUT).await.unwrap();
    assert_eq!((answered(), bootstrap_client.bootstrap()), ((1, 1), second.local_addr()));
    list(&bootstrap_client).await.unwrap();
    assert_eq!(answered(), (1, 2), "and there it stays");
    bootstrap_client.ask_fresh(Request::List, TIMEOUT).await.unwrap();
    assert_eq!((answered(), bootstrap_client.bootstrap()), ((2, 2), first.local_addr()));
}

#[tokio::test]
async fn garbage_ends_its_own_connection_only() {
    let server = server().await;
    let bystander = join(server.ticket(), None).await.unwrap();
    let mut rng = crate::net::entropy::seeded_rng();
    let mut random = [0; 100];
    rand::Rng::fill_bytes(&mut rng, &mut random);
    // A request to join begins so, and is longer.
    let framed = [&[0, 0, 0, 96, 0][..], &random[..95]].concat();
    let whole = codec::to_bytes(&BootstrapRequest::Renew);
    let trailing = [&[0, 0, 0, 2], &whole[..], &[0]].concat();
    let oversize = [0xff; 4].to_vec();
    let truncated = [&[0, 0, 0, 50][..], &[2; 10]].concat();
    let no_number = vec![0, 0, 0, 1, 255];
    let garbage = [framed, trailing, oversize, truncated, no_number, vec![0]];
    for bytes in &garbage {
        for (connection, _endpoint) in [raw_member(&server).await, raw_newcomer(&server).await] {
            let (mut sender, _receiver) = connection.open_bi().await.unwrap();
            sender.write_all(bytes).await.unwrap();
            sender.finish().unwrap();
            assert_eq!(closed(&connection).await, BootstrapClose::Malformed, "{bytes:?}");
        }
        list(&bystander).await.unwrap();
    }
    assert_eq!(server.counters().violations, garbage.len() as u64 * 2);
    assert!(bystander.failure().is_none());
}

#[tokio::test]
async fn who_gives_up_breaks_no_rule() {
    let server = server().await;
    let (connection, _endpoint) = raw_member(&server).await;
    let (mut sender, _receiver) = connection.open_bi().await.unwrap();
    sender.write_all(&[0, 0]).await.unwrap();
    sender.reset(BootstrapClose::Cancelled.number().into()).unwrap();
    let (mut sender, _receiver) = connection.open_bi().await.unwrap();
    sender.finish().unwrap();
    ask_raw(&connection, &BootstrapRequest::Renew).await.unwrap();

    let bootstrap_client = join(server.ticket(), None).await.unwrap();
    for _ in 0..10 {
        let asking = bootstrap_client.ask(Request::List, TIMEOUT);
        tokio::select! {
            biased;
            _ = asking => {}
            () = tokio::task::yield_now() => {}
        }
    }
    list(&bootstrap_client).await.unwrap();
    assert_eq!(server.counters().violations, 0);
}

#[tokio::test]
async fn everyone_may_ask_only_what_is_theirs_to_ask() {
    let server = server().await;
    for request in [BootstrapRequest::Renew, BootstrapRequest::Ask(Request::List)] {
        let (connection, _endpoint) = raw_newcomer(&server).await;
        ask_raw(&connection, &request).await.unwrap_err();
        assert_eq!(closed(&connection).await, BootstrapClose::NotAllowed);
    }
    let (connection, _endpoint) = raw_member(&server).await;
    let request = JoinRequest::new(server.ticket(), &Identity::generate(), &ChannelBinding::of(&connection));
    ask_raw(&connection, &BootstrapRequest::Join(request)).await.unwrap_err();
    assert_eq!(closed(&connection).await, BootstrapClose::NotAllowed);
    assert_eq!(server.counters().violations, 3);
}

#[tokio::test]
async fn a_proof_is_good_for_its_connection_only() {
    let server = server().await;
    let (seen, _endpoint) = raw_newcomer(&server).await;
    let (other, _endpoint) = raw_newcomer(&server).await;
    let request = JoinRequest::new(server.ticket(), &Identity::generate(), &ChannelBinding::of(&seen));
    let response = ask_raw(&other, &BootstrapRequest::Join(request)).await.unwrap();
    assert_eq!(response, BootstrapResponse::JoinRefused(Refusal::WrongSecret));
}

#[tokio::test]
async fn silence_is_given_up() {
    let mut limits = Limits { stream_timeout: SOON, ..Limits::default() };
    limits.admission.guests.limit = SOON;
    let server = Server::start(Options { limits, ..options(None) }).await.unwrap();
    let (newcomer, _endpoint) = raw_newcomer(&server).await;
    let (member, _endpoint) = raw_member(&server).await;
    let (mut sender, mut receiver) = member.open_bi().await.unwrap();
    sender.write_all(&[0]).await.unwrap();
    let answer = timeout(TIMEOUT, frames::read_frame::<BootstrapResponse>(&mut receiver, 100)).await.unwrap();
    assert_eq!(answer, Err(FrameError::Reset(BootstrapClose::TimedOut.number().into())));
    ask_raw(&member, &BootstrapRequest::Renew).await.unwrap();
    assert_eq!(closed(&newcomer).await, BootstrapClose::TimedOut);
    assert_eq!(server.counters().timed_out, 2);
}

#[tokio::test]
async fn a_removed_node_is_refused_at_once_and_for_good() {
    let directory = tempfile::tempdir().unwrap();
    let server = server().await;
    let bootstrap_client = join(server.ticket(), Some(directory.path())).await.unwrap();
    list(&bootstrap_client).await.unwrap();
    server.remove(bootstrap_client.node_id()).await.unwrap();
    assert_eq!(list(&bootstrap_client).await, Err(AskFailure::Unreachable));
    let failure = bootstrap_client.failure().unwrap();
    assert!(matches!(*failure, JoinError::Refused(Refusal::Removed)), "{failure}");
    assert_eq!(list(&bootstrap_client).await, Err(AskFailure::Unreachable), "over a new connection too");
    drop(bootstrap_client);
    forget_certificate(directory.path());
    let error = join(server.ticket(), Some(directory.path())).await.unwrap_err();
    assert!(matches!(error, JoinError::Refused(Refusal::Removed)), "{error}");
    list(&join(server.ticket(), None).await.unwrap()).await.unwrap();
}

#[tokio::test]
async fn members_outlive_a_restart_of_the_bootstrap() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(options(Some(directory.path()))).await.unwrap();
    let (address, ticket) = (server.local_addr(), server.ticket().clone());
    let bootstrap_client = join(&ticket, None).await.unwrap();
    list(&bootstrap_client).await.unwrap();
    server.shutdown().await;
    let server = server_at(address, directory.path()).await;
    assert_eq!(*server.ticket(), ticket, "the same network, the same ticket");
    list(&bootstrap_client).await.unwrap();
    assert_eq!(server.counters().joined, 0);
}

#[tokio::test]
async fn a_question_has_a_time_limit() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(options(Some(directory.path()))).await.unwrap();
    let address = server.local_addr();
    let bootstrap_client = join(server.ticket(), None).await.unwrap();
    server.shutdown().await;
    let mute = async {
        loop {
            match UdpSocket::bind(address) {
                Ok(socket) => return socket,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    };
    let mute = timeout(TIMEOUT, mute).await.unwrap();
    assert_eq!(bootstrap_client.ask(Request::List, SOON).await, Err(AskFailure::Unreachable));
    drop(mute);
    let _server = server_at(address, directory.path()).await;
    list(&bootstrap_client).await.unwrap();
}

#[tokio::test]
async fn a_member_starts_without_a_bootstrap() {
    let directory = tempfile::tempdir().unwrap();
    let (boot, node) = (directory.path().join("boot"), directory.path().join("node"));
    let server = Server::start(options(Some(&boot))).await.unwrap();
    let (address, ticket) = (server.local_addr(), server.ticket().clone());
    let id = join(&ticket, Some(&node)).await.unwrap().node_id();
    server.shutdown().await;
    let bootstrap_client = join(&ticket, Some(&node)).await.unwrap();
    assert_eq!((bootstrap_client.node_id(), bootstrap_client.bootstrap()), (id, address));
    let server = server_at(address, &boot).await;
    list(&bootstrap_client).await.unwrap();
    assert_eq!(server.counters().joined, 0);
}

/// Waits until a certificate that ends then is not valid any more: it is for all of its last second.
async fn past(end: Time) {
    let after = end + Duration::from_secs(1);
    while Clock::wall() <= after {
        sleep(after.since(Clock::wall()) + Duration::from_millis(1)).await;
    }
}

/// A member whose certificate was issued in the past, in its data directory.
fn store_member(server: &Server, data: &Path, validity: Duration, ago: Duration) -> Membership {
    let identity = Arc::new(Identity::load_or_create(data).unwrap());
    let issued = server.shared.authority.issue(identity.public_key(), validity, Clock::wall() - ago);
    let membership = Membership::new(identity, issued, server.network());
    membership.store(data).unwrap();
    membership
}

#[tokio::test]
async fn certificates_are_renewed_in_time() {
    let directory = tempfile::tempdir().unwrap();
    let server = server().await;
    let day = Duration::from_secs(24 * 3600);
    let old = store_member(&server, directory.path(), day * 7, day * 5);
    let bootstrap_client = join(server.ticket(), Some(directory.path())).await.unwrap();
    let mut memberships = bootstrap_client.memberships();
    let renewed = memberships.wait_for(|membership| membership.expires > old.expires);
    timeout(TIMEOUT, renewed).await.unwrap().unwrap();
    assert_eq!((server.counters().renewed, server.counters().joined), (1, 0));
    let stored = Membership::load(
        directory.path(),
        &bootstrap_client.membership().identity,
        server.network(),
        Clock::wall(),
    );
    assert_eq!(stored.unwrap().unwrap().certificate, bootstrap_client.membership().certificate);
    let by_hand = bootstrap_client.renew().await.unwrap();
    assert_eq!(by_hand.certificate, bootstrap_client.membership().certificate);
    assert_eq!(server.counters().renewed, 2);
}

#[tokio::test]
async fn a_member_that_missed_its_renewal_joins_anew() {
    let directory = tempfile::tempdir().unwrap();
    let (boot, node) = (directory.path().join("boot"), directory.path().join("node"));
    let server = Server::start(options(Some(&boot))).await.unwrap();
    let (address, ticket) = (server.local_addr(), server.ticket().clone());
    let old = store_member(&server, &node, Duration::from_secs(2), Duration::ZERO);
    server.shutdown().await;
    let bootstrap_client = join(&ticket, Some(&node)).await.unwrap();
    past(old.expires).await;
    let server = server_at(address, &boot).await;
    list(&bootstrap_client).await.unwrap();
    assert_eq!((server.counters().joined, bootstrap_client.node_id()), (1, old.node_id()));
    assert!(bootstrap_client.membership().expires > old.expires);
}

#[tokio::test]
async fn a_member_whose_certificate_has_not_begun_joins_anew() {
    let directory = tempfile::tempdir().unwrap();
    let server = server().await;
    let ahead = Clock::wall() + Duration::from_secs(30 * 24 * 3600);
    let identity = Arc::new(Identity::load_or_create(directory.path()).unwrap());
    let issued = server.shared.authority.issue(identity.public_key(), DEFAULT_VALIDITY, ahead);
    let old = Membership::new(identity, issued, server.network());
    old.store(directory.path()).unwrap();
    let bootstrap_client = join(server.ticket(), Some(directory.path())).await.unwrap();
    list(&bootstrap_client).await.unwrap();
    assert_eq!((server.counters().joined, bootstrap_client.node_id()), (1, old.node_id()));
    assert!(bootstrap_client.membership().expires < old.expires);
}

#[tokio::test]
async fn the_bootstrap_renews_its_own_certificate() {
    let validity = Duration::from_secs(3);
    let server = Server::start(Options { validity, ..options(None) }).await.unwrap();
    let first_ends = Clock::wall() + validity;
    past(first_ends).await;
    join(server.ticket(), None).await.unwrap();
}

#[tokio::test]
async fn strangers_are_bounded_and_take_no_members_place() {
    let mut limits = Limits::default();
    (limits.admission.guests.most, limits.admission.guests.fair) = (1, Duration::ZERO);
    let server = Server::start(Options { limits, ..options(None) }).await.unwrap();
    let member = join(server.ticket(), None).await.unwrap();
    list(&member).await.unwrap();
    let (silent, _endpoint) = raw_newcomer(&server).await;
    join(server.ticket(), None).await.expect("who says nothing has to go for who does");
    assert_eq!(closed(&silent).await, BootstrapClose::Overloaded);
    list(&member).await.unwrap();
    let counters = server.counters();
    assert_eq!((counters.connections_refused, counters.retries), (1, 0), "{counters:?}");
}

#[tokio::test]
async fn a_newcomer_that_finds_no_room_waits_for_a_moment() {
    let mut limits = Limits::default();
    limits.admission.guests.most = 1;
    // Long before the silent one's time is up, however late the newcomer comes again.
    (limits.admission.guests.fair, limits.admission.guests.limit) = (SOON * 5, SOON * 100);
    let server = Server::start(Options { limits, ..options(None) }).await.unwrap();
    let (silent, _endpoint) = raw_newcomer(&server).await;
    join(server.ticket(), None).await.expect("it comes again");
    assert_eq!(closed(&silent).await, BootstrapClose::Overloaded);
    assert!(server.counters().connections_refused > 1, "or this proves nothing");
}

#[tokio::test]
async fn an_address_is_proven_from_a_low_mark_on() {
    let mut limits = Limits::default();
    limits.admission.unproven.most = 0;
    let server = Server::start(Options { limits, ..options(None) }).await.unwrap();
    list(&join(server.ticket(), None).await.unwrap()).await.unwrap();
    let counters = server.observe().admission();
    assert!(counters.to_prove >= 2, "each of the two connections: {counters:?}");
    assert_eq!((counters.unproven, counters.proven, counters.failed), (0, 2, 0), "{counters:?}");
}

#[tokio::test]
async fn a_members_newest_connection_takes_the_place_of_its_oldest() {
    let server = server().await;
    let membership = member(&server.shared.authority);
    let mut connections = Vec::new();
    for _ in 0..30 {
        let raw = raw(&server, tls::bootstrap_client(&membership).unwrap()).await;
        ask_raw(&raw.0, &BootstrapRequest::Ask(Request::List)).await.expect("it is answered");
        connections.push(raw);
    }
    assert_eq!(closed(&connections[0].0).await, BootstrapClose::Replaced);
    assert_eq!(server.counters().replaced, 22, "eight are left");
    let (newest, _) = connections.last().unwrap();
    ask_raw(newest, &BootstrapRequest::Ask(Request::List)).await.unwrap();
}

#[tokio::test]
async fn members_connections_are_bounded_and_age() {
    let limits = Limits { members: 1, connection_age: SOON, ..Limits::default() };
    let server = Server::start(Options { limits, ..options(None) }).await.unwrap();
    let (first, _endpoint) = raw_member(&server).await;
    let (second, _endpoint) = raw_member(&server).await;
    assert_eq!(closed(&second).await, BootstrapClose::Overloaded);
    assert_eq!(closed(&first).await, BootstrapClose::Aged);
}

#[tokio::test]
async fn a_data_directory_serves_one_bootstrap() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(options(Some(directory.path()))).await.unwrap();
    let path = directory.path().join("ticket");
    let ticket: Ticket = fs::read_to_string(&path).unwrap().parse().unwrap();
    assert_eq!(ticket, *server.ticket());
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let error = Server::start(options(Some(directory.path()))).await.unwrap_err();
    assert!(matches!(error, StartError::Data(DataDirError::InUse { .. })), "{error}");
    server.shutdown().await;
    Server::start(options(Some(directory.path()))).await.unwrap();
}

#[test]
fn a_handle_works_on_any_runtime() {
    let home = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (server, bootstrap_client) = home.block_on(async {
        let server = server().await;
        let bootstrap_client = join(server.ticket(), None).await.unwrap();
        (server, bootstrap_client)
    });
    let away = std::thread::spawn({
        let bootstrap_client = bootstrap_client.clone();
        move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(list(&bootstrap_client)).unwrap();
        }
    });
    home.block_on(async {
        while !away.is_finished() {
            tokio::task::yield_now().await;
        }
        away.join().unwrap();
        list(&bootstrap_client).await.unwrap(); // the connection made from there has not ended with it
        assert_eq!(server.counters().connections, 2);
        bootstrap_client.close().await;
        server.shutdown().await;
    });
}

#[test]
fn tickets_name_an_address_that_can_be_dialled() {
    let bound = Local::at("127.0.0.1:7".parse().unwrap());
    assert_eq!(advertised(&["b.example:1".to_owned()], bound), ["b.example:1"]);
    assert_eq!(advertised(&[], bound), ["127.0.0.1:7"]);
    for (any, most) in [("0.0.0.0:7", 1), ("[::]:7", 2)] {
        let named = advertised(&[], Local::at(any.parse().unwrap()));
        assert!((1..=most).contains(&named.len()), "one for each family: {named:?}");
        for address in named.iter().map(|named| named.parse::<SocketAddr>().unwrap()) {
            assert!(!address.ip().is_unspecified() && address.port() == 7, "{address}");
        }
    }
}

#[tokio::test]
async fn a_whole_fleet_may_join_at_once() {
    let mut limits = Limits::default();
    for places in [&mut limits.admission.unproven, &mut limits.admission.proven, &mut limits.admission.guests]
    {
        places.most = 16;
    }
    let server = Server::start(Options { limits, ..options(None) }).await.unwrap();
    let slow = JoinOptions { connect_timeout: TIMEOUT * 2, ..JoinOptions::default() };
    // A task each, so that all have dialled before the first handshake is done.
    let newcomers = (0..64).map(|_| BootstrapClient::join_with(server.ticket().clone(), slow.clone()));
    let joined = newcomers.collect::<tokio::task::JoinSet<_>>().join_all().await;
    assert!(joined.iter().all(Result::is_ok), "{joined:?}");
    let counters = server.observe().admission();
    assert!(counters.to_prove > 0 && counters.crowded > 0, "or this proves nothing: {counters:?}");
}
