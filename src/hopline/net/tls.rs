//! TLS configurations: who may talk to whom, and how each learns the other's [`NodeId`].
//!
//! TLS 1.3 (RFC 8446) with rustls' own WebPKI verification against one trust anchor, the network key; Hopline has no
//! certificate verifier of its own. Nothing is resumed and nothing is sent early: resumption would skip the
//! verification, and early data can be replayed.
//!
//! | configuration | speaks | this side shows | the other side shows |
//! |---|---|---|---|
//! | [`link_client`], [`link_server`] | [`LINK`], QUIC | its certificate | its certificate |
//! | [`flow_client`], [`flow_server`] | [`FLOW`], TLS in a flow | its certificate | its certificate |
//! | [`session_client`], [`session_server`] | [`SESSION`], QUIC over a flow's chain | its certificate | its certificate |
//! | [`bootstrap_client`] | [`BOOTSTRAP`], QUIC | its certificate | a bootstrap's |
//! | [`join_client`] | [`BOOTSTRAP`], QUIC | nothing yet | a bootstrap's |
//! | [`bootstrap_server`] | [`BOOTSTRAP`], QUIC | a bootstrap's | its certificate, or nothing |
//!
//! A client names whom it wants, [`node_name`] or [`BOOTSTRAP_NAME`], and reaches no one else. A configuration holds
//! the certificate it was made with: after a renewal make new ones. Whether a node has been removed is not known here:
//! ask the deny list about [`peer`] after each handshake.

pub use super::authority::BOOTSTRAP_NAME;

use super::authority::{NetworkKey, dns_name, public_key_of};
use super::clock::Rough;
use super::identity::Membership;
use hopline_proto::version::Versions;
use hopline_proto::{NodeId, Time};
use quinn::ConnectionError;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::{Resumption, WantsClientCert, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{AlertDescription, CertificateError, ClientConfig, ConfigBuilder, ServerConfig};
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// What links speak: the name of the protocol, to which [`Versions::names`] adds the versions.
pub const LINK: &str = "hopline";
/// What newcomers and members speak with a bootstrap.
pub const BOOTSTRAP: &str = "hopline-bootstrap";
/// What the two ends of a flow speak, inside it.
pub const FLOW: &str = "hopline-flow";

/// The first of the 256 QUIC error codes that carry a TLS alert (RFC 9001, 4.8).
const CRYPTO_ERRORS: u64 = 0x100;

/// What the two ends of a session speak.
pub const SESSION: &str = "hopline-session";

/// Why no configuration could be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The certificate is damaged or of another key than the membership's.
    #[error(
        "this node's certificate can't be used ({0}); remove node.crt from its data directory and join again"
    )]
    Certificate(#[source] rustls::Error),
}

/// For dialling a node's link.
///
/// # Errors
/// [`TlsError`] if the certificate is not of the membership's key.
pub fn link_client(membership: &Membership) -> Result<quinn::ClientConfig, TlsError> {
    member_client(membership, LINK, Versions::OURS).map(quic_client)
}

/// For accepting links, from members only.
///
/// # Errors
/// [`TlsError`] if the certificate is not of the membership's key.
pub fn link_server(membership: &Membership) -> Result<quinn::ServerConfig, TlsError> {
    server(membership, LINK, Versions::OURS, Strangers::Refused).map(quic_server)
}

/// For the origin's end of the TLS inside a flow. Name the target with [`node_name`].
///
/// # Errors
/// [`TlsError`] if the certificate is not of the membership's key.
pub fn flow_client(membership: &Membership) -> Result<Arc<ClientConfig>, TlsError> {
    member_client(membership, FLOW, Versions::OURS).map(Arc::new)
}

/// For the target's end of the TLS inside a flow.
///
/// # Errors
/// [`TlsError`] if the certificate is not of the membership's key.
pub fn flow_server(membership: &Membership) -> Result<Arc<ServerConfig>, TlsError> {
    server(membership, FLOW, Versions::OURS, Strangers::Refused).map(Arc::new)
}

/// For the origin's end of a session. Name the target with [`node_name`].
///
/// # Errors
/// [`TlsError`] if the certificate is not of the membership's key.
pub fn session_client(membership: &Membership) -> Result<quinn::ClientConfig, TlsError> {
    member_client(membership, SESSION, Versions::OURS).map(quic_client)
}

/// For the target's end of a session.
///
/// # Errors
/// [`TlsError`] if the certificate is not of the membership's key.
pub fn session_server(membership: &Membership) -> Result<quinn::ServerConfig, TlsError> {
    server(membership, SESSION, Versions::OURS, Strangers::Refused).map(quic_server)
}

/// For a member that asks a bootstrap. One whose certificate has ended is refused and joins anew ([`join_client`]).
///
/// # Errors
/// [`TlsError`] if the certificate is not of the membership's key.
pub fn bootstrap_client(membership: &Membership) -> Result<quinn::ClientConfig, TlsError> {
    member_client(membership, BOOTSTRAP, Versions::OURS).map(quic_client)
}

/// For a bootstrap (whose certificate is an [`issue_bootstrap`](super::authority::Authority::issue_bootstrap) one):
/// members show theirs, newcomers have none yet.
///
/// # Errors
/// [`TlsError`] if the certificate is not of the membership's key.
pub fn bootstrap_server(membership: &Membership) -> Result<quinn::ServerConfig, TlsError> {
    server(membership, BOOTSTRAP, Versions::OURS, Strangers::Welcome).map(quic_server)
}

/// For a newcomer, which trusts the network of its ticket and has no certificate yet.
#[must_use]
pub fn join_client(network: NetworkKey) -> quinn::ClientConfig {
    quic_client(without_tickets(trusting(network).with_no_client_auth(), BOOTSTRAP, Versions::OURS))
}

/// The name under which a client asks for a node (for quinn: `&node_name(id).to_str()`).
///
/// # Panics
/// Never: an id is a valid DNS label.
#[must_use]
pub fn node_name(node: NodeId) -> ServerName<'static> {
    ServerName::try_from(dns_name(node)).expect("52 characters of base32 are a DNS label")
}

/// Who showed these certificates in a completed handshake: the hash of the key in the first, if that certificate is
/// also in the name of that hash. `None` if there are none.
#[must_use]
pub fn peer_node_id(certificates: &[CertificateDer<'_>]) -> Option<NodeId> {
    let certificate = certificates.first()?;
    let node = NodeId::of_public_key(&public_key_of(certificate)?);
    let parsed = ParsedCertificate::try_from(certificate).ok()?;
    verify_server_name(&parsed, &node_name(node)).ok()?;
    Some(node)
}

/// The certificates that the other side of an established connection showed, the first its own; none for a newcomer.
#[must_use]
pub fn peer_certificates(connection: &quinn::Connection) -> Vec<CertificateDer<'static>> {
    let shown = connection.peer_identity().and_then(|identity| identity.downcast().ok());
    shown.map(|certificates| *certificates).unwrap_or_default()
}

/// Who is at the other side of an established connection; `None` for a newcomer.
#[must_use]
pub fn peer(connection: &quinn::Connection) -> Option<NodeId> {
    peer_node_id(&peer_certificates(connection))
}

/// The TLS alert (RFC 8446, 6) by which this or the other side ended a handshake, `None` if something else ended the
/// connection. `CertificateExpired` calls for joining anew, and `DecryptError` is how a certificate of another network
/// shows (same issuer name, but not its signature); trying again helps against neither.
#[must_use]
pub fn alert(error: &ConnectionError) -> Option<AlertDescription> {
    let code = if let ConnectionError::ConnectionClosed(close) = error {
        u64::from(close.error_code)
    } else if let ConnectionError::TransportError(error) = error {
        u64::from(error.code)
    } else {
        return None;
    };
    let alert = code.checked_sub(CRYPTO_ERRORS)?;
    u8::try_from(alert).ok().map(AlertDescription::from)
}

/// A certificate is not good at the time that a clock says: this machine's, where nothing else is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfTime {
    now: Time,
    bound: Time,
    has_ended: bool,
}

impl fmt::Display for OutOfTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.told("its certificate", "this machine's clock"))
    }
}

impl OutOfTime {
    /// Of whose certificate, and by whose clock.
    #[must_use]
    pub fn told(&self, certificate: &str, clock: &str) -> String {
        let Self { now, bound, has_ended } = *self;
        let (from, by, way) = if has_ended {
            ("only until", now.since(bound), "later")
        } else {
            ("only from", bound.since(now), "earlier")
        };
        let (bound, now, by) = (bound.shown(), now.shown(), Rough(by));
        format!("{certificate} is valid {from} {bound}, and {clock} says {now}, {by} {way}")
    }

    /// Whether this is why a handshake failed at this side.
    #[must_use]
    pub fn of(error: &ConnectionError) -> Option<Self> {
        // quinn keeps of rustls' error only the text.
        if let ConnectionError::TransportError(error) = error { Self::parse(&error.reason) } else { None }
    }

    /// Whether this is why a handshake inside a flow failed at this side.
    #[must_use]
    pub fn of_tls(error: &rustls::Error) -> Option<Self> {
        let rustls::Error::InvalidCertificate(error) = error else { return None };
        if let CertificateError::ExpiredContext { time, not_after } = error {
            Some(Self::new(time.as_secs(), not_after.as_secs(), true))
        } else if let CertificateError::NotValidYetContext { time, not_before } = error {
            Some(Self::new(time.as_secs(), not_before.as_secs(), false))
        } else {
            None
        }
    }

    fn new(now: u64, bound: u64, has_ended: bool) -> Self {
        let time = |seconds| Time::ZERO + Duration::from_secs(seconds);
        Self { now: time(now), bound: time(bound), has_ended }
    }

    fn parse(reason: &str) -> Option<Self> {
        let number = |after: &str| {
            let (_, rest) = reason.split_once(after)?;
            rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
        };
        let now = number("verification time ")?;
        let ended = number("not valid after ").map(|bound| Self::new(now, bound, true));
        ended.or_else(|| number("not valid before ").map(|bound| Self::new(now, bound, false)))
    }
}

/// Whose certificate was not taken for valid at the time of a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Untimely {
    /// The peer's, by this machine's clock.
    Theirs(OutOfTime),
    /// This node's, by the peer's clock. The peer need not say what that shows.
    Ours(Option<OutOfTime>),
}

impl Untimely {
    /// Whether this is why there is no link. A client is through with its handshake before the server has looked at its
    /// certificate, so the refusal may come with whatever it does next.
    #[must_use]
    pub fn of(error: &(dyn Error + 'static)) -> Option<Self> {
        let mut causes =
            std::iter::successors(Some(error), |error: &&(dyn Error + 'static)| (*error).source());
        let error: &ConnectionError = causes.find_map(|error| error.downcast_ref())?;
        if let Some(out) = OutOfTime::of(error) {
            return Some(Self::Theirs(out));
        }
        let ConnectionError::ConnectionClosed(close) = error else { return None };
        let is_refused = alert(error) == Some(AlertDescription::CertificateExpired);
        let reason = std::str::from_utf8(&close.reason).ok();
        is_refused.then(|| Self::Ours(reason.and_then(OutOfTime::parse)))
    }
}

/// Why a handshake failed, with both times if it was a matter of time.
#[must_use]
pub fn explain(error: &(dyn Error + 'static)) -> String {
    match Untimely::of(error) {
        Some(Untimely::Theirs(out)) => out.to_string(),
        Some(Untimely::Ours(Some(out))) => out.told("this node's certificate", "its clock"),
        Some(Untimely::Ours(None)) => {
            "by its clock this node's certificate has expired, or is not valid yet".to_owned()
        }
        None => error.to_string(),
    }
}

/// What a server does with clients that show no certificate. One that shows a wrong one is always refused.
#[derive(Clone, Copy)]
enum Strangers {
    Refused,
    Welcome,
}

/// The one provider, named explicitly: rustls' own choice depends on the features of every crate in the build.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(default_provider())
}

fn trusting(network: NetworkKey) -> ConfigBuilder<ClientConfig, WantsClientCert> {
    ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .expect("the provider does TLS 1.3")
        .with_root_certificates(network.roots())
}

fn member_client(
    membership: &Membership,
    protocol: &str,
    versions: Versions,
) -> Result<ClientConfig, TlsError> {
    let config = trusting(membership.network)
        .with_client_auth_cert(vec![membership.certificate.clone()], membership.identity.private_key())
        .map_err(TlsError::Certificate)?;
    Ok(without_tickets(config, protocol, versions))
}

fn without_tickets(mut config: ClientConfig, protocol: &str, versions: Versions) -> ClientConfig {
    config.alpn_protocols = versions.names(protocol);
    config.resumption = Resumption::disabled();
    config
}

fn server(
    membership: &Membership,
    protocol: &str,
    versions: Versions,
    strangers: Strangers,
) -> Result<ServerConfig, TlsError> {
    let roots = Arc::new(membership.network.roots());
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider());
    let verifier = match strangers {
        Strangers::Refused => verifier,
        Strangers::Welcome => verifier.allow_unauthenticated(),
    };
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .expect("the provider does TLS 1.3")
        .with_client_cert_verifier(verifier.build().expect("there is one root, and no revocation list"))
        .with_single_cert(vec![membership.certificate.clone()], membership.identity.private_key())
        .map_err(TlsError::Certificate)?;
    config.alpn_protocols = versions.names(protocol);
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

fn quic_client(config: ClientConfig) -> quinn::ClientConfig {
    let config = QuicClientConfig::try_from(config).expect("the provider has QUIC's initial cipher suite");
    quinn::ClientConfig::new(Arc::new(config))
}

fn quic_server(config: ServerConfig) -> quinn::ServerConfig {
    let config = QuicServerConfig::try_from(config).expect("the provider has QUIC's initial cipher suite");
    quinn::ServerConfig::with_crypto(Arc::new(config))
}

/// As [`link_client`], for a node that speaks other versions.
#[cfg(test)]
pub(crate) fn link_client_of(
    membership: &Membership,
    versions: Versions,
) -> Result<quinn::ClientConfig, TlsError> {
    member_client(membership, LINK, versions).map(quic_client)
}

/// As [`link_server`], for a node that speaks other versions.
#[cfg(test)]
pub(crate) fn link_server_of(
    membership: &Membership,
    versions: Versions,
) -> Result<quinn::ServerConfig, TlsError> {
    server(membership, LINK, versions, Strangers::Refused).map(quic_server)
}

/// As [`join_client`], for a newcomer that speaks other versions.
#[cfg(test)]
pub(crate) fn join_client_of(network: NetworkKey, versions: Versions) -> quinn::ClientConfig {
    quic_client(without_tickets(trusting(network).with_no_client_auth(), BOOTSTRAP, versions))
}

/// As [`bootstrap_server`], for a bootstrap that speaks other versions.
#[cfg(test)]
pub(crate) fn bootstrap_server_of(
    membership: &Membership,
    versions: Versions,
) -> Result<quinn::ServerConfig, TlsError> {
    server(membership, BOOTSTRAP, versions, Strangers::Welcome).map(quic_server)
}

#[cfg(test)]
mod tests;
