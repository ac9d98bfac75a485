//! QUIC connections as nodes see them: two ends, ordered streams (one for control, one for each way of a leg), datagrams.

use crate::network::NodeIndex;
use bytes::Bytes;
use hopline_proto::Time;
use hopline_proto::flows::FlowKey;
use hopline_proto::frame::{Attach, AttachOk, CloseCode, Control, Heartbeat};
use hopline_proto::machine::LinkId;
use std::collections::VecDeque;

/// One of a connection's two ends: 0 dialled, 1 was dialled.
pub(crate) type Side = usize;

/// What travels over a connection.
#[derive(Debug)]
pub(crate) enum Packet {
    Heartbeat(Heartbeat),
    Control(Control),
    Open(Box<Attach>),
    Answer(u32, AttachOk),
    Bytes(u32, Bytes),
    /// The reader has made room on a leg.
    Credit(u32),
    /// A leg's stream is reset and stopped.
    Close(u32, CloseCode),
    /// A leg's stream ends without a code.
    End(u32),
    /// The connection is closed by the peer, or unknown to it.
    Shut,
}

/// How far an end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The handshake is under way.
    Pending,
    Up,
    Gone,
}

/// One end of a connection.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) node: NodeIndex,
    pub(crate) stage: Stage,
    /// When anything last came to it.
    pub(crate) heard: Time,
    /// When the last control message that it sent arrives.
    pub(crate) control_at: Time,
    /// Until when it is busy sending.
    pub(crate) free_at: Time,
    /// The leg that wrote last.
    pub(crate) last_writer: Option<u32>,
    /// What it could not send as the way was closed.
    pub(crate) stalled: Vec<Packet>,
    /// What came before the handshake was over.
    pub(crate) early: Vec<Packet>,
}

/// One end of a leg.
#[derive(Debug, Default)]
pub(crate) struct LegEnd {
    /// Whether the node here has the stream.
    pub(crate) open: bool,
    /// Whether the acceptor's answer has left, or come.
    pub(crate) answered: bool,
    /// Whether the node here has reset it.
    pub(crate) closed: bool,
    pub(crate) flow: Option<FlowKey>,
    /// When the last of what this end sent arrives.
    pub(crate) sent_at: Time,
    /// Bytes sent from here and not yet taken in at the other end.
    pub(crate) outstanding: usize,
    /// Whether more could have been sent.
    pub(crate) blocked: bool,
    /// Whether it is to be looked at again once the connection is less busy.
    pub(crate) paced: bool,
    /// What has arrived here and waits for room.
    pub(crate) waiting: VecDeque<Bytes>,
}

/// A leg, both its ends.
#[derive(Debug)]
pub(crate) struct Leg {
    pub(crate) number: u32,
    pub(crate) ends: [LegEnd; 2],
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) ends: [End; 2],
    pub(crate) legs: Vec<Leg>,
}

impl End {
    const fn new(node: NodeIndex, now: Time) -> Self {
        Self {
            node,
            stage: Stage::Pending,
            heard: now,
            control_at: Time::ZERO,
            free_at: Time::ZERO,
            last_writer: None,
            stalled: Vec::new(),
            early: Vec::new(),
        }
    }
}

impl Conn {
    pub(crate) const fn new(dialer: NodeIndex, acceptor: NodeIndex, now: Time) -> Self {
        let ends = [End::new(dialer, now), End::new(acceptor, now)];
        Self { ends, legs: Vec::new() }
    }

    pub(crate) fn end(&self, side: Side) -> &End {
        self.ends.get(side).expect("a connection has two ends")
    }

    pub(crate) fn end_mut(&mut self, side: Side) -> &mut End {
        self.ends.get_mut(side).expect("a connection has two ends")
    }

    pub(crate) fn leg_mut(&mut self, number: u32) -> Option<&mut Leg> {
        self.legs.iter_mut().find(|leg| leg.number == number)
    }

    pub(crate) fn leg_end(&mut self, number: u32, side: Side) -> Option<&mut LegEnd> {
        self.leg_mut(number).map(|leg| leg.end_mut(side))
    }

    /// Whether a leg may write: the one that wrote last waits for others that have something.
    pub(crate) fn is_turn(&self, number: u32, side: Side) -> bool {
        let waits = |leg: &Leg| leg.number != number && leg.ends.get(side).is_some_and(|end| end.paced);
        self.end(side).last_writer != Some(number) || !self.legs.iter().any(waits)
    }

    pub(crate) fn remove_leg(&mut self, number: u32) -> Option<Leg> {
        let place = self.legs.iter().position(|leg| leg.number == number)?;
        Some(self.legs.swap_remove(place))
    }

    /// The end at that node.
    pub(crate) fn side_of(&self, node: NodeIndex) -> Side {
        usize::from(self.ends.first().is_none_or(|end| end.node != node))
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.ends.iter().all(|end| end.stage == Stage::Gone)
    }
}

impl Leg {
    pub(crate) fn end_mut(&mut self, side: Side) -> &mut LegEnd {
        self.ends.get_mut(side).expect("a leg has two ends")
    }
}

/// The number by which a node knows its end of a connection: unique in the world, so in the node's life too.
pub(crate) fn link_id(conn: u32, side: Side) -> LinkId {
    LinkId(conn << 1 | u32::from(side == 1))
}

/// Which end of which connection that is.
pub(crate) const fn of_link(link: LinkId) -> (u32, Side) {
    (link.0 >> 1, (link.0 & 1) as Side)
}
