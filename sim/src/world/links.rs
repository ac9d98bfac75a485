//! Connections: how they come up, carry packets, and end.

use super::World;
use crate::conn::{Conn, Packet, Side, Stage, link_id, of_link};
use crate::happening::Happening;
use crate::network::{NodeIndex, Way};
use hopline_proto::codec;
use hopline_proto::endpoint::IDLE_INTERVAL;
use hopline_proto::frame::Datagram;
use hopline_proto::machine::{Event, LinkId};
use hopline_proto::{NodeId, Time};
use std::time::Duration;

/// How long a dial may take.
const DIAL_TIMEOUT: Duration = Duration::from_secs(3);
/// When a dial that met nobody is repeated.
const DIAL_AGAIN: Duration = Duration::from_millis(300);
/// Bytes of a heartbeat on the wire, and of whatever has no frame of its own.
const SMALL_BYTES: usize = 60;
/// What a peer takes at most to find the way open again after it was cut: QUIC's probes come ever more rarely.
const LONGEST_PROBE_MS: u64 = 1000;

impl World {
    pub(super) fn conn(&self, conn: u32) -> Option<&Conn> {
        self.conns.get(conn as usize)?.as_deref()
    }

    pub(super) fn conn_mut(&mut self, conn: u32) -> Option<&mut Conn> {
        self.conns.get_mut(conn as usize)?.as_deref_mut()
    }

    // ---- coming up ----

    pub(super) fn connect(&mut self, from: NodeIndex, peer: NodeId) {
        let (life, deadline) = (self.nodes.at(from).life, self.now + DIAL_TIMEOUT);
        match self.index.get(&peer).copied() {
            Some(to) => {
                let delay = self.network.travel(from, to, &mut self.dice);
                self.schedule(self.now + delay, Happening::Dial { from, life, to, deadline });
            }
            None => self.schedule(deadline, Happening::DialFailed { node: from, life, peer }),
        }
    }

    /// The first packet of a handshake would arrive now.
    pub(super) fn dial(&mut self, from: NodeIndex, life: u32, to: NodeIndex, deadline: Time) {
        let there = self.nodes.at(to);
        let peer = there.id;
        let meets = there.is_alive() && !there.frozen;
        let open = self.network.way(from, to) == Way::Open && self.network.way(to, from) == Way::Open;
        if self.nodes.at(from).life != life {
            return;
        }
        if !meets || !open || self.network.is_lost(&mut self.dice) {
            // In large runs whoever is dead stays so for longer than a dial takes.
            let again = if self.is_full() { self.now + DIAL_AGAIN } else { deadline };
            let happening = if again < deadline {
                Happening::Dial { from, life, to, deadline }
            } else {
                Happening::DialFailed { node: from, life, peer }
            };
            return self.schedule(again.min(deadline), happening);
        }
        let conn = u32::try_from(self.conns.len()).expect("fewer than 2^31 connections");
        self.conns.push(Some(Box::new(Conn::new(from, to, self.now))));
        self.nodes.at_mut(from).conns.push(conn);
        self.nodes.at_mut(to).conns.push(conn);
        self.statistics.connections += 1;
        // Each end waits for the other's hello: one round trip for the acceptor from now, half of one more for the dialer.
        let leg = self.network.delay(from, to);
        self.schedule(self.now + leg * 2, Happening::Up { conn, side: 1 });
        self.schedule(self.now + leg * 3, Happening::Up { conn, side: 0 });
    }

    /// The handshake is over at one end.
    pub(super) fn up(&mut self, conn: u32, side: Side) {
        let (now, idle) = (self.now, self.settings.idle_timeout);
        let Some(this) = self.conn_mut(conn) else { return };
        let other = this.end(1 - side).node;
        let (other_stage, end) = (this.end(1 - side).stage, this.end_mut(side));
        if end.stage != Stage::Pending {
            return;
        }
        (end.stage, end.heard) = (Stage::Up, now);
        let (node, early) = (end.node, std::mem::take(&mut end.early));
        let (peer, boot) = (self.nodes.at(other).id, self.nodes.at(other).boot);
        let link = link_id(conn, side);
        if self.is_full() {
            self.schedule(now + idle, Happening::Idle { conn, side });
        }
        let rtt = self.network.delay(node, other) * 2;
        self.tell(node, Event::LinkUp { link, peer, boot, dialed: side == 0, rtt });
        for packet in early {
            self.receive(conn, side, packet);
        }
        if !self.is_full() && other_stage == Stage::Gone {
            self.notice_later(conn, side);
        }
    }

    // ---- packets ----

    pub(super) fn send(&mut self, link: LinkId, packet: Packet) {
        let (conn, side) = of_link(link);
        if self.conn(conn).is_some_and(|conn| conn.end(side).stage != Stage::Gone) {
            self.transmit(conn, side, packet, Duration::ZERO);
        }
    }

    pub(super) fn transmit(&mut self, conn: u32, side: Side, packet: Packet, late: Duration) {
        let Some(this) = self.conn(conn) else { return };
        let (from, to) = (this.end(side).node, this.end(1 - side).node);
        let is_datagram = matches!(packet, Packet::Heartbeat(_));
        match self.network.way(from, to) {
            Way::Open => {}
            Way::Cut if is_datagram => return,
            Way::Cut | Way::Held => {
                if let Some(this) = self.conn_mut(conn) {
                    this.end_mut(side).stalled.push(packet);
                    self.stalled.insert((conn, side));
                }
                return;
            }
        }
        if is_datagram && self.network.is_lost(&mut self.dice) {
            return;
        }
        let bytes = self.measure(from, &packet);
        let mut delay = self.network.travel(from, to, &mut self.dice) + late;
        if !is_datagram {
            delay += self.network.retransmissions(from, to, &mut self.dice);
        }
        let (busy, now) = (self.network.transmission(bytes), self.now);
        let Some(this) = self.conn_mut(conn) else { return };
        let at = arrival(this, side, &packet, (now, busy, delay));
        self.schedule(at, Happening::Packet { conn, side: 1 - side, packet });
    }

    /// How large a packet is; what it costs besides payload is counted.
    fn measure(&mut self, from: NodeIndex, packet: &Packet) -> usize {
        let frame = |bytes: Vec<u8>| bytes.len() + codec::PREFIX_BYTES;
        let control = match packet {
            Packet::Bytes(_, bytes) => return bytes.len(),
            Packet::Heartbeat(_) | Packet::Credit(_) | Packet::Close(..) | Packet::End(_) | Packet::Shut => {
                return SMALL_BYTES;
            }
            Packet::Control(_) | Packet::Open(_) | Packet::Answer(..) if !self.is_full() => {
                self.statistics.sampled_size(packet) + codec::PREFIX_BYTES
            }
            Packet::Control(control) => frame(codec::to_bytes(control)),
            Packet::Open(attach) => frame(codec::to_bytes(attach)),
            Packet::Answer(_, answer) => frame(codec::to_bytes(answer)),
        };
        self.statistics.control(self.nodes.at(from).is_relay(), control, packet);
        control
    }

    /// A packet arrives at an end.
    pub(super) fn receive(&mut self, conn: u32, side: Side, packet: Packet) {
        let now = self.now;
        let Some(this) = self.conn_mut(conn) else { return };
        let end = this.end_mut(side);
        match end.stage {
            Stage::Pending => return end.early.push(packet),
            Stage::Gone => {
                // A stateless reset.
                if !matches!(packet, Packet::Shut) {
                    self.shut(conn, side);
                }
                return;
            }
            Stage::Up => end.heard = now,
        }
        let node = end.node;
        let link = link_id(conn, side);
        if self.is_full() {
            self.hash_packet(&packet);
        }
        match packet {
            Packet::Heartbeat(heartbeat) => self.tell(node, Event::Heartbeat { link, heartbeat }),
            Packet::Control(control) => {
                let control = if self.is_full() {
                    // What does not survive its own encoding must not pass here either.
                    codec::from_bytes(&codec::to_bytes(&control)).expect("control messages decode")
                } else {
                    control
                };
                self.tell(node, Event::Control { link, control });
            }
            Packet::Shut => self.lose(conn, side),
            Packet::Open(attach) => self.leg_offered(conn, side, attach),
            Packet::Answer(number, answer) => self.leg_answered(conn, side, number, answer),
            Packet::Bytes(number, bytes) => self.bytes_came(conn, side, number, bytes),
            Packet::Credit(number) => self.credit_came(conn, side, number),
            Packet::Close(number, code) => self.leg_closed(conn, side, number, code),
            Packet::End(number) => self.leg_ended(conn, side, number),
        }
    }

    fn hash_packet(&mut self, packet: &Packet) {
        let bytes = match packet {
            Packet::Heartbeat(heartbeat) => Datagram::of_heartbeat(heartbeat),
            Packet::Control(control) => codec::to_bytes(control),
            Packet::Open(attach) => codec::to_bytes(attach),
            Packet::Answer(number, answer) => codec::to_bytes(&(number, answer)),
            Packet::Bytes(number, bytes) => {
                self.hash.word((*number).into());
                return self.hash.bytes(bytes);
            }
            Packet::Close(number, code) => codec::to_bytes(&(number, code)),
            Packet::Credit(number) | Packet::End(number) => codec::to_bytes(number),
            Packet::Shut => Vec::new(),
        };
        self.hash.bytes(&bytes);
    }

    /// Ways that were closed may be open again: what waited leaves, late by what the sender's probes take.
    pub(crate) fn unstall(&mut self) {
        let stalled: Vec<(u32, Side)> = self.stalled.iter().copied().collect();
        for (conn, side) in stalled {
            let Some(this) = self.conn(conn) else {
                self.stalled.remove(&(conn, side));
                continue;
            };
            let (from, to) = (this.end(side).node, this.end(1 - side).node);
            if self.network.way(from, to) != Way::Open {
                continue;
            }
            self.stalled.remove(&(conn, side));
            let late = self.dice.millis(0, LONGEST_PROBE_MS);
            let packets = self.conn_mut(conn).map(|this| std::mem::take(&mut this.end_mut(side).stalled));
            for packet in packets.into_iter().flatten() {
                self.transmit(conn, side, packet, late);
            }
        }
    }

    /// A packet came for a process that is no more: its sender may hear of that.
    pub(super) fn refuse(&mut self, conn: u32, side: Side) {
        let Some(this) = self.conn(conn).filter(|_| self.network.weather.refusals) else { return };
        let (here, there) = (this.end(side).node, this.end(1 - side).node);
        if self.network.way(here, there) == Way::Open && !self.network.is_lost(&mut self.dice) {
            let at = self.now + self.network.travel(here, there, &mut self.dice);
            self.schedule(at, Happening::Refused { conn, side: 1 - side });
        }
    }

    pub(super) fn refused(&mut self, conn: u32, side: Side) {
        let node = self.conn(conn).map(|this| this.end(side)).filter(|end| end.stage == Stage::Up);
        if let Some(node) = node.map(|end| end.node) {
            self.tell(node, Event::LinkRefused { link: link_id(conn, side) });
        }
    }

    // ---- ending ----

    pub(super) fn disconnect(&mut self, link: LinkId) {
        let (conn, side) = of_link(link);
        if self.detach(conn, side) {
            self.immediate.push_back(Event::LinkDown { link });
            self.shut(conn, side);
        }
    }

    /// The peer, or this end's own timer, says that the connection is no more.
    pub(super) fn lose(&mut self, conn: u32, side: Side) {
        let node = self.conn(conn).map(|conn| conn.end(side).node);
        if self.detach(conn, side)
            && let Some(node) = node
        {
            self.tell(node, Event::LinkDown { link: link_id(conn, side) });
        }
    }

    /// Takes an end away from its node. `false` if it was gone.
    pub(super) fn detach(&mut self, conn: u32, side: Side) -> bool {
        let Some(this) = self.conn_mut(conn) else { return false };
        let end = this.end_mut(side);
        if std::mem::replace(&mut end.stage, Stage::Gone) == Stage::Gone {
            return false;
        }
        let node = end.node;
        end.stalled.clear();
        end.early.clear();
        for leg in &mut this.legs {
            *leg.end_mut(side) = crate::conn::LegEnd { closed: true, ..Default::default() };
        }
        if this.is_gone() {
            self.conns.get_mut(conn as usize).into_iter().for_each(|place| *place = None);
        }
        let conns = &mut self.nodes.at_mut(node).conns;
        if let Some(place) = conns.iter().position(|one| *one == conn) {
            conns.swap_remove(place);
        }
        true
    }

    /// An end that is gone says so, once: whoever misses it may send again, and be told again.
    fn shut(&mut self, conn: u32, side: Side) {
        let Some(this) = self.conn(conn).filter(|this| this.end(1 - side).stage != Stage::Gone) else {
            return;
        };
        let (from, to) = (this.end(side).node, this.end(1 - side).node);
        if self.network.way(from, to) == Way::Open && !self.network.is_lost(&mut self.dice) {
            let at = self.now + self.network.travel(from, to, &mut self.dice);
            self.schedule(at, Happening::Packet { conn, side: 1 - side, packet: Packet::Shut });
        } else if !self.is_full() {
            self.notice_later(conn, 1 - side);
        }
    }

    pub(super) fn idle(&mut self, conn: u32, side: Side) {
        let timeout = self.settings.idle_timeout;
        let Some(this) = self.conn(conn).filter(|this| this.end(side).stage == Stage::Up) else { return };
        let due = this.end(side).heard + timeout;
        if due <= self.now {
            self.lose(conn, side);
        } else {
            self.schedule(due, Happening::Idle { conn, side });
        }
    }

    /// With [`Fidelity::Lean`](crate::settings::Fidelity::Lean): the end's node will find out that the other end is gone.
    pub(super) fn notice_later(&mut self, conn: u32, side: Side) {
        let Some(this) = self.conn(conn) else { return };
        let (here, there) = (this.end(side).node, this.end(1 - side).node);
        let (delay, busy) = (self.network.delay(here, there), !this.legs.is_empty());
        let mut config = self.settings.flows.links.detector;
        if !self.nodes.at(here).is_relay() {
            config.idle = config.idle.min(IDLE_INTERVAL);
        }
        let after = self.detection.draw(config, delay, busy);
        if busy {
            self.statistics.noticed.saturating_record(u64::try_from(after.as_micros()).unwrap_or(u64::MAX));
        }
        self.schedule(self.now + after, Happening::Packet { conn, side, packet: Packet::Shut });
    }
}

/// When a packet arrives that leaves now: streams keep their own order, and bytes wait while the connection is busy with
/// others. Headers do not: streams take turns.
fn arrival(
    conn: &mut Conn,
    side: Side,
    packet: &Packet,
    (now, busy, delay): (Time, Duration, Duration),
) -> Time {
    let at = now + delay;
    let (number, at) = match packet {
        Packet::Heartbeat(_) | Packet::Shut | Packet::Close(..) => return at,
        Packet::Control(_) => {
            let end = conn.end_mut(side);
            end.control_at = end.control_at.max(at);
            return end.control_at;
        }
        Packet::Open(attach) => (attach.leg, at),
        Packet::Answer(number, _) | Packet::Credit(number) | Packet::End(number) => (*number, at),
        Packet::Bytes(number, _) => {
            let end = conn.end_mut(side);
            end.free_at = end.free_at.max(now) + busy;
            (*number, end.free_at + delay)
        }
    };
    let Some(leg) = conn.leg_end(number, side) else { return at };
    leg.sent_at = leg.sent_at.max(at);
    leg.sent_at
}
