//! Addresses, as they are compared and shown: a socket that takes both IP families shows IPv4 ones in IPv6 form.

use std::net::SocketAddr;

/// As the peer would write it.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(v4) => SocketAddr::from((v4, v6.port())),
            None => address,
        },
        SocketAddr::V4(_) => address,
    }
}

/// Whether two addresses lead to the same socket.
pub(crate) fn is_same(one: SocketAddr, other: SocketAddr) -> bool {
    let known_by = |address: SocketAddr| (address.ip().to_canonical(), address.port());
    known_by(one) == known_by(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_known_in_any_clothes() {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        assert!(is_same(address("10.0.0.1:5"), address("[::ffff:10.0.0.1]:5")));
        assert!(!is_same(address("10.0.0.1:5"), address("10.0.0.1:6")));
        assert!(!is_same(address("10.0.0.1:5"), address("10.0.0.2:5")));
        assert_eq!(canonical(address("[::ffff:10.0.0.1]:5")), address("10.0.0.1:5"));
        assert_eq!(canonical(address("[fe80::1%3]:5")), address("[fe80::1%3]:5"));
    }
}
