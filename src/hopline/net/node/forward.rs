//! The forwarding plane: packets of sessions that come on the node's socket are opened, sealed for the next link, and passed on, all in
//! place and in the batches in which they came.
//!
//! It decides nothing: [`Flows::way`](hopline_proto::flows::Flows::way) says where a packet goes. It repairs nothing either: what can't be
//! passed on is dropped and counted.
//!
//! Bounds: a packet without a way is held for [`HOLD_TIME`], and [`HELD_BYTES`] of them for each link. More are dropped.

use super::Node;
use crate::net::socket::PacketTap;
use hopline_proto::flows::{FlowKey, Way};
use hopline_proto::forward::{Address, Drop};
use hopline_proto::machine::{LinkId, Machine};
use hopline_proto::splice::LegId;
use hopline_proto::time::Time;
use quinn::AsyncUdpSocket;
use quinn::udp::Transmit;
use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

/// How long a packet is held that came before its leg was known, or while the next hop is being dialled or repaired: some round trips of a
/// long link. On short ones whoever sent it has sent it again by then; the copy does no harm.
const HOLD_TIME: Duration = Duration::from_secs(1);
/// How much is held for each link, in bytes.
const HELD_BYTES: usize = 64 << 10;
/// The most that one system call sends, in bytes: what fits into an IPv4 packet.
const MAX_BATCH_BYTES: usize = 65_000;

/// Takes packets of flows that end at this node: whole batches, each packet with the room around it that its header and its seal took.
/// Returns whether it had room for them.
pub(crate) type PacketSink = Box<dyn Fn(FlowKey, &[u8], usize) -> bool>;

/// Opened packets that wait for a way.
pub(super) struct Held {
    leg: LegId,
    packets: Vec<u8>,
    stride: usize,
    until: Time,
}

impl<M: Machine + 'static> PacketTap for Node<M> {
    fn take(&self, packets: &mut [u8], stride: usize) {
        if self.faults.is_gray() {
            return;
        }
        let mut rest = packets;
        while let Some(first) = rest.chunks(stride).next() {
            let address = Address::of(first);
            let alike = rest.chunks(stride).take_while(|packet| Address::of(packet) == address);
            let length = alike.map(<[u8]>::len).sum();
            let (run, others) = rest.split_at_mut(length);
            match address {
                Ok(address) => self.take_run(address, run, stride),
                Err(cause) => self.drop_packets(cause, run, stride),
            }
            rest = others;
        }
    }
}

impl<M: Machine + 'static> Node<M> {
    /// Packets for one leg.
    fn take_run(&self, address: Address, run: &mut [u8], stride: usize) {
        let id = LinkId(address.link);
        let Some(link) = self.link(id) else { return self.drop_packets(Drop::UnknownLink, run, stride) };
        let leg = LegId::new(id, address.leg);
        // What can't be opened cuts the run in two.
        let mut opened = 0..0;
        for start in (0..run.len()).step_by(stride) {
            let end = run.len().min(start + stride);
            let packet = run.get_mut(start..end).unwrap_or_default();
            let result = link.keys.borrow_mut().open(packet);
            match result {
                Ok(()) => opened.end = end,
                Err(cause) => {
                    self.counters.packets_dropped(cause, 1);
                    self.pass_on(leg, run, opened, stride);
                    opened = end..end;
                }
            }
        }
        self.pass_on(leg, run, opened, stride);
    }

    fn pass_on(&self, leg: LegId, run: &mut [u8], opened: Range<usize>, stride: usize) {
        let packets = run.get_mut(opened).unwrap_or_default();
        if packets.is_empty() {
            return;
        }
        let now = self.clock.now();
        let way = self.flows(|flows| {
            flows.packets_came(leg, now);
            flows.way(leg)
        });
        match way {
            Way::Leg(next) => self.send_packets(next, packets, stride),
            Way::Here(flow) => self.deliver(flow, packets, stride),
            Way::Later => self.hold(leg, packets, stride, now),
        }
    }

    fn deliver(&self, flow: FlowKey, packets: &[u8], stride: usize) {
        if !(self.packets)(flow, packets, stride) {
            self.drop_packets(Drop::Congested, packets, stride);
        }
    }

    /// Seals packets, each with room for its header and its seal, and sends them over a leg.
    pub(crate) fn send_packets(&self, leg: LegId, packets: &mut [u8], stride: usize) {
        let Some(link) = self.link(leg.link()).filter(|_| !self.faults.is_gray()) else {
            return self.drop_packets(Drop::NoWay, packets, stride);
        };
        let (destination, address) = link.way(leg);
        let segments = (MAX_BATCH_BYTES / stride).clamp(1, self.socket.max_transmit_segments().max(1));
        for batch in packets.chunks_mut(segments * stride) {
            {
                let mut keys = link.keys.borrow_mut();
                batch.chunks_mut(stride).for_each(|packet| keys.seal(address, packet));
            }
            let segment_size = Some(stride).filter(|stride| batch.len() > *stride);
            let transmit = Transmit { destination, ecn: None, contents: batch, segment_size, src_ip: None };
            match self.socket.try_send(&transmit) {
                Ok(()) => self.counters.packets_passed(batch.len().div_ceil(stride), batch.len()),
                Err(_) => self.drop_packets(Drop::Congested, batch, stride),
            }
        }
        let now = self.clock.now();
        self.flows(|flows| flows.packets_went(leg, now));
    }

    fn drop_packets(&self, cause: Drop, packets: &[u8], stride: usize) {
        self.counters.packets_dropped(cause, packets.len().div_ceil(stride));
    }

    // ---- holding ----

    fn hold(&self, leg: LegId, packets: &[u8], stride: usize, now: Time) {
        let mut held = self.held.borrow_mut();
        held.retain(|held| held.until > now);
        let of_link = held.iter().filter(|held| held.leg.link() == leg.link());
        let bytes: usize = of_link.map(|held| held.packets.len()).sum();
        if bytes + packets.len() > HELD_BYTES {
            return self.drop_packets(Drop::NoWay, packets, stride);
        }
        self.counters.packets_held(packets.len().div_ceil(stride));
        held.push_back(Held { leg, packets: packets.to_vec(), stride, until: now + HOLD_TIME });
    }

    /// Sends what was held and has a way now; to be called when legs may have changed.
    pub(super) fn release(&self) {
        if self.held.borrow().is_empty() {
            return;
        }
        let (now, waiting) = (self.clock.now(), self.held.take());
        for mut held in waiting {
            match self.flows(|flows| flows.way(held.leg)) {
                Way::Leg(next) => self.send_packets(next, &mut held.packets, held.stride),
                Way::Here(flow) => self.deliver(flow, &held.packets, held.stride),
                Way::Later if held.until > now => self.held.borrow_mut().push_back(held),
                Way::Later => self.drop_packets(Drop::NoWay, &held.packets, held.stride),
            }
        }
    }
}

/// Packets that are held, in the order in which they came.
pub(super) type AllHeld = VecDeque<Held>;
