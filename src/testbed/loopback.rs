//! Brings up the loopback interface: without it a host can't reach its own addresses.
//!
//! One request over rtnetlink(7), which is what `ip link set lo up` does.

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};
use std::io;
use std::os::fd::AsRawFd;

/// The loopback interface is the first in each namespace.
const LOOPBACK_INDEX: i32 = 1;
/// linux/rtnetlink.h, linux/netlink.h, linux/if.h
const RTM_NEWLINK: u16 = 16;
const NLM_F_REQUEST_AND_ACK: u16 = 1 | 4;
const IFF_UP: u32 = 1;
const REQUEST_BYTES: u32 = 32;
/// Where in the answer the error number is: after its header.
const ERROR_AT: usize = 16;

/// In the namespace of the calling thread.
pub(super) fn bring_up() -> io::Result<()> {
    let netlink =
        socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
    sendto(netlink.as_raw_fd(), &request(), &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut answer = [0; 1024];
    let bytes = recv(netlink.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    let error = answer.get(ERROR_AT..bytes).and_then(|rest| rest.first_chunk());
    match error.map(|error| i32::from_ne_bytes(*error)) {
        Some(0) => Ok(()),
        Some(error) => Err(io::Error::from_raw_os_error(error.saturating_neg())),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// A `nlmsghdr` and an `ifinfomsg`.
fn request() -> Vec<u8> {
    let header = [REQUEST_BYTES.to_ne_bytes(), pair(RTM_NEWLINK, NLM_F_REQUEST_AND_ACK), [0; 4], [0; 4]];
    let (family_and_type, change) = ([0; 4], IFF_UP.to_ne_bytes());
    let body = [family_and_type, LOOPBACK_INDEX.to_ne_bytes(), IFF_UP.to_ne_bytes(), change];
    [header, body].concat().concat()
}

fn pair(first: u16, second: u16) -> [u8; 4] {
    let ([a, b], [c, d]) = (first.to_ne_bytes(), second.to_ne_bytes());
    [a, b, c, d]
}
