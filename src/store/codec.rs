//! Registrations as bytes, the same in every store: a version, and what that version says.
//!
//! A version, once released, is read for ever; a new one is added when [`Registration`] changes its shape.

use crate::proto::bootstrap::Registration;
use crate::proto::codec::{self, CodecError};

const VERSION: u8 = 1;

/// Its bytes, in the latest version.
pub(super) fn encode(registration: &Registration) -> Vec<u8> {
    codec::to_bytes(&(VERSION, registration))
}

/// The registration that these bytes are.
pub(super) fn decode(bytes: &[u8]) -> Result<Registration, CodecError> {
    match bytes.split_first() {
        Some((&VERSION, value)) => codec::from_bytes(value),
        Some(_) | None => Err(CodecError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::rpc::Offer;
    use crate::proto::{NodeId, Time};

    #[test]
    fn golden_vector() {
        let offer = Offer::relay("127.0.0.1:1".parse().unwrap(), "z", 7);
        let (node, name, registered_at) = (NodeId::from_bytes([9; 32]), "r".to_owned(), Time::from_micros(5));
        let registration = Registration { node, name, offer, registered_at };
        let bytes = encode(&registration);
        let expected = [&[1][..], &[9; 32], &[1, b'r'], &[0, 0, 127, 0, 0, 1, 1, 1, b'z', 7, 0, 1, 0], &[5]];
        assert_eq!(bytes, expected.concat());
        assert_eq!(decode(&bytes), Ok(registration));
    }

    #[test]
    fn what_is_unknown_is_refused() {
        for bytes in [&[][..], &[2, 0, 0], &[VERSION], &[VERSION, 0, 0]] {
            assert!(decode(bytes).is_err(), "{bytes:?}");
        }
    }
}
