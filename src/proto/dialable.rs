//! Which addresses other machines can dial at all.

use std::net::{IpAddr, SocketAddr};

/// Why nobody elsewhere can dial an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Undialable {
    /// Its port is zero.
    #[error("port 0 is not a port: give the one that others dial")]
    PortZero,
    /// It stands for any address.
    #[error("it is unspecified: it names no machine")]
    Unspecified,
    /// It is a group's.
    #[error("it is multicast: it names a group, not a machine")]
    Multicast,
    /// It is everybody's.
    #[error("it is broadcast: it names every machine")]
    Broadcast,
    /// It means nothing without an interface (RFC 4291, section 2.5.6).
    #[error("it is link-local: it means nothing on other machines")]
    LinkLocal,
}

/// Why nobody elsewhere can dial this address; `None` if somebody may. The link-local addresses of IPv4 lead to their machines without
/// the interface.
pub const fn undialable(address: SocketAddr) -> Option<Undialable> {
    let ip = address.ip().to_canonical();
    if address.port() == 0 {
        return Some(Undialable::PortZero);
    }
    if ip.is_unspecified() {
        return Some(Undialable::Unspecified);
    }
    if ip.is_multicast() {
        return Some(Undialable::Multicast);
    }
    match ip {
        IpAddr::V4(v4) if v4.is_broadcast() => Some(Undialable::Broadcast),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Some(Undialable::LinkLocal),
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_names_one_machine_is_dialled() {
        use Undialable::{Broadcast, LinkLocal, Multicast, PortZero, Unspecified};
        let cases = [
            ("192.0.2.1:0", Some(PortZero)),
            ("0.0.0.0:4433", Some(Unspecified)),
            ("[::]:4433", Some(Unspecified)),
            ("[::ffff:0.0.0.0]:4433", Some(Unspecified)),
            ("224.0.0.1:4433", Some(Multicast)),
            ("[ff02::1]:4433", Some(Multicast)),
            ("255.255.255.255:4433", Some(Broadcast)),
            ("[fe80::1]:4433", Some(LinkLocal)),
            ("[fe80::1%3]:4433", Some(LinkLocal)),
            ("169.254.0.1:4433", None),
            ("127.0.0.1:1", None),
            ("[2001:db8::1]:4433", None),
        ];
        for (address, why) in cases {
            assert_eq!(undialable(address.parse().unwrap()), why, "{address}");
        }
    }
}
