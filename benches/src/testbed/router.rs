//! The thread that hands packets from host to host.
//!
//! A packet whose time has come goes on at once, without a copy; others wait, [`MAX_WAITING_BYTES`] in all, beyond which
//! what comes is lost. What is for nobody (a host's IPv6 solicitations, for one) is lost too.

use super::host::number;
use super::wires::Wires;
use hopline::net::clock::Clock;
use hopline_proto::time::Time;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::process::setpriority_process;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use tun_rs::SyncDevice;

/// Packets that may be under way: a second of 64 MiB/s.
const MAX_WAITING_BYTES: usize = 64 << 20;
/// Packets that are read from one host before it is another's turn.
const BATCH: usize = 64;
/// More than any packet of a host.
const PACKET_BYTES: usize = 2048;
/// Before everything else, if this process may say so: a network does not slow down because hosts are busy.
const NICENESS: i32 = -20;

/// The router's handle. Dropping it ends the thread, and with it the hosts' devices.
#[derive(Debug)]
pub(super) struct Router {
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Router {
    pub(super) fn start(devices: Vec<Arc<SyncDevice>>, wires: Arc<Mutex<Wires>>) -> io::Result<Self> {
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?);
        let stopped = stop.clone();
        let forwarder = Forwarder { devices, wires, waiting: Waiting::default(), clock: Clock::start() };
        let thread = std::thread::Builder::new().name("testbed-router".to_owned()).spawn(move || {
            let _ = setpriority_process(None, NICENESS);
            forwarder.run(&stopped);
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        let told = rustix::io::write(&*self.stop, &1u64.to_ne_bytes()).is_ok();
        if let Some(thread) = self.thread.take().filter(|_| told) {
            let _ = thread.join();
        }
    }
}

struct Forwarder {
    devices: Vec<Arc<SyncDevice>>,
    wires: Arc<Mutex<Wires>>,
    waiting: Waiting,
    clock: Clock,
}

impl Forwarder {
    fn run(mut self, stop: &OwnedFd) {
        let mut buffer = [0; PACKET_BYTES];
        loop {
            self.deliver();
            let Some(ready) = self.ready(stop) else { return };
            for from in ready {
                self.forward(from, &mut buffer);
                self.deliver();
            }
        }
    }

    /// Waits until a host has sent something or a packet's time has come: who has. `None` if it is over.
    fn ready(&self, stop: &OwnedFd) -> Option<Vec<usize>> {
        let timeout = self.waiting.due().map(|due| due.since(self.clock.now()));
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let ends = self.devices.iter().map(|device| PollFd::new(&**device, PollFlags::IN));
        let mut ends: Vec<PollFd<'_>> = ends.chain([PollFd::new(stop, PollFlags::IN)]).collect();
        match poll(&mut ends, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => {
                tracing::error!(%error, "the testbed's router can't go on");
                return None;
            }
        }
        let ready = ends.iter().enumerate().filter(|(_, end)| !end.revents().is_empty());
        let ready: Vec<usize> = ready.map(|(place, _)| place).collect();
        (ready.last() != Some(&self.devices.len())).then_some(ready)
    }

    /// Takes what a host has sent.
    fn forward(&mut self, from: usize, buffer: &mut [u8]) {
        let Self { devices, wires, waiting, clock } = self;
        let Some(device) = devices.get(from) else { return };
        let mut wires = wires.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..BATCH {
            let Ok(packet) = device.recv(buffer).map(|bytes| buffer.get(..bytes).unwrap_or_default()) else {
                return;
            };
            let Some((to, receiver)) = destination(packet).and_then(|to| Some((to, devices.get(to)?))) else {
                continue;
            };
            let now = clock.now();
            match wires.admit(from, to, packet.len(), now) {
                Some(due) if due > now => waiting.push(due, from, to, packet),
                // A host that can't take it loses it.
                Some(_) => drop(receiver.send(packet)),
                None => {}
            }
        }
    }

    /// Gives hosts the packets whose time has come.
    fn deliver(&mut self) {
        if self.waiting.due().is_none() {
            return;
        }
        let wires = self.wires.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(packet) = self.waiting.pop(self.clock.now()) {
            if let Some(device) =
                self.devices.get(packet.to).filter(|_| wires.is_whole(packet.from, packet.to))
            {
                let _ = device.send(&packet.bytes);
            }
        }
    }
}

/// Whom a packet is for.
fn destination(packet: &[u8]) -> Option<usize> {
    let address = match packet.first()? >> 4 {
        4 => IpAddr::from(*packet.get(16..20)?.first_chunk::<4>()?),
        6 => IpAddr::from(*packet.get(24..40)?.first_chunk::<16>()?),
        _ => return None,
    };
    number(address)
}

/// Packets under way.
#[derive(Debug, Default)]
struct Waiting {
    packets: BinaryHeap<Reverse<Packet>>,
    bytes: usize,
    sequence: u64,
}

/// The order is that of arrival.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Packet {
    due: Time,
    sequence: u64,
    from: usize,
    to: usize,
    bytes: Vec<u8>,
}

impl Waiting {
    fn due(&self) -> Option<Time> {
        self.packets.peek().map(|Reverse(packet)| packet.due)
    }

    fn push(&mut self, due: Time, from: usize, to: usize, bytes: &[u8]) {
        if self.bytes + bytes.len() > MAX_WAITING_BYTES {
            return;
        }
        self.bytes += bytes.len();
        self.sequence += 1;
        let packet = Packet { due, sequence: self.sequence, from, to, bytes: bytes.to_vec() };
        self.packets.push(Reverse(packet));
    }

    fn pop(&mut self, now: Time) -> Option<Packet> {
        self.due().filter(|due| *due <= now)?;
        let Reverse(packet) = self.packets.pop()?;
        self.bytes -= packet.bytes.len();
        Some(packet)
    }
}
