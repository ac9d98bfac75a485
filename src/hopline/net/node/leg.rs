//! One leg: a QUIC stream whose reader fills one lane of a flow and whose writer drains the other.

use super::Node;
use crate::net::frames;
use crate::net::tasks::spawn_local;
use bytes::Bytes;
use hopline_proto::codec;
use hopline_proto::flows::FlowKey;
use hopline_proto::frame::{Attach, AttachOk, CloseCode, MAX_HEADER_BYTES};
use hopline_proto::machine::{Event, LinkId, Machine};
use hopline_proto::splice::{Direction, LegId};
use quinn::{ReadError, RecvStream, SendStream, VarInt, WriteError};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use tokio::sync::Notify;

/// Chunks that are read or written at once.
const CHUNKS: usize = 32;

/// A leg, as the actions of the machine see it.
pub(super) struct LegPort {
    closed: Cell<Option<CloseCode>>,
    close: Notify,
    /// A leg that the peer opened and the machine has not answered yet.
    offered: RefCell<Option<(SendStream, RecvStream)>>,
}

/// By this the tasks that serve one flow wake each other.
#[derive(Default)]
pub(crate) struct FlowSignal {
    data: [Notify; 2],
    room: [Notify; 2],
}

impl FlowSignal {
    /// There are bytes of `direction` to write, or its end.
    pub(crate) fn data(&self, direction: Direction) -> &Notify {
        let [forward, backward] = &self.data;
        if direction == Direction::Forward { forward } else { backward }
    }

    /// There is room for more bytes of `direction`.
    pub(crate) fn room(&self, direction: Direction) -> &Notify {
        let [forward, backward] = &self.room;
        if direction == Direction::Forward { forward } else { backward }
    }

    /// Wakes who waits for room, and who waits for bytes of a direction that has some: acks are many, and wake no writer.
    pub(super) fn wake(&self, has_more: impl Fn(Direction) -> bool) {
        self.room.iter().for_each(Notify::notify_waiters);
        let data = Direction::BOTH.into_iter().filter(|direction| has_more(*direction));
        data.for_each(|direction| self.data(direction).notify_waiters());
    }

    #[cfg(feature = "faults")]
    pub(super) fn wake_all(&self) {
        self.wake(|_| true);
    }
}

impl LegPort {
    fn new(offered: Option<(SendStream, RecvStream)>) -> Rc<Self> {
        let (closed, close) = (Cell::new(None), Notify::new());
        Rc::new(Self { closed, close, offered: RefCell::new(offered) })
    }

    /// Has the leg's tasks reset and stop its stream.
    pub(super) fn close(&self, code: CloseCode) {
        self.closed.set(Some(code));
        self.close.notify_waiters();
        // A leg that was not answered has no tasks yet that would do it.
        if let Some((sender, receiver)) = self.offered.take() {
            end(sender, receiver, code);
        }
    }

    /// Resolves when the leg was closed here, with the code to reset its stream with.
    async fn closed(&self) -> CloseCode {
        loop {
            // It may have been closed before anybody waited, and `notify_waiters` keeps nothing for later.
            if let Some(code) = self.closed.get() {
                return code;
            }
            self.close.notified().await;
        }
    }
}

fn number(code: CloseCode) -> VarInt {
    VarInt::from_u32(code.number())
}

fn end(mut sender: SendStream, mut receiver: RecvStream, code: CloseCode) {
    let _ = sender.reset(number(code));
    let _ = receiver.stop(number(code));
}

/// A leg whose header could not be read.
pub(super) fn refuse(sender: SendStream, receiver: RecvStream, link: LinkId, error: &dyn std::error::Error) {
    tracing::warn!(link = link.0, %error, "refused a leg without a valid header");
    end(sender, receiver, CloseCode::Malformed);
}

/// A leg's two directions at this node: what it brings, and what is written to it.
#[derive(Clone, Copy)]
struct Lanes {
    brings: Direction,
    takes: Direction,
}

const NEXT: Lanes = Lanes { brings: Direction::Backward, takes: Direction::Forward };
const PREV: Lanes = Lanes { brings: Direction::Forward, takes: Direction::Backward };

impl<M: Machine + 'static> Node<M> {
    /// The machine dials a leg.
    pub(super) fn open_leg(self: &Rc<Self>, leg: LegId, flow: FlowKey, attach: Attach) {
        let port = LegPort::new(None);
        self.legs.borrow_mut().insert(leg, port.clone());
        let Some(link) = self.link(leg.link()) else {
            // Not told at once, as the machine's actions are just being carried out.
            return self.events.borrow_mut().push_back(Event::LegEnded { leg });
        };
        let (node, signal) = (self.clone(), self.signal(flow));
        spawn_local(async move {
            let opened = tokio::select! {
                opened = link.connection.open_bi() => opened,
                _ = port.closed() => return,
            };
            // Only a lost connection keeps a stream from opening, and then the whole link is down.
            let Ok((sender, receiver)) = opened else { return };
            let mut header = Vec::new();
            codec::write_frame(&attach, &mut header);
            spawn_local(node.clone().read_answer(leg, receiver, port.clone(), signal.clone()));
            node.write(leg, sender, port, signal, header, NEXT.takes).await;
        });
    }

    /// The peer opened a leg: the machine answers or closes it.
    pub(super) fn offer_leg(
        self: &Rc<Self>,
        link: LinkId,
        attach: Attach,
        sender: SendStream,
        receiver: RecvStream,
    ) {
        let leg = LegId::new(link, attach.leg);
        // The number stands for another leg, whose stream must not be lost from sight.
        if self.legs.borrow().contains_key(&leg) {
            return end(sender, receiver, CloseCode::Malformed);
        }
        self.legs.borrow_mut().insert(leg, LegPort::new(Some((sender, receiver))));
        self.tell(Event::Attach { link, attach: Box::new(attach) });
    }

    pub(super) fn answer_leg(self: &Rc<Self>, leg: LegId, flow: FlowKey, answer: AttachOk) {
        let Some(port) = self.legs.borrow().get(&leg).cloned() else { return };
        let Some((sender, receiver)) = port.offered.take() else { return };
        let mut header = Vec::new();
        codec::write_frame(&answer, &mut header);
        let signal = self.signal(flow);
        spawn_local(self.clone().read(leg, receiver, port.clone(), signal.clone(), PREV.brings));
        spawn_local(self.clone().write(leg, sender, port, signal, header, PREV.takes));
    }

    async fn read_answer(
        self: Rc<Self>,
        leg: LegId,
        mut receiver: RecvStream,
        port: Rc<LegPort>,
        signal: Rc<FlowSignal>,
    ) {
        let answer = tokio::select! {
            answer = frames::read_frame::<AttachOk>(&mut receiver, MAX_HEADER_BYTES) => answer,
            code = port.closed() => return drop(receiver.stop(number(code))),
        };
        match answer {
            Ok(answer) => {
                self.tell(Event::Answered { leg, answer });
                self.read(leg, receiver, port, signal, NEXT.brings).await;
            }
            Err(frames::FrameError::Reset(code)) => self.peer_closed(leg, code),
            // That the link is down is told once, for all its legs.
            Err(frames::FrameError::ConnectionLost(_)) => {}
            Err(_) => self.tell(Event::LegEnded { leg }),
        }
    }

    /// Moves bytes from the stream into the lane, as long as there is room.
    async fn read(
        self: Rc<Self>,
        leg: LegId,
        mut receiver: RecvStream,
        port: Rc<LegPort>,
        signal: Rc<FlowSignal>,
        brings: Direction,
    ) {
        let mut chunks: [Bytes; CHUNKS] = Default::default();
        loop {
            let got = if !self.faults.is_gray() && self.flows(|flows| flows.may_receive(leg)) {
                tokio::select! {
                    got = receiver.read_chunks(&mut chunks) => got,
                    code = port.closed() => return drop(receiver.stop(number(code))),
                }
            } else {
                tokio::select! {
                    () = signal.room(brings).notified() => continue,
                    code = port.closed() => return drop(receiver.stop(number(code))),
                    // A close is noticed though nothing is read.
                    reset = receiver.received_reset() => match reset {
                        Ok(Some(code)) => Err(ReadError::Reset(code)),
                        Ok(None) => Ok(None),
                        Err(_) => return,
                    }
                }
            };
            match got {
                Ok(Some(count)) => {
                    self.counters.received(chunks.iter().take(count).map(Bytes::len).sum());
                    let taken = chunks.iter_mut().take(count).map(std::mem::take);
                    self.with(|machine, now, actions| machine.receive(leg, taken, now, actions));
                    signal.data(brings).notify_waiters();
                }
                Ok(None) => return self.tell(Event::LegEnded { leg }),
                Err(ReadError::Reset(code)) => return self.peer_closed(leg, code),
                Err(_) => return,
            }
        }
    }

    /// Moves bytes from the lane to the stream.
    async fn write(
        self: Rc<Self>,
        leg: LegId,
        mut sender: SendStream,
        port: Rc<LegPort>,
        signal: Rc<FlowSignal>,
        header: Vec<u8>,
        takes: Direction,
    ) {
        let mut chunks: [Bytes; CHUNKS] = Default::default();
        let mut header = Bytes::from(header);
        loop {
            let (slots, of_header) = match chunks.split_first_mut() {
                Some((first, rest)) if !header.is_empty() => {
                    // Law 3: raw bytes follow at once. Header and first bytes are written together.
                    *first = header.clone();
                    (1 + self.flows(|flows| flows.to_write(leg, rest)), header.len())
                }
                _ if self.faults.is_gray() => (0, 0),
                _ => (self.flows(|flows| flows.to_write(leg, &mut chunks)), 0),
            };
            let written = if slots > 0 {
                tokio::select! {
                    written = sender.write_chunks(chunks.get_mut(..slots).unwrap_or_default()) => written,
                    code = port.closed() => return drop(sender.reset(number(code))),
                }
            } else {
                tokio::select! {
                    () = signal.data(takes).notified() => continue,
                    code = port.closed() => return drop(sender.reset(number(code))),
                    // A close is noticed though nothing is written.
                    stopped = sender.stopped() => match stopped {
                        Ok(Some(code)) => Err(WriteError::Stopped(code)),
                        Ok(None) | Err(_) => return,
                    }
                }
            };
            match written {
                Ok(written) => {
                    let of_header = written.bytes.min(of_header);
                    // The stream may have taken a part of it only.
                    header = header.slice(of_header..);
                    let now = self.clock.now();
                    self.flows(|flows| flows.wrote(leg, written.bytes - of_header, now));
                    signal.room(takes).notify_waiters();
                }
                Err(WriteError::Stopped(code)) => return self.peer_closed(leg, code),
                Err(_) => return,
            }
        }
    }

    fn peer_closed(self: &Rc<Self>, leg: LegId, code: VarInt) {
        self.tell(Event::LegClosed { leg, code: CloseCode::from_number(code.into_inner()) });
    }
}
