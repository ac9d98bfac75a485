//! The ticket: the one string a newcomer needs to join a network. It holds a secret, so it is passed on like a
//! password.
//!
//! `hopline1`, then lower-case base32 of a codec value and of four bytes of its hash, so that a typing error is found
//! before anyone is asked. Letter case and white space in between don't matter.
//!
//! A join secret is derived from the network secret and the [`Grant`] it stands for, so a bootstrap recognises any
//! ticket of its network without a table, also after a restart. Which tickets are used up or revoked is not known here.

use super::authority::{Authority, NetworkKey};
use data_encoding::BASE32_NOPAD;
use hopline_proto::Time;
use hopline_proto::codec;
use hopline_proto::crypto::{self, Key};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The most bootstraps a ticket names.
pub const MAX_BOOTSTRAPS: usize = 8;
/// The longest `host:port`, in bytes.
pub const MAX_ADDRESS_BYTES: usize = 255;

/// The longest name that DNS knows, in bytes.
const MAX_NAME_BYTES: usize = 253;

const NAME: &str = "hopline";
const VERSION: &str = "1";
const CHECK_BYTES: usize = 4;

/// What a ticket allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Grant {
    /// Tells tickets apart, for lists and revocation.
    pub id: [u8; 16],
    /// Whether the first node to use it is the only one.
    pub single_use: bool,
    /// When it stops admitting anyone. Who has joined stays.
    pub expires: Time,
}

impl Grant {
    /// The network's default ticket: for any number of nodes, for ever.
    pub const DEFAULT: Self = Self { id: [0; 16], single_use: false, expires: Time::MAX };

    /// The secret that proves it.
    #[must_use]
    pub fn secret(&self, network_secret: &Key) -> Key {
        network_secret.derive("join secret", &[&codec::to_bytes(self)])
    }
}

/// An invitation to a network. `Display` writes it with its secret, `Debug` without.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    bootstraps: Vec<String>,
    network: NetworkKey,
    grant: Grant,
    secret: Key,
}

/// Why a string is no ticket, or a ticket can't be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TicketError {
    /// It doesn't begin like one.
    #[error(
        "not a ticket: one begins with `hopline1`; `hopline bootstrap` prints it and writes it to DATA/ticket"
    )]
    NotATicket,
    /// It is of another version.
    #[error("the ticket is of another version of hopline; upgrade the older of the two machines")]
    OtherVersion,
    /// A character is missing, added or wrong.
    #[error("the ticket has a typing error or is cut short; copy it again, all of it")]
    Mistyped,
    /// It arrived as it was made, and yet makes no sense.
    #[error(
        "this version of hopline cannot read the ticket; upgrade it, or ask for a new ticket (`hopline ticket new`)"
    )]
    Malformed,
    /// It names no bootstrap, or too many.
    #[error("a ticket names 1 to {MAX_BOOTSTRAPS} bootstraps, not {count}")]
    Bootstraps {
        /// The number.
        count: usize,
    },
    /// A bootstrap's address is neither `host:port` nor the name of a service.
    #[error(
        "{address:?} is not a bootstrap address; it must be host:port, like 192.0.2.7:4433 or [2001:db8::7]:4433, or a name with \
         SRV records, like _hopline._udp.example.net"
    )]
    Address {
        /// What was given.
        address: String,
    },
}

impl Ticket {
    /// A ticket of `authority`'s network.
    ///
    /// # Errors
    /// [`TicketError`] if there are no bootstraps, too many, or one that is neither `host:port` nor the name of a service.
    pub fn issue(authority: &Authority, bootstraps: Vec<String>, grant: Grant) -> Result<Self, TicketError> {
        let secret = grant.secret(authority.secret());
        Self { bootstraps, network: authority.public_key(), grant, secret }.checked()
    }

    /// Where to ask, each as `host:port` or the name of a service with SRV records, in order of preference.
    #[must_use]
    pub fn bootstraps(&self) -> &[String] {
        &self.bootstraps
    }

    /// Whether there may be more bootstraps than one behind them.
    pub(super) fn may_name_several(&self) -> bool {
        self.bootstraps.len() > 1 || self.bootstraps.iter().any(|name| is_service(name))
    }

    /// The key to trust.
    #[must_use]
    pub const fn network(&self) -> NetworkKey {
        self.network
    }

    /// What it allows.
    #[must_use]
    pub const fn grant(&self) -> &Grant {
        &self.grant
    }

    /// What proves the grant.
    #[must_use]
    pub const fn secret(&self) -> &Key {
        &self.secret
    }

    fn checked(self) -> Result<Self, TicketError> {
        let count = self.bootstraps.len();
        if !(1..=MAX_BOOTSTRAPS).contains(&count) {
            return Err(TicketError::Bootstraps { count });
        }
        match self.bootstraps.iter().find(|address| !is_host_and_port(address) && !is_service(address)) {
            Some(address) => Err(TicketError::Address { address: address.clone() }),
            None => Ok(self),
        }
    }
}

/// Whether this is the name of a service (RFC 2782), as `_service._protocol.domain`.
pub(super) fn is_service(address: &str) -> bool {
    let labels: Vec<&str> = address.split('.').collect();
    let [service, protocol, _domain, ..] = labels.as_slice() else { return false };
    let is_label = |label: &&str| {
        let known = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        (1..=63).contains(&label.len()) && label.chars().all(known)
    };
    let are_marked = [service, protocol].iter().all(|label| label.len() > 1 && label.starts_with('_'));
    are_marked && address.len() <= MAX_NAME_BYTES && labels.iter().all(is_label)
}

fn is_host_and_port(address: &str) -> bool {
    let Some((host, port)) = address.rsplit_once(':') else { return false };
    let bracketed = host.starts_with('[') && host.ends_with(']');
    // Of an IPv6 address without brackets the last group would pass for the port.
    let host_is_one = !host.is_empty() && (bracketed || !host.contains(':'));
    let printable = address.chars().all(|c| c.is_ascii_graphic());
    address.len() <= MAX_ADDRESS_BYTES
        && printable
        && host_is_one
        && port.parse().is_ok_and(|port: u16| port > 0)
}

fn check(body: &[u8]) -> [u8; CHECK_BYTES] {
    let [a, b, c, d, ..] = crypto::hash(&[b"hopline ticket", body]);
    [a, b, c, d]
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = codec::to_bytes(&(&self.bootstraps, self.network, self.grant, &self.secret));
        bytes.extend(check(&bytes));
        write!(f, "{NAME}{VERSION}{}", BASE32_NOPAD.encode(&bytes).to_ascii_lowercase())
    }
}

impl FromStr for Ticket {
    type Err = TicketError;

    fn from_str(text: &str) -> Result<Self, TicketError> {
        let text: String = text.split_whitespace().collect::<String>().to_ascii_lowercase();
        let versioned = text.strip_prefix(NAME).ok_or(TicketError::NotATicket)?;
        let encoded = versioned.strip_prefix(VERSION).ok_or_else(|| {
            let other = versioned.starts_with(|c: char| c.is_ascii_digit());
            if other { TicketError::OtherVersion } else { TicketError::NotATicket }
        })?;
        let bytes = BASE32_NOPAD
            .decode(encoded.to_ascii_uppercase().as_bytes())
            .map_err(|_| TicketError::Mistyped)?;
        let (body, sum) = bytes.split_last_chunk().ok_or(TicketError::Mistyped)?;
        if *sum != check(body) {
            return Err(TicketError::Mistyped);
        }
        let (bootstraps, network, grant, secret) =
            codec::from_bytes(body).map_err(|_| TicketError::Malformed)?;
        Self { bootstraps, network, grant, secret }.checked()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ticket() -> Ticket {
        let bootstraps =
            vec!["192.0.2.7:4433".to_owned(), "[2001:db8::7]:4433".to_owned(), "b.example:1".to_owned()];
        Ticket::issue(&Authority::generate(), bootstraps, Grant::DEFAULT).unwrap()
    }

    /// Any text that looks like a ticket: right name, right check, any body.
    fn text_of(body: &[u8]) -> String {
        format!("hopline1{}", BASE32_NOPAD.encode(&[body, &check(body)].concat()))
    }

    #[test]
    fn a_ticket_is_written_and_read_back() {
        let ticket = ticket();
        let text = ticket.to_string();
        assert_eq!(text.parse(), Ok(ticket.clone()));
        assert_eq!(text.to_ascii_uppercase().parse(), Ok(ticket.clone()), "fit for a QR code");
        let (head, tail) = text.split_at(70);
        assert_eq!(
            format!(" {head}\r\n  {tail}\n").parse(),
            Ok(ticket.clone()),
            "a mail program broke the line"
        );
        assert!(format!("{ticket:?}").contains("Key(..)"), "the secret stays hidden");
    }

    #[test]
    fn the_text_form_stays_as_it_is() {
        let ticket = Ticket {
            bootstraps: vec!["b:1".to_owned()],
            network: NetworkKey::from_bytes([1; 32]),
            grant: Grant { id: [2; 16], single_use: true, expires: Time::from_micros(3) },
            secret: Key::from_bytes([4; 32]),
        };
        let golden = concat!(
            "hopline1aebweorraeaqcaibaeaqcaibaeaqcaibaeaqcaibaeaqcaibaeaqcaibaeaqeaqcaib",
            "aeaqcaibaeaqcaibaeaidaqcaibaeaqcaibaeaqcaibaeaqcaibaeaqcaibaeaqcaibaeaqceq2kfpu",
        );
        assert_eq!(ticket.to_string(), golden);
        assert_eq!(golden.parse(), Ok(ticket));
    }

    #[test]
    fn what_is_no_ticket_says_why() {
        let parse = |text: &str| text.parse::<Ticket>().unwrap_err();
        assert_eq!(parse(""), TicketError::NotATicket);
        assert_eq!(parse("192.0.2.7:4433"), TicketError::NotATicket);
        assert_eq!(parse("hoplineabc"), TicketError::NotATicket);
        assert_eq!(parse("hopline2abc"), TicketError::OtherVersion);
        assert_eq!(parse("hopline1"), TicketError::Mistyped);
        assert_eq!(parse("hopline1é"), TicketError::Mistyped);
        assert_eq!(parse(&text_of(b"something else")), TicketError::Malformed);
        assert_eq!(parse(&text_of(&[0; 90])), TicketError::Malformed);
    }

    #[test]
    fn addresses_are_host_and_port() {
        let of = |addresses: &[&str]| {
            let addresses = addresses.iter().map(ToString::to_string).collect();
            Ticket::issue(&Authority::generate(), addresses, Grant::DEFAULT)
        };
        let long = format!("{}:1", "a".repeat(254));
        for address in ["b", "b:", ":1", "b:0", "b:65536", "::1:4433", "b c:1", "bé:1", &long] {
            assert_eq!(of(&[address]).unwrap_err(), TicketError::Address { address: address.to_owned() });
        }
        for address in
            ["_hopline._udp", "hopline._udp.example.net", "_._udp.example.net", "_hopline._udp.é", "_a._b..c"]
        {
            assert_eq!(of(&[address]).unwrap_err(), TicketError::Address { address: address.to_owned() });
        }
        let service = of(&["_hopline._udp.example.net"]).unwrap();
        assert!(service.may_name_several() && !of(&["b:1"]).unwrap().may_name_several());
        assert_eq!(service.to_string().parse(), Ok(service));
        assert_eq!(of(&[]).unwrap_err(), TicketError::Bootstraps { count: 0 });
        assert_eq!(of(&["b:1"; 9]).unwrap_err(), TicketError::Bootstraps { count: 9 });
        let full = "b".repeat(253) + ":1";
        let largest = of(&[full.as_str(); MAX_BOOTSTRAPS]).unwrap();
        assert_eq!(largest.to_string().parse(), Ok(largest));
    }

    #[test]
    fn each_grant_has_its_own_secret() {
        let network_secret = Key::from_bytes([1; 32]);
        let single = Grant { single_use: true, ..Grant::DEFAULT };
        let shorter = Grant { expires: Time::from_micros(1), ..Grant::DEFAULT };
        let other = Grant { id: [1; 16], ..Grant::DEFAULT };
        for grant in [single, shorter, other] {
            assert_ne!(grant.secret(&network_secret), Grant::DEFAULT.secret(&network_secret));
        }
    }

    proptest! {
        #[test]
        fn no_typo_goes_unnoticed(at in 8usize..150, to in "[a-z2-7]") {
            let ticket = ticket();
            let mut text = ticket.to_string();
            text.replace_range(at..=at, &to);
            if text != ticket.to_string() {
                prop_assert_eq!(text.parse::<Ticket>(), Err(TicketError::Mistyped));
            }
            text.truncate(at);
            prop_assert_eq!(text.parse::<Ticket>(), Err(TicketError::Mistyped));
        }
    }
}
