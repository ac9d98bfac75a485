//! What must be true: of a node after each of its steps, of the applications, and at the end.

use super::leg::{id, index};
use super::tally::Event;
use super::world::{ORIGIN, World};
use crate::Epoch;
use crate::lane::Lane;
use crate::splice::{Direction, MAX_FAILED_DIALS, Position, Splice};
use std::fmt;

/// What was found to be broken, by which check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Check {
    // ---- of a node, after each of its steps ----
    /// Law 1: a lane holds the bytes from the lower of ack and cursor to what was received, and the right ones.
    Holds,
    /// Law 1: acks are true facts, none beyond what the application took.
    TrueAcks,
    /// A lane takes no new bytes when it is full.
    Room,
    /// Law 2: nobody has received, or knows the end of, what was not sent.
    Sent,
    /// Law 3: no control message comes before its leg is known.
    TooEarly,
    /// Law 4: a node's epoch only grows, and has a counter for each dialer before it; who is outranked yields, nobody else.
    Epochs,
    /// Law 5: a relay finds no path only after several dials in a row that led nowhere.
    Patience,
    /// A splice's legs are open, and they are what feeds its lanes and is fed by them.
    Legs,
    /// Where all are honest nobody is accused.
    Honest,

    // ---- of what the applications see ----
    /// Laws 1 and 2: they take exactly what was sent: each byte once, in order, and the end.
    Delivered,
    /// The flow is not lost, and it is done only when everything was delivered.
    Kept,
    /// No assertion fails.
    Panic,

    // ---- at the end, when there are no more faults ----
    /// Law 4: repairs settle while nothing is to be sent: paths don't replace each other for ever.
    StealWar,
    /// Law 5: nor do nodes dial for ever.
    Livelock,
    /// Everything is delivered without help by the origin.
    Stall,
    /// The target learns that everything it sent was acked.
    TargetLearns,
    /// With help by the origin everything is delivered in any case.
    Undelivered,
    /// The origin is told that the flow is done.
    OriginLearns,
    /// In the end no node holds the flow, and no leg is open.
    Leak,
}

impl Check {
    /// As tables show its failure.
    pub(super) const fn failure(self) -> &'static str {
        match self {
            Self::Holds => "a lane does not hold what it must",
            Self::TrueAcks => "an ack is not true",
            Self::Room => "a full lane took more",
            Self::Sent => "received what was never sent",
            Self::TooEarly => "a control message came before its leg was known",
            Self::Epochs => "an epoch is not a path, or does not grow",
            Self::Patience => "a relay gave up too early",
            Self::Legs => "a splice has a leg that is closed, or not connected",
            Self::Honest => "an honest node is accused",
            Self::Delivered => "a wrong byte or end was delivered",
            Self::Kept => "the flow is lost",
            Self::Panic => "an assertion failed",
            Self::StealWar => "paths replace each other for ever",
            Self::Livelock => "nodes dial for ever",
            Self::Stall => "nothing moves any more",
            Self::TargetLearns => "the target never learns that all was acked",
            Self::Undelivered => "not delivered, whatever the origin does",
            Self::OriginLearns => "the origin never learns that the flow is done",
            Self::Leak => "a node keeps the flow, or a leg, for ever",
        }
    }
}

/// Which checks are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// All.
    All,
    /// Only those of what the applications see, and of the end: is a broken law felt?
    Felt,
}

impl Scope {
    pub(super) fn includes(self, check: Check) -> bool {
        self == Self::All || check >= Check::Delivered
    }
}

/// A check that failed, and what exactly was found.
#[derive(Clone, Debug)]
pub(super) struct Finding {
    pub(super) check: Check,
    pub(super) detail: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.check.failure(), self.detail)
    }
}

/// The byte at an offset, so that any that is lost, doubled or out of order shows.
pub(super) fn value(direction: Direction, offset: u64) -> u8 {
    let byte = u8::try_from(offset * 7 % 251).expect("less than 251");
    match direction {
        Direction::Forward => byte,
        Direction::Backward => !byte,
    }
}

impl World {
    /// Checks the node that took a step.
    pub(super) fn check(&mut self, node: usize) {
        let Some(splice) = &self.nodes[node].splice else { return };
        let lanes = Direction::BOTH.map(|direction| (direction, splice.lane(direction)));
        let ahead = lanes.iter().any(|(_, lane)| lane.acked() > lane.received());
        let completed = node == ORIGIN && self.complete_since.is_none() && splice.is_complete();
        let finding = (self.scope == Scope::All)
            .then(|| {
                let of_lanes = lanes.iter().find_map(|(direction, lane)| self.check_lane(*direction, lane));
                of_lanes.or_else(|| self.check_legs(node, splice))
            })
            .flatten();
        if let Some(Finding { check, detail }) = finding {
            self.find(check, format_args!("{}: {detail}", self.name(node)));
        }
        if ahead {
            self.count(Event::AckAhead);
        }
        if completed {
            self.complete_since = Some(self.now);
        }
    }

    fn check_lane(&self, direction: Direction, lane: &Lane) -> Option<Finding> {
        let stream = self.stream(direction);
        let (acked, received, fin) = (lane.acked(), lane.received(), lane.fin());
        let finding = |check, detail: fmt::Arguments<'_>| {
            Some(Finding { check, detail: format!("{direction:?}: {detail}") })
        };
        if acked > stream.taken_offset() {
            return finding(Check::TrueAcks, format_args!("{acked} acked, {} taken", stream.taken_offset()));
        }
        if received > stream.sent_offset() {
            return finding(Check::Sent, format_args!("{received} received, {} sent", stream.sent_offset()));
        }
        if fin.is_some_and(|fin| !stream.finished || fin != stream.size) {
            return finding(Check::Sent, format_args!("ends at {fin:?}, not {}", stream.size));
        }
        if fin == Some(received) {
            return finding(Check::Holds, format_args!("the end is not counted at {received}"));
        }
        if lane.held() != held(lane) {
            return finding(Check::Holds, format_args!("{} bytes, not {}", lane.held(), held(lane)));
        }
        let cursor = lane.written()?;
        let front = lane.front().flatten();
        if !front.eq((cursor..stream.size.min(received)).map(|offset| value(direction, offset))) {
            let front: Vec<u8> = lane.front().flatten().collect();
            return finding(Check::Holds, format_args!("to be written from {cursor} on: {front:?}"));
        }
        None
    }

    fn check_legs(&self, node: usize, splice: &Splice) -> Option<Finding> {
        let closed = [splice.prev(), splice.next()].into_iter().flatten().map(index).find(|leg| {
            let leg = &self.legs[*leg];
            leg.dropped[leg.end_of(node)]
        });
        let detail = match closed {
            Some(leg) => format!("leg {leg} is closed"),
            None if !is_connected(splice) => format!("{splice:?}"),
            None => return None,
        };
        Some(Finding { check: Check::Legs, detail })
    }

    /// Checks a node that is about to read from a leg.
    pub(super) fn check_room(&mut self, node: usize, leg: usize) {
        let splice = self.nodes[node].splice.as_ref();
        let lane = splice.and_then(|splice| splice.fed_by(id(leg)).map(|direction| splice.lane(direction)));
        let Some(lane) = lane else { return };
        let limits = &self.habits.limits;
        let full = lane.held() >= limits.window_bytes || lane.unsent() >= limits.backlog_bytes;
        if full && lane.incoming() >= Some(lane.received()) {
            let (held, unsent) = (lane.held(), lane.unsent());
            self.find(Check::Room, format_args!("{}: {held} held, {unsent} unsent", self.name(node)));
        }
    }

    /// Checks an attach that was accepted.
    pub(super) fn check_epoch(&mut self, node: usize, before: &Epoch, after: &Epoch) {
        if after <= before || after.hop() != self.nodes[node].hop {
            self.find(Check::Epochs, format_args!("{}: {after:?} after {before:?}", self.name(node)));
        }
    }

    /// Checks what a node did when it heard that `winner` had won over its last dial: it yields to what is greater and
    /// does not come from that very dial, unless it is the origin.
    pub(super) fn check_yielding(&mut self, node: usize, dialled: &Epoch, winner: &Epoch, yielded: bool) {
        let outranked = winner > dialled && !winner.counters().starts_with(dialled.counters());
        if yielded != (outranked && node != ORIGIN) {
            let what = if yielded { "yields" } else { "does not yield" };
            self.find(Check::Epochs, format_args!("{} {dialled:?} {what} to {winner:?}", self.name(node)));
        }
    }

    /// Checks a relay that finds no path.
    pub(super) fn check_patience(&mut self, node: usize) {
        let tries = &self.nodes[node].tries;
        let led_somewhere = |leg: &usize| self.legs[*leg].answered && !self.legs[*leg].no_path;
        let failed = tries.iter().rev().take_while(|leg| !leg.as_ref().is_some_and(led_somewhere)).count();
        if failed < MAX_FAILED_DIALS as usize {
            self.find(Check::Patience, format_args!("{} after {failed} failures", self.name(node)));
        }
    }
}

/// Whether the lanes have just those in-legs and out-legs that the splice has; at the ends there is the application.
fn is_connected(splice: &Splice) -> bool {
    let prev = splice.position() == Position::Origin || splice.prev().is_some();
    let next = splice.position() == Position::Target || splice.next().is_some();
    let next_answered = splice.position() == Position::Target || splice.is_next_answered();
    let of = |direction| {
        let lane = splice.lane(direction);
        (lane.incoming().is_some(), lane.written().is_some())
    };
    of(Direction::Forward) == (prev, next) && of(Direction::Backward) == (next_answered, prev)
}

/// How many bytes Law 1 wants a lane to hold.
fn held(lane: &Lane) -> u64 {
    let data = |offset: u64| lane.fin().map_or(offset, |fin| offset.min(fin));
    let cursor = lane.written().unwrap_or(u64::MAX);
    data(lane.received()) - data(lane.acked().min(cursor).min(lane.received()))
}
