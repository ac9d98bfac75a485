//! What several tests of the shell need: a pair of endpoints on the loopback, connected.

use super::authority::{Authority, DEFAULT_VALIDITY};
use super::clock::Clock;
use super::identity::{Identity, Membership};
use super::tls;
use super::transport::{self, TransportSettings};
use quinn::{Connection, Endpoint};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

/// Any free port of the loopback.
pub(crate) const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// A new member of `authority`'s network.
pub(crate) fn member(authority: &Authority) -> Membership {
    let identity = Arc::new(Identity::generate());
    let issued = authority.issue(identity.public_key(), DEFAULT_VALIDITY, Clock::wall());
    Membership::new(identity, issued, authority.public_key())
}

/// An endpoint of `member` on `address`, for links both ways.
pub(crate) fn endpoint(member: &Membership, address: SocketAddr, settings: &TransportSettings) -> Endpoint {
    let server = tls::link_server(member).unwrap();
    transport::bind(address, Some(server), settings, &member.identity.reset_secret()).unwrap()
}

/// A connection from `from` to whoever `peer` is at `to`, from its dialler's side.
pub(crate) async fn dial(
    from: &Endpoint,
    member: &Membership,
    to: SocketAddr,
    peer: &Membership,
    settings: &TransportSettings,
) -> Connection {
    let mut client = tls::link_client(member).unwrap();
    client.transport_config(transport::transport(settings));
    let name = tls::node_name(peer.node_id());
    from.connect_with(client, to, &name.to_str()).unwrap().await.unwrap()
}

/// Two ends of one connection, the dialler's first, and their endpoints.
pub(crate) async fn pair(settings: &TransportSettings) -> ([Connection; 2], [Endpoint; 2]) {
    let authority = Authority::generate();
    let (near, far) = (member(&authority), member(&authority));
    let endpoints = [endpoint(&near, LOOPBACK, settings), endpoint(&far, LOOPBACK, settings)];
    let to = endpoints[1].local_addr().unwrap();
    let accept = async { endpoints[1].accept().await.unwrap().await.unwrap() };
    let (dialled, accepted) = tokio::join!(dial(&endpoints[0], &near, to, &far, settings), accept);
    ([dialled, accepted], endpoints)
}
