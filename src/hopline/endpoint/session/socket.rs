//! The socket of an endpoint's sessions. quinn takes it for a UDP socket; what goes in leaves in forwarded packets over the sessions'
//! carriers, and what comes over these comes out.
//!
//! It is what quinn and the node have in common, so it knows neither flows nor legs: a carrier is a made-up address.
//!
//! Bounds: [`LEAVING_BYTES`] for each address, then quinn waits, or where there is no way at present, packets are dropped; [`ARRIVED_BYTES`] for
//! all, then packets are dropped. QUIC repairs that.

use hopline_proto::forward::{HEADER_BYTES, OVERHEAD_BYTES, TAG_BYTES};
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use std::collections::{HashMap, HashSet, VecDeque};
use std::io::{self, IoSliceMut};
use std::net::{Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use tokio::sync::Notify;

/// What may wait to leave for one address, in bytes: some batches of quinn's.
const LEAVING_BYTES: usize = 256 << 10;
/// What may wait for quinn, in bytes.
const ARRIVED_BYTES: usize = 4 << 20;
/// Packets that quinn is given in one buffer, at most: it reserves room for so many of the largest.
const MAX_BATCH: usize = 10;
/// Buffers that are kept for use again.
const SPARE_BUFFERS: usize = 64;

/// The address that stands for a carrier: within the discard prefix (RFC 6666), as no packet ever goes there.
pub(super) fn address_of(number: u64) -> SocketAddr {
    let bits = 0x0100 << 112 | u128::from(number);
    SocketAddr::from((Ipv6Addr::from_bits(bits), 1))
}

/// The carrier that an address stands for.
pub(super) fn number_of(address: SocketAddr) -> u64 {
    let SocketAddr::V6(address) = address else { return 0 };
    let bits = address.ip().to_bits() & u128::from(u64::MAX);
    u64::try_from(bits).unwrap_or(0)
}

/// Packets in the order in which they leave, each with room for a header and a seal; all but the last of `stride` bytes.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) packets: Vec<u8>,
    pub(super) stride: usize,
}

impl Batch {
    /// Whether packets of `stride` bytes may follow.
    fn takes(&self, stride: usize) -> bool {
        self.stride == stride && self.packets.len().is_multiple_of(stride)
    }
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct SessionSocket {
    state: Mutex<State>,
    /// Notified when there is something to leave.
    pub(super) departures: Notify,
}

#[derive(Debug, Default)]
struct State {
    leaving: HashMap<SocketAddr, Vec<Batch>>,
    /// For which there is no way at present: nobody waits for these, as quinn waits for all addresses at once.
    held: HashSet<SocketAddr>,
    writers: Vec<Waker>,
    arrived: VecDeque<(SocketAddr, Batch)>,
    arrived_bytes: usize,
    reader: Option<Waker>,
    spare: Vec<Vec<u8>>,
}

impl State {
    fn buffer(&mut self) -> Vec<u8> {
        self.spare.pop().unwrap_or_default()
    }

    fn put_back(&mut self, mut buffer: Vec<u8>) {
        if self.spare.len() < SPARE_BUFFERS {
            buffer.clear();
            self.spare.push(buffer);
        }
    }
}

impl SessionSocket {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where something waits to leave for.
    pub(super) fn destinations(&self) -> Vec<SocketAddr> {
        self.lock().leaving.keys().copied().collect()
    }

    /// Takes what waits to leave for an address.
    pub(super) fn take(&self, address: SocketAddr) -> Vec<Batch> {
        let mut state = self.lock();
        let taken = state.leaving.remove(&address).unwrap_or_default();
        state.held.remove(&address);
        state.writers.drain(..).for_each(Waker::wake);
        taken
    }

    /// What waits to leave for an address stays, as there is no way.
    pub(super) fn hold(&self, address: SocketAddr) {
        let mut state = self.lock();
        if state.held.insert(address) {
            state.writers.drain(..).for_each(Waker::wake);
        }
    }

    /// Gives back what [`SessionSocket::take`] gave.
    pub(super) fn done(&self, batches: Vec<Batch>) {
        let mut state = self.lock();
        batches.into_iter().for_each(|batch| state.put_back(batch.packets));
    }

    /// Packets came, each with the room around it that its header and its seal took. Returns whether there was room for them.
    pub(super) fn deliver(&self, from: SocketAddr, packets: &[u8], stride: usize) -> bool {
        let mut state = self.lock();
        if state.arrived_bytes + packets.len() > ARRIVED_BYTES {
            return false;
        }
        for batch in packets.chunks(stride * MAX_BATCH) {
            let mut buffer = state.buffer();
            for packet in batch.chunks(stride) {
                let end = packet.len().saturating_sub(TAG_BYTES);
                buffer.extend_from_slice(packet.get(HEADER_BYTES..end).unwrap_or_default());
            }
            state.arrived_bytes += buffer.len();
            let stride = stride.saturating_sub(OVERHEAD_BYTES);
            state.arrived.push_back((from, Batch { packets: buffer, stride }));
        }
        if let Some(reader) = state.reader.take() {
            reader.wake();
        }
        true
    }
}

impl AsyncUdpSocket for SessionSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Poller(self))
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let mut state = self.lock();
        let State { leaving, held, spare, .. } = &mut *state;
        let batches = leaving.entry(transmit.destination).or_default();
        if is_full(batches) {
            // What waits will do to try the way when there is one.
            let is_held = held.contains(&transmit.destination);
            return if is_held { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) };
        }
        let size = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
        let stride = size + OVERHEAD_BYTES;
        if !batches.last().is_some_and(|batch| batch.takes(stride)) {
            batches.push(Batch { packets: spare.pop().unwrap_or_default(), stride });
        }
        if let Some(batch) = batches.last_mut() {
            for content in transmit.contents.chunks(size) {
                batch.packets.extend_from_slice(&[0; HEADER_BYTES]);
                batch.packets.extend_from_slice(content);
                batch.packets.extend_from_slice(&[0; TAG_BYTES]);
            }
        }
        drop(state);
        self.departures.notify_one();
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.lock();
        let mut count = 0;
        for (buffer, meta) in bufs.iter_mut().zip(meta) {
            let Some((addr, batch)) = state.arrived.pop_front() else { break };
            // What is larger than anything that this end accepts is lost, as on any network.
            let len = if batch.packets.len() > buffer.len() { 0 } else { batch.packets.len() };
            if let Some(room) = buffer.get_mut(..len) {
                room.copy_from_slice(batch.packets.get(..len).unwrap_or_default());
            }
            *meta = RecvMeta { addr, len, stride: batch.stride.max(1), ecn: None, dst_ip: None };
            state.arrived_bytes -= batch.packets.len();
            state.put_back(batch.packets);
            count += 1;
        }
        if count == 0 {
            state.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Ok(count))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(address_of(0))
    }

    fn max_transmit_segments(&self) -> usize {
        MAX_BATCH
    }

    fn max_receive_segments(&self) -> usize {
        MAX_BATCH
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

/// Whether no more may wait to leave for an address.
fn is_full(batches: &[Batch]) -> bool {
    batches.iter().map(|batch| batch.packets.len()).sum::<usize>() >= LEAVING_BYTES
}

/// Waits until something has left.
#[derive(Debug)]
struct Poller(Arc<SessionSocket>);

impl UdpPoller for Poller {
    fn poll_writable(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.lock();
        let State { leaving, held, writers, .. } = &mut *state;
        let blocks =
            |(address, batches): (&SocketAddr, &Vec<Batch>)| is_full(batches) && !held.contains(address);
        // quinn does not say for which address: it is tried again whenever something has left.
        if leaving.iter().any(blocks) {
            if !writers.iter().any(|writer| writer.will_wake(cx.waker())) {
                writers.push(cx.waker().clone());
            }
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    fn transmit(to: SocketAddr, contents: &[u8], segment_size: Option<usize>) -> Transmit<'_> {
        Transmit { destination: to, ecn: None, contents, segment_size, src_ip: None }
    }

    #[test]
    fn an_address_stands_for_a_carrier() {
        for number in [0, 1, u64::MAX] {
            assert_eq!(number_of(address_of(number)), number);
        }
    }

    #[tokio::test]
    async fn what_quinn_sends_leaves_in_few_batches_and_arrives_as_it_was() {
        let (one, other) = (SessionSocket::default(), SessionSocket::default());
        let to = address_of(7);
        one.try_send(&transmit(to, &[1; 20], Some(10))).unwrap();
        one.try_send(&transmit(to, &[2; 14], Some(10))).unwrap();
        one.try_send(&transmit(to, &[3; 10], None)).unwrap();
        assert_eq!(one.destinations(), [to]);
        let batches = one.take(to);
        let sizes: Vec<usize> = batches.iter().map(|batch| batch.packets.len()).collect();
        assert_eq!(sizes, [30 + 4 + 4 * OVERHEAD_BYTES, 10 + OVERHEAD_BYTES], "a short packet ends a batch");
        for batch in &batches {
            assert!(other.deliver(address_of(9), &batch.packets, batch.stride));
        }
        one.done(batches);
        let mut storage = [[0; 64]; 3];
        let mut bufs: Vec<IoSliceMut<'_>> = storage.iter_mut().map(|buf| IoSliceMut::new(buf)).collect();
        let mut meta = [RecvMeta::default(); 3];
        let count = poll_fn(|cx| other.poll_recv(cx, &mut bufs, &mut meta)).await.unwrap();
        let got: Vec<(SocketAddr, usize, usize)> =
            meta[..count].iter().map(|meta| (meta.addr, meta.len, meta.stride)).collect();
        assert_eq!(got, [(address_of(9), 34, 10), (address_of(9), 10, 10)]);
        assert_eq!(storage[0][..34], [[1; 20].as_slice(), &[2; 14]].concat());
        assert_eq!(other.lock().arrived_bytes, 0);
    }

    #[tokio::test]
    async fn who_sends_faster_than_it_leaves_waits() {
        let socket = Arc::new(SessionSocket::default());
        let (to, packet) = (address_of(1), [0; 60_000]);
        let sent =
            (0..100).take_while(|_| socket.try_send(&transmit(to, &packet, Some(1000))).is_ok()).count();
        assert!((4..6).contains(&sent), "{sent}");
        let mut poller = socket.clone().create_io_poller();
        let waiting = async { poll_fn(|cx| poller.as_mut().poll_writable(cx)).await };
        let (writable, ()) = tokio::join!(waiting, async { drop(socket.take(to)) });
        writable.unwrap();
    }

    #[tokio::test]
    async fn nobody_waits_for_an_address_without_a_way() {
        let socket = Arc::new(SessionSocket::default());
        let (to, packet) = (address_of(1), [0; 60_000]);
        while socket.try_send(&transmit(to, &packet, Some(1000))).is_ok() {}
        let mut poller = socket.clone().create_io_poller();
        let waiting = async { poll_fn(|cx| poller.as_mut().poll_writable(cx)).await };
        let (writable, ()) = tokio::join!(waiting, async { socket.hold(to) });
        writable.unwrap();
        socket.try_send(&transmit(to, &packet, Some(1000))).expect("it is dropped");
        socket.try_send(&transmit(address_of(2), &packet, Some(1000))).unwrap();
        let left: usize = socket.take(to).iter().map(|batch| batch.packets.len()).sum();
        assert!(left < LEAVING_BYTES + 2 * packet.len(), "{left}");
    }

    #[test]
    fn what_quinn_does_not_take_in_time_is_dropped() {
        let socket = SessionSocket::default();
        let taken = (0..1000).take_while(|_| socket.deliver(address_of(1), &[0; 60_000], 1000)).count();
        assert!((60..80).contains(&taken), "{taken}");
    }
}
