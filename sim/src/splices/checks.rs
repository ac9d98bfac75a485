//! What must be true of a node after each of its steps.

use super::applications::salt;
use super::leg::{id, index};
use super::world::{ORIGIN, World};
use crate::check::{holds_what_it_must, is_true};
use crate::traffic::pattern;
use hopline_proto::Epoch;
use hopline_proto::lane::Lane;
use hopline_proto::splice::{Direction, MAX_FAILED_DIALS, Position, Splice};

impl World {
    /// Checks the node that took a step.
    pub(super) fn check(&mut self, node: usize) {
        let Some(splice) = &self.nodes[node].splice else { return };
        let lanes = Direction::BOTH.map(|direction| (direction, splice.lane(direction)));
        let ahead = lanes.iter().any(|(_, lane)| lane.acked() > lane.received());
        let completed = node == ORIGIN && self.complete_since.is_none() && splice.is_complete();
        if !self.only_felt {
            let of_lanes = lanes.iter().find_map(|(direction, lane)| {
                let found = self.check_lane(*direction, lane).err()?;
                Some(("lanes", format!("{direction:?} lane {found}")))
            });
            let found = of_lanes.or_else(|| Some(("legs", self.check_legs(node, splice).err()?)));
            if let Some((checker, what)) = found {
                self.fail_at(node, checker, format_args!("{what}"));
            }
        }
        if ahead {
            self.count("steps of relays that know acks beyond what they received");
        }
        if completed {
            self.complete_since = Some(self.now);
        }
    }

    fn check_lane(&self, direction: Direction, lane: &Lane) -> Result<(), String> {
        let stream = &self.streams[direction as usize];
        let sent = stream.sent + u64::from(stream.finished);
        is_true(lane, sent, stream.taken + u64::from(stream.ended))?;
        let (received, fin) = (lane.received(), lane.fin());
        if fin.is_some_and(|fin| !stream.finished || fin != stream.size) {
            return Err(format!("ends at {fin:?}, not {}", stream.size));
        }
        if fin == Some(received) {
            return Err(format!("does not count the end at {received}"));
        }
        // A lane whose limits are tiny may hold as much more as its neighbour's stream.
        holds_what_it_must(lane, &self.habits.limits)?;
        let Some(mut cursor) = lane.written() else { return Ok(()) };
        for chunk in lane.front() {
            if chunk != pattern(salt(direction), cursor, chunk.len()) {
                return Err(format!("has wrong bytes from {cursor} on: {chunk:?}"));
            }
            cursor += chunk.len() as u64;
        }
        let end = stream.size.min(received);
        if cursor < end { Err(format!("has no bytes from {cursor} to {end}")) } else { Ok(()) }
    }

    /// A splice's legs are open, and they are what feeds its lanes and is fed by them.
    fn check_legs(&self, node: usize, splice: &Splice) -> Result<(), String> {
        let mut legs = [splice.prev(), splice.next()].into_iter().flatten().map(index);
        match legs.find(|leg| self.legs[*leg].is_dropped_by(node)) {
            Some(leg) => Err(format!("leg {leg} is closed")),
            None if !is_connected(splice) => Err(format!("{splice:?}")),
            None => Ok(()),
        }
    }

    /// Checks a node that is about to read from a leg: a lane takes no new bytes when it is full.
    pub(super) fn check_room(&mut self, node: usize, leg: usize) {
        let splice = self.nodes[node].splice.as_ref();
        let lane = splice.and_then(|splice| splice.fed_by(id(leg)).map(|direction| splice.lane(direction)));
        let Some(lane) = lane else { return };
        let limits = &self.habits.limits;
        let (held, unsent) = (lane.held(), lane.unsent());
        let full = held >= limits.window_bytes || unsent >= limits.backlog_bytes;
        if full && lane.incoming() >= Some(lane.received()) {
            self.fail_at(node, "lanes", format_args!("reads with {held} bytes held, {unsent} unsent"));
        }
    }

    /// Law 4: checks an attach that was accepted. A node's epoch only grows, and has a counter for each dialer before it.
    pub(super) fn check_epoch(&mut self, node: usize, before: &Epoch, after: &Epoch) {
        if after <= before || after.hop() != self.name(node).hop {
            self.fail_at(node, "epochs", format_args!("{after:?} after {before:?}"));
        }
    }

    /// Law 4: checks what a node did when it heard that `winner` had won over its last dial: it yields to what is greater
    /// and does not come from that very dial, unless it is the origin.
    pub(super) fn check_yielding(&mut self, node: usize, dialled: &Epoch, winner: &Epoch, yielded: bool) {
        let outranked = winner > dialled && !winner.counters().starts_with(dialled.counters());
        if yielded != (outranked && node != ORIGIN) {
            let what = if yielded { "yields" } else { "does not yield" };
            self.fail_at(node, "epochs", format_args!("{dialled:?} {what} to {winner:?}"));
        }
    }

    /// Law 5: checks a relay that finds no path. It must have dialled several times in a row and got nowhere.
    pub(super) fn check_gave_up_early(&mut self, node: usize) {
        let tries = &self.nodes[node].tries;
        let led_somewhere = |leg: &usize| self.legs[*leg].useful;
        let failed = tries.iter().rev().take_while(|leg| !leg.as_ref().is_some_and(led_somewhere)).count();
        if failed < MAX_FAILED_DIALS as usize {
            self.fail_at(node, "no path", format_args!("it gives up after {failed} failures"));
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
