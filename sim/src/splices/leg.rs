//! A leg as the network sees it: what is under way on it, and who has dropped it.
//!
//! Each way has a stream of data and, independent of it, control messages: either may be late, and a reset overtakes
//! the bytes before it. Everything is in order within its queue.

use crate::dice::Dice;
use bytes::Bytes;
use hopline_proto::Epoch;
use hopline_proto::frame::{AttachOk, CloseCode, Opening};
use hopline_proto::splice::LegId;
use std::collections::VecDeque;

/// What a stream carries.
#[derive(Debug)]
pub(super) enum Packet {
    Attach(Opening),
    Answer(AttachOk),
    Bytes(Bytes),
    /// The stream ends without a code, as when a dying process drops it.
    End,
}

/// What a link's control stream carries for a leg.
#[derive(Debug)]
pub(super) enum Message {
    Ack(u64),
    Fin(u64),
    Close(CloseCode, Epoch),
}

/// One way of a leg.
#[derive(Default)]
pub(super) struct Way {
    pub(super) data: VecDeque<Packet>,
    pub(super) control: VecDeque<Message>,
    /// The sender has reset the stream.
    pub(super) reset: Option<CloseCode>,
    /// Until when the data (and the reset) and the control messages are held up.
    pub(super) data_late: usize,
    pub(super) control_late: usize,
}

impl Way {
    /// Bytes written and not yet read.
    pub(super) fn in_flight(&self) -> usize {
        self.data.iter().map(|packet| if let Packet::Bytes(bytes) = packet { bytes.len() } else { 0 }).sum()
    }
}

/// The dialer's end of a leg, and its way from there.
pub(super) const DIALER: usize = 0;
/// The acceptor's.
pub(super) const ACCEPTOR: usize = 1;

/// A leg between two nodes.
pub(super) struct Leg {
    /// The dialer and the acceptor.
    pub(super) ends: [usize; 2],
    /// From the dialer, from the acceptor.
    pub(super) ways: [Way; 2],
    /// Which ends have dropped it: they read nothing more.
    pub(super) dropped: [bool; 2],
    /// The link is gone: nothing more gets in, and each end will be told some time.
    pub(super) cut: bool,
    /// When it was dialled.
    pub(super) since: usize,
    /// Whether the dialer has seen the answer, and was not told then that there is no path.
    pub(super) useful: bool,
    /// What the dialer said.
    pub(super) opening: Opening,
}

impl Leg {
    /// A leg on which `dialer` says `opening`; what travels on it may be late, each kind until one of these times.
    pub(super) fn new(ends: [usize; 2], opening: Opening, since: usize, late: [[usize; 2]; 2]) -> Self {
        let ways = late.map(|[data_late, control_late]| Way { data_late, control_late, ..Way::default() });
        let mut leg = Self {
            ends,
            ways,
            dropped: [false; 2],
            cut: false,
            since,
            useful: false,
            opening: opening.clone(),
        };
        leg.send(ends[DIALER], Packet::Attach(opening));
        leg
    }

    /// Which end `node` is.
    pub(super) const fn end_of(&self, node: usize) -> usize {
        if self.ends[DIALER] == node { DIALER } else { ACCEPTOR }
    }

    pub(super) const fn is_dropped_by(&self, node: usize) -> bool {
        self.dropped[self.end_of(node)]
    }

    /// The way that leads to `node`.
    pub(super) const fn inward(&mut self, node: usize) -> &mut Way {
        &mut self.ways[1 - self.end_of(node)]
    }

    const fn outward(&mut self, node: usize) -> &mut Way {
        &mut self.ways[self.end_of(node)]
    }

    /// `node` sends; on a cut leg that gets nowhere.
    pub(super) fn send(&mut self, node: usize, packet: Packet) {
        if !self.cut {
            self.outward(node).data.push_back(packet);
        }
    }

    pub(super) fn tell(&mut self, node: usize, message: Message) {
        if !self.cut {
            self.outward(node).control.push_back(message);
        }
    }

    /// `node` reads nothing more.
    pub(super) fn drop_by(&mut self, node: usize) {
        self.dropped[self.end_of(node)] = true;
        let way = self.inward(node);
        *way = Way { data_late: way.data_late, control_late: way.control_late, ..Way::default() };
    }

    /// `node` resets its stream, or ends it without a code: of the bytes before, any number may still be read.
    pub(super) fn end(&mut self, node: usize, code: Option<CloseCode>, dice: &mut Dice) {
        if !self.cut && !self.is_dropped_by(node) {
            let way = self.outward(node);
            if code.is_none() || dice.one_in(2) {
                way.data.truncate(dice.place(6));
            }
            match code {
                Some(_) => way.reset = code,
                None => way.data.push_back(Packet::End),
            }
        }
        self.drop_by(node);
    }

    /// The link is lost, and some of what was under way.
    pub(super) fn cut(&mut self, dice: &mut Dice) {
        self.cut = true;
        for way in &mut self.ways {
            way.data.truncate(dice.place(6));
            way.control.truncate(dice.place(3));
            way.reset = way.reset.filter(|_| dice.one_in(2));
        }
    }
}

/// The leg with this index, as its nodes call it.
pub(super) const fn id(leg: usize) -> LegId {
    LegId(leg as u64)
}

/// The index of a leg.
pub(super) fn index(leg: LegId) -> usize {
    usize::try_from(leg.0).expect("made from an index")
}
