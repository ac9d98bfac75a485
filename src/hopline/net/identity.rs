//! Who a node is: an Ed25519 key pair (RFC 8032), and once it has joined, its membership of a network.
//!
//! The key is the identity: it is made once and outlives every certificate. The private half never leaves this type
//! except into TLS.

use super::authority::{BACKDATE, Issued, NetworkKey, public_key_of};
use super::keyfile::{self, Existing, KeyFileError};
use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use hopline_proto::crypto::{self, Key};
use hopline_proto::{NodeId, Time};
use pem::{EncodeConfig, LineEnding, Pem};
use rcgen::{KeyPair, PKCS_ED25519, SigningKey};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const PEM_LINES: EncodeConfig = EncodeConfig::new().set_line_ending(LineEnding::LF);
const CERTIFICATE_FILE: &str = "node.crt";

/// A node's key pair.
pub struct Identity {
    key: KeyPair,
    public_key: [u8; 32],
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Identity").field(&self.node_id()).finish()
    }
}

impl Identity {
    /// A new identity, not stored anywhere.
    ///
    /// # Panics
    /// If the operating system has no randomness to give.
    #[must_use]
    pub fn generate() -> Self {
        Self::from_file(&new_file()).expect("a file just made is well-formed")
    }

    /// The identity in `directory` (its file `node.key`, PKCS #8 in PEM), or a new one, stored there.
    ///
    /// # Errors
    /// [`KeyFileError`] if the file can't be read, written or understood.
    ///
    /// # Panics
    /// If the operating system has no randomness to give.
    pub fn load_or_create(directory: &Path) -> Result<Self, KeyFileError> {
        keyfile::load_or_create(&directory.join("node.key"), new_file, Self::from_file)
    }

    fn from_file(text: &str) -> Option<Self> {
        let key = KeyPair::from_pkcs8_pem_and_sign_algo(text, &PKCS_ED25519).ok()?;
        Some(Self { public_key: key.public_key_raw().try_into().ok()?, key })
    }

    /// The public key (32 bytes, RFC 8032).
    #[must_use]
    pub const fn public_key(&self) -> &[u8; 32] {
        &self.public_key
    }

    /// The node's name everywhere else.
    #[must_use]
    pub fn node_id(&self) -> NodeId {
        NodeId::of_public_key(&self.public_key)
    }

    /// Signs `message` for `purpose`, a constant of ours that keeps a signature made for one use from another.
    #[must_use]
    pub fn sign(&self, purpose: &'static str, message: &[u8]) -> Signature {
        let bytes = self.key.sign(&for_purpose(purpose, message)).expect("an Ed25519 key signs");
        let (r, s) = bytes.split_first_chunk().expect("an Ed25519 signature has 64 bytes");
        Signature { r: *r, s: s.try_into().expect("an Ed25519 signature has 64 bytes") }
    }

    /// A secret from which the node's endpoints derive what must be the same after a restart and no one else's.
    #[must_use]
    pub fn reset_secret(&self) -> Key {
        Key::from_bytes(crypto::hash(&[&self.key.serialize_der()])).derive("transport", &[])
    }

    /// The private key, for TLS.
    pub(super) fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key.serialize_der()).into()
    }
}

fn new_file() -> String {
    KeyPair::generate_for(&PKCS_ED25519).expect("the operating system gives randomness").serialize_pem()
}

fn for_purpose(purpose: &'static str, message: &[u8]) -> Vec<u8> {
    [b"hopline ", purpose.as_bytes(), b"\0", message].concat()
}

/// An Ed25519 signature, in its two halves (RFC 8032, 5.1.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    r: [u8; 32],
    s: [u8; 32],
}

impl Signature {
    /// Whether the holder of `public_key` made this over `message` for `purpose`.
    #[must_use]
    pub fn verify(&self, public_key: &[u8; 32], purpose: &'static str, message: &[u8]) -> bool {
        let signature = [self.r, self.s].concat();
        UnparsedPublicKey::new(&ED25519, public_key)
            .verify(&for_purpose(purpose, message), &signature)
            .is_ok()
    }
}

/// An identity and the certificate that makes it a member of a network. Renewal makes a new one.
#[derive(Clone, Debug)]
pub struct Membership {
    /// Who the member is.
    pub identity: Arc<Identity>,
    /// What the network's authority says about it.
    pub certificate: CertificateDer<'static>,
    /// When the certificate was made, by the network's time. It begins a day earlier.
    pub issued: Time,
    /// From when on to ask for the next certificate.
    pub renew: Time,
    /// When the certificate ends, and with it every new link.
    pub expires: Time,
    /// The network's public key.
    pub network: NetworkKey,
}

impl Membership {
    /// The membership that a bootstrap has just granted or renewed.
    #[must_use]
    pub fn new(identity: Arc<Identity>, issued: Issued, network: NetworkKey) -> Self {
        let certificate = issued.certificate.into();
        let Issued { now, renew, expires, .. } = issued;
        Self { identity, certificate, issued: now, renew, expires, network }
    }

    /// How much longer the certificate is good at `now`; nothing if it has ended, or not begun.
    #[must_use]
    pub fn left(&self, now: Time) -> Duration {
        let has_begun = self.issued <= now + BACKDATE;
        if has_begun { self.expires.since(now) } else { Duration::ZERO }
    }

    /// Whether it is time for the next certificate: for the most part of this one's it is over, or the network's time was set
    /// back, by more than `tolerance`, since it was made.
    #[must_use]
    pub fn is_due(&self, now: Time, tolerance: Duration) -> bool {
        now >= self.renew || now + tolerance < self.issued
    }

    /// The member's [`NodeId`].
    #[must_use]
    pub fn node_id(&self) -> NodeId {
        self.identity.node_id()
    }

    /// The membership stored in `directory` (its file `node.crt`), if it is one of this identity, in this network, that
    /// has not ended at `now` (ask [`Clock::wall`](super::clock::Clock::wall)). A damaged file counts as none: a ticket
    /// gets the next.
    ///
    /// # Errors
    /// [`KeyFileError`] if the file is there but can't be read.
    pub fn load(
        directory: &Path,
        identity: &Arc<Identity>,
        network: NetworkKey,
        now: Time,
    ) -> Result<Option<Self>, KeyFileError> {
        let text = match keyfile::load(&directory.join(CERTIFICATE_FILE)) {
            Err(KeyFileError::Malformed { .. }) => None,
            other => other?,
        };
        let stored = text.and_then(|text| Self::from_file(&text, identity));
        Ok(stored.filter(|stored| stored.network == network && stored.expires > now))
    }

    /// Stores it in `directory` for [`Membership::load`], in place of an older one.
    ///
    /// # Errors
    /// [`KeyFileError`] if the file can't be written.
    pub fn store(&self, directory: &Path) -> Result<(), KeyFileError> {
        let text = format!(
            "network = {}\nissued = {}\nrenew = {}\nexpires = {}\n{}",
            self.network,
            self.issued.as_micros(),
            self.renew.as_micros(),
            self.expires.as_micros(),
            pem::encode_config(&Pem::new("CERTIFICATE", &*self.certificate), PEM_LINES),
        );
        keyfile::store(&directory.join(CERTIFICATE_FILE), &text, Existing::Replace)
    }

    fn from_file(text: &str, identity: &Arc<Identity>) -> Option<Self> {
        let time = |name| keyfile::field(text, name)?.parse().ok().map(Time::from_micros);
        let certificate = CertificateDer::from_pem_slice(text.as_bytes()).ok()?;
        let ours = public_key_of(&certificate)? == identity.public_key;
        ours.then_some(Self {
            identity: Arc::clone(identity),
            certificate,
            // Files of earlier versions don't say.
            issued: time("issued").unwrap_or(Time::ZERO),
            renew: time("renew")?,
            expires: time("expires")?,
            network: keyfile::field(text, "network")?.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::authority::{Authority, DEFAULT_VALIDITY};

    #[test]
    fn an_identity_is_stored_and_found_again() {
        let directory = tempfile::tempdir().unwrap();
        let first = Identity::load_or_create(directory.path()).unwrap();
        let again = Identity::load_or_create(directory.path()).unwrap();
        assert_eq!(first.node_id(), again.node_id());
        assert_eq!(first.reset_secret(), again.reset_secret());
        assert_ne!(first.node_id(), Identity::generate().node_id());
        assert_ne!(first.reset_secret(), Identity::generate().reset_secret());
        let shown = format!("{first:?}");
        assert_eq!(shown, format!("Identity({})", first.node_id().short()), "nothing secret is shown");
    }

    #[test]
    fn a_signature_is_good_for_its_key_purpose_and_message() {
        let identity = Identity::generate();
        let signature = identity.sign("test", b"message");
        assert!(signature.verify(identity.public_key(), "test", b"message"));
        assert!(!signature.verify(identity.public_key(), "test", b"another"));
        assert!(!signature.verify(identity.public_key(), "another", b"message"));
        assert!(!signature.verify(Identity::generate().public_key(), "test", b"message"));
    }

    #[test]
    fn a_certificate_is_to_be_renewed_when_its_time_is_over_or_has_not_come() {
        let identity = Arc::new(Identity::generate());
        let (authority, made) = (Authority::generate(), Time::from_micros(1_800_000_000_000_000));
        let issued = authority.issue(identity.public_key(), DEFAULT_VALIDITY, made);
        let membership = Membership::new(identity, issued, authority.public_key());
        let [minute, hour, day] = [60, 3600, 24 * 3600].map(Duration::from_secs);
        let cases = [
            (made, false, DEFAULT_VALIDITY),
            (made - minute, false, DEFAULT_VALIDITY + minute),
            (made - hour, true, DEFAULT_VALIDITY + hour),
            (made - day, true, DEFAULT_VALIDITY + day),
            (made - day * 30, true, Duration::ZERO),
            (made + day * 4, false, day * 3),
            (made + day * 5, true, day * 2),
            (made + day * 30, true, Duration::ZERO),
        ];
        for (now, is_due, left) in cases {
            assert_eq!(
                (membership.is_due(now, minute), membership.left(now)),
                (is_due, left),
                "{}",
                now.shown()
            );
        }
    }

    #[test]
    fn a_membership_is_found_again_while_it_is_of_use() {
        let directory = tempfile::tempdir().unwrap();
        let (authority, identity) = (Authority::generate(), Arc::new(Identity::generate()));
        let (network, now) = (authority.public_key(), Time::from_micros(1_800_000_000_000_000));
        let load = |identity: &Arc<Identity>, network, now| {
            Membership::load(directory.path(), identity, network, now).unwrap()
        };
        assert!(load(&identity, network, now).is_none(), "no file yet");

        let issued = authority.issue(identity.public_key(), DEFAULT_VALIDITY, now);
        let membership = Membership::new(Arc::clone(&identity), issued, network);
        membership.store(directory.path()).unwrap();
        let found = load(&identity, network, now).unwrap();
        assert_eq!(found.certificate, membership.certificate);
        let times = |of: &Membership| (of.issued, of.renew, of.expires);
        assert_eq!(times(&found), times(&membership));

        assert!(load(&identity, network, membership.expires).is_none(), "ended");
        assert!(load(&identity, Authority::generate().public_key(), now).is_none(), "another network");
        assert!(load(&Arc::new(Identity::generate()), network, now).is_none(), "another node");
        std::fs::write(directory.path().join(CERTIFICATE_FILE), [0xff, 0]).unwrap();
        assert!(load(&identity, network, now).is_none(), "damaged");
    }
}
