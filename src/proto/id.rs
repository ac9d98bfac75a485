//! Identifiers. Each is a type of its own, so that one can't be passed for another.

use super::crypto;
use data_encoding::{BASE32_NOPAD, HEXLOWER};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

/// Who a node is: the SHA-256 hash of its Ed25519 public key (32 bytes).
///
/// Written in lower-case base32 without padding (52 characters), the form that also stands in its certificate.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId([u8; 32]);

/// A string that is not an identifier of the asked kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a node id: 52 characters of base32 (a-z, 2-7) expected")]
pub struct InvalidNodeId;

impl NodeId {
    /// The identity that belongs to an Ed25519 public key (32 bytes, RFC 8032).
    #[must_use]
    pub fn of_public_key(public_key: &[u8; 32]) -> Self {
        Self(crypto::hash(&[b"hopline node id", public_key]))
    }

    /// An identity from its 32 bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first ten characters: enough for people to tell nodes apart in a log.
    #[must_use]
    pub fn short(&self) -> String {
        self.to_string().chars().take(10).collect()
    }

    /// The overlay address shown instead of real ones: fd00::/8 (RFC 4193) and the first 15 bytes.
    #[must_use]
    pub fn overlay(&self) -> Ipv6Addr {
        let mut octets = [0xfd; 16];
        for (to, from) in octets.iter_mut().skip(1).zip(self.0) {
            *to = from;
        }
        Ipv6Addr::from(octets)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE32_NOPAD.encode(&self.0).to_ascii_lowercase())
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.short())
    }
}

impl FromStr for NodeId {
    type Err = InvalidNodeId;
    fn from_str(text: &str) -> Result<Self, InvalidNodeId> {
        let bytes = BASE32_NOPAD.decode(text.to_ascii_uppercase().as_bytes()).map_err(|_| InvalidNodeId)?;
        bytes.try_into().map(Self).map_err(|_| InvalidNodeId)
    }
}

/// Declares an identifier of 128 random bits.
macro_rules! random_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name([u8; 16]);

        impl $name {
            /// An identifier from its 16 bytes.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// A new one from the driver's randomness.
            pub fn random(rng: &mut impl rand::Rng) -> Self {
                let mut bytes = [0; 16];
                rng.fill_bytes(&mut bytes);
                Self(bytes)
            }

            /// Its 16 bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&HEXLOWER.encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&HEXLOWER.encode(&self.0[..4]))
            }
        }
    };
}

random_id! {
    /// A flow, chosen at random by its origin. Unique only together with the origin's [`Pseudonym`].
    FlowId
}
random_id! {
    /// A chain that the bootstrap planned; every secret of its route is derived from it.
    ChainId
}
random_id! {
    /// The name under which relays and targets know an origin; derived by the bootstrap from the network secret.
    Pseudonym
}
random_id! {
    /// One life of a node's process. A new one kills the old link.
    BootId
}

/// A QUIC connection to a neighbour, numbered by the driver. Unique in the node's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u32);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_id_is_written_and_read_back() {
        let id = NodeId::of_public_key(&[7; 32]);
        assert_eq!(id.to_string().len(), 52);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!("x".parse::<NodeId>(), Err(InvalidNodeId));
        assert_eq!(id.overlay().octets()[0], 0xfd);
    }
}
