//! A socket's own addresses: at which addresses other nodes can dial it, and which addresses it can dial.
//!
//! This sends nothing. Connecting a UDP socket only makes the system look up the route, which tells the source address, or that
//! there is no route.

use super::address::canonical;
use hopline_proto::families::Families;
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::SockaddrStorage;
use socket2::SockRef;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;

/// The routes to these are those to the rest of the world: addresses reserved for documentation (RFC 5737, RFC 3849).
const OUTSIDE: [SocketAddr; 2] = [
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 9),
    SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)), 9),
];

/// Why a packet to some address can't leave. No fault of whoever lives there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Obstacle {
    /// The socket takes other addresses only.
    #[error("this node's socket is bound to {0} alone")]
    Socket(Families),
    /// No interface has an address of that family.
    #[error("this machine has no {0}")]
    Family(Families),
    /// There is no route.
    #[error("this machine has no route there")]
    Route,
}

/// See the module's documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Local {
    bound: SocketAddr,
    families: Families,
}

impl Local {
    /// Of a socket that is bound.
    ///
    /// # Errors
    /// Whatever the system has against telling.
    pub(crate) fn of(socket: &impl AsFd) -> io::Result<Self> {
        let socket = SockRef::from(socket);
        let bound = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::Unsupported)?;
        let local = Self::at(bound);
        // Where `[::]` can't take both families (`transport::open_socket`), it is IPv6 alone.
        let is_v6_alone = bound.is_ipv6() && socket.only_v6().unwrap_or(true);
        Ok(if is_v6_alone { Self { families: Families::V6, ..local } } else { local })
    }

    /// Of one that is bound to this address, where `[::]` means both families.
    pub(crate) fn at(bound: SocketAddr) -> Self {
        let takes_both = bound.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        let families = if takes_both { Families::BOTH } else { Families::of(bound.ip()) };
        Self { bound: canonical(bound), families }
    }

    /// What the socket is bound to.
    pub(crate) const fn bound(&self) -> SocketAddr {
        self.bound
    }

    /// Whether the socket takes whatever addresses this machine has.
    pub(crate) const fn is_anywhere(&self) -> bool {
        self.bound.ip().is_unspecified()
    }

    /// What keeps packets to there from leaving, if anything does.
    pub(crate) fn obstacle(&self, to: SocketAddr) -> Option<Obstacle> {
        let family = Families::of(to.ip());
        if !self.families.meets(family) {
            return Some(Obstacle::Socket(self.families));
        }
        let error = self.source(to).err()?.raw_os_error().map(Errno::from_raw);
        // Without a descriptor for looking it up, trying is the better guess.
        if matches!(error, Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::ENOBUFS)) {
            return None;
        }
        Some(if of_interfaces().meets(family) { Obstacle::Route } else { Obstacle::Family(family) })
    }

    /// The families in which the socket can dial anybody. Addresses of the loopback interface count only where the bootstrap
    /// is on this machine, too.
    pub(crate) fn dials(&self, bootstrap: SocketAddr) -> Families {
        if !self.is_anywhere() || canonical(bootstrap).ip().is_loopback() {
            return self.families;
        }
        let Families { v4, v6 } = of_interfaces();
        Families { v4: self.families.v4 && v4, v6: self.families.v6 && v6 }
    }

    /// Where others can dial the socket, as far as this machine can tell: where it is bound, or for each family that it takes
    /// the address that packets to a bootstrap leave from, or else those to the rest of the world. The first bootstrap's
    /// family comes first. Where the bootstraps are on this machine alone, so is the network.
    pub(crate) fn addresses(&self, bootstraps: &[SocketAddr]) -> Vec<SocketAddr> {
        if !self.is_anywhere() {
            return vec![self.bound];
        }
        let is_of_this_machine = bootstraps.iter().all(|address| canonical(*address).ip().is_loopback());
        let outside = OUTSIDE.iter().filter(|_| !is_of_this_machine || bootstraps.is_empty());
        let mut addresses: Vec<SocketAddr> = Vec::new();
        for to in bootstraps.iter().chain(outside) {
            let is_new =
                |ip: &IpAddr| addresses.iter().all(|known| Families::of(known.ip()) != Families::of(*ip));
            let may_be = |ip: &IpAddr| is_usable(*ip) && (is_of_this_machine || !ip.is_loopback());
            let source = self.source(*to).ok().filter(may_be).filter(is_new);
            addresses.extend(source.map(|ip| SocketAddr::new(ip, self.bound.port())));
        }
        addresses
    }

    /// The address that packets to there leave from.
    fn source(&self, to: SocketAddr) -> io::Result<IpAddr> {
        let (to, family) = (canonical(to), Families::of(to.ip()));
        if !self.families.meets(family) {
            return Err(Errno::EAFNOSUPPORT.into());
        }
        let any: IpAddr =
            if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let from = if self.is_anywhere() { any } else { self.bound.ip() };
        let probe = UdpSocket::bind((from, 0))?;
        probe.connect(to)?;
        Ok(probe.local_addr()?.ip())
    }
}

/// The families in which this machine has addresses beyond itself; both if the system does not tell.
fn of_interfaces() -> Families {
    let Ok(interfaces) = getifaddrs() else { return Families::BOTH };
    let ips: Vec<IpAddr> = interfaces.filter_map(|each| ip(each.address.as_ref()?)).collect();
    let has =
        |family| ips.iter().any(|ip| Families::of(*ip) == family && is_usable(*ip) && !ip.is_loopback());
    Families { v4: has(Families::V4), v6: has(Families::V6) }
}

/// An address of an interface, if it is of either family.
fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
}

/// Whether others may know this machine by it: a link-local IPv6 address, which every interface has, says nothing without the
/// interface.
const fn is_usable(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => !v4.is_unspecified(),
        IpAddr::V6(v6) => !v6.is_unspecified() && !v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::transport;

    fn local(bind: &str) -> Local {
        Local::of(&transport::open_socket(bind.parse().unwrap(), 0).unwrap()).unwrap()
    }

    fn to(address: &str) -> SocketAddr {
        address.parse().unwrap()
    }

    #[test]
    fn a_socket_serves_what_it_is_bound_to() {
        let (both, v4, v6) = (local("[::]:0"), local("0.0.0.0:0"), local("[::1]:0"));
        assert_eq!((both.families, v4.families, v6.families), (Families::BOTH, Families::V4, Families::V6));
        let port = both.bound.port();
        let at = |ip: &str| SocketAddr::new(ip.parse().unwrap(), port);
        assert_eq!(both.addresses(&[to("[::ffff:127.0.0.1]:9")]), [at("127.0.0.1")]);
        assert_eq!(both.addresses(&[to("[::1]:9"), to("127.0.0.1:9")]), [at("::1"), at("127.0.0.1")]);
        assert!(v4.addresses(&[to("[::1]:9")]).is_empty(), "what is not served is not offered");
        assert_eq!(v6.addresses(&[to("127.0.0.1:9")]), [v6.bound]);
    }

    #[test]
    fn only_what_has_a_route_can_be_dialled() {
        let (both, v4, v6) = (local("[::]:0"), local("0.0.0.0:0"), local("[::1]:0"));
        let obstacle = |local: Local, address| local.obstacle(to(address));
        assert_eq!((obstacle(both, "127.0.0.1:9"), obstacle(both, "[::1]:9")), (None, None));
        assert_eq!(obstacle(v4, "[::ffff:127.0.0.1]:9"), None);
        assert_eq!(obstacle(v4, "[::1]:9"), Some(Obstacle::Socket(Families::V4)));
        assert_eq!(obstacle(v6, "127.0.0.1:9"), Some(Obstacle::Socket(Families::V6)));
        assert_eq!((v4.dials(to("127.0.0.1:9")), v6.dials(to("[::1]:9"))), (Families::V4, Families::V6));
    }
}
