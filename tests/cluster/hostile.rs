//! A stranger with bad intentions: it speaks QUIC as far as it likes, from many addresses, and has no ticket.

use aws_lc_rs::hmac;
use hopline::net::authority::{Authority, DEFAULT_VALIDITY, NetworkKey};
use hopline::net::clock::Clock;
use hopline::net::identity::{Identity, Membership};
use hopline::net::tls::{self, BOOTSTRAP_NAME};
use quinn_proto::{ClientConfig, Connection, ConnectionHandle, DatagramEvent, Endpoint, EndpointConfig};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

/// First packets a second at each victim.
pub const RATE: u32 = 300;
/// Where they come from: the loopback network has room for many subnets, and honest nodes share one of them.
const SOURCES: [Ipv4Addr; 4] = [
    Ipv4Addr::LOCALHOST,
    Ipv4Addr::new(127, 0, 0, 9),
    Ipv4Addr::new(127, 66, 6, 1),
    Ipv4Addr::new(127, 77, 7, 2),
];

/// How far the stranger goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attack {
    /// First packets, and deaf to any answer: their addresses may as well be forged.
    FirstFlights,
    /// It shows that it receives, if it is asked to, and says no more.
    HalfOpen,
    /// It shakes hands, showing the certificate of a network that nobody knows, or none, and asks nothing.
    Silent,
}

/// An attack that goes on until this is dropped.
pub struct Attacker {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Attacker {
    /// Attacks relays and a bootstrap of this network.
    pub fn start(
        attack: Attack,
        network: NetworkKey,
        relays: Vec<SocketAddr>,
        bootstrap: SocketAddr,
    ) -> Self {
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, count) = (stop.clone(), sent.clone());
        let thread = std::thread::spawn(move || {
            let mut victims: Vec<Victim> =
                relays.into_iter().map(|at| Victim { at, config: forged(network) }).collect();
            victims.push(Victim { at: bootstrap, config: tls::join_client(network) });
            if attack == Attack::FirstFlights {
                send_first_flights(&victims, &stopped, &count);
            } else {
                Hand::new(attack).shake(&victims, &stopped, &count);
            }
        });
        Self { stop, sent, thread: Some(thread) }
    }

    /// How many attempts it has made.
    pub fn attempts(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

impl Drop for Attacker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

struct Victim {
    at: SocketAddr,
    config: ClientConfig,
}

/// How a node of another network would dial, if it knew this network's key.
fn forged(network: NetworkKey) -> ClientConfig {
    let (authority, identity) = (Authority::generate(), Arc::new(Identity::generate()));
    let issued = authority.issue(identity.public_key(), DEFAULT_VALIDITY, Clock::wall());
    tls::link_client(&Membership::new(identity, issued, network)).unwrap()
}

fn sockets() -> Vec<UdpSocket> {
    SOURCES
        .map(|source| {
            let socket = UdpSocket::bind((source, 0)).unwrap();
            socket.set_nonblocking(true).unwrap();
            socket
        })
        .into()
}

fn endpoint() -> Endpoint {
    let key = hmac::Key::new(hmac::HMAC_SHA256, &[7; 32]);
    Endpoint::new(Arc::new(EndpointConfig::new(Arc::new(key))), None, true, None)
}

/// What a connection has to send now, a datagram each.
fn datagrams(connection: &mut Connection) -> Vec<Vec<u8>> {
    let next = || {
        let mut datagram = Vec::new();
        connection.poll_transmit(Instant::now(), 1, &mut datagram).map(|_| datagram)
    };
    std::iter::from_fn(next).collect()
}

/// Calls `act` so often a second, with a number, until it is time to stop.
fn pace(stop: &AtomicBool, mut act: impl FnMut(usize)) {
    let began = Instant::now();
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        let due = began.elapsed().as_secs_f64() * f64::from(RATE);
        while (number as f64) < due {
            act(number);
            number += 1;
        }
        sleep(Duration::from_millis(2));
    }
}

/// A second's worth of first flights, each sent again and again: to whoever has forgotten it, it is a new one.
fn send_first_flights(victims: &[Victim], stop: &AtomicBool, sent: &AtomicU64) {
    let (mut endpoint, sockets) = (endpoint(), sockets());
    let flights: Vec<Vec<Vec<Vec<u8>>>> = victims
        .iter()
        .map(|victim| {
            let flight = |_| {
                let connecting =
                    endpoint.connect(Instant::now(), victim.config.clone(), victim.at, BOOTSTRAP_NAME);
                datagrams(&mut connecting.unwrap().1)
            };
            (0..RATE).map(flight).collect()
        })
        .collect();
    pace(stop, |number| {
        let socket = &sockets[number % sockets.len()];
        for (victim, flights) in victims.iter().zip(&flights) {
            for datagram in &flights[number % flights.len()] {
                let _ = socket.send_to(datagram, victim.at);
            }
            sent.fetch_add(1, Ordering::Relaxed);
        }
    });
}

/// Shakes hands, or half.
struct Hand {
    attack: Attack,
    /// With whom, through which socket, since when.
    shaking: Vec<(ConnectionHandle, Connection, SocketAddr, usize, Instant)>,
    endpoints: Vec<(Endpoint, UdpSocket)>,
}

/// How long it keeps what it has begun: longer than anybody waits for it.
const KEEP: Duration = Duration::from_secs(5);

impl Hand {
    fn new(attack: Attack) -> Self {
        let endpoints = sockets().into_iter().map(|socket| (endpoint(), socket)).collect();
        Self { attack, shaking: Vec::new(), endpoints }
    }

    fn shake(&mut self, victims: &[Victim], stop: &AtomicBool, sent: &AtomicU64) {
        pace(stop, |number| {
            let place = number % self.endpoints.len();
            for victim in victims {
                let (endpoint, socket) = &mut self.endpoints[place];
                let (now, config) = (Instant::now(), victim.config.clone());
                let (handle, mut connection) =
                    endpoint.connect(now, config, victim.at, BOOTSTRAP_NAME).unwrap();
                for datagram in datagrams(&mut connection) {
                    let _ = socket.send_to(&datagram, victim.at);
                }
                self.shaking.push((handle, connection, victim.at, place, now));
                sent.fetch_add(1, Ordering::Relaxed);
            }
            self.hear();
            self.shaking.retain(|(.., since)| since.elapsed() < KEEP);
        });
    }

    /// Hears the answers, and answers them as far as it goes.
    fn hear(&mut self) {
        for (place, (endpoint, socket)) in self.endpoints.iter_mut().enumerate() {
            let mut packet = [0; 2048];
            while let Ok((length, from)) = socket.recv_from(&mut packet) {
                let data = packet[..length].into();
                // Of a long header's first byte these bits say what it is (RFC 9000, 17.2.5).
                let is_retry = packet[0] & 0xf0 == 0xf0;
                if self.attack == Attack::HalfOpen && !is_retry {
                    continue;
                }
                let event = endpoint.handle(Instant::now(), from, None, None, data, &mut Vec::new());
                let Some(DatagramEvent::ConnectionEvent(handle, event)) = event else { continue };
                let is_it =
                    |(of, .., at, _): &&mut (ConnectionHandle, Connection, SocketAddr, usize, Instant)| {
                        (*of, *at) == (handle, place)
                    };
                let Some((_, connection, to, ..)) = self.shaking.iter_mut().rev().find(is_it) else {
                    continue;
                };
                connection.handle_event(event);
                while let Some(event) = connection.poll_endpoint_events() {
                    if let Some(event) = endpoint.handle_event(handle, event) {
                        connection.handle_event(event);
                    }
                }
                for datagram in datagrams(connection) {
                    let _ = socket.send_to(&datagram, *to);
                }
            }
        }
    }
}
