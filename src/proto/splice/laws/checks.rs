//! What must be true: of a node after each of its steps, of the applications, and at the end.

use super::coverage::Event;
use super::finding::{Check, Finding, Scope};
use super::leg::{id, index};
use super::world::{ORIGIN, World};
use crate::Epoch;
use crate::lane::Lane;
use crate::splice::{Direction, MAX_FAILED_DIALS, Position, Splice};
use std::fmt;

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
    pub(super) fn check_gave_up_early(&mut self, node: usize) {
        let tries = &self.nodes[node].tries;
        let led_somewhere = |leg: &usize| self.legs[*leg].answered && !self.legs[*leg].no_path;
        let failed = tries.iter().rev().take_while(|leg| !leg.as_ref().is_some_and(led_somewhere)).count();
        if failed < MAX_FAILED_DIALS as usize {
            self.find(Check::GaveUpEarly, format_args!("{} after {failed} failures", self.name(node)));
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
