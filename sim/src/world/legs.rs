//! Legs: their streams, and the bytes between those and the lanes.

use super::World;
use crate::conn::{Conn, Leg, LegEnd, Packet, Side, Stage, link_id, of_link};
use crate::happening::Happening;
use crate::network::NodeIndex;
use bytes::Bytes;
use hopline_proto::flows::FlowKey;
use hopline_proto::frame::{Attach, AttachOk, CloseCode, Control};
use hopline_proto::machine::{Event, LinkId, Machine};
use hopline_proto::splice::LegId;
use std::time::Duration;

/// Largest piece of a stream that travels as one.
const MAX_PIECE_BYTES: usize = 16 << 10;
/// Chunks that are written at once.
const CHUNKS: usize = 16;
/// How far a connection is written ahead of what it can carry.
const SEND_BUFFER: Duration = Duration::from_millis(40);
/// How long a leg waits at least for another one's turn.
const TURN: Duration = Duration::from_millis(1);

impl World {
    // ---- a node's actions ----

    pub(super) fn open_leg(&mut self, leg: LegId, flow: FlowKey, attach: Box<Attach>) {
        let (conn, side) = of_link(leg.link());
        let Some(this) = self.conn_mut(conn).filter(|this| this.end(side).stage == Stage::Up) else {
            return self.immediate.push_back(Event::LegEnded { leg });
        };
        let mut fresh = Leg { number: leg.number(), ends: Default::default() };
        *fresh.end_mut(side) = LegEnd { open: true, flow: Some(flow), ..Default::default() };
        this.legs.push(fresh);
        let is_half_dead = this.end(1 - side).stage == Stage::Gone;
        self.send(leg.link(), Packet::Open(attach));
        if is_half_dead && !self.is_full() {
            // An idle link's detector takes its time, a busy one's does not.
            self.notice_later(conn, side);
        }
    }

    pub(super) fn answer_leg(&mut self, leg: LegId, flow: FlowKey, answer: AttachOk) {
        let (conn, side) = of_link(leg.link());
        let Some(this) = self.conn_mut(conn) else { return };
        if let Some(end) = this.leg_end(leg.number(), side).filter(|end| end.open) {
            (end.flow, end.answered) = (Some(flow), true);
            self.send(leg.link(), Packet::Answer(leg.number(), answer));
        }
    }

    pub(super) fn close_leg(&mut self, leg: LegId, code: CloseCode) {
        let (conn, side) = of_link(leg.link());
        let Some(this) = self.conn_mut(conn) else { return };
        let Some(end) = this.leg_end(leg.number(), side).filter(|end| !end.closed) else { return };
        // What waits to be sent still comes after what is under way.
        *end = LegEnd { closed: true, sent_at: end.sent_at, ..Default::default() };
        self.send(leg.link(), Packet::Close(leg.number(), code));
    }

    /// Law 3: acks for a leg are sent only after its answer; before, they could come to somebody who does not know it.
    pub(super) fn check_acks(&mut self, link: LinkId, control: &Control) {
        let Control::Acks(acks) = control else { return };
        let (conn, side) = of_link(link);
        let is_early = |this: &mut Conn, number: u32| {
            this.leg_end(number, side).is_some_and(|end| end.open && !end.answered)
        };
        let early = self.conn_mut(conn).and_then(|this| acks.iter().find(|(leg, _)| is_early(this, *leg)));
        if let Some((leg, offset)) = early {
            let (now, what) =
                (self.now, format!("an ack of {offset} for leg {leg} of {link:?} before its answer"));
            self.checks.fail("acks", now, what);
        }
    }

    // ---- what arrives ----

    pub(super) fn leg_offered(&mut self, conn: u32, side: Side, attach: Box<Attach>) {
        let link = link_id(conn, side);
        let Some(this) = self.conn_mut(conn) else { return };
        let node = this.end(side).node;
        // The dialer may have closed it by now, and that have come first.
        let Some(end) = this.leg_end(attach.leg, side).filter(|end| !end.closed && !end.open) else { return };
        end.open = true;
        let dialer = this.end(1 - side).node;
        if self.trace.is_on() {
            let (me, dialer) = (self.nodes.at(node).id, self.nodes.at(dialer).id);
            self.trace.attach(self.now, me, dialer, &attach);
        }
        self.checks.offered(LegId::new(link, attach.leg), &attach);
        self.tell(node, Event::Attach { link, attach });
    }

    pub(super) fn leg_answered(&mut self, conn: u32, side: Side, number: u32, answer: AttachOk) {
        let Some(node) = self.leg_at(conn, side, number) else { return };
        let end = self.conn_mut(conn).and_then(|this| this.leg_end(number, side));
        end.into_iter().for_each(|end| end.answered = true);
        let leg = LegId::new(link_id(conn, side), number);
        self.tell(node, Event::Answered { leg, answer });
    }

    /// The node at that end of a leg, if the stream is open there.
    fn leg_at(&mut self, conn: u32, side: Side, number: u32) -> Option<NodeIndex> {
        let this = self.conn_mut(conn)?;
        this.leg_end(number, side).filter(|end| end.open)?;
        Some(this.end(side).node)
    }

    pub(super) fn bytes_came(&mut self, conn: u32, side: Side, number: u32, bytes: Bytes) {
        let Some(node) = self.leg_at(conn, side, number) else { return };
        let end = self.conn_mut(conn).and_then(|this| this.leg_end(number, side));
        end.into_iter().for_each(|end| end.waiting.push_back(bytes.clone()));
        self.take_in(node, LegId::new(link_id(conn, side), number));
    }

    pub(super) fn credit_came(&mut self, conn: u32, side: Side, number: u32) {
        let Some(node) = self.leg_at(conn, side, number) else { return };
        let end = self.conn_mut(conn).and_then(|this| this.leg_end(number, side));
        let flow = end.and_then(|end| {
            end.paced = false;
            end.flow
        });
        self.pump(node, LegId::new(link_id(conn, side), number));
        // What was written made room for whoever feeds the lane.
        self.woken.extend(flow.map(|flow| (node, flow)));
    }

    /// The peer has reset and stopped the stream: what was still on its way is lost.
    pub(super) fn leg_closed(&mut self, conn: u32, side: Side, number: u32, code: CloseCode) {
        let Some(this) = self.conn_mut(conn) else { return };
        let node = this.end(side).node;
        let Some(mut leg) = this.remove_leg(number) else { return };
        let end = leg.end_mut(side);
        if end.open {
            let leg = LegId::new(link_id(conn, side), number);
            self.tell(node, Event::LegClosed { leg, code });
        }
    }

    /// The peer's stream ends without a code.
    pub(super) fn leg_ended(&mut self, conn: u32, side: Side, number: u32) {
        if let Some(node) = self.leg_at(conn, side, number) {
            self.tell(node, Event::LegEnded { leg: LegId::new(link_id(conn, side), number) });
        }
    }

    // ---- bytes ----

    /// Moves what has arrived on a leg into its lane, as far as there is room.
    pub(super) fn take_in(&mut self, index: NodeIndex, leg: LegId) {
        let (conn, side) = of_link(leg.link());
        loop {
            let Some(end) = self.conn_mut(conn).and_then(|this| this.leg_end(leg.number(), side)) else {
                return;
            };
            let Some(flow) = end.flow.filter(|_| !end.waiting.is_empty()) else { return };
            let role = self.nodes.at_mut(index).role.as_mut();
            let may_receive = role.is_some_and(|role| role.flows().may_receive(leg));
            self.pass_on_room(index);
            if !may_receive || !self.moves(index, flow, leg, true) {
                return;
            }
            let Some(this) = self.conn_mut(conn).and_then(|this| this.leg_mut(leg.number())) else { return };
            let Some(bytes) = this.end_mut(side).waiting.pop_front() else { return };
            let sender = this.end_mut(1 - side);
            sender.outstanding = sender.outstanding.saturating_sub(bytes.len());
            let blocked = std::mem::take(&mut sender.blocked);
            self.with(index, |machine, now, actions| machine.receive(leg, [bytes], now, actions));
            self.woken.push_back((index, flow));
            if blocked {
                self.send(leg.link(), Packet::Credit(leg.number()));
            }
        }
    }

    /// Writes what is to be written to a leg, as far as its stream's window allows.
    pub(super) fn pump(&mut self, index: NodeIndex, leg: LegId) {
        let (conn, side) = of_link(leg.link());
        let window = self.settings.stream_window;
        let mut chunks: [Bytes; CHUNKS] = Default::default();
        loop {
            let Some(role) = &mut self.nodes.at_mut(index).role else { return };
            let count = role.flows().to_write(leg, &mut chunks);
            let Some(end) = self.conn_mut(conn).and_then(|this| this.leg_end(leg.number(), side)) else {
                return;
            };
            let (is_open, flow) = (end.open, end.flow);
            if count == 0 || !is_open || flow.is_some_and(|flow| !self.moves(index, flow, leg, false)) {
                return;
            }
            for chunk in chunks.iter_mut().take(count).map(std::mem::take) {
                if !self.write(index, leg, chunk, window) {
                    return;
                }
            }
        }
    }

    /// Writes a chunk; `false` once the window is full.
    fn write(&mut self, index: NodeIndex, leg: LegId, mut chunk: Bytes, window: usize) -> bool {
        let (conn, side) = of_link(leg.link());
        let most = self.network.piece_bytes(MAX_PIECE_BYTES);
        while !chunk.is_empty() {
            if !self.may_write(conn, side, leg.number()) {
                return false;
            }
            let Some(end) = self.conn_mut(conn).and_then(|this| this.leg_end(leg.number(), side)) else {
                return false;
            };
            let room = window.saturating_sub(end.outstanding);
            if room == 0 {
                end.blocked = true;
                return false;
            }
            let piece = chunk.split_to(chunk.len().min(most).min(room));
            end.outstanding += piece.len();
            if let Some(this) = self.conn_mut(conn) {
                this.end_mut(side).last_writer = Some(leg.number());
            }
            let local = self.local(index);
            if let Some(role) = &mut self.nodes.at_mut(index).role {
                role.flows().wrote(leg, piece.len(), local);
            }
            self.pass_on_room(index);
            self.send(leg.link(), Packet::Bytes(leg.number(), piece));
        }
        true
    }

    /// Whether the connection takes more bytes of a leg now: what it can't send soon stays in the lanes, where a leg that is
    /// reset leaves nothing behind, and legs that have something take turns, as streams of a QUIC connection do. If not, the
    /// leg is looked at again in time.
    fn may_write(&mut self, conn: u32, side: Side, number: u32) -> bool {
        let now = self.now;
        let Some(this) = self.conn_mut(conn) else { return false };
        let is_turn = this.is_turn(number, side);
        let end = this.end(side);
        if end.free_at <= now || end.free_at <= now + SEND_BUFFER && is_turn {
            return true;
        }
        let at = (end.free_at - SEND_BUFFER / 2).max(now + TURN);
        if let Some(end) = this.leg_end(number, side).filter(|end| !end.paced) {
            end.paced = true;
            self.schedule(at, Happening::Packet { conn, side, packet: Packet::Credit(number) });
        }
        false
    }

    // ---- faults ----

    /// Whether a node, which may be gray, moves bytes into or out of its lanes over this leg.
    fn moves(&mut self, index: NodeIndex, flow: FlowKey, leg: LegId, inward: bool) -> bool {
        let node = self.nodes.at_mut(index);
        let (Some(gray), Some(role)) = (node.gray, node.role.as_mut()) else { return true };
        let Some(splice) = role.flows().splice(&flow) else { return true };
        let direction = if inward { splice.fed_by(leg) } else { splice.feeding(leg) };
        direction.is_none_or(|direction| gray.moves(direction, inward))
    }

    /// Whatever waits on a node's legs may move.
    pub(super) fn wake_legs(&mut self, index: NodeIndex) {
        for conn in self.nodes.at(index).conns.clone() {
            let Some(this) = self.conn_mut(conn) else { continue };
            let side = this.side_of(index);
            let flows: Vec<FlowKey> = this.legs.iter_mut().filter_map(|leg| leg.end_mut(side).flow).collect();
            self.woken.extend(flows.into_iter().map(|flow| (index, flow)));
        }
    }

    /// Every stream of a node's legs ends without a code, as when its tasks are dropped.
    pub(crate) fn end_streams(&mut self, index: NodeIndex) {
        let conns = self.nodes.at(index).conns.clone();
        for conn in conns {
            let Some(this) = self.conn(conn) else { continue };
            let side = this.side_of(index);
            let numbers: Vec<u32> = this.legs.iter().map(|leg| leg.number).collect();
            for number in numbers {
                self.transmit(conn, side, Packet::End(number), Duration::ZERO);
                let leg = LegId::new(link_id(conn, side), number);
                self.schedule(self.now, Happening::Packet { conn, side, packet: Packet::End(leg.number()) });
            }
        }
    }
}
