//! The QUIC endpoint: one UDP socket on which a node both dials and accepts, and how its connections behave.
//!
//! The numbers here are limits, not promises: what a node holds of its flows is bounded by its replay budget, which the
//! protocol keeps. Liveness is not decided here either: heartbeats find a dead neighbour long before the idle timeout,
//! which only clears away what nobody misses. Who may connect is in the [`tls`](super::tls) configurations.
//!
//! An endpoint's stateless resets (RFC 9000, 10.3) survive its process: a node that comes back on its old address tells
//! its neighbours at their next packet that it has forgotten them, instead of leaving them to the idle timeout.

use super::congestion::MinWindow;
use super::error::BindError;
use super::socket::{HintingSocket, SocketRuntime};
use aws_lc_rs::{hkdf, hmac};
use hopline_proto::crypto::Key;
use hopline_proto::forward::OVERHEAD_BYTES;
use quinn::congestion::{BbrConfig, ControllerFactory, CubicConfig, NewRenoConfig};
use quinn::{AsyncUdpSocket, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};
use quinn_proto::HashedConnectionIdGenerator;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Once};
use std::time::Duration;

/// The least UDP payload that QUIC works with (RFC 9000, 14.1), in bytes.
pub const MIN_MTU: u16 = 1200;
/// The largest UDP payload worth probing for, in bytes. quinn sends up to ten packets in one segmented datagram, which
/// has to stay below 64 KiB; and each endpoint allocates 2,048 times this for reception.
pub const MAX_MTU: u16 = 6500;
/// How near to the largest payload that a path carries it need not be looked for, in bytes: each probe costs a packet and an
/// acknowledgement on every new link, six on loopback, and what is lost on Ethernet are 24 of 1,472.
const ENOUGH_MTU: u16 = 64;
/// The most streams of a kind that a peer may have open at once.
pub const MAX_STREAMS: u32 = 1 << 16;

/// How often a session without traffic sends a packet, so that a chain that carries none is found before it is needed.
const SESSION_KEEP_ALIVE: Duration = Duration::from_secs(8);
/// Flows that a session may have at once, each way.
pub(crate) const SESSION_FLOWS: u32 = 1024;

/// Socket buffers below this lose packets in bursts between busy neighbours, in bytes.
const ENOUGH_SOCKET_BUFFER_BYTES: usize = 4 << 20;
/// Connection attempts that wait to be looked at. Whoever accepts them does so at once.
const MAX_WAITING_ATTEMPTS: usize = 1024;
/// What such an attempt may send before it is looked at, and all of them together, in bytes.
const WAITING_ATTEMPT_BYTES: u64 = 16 << 10;
const WAITING_ATTEMPTS_BYTES: u64 = 4 << 20;

/// Room for one heartbeat that can't leave yet, in bytes, with the 32 that quinn counts for each datagram: the next replaces
/// it. An old one would be worth nothing, and its echo be taken for a long round trip.
const UNSENT_HEARTBEAT_BYTES: usize = 64;

/// How connections behave. The defaults are for links; [`TransportSettings::control`] is for talk with bootstraps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransportSettings {
    /// What a peer may send on one stream ahead of our reading, in bytes. 2 MiB carry 160 Mbit/s over 100 ms; a lane
    /// that grows beyond only makes bytes queue in the middle of a chain.
    pub stream_window_bytes: u32,
    /// What a peer may send on all streams together ahead of our reading, in bytes. `None` on links: there the streams'
    /// windows must be what bounds, or one flow that isn't read would block all others and the control stream with them.
    pub connection_window_bytes: Option<u32>,
    /// What may be sent on one connection ahead of the peer's acknowledgement, in bytes: its share of memory, and a
    /// bound on its throughput (8 MiB carry 640 Mbit/s over 100 ms).
    pub send_window_bytes: u64,
    /// How many bidirectional streams the peer may have open at once, at most [`MAX_STREAMS`]. On a link each is a leg.
    /// quinn keeps 75 bytes for each, open or not: at 4,096 a connection costs 343 KiB, at 64 only 41. One that starts
    /// low may be raised later (`set_max_concurrent_bi_streams`).
    pub streams: u32,
    /// How many unidirectional streams the peer may have open at once, at most [`MAX_STREAMS`].
    pub control_streams: u32,
    /// What waits of datagrams that came, in bytes; then the oldest is dropped. Datagrams overtake all streams, so on links only
    /// heartbeats travel in them.
    pub datagram_buffer_bytes: usize,
    /// What waits of datagrams that are to be sent, in bytes; then the oldest is dropped.
    pub unsent_datagram_bytes: usize,
    /// After this long without a packet a connection is dropped. On links heartbeats have acted by then.
    pub idle_timeout: Duration,
    /// At what interval quinn itself shall keep a silent connection alive. `None` on links: their heartbeats do, and
    /// show more than that the peer's UDP stack lives.
    pub keep_alive: Option<Duration>,
    /// What the round trip is taken for until one is measured: after three times this the first packets are sent again, then
    /// after twice as long each time. QUIC's own 333 ms would cost a dial that loses its first packet a second; with 30 ms
    /// six attempts fit into the three seconds that a dial may take, and a path by satellite carries a few packets in vain.
    pub initial_rtt: Duration,
    /// The largest UDP payload to look for, in bytes, within [`MIN_MTU`] and [`MAX_MTU`]. Where the network carries it
    /// (loopback, jumbo frames) it doubles the throughput at half the CPU time; elsewhere a few probes are lost.
    pub mtu: u16,
    /// What to ask the operating system for as the socket's buffers, in bytes each way; 0 leaves them as they are.
    pub socket_buffer_bytes: usize,
    /// What a sender may have under way before it has learned anything of the path, in bytes. A flow that fails over
    /// replays what was not acked over a link that has only carried heartbeats so far: with the 14,720 bytes of RFC 9002 its
    /// last packet would wait for the delayed acknowledgement of those before it, 25 ms.
    pub initial_window_bytes: u64,
    /// How a sender finds its pace.
    pub congestion: Congestion,
    /// The same for sessions, whose packets have all links of a chain to get lost on.
    pub session_congestion: Congestion,
}

impl Default for TransportSettings {
    fn default() -> Self {
        Self {
            stream_window_bytes: 2 << 20,
            connection_window_bytes: None,
            send_window_bytes: 8 << 20,
            streams: 4096,
            control_streams: 4,
            datagram_buffer_bytes: 64 << 10,
            unsent_datagram_bytes: UNSENT_HEARTBEAT_BYTES,
            idle_timeout: Duration::from_secs(30),
            keep_alive: None,
            initial_rtt: Duration::from_millis(30),
            mtu: MAX_MTU,
            socket_buffer_bytes: 8 << 20,
            initial_window_bytes: 128 << 10,
            congestion: Congestion::Cubic,
            session_congestion: Congestion::Cubic,
        }
    }
}

impl TransportSettings {
    /// For connections between nodes and bootstraps, on either side: small frames, few at a time, and idle for long
    /// between them, so that a relay's heartbeats need no new handshake each. A stranger can make a bootstrap hold no
    /// more than the connection's window.
    #[must_use]
    pub fn control() -> Self {
        Self {
            stream_window_bytes: 128 << 10,
            connection_window_bytes: Some(256 << 10),
            send_window_bytes: 1 << 20,
            streams: 64,
            control_streams: 4,
            datagram_buffer_bytes: 0,
            idle_timeout: Duration::from_secs(120),
            mtu: 1452,
            socket_buffer_bytes: 4 << 20,
            ..Self::default()
        }
    }

    /// For the connections of sessions between nodes whose links have these settings. Their packets are so much smaller as forwarded
    /// packets are larger. A session is granted more as soon as it is known who is at its other end. It has no idle timeout: it lasts as
    /// long as a flow carries it, whose ends may be apart for as long as they were told.
    #[must_use]
    pub fn for_sessions(&self) -> Self {
        let overhead = u16::try_from(OVERHEAD_BYTES).unwrap_or(0);
        Self {
            stream_window_bytes: 4 << 20,
            connection_window_bytes: Some(4 << 20),
            send_window_bytes: 16 << 20,
            streams: SESSION_FLOWS,
            control_streams: 1,
            datagram_buffer_bytes: 1 << 20,
            unsent_datagram_bytes: 256 << 10,
            idle_timeout: Duration::MAX,
            keep_alive: Some(SESSION_KEEP_ALIVE),
            congestion: self.session_congestion,
            mtu: self.mtu().saturating_sub(overhead),
            ..self.clone()
        }
    }

    pub(super) fn streams(&self) -> u32 {
        self.streams.min(MAX_STREAMS)
    }

    fn control_streams(&self) -> u32 {
        self.control_streams.min(MAX_STREAMS)
    }

    fn mtu(&self) -> u16 {
        self.mtu.clamp(MIN_MTU, MAX_MTU)
    }

    fn connection_window(&self) -> VarInt {
        // As many streams of each of the two kinds.
        let all_streams = u64::from(MAX_STREAMS) * 2 * u64::from(self.stream_window_bytes);
        VarInt::from_u64(self.connection_window_bytes.map_or(all_streams, u64::from)).unwrap_or(VarInt::MAX)
    }
}

/// How a sender finds its pace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Congestion {
    /// RFC 9438, the default: what the rest of the Internet uses.
    #[default]
    Cubic,
    /// RFC 9002.
    NewReno,
    /// BBR; experimental in quinn, and a quarter slower on clean paths. For paths that lose packets without being full.
    Bbr,
}

impl Congestion {
    fn factory(self, initial_window: u64) -> Arc<dyn ControllerFactory + Send + Sync> {
        match self {
            Self::Cubic => {
                let mut config = CubicConfig::default();
                config.initial_window(initial_window);
                Arc::new(config)
            }
            Self::NewReno => {
                let mut config = NewRenoConfig::default();
                config.initial_window(initial_window);
                Arc::new(config)
            }
            Self::Bbr => {
                let mut config = BbrConfig::default();
                config.initial_window(initial_window);
                Arc::new(config)
            }
        }
    }
}

/// The part of a QUIC configuration, client's or server's, that says how connections behave.
#[must_use]
pub fn transport(settings: &TransportSettings) -> Arc<TransportConfig> {
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(settings.mtu()).minimum_change(ENOUGH_MTU);
    let datagrams = (settings.datagram_buffer_bytes > 0).then_some(settings.datagram_buffer_bytes);
    let mut config = TransportConfig::default();
    config
        .stream_receive_window(settings.stream_window_bytes.into())
        .receive_window(settings.connection_window())
        .send_window(settings.send_window_bytes)
        .max_concurrent_bidi_streams(settings.streams().into())
        .max_concurrent_uni_streams(settings.control_streams().into())
        .datagram_receive_buffer_size(datagrams)
        .datagram_send_buffer_size(settings.unsent_datagram_bytes)
        // Longer than a number holds is for ever.
        .max_idle_timeout(IdleTimeout::try_from(settings.idle_timeout).ok())
        .keep_alive_interval(settings.keep_alive)
        .initial_rtt(settings.initial_rtt)
        .mtu_discovery_config(Some(discovery))
        .congestion_controller_factory(Arc::new(MinWindow(
            settings.congestion.factory(settings.initial_window_bytes),
        )));
    Arc::new(config)
}

/// An endpoint on a socket that is none of the system's, which dials and accepts.
///
/// # Errors
/// [`BindError`] if quinn takes no such socket.
///
/// # Panics
/// Outside of a tokio runtime.
pub(crate) fn bind_virtual(
    socket: Arc<dyn AsyncUdpSocket>,
    server: quinn::ServerConfig,
    settings: &TransportSettings,
    node_secret: &Key,
) -> Result<quinn::Endpoint, BindError> {
    let address = socket.local_addr().map_err(|source| BindError::quic(EVERY_ADDRESS, source))?;
    let config = endpoint_config(settings, node_secret, address);
    quinn::Endpoint::new_with_abstract_socket(config, Some(server), socket, Arc::new(SocketRuntime))
        .map_err(|source| BindError::quic(address, source))
}

/// An endpoint on `listen` (port 0: any free one) that dials and, given a `server` configuration, accepts; it gets the
/// behaviour that `settings` say. Runs on the present tokio runtime, of whichever kind.
///
/// `node_secret` ([`Identity::reset_secret`](super::identity::Identity::reset_secret)) is what its stateless
/// resets are derived from, together with the address, so that two endpoints of one node never share them: a node can be
/// made to reset a connection by asking another one that has its key (RFC 9000, 21.11).
///
/// # Errors
/// [`BindError`] if the address is taken or not this machine's.
///
/// # Panics
/// Outside of a tokio runtime.
pub fn bind(
    listen: SocketAddr,
    server: Option<quinn::ServerConfig>,
    settings: &TransportSettings,
    node_secret: &Key,
) -> Result<quinn::Endpoint, BindError> {
    let socket = open_socket(listen, settings.socket_buffer_bytes)?;
    let socket = HintingSocket::new(socket).map_err(|source| BindError::quic(listen, source))?;
    bind_socket(socket, server, settings, node_secret)
}

/// As [`bind`], on a socket of [`open_socket`]: for who wants to hear of peers that it can't reach.
///
/// # Errors
/// [`BindError`] if the socket can't be used.
///
/// # Panics
/// Outside of a tokio runtime.
pub fn bind_socket(
    socket: Arc<HintingSocket>,
    server: Option<quinn::ServerConfig>,
    settings: &TransportSettings,
    node_secret: &Key,
) -> Result<quinn::Endpoint, BindError> {
    let address = socket.local_addr().map_err(|source| BindError::quic(EVERY_ADDRESS, source))?;
    let config = endpoint_config(settings, node_secret, address);
    let server = server.map(|server| server_config(server, settings, node_secret));
    quinn::Endpoint::new_with_abstract_socket(config, server, socket, Arc::new(SocketRuntime))
        .map_err(|source| BindError::quic(address, source))
}

/// An endpoint that only dials, from any free port, to either IP family if this machine has both.
///
/// # Errors
/// [`BindError`] if the machine lets no one have a socket.
///
/// # Panics
/// Outside of a tokio runtime.
pub fn bind_client(settings: &TransportSettings, node_secret: &Key) -> Result<quinn::Endpoint, BindError> {
    bind_hearing_client(settings, node_secret).map(|(endpoint, _)| endpoint)
}

/// As [`bind_client`], with the socket, which hears of peers that can't be reached.
///
/// # Errors
/// As [`bind_client`].
///
/// # Panics
/// Outside of a tokio runtime.
pub fn bind_hearing_client(
    settings: &TransportSettings,
    node_secret: &Key,
) -> Result<(quinn::Endpoint, Arc<HintingSocket>), BindError> {
    let socket = open_socket(EVERY_ADDRESS, settings.socket_buffer_bytes)?;
    let socket = HintingSocket::new(socket).map_err(|source| BindError::quic(EVERY_ADDRESS, source))?;
    Ok((bind_socket(socket.clone(), None, settings, node_secret)?, socket))
}

/// The least time from one stateless reset to the next. When a node has restarted, its peers repeat what they lost all at the
/// same pace: with quinn's 20 ms few are told in each round, and each round is twice as long as the one before. A reset is
/// smaller than the packet that brings it about, and costs little more.
const RESET_INTERVAL: Duration = Duration::ZERO;

/// Every address of this machine, of both IP families, and any free port; also stands where a socket can't even tell its
/// own address.
pub const EVERY_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0);

/// A server configuration with the behaviour that `settings` say, and with bounds on what strangers can make an
/// endpoint hold. Also for a configuration that replaces another one on a running endpoint: by the same `node_secret` whoever was
/// told to prove its address by the one has proven it to the other.
#[must_use]
pub fn server_config(
    mut server: quinn::ServerConfig,
    settings: &TransportSettings,
    node_secret: &Key,
) -> quinn::ServerConfig {
    let proofs =
        hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, node_secret.derive("proofs of addresses", &[]).expose());
    server
        .token_key(Arc::new(proofs))
        .transport_config(transport(settings))
        .max_incoming(MAX_WAITING_ATTEMPTS)
        .incoming_buffer_size(WAITING_ATTEMPT_BYTES)
        .incoming_buffer_size_total(WAITING_ATTEMPTS_BYTES);
    server
}

/// Without RFC 9287: forwarded packets are told from QUIC's by the bit that it would have set at random.
fn endpoint_config(settings: &TransportSettings, node_secret: &Key, address: SocketAddr) -> EndpointConfig {
    let context = address.to_string();
    let key = |purpose| node_secret.derive(purpose, &[context.as_bytes()]);
    let reset = hmac::Key::new(hmac::HMAC_SHA256, key("stateless reset").expose());
    let ids = key("connection ids");
    let (ids, _) = ids.expose().split_first_chunk().expect("32 bytes have a first 8");
    let ids = u64::from_be_bytes(*ids);
    let mut config = EndpointConfig::new(Arc::new(reset));
    config
        .cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(ids)))
        .max_udp_payload_size(settings.mtu())
        .expect("the size is within QUIC's bounds")
        .grease_quic_bit(false)
        .min_reset_interval(RESET_INTERVAL);
    config
}

/// A UDP socket on `listen` with buffers of `buffer_bytes` each way, or as near to it as the system allows: too little
/// is worth a warning, once in a process. `[::]` means both IP families, and IPv4 alone where there is no IPv6.
///
/// # Errors
/// [`BindError`] if the address is taken or not this machine's.
pub fn open_socket(listen: SocketAddr, buffer_bytes: usize) -> Result<UdpSocket, BindError> {
    let open = |listen: SocketAddr| {
        let socket = Socket::new(Domain::for_address(listen), Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        if listen.is_ipv6() {
            // So that `[::]` means both families everywhere, as it does on Linux. Where that can't be, IPv6 it is.
            let _ = socket.set_only_v6(false);
        }
        if buffer_bytes > 0 {
            widen(&socket, buffer_bytes);
        }
        socket.bind(&listen.into())?;
        Ok(socket.into())
    };
    // A port that is taken, or a lack of rights, is no want of IPv6.
    let is_settled = |error: &io::Error| {
        matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied)
    };
    let opened = match open(listen) {
        Err(error) if listen.ip() == EVERY_ADDRESS.ip() && !is_settled(&error) => {
            open((Ipv4Addr::UNSPECIFIED, listen.port()).into()).map_err(|_| error)
        }
        opened => opened,
    };
    opened.map_err(|source| BindError::quic(listen, source))
}

fn widen(socket: &Socket, buffer_bytes: usize) {
    // Some systems clamp what is too much, others refuse it: what counts is what is read back.
    let _ = socket.set_recv_buffer_size(buffer_bytes);
    let _ = socket.set_send_buffer_size(buffer_bytes);
    // Linux reports twice what it grants, the other half being for its own bookkeeping (socket(7)).
    let share = if cfg!(target_os = "linux") { 2 } else { 1 };
    let receive = socket.recv_buffer_size().unwrap_or(0) / share;
    let send = socket.send_buffer_size().unwrap_or(0) / share;
    if receive.min(send) < ENOUGH_SOCKET_BUFFER_BYTES.min(buffer_bytes) {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            tracing::warn!(
                receive_bytes = receive,
                send_bytes = send,
                asked_bytes = buffer_bytes,
                "the system grants only small UDP buffers, so bursts will lose packets; raise net.core.rmem_max and \
                 net.core.wmem_max (sysctl) to at least {ENOUGH_SOCKET_BUFFER_BYTES}"
            );
        });
    }
}

#[cfg(test)]
mod tests;
