//! Forwarded packets: a session's QUIC packets on their way through a chain, sealed anew on each link.
//!
//! ```text
//! 0      1         5        9          15               n-16    n
//! | kind | link    | leg    | counter  | QUIC packet    | tag   |
//! ```
//!
//! `link` is what the receiver calls the link (it says so in its [`Hello`](crate::frame::Hello)), `leg` what both ends call the leg; all
//! numbers are big-endian. The packet is sealed with AES-256-GCM under the link's key of that direction, with the counter as nonce and the
//! header as additional data. With 31 bytes more, QUIC's smallest packet of 1,200 bytes still fits into IPv6's smallest MTU of 1,280. What one link adds another takes away, so all links carry packets of the same sizes, and whoever passes a
//! batch on can do so in place.
//!
//! They share the link's UDP socket. QUIC packets have bit 0x40 of their first byte set (RFC 9000, 17.2 and 17.3; RFC 9287 is switched off);
//! forwarded packets have the two highest bits clear.
//!
//! Nothing here is kept for replay, acked or repaired: the session's ends see to that. A packet that cannot be opened or was seen before is
//! dropped, with a [`Drop`] to count.

use crate::crypto::Key;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

mod replay;

use replay::ReplayWindow;

/// What stands before the QUIC packet, in bytes.
pub const HEADER_BYTES: usize = 15;
/// The counter's part of that: enough for 2^48 packets, years at any speed.
const COUNTER_BYTES: usize = 6;
/// What stands after it, in bytes.
pub const TAG_BYTES: usize = 16;
/// How much longer a forwarded packet is than the QUIC packet in it, in bytes.
pub const OVERHEAD_BYTES: usize = HEADER_BYTES + TAG_BYTES;

/// The kind whose content is encrypted on each link.
const FULL: u8 = 1;
/// A key seals so many packets as a power of two, half of what RFC 9001 (6.6) allows AES-GCM for packets of this size.
const GENERATION_BITS: u32 = 22;

/// Whether a UDP payload that begins with this byte is no QUIC packet.
#[must_use]
pub const fn is_forwarded(first: u8) -> bool {
    first & 0xc0 == 0
}

/// Where a packet goes: what its receiver calls the link, and the leg on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The receiver's number of the link.
    pub link: u32,
    /// The number of the leg, the same at both ends.
    pub leg: u32,
}

/// Why a packet is not passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Drop {
    /// Too short, or of an unknown kind.
    Malformed,
    /// There is no such link.
    UnknownLink,
    /// Its seal is not that of the link it names.
    Forged,
    /// It came before, or is too old to tell.
    Replayed,
    /// There is no such leg, or nobody to pass it on to, and no room or time left to wait for that.
    NoWay,
    /// The socket, or whoever they are for, takes no more now.
    Congested,
}

impl Drop {
    /// Every cause.
    pub const ALL: [Self; 6] =
        [Self::Malformed, Self::UnknownLink, Self::Forged, Self::Replayed, Self::NoWay, Self::Congested];

    /// Its name in metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::UnknownLink => "unknown_link",
            Self::Forged => "forged",
            Self::Replayed => "replayed",
            Self::NoWay => "no_way",
            Self::Congested => "congested",
        }
    }
}

impl Address {
    /// Reads the address of a packet, which is believed only once the packet is opened.
    ///
    /// # Errors
    /// [`Drop::Malformed`] if it is too short or of another kind.
    pub fn of(packet: &[u8]) -> Result<Self, Drop> {
        let (header, _) = packet.split_first_chunk::<HEADER_BYTES>().ok_or(Drop::Malformed)?;
        let [kind, a, b, c, d, e, f, g, h, ..] = *header;
        if kind != FULL || packet.len() <= OVERHEAD_BYTES {
            return Err(Drop::Malformed);
        }
        Ok(Self { link: u32::from_be_bytes([a, b, c, d]), leg: u32::from_be_bytes([e, f, g, h]) })
    }
}

/// The keys of one link at one of its ends.
#[derive(Debug)]
pub struct LinkKeys {
    sealer: Sealer,
    opener: Opener,
}

impl LinkKeys {
    /// From a secret that both ends take from the link's TLS session (RFC 8446, 7.5), at the end that dialled the link or the other.
    #[must_use]
    pub fn new(secret: &Key, dialed: bool) -> Self {
        let [ours, theirs] = if dialed { ["dialer", "acceptor"] } else { ["acceptor", "dialer"] };
        let secret = |end: &str| secret.derive("forwarded packets", &[end.as_bytes()]);
        Self { sealer: Sealer::new(secret(ours)), opener: Opener::new(secret(theirs)) }
    }

    /// Seals the QUIC packet that lies in `packet` between room for the header and room for the tag.
    ///
    /// # Panics
    /// If there is no such room.
    pub fn seal(&mut self, to: Address, packet: &mut [u8]) {
        self.sealer.seal(to, packet);
    }

    /// Opens a packet in place: then the QUIC packet lies between [`HEADER_BYTES`] and [`TAG_BYTES`].
    ///
    /// # Errors
    /// Why it is to be dropped.
    pub fn open(&mut self, packet: &mut [u8]) -> Result<(), Drop> {
        self.opener.open(packet)
    }
}

#[derive(Debug)]
struct Sealer {
    secret: Key,
    generation: u64,
    key: LessSafeKey,
    counter: u64,
}

impl Sealer {
    fn new(secret: Key) -> Self {
        Self { key: key_of(&secret, 0), secret, generation: 0, counter: 0 }
    }

    fn seal(&mut self, to: Address, packet: &mut [u8]) {
        let counter = self.counter;
        self.counter += 1;
        if counter >> GENERATION_BITS != self.generation {
            self.generation = counter >> GENERATION_BITS;
            self.key = key_of(&self.secret, self.generation);
        }
        let (header, rest) =
            packet.split_first_chunk_mut::<HEADER_BYTES>().expect("there is room for a header");
        let (content, room) = rest.split_last_chunk_mut::<TAG_BYTES>().expect("there is room for a tag");
        *header = header_of(to, counter);
        let tag = self.key.seal_in_place_separate_tag(nonce(counter), Aad::from(&*header), content);
        room.copy_from_slice(tag.expect("a packet is far below the cipher's limit").as_ref());
    }
}

/// The counter of a header: its last 6 bytes.
fn counter_of(header: &[u8; HEADER_BYTES]) -> u64 {
    let (_, counter) = header.split_last_chunk::<COUNTER_BYTES>().expect("a header has its counter last");
    counter.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn header_of(to: Address, counter: u64) -> [u8; HEADER_BYTES] {
    let mut header = [FULL; HEADER_BYTES];
    let counter = counter.to_be_bytes().into_iter().skip(8 - COUNTER_BYTES);
    let fields = to.link.to_be_bytes().into_iter().chain(to.leg.to_be_bytes()).chain(counter);
    header.iter_mut().skip(1).zip(fields).for_each(|(to, from)| *to = from);
    header
}

fn nonce(counter: u64) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    nonce.iter_mut().rev().zip(counter.to_le_bytes()).for_each(|(to, from)| *to = from);
    Nonce::assume_unique_for_key(nonce)
}

fn key_of(secret: &Key, generation: u64) -> LessSafeKey {
    let key = secret.derive("generation", &[&generation.to_be_bytes()]);
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key.expose()).expect("the key has the cipher's length"))
}

#[derive(Debug)]
struct Opener {
    secret: Key,
    /// The newest generation that a packet was opened with.
    generation: u64,
    /// The keys of the generation before, of this one and of the next.
    keys: [LessSafeKey; 3],
    window: ReplayWindow,
}

impl Opener {
    fn new(secret: Key) -> Self {
        let keys = keys_around(&secret, 0);
        Self { secret, generation: 0, keys, window: ReplayWindow::default() }
    }

    fn open(&mut self, packet: &mut [u8]) -> Result<(), Drop> {
        let (header, sealed) = packet.split_first_chunk_mut::<HEADER_BYTES>().ok_or(Drop::Malformed)?;
        let counter = counter_of(header);
        if !self.window.is_new(counter) {
            return Err(Drop::Replayed);
        }
        let generation = counter >> GENERATION_BITS;
        let [before, present, next] = &self.keys;
        let key = match generation.wrapping_sub(self.generation) {
            0 => present,
            1 => next,
            u64::MAX => before,
            _ => return Err(Drop::Forged),
        };
        key.open_in_place(nonce(counter), Aad::from(&*header), sealed).map_err(|_| Drop::Forged)?;
        self.window.take(counter);
        if generation > self.generation {
            self.generation = generation;
            self.keys = keys_around(&self.secret, generation);
        }
        Ok(())
    }
}

fn keys_around(secret: &Key, generation: u64) -> [LessSafeKey; 3] {
    [generation.saturating_sub(1), generation, generation + 1].map(|generation| key_of(secret, generation))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TO: Address = Address { link: 7, leg: 1 << 30 };

    fn ends() -> (LinkKeys, LinkKeys) {
        let secret = Key::from_bytes([3; 32]);
        (LinkKeys::new(&secret, true), LinkKeys::new(&secret, false))
    }

    fn sealed(keys: &mut LinkKeys, content: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; content.len() + OVERHEAD_BYTES];
        packet[HEADER_BYTES..][..content.len()].copy_from_slice(content);
        keys.seal(TO, &mut packet);
        packet
    }

    #[test]
    fn what_one_end_seals_the_other_opens_once() {
        let (mut dialer, mut acceptor) = ends();
        for by_dialer in [true, false] {
            let ends = (&mut dialer, &mut acceptor);
            let (one, other) = if by_dialer { ends } else { (ends.1, ends.0) };
            let packet = sealed(one, b"a QUIC packet");
            assert!(is_forwarded(packet[0]));
            assert_eq!(Address::of(&packet), Ok(TO));
            assert!(!packet.windows(4).any(|bytes| bytes == b"QUIC"), "it is not to be read on the way");
            let mut opened = packet.clone();
            assert_eq!(other.open(&mut opened), Ok(()), "sealed by the dialer: {by_dialer}");
            assert_eq!(&opened[HEADER_BYTES..][..13], b"a QUIC packet");
            assert_eq!(other.open(&mut packet.clone()), Err(Drop::Replayed));
            assert!(one.open(&mut packet.clone()).is_err(), "its own packet sent back");
        }
    }

    #[test]
    fn a_packet_with_any_bit_flipped_is_dropped_and_blocks_nothing() {
        let (mut dialer, mut acceptor) = ends();
        let packet = sealed(&mut dialer, b"content");
        for bit in 0..packet.len() * 8 {
            let mut forged = packet.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            assert!(Address::of(&forged).is_err() || acceptor.open(&mut forged).is_err(), "bit {bit}");
        }
        assert_eq!(acceptor.open(&mut packet.clone()), Ok(()));
    }

    #[test]
    fn what_is_too_short_or_of_another_kind_is_malformed() {
        let (mut dialer, mut acceptor) = ends();
        let packet = sealed(&mut dialer, b"x");
        for length in 0..packet.len() {
            assert_eq!(Address::of(&packet[..length]), Err(Drop::Malformed));
            assert!(acceptor.open(&mut packet[..length].to_vec()).is_err());
        }
        for kind in (0..=u8::MAX).filter(|kind| *kind != FULL) {
            assert_eq!(Address::of(&[&[kind], &packet[1..]].concat()), Err(Drop::Malformed));
        }
    }

    #[test]
    fn keys_are_renewed_at_both_ends_and_late_packets_still_open() {
        let (mut dialer, mut acceptor) = ends();
        for generation in 1..4 {
            dialer.sealer.counter = (generation << GENERATION_BITS) - 1;
            let late = sealed(&mut dialer, b"late");
            let first = sealed(&mut dialer, b"first");
            assert_eq!(dialer.sealer.generation, generation);
            assert_eq!(acceptor.open(&mut first.clone()), Ok(()));
            assert_eq!(acceptor.open(&mut late.clone()), Ok(()));
            assert_eq!(acceptor.opener.generation, generation);
        }
    }

    #[test]
    fn a_counter_from_far_away_costs_nothing_and_moves_nothing() {
        let (mut dialer, mut acceptor) = ends();
        dialer.sealer.counter = 5 << GENERATION_BITS;
        assert_eq!(acceptor.open(&mut sealed(&mut dialer, b"far")), Err(Drop::Forged));
        dialer.sealer.counter = 0;
        assert_eq!(acceptor.open(&mut sealed(&mut dialer, b"near")), Ok(()));
    }
}
