//! The network's certificate authority, owned by its bootstraps, and the profile of what it issues.
//!
//! A membership certificate (RFC 5280) binds a node's Ed25519 key to the DNS name made of its [`NodeId`], for days, not
//! years. There is no root certificate: 32 bytes of network key and the constant issuer name are the trust anchor, so
//! they fit into a ticket. Who may have a certificate is not decided here.

use super::entropy;
use super::keyfile::{self, KeyFileError};
use data_encoding::{BASE32_NOPAD, HEXLOWER};
use hopline_proto::crypto::{self, Key};
use hopline_proto::{NodeId, Time};
use rcgen::{
    CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, KeyUsagePurpose, PKCS_ED25519,
};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, Der, TrustAnchor};
use rustls::server::ParsedCertificate;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

/// How long a membership certificate is good for unless told otherwise.
pub const DEFAULT_VALIDITY: Duration = Duration::from_secs(7 * 24 * 3600);
/// The DNS name in a bootstrap's certificate, beside that of its node: whoever has it speaks for the network.
pub const BOOTSTRAP_NAME: &str = "bootstrap.hopline";

/// How far a certificate starts in the past, for nodes whose clocks are behind.
pub(super) const BACKDATE: Duration = Duration::from_secs(24 * 3600);
const ISSUER: &str = "hopline network";
/// [`ISSUER`] as the value of an X.501 name: one common name, a UTF-8 string.
const ISSUER_DER: &[u8] = b"\x31\x18\x30\x16\x06\x03\x55\x04\x03\x0c\x0fhopline network";
/// What precedes the 32 bytes of an Ed25519 key in a SubjectPublicKeyInfo (RFC 8410), without the outer sequence.
const ED25519_SPKI: &[u8] = b"\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";
/// The outer sequence of such a SubjectPublicKeyInfo.
const ED25519_SPKI_SEQUENCE: &[u8] = b"\x30\x2a";
/// 9999-12-31T23:59:59Z, the last moment X.509 can express, in seconds since the Unix epoch.
const LAST_SECOND: u64 = 253_402_300_799;

/// The public half of a network's Ed25519 key, the only thing members trust.
///
/// Written in lower-case base32 without padding (52 characters).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NetworkKey([u8; 32]);

/// A string that is not a network key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a network key: 52 characters of base32 (a-z, 2-7) expected")]
pub struct InvalidNetworkKey;

impl NetworkKey {
    /// A network key from its 32 bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The roots that trust this network and nothing else. A trust anchor is a name and a key (RFC 5280, 6.1.1); no
    /// certificate of the authority's own is needed.
    #[must_use]
    pub fn roots(&self) -> RootCertStore {
        let anchor = TrustAnchor {
            subject: Der::from_slice(ISSUER_DER),
            subject_public_key_info: Der::from([ED25519_SPKI, &self.0].concat()),
            name_constraints: None,
        };
        RootCertStore { roots: vec![anchor] }
    }
}

impl fmt::Display for NetworkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&BASE32_NOPAD.encode(&self.0).to_ascii_lowercase())
    }
}

impl fmt::Debug for NetworkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:.10}")
    }
}

impl FromStr for NetworkKey {
    type Err = InvalidNetworkKey;
    fn from_str(text: &str) -> Result<Self, InvalidNetworkKey> {
        let bytes =
            BASE32_NOPAD.decode(text.to_ascii_uppercase().as_bytes()).map_err(|_| InvalidNetworkKey)?;
        bytes.try_into().map(Self).map_err(|_| InvalidNetworkKey)
    }
}

/// A fresh certificate, as a bootstrap hands it to its node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issued {
    /// The certificate (DER).
    pub certificate: Vec<u8>,
    /// From when on the node should ask for the next one: two thirds of the way.
    pub renew: Time,
    /// When it ends.
    pub expires: Time,
    /// The bootstrap's time.
    pub now: Time,
}

/// A network's signing key and its secret, from which tickets' secrets and relays' keys are derived.
///
/// All bootstraps of a network share one, by copying its file.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    public_key: NetworkKey,
    secret: Key,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Authority").field(&self.public_key).finish()
    }
}

impl Authority {
    /// A new network, not stored anywhere.
    ///
    /// # Panics
    /// If the operating system has no randomness to give.
    #[must_use]
    pub fn generate() -> Self {
        Self::from_file(&new_file()).expect("a file just made is well-formed")
    }

    /// The network in `directory` (its file `network.key`), or a new one, stored there.
    ///
    /// # Errors
    /// [`KeyFileError`] if the file can't be read, written or understood.
    ///
    /// # Panics
    /// If the operating system has no randomness to give.
    pub fn load_or_create(directory: &Path) -> Result<Self, KeyFileError> {
        keyfile::load_or_create(&directory.join("network.key"), new_file, Self::from_file)
    }

    fn from_file(text: &str) -> Option<Self> {
        let key = KeyPair::from_pkcs8_pem_and_sign_algo(text, &PKCS_ED25519).ok()?;
        let secret = HEXLOWER.decode(keyfile::field(text, "secret")?.as_bytes()).ok()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(ISSUER);
        Some(Self {
            public_key: NetworkKey(key.public_key_raw().try_into().ok()?),
            secret: Key::from_bytes(secret.try_into().ok()?),
            issuer: Issuer::new(params, key),
        })
    }

    /// The key that members trust.
    #[must_use]
    pub const fn public_key(&self) -> NetworkKey {
        self.public_key
    }

    /// The network secret, known to bootstraps only.
    #[must_use]
    pub const fn secret(&self) -> &Key {
        &self.secret
    }

    /// A membership certificate for the node with this Ed25519 key, good from `now` (a day earlier, for clocks that
    /// are behind) for `validity`, for both ends of a TLS connection.
    #[must_use]
    pub fn issue(&self, public_key: &[u8; 32], validity: Duration, now: Time) -> Issued {
        self.sign(public_key, vec![dns_name(NodeId::of_public_key(public_key))], validity, now)
    }

    /// As [`Authority::issue`], for a node that may also speak for the network, as [`BOOTSTRAP_NAME`].
    #[must_use]
    pub fn issue_bootstrap(&self, public_key: &[u8; 32], validity: Duration, now: Time) -> Issued {
        let names = vec![dns_name(NodeId::of_public_key(public_key)), BOOTSTRAP_NAME.to_owned()];
        self.sign(public_key, names, validity, now)
    }

    fn sign(&self, public_key: &[u8; 32], names: Vec<String>, validity: Duration, now: Time) -> Issued {
        let seconds = |time: Time| (time.as_micros() / 1_000_000).min(LAST_SECOND);
        let date = |time| rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds(time));
        let (start, end) = (now - BACKDATE, now + validity);
        let serial = crypto::hash(&[public_key, &now.as_micros().to_be_bytes()]);
        let mut params = CertificateParams::new(names).expect("our names are ASCII");
        params.not_before = date(start);
        params.not_after = date(end);
        params.serial_number = Some(serial.iter().copied().take(16).collect::<Vec<u8>>().into());
        params.distinguished_name = common_name(&NodeId::of_public_key(public_key).to_string());
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params.signed_by(&Ed25519(public_key), &self.issuer).expect("an Ed25519 key signs");
        Issued {
            certificate: certificate.der().to_vec(),
            renew: now + (validity - validity / 3),
            // A certificate ends at a full second, and what is said of it has to agree.
            expires: Time::ZERO + Duration::from_secs(seconds(end)),
            now,
        }
    }
}

fn new_file() -> String {
    let key = KeyPair::generate_for(&PKCS_ED25519).expect("the operating system gives randomness");
    let secret: [u8; 32] = entropy::bytes();
    format!("secret = {}\n{}", HEXLOWER.encode(&secret), key.serialize_pem())
}

fn common_name(name: &str) -> rcgen::DistinguishedName {
    let mut distinguished = rcgen::DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

/// The DNS name of a node in its certificate.
pub(super) fn dns_name(node: NodeId) -> String {
    format!("{node}.hopline")
}

/// The Ed25519 key that a certificate is for; `None` if it is for another kind of key or not a certificate. Says
/// nothing about who signed it.
#[must_use]
pub fn public_key_of(certificate: &CertificateDer<'_>) -> Option<[u8; 32]> {
    let spki = ParsedCertificate::try_from(certificate).ok()?.subject_public_key_info();
    spki.strip_prefix(ED25519_SPKI_SEQUENCE)?.strip_prefix(ED25519_SPKI)?.try_into().ok()
}

/// The bare public key of a node that wants a certificate.
struct Ed25519<'a>(&'a [u8; 32]);

impl rcgen::PublicKeyData for Ed25519<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.0
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &PKCS_ED25519
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::client::verify_server_cert_signed_by_trust_anchor;
    use rustls::crypto::aws_lc_rs::default_provider;
    use rustls::pki_types::UnixTime;

    const NOW: Time = Time::from_micros(1_800_000_000_000_000);

    /// WebPKI's verdict at `now` on a certificate against `network`.
    fn verify(network: NetworkKey, issued: &Issued, now: Time) -> Result<(), rustls::Error> {
        let certificate = CertificateDer::from(issued.certificate.clone());
        verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(&certificate)?,
            &network.roots(),
            &[],
            UnixTime::since_unix_epoch(now.since(Time::ZERO)),
            default_provider().signature_verification_algorithms.all,
        )
    }

    #[test]
    fn a_certificate_is_good_for_its_time_and_network() {
        let authority = Authority::generate();
        let network = authority.public_key();
        let issued = authority.issue(&[9; 32], DEFAULT_VALIDITY, NOW);
        let second = Duration::from_secs(1);
        assert_eq!(issued.expires, NOW + DEFAULT_VALIDITY);
        assert!(NOW < issued.renew && issued.renew < issued.expires);
        verify(network, &issued, NOW - BACKDATE).unwrap();
        verify(network, &issued, issued.expires).unwrap();
        verify(network, &issued, NOW - BACKDATE - second).unwrap_err();
        verify(network, &issued, issued.expires + second).unwrap_err();
        verify(Authority::generate().public_key(), &issued, NOW).unwrap_err();
    }

    #[test]
    fn a_certificate_names_its_key() {
        let issued = Authority::generate().issue(&[9; 32], Duration::MAX, NOW);
        assert_eq!(public_key_of(&CertificateDer::from(issued.certificate)), Some([9; 32]));
        assert_eq!(issued.expires, Time::from_micros(LAST_SECOND * 1_000_000), "clamped, not wrapped");
        assert_eq!(public_key_of(&CertificateDer::from(vec![1, 2, 3])), None);
    }

    #[test]
    fn a_network_is_stored_and_found_again() {
        let directory = tempfile::tempdir().unwrap();
        let first = Authority::load_or_create(directory.path()).unwrap();
        let again = Authority::load_or_create(directory.path()).unwrap();
        assert_eq!((first.public_key(), first.secret()), (again.public_key(), again.secret()));
        std::fs::write(directory.path().join("network.key"), "secret = 12\n").unwrap();
        let error = Authority::load_or_create(directory.path()).unwrap_err();
        assert!(matches!(error, KeyFileError::Malformed { .. }));
    }

    #[test]
    fn a_network_key_is_written_and_read_back() {
        let key = NetworkKey::from_bytes([3; 32]);
        assert_eq!(key.to_string().parse(), Ok(key));
        assert_eq!("x".parse::<NetworkKey>(), Err(InvalidNetworkKey));
        assert_eq!(format!("{key:?}").len(), 10);
    }
}
