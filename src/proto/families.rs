//! Which IP families a node has: two nodes can only be neighbours if they have one in common.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// A set of IP families.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Families {
    /// Whether IPv4 is one of them.
    pub v4: bool,
    /// Whether IPv6 is one of them.
    pub v6: bool,
}

impl Families {
    /// IPv4 alone.
    pub const V4: Self = Self { v4: true, v6: false };
    /// IPv6 alone.
    pub const V6: Self = Self { v4: false, v6: true };
    /// Both.
    pub const BOTH: Self = Self { v4: true, v6: true };

    /// Neither.
    pub const NONE: Self = Self { v4: false, v6: false };

    /// The one of an address: an IPv4 one may come in IPv6 clothes.
    #[must_use]
    pub const fn of(ip: IpAddr) -> Self {
        if ip.to_canonical().is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// Those in which a node can be dialled that has these addresses.
    #[must_use]
    pub fn of_all(addresses: &[SocketAddr]) -> Self {
        let has = |family| addresses.iter().any(|address| Self::of(address.ip()) == family);
        Self { v4: has(Self::V4), v6: has(Self::V6) }
    }

    /// Whether the two have one in common.
    #[must_use]
    pub const fn meets(self, other: Self) -> bool {
        (self.v4 && other.v4) || (self.v6 && other.v6)
    }

    /// Each of them alone, IPv4 first.
    pub fn each(self) -> impl Iterator<Item = Self> {
        [Self::V4, Self::V6].into_iter().filter(move |family| self.meets(*family))
    }
}

impl Default for Families {
    /// Both: whoever says nothing is in nobody's way.
    fn default() -> Self {
        Self::BOTH
    }
}

impl fmt::Display for Families {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.v4, self.v6) {
            (true, true) => "IPv4 and IPv6",
            (true, false) => "IPv4",
            (false, true) => "IPv6",
            (false, false) => "neither IPv4 nor IPv6",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv4_address_is_one_in_any_clothes() {
        let of = |text: &str| Families::of(text.parse().unwrap());
        assert_eq!((of("10.0.0.1"), of("::ffff:10.0.0.1")), (Families::V4, Families::V4));
        assert_eq!(of("2001:db8::1"), Families::V6);
        let all = |text: &str| {
            Families::of_all(&text.split_whitespace().map(|one| one.parse().unwrap()).collect::<Vec<_>>())
        };
        assert_eq!(all("10.0.0.1:1 [::ffff:10.0.0.2]:1"), Families::V4);
        assert_eq!(all("10.0.0.1:1 [2001:db8::1]:1"), Families::BOTH);
        assert!(!all("10.0.0.1:1").meets(Families::V6) && !all("").meets(Families::BOTH));
    }
}
