//! Real handshakes, over QUIC on the loopback and over an in-memory pipe.

use super::*;
use crate::net::authority::{Authority, DEFAULT_VALIDITY, Issued};
use crate::net::clock::Clock;
use crate::net::identity::Identity;
use crate::net::join::{ChannelBinding, JoinRequest};
use crate::net::ticket::{Grant, Ticket};
use hopline_proto::Time;
use quinn::{Connection, ConnectionError, Endpoint};
use rustls::AlertDescription::{
    BadCertificate, CertificateExpired, CertificateRequired, CertificateUnknown, DecryptError,
    NoApplicationProtocol,
};
use rustls::{CertificateError, Error, HandshakeKind};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::{TlsAcceptor, TlsConnector};

const HOUR: Duration = Duration::from_secs(3600);
const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

fn member_until(authority: &Authority, issue: impl FnOnce(&[u8; 32]) -> Issued) -> Membership {
    let identity = Arc::new(Identity::generate());
    let issued = issue(identity.public_key());
    Membership::new(identity, issued, authority.public_key())
}

fn member(authority: &Authority) -> Membership {
    member_until(authority, |key| authority.issue(key, DEFAULT_VALIDITY, Clock::wall()))
}

fn expired_member(authority: &Authority) -> Membership {
    member_until(authority, |key| authority.issue(key, HOUR, Clock::wall() - HOUR * 2))
}

fn bootstrap(authority: &Authority) -> Membership {
    member_until(authority, |key| authority.issue_bootstrap(key, DEFAULT_VALIDITY, Clock::wall()))
}

/// What the two sides make of a handshake, and the endpoints, which must outlive the connections.
struct Outcome {
    client: Result<Connection, ConnectionError>,
    server: Result<Connection, ConnectionError>,
    _endpoints: [Endpoint; 2],
}

impl Outcome {
    /// Whom the client and the server saw.
    fn peers(self) -> (Option<NodeId>, Option<NodeId>) {
        (peer(&self.client.unwrap()), peer(&self.server.unwrap()))
    }

    /// How the client sent the server away; both know.
    fn client_refused(self) -> AlertDescription {
        let (client, server) = (self.client.unwrap_err(), self.server.unwrap_err());
        assert_eq!(alert(&client), alert(&server));
        alert(&server).unwrap()
    }

    /// How the server sent the client away. A client learns it after its own part of the handshake is done.
    async fn server_refused(self) -> AlertDescription {
        let client = match self.client {
            Ok(connection) => connection.closed().await,
            Err(error) => error,
        };
        assert_eq!(alert(&client), alert(&self.server.unwrap_err()));
        alert(&client).unwrap()
    }
}

async fn shake(server: quinn::ServerConfig, client: quinn::ClientConfig, name: &str) -> Outcome {
    let accepting = Endpoint::server(server, LOOPBACK).unwrap();
    let dialling = Endpoint::client(LOOPBACK).unwrap();
    let address = accepting.local_addr().unwrap();
    let connecting = dialling.connect_with(client, address, name).unwrap();
    let accept = async { accepting.accept().await.unwrap().await };
    let (client, server) = tokio::join!(connecting, accept);
    Outcome { client, server, _endpoints: [accepting, dialling] }
}

async fn link(server: &Membership, client: &Membership) -> Outcome {
    let name = node_name(server.node_id());
    shake(link_server(server).unwrap(), link_client(client).unwrap(), &name.to_str()).await
}

#[tokio::test]
async fn members_link_and_know_each_other() {
    let authority = Authority::generate();
    let (server, client) = (member(&authority), member(&authority));
    let peers = link(&server, &client).await.peers();
    assert_eq!(peers, (Some(server.node_id()), Some(client.node_id())));
}

#[tokio::test]
async fn networks_keep_apart() {
    let (ours, theirs) = (Authority::generate(), Authority::generate());
    let (insider, outsider) = (member(&ours), member(&theirs));
    assert_eq!(link(&outsider, &insider).await.client_refused(), DecryptError);
    // An outsider that trusts us is still none of us.
    let intruder = Membership { network: ours.public_key(), ..outsider };
    assert_eq!(link(&insider, &intruder).await.server_refused().await, DecryptError);
    assert_eq!(link(&intruder, &insider).await.client_refused(), DecryptError);
}

#[tokio::test]
async fn a_member_can_not_pose_as_another_or_as_a_bootstrap() {
    let authority = Authority::generate();
    let (server, client) = (member(&authority), member(&authority));
    for name in [&*node_name(client.node_id()).to_str(), BOOTSTRAP_NAME] {
        let config = (link_server(&server).unwrap(), link_client(&client).unwrap());
        assert_eq!(shake(config.0, config.1, name).await.client_refused(), BadCertificate);
    }
}

#[tokio::test]
async fn a_member_can_not_vouch_for_others() {
    let authority = Authority::generate();
    let (member, stranger) = (member(&authority), Arc::new(Identity::generate()));
    let mut params = rcgen::CertificateParams::new(vec![dns_name(stranger.node_id())]).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, "anyone");
    let key = rcgen::KeyPair::try_from(member.identity.private_key().secret_der()).unwrap();
    let subject = rcgen::KeyPair::try_from(stranger.private_key().secret_der()).unwrap();
    let mut issuer = rcgen::CertificateParams::default();
    issuer.distinguished_name = rcgen::DistinguishedName::new();
    issuer.distinguished_name.push(rcgen::DnType::CommonName, member.node_id().to_string());
    let forged = params.signed_by(&subject, &rcgen::Issuer::new(issuer, key)).unwrap();

    let chain = vec![forged.der().clone(), member.certificate.clone()];
    let client = trusting(member.network).with_client_auth_cert(chain, stranger.private_key()).unwrap();
    let name = node_name(member.node_id());
    let client = quic_client(without_tickets(client, LINK, Versions::OURS));
    let outcome = shake(link_server(&member).unwrap(), client, &name.to_str()).await;
    assert_eq!(outcome.server_refused().await, CertificateUnknown);
}

#[tokio::test]
async fn expired_certificates_are_refused_both_ways() {
    let authority = Authority::generate();
    let (valid, expired) = (member(&authority), expired_member(&authority));
    assert_eq!(link(&expired, &valid).await.client_refused(), CertificateExpired);
    assert_eq!(link(&valid, &expired).await.server_refused().await, CertificateExpired);
}

#[tokio::test]
async fn whoever_refuses_for_the_time_names_both_times_and_the_difference() {
    let authority = Authority::generate();
    let in_a_month = Clock::wall() + HOUR * 24 * 30;
    let early = member_until(&authority, |key| authority.issue(key, DEFAULT_VALIDITY, in_a_month));
    for (server, bound, by) in [
        (early, "valid only from", "29 days earlier"),
        (expired_member(&authority), "valid only until", "60 minutes later"),
    ] {
        let refused = link(&server, &member(&authority)).await;
        let text = explain(&refused.client.unwrap_err());
        assert!(text.contains(bound) && text.ends_with(by), "{text}");
        assert_eq!(text.matches(" UTC").count(), 2, "{text}");
    }
}

#[tokio::test]
async fn only_a_bootstrap_talks_to_newcomers() {
    let authority = Authority::generate();
    let (network, bootstrap, relay) = (authority.public_key(), bootstrap(&authority), member(&authority));

    let welcome = shake(bootstrap_server(&bootstrap).unwrap(), join_client(network), BOOTSTRAP_NAME).await;
    assert_eq!(welcome.peers(), (Some(bootstrap.node_id()), None));

    let mut config = without_tickets(trusting(network).with_no_client_auth(), LINK, Versions::OURS);
    let name = node_name(relay.node_id());
    let refused = shake(link_server(&relay).unwrap(), quic_client(config.clone()), &name.to_str()).await;
    assert_eq!(refused.server_refused().await, CertificateRequired);

    config.alpn_protocols = Versions::OURS.names(BOOTSTRAP);
    let refused = shake(link_server(&relay).unwrap(), quic_client(config), &name.to_str()).await;
    assert_eq!(refused.server_refused().await, NoApplicationProtocol);
}

#[tokio::test]
async fn a_bootstrap_knows_members_and_refuses_what_was_one() {
    let authority = Authority::generate();
    let (bootstrap, relay, expired) = (bootstrap(&authority), member(&authority), expired_member(&authority));
    let ask = async |membership: &Membership| {
        let client = bootstrap_client(membership).unwrap();
        shake(bootstrap_server(&bootstrap).unwrap(), client, BOOTSTRAP_NAME).await
    };
    assert_eq!(ask(&relay).await.peers(), (Some(bootstrap.node_id()), Some(relay.node_id())));
    assert_eq!(ask(&expired).await.server_refused().await, CertificateExpired);
}

#[tokio::test]
async fn a_newcomer_joins_and_links() {
    let authority = Authority::generate();
    let (bootstrap, relay) = (bootstrap(&authority), member(&authority));
    let ticket = Ticket::issue(&authority, vec!["b:1".to_owned()], Grant::DEFAULT).unwrap();
    let newcomer = Arc::new(Identity::generate());
    let connect = async || {
        let client = join_client(ticket.network());
        shake(bootstrap_server(&bootstrap).unwrap(), client, BOOTSTRAP_NAME).await
    };

    let outcome = connect().await;
    let (client, server) = (outcome.client.unwrap(), outcome.server.unwrap());
    let request = JoinRequest::new(&ticket, &newcomer, &ChannelBinding::of(&client));
    let node = request.verify(&ChannelBinding::of(&server), authority.secret(), Time::ZERO);
    assert_eq!(node, Ok(newcomer.node_id()));
    let replay =
        request.verify(&ChannelBinding::of(&connect().await.server.unwrap()), authority.secret(), Time::ZERO);
    replay.unwrap_err();

    let issued = authority.issue(request.public_key(), DEFAULT_VALIDITY, Clock::wall());
    let joined = Membership::new(newcomer, issued, ticket.network());
    assert_eq!(link(&relay, &joined).await.peers(), (Some(relay.node_id()), Some(joined.node_id())));
}

#[test]
fn a_certificate_of_another_key_makes_no_configuration() {
    let authority = Authority::generate();
    let mixed = Membership { certificate: member(&authority).certificate, ..member(&authority) };
    let error = link_client(&mixed).unwrap_err();
    assert!(matches!(error, TlsError::Certificate(Error::InconsistentKeys(_))), "{error}");
    link_server(&mixed).unwrap_err();
}

#[test]
fn an_id_is_taken_only_from_a_certificate_in_its_name() {
    let authority = Authority::generate();
    let (ours, other) = (Identity::generate(), Identity::generate());
    let params = rcgen::CertificateParams::new(vec![dns_name(other.node_id())]).unwrap();
    let key = rcgen::KeyPair::try_from(ours.private_key().secret_der()).unwrap();
    let misnamed = params.self_signed(&key).unwrap();
    assert_eq!(peer_node_id(&[misnamed.der().clone()]), None);
    assert_eq!(peer_node_id(&[]), None);
    assert_eq!(peer_node_id(&[vec![1, 2, 3].into()]), None);
    let good = member(&authority);
    assert_eq!(peer_node_id(std::slice::from_ref(&good.certificate)), Some(good.node_id()));
}

/// The handshake inside a flow: what the origin and the target make of it.
async fn flow(
    target: &Membership,
    origin: &Membership,
    name: NodeId,
) -> (io::Result<NodeId>, io::Result<NodeId>) {
    let (near, far) = tokio::io::duplex(1 << 16);
    let connector = TlsConnector::from(flow_client(origin).unwrap());
    let acceptor = TlsAcceptor::from(flow_server(target).unwrap());
    let (near, far) = tokio::join!(connector.connect(node_name(name), near), acceptor.accept(far));
    let seen = |certificates: Option<&[CertificateDer<'_>]>| peer_node_id(certificates.unwrap()).unwrap();
    (
        near.map(|stream| seen(stream.get_ref().1.peer_certificates())),
        far.map(|stream| seen(stream.get_ref().1.peer_certificates())),
    )
}

#[tokio::test]
async fn the_ends_of_a_flow_know_each_other() {
    let authority = Authority::generate();
    let (target, origin) = (member(&authority), member(&authority));
    let (near, far) = flow(&target, &origin, target.node_id()).await;
    assert_eq!((near.unwrap(), far.unwrap()), (target.node_id(), origin.node_id()));
}

#[tokio::test]
async fn a_flow_reaches_its_target_or_no_one() {
    let authority = Authority::generate();
    let (impostor, origin, target) = (member(&authority), member(&authority), member(&authority));
    let (near, far) = flow(&impostor, &origin, target.node_id()).await;
    far.unwrap_err();
    let near = near.unwrap_err();
    let cause = near.get_ref().and_then(|error| error.downcast_ref::<Error>());
    let misnamed =
        matches!(cause, Some(Error::InvalidCertificate(CertificateError::NotValidForNameContext { .. })));
    assert!(misnamed, "{near:?}");
}

#[tokio::test]
async fn nothing_is_resumed() {
    let authority = Authority::generate();
    let (target, origin) = (member(&authority), member(&authority));
    let connector = TlsConnector::from(flow_client(&origin).unwrap());
    let acceptor = TlsAcceptor::from(flow_server(&target).unwrap());
    for _ in 0..2 {
        let (near, far) = tokio::io::duplex(1 << 16);
        let near = connector.connect(node_name(target.node_id()), near);
        let (near, far) = tokio::join!(near, async {
            let mut far = acceptor.accept(far).await.unwrap();
            far.write_all(b"x").await.unwrap();
            far
        });
        // Tickets, if there were any, would come before the first byte.
        let mut near = near.unwrap();
        assert_eq!(near.read_u8().await.unwrap(), b'x');
        assert_eq!(near.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(near.get_ref().1.tls13_tickets_received(), 0);
        assert_eq!(far.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
    }
}

#[tokio::test]
async fn whose_certificate_was_untimely_is_known_at_both_ends() {
    let authority = Authority::generate();
    let early = |key: &[u8; 32]| authority.issue(key, HOUR, Clock::wall() + HOUR * 48);
    for untimely in [expired_member(&authority), member_until(&authority, early)] {
        let good = member(&authority);
        let refused = link(&untimely, &good).await;
        let [client, server] = [refused.client, refused.server].map(|end| Untimely::of(&end.unwrap_err()));
        assert!(
            matches!((client, server), (Some(Untimely::Theirs(_)), Some(Untimely::Ours(Some(_))))),
            "{client:?} {server:?}"
        );

        let refused = link(&good, &untimely).await;
        let server = Untimely::of(&refused.server.unwrap_err());
        let lost = crate::net::frames::FrameError::ConnectionLost(refused.client.unwrap().closed().await);
        let (client, said) = (Untimely::of(&lost), explain(&lost));
        assert!(
            said.contains("this node's certificate is valid only") && said.contains(", and its clock says"),
            "{said}"
        );
        assert!(
            matches!((client, server), (Some(Untimely::Ours(Some(_))), Some(Untimely::Theirs(_)))),
            "{client:?} {server:?}"
        );
    }
    let other = link(&member(&Authority::generate()), &member(&authority)).await;
    assert_eq!(Untimely::of(&other.client.unwrap_err()), None);
}
