//! The QUIC endpoint of a member: how it dials and is dialled, and with which certificate.

use super::{Node, StartFailure};
use crate::net::identity::Membership;
use crate::net::local::Local;
use crate::net::socket::HintingSocket;
use crate::net::tls::{self, TlsError};
use crate::net::transport::{self, TransportSettings};
use hopline_proto::machine::Machine;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

/// Legs for which room is kept on a link before the peer is known: for each it takes 75 bytes.
const LEGS_OF_STRANGER: u32 = 64;
/// What a node dials and is dialled by.
pub(crate) struct Socket {
    pub(crate) endpoint: quinn::Endpoint,
    pub(crate) local: Local,
    pub(super) client: quinn::ClientConfig,
    pub(super) hints: Arc<HintingSocket>,
    pub(super) settings: TransportSettings,
}

/// The QUIC endpoint by which a member dials and is dialled, and its socket.
///
/// # Errors
/// If the socket can't be bound, or the certificate is not usable.
pub(crate) fn open_socket(
    membership: &Membership,
    bind: SocketAddr,
    settings: &TransportSettings,
) -> Result<Socket, StartFailure> {
    let (client, server) = link_configs(membership, settings)?;
    let socket = transport::open_socket(bind, settings.socket_buffer_bytes)?;
    let (local, hints) = (Local::of(&socket)?, HintingSocket::new(socket)?);
    let secret = membership.identity.reset_secret();
    let endpoint = transport::bind_socket(hints.clone(), Some(server), &wary(settings), &secret)?;
    Ok(Socket { endpoint, local, client, hints, settings: settings.clone() })
}

/// How a member dials, and how it is dialled.
fn link_configs(
    membership: &Membership,
    settings: &TransportSettings,
) -> Result<(quinn::ClientConfig, quinn::ServerConfig), TlsError> {
    let mut client = tls::link_client(membership)?;
    client.transport_config(transport::transport(settings));
    let secret = membership.identity.reset_secret();
    Ok((client, transport::server_config(tls::link_server(membership)?, &wary(settings), &secret)))
}

/// How a connection behaves before it is known who comes.
fn wary(settings: &TransportSettings) -> TransportSettings {
    TransportSettings { streams: settings.streams.min(LEGS_OF_STRANGER), ..settings.clone() }
}

impl<M: Machine + 'static> Node<M> {
    /// Shows each new certificate of the node to whomever it dials and is dialled by from then on. Links that are up stay.
    pub(super) async fn keep_certified(self: Rc<Self>, settings: TransportSettings) {
        let mut memberships = self.bootstrap_client.memberships();
        // The certificate may have been renewed since the socket was opened.
        memberships.mark_changed();
        while memberships.changed().await.is_ok() {
            let membership = memberships.borrow_and_update().clone();
            match link_configs(&membership, &settings) {
                Ok((client, server)) => {
                    *self.client.borrow_mut() = client;
                    self.endpoint.set_server_config(Some(server));
                }
                Err(error) => tracing::error!(%error, "can't use this node's new certificate"),
            }
        }
    }
}
