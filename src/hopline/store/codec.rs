//! Registrations as bytes, the same in every store: a version, and what that version says.
//!
//! A version, once released, is read for ever; a new one is added when [`Registration`] changes its shape.

use hopline_proto::bootstrap::Registration;
use hopline_proto::codec::{self, CodecError};
use hopline_proto::rpc::{Capabilities, Offer};
use hopline_proto::{NodeId, Time};
use serde::Deserialize;
use std::net::SocketAddr;

const VERSION: u8 = 2;

/// Its bytes, in the latest version.
pub(super) fn encode(registration: &Registration) -> Vec<u8> {
    codec::to_bytes(&(VERSION, registration))
}

/// The registration that these bytes are.
pub(super) fn decode(bytes: &[u8]) -> Result<Registration, CodecError> {
    match bytes.split_first() {
        Some((&VERSION, value)) => codec::from_bytes(value).and_then(known),
        Some((1, value)) => codec::from_bytes(value).map(RegistrationV1::into_latest),
        Some(_) | None => Err(CodecError::Malformed),
    }
}

/// Unlike peers, a store says nothing that its version does not know.
fn known(registration: Registration) -> Result<Registration, CodecError> {
    if registration.offer == Offer::Unknown { Err(CodecError::Malformed) } else { Ok(registration) }
}

/// When a relay had one address.
#[derive(Deserialize)]
struct RegistrationV1 {
    node: NodeId,
    name: String,
    offer: OfferV1,
    registered_at: Time,
}

#[derive(Deserialize)]
enum OfferV1 {
    Relay { address: SocketAddr, zone: String, capacity: u32, version: String, capabilities: Capabilities },
    Target { names: Vec<String>, attachments: Vec<NodeId> },
}

impl RegistrationV1 {
    fn into_latest(self) -> Registration {
        let Self { node, name, offer, registered_at } = self;
        let offer = match offer {
            OfferV1::Relay { address, zone, capacity, version, capabilities } => {
                Offer::Relay { addresses: vec![address], zone, capacity, version, capabilities }
            }
            OfferV1::Target { names, attachments } => Offer::Target { names, attachments },
        };
        Registration { node, name, offer, registered_at }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_vectors() {
        let offer = Offer::relay("127.0.0.1:1".parse().unwrap(), "z", 7);
        let (node, name, registered_at) = (NodeId::from_bytes([9; 32]), "r".to_owned(), Time::from_micros(5));
        let registration = Registration { node, name, offer, registered_at };
        let bytes = encode(&registration);
        let expected =
            [&[2][..], &[9; 32], &[1, b'r'], &[0, 1, 0, 127, 0, 0, 1, 1, 1, b'z', 7, 0, 1, 0], &[5]];
        assert_eq!(bytes, expected.concat());
        assert_eq!(decode(&bytes), Ok(registration.clone()));
        let first = [&[1][..], &[9; 32], &[1, b'r'], &[0, 0, 127, 0, 0, 1, 1, 1, b'z', 7, 0, 1, 0], &[5]];
        assert_eq!(decode(&first.concat()), Ok(registration));
    }

    #[test]
    fn what_is_unknown_is_refused() {
        for bytes in [&[][..], &[3, 0, 0], &[1], &[VERSION], &[VERSION, 0, 0]] {
            assert!(decode(bytes).is_err(), "{bytes:?}");
        }
        let offer_of_another_version = [&[VERSION][..], &[9; 32], &[1, b'r'], &[7], &[5]].concat();
        assert_eq!(decode(&offer_of_another_version), Err(CodecError::Malformed));
    }
}
