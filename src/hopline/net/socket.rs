//! The UDP socket under a QUIC endpoint, and ICMP errors about its peers.
//!
//! When a datagram cannot be delivered (the port is closed, the host is gone), an ICMP message comes back. quinn ignores these. With
//! `IP_RECVERR` Linux keeps them in the socket's error queue, each with the address of the datagram (ip(7)).
//! [`HintingSocket::refused`] yields these addresses. ICMP messages can be forged, so they are hints and not proof. On other systems
//! there are none.
//!
//! An error in the queue also fails the next system call on the socket, whatever its peer; that call is repeated. The queue takes room in
//! the receive buffer, and some thousand unread errors block the socket. So errors are only collected once they are read.

use super::address::canonical;
use hopline_proto::forward::is_forwarded;
use quinn::udp::{RecvMeta, Transmit, UdpSocketState};
use quinn::{AsyncTimer, AsyncUdpSocket, Runtime, TokioRuntime, UdpPoller};
use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Once};
use std::task::{Context, Poll, ready};
use std::time::Instant;
use tokio::io::Interest;

/// Takes the packets on a node's socket that are not QUIC's (see [`hopline_proto::forward`]).
pub(crate) trait PacketTap {
    /// Takes packets of `stride` bytes each, but for a shorter last one. They may be changed.
    fn take(&self, packets: &mut [u8], stride: usize);
}

thread_local! {
    /// Who takes them on this thread: a node has a thread of its own, and its sockets are read on that alone. quinn wants its sockets
    /// to be `Send`, which a node is not.
    static TAP: RefCell<Option<Rc<dyn PacketTap>>> = const { RefCell::new(None) };
}

/// From now on `tap` takes the packets on this thread's sockets that are not QUIC's; without one they go to QUIC, which ignores them.
pub(crate) fn set_tap(tap: Option<Rc<dyn PacketTap>>) {
    TAP.set(tap);
}

/// Gives a batch's forwarded packets to the tap. Returns the length of the rest, which lies at the front then.
fn sift(batch: &mut [u8], stride: usize, tap: &dyn PacketTap) -> usize {
    let is_ours = |packet: &[u8]| packet.first().copied().is_some_and(is_forwarded);
    let stride = stride.max(1);
    let ours = batch.chunks(stride).filter(|packet| is_ours(packet)).count();
    if ours == batch.len().div_ceil(stride) {
        tap.take(batch, stride);
        return 0;
    }
    if ours == 0 {
        return batch.len();
    }
    let mut kept = 0;
    for start in (0..batch.len()).step_by(stride) {
        let end = batch.len().min(start + stride);
        let packet = batch.get_mut(start..end).unwrap_or_default();
        if is_ours(packet) {
            tap.take(packet, stride);
        } else {
            batch.copy_within(start..end, kept);
            kept += end - start;
        }
    }
    kept
}

/// How often a system call that failed for what happened to another datagram is repeated.
const MAX_REPEATS: usize = 16;

/// See the module's documentation.
#[derive(Debug)]
pub struct HintingSocket {
    io: tokio::net::UdpSocket,
    state: UdpSocketState,
    /// Done once somebody listens.
    enabled: Once,
}

impl HintingSocket {
    /// Takes over a non-blocking socket.
    ///
    /// # Errors
    /// Whatever the operating system has against it.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn new(socket: UdpSocket) -> io::Result<Arc<Self>> {
        let state = UdpSocketState::new((&socket).into())?;
        Ok(Arc::new(Self { io: tokio::net::UdpSocket::from_std(socket)?, state, enabled: Once::new() }))
    }

    /// The address that a datagram could not be delivered to, as soon as there is one; of those that were sent since this was
    /// first called, after which it is to be called again and again.
    ///
    /// # Errors
    /// If the socket can't be waited for; there will be no more then.
    pub async fn refused(&self) -> io::Result<SocketAddr> {
        self.enabled.call_once(|| queue::enable(&self.io));
        loop {
            self.io.ready(Interest::ERROR).await?;
            if let Ok(address) = self.io.try_io(Interest::ERROR, || queue::take(&self.io)) {
                return Ok(canonical(address));
            }
        }
    }
}

impl AsFd for HintingSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.io.as_fd()
    }
}

impl AsyncUdpSocket for HintingSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Poller { socket: self, waiting: None })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.io.try_io(Interest::WRITABLE, || {
            for _ in 0..MAX_REPEATS {
                match self.state.try_send((&self.io).into(), transmit) {
                    Err(error) if is_about_another(&error) => {}
                    // What the system refuses to send is lost, as any datagram may be.
                    Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Ok(()),
                    result => return result,
                }
            }
            Ok(())
        })
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.io.poll_recv_ready(cx))?;
            let received =
                self.io.try_io(Interest::READABLE, || self.state.recv((&self.io).into(), bufs, meta));
            if let Ok(count) = received {
                let tap = TAP.with_borrow(Clone::clone);
                for (buffer, meta) in bufs.iter_mut().zip(meta.iter_mut()).take(count) {
                    let batch = buffer.get_mut(..meta.len).unwrap_or_default();
                    meta.len = tap.as_deref().map_or(meta.len, |tap| sift(batch, meta.stride, tap));
                }
                return Poll::Ready(Ok(count));
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.state.gro_segments()
    }

    fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }
}

/// Whether a system call failed for a former datagram's sake.
fn is_about_another(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable};
    matches!(error.kind(), ConnectionRefused | HostUnreachable | NetworkUnreachable)
}

type Waiting = Pin<Box<dyn Future<Output = io::Result<()>> + Send + Sync>>;

/// Waits for room in the socket's send buffer.
struct Poller {
    socket: Arc<HintingSocket>,
    waiting: Option<Waiting>,
}

impl UdpPoller for Poller {
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let socket = self.socket.clone();
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(async move { socket.io.writable().await }));
        let result = ready!(waiting.as_mut().poll(cx));
        self.waiting = None;
        Poll::Ready(result)
    }
}

impl fmt::Debug for Poller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Poller").finish_non_exhaustive()
    }
}

/// tokio's, with sockets of this kind.
#[derive(Debug)]
pub(super) struct SocketRuntime;

impl Runtime for SocketRuntime {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn AsyncTimer>> {
        TokioRuntime.new_timer(at)
    }

    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        TokioRuntime.spawn(future);
    }

    fn wrap_udp_socket(&self, socket: UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        Ok(HintingSocket::new(socket)?)
    }

    fn now(&self) -> Instant {
        TokioRuntime.now()
    }
}

#[cfg(target_os = "linux")]
mod queue {
    use nix::cmsg_space;
    use nix::libc::{EMSGSIZE, sock_extended_err, sockaddr_in6};
    use nix::sys::socket::sockopt::{Ipv4RecvErr, Ipv6RecvErr};
    use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt};
    use std::io::{self, IoSliceMut};
    use std::net::{Ipv6Addr, SocketAddr};
    use std::os::fd::AsRawFd;
    use tokio::net::UdpSocket;

    /// Without it there are no hints: nothing else is lost.
    pub(super) fn enable(socket: &UdpSocket) {
        let v4 = setsockopt(socket, Ipv4RecvErr, &true);
        let v6 = setsockopt(socket, Ipv6RecvErr, &true);
        if let (Err(error), Err(_)) = (v4, v6) {
            tracing::debug!(%error, "the system does not tell which peers are unreachable");
        }
    }

    /// The next address in the queue that could not be reached.
    pub(super) fn take(socket: &UdpSocket) -> io::Result<SocketAddr> {
        // The datagram itself comes back too; nobody wants it.
        let mut datagram = [IoSliceMut::new(&mut [])];
        let mut control = cmsg_space!(sock_extended_err, sockaddr_in6);
        let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
        let message =
            recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut datagram, Some(&mut control), flags)?;
        let address = message.address.as_ref();
        let v4 = address
            .and_then(SockaddrStorage::as_sockaddr_in)
            .map(|v4| SocketAddr::from((v4.ip(), v4.port())));
        let v6 = address
            .and_then(SockaddrStorage::as_sockaddr_in6)
            .map(|v6| SocketAddr::from((v6.ip(), v6.port())));
        // A datagram that was too large for a link on the way says nothing of the peer.
        let is_too_large = |control: ControlMessageOwned| {
            use ControlMessageOwned::{Ipv4RecvErr, Ipv6RecvErr};
            matches!(control, Ipv4RecvErr(error, _) | Ipv6RecvErr(error, _) if i32::try_from(error.ee_errno) == Ok(EMSGSIZE))
        };
        let is_about_size = message.cmsgs().is_ok_and(|mut controls| controls.any(is_too_large));
        // Nobody is at this address, so nothing follows from it.
        let unknown = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
        Ok(v4.or(v6).filter(|_| !is_about_size).unwrap_or(unknown))
    }
}

#[cfg(not(target_os = "linux"))]
mod queue {
    use std::io;
    use std::net::SocketAddr;
    use tokio::net::UdpSocket;

    pub(super) const fn enable(_: &UdpSocket) {}

    pub(super) fn take(_: &UdpSocket) -> io::Result<SocketAddr> {
        Err(io::ErrorKind::WouldBlock.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::transport;
    use std::net::IpAddr;
    use std::time::Duration;

    const TIMEOUT: Duration = Duration::from_secs(5);

    #[test]
    fn forwarded_packets_are_sifted_out_of_a_batch() {
        struct Taken(RefCell<Vec<u8>>);
        impl PacketTap for Taken {
            fn take(&self, packets: &mut [u8], _: usize) {
                self.0.borrow_mut().extend_from_slice(packets);
            }
        }
        // Packets of two bytes, the last of one; QUIC's have bit 0x40.
        for (batch, quic, ours) in [
            (&[0x40, 1, 0xc0, 2, 0x40][..], &[0x40, 1, 0xc0, 2, 0x40][..], &[][..]),
            (&[1, 1, 1, 2, 1], &[], &[1, 1, 1, 2, 1]),
            (&[1, 1, 0x40, 2, 1, 3, 0x40], &[0x40, 2, 0x40], &[1, 1, 1, 3]),
            (&[0x40, 1, 1, 2, 0x40, 3, 1], &[0x40, 1, 0x40, 3], &[1, 2, 1]),
            (&[], &[], &[]),
        ] {
            let (mut batch, taken) = (batch.to_vec(), Taken(RefCell::default()));
            let rest = sift(&mut batch, 2, &taken);
            assert_eq!((&batch[..rest], &taken.0.into_inner()[..]), (quic, ours));
        }
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_port_that_nobody_has_is_reported_and_other_datagrams_still_leave() {
        let cases = [("127.0.0.1:0", "127.0.0.1:0"), ("[::1]:0", "[::1]:0"), ("[::]:0", "[::1]:0")];
        for (own, any) in [("[::]:0", "127.0.0.1:0")].into_iter().chain(cases) {
            let [own, any]: [SocketAddr; 2] = [own, any].map(|address| address.parse().unwrap());
            let socket = HintingSocket::new(transport::open_socket(own, 0).unwrap()).unwrap();
            let nobody = {
                let gone = UdpSocket::bind(any).unwrap();
                gone.local_addr().unwrap()
            };
            let peer = UdpSocket::bind(any).unwrap();
            peer.set_read_timeout(Some(TIMEOUT)).unwrap();
            let transmit = hello;
            socket.io.writable().await.unwrap();
            let listening = tokio::time::timeout(Duration::ZERO, socket.refused());
            assert!(listening.await.is_err(), "nothing was sent yet");
            for _ in 0..10 {
                socket.try_send(&transmit(as_dialled_by(own, nobody))).unwrap();
                socket.try_send(&transmit(as_dialled_by(own, peer.local_addr().unwrap()))).unwrap();
            }
            let refused = tokio::time::timeout(TIMEOUT, socket.refused());
            assert_eq!(
                refused.await.unwrap().unwrap(),
                nobody,
                "as it would be written, whatever the socket"
            );
            let mut buffer = [0; 16];
            for _ in 0..10 {
                assert_eq!(peer.recv(&mut buffer).unwrap(), 5, "every datagram to the living arrives");
            }
        }
    }

    /// A socket that takes both families names IPv4 addresses in IPv6 form.
    fn as_dialled_by(own: SocketAddr, peer: SocketAddr) -> SocketAddr {
        if let (IpAddr::V4(v4), true) = (peer.ip(), own.is_ipv6()) {
            return SocketAddr::from((v4.to_ipv6_mapped(), peer.port()));
        }
        peer
    }

    fn hello(destination: SocketAddr) -> Transmit<'static> {
        Transmit { destination, ecn: None, contents: b"hello", segment_size: None, src_ip: None }
    }

    #[tokio::test]
    async fn who_does_not_listen_for_refusals_is_not_deafened_by_them() {
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let socket = HintingSocket::new(transport::open_socket(any, 0).unwrap()).unwrap();
        let nobody = UdpSocket::bind(any).unwrap().local_addr().unwrap();
        for _ in 0..5000 {
            socket.io.writable().await.unwrap();
            socket.try_send(&hello(nobody)).unwrap();
        }
        let peer = UdpSocket::bind(any).unwrap();
        for _ in 0..40 {
            peer.send_to(&[7; 1000], socket.local_addr().unwrap()).unwrap();
        }
        let mut buffer = [0; 1500];
        for _ in 0..40 {
            let heard = tokio::time::timeout(TIMEOUT, socket.io.recv_from(&mut buffer));
            assert_eq!(heard.await.expect("it is heard").unwrap(), (1000, peer.local_addr().unwrap()));
        }
    }
}
