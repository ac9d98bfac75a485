//! A leg as the network sees it: what is under way on it, and who has dropped it.
//!
//! Each way has a stream of data and, independent of it, control messages: either may be late, and a reset overtakes
//! the bytes before it. Everything is in order within its queue.

use super::dice::Dice;
use crate::Epoch;
use crate::frame::{AttachOk, CloseCode, Opening};
use crate::splice::LegId;
use bytes::Bytes;
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
    Close { code: CloseCode, winner: Epoch },
}

/// One way of a leg.
#[derive(Default)]
pub(super) struct Way {
    pub(super) data: VecDeque<Packet>,
    pub(super) control: VecDeque<Message>,
    /// The sender has reset the stream.
    pub(super) reset: Option<CloseCode>,
    /// Until when the data (and the reset) and the control messages are held up.
    pub(super) data_late: u32,
    pub(super) control_late: u32,
}

impl Way {
    /// Bytes written and not yet read.
    pub(super) fn in_flight(&self) -> usize {
        self.data.iter().map(|packet| if let Packet::Bytes(bytes) = packet { bytes.len() } else { 0 }).sum()
    }

    fn clear(&mut self) {
        self.data.clear();
        self.control.clear();
        self.reset = None;
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
    pub(super) since: u32,
    /// Whether the dialer has seen the answer, and whether it was told then that there is no path.
    pub(super) answered: bool,
    pub(super) no_path: bool,
    /// What the dialer said.
    pub(super) opening: Opening,
}

impl Leg {
    /// A leg on which `dialer` has said `opening`.
    pub(super) fn new(dialer: usize, acceptor: usize, opening: Opening, now: u32, dice: &mut Dice) -> Self {
        let way = |dice: &mut Dice| Way {
            data_late: if dice.one_in(3) { dice.soon(now) } else { now },
            control_late: if dice.one_in(3) { dice.soon(now) } else { now },
            ..Way::default()
        };
        let mut leg = Self {
            ends: [dialer, acceptor],
            ways: [way(dice), way(dice)],
            dropped: [false; 2],
            cut: false,
            since: now,
            answered: false,
            no_path: false,
            opening: opening.clone(),
        };
        leg.send(dialer, Packet::Attach(opening));
        leg
    }

    /// Which end `node` is.
    pub(super) fn end_of(&self, node: usize) -> usize {
        usize::from(self.ends[DIALER] != node)
    }

    /// Nobody is interested in it any more.
    pub(super) fn is_over(&self) -> bool {
        self.dropped == [true; 2]
    }

    /// `node` sends; on a cut leg that gets nowhere.
    pub(super) fn send(&mut self, node: usize, packet: Packet) {
        let way = self.end_of(node);
        if !self.cut {
            self.ways[way].data.push_back(packet);
        }
    }

    pub(super) fn tell(&mut self, node: usize, message: Message) {
        let way = self.end_of(node);
        if !self.cut {
            self.ways[way].control.push_back(message);
        }
    }

    /// `node` reads nothing more.
    pub(super) fn drop_by(&mut self, node: usize) {
        let end = self.end_of(node);
        self.dropped[end] = true;
        self.ways[1 - end].clear();
    }

    /// `node` resets its stream: of the bytes before, any number may still be read.
    pub(super) fn reset(&mut self, node: usize, code: CloseCode, dice: &mut Dice) {
        let end = self.end_of(node);
        if !self.cut && !self.dropped[end] {
            let way = &mut self.ways[end];
            if dice.one_in(2) {
                way.data.truncate(dice.below(6));
            }
            way.reset = Some(code);
        }
        self.drop_by(node);
    }

    /// `node`'s stream ends without a code, after some of the bytes.
    pub(super) fn end_cleanly(&mut self, node: usize, dice: &mut Dice) {
        let end = self.end_of(node);
        if !self.cut && !self.dropped[end] {
            self.ways[end].data.truncate(dice.below(6));
            self.ways[end].data.push_back(Packet::End);
        }
        self.drop_by(node);
    }

    /// The process at `node` dies: its stream may look as if it had ended well, before the link is seen to be lost.
    pub(super) fn crash(&mut self, node: usize, dice: &mut Dice) {
        if dice.one_in(3) {
            self.end_cleanly(node, dice);
        } else {
            self.drop_by(node);
        }
        self.cut(dice);
    }

    /// The link is lost, and some of what was under way.
    pub(super) fn cut(&mut self, dice: &mut Dice) {
        self.cut = true;
        for way in &mut self.ways {
            way.data.truncate(dice.below(6));
            way.control.truncate(dice.below(3));
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
