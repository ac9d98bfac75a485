//! Real sockets on real hosts. Skipped, aloud, where no testbed can be made.

use super::*;
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;
use tokio::time::Instant;

/// More than a packet takes on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Two hosts, and a socket on each, connected to each other; and a third.
struct Pair {
    bed: Testbed,
    sockets: [UdpSocket; 2],
    third: UdpSocket,
}

fn pair() -> Option<Pair> {
    let bed = match Testbed::new(3, 1) {
        Ok(bed) => bed,
        Err(error) => {
            println!("SKIPPED: {error}");
            return None;
        }
    };
    let [a, b, third] = [0, 1, 2].map(|host| {
        let host = bed.host(host);
        let socket = host.enter(|| UdpSocket::bind((host.address(), 0))).unwrap();
        socket.set_read_timeout(Some(TIMEOUT)).unwrap();
        socket
    });
    let sockets = [a, b];
    let addresses = [&sockets[0], &sockets[1]].map(|socket| socket.local_addr().unwrap());
    sockets[0].connect(addresses[1]).unwrap();
    sockets[1].connect(addresses[0]).unwrap();
    Some(Pair { bed, sockets, third })
}

impl Pair {
    /// Sends one packet, and its number back: how long that took.
    fn round_trip(&self, number: u32) -> Duration {
        let start = Instant::now();
        let [a, b] = &self.sockets;
        let mut buffer = [0; 4];
        for (from, to) in [(a, b), (b, a)] {
            from.send(&number.to_be_bytes()).unwrap();
            to.recv(&mut buffer).unwrap();
            assert_eq!(u32::from_be_bytes(buffer), number);
        }
        start.elapsed()
    }

    /// Waits until the router has handed on, or not, whatever a host had sent: it takes a host's packets in turn.
    fn routed(&self, host: usize) {
        let host = self.bed.host(host);
        let marker = host.enter(|| UdpSocket::bind((host.address(), 0))).unwrap();
        marker.send_to(&[0], self.third.local_addr().unwrap()).unwrap();
        self.third.recv(&mut [0]).unwrap();
    }

    /// How many packets are there for one of the two.
    fn waiting(&self, at: usize) -> usize {
        let socket = &self.sockets[at];
        socket.set_nonblocking(true).unwrap();
        let waiting = (0..).take_while(|_| socket.recv(&mut [0; 2000]).is_ok()).count();
        socket.set_nonblocking(false).unwrap();
        waiting
    }

    /// How many of so many packets arrive.
    fn arrive(&self, count: usize, bytes: usize) -> usize {
        for _ in 0..count {
            self.sockets[0].send(&vec![1; bytes]).unwrap();
        }
        self.routed(0);
        self.waiting(1)
    }
}

#[test]
fn a_delay_takes_its_time_and_keeps_to_its_wire() {
    let Some(pair) = pair() else { return };
    let fastest = |pair: &Pair| (0..20).map(|number| pair.round_trip(number)).min().unwrap();
    let plain = fastest(&pair);
    pair.bed.set(0, 1, Wire { delay: Duration::from_millis(20), ..Wire::default() });
    let one_way = fastest(&pair);
    pair.bed.set_all(Wire { delay: Duration::from_millis(20), ..Wire::default() });
    let both = fastest(&pair);
    println!("round trips: {plain:?} plain, {one_way:?} with 20 ms one way, {both:?} with 20 ms both ways");
    assert!(plain < Duration::from_millis(10));
    assert!((Duration::from_millis(20)..Duration::from_millis(30)).contains(&one_way));
    assert!((Duration::from_millis(40)..Duration::from_millis(50)).contains(&both));
}

#[test]
fn what_is_to_be_lost_is_lost() {
    let Some(pair) = pair() else { return };
    pair.bed.set(0, 1, Wire { loss: 0.3, ..Wire::default() });
    let arrived: usize = (0..20).map(|_| pair.arrive(50, 100)).sum();
    println!("30 % loss: {arrived} of 1000 arrived");
    assert!((620..780).contains(&arrived), "{arrived}");
}

#[test]
fn large_packets_vanish_in_a_black_hole() {
    let Some(pair) = pair() else { return };
    pair.bed.set(0, 1, Wire { largest: Some(1280), ..Wire::default() });
    assert_eq!(pair.arrive(10, 1280 - 28), 10, "an IP and a UDP header take 28 bytes");
    assert_eq!(pair.arrive(10, 1281 - 28), 0);
}

#[test]
fn a_cut_stops_what_is_under_way_and_heals() {
    let Some(pair) = pair() else { return };
    let [a, b] = &pair.sockets;
    pair.bed.set_all(Wire { delay: Duration::from_millis(50), ..Wire::default() });
    for (from, to, socket) in [(0, 1, a), (1, 0, b)] {
        socket.send(&[1]).unwrap();
        pair.bed.cut(0, 1);
        socket.send(&[2]).unwrap();
        pair.routed(from);
        assert_eq!(pair.waiting(to), 0);
        pair.bed.heal(1, 0);
        pair.round_trip(3);
    }
    pair.bed.cut_one_way(1, 0);
    b.send(&[4]).unwrap();
    a.send(&[5]).unwrap();
    assert_eq!(b.recv(&mut [0; 4]).unwrap(), 1, "the other way is whole");
    pair.routed(1);
    assert_eq!(pair.waiting(0), 0);
    pair.bed.heal_all();
    pair.round_trip(6);
    pair.bed.isolate(1);
    a.send(&[7]).unwrap();
    pair.routed(0);
    pair.bed.heal_all();
    pair.round_trip(8);
}

#[test]
fn a_dead_port_is_told_by_its_own_kernel() {
    let Some(pair) = pair() else { return };
    let Pair { bed: _bed, sockets: [a, b], .. } = pair;
    drop(b);
    a.send(&[1]).unwrap();
    assert_eq!(a.recv(&mut [0; 4]).unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn processes_and_tasks_live_in_their_host() {
    let Some(pair) = pair() else { return };
    let host = pair.bed.host(1);
    let child = host.enter(|| std::process::Command::new("cat").arg("/proc/net/fib_trie").output());
    let sees = String::from_utf8(child.unwrap().stdout).unwrap();
    assert!(
        sees.contains("10.77.0.2") && sees.contains("127.0.0.1") && !sees.contains("10.77.0.1"),
        "{sees}"
    );
    let (address, runtime) = (host.address(), tokio::runtime::Builder::new_current_thread().build().unwrap());
    let bound = host.spawn(async move { tokio::net::UdpSocket::bind((address, 0)).await?.local_addr() });
    assert_eq!(runtime.block_on(bound).unwrap().unwrap().ip(), address);
    assert!(UdpSocket::bind(SocketAddr::from((address, 0))).is_err(), "nothing of it is outside");
}

/// `cargo test --release --lib testbed -- --ignored --nocapture`
#[test]
#[ignore = "a measurement: it says how fast this machine is"]
fn packets_a_second() {
    const BYTES: usize = 1400;
    let Some(Pair { bed: _bed, sockets: [a, b], .. }) = pair() else { return };
    let start = Instant::now();
    let sender = std::thread::spawn(move || {
        while start.elapsed() < Duration::from_secs(1) {
            a.send(&[0; BYTES]).unwrap();
        }
    });
    b.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let arrived = (0..).take_while(|_| b.recv(&mut [0; BYTES]).is_ok()).count();
    sender.join().unwrap();
    println!("{} MB/s in packets of {BYTES} bytes", arrived * BYTES / 1_000_000);
    assert!(arrived > 0);
}
