//! Datagrams of a session: by which the ends nudge each other, and those of applications.
//!
//! The first byte says what one is. A payload follows the number of its stream, which is the stream's index modulo 2^32: far fewer are open
//! at once. Numbers are big-endian.
//!
//! Bounds: [`PORT_DATAGRAMS`] wait for an application, [`SESSION_BYTES`] for all of a session; what comes then is dropped, and counted.
//! [`EARLY`] datagrams whose stream is not known yet are kept; one more displaces the oldest. What comes for a port that was closed is dropped.

use bytes::Bytes;
use quinn::Connection;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Packets were lost, and the chain leads on now: see [`nudge`].
const NUDGE: u8 = 0;
const NUDGED: u8 = 1;
const PAYLOAD: u8 = 2;
/// What stands before a payload, in bytes.
pub(in crate::endpoint) const HEADER_BYTES: usize = 5;

const PORT_DATAGRAMS: usize = 1024;
const SESSION_BYTES: usize = 4 << 20;
/// What a datagram takes beside its payload, roughly.
const DATAGRAM_BYTES: usize = 64;
const EARLY: usize = 32;

/// A connection from end to end that is up, and where what it brings besides streams goes.
#[derive(Clone, Debug)]
pub(in crate::endpoint) struct Established {
    pub(in crate::endpoint) connection: Connection,
    pub(super) ports: Arc<Ports>,
}

impl Established {
    pub(super) fn new(connection: Connection) -> Self {
        Self { connection, ports: Arc::default() }
    }
}

/// Where the datagrams of a session go, by the numbers of their streams.
#[derive(Debug, Default)]
pub(in crate::endpoint) struct Ports(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    open: HashMap<u32, Port>,
    /// Of streams that have no port yet.
    early: VecDeque<(u32, Bytes)>,
    /// Those before it have one, had one, or never will.
    next: u32,
    queued_bytes: usize,
}

#[derive(Debug, Default)]
struct Port {
    queue: VecDeque<Bytes>,
    /// Notified when there is one more.
    arrived: Arc<Notify>,
    dropped: u64,
}

impl State {
    fn arrive(&mut self, number: u32, payload: Bytes) {
        let Some(port) = self.open.get_mut(&number) else {
            if number < self.next {
                return;
            }
            if self.early.len() >= EARLY {
                self.early.pop_front();
            }
            return self.early.push_back((number, payload));
        };
        if port.queue.len() >= PORT_DATAGRAMS || self.queued_bytes + cost(&payload) > SESSION_BYTES {
            port.dropped += 1;
            return;
        }
        self.queued_bytes += cost(&payload);
        port.queue.push_back(payload);
        port.arrived.notify_one();
    }
}

/// What a datagram that waits takes, in bytes.
fn cost(payload: &Bytes) -> usize {
    payload.len() + DATAGRAM_BYTES
}

impl Ports {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Datagrams of this number are kept from now on, until [`Ports::close`].
    pub(in crate::endpoint) fn open(&self, number: u32) {
        let mut state = self.lock();
        state.open.entry(number).or_default();
        state.next = state.next.max(number.saturating_add(1));
        let (own, others) = std::mem::take(&mut state.early).into_iter().partition(|(of, _)| *of == number);
        state.early = others;
        let own: VecDeque<_> = own;
        own.into_iter().for_each(|(_, payload)| state.arrive(number, payload));
    }

    pub(in crate::endpoint) fn close(&self, number: u32) {
        let mut state = self.lock();
        if let Some(port) = state.open.remove(&number) {
            state.queued_bytes -= port.queue.iter().map(cost).sum::<usize>();
        }
    }

    /// The oldest datagram that waits. May be dropped at any point without losing one. Never resolves for a port that is not open.
    pub(in crate::endpoint) async fn recv(&self, number: u32) -> Bytes {
        loop {
            let arrived = {
                let mut state = self.lock();
                let State { open, queued_bytes, .. } = &mut *state;
                let Some(port) = open.get_mut(&number) else { break };
                if let Some(payload) = port.queue.pop_front() {
                    *queued_bytes -= cost(&payload);
                    return payload;
                }
                port.arrived.clone()
            };
            arrived.notified().await;
        }
        std::future::pending().await
    }

    /// How many were dropped since nobody took them in time.
    pub(in crate::endpoint) fn dropped(&self, number: u32) -> u64 {
        self.lock().open.get(&number).map_or(0, |port| port.dropped)
    }
}

/// A datagram for the other end's application.
pub(in crate::endpoint) fn datagram(number: u32, payload: &[u8]) -> Bytes {
    let mut datagram = Vec::with_capacity(HEADER_BYTES + payload.len());
    datagram.push(PAYLOAD);
    datagram.extend_from_slice(&number.to_be_bytes());
    datagram.extend_from_slice(payload);
    datagram.into()
}

/// Has QUIC find at once what was lost: it does when something that was sent later is acked, or after a timeout much longer than a repair
/// takes. So each end sends something.
pub(super) fn nudge(connection: &Connection) {
    let _ = connection.send_datagram(Bytes::from_static(&[NUDGE]));
}

/// Takes in the datagrams of a connection, until it is over.
pub(super) async fn hear(Established { connection, ports }: Established) {
    while let Ok(datagram) = connection.read_datagram().await {
        match datagram.split_first() {
            // So that this end, too, learns what it has lost.
            Some((&NUDGE, [])) => drop(connection.send_datagram(Bytes::from_static(&[NUDGED]))),
            Some((&PAYLOAD, rest)) => {
                if let Some((number, payload)) = rest.split_first_chunk() {
                    // A copy: what came shares its memory with whatever came in the same batch.
                    ports.lock().arrive(u32::from_be_bytes(*number), Bytes::copy_from_slice(payload));
                }
            }
            // That the answer to a nudge has come is all that it is for. What newer nodes send is skipped.
            Some(_) | None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    fn arrive(ports: &Ports, number: u32, payload: &'static [u8]) {
        ports.lock().arrive(number, Bytes::from_static(payload));
    }

    fn next(ports: &Ports, number: u32) -> Option<Bytes> {
        ports.recv(number).now_or_never()
    }

    #[test]
    fn a_datagram_says_what_it_is_and_whose() {
        assert_eq!(&*datagram(0x0102_0304, b"hey"), [2, 1, 2, 3, 4, b'h', b'e', b'y'], "golden vector");
    }

    #[test]
    fn what_comes_early_waits_for_its_port_and_the_oldest_goes_first() {
        let ports = Ports::default();
        for number in (0..).take(EARLY) {
            arrive(&ports, number, b"early");
        }
        arrive(&ports, 7, b"late");
        ports.open(0);
        ports.open(7);
        assert_eq!(next(&ports, 7).as_deref(), Some(&b"early"[..]));
        assert_eq!(next(&ports, 7).as_deref(), Some(&b"late"[..]));
        assert_eq!((next(&ports, 7), next(&ports, 0)), (None, None), "the oldest made room");
        arrive(&ports, 0, b"more");
        assert_eq!(next(&ports, 0).as_deref(), Some(&b"more"[..]));
    }

    #[test]
    fn nobody_takes_more_room_than_there_is() {
        static LARGE: [u8; 64 << 10] = [0; 64 << 10];
        let ports = Ports::default();
        ports.open(1);
        ports.open(2);
        for _ in 0..PORT_DATAGRAMS + 3 {
            arrive(&ports, 1, b"");
        }
        assert_eq!((ports.dropped(1), ports.dropped(2)), (3, 0));
        let room = SESSION_BYTES - PORT_DATAGRAMS * DATAGRAM_BYTES;
        for _ in 0..room / (LARGE.len() + DATAGRAM_BYTES) + 2 {
            arrive(&ports, 2, &LARGE);
        }
        assert_eq!(ports.dropped(2), 2);
        ports.close(2);
        ports.open(3);
        arrive(&ports, 3, &LARGE);
        assert_eq!(
            next(&ports, 3).map(|payload| payload.len()),
            Some(LARGE.len()),
            "what was closed takes none"
        );
        arrive(&ports, 2, b"late");
        assert_eq!(ports.lock().early.len(), 0, "nobody waits for it");
    }
}
