//! The few cryptographic operations of the protocol, all from aws-lc-rs, the provider that TLS uses too.
//!
//! Hash: SHA-256 (FIPS 180-4). MAC: HMAC-SHA-256 (RFC 2104). Key derivation: HKDF-Expand with SHA-256 (RFC 5869). Sealing:
//! AES-256-GCM-SIV (RFC 8452), which keeps its promise even if a nonce should ever repeat.

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::{constant_time, digest, hkdf, hmac};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A 256-bit key. Never printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key([u8; 32]);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

impl Key {
    /// A key from its 32 bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its 32 bytes, for whoever must store or prove it.
    #[must_use]
    pub const fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// The key for `purpose` (a constant of ours) and `context` (what tells this use from others), by HKDF's second step:
    /// the first is for keys that are not uniformly random, and all of ours are (RFC 5869, section 3.3).
    #[must_use]
    pub fn derive(&self, purpose: &'static str, context: &[&[u8]]) -> Self {
        let mut info = vec![purpose.as_bytes(), &[0]];
        // As for a MAC, no two lists of parts may come to the same bytes.
        let lengths: Vec<[u8; 8]> = context.iter().map(|part| (part.len() as u64).to_be_bytes()).collect();
        for (part, length) in context.iter().zip(&lengths) {
            info.extend([&length[..], part]);
        }
        let mut out = [0; 32];
        hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, &self.0)
            .expand(&info, hkdf::HKDF_SHA256)
            .and_then(|okm| okm.fill(&mut out))
            .expect("32 bytes are within HKDF's limit");
        Self(out)
    }

    /// HMAC over the parts, each preceded by its length so that no two lists of parts collide.
    #[must_use]
    pub fn mac(&self, parts: &[&[u8]]) -> Mac {
        let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, &self.0));
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut out = [0; 32];
        out.copy_from_slice(context.sign().as_ref());
        Mac(out)
    }

    /// Seals `plain` so that only a holder of this key can read it, and only beside the same `context`.
    pub fn seal(&self, context: &[u8], plain: &[u8], rng: &mut impl rand::Rng) -> Sealed {
        let mut nonce = [0; NONCE_LEN];
        rng.fill_bytes(&mut nonce);
        self.seal_with(nonce, context, plain)
    }

    /// The same for a key that seals nothing else, ever: then the nonce may be known.
    #[must_use]
    pub fn seal_once(&self, context: &[u8], plain: &[u8]) -> Sealed {
        self.seal_with([0; NONCE_LEN], context, plain)
    }

    fn seal_with(&self, nonce: [u8; NONCE_LEN], context: &[u8], plain: &[u8]) -> Sealed {
        let mut bytes = plain.to_vec();
        self.aead()
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(context), &mut bytes)
            .expect("a record is far below the cipher's limit");
        bytes.extend(nonce);
        Sealed(bytes.into())
    }

    /// Opens what [`Key::seal`] sealed; `None` if it was not this key, not this context, or was changed.
    #[must_use]
    pub fn open(&self, context: &[u8], sealed: &Sealed) -> Option<Vec<u8>> {
        let (ciphertext, nonce) = sealed.0.split_last_chunk::<NONCE_LEN>()?;
        let mut bytes = ciphertext.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let length = self.aead().open_in_place(nonce, Aad::from(context), &mut bytes).ok()?.len();
        bytes.truncate(length);
        Some(bytes)
    }

    fn aead(&self) -> LessSafeKey {
        LessSafeKey::new(UnboundKey::new(&AES_256_GCM_SIV, &self.0).expect("the key has the cipher's length"))
    }
}

/// A message authentication code (32 bytes). Compared in constant time.
#[derive(Clone, Copy, Debug, Eq, Serialize, Deserialize)]
pub struct Mac([u8; 32]);

impl Mac {
    /// Its 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The key that continues a chain of MACs (each link's code is the next link's key).
    #[must_use]
    pub const fn into_key(self) -> Key {
        Key(self.0)
    }
}

impl PartialEq for Mac {
    fn eq(&self, other: &Self) -> bool {
        constant_time::verify_slices_are_equal(&self.0, &other.0).is_ok()
    }
}

/// Ciphertext, authentication tag and nonce. Copies share the bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed(Bytes);

impl Sealed {
    /// The sealed bytes, for binding something else to them.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// SHA-256 over the parts, each preceded by its length.
#[must_use]
pub fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn sealed_opens_only_with_its_key_and_context() {
        let rng = &mut rand::rngs::StdRng::seed_from_u64(1);
        let key = Key::from_bytes([1; 32]);
        let sealed = key.seal(b"context", b"plain", rng);
        assert_eq!(key.open(b"context", &sealed).as_deref(), Some(&b"plain"[..]));
        assert_eq!(key.open(b"another", &sealed), None);
        assert_eq!(Key::from_bytes([2; 32]).open(b"context", &sealed), None);
        assert_eq!(key.open(b"context", &Sealed(vec![0; 5].into())), None);
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        let key = Key::from_bytes([1; 32]);
        assert_ne!(key.mac(&[b"ab", b"c"]), key.mac(&[b"a", b"bc"]));
        assert_ne!(hash(&[b"ab", b"c"]), hash(&[b"a", b"bc"]));
        assert_ne!(key.derive("p", &[b"ab", b"c"]), key.derive("p", &[b"a", b"bc"]));
    }
}
