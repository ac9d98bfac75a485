//! Sets interfaces up, in the namespace of the calling thread: what `ip link` and `ip address` do, by rtnetlink(7).

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};
use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd;

/// The loopback interface is the first in each namespace.
const LOOPBACK_INDEX: u32 = 1;
/// linux/rtnetlink.h, linux/netlink.h, linux/if.h, linux/if_addr.h
const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const NLM_F_REQUEST_AND_ACK: u16 = 1 | 4;
const NLM_F_CREATE: u16 = 0x400;
const IFF_UP: u32 = 1;
const IFA_F_NODAD: u8 = 2;
const IFA_LOCAL: u16 = 2;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// Of a `nlmsghdr` and of a `rtattr`.
const HEADER_BYTES: usize = 16;
const ATTRIBUTE_HEADER_BYTES: usize = 4;
/// Where in the answer the error number is: after its header.
const ERROR_AT: usize = HEADER_BYTES;

/// Brings the loopback interface up: without it a host can't reach its own addresses.
pub(super) fn bring_up_loopback() -> io::Result<()> {
    // An `ifinfomsg`.
    let (family_and_type, change) = ([0; 4], IFF_UP.to_ne_bytes());
    let body = [family_and_type, LOOPBACK_INDEX.to_ne_bytes(), IFF_UP.to_ne_bytes(), change];
    ask(RTM_NEWLINK, 0, &body.concat())
}

/// Gives an interface one address in place of another.
pub(super) fn replace_address(interface: u32, old: IpAddr, new: IpAddr, prefix_bits: u8) -> io::Result<()> {
    ask(RTM_DELADDR, 0, &address(interface, old, prefix_bits))?;
    ask(RTM_NEWADDR, NLM_F_CREATE, &address(interface, new, prefix_bits))
}

/// An `ifaddrmsg`, and the address.
fn address(interface: u32, address: IpAddr, prefix_bits: u8) -> Vec<u8> {
    let (family, bytes) = match address {
        IpAddr::V4(v4) => (AF_INET, v4.octets().to_vec()),
        IpAddr::V6(v6) => (AF_INET6, v6.octets().to_vec()),
    };
    let (flags, global) = (IFA_F_NODAD, 0);
    let length = u16::try_from(ATTRIBUTE_HEADER_BYTES + bytes.len()).unwrap_or(u16::MAX);
    let head = [[family, prefix_bits, flags, global], interface.to_ne_bytes(), pair(length, IFA_LOCAL)];
    [head.concat(), bytes].concat()
}

fn ask(kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
    let netlink =
        socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
    let bytes = u32::try_from(HEADER_BYTES + body.len()).unwrap_or(u32::MAX);
    let head = [bytes.to_ne_bytes(), pair(kind, NLM_F_REQUEST_AND_ACK | flags), [0; 4], [0; 4]];
    let request = [head.concat().as_slice(), body].concat();
    sendto(netlink.as_raw_fd(), &request, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut answer = [0; 1024];
    let bytes = recv(netlink.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    let error = answer.get(ERROR_AT..bytes).and_then(|rest| rest.first_chunk());
    match error.map(|error| i32::from_ne_bytes(*error)) {
        Some(0) => Ok(()),
        Some(error) => Err(io::Error::from_raw_os_error(error.saturating_neg())),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

fn pair(first: u16, second: u16) -> [u8; 4] {
    let ([a, b], [c, d]) = (first.to_ne_bytes(), second.to_ne_bytes());
    [a, b, c, d]
}
