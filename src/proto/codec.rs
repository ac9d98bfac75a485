//! Bytes on the wire, and nothing else about them: bincode (varint integers) behind a length prefix, bounded before
//! anything is believed.
//!
//! A frame is a 4-byte big-endian length and that many bytes of one bincode value. A length above the reader's bound,
//! a value that does not decode within it, or bytes left over after the value are errors.
//!
//! Enums are append-only (but for `Unknown`, which stays last), and a newer peer may send a member that this node does not
//! know. It is read as `Unknown` (a close code as the plain one), and is no error. Two rules make that possible:
//! - an enum without fields never gets any, so it may stand anywhere;
//! - an enum with fields stands last in its frame, so that the rest of the frame is the unknown member's: such a frame is
//!   [`Growing`], and [`from_growing_bytes`] reads it.

use bincode::config::{self, Configuration, Limit};
use bincode::enc::write::Writer;
use bincode::error::EncodeError;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Bytes of the length prefix.
pub const PREFIX_BYTES: usize = 4;
/// The largest frame of any kind, in bytes after the prefix.
pub const MAX_FRAME_BYTES: usize = 64 * 1024;

/// Why bytes from a peer could not be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The length prefix announces more than the reader allows.
    #[error("a frame of {length} bytes, where at most {limit} are allowed")]
    TooLong {
        /// Bytes announced.
        length: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// The bytes are no value of the expected type.
    #[error("malformed frame")]
    Malformed,
    /// The value ended before its frame did.
    #[error("{bytes} bytes left over after the frame's value")]
    Trailing {
        /// Bytes left over.
        bytes: usize,
    },
}

const fn bounded() -> Configuration<config::LittleEndian, config::Varint, Limit<MAX_FRAME_BYTES>> {
    config::standard().with_limit::<MAX_FRAME_BYTES>()
}

/// What most values fit into, so that their bytes are not moved while they are written.
const USUAL_BYTES: usize = 256;

struct Encoded(Vec<u8>);

impl Writer for Encoded {
    fn write(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

/// The bytes of `value`, without a prefix: for datagrams and for what gets sealed.
///
/// # Panics
/// If the value is larger than [`MAX_FRAME_BYTES`]: our own values are bounded where they are built.
#[must_use]
pub fn to_bytes<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = Encoded(Vec::with_capacity(USUAL_BYTES));
    bincode::serde::encode_into_writer(value, &mut bytes, bounded()).expect("our own values encode");
    bytes.0
}

/// The value in exactly these bytes.
///
/// # Errors
/// [`CodecError`] if they are longer than the bound, malformed, or more than the value.
pub fn from_bytes<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let (value, left) = decode(bytes)?;
    if left == 0 { Ok(value) } else { Err(CodecError::Trailing { bytes: left }) }
}

/// The number of a member of an enum on the wire: its place among `all`.
pub(crate) fn number<T: PartialEq>(all: &[T], member: &T) -> u32 {
    let place = all.iter().position(|other| other == member).expect("all members are listed");
    u32::try_from(place).expect("an enum has few members")
}

/// The member that has this number; `None` if a newer peer's has.
pub(crate) fn member<T: Copy>(all: &[T], number: u32) -> Option<T> {
    usize::try_from(number).ok().and_then(|place| all.get(place)).copied()
}

/// A frame that ends with an enum which may grow. See the module's documentation.
pub trait Growing: DeserializeOwned {
    /// Whether that enum's member, or one inside it, is unknown here. What is left of the frame is its.
    fn is_unknown(&self) -> bool;
}

/// The value in exactly these bytes, of which this node may not know all.
///
/// # Errors
/// As [`from_bytes`], but for what follows an unknown member.
pub fn from_growing_bytes<T: Growing>(bytes: &[u8]) -> Result<T, CodecError> {
    let (value, left) = decode::<T>(bytes)?;
    if left == 0 || value.is_unknown() { Ok(value) } else { Err(CodecError::Trailing { bytes: left }) }
}

/// A value at the beginning of these bytes, and how many are left over.
fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, usize), CodecError> {
    check_length(bytes.len(), MAX_FRAME_BYTES)?;
    let (value, used) =
        bincode::serde::decode_from_slice(bytes, bounded()).map_err(|_| CodecError::Malformed)?;
    Ok((value, bytes.len() - used))
}

/// Appends `value` as a frame: prefix and bytes.
pub fn write_frame<T: Serialize>(value: &T, out: &mut Vec<u8>) {
    let bytes = to_bytes(value);
    let length = u32::try_from(bytes.len()).expect("a frame is bounded far below 4 GiB");
    out.extend(length.to_be_bytes());
    out.extend(bytes);
}

/// How many bytes follow a prefix.
///
/// # Errors
/// [`CodecError::TooLong`] if that is more than `limit`.
pub fn frame_length(prefix: [u8; PREFIX_BYTES], limit: usize) -> Result<usize, CodecError> {
    let length = usize::try_from(u32::from_be_bytes(prefix)).unwrap_or(usize::MAX);
    check_length(length, limit)?;
    Ok(length)
}

const fn check_length(length: usize, limit: usize) -> Result<(), CodecError> {
    if length > limit { Err(CodecError::TooLong { length, limit }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_a_prefix_and_a_value() {
        let mut out = Vec::new();
        write_frame(&(7u8, 300u16, "hop"), &mut out);
        assert_eq!(out, [0, 0, 0, 8, 7, 251, 44, 1, 3, b'h', b'o', b'p'], "golden vector");
        let (prefix, value) = out.split_first_chunk().unwrap();
        assert_eq!(frame_length(*prefix, 100), Ok(8));
        assert_eq!(from_bytes::<(u8, u16, String)>(value), Ok((7, 300, "hop".to_owned())));
    }

    #[test]
    fn what_is_not_exactly_one_value_is_refused() {
        assert_eq!(from_bytes::<u8>(&[1, 2]), Err(CodecError::Trailing { bytes: 1 }));
        assert_eq!(from_bytes::<u16>(&[251]), Err(CodecError::Malformed));
        assert_eq!(from_bytes::<String>(&[252, 255, 255, 255, 255]), Err(CodecError::Malformed));
        let too_long = CodecError::TooLong { length: 101, limit: 100 };
        assert_eq!(frame_length([0, 0, 0, 101], 100), Err(too_long));
    }
}
