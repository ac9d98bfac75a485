//! The dumb splice: the plainest chain of QUIC relays that could work, as the baseline Hopline is measured against.
//!
//! A client, any number of relays and a server, each a process of its own. A relay accepts one link; for each bidirectional
//! stream of it, it opens one to the next and copies chunks both ways, without a copy of the bytes and without keeping any.
//! TLS 1.3 runs end to end inside each stream, and another on each link, as in Hopline. Nothing survives anything here: what
//! Hopline costs beyond these figures is the price of keeping the bytes.
//!
//! It is meant to be hard to beat: kernel and QUIC settings are the best we found, and links are not authenticated
//! (handshakes are real, but the key that signs all certificates is no secret). As in Hopline, no TLS is resumed. It
//! deliberately knows nothing of the rest of the crate, so that no part of Hopline can slow it down or speed it up; what is
//! said over its streams is up to whoever opens and serves them.
//!
//! Run each role on a current-thread runtime: for one link it moves more bytes at less CPU than a multi-threaded one.
//! Tried and left out, for no gain on loopback: a read buffer below the end-to-end TLS, more chunks at once, windows of
//! 4 MiB. Slower over three relays: windows below 1 MiB or of 8 MiB, packets of 1,452, 4,000 or 9,000 bytes.

use bytes::Bytes;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    Connection, ConnectionError, Endpoint, EndpointConfig, MtuDiscoveryConfig, RecvStream, SendStream,
    TransportConfig, WriteError,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::error::Error;
use std::io::{Write, stdout};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Join, join};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

/// What a role ends with; a benchmark only prints its errors.
pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// From end to end.
pub(crate) type Stream = TlsStream<Join<RecvStream, SendStream>>;

/// The protocol and the name that every certificate here carries.
const NAME: &str = "splice";
/// What stands before the 32 bytes of an Ed25519 key in PKCS #8 (RFC 8410, section 7).
const ED25519_PKCS8: &[u8] =
    &[0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
/// How long a neighbour may take to answer a handshake.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// How much the client writes and the sink reads at once.
const BUFFER_BYTES: usize = 256 << 10;
/// How many chunks a relay moves at once.
const CHUNKS: usize = 32;
/// Streams that a link may have at once.
const STREAMS: u16 = 1024;

/// The settings all roles of one run share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    /// The upper bound of MTU discovery: the greatest UDP payload tried. Ten segments, the most that quinn hands to the
    /// kernel at once, must stay below 64 KiB.
    pub(crate) mtu_bytes: u16,
    /// Asked for in each direction of a UDP socket; the kernel may give less.
    pub(crate) socket_buffer_bytes: usize,
    /// How many bytes may be under way on one link in one direction.
    pub(crate) window_bytes: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { mtu_bytes: 6500, socket_buffer_bytes: 4 << 20, window_bytes: 2 << 20 }
    }
}

/// What a client saw.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Report {
    /// Sent, and confirmed by the sink.
    pub(crate) bytes: u64,
    /// From the first byte written until the sink's confirmation of the last.
    pub(crate) seconds: f64,
    /// The client's own share; each other process prints its own.
    pub(crate) cpu: Cpu,
}

/// The CPU time one process spent, in steps of 10 ms.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cpu {
    /// From the start of the process to the end of its link.
    pub(crate) seconds: f64,
    /// The part of it spent before the first stream was up: keys, certificates, handshakes.
    pub(crate) setup_seconds: f64,
}

/// Has each stream of one link served, and returns when whoever dialled has closed it.
pub(crate) async fn server<F>(
    listen: SocketAddr,
    options: Options,
    serve: impl Fn(Stream) -> F + Clone + Send + 'static,
) -> Result<()>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let endpoint = bind(listen, options)?;
    announce_ready(&endpoint)?;
    let served = receive(&endpoint, serve).await;
    close(&endpoint).await;
    announce_done(served?)?;
    Ok(())
}

/// Splices each stream of one link to `next`, and returns when whoever dialled has closed it.
pub(crate) async fn relay(listen: SocketAddr, next: SocketAddr, options: Options) -> Result<()> {
    let endpoint = bind(listen, options)?;
    announce_ready(&endpoint)?;
    let spliced = splice(&endpoint, next).await;
    close(&endpoint).await;
    announce_done(spliced?)?;
    Ok(())
}

/// What a [`server`] may do with a stream: count what comes until it ends, and answer with the count.
pub(crate) async fn count(mut stream: Stream) -> Result<()> {
    let mut block = vec![0; BUFFER_BYTES];
    let mut count = 0;
    loop {
        match stream.read(&mut block).await? {
            0 => break,
            read => count += read as u64,
        }
    }
    stream.write_u64(count).await?;
    Ok(stream.shutdown().await?)
}

/// The link of a client to the first relay of a chain, or to the server if there is none.
#[derive(Clone)]
pub(crate) struct Client {
    endpoint: Endpoint,
    link: Connection,
    connector: TlsConnector,
}

impl Client {
    pub(crate) async fn dial(first: SocketAddr, options: Options) -> Result<Self> {
        let listen = match first {
            SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        };
        let endpoint = bind(listen, options)?;
        let link = dial(&endpoint, first).await?;
        let connector = TlsConnector::from(Arc::new(client_tls()?));
        Ok(Self { endpoint, link, connector })
    }

    /// Opens a stream to the server at the end of the chain.
    pub(crate) async fn open(&self) -> Result<Stream> {
        let (send, recv) = self.link.open_bi().await?;
        let tls = self.connector.connect(ServerName::try_from(NAME)?, join(recv, send)).await?;
        Ok(tls.into())
    }

    /// Ends the link, and with it every other role of the chain.
    pub(crate) async fn close(&self) {
        close(&self.endpoint).await;
    }
}

/// Sends `bytes` bytes to the [`count`]ing server that the chain starting at `first` leads to, and checks that they were
/// received.
pub(crate) async fn client(first: SocketAddr, bytes: u64, options: Options) -> Result<Report> {
    let client = Client::dial(first, options).await?;
    let report = send_counted(&client, bytes).await;
    client.close().await;
    report
}

async fn send_counted(client: &Client, bytes: u64) -> Result<Report> {
    let mut stream = client.open().await?;
    let setup_seconds = cpu_seconds()?;
    let started = now();
    write_bytes(&mut stream, bytes).await?;
    stream.shutdown().await?;
    let counted = stream.read_u64().await?;
    let seconds = started.elapsed().as_secs_f64();
    if counted != bytes {
        return Err(format!("the sink counted {counted} bytes of {bytes}").into());
    }
    let cpu = Cpu { seconds: cpu_seconds()?, setup_seconds };
    Ok(Report { bytes, seconds, cpu })
}

async fn write_bytes(to: &mut (impl AsyncWriteExt + Unpin), bytes: u64) -> Result<()> {
    let block = vec![0x5a; BUFFER_BYTES];
    let mut left = bytes;
    while left > 0 {
        let part_bytes = usize::try_from(left).map_or(BUFFER_BYTES, |left| left.min(BUFFER_BYTES));
        let (part, _) = block.split_at(part_bytes);
        to.write_all(part).await?;
        left -= part_bytes as u64;
    }
    Ok(())
}

async fn receive<F>(endpoint: &Endpoint, serve: impl Fn(Stream) -> F + Clone + Send + 'static) -> Result<Cpu>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let link = accept(endpoint).await?;
    let acceptor = TlsAcceptor::from(Arc::new(server_tls()?));
    let setup = Arc::new(OnceLock::new());
    each_stream(&link, |send, recv| {
        let (acceptor, serve, setup) = (acceptor.clone(), serve.clone(), setup.clone());
        async move {
            let tls = acceptor.accept(join(recv, send)).await?;
            let _ = setup.set(cpu_seconds()?);
            serve(tls.into()).await
        }
    })
    .await?;
    Ok(Cpu { seconds: cpu_seconds()?, setup_seconds: setup.get().copied().unwrap_or_default() })
}

async fn splice(endpoint: &Endpoint, next: SocketAddr) -> Result<Cpu> {
    let prev_link = accept(endpoint).await?;
    let next_link = dial(endpoint, next).await?;

    let setup_seconds = cpu_seconds()?;
    each_stream(&prev_link, |mut to_prev, mut from_prev| {
        let next_link = next_link.clone();
        async move {
            let (mut to_next, mut from_next) = next_link.open_bi().await?;
            let both = async {
                tokio::try_join!(copy(&mut from_prev, &mut to_next), copy(&mut from_next, &mut to_prev))
            };
            tokio::select! {
                spliced = both => spliced.map(|_| ()),
                // Who waits for prev to send would not notice.
                lost = next_link.closed() => Err(lost.into()),
            }
        }
    })
    .await?;
    Ok(Cpu { seconds: cpu_seconds()?, setup_seconds })
}

/// Has each stream of a link served, all at once, until whoever dialled closes it. What becomes of streams that are open then
/// is no matter: whether that was right, the client finds out. Any other error of a stream ends it all.
async fn each_stream<F>(link: &Connection, serve: impl Fn(SendStream, RecvStream) -> F) -> Result<()>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let mut streams = JoinSet::new();
    loop {
        tokio::select! {
            accepted = link.accept_bi() => match accepted {
                Ok((send, recv)) => drop(streams.spawn(serve(send, recv))),
                Err(ConnectionError::ApplicationClosed(_)) => return Ok(()),
                Err(error) => return Err(error.into()),
            },
            Some(served) = streams.join_next() => match served? {
                Err(error) if link.close_reason().is_none() => return Err(error),
                Err(_) | Ok(()) => {}
            },
        }
    }
}

/// The whole relay: what was read is written, chunk by chunk, and nothing is kept.
async fn copy(from: &mut RecvStream, to: &mut SendStream) -> Result<()> {
    let mut chunks = [const { Bytes::new() }; CHUNKS];
    while let Some(read) = from.read_chunks(&mut chunks).await? {
        let (read, _) = chunks.split_at_mut(read);
        match to.write_all_chunks(read).await {
            // Whoever reads wants no more.
            Err(WriteError::Stopped(code)) => {
                let _ = from.stop(code);
                return Ok(());
            }
            written => written?,
        }
    }
    // A neighbour that has all it wants may have closed the link already.
    let _ = to.finish();
    acked(to).await;
    Ok(())
}

/// Waits until the neighbour has everything. If it closes the link instead it needs no more; whether that was right, the
/// client finds out by the count.
async fn acked(stream: &mut SendStream) {
    let _ = stream.stopped().await;
}

async fn accept(endpoint: &Endpoint) -> Result<Connection> {
    let incoming = endpoint.accept().await.ok_or("the endpoint was closed before anyone dialled")?;
    Ok(timeout(DIAL_TIMEOUT, incoming).await??)
}

async fn dial(endpoint: &Endpoint, to: SocketAddr) -> Result<Connection> {
    let connecting = endpoint.connect(to, NAME)?;
    let dialled = timeout(DIAL_TIMEOUT, connecting).await;
    Ok(dialled.map_err(|_| format!("no answer from {to} within {} s", DIAL_TIMEOUT.as_secs()))??)
}

async fn close(endpoint: &Endpoint) {
    endpoint.close(0u8.into(), b"");
    let _ = timeout(Duration::from_millis(200), endpoint.wait_idle()).await;
}

/// One UDP socket that both accepts and dials.
fn bind(listen: SocketAddr, options: Options) -> Result<Endpoint> {
    let transport = Arc::new(transport(options));
    let mut server = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(server_tls()?)?));
    server.transport_config(transport.clone());
    let mut client = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(client_tls()?)?));
    client.transport_config(transport);
    let mut config = EndpointConfig::default();
    config.max_udp_payload_size(options.mtu_bytes)?;

    let socket = bind_socket(listen, options)?;
    let mut endpoint = Endpoint::new(config, Some(server), socket, Arc::new(quinn::TokioRuntime))?;
    endpoint.set_default_client_config(client);
    Ok(endpoint)
}

fn bind_socket(listen: SocketAddr, options: Options) -> Result<UdpSocket> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(listen), socket2::Type::DGRAM, None)?;
    socket.set_recv_buffer_size(options.socket_buffer_bytes)?;
    socket.set_send_buffer_size(options.socket_buffer_bytes)?;
    socket.set_nonblocking(true)?;
    socket.bind(&listen.into())?;
    Ok(socket.into())
}

fn transport(options: Options) -> TransportConfig {
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(options.mtu_bytes);
    let mut transport = TransportConfig::default();
    transport
        .mtu_discovery_config(Some(discovery))
        .stream_receive_window(options.window_bytes.into())
        .receive_window(options.window_bytes.into())
        .send_window(options.window_bytes.into())
        .max_concurrent_bidi_streams(STREAMS.into())
        .max_concurrent_uni_streams(0u8.into())
        .datagram_receive_buffer_size(None);
    transport
}

fn server_tls() -> Result<ServerConfig> {
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new([NAME.to_owned()])?.signed_by(&key, &*authority()?)?;
    let key = PrivatePkcs8KeyDer::from(key.serialize_der());
    let mut tls = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.into()], key.into())?;
    tls.alpn_protocols = vec![NAME.into()];
    tls.send_tls13_tickets = 0;
    Ok(tls)
}

fn client_tls() -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(authority()?.der().clone())?;
    let mut tls = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![NAME.into()];
    tls.resumption = Resumption::disabled();
    Ok(tls)
}

/// Who signs every certificate here. Its key is the same everywhere and no secret: there is nothing to protect.
fn authority() -> Result<CertifiedIssuer<'static, KeyPair>> {
    let key = KeyPair::try_from([ED25519_PKCS8, &[0; 32]].concat())?;
    let mut params = CertificateParams::new([])?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    Ok(CertifiedIssuer::self_signed(params, key)?)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

#[expect(
    clippy::disallowed_methods,
    reason = "the baseline stands alone: it has no part in the crate's clock"
)]
fn now() -> Instant {
    Instant::now()
}

/// User and system time of this process so far, of all its threads.
fn cpu_seconds() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    parse_cpu_seconds(&stat)
        .ok_or_else(|| format!("/proc/self/stat is not as proc(5) has it: {stat:?}").into())
}

/// proc(5): fields 14 and 15, in ticks of 10 ms (USER_HZ, which is 100 on every Linux of today). The second field, the
/// command's name, is the only one that can hold a space, and ends at the last parenthesis.
fn parse_cpu_seconds(stat: &str) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let user: u32 = fields.next()?.parse().ok()?;
    let system: u32 = fields.next()?.parse().ok()?;
    Some((f64::from(user) + f64::from(system)) / 100.0)
}

/// The parent process waits for this line.
fn announce_ready(endpoint: &Endpoint) -> Result<()> {
    writeln!(stdout(), r#"ready {{"addr":"{}"}}"#, endpoint.local_addr()?)?;
    Ok(())
}

/// The parent process adds these up.
fn announce_done(cpu: Cpu) -> Result<()> {
    let Cpu { seconds, setup_seconds } = cpu;
    writeln!(stdout(), r#"done {{"cpu_seconds":{seconds:.2},"setup_cpu_seconds":{setup_seconds:.2}}}"#)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOPBACK: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);

    /// Runs all roles on one thread and returns what the client saw.
    async fn run(relays: usize, bytes: u64) -> Result<Report> {
        let options = Options { window_bytes: 64 << 10, ..Options::default() };
        let sink = bind(LOOPBACK.into(), options)?;
        let mut first = sink.local_addr()?;
        let mut roles = JoinSet::new();
        roles.spawn(async move { receive(&sink, count).await });
        for _ in 0..relays {
            let relay = bind(LOOPBACK.into(), options)?;
            let next = std::mem::replace(&mut first, relay.local_addr()?);
            roles.spawn(async move { splice(&relay, next).await });
        }
        let report = client(first, bytes, options).await?;
        while let Some(role) = roles.join_next().await {
            role??;
        }
        Ok(report)
    }

    #[tokio::test]
    async fn every_byte_arrives_over_any_number_of_relays() {
        for (relays, bytes) in [(0, 0), (0, 1), (1, 3_000_001), (3, 1 << 20)] {
            let report = run(relays, bytes).await.unwrap();
            assert_eq!(report.bytes, bytes, "{relays} relays");
            assert!(report.cpu.seconds >= report.cpu.setup_seconds);
        }
    }

    #[tokio::test]
    async fn what_is_not_a_handshake_ends_every_role() {
        let options = Options::default();
        let [sink, relay, stranger] = [(); 3].map(|()| bind(LOOPBACK.into(), options).unwrap());
        let (first, next) = (relay.local_addr().unwrap(), sink.local_addr().unwrap());
        let received = tokio::spawn(async move { receive(&sink, count).await });
        let spliced = tokio::spawn(async move { splice(&relay, next).await });

        let link = dial(&stranger, first).await.unwrap();
        let (mut send, _recv) = link.open_bi().await.unwrap();
        send.write_all(&[0xff; 100]).await.unwrap();
        assert!(received.await.unwrap().is_err());
        assert!(spliced.await.unwrap().is_err());
    }

    #[test]
    fn cpu_time_is_read_past_any_command_name() {
        let stat = "7 (a) b (c) R 1 7 7 0 -1 4194304 90 0 0 0 150 25 0 0 20 0 1 0 5";
        assert_eq!(parse_cpu_seconds(stat), Some(1.75));
        assert_eq!(parse_cpu_seconds("7 (a) R 1"), None);
        assert_eq!(parse_cpu_seconds(""), None);
    }
}
