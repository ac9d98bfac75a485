//! One flow at one node: two lanes between two legs (Laws 1 to 5 and completion).
//!
//! `prev` is the leg towards the origin, `next` the one towards the target. At the origin the application stands where prev
//! would be, at the target where next would be; everything else is the same, so one type serves all three. Forward bytes
//! come in over prev and go out over next, backward bytes the other way.
//!
//! Legs come and go. `prev` is replaced by whoever attaches with a greater epoch; `next` is dialled again, here or over
//! another candidate, whenever it is lost. What must be sent again follows from the lanes alone.
//!
//! A splice does not know nodes, links, candidates, tags or the time: whoever owns it picks whom to dial, and dials.

use super::epoch::Epoch;
use super::frame::{AttachOk, Opening};
use super::lane::{FlowViolation, Lane, MAX_OFFSET};
use super::planted::{self, Law};
use bytes::Bytes;

mod application;
mod endings;
#[cfg(test)]
mod tests;
mod types;

pub use types::{Attached, Direction, Ending, Freed, LegId, Limits, MAX_FAILED_DIALS, Position};

/// See the module's documentation.
#[derive(Debug)]
pub struct Splice {
    position: Position,
    epoch: Epoch,
    dials: u32,
    failed_dials: u32,
    prev: Option<LegId>,
    next: Option<LegId>,
    next_answered: bool,
    /// The leg that was next before it was left because it drains (*fading*): what it still brings is taken.
    fading: Option<LegId>,
    /// What went over the hop to next before and goes again over its live leg, in bytes.
    replayed: u64,
    /// The epoch that prev had when next was dialled.
    next_epoch: Epoch,
    forward: Lane,
    backward: Lane,
    /// The last acks that the in-legs' senders know: of forward (told to prev), of backward (told to next).
    told: (u64, u64),
    /// Whether the application has said that it took everything.
    is_taken: bool,
}

impl Splice {
    /// The origin's end of a new flow: the application feeds the forward lane from the start.
    #[must_use]
    pub fn origin() -> Self {
        let mut splice = Self::starting(Position::Origin, Epoch::ORIGIN, 0, 0);
        splice.forward.attach_in(0);
        splice.backward.attach_out();
        splice
    }

    /// The target's end of a new flow, or `None` for an attach that does not start at its beginning: then the target
    /// has forgotten the flow.
    #[must_use]
    pub fn target(opening: &Opening) -> Option<Self> {
        if opening.forward_start > 0 || opening.backward_ack > 0 {
            return None;
        }
        let mut splice = Self::starting(Position::Target, Epoch::ORIGIN, 0, 0);
        splice.backward.attach_in(0);
        splice.forward.attach_out();
        Some(splice)
    }

    /// A relay's part of a flow that it did not hold before.
    #[must_use]
    pub fn relay(opening: &Opening) -> Self {
        Self::starting(Position::Relay, Epoch::ORIGIN, opening.forward_start, opening.backward_ack)
    }

    fn starting(position: Position, epoch: Epoch, forward: u64, backward: u64) -> Self {
        Self {
            position,
            epoch,
            dials: 0,
            failed_dials: 0,
            prev: None,
            next: None,
            next_answered: false,
            fading: None,
            replayed: 0,
            next_epoch: Epoch::ORIGIN,
            forward: Lane::starting_at(forward),
            backward: Lane::starting_at(backward),
            told: (0, 0),
            is_taken: false,
        }
    }

    /// The epoch under which prev is attached.
    #[must_use]
    pub const fn epoch(&self) -> &Epoch {
        &self.epoch
    }

    /// This node's part in the flow.
    #[must_use]
    #[inline]
    pub const fn position(&self) -> Position {
        self.position
    }

    /// The leg towards the origin.
    #[must_use]
    #[inline]
    pub const fn prev(&self) -> Option<LegId> {
        self.prev
    }

    /// The leg towards the target.
    #[must_use]
    #[inline]
    pub const fn next(&self) -> Option<LegId> {
        self.next
    }

    /// Whether next has answered the attach.
    #[must_use]
    pub const fn is_next_answered(&self) -> bool {
        self.next_answered
    }

    /// Whether next has answered and is attached under the present path. If prev was replaced since, it is not: tags for
    /// the present path prove nothing there.
    #[must_use]
    pub fn is_next_current(&self) -> bool {
        self.next_answered && (self.next_epoch == self.epoch || planted::broken(Law::PathOfTags))
    }

    /// One direction's lane.
    #[must_use]
    #[inline]
    pub const fn lane(&self, direction: Direction) -> &Lane {
        match direction {
            Direction::Forward => &self.forward,
            Direction::Backward => &self.backward,
        }
    }

    const fn lane_mut(&mut self, direction: Direction) -> &mut Lane {
        match direction {
            Direction::Forward => &mut self.forward,
            Direction::Backward => &mut self.backward,
        }
    }

    /// Whether both directions were received to their end and acked: nothing more will come or be sent again.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.forward.is_acked() && self.backward.is_acked()
    }

    // ---- prev: attached by others ----

    /// Somebody attaches over `leg` (Laws 3 and 4).
    pub fn attach(&mut self, leg: LegId, opening: &Opening) -> Attached {
        // Law 4: an equal epoch is refused, too, so that a copy of an attach changes nothing.
        if opening.epoch <= self.epoch && !planted::broken(Law::GreaterEpoch) {
            return Attached::Stale { winner: self.epoch.clone() };
        }
        let doubtful = self.contradicts(opening);
        // A target knows what it got and sent. A relay may be the one that is wrong, and forgets (Law 5).
        if !opening.is_consistent() || (doubtful && self.position == Position::Target) {
            return Attached::Impossible;
        }
        // Before the splice forgets, as nobody would close the old leg then.
        let replaced = self.detach_prev();
        let forgotten = if doubtful { self.forget(opening) } else { Vec::new() };
        self.epoch = opening.epoch.clone();
        self.prev = Some(leg);
        if let Some(fin) = opening.forward_fin {
            self.forward.set_fin(fin).expect("a contradiction was looked for");
        }
        self.forward.attach_in(opening.forward_start);
        self.backward.ack(opening.backward_ack);
        let answer = AttachOk {
            backward_start: self.backward.attach_out(),
            backward_fin: self.backward.take_fin(),
            forward_ack: self.forward.acked(),
        };
        // The answer tells prev this ack, so it need not be told again.
        self.told.0 = answer.forward_ack;
        Attached::Accepted { answer, replaced, forgotten }
    }

    /// Whether an attach claims more than this node holds, or another end.
    fn contradicts(&self, opening: &Opening) -> bool {
        if planted::broken(Law::NoGap) {
            return false;
        }
        opening.forward_start > self.forward.received()
            || opening.backward_ack > self.backward.received()
            || opening.forward_fin.is_some_and(|fin| !self.forward.may_end_at(fin))
    }

    /// Law 5: what this relay holds does not fit what its prev holds, so it starts from what prev says.
    fn forget(&mut self, opening: &Opening) -> Vec<LegId> {
        let legs = self.next.into_iter().chain(self.fading).collect();
        // Law 4: its counter rises with each dial, and those before it forgot count, too.
        let dials = self.dials;
        *self = Self { dials, ..Self::relay(opening) };
        legs
    }

    fn detach_prev(&mut self) -> Option<LegId> {
        let leg = self.prev.take();
        if leg.is_some() {
            self.forward.detach_in();
            self.backward.detach_out();
        }
        leg
    }

    // ---- next: dialled by this node ----

    /// Whether next is to be dialled.
    #[must_use]
    #[inline]
    pub fn wants_dial(&self) -> bool {
        self.next.is_none() && self.position != Position::Target
    }

    /// Whether so many dials failed that a relay has to give the flow up (Law 5).
    #[must_use]
    pub fn is_exhausted(&self) -> bool {
        self.position == Position::Relay
            && self.failed_dials >= MAX_FAILED_DIALS
            && !planted::broken(Law::NoPath)
    }

    /// Dials next over `leg`; what to say there.
    ///
    /// # Panics
    /// If there is a next: close it first.
    pub fn dial(&mut self, leg: LegId) -> Opening {
        assert!(self.next.is_none(), "one next at a time");
        self.dials += 1;
        self.next = Some(leg);
        self.next_answered = false;
        self.next_epoch = self.epoch.clone();
        self.told.1 = self.backward.acked();
        let forward_start = self.forward.attach_out();
        self.replayed = self.forward.sent_from(forward_start);
        Opening {
            epoch: self.dial_epoch(),
            forward_start,
            forward_fin: self.forward.take_fin(),
            backward_ack: self.backward.acked(),
        }
    }

    /// The counter of the last dial.
    #[must_use]
    pub const fn dials(&self) -> u32 {
        self.dials
    }

    /// Bytes that went over the hop to next before and go once more over the leg that it has answered.
    #[must_use]
    pub const fn replayed(&self) -> u64 {
        self.replayed
    }

    fn dial_epoch(&self) -> Epoch {
        if planted::broken(Law::PathEpochs) {
            let flat = self.epoch.counters().first().copied().unwrap_or(0);
            return Epoch::ORIGIN.child(if self.position == Position::Origin { self.dials } else { flat });
        }
        self.epoch.child(self.dials)
    }

    /// Next answered.
    ///
    /// # Errors
    /// [`FlowViolation`] if the answer contradicts what is known, or leaves a gap: the leg is useless then, and at a relay
    /// (Law 5) so is the flow.
    pub fn answered(&mut self, leg: LegId, answer: &AttachOk) -> Result<(), FlowViolation> {
        // A second answer would move the in-leg, and bytes be taken for others than they are.
        if self.next != Some(leg) || self.next_answered {
            return Err(FlowViolation::NotAttached);
        }
        if answer.backward_start > self.backward.received() {
            return Err(FlowViolation::AckBeyondSent {
                offset: answer.backward_start,
                sent: self.backward.received(),
            });
        }
        self.check_ack(Direction::Forward, answer.forward_ack)?;
        if let Some(fin) = answer.backward_fin {
            self.backward.set_fin(fin)?;
        }
        self.next_answered = true;
        self.replayed += self.backward.received() - answer.backward_start;
        self.backward.attach_in(answer.backward_start);
        self.forward.ack(answer.forward_ack);
        Ok(())
    }

    /// This node gives up on next (it is suspect, or has to be left); the leg to close as moved.
    pub fn leave_next(&mut self) -> Option<LegId> {
        let leg = self.next;
        self.detach_next(false);
        leg
    }

    /// next will leave soon, and another is to be dialled before it does: nothing more is sent to it, but what it still
    /// brings is taken until it closes. Returns the leg to close as moved, if one was being left already, or next was not
    /// of use yet.
    pub fn part_from_next(&mut self) -> Option<LegId> {
        if !self.next_answered {
            return self.leave_next();
        }
        let older = self.detach_fading();
        self.fading = self.next.take();
        self.next_answered = false;
        self.failed_dials = 0;
        self.forward.detach_out();
        self.backward.fade_in();
        older
    }

    /// The leg that is being left brings nothing of use any more: it is to be closed as moved.
    pub fn detach_fading(&mut self) -> Option<LegId> {
        self.backward.detach_fading();
        self.fading.take()
    }

    /// A dial failed if nobody answered, and also if whoever answered then found no path: else a relay whose only
    /// reachable next is a dead end would go on dialling it for ever.
    fn detach_next(&mut self, no_path: bool) {
        if self.next.take().is_some() {
            let failed = no_path || !self.next_answered;
            self.failed_dials = if failed { self.failed_dials.saturating_add(1) } else { 0 };
            self.next_answered = false;
            self.forward.detach_out();
            self.backward.detach_in();
        }
    }

    /// How many dials in a row have failed.
    #[must_use]
    pub const fn failed_dials(&self) -> u32 {
        self.failed_dials
    }

    /// A dial failed before there was a leg.
    pub const fn dial_failed(&mut self) {
        self.failed_dials = self.failed_dials.saturating_add(1);
    }

    // ---- what comes over legs ----

    /// The direction that `leg` feeds, if it is attached.
    #[must_use]
    pub fn fed_by(&self, leg: LegId) -> Option<Direction> {
        if self.prev == Some(leg) {
            Some(Direction::Forward)
        } else if self.next == Some(leg) || self.fading == Some(leg) {
            Some(Direction::Backward)
        } else {
            None
        }
    }

    /// The direction that feeds `leg`, if it is attached and not being left.
    #[must_use]
    pub fn feeding(&self, leg: LegId) -> Option<Direction> {
        self.acked_by(leg).filter(|_| self.fading != Some(leg))
    }

    /// The direction whose acks come over `leg`.
    fn acked_by(&self, leg: LegId) -> Option<Direction> {
        self.fed_by(leg).map(Direction::opposite)
    }

    /// Bytes came over `leg`.
    ///
    /// # Errors
    /// [`FlowViolation`] if they lie beyond the end, or the leg is not attached.
    pub fn receive(&mut self, leg: LegId, bytes: Bytes) -> Result<(), FlowViolation> {
        let direction = self.fed_by(leg).ok_or(FlowViolation::NotAttached)?;
        if self.fading == Some(leg) {
            self.backward.push_fading(bytes)?;
        } else {
            self.lane_mut(direction).push(bytes)?;
        }
        if planted::broken(Law::AckWhenTaken) && self.is_sink(direction) {
            let received = self.lane(direction).received();
            self.lane_mut(direction).ack(received);
        }
        Ok(())
    }

    /// Whether to go on reading what feeds `direction`: there is room, or only repeated bytes are coming.
    #[must_use]
    pub fn has_room(&self, direction: Direction, limits: &Limits) -> bool {
        let lane = self.lane(direction);
        planted::broken(Law::Window)
            || lane.is_catching_up()
            || (lane.held() < limits.window_bytes && lane.unsent() < limits.backlog_bytes)
    }

    /// Whoever is behind `leg` says where the direction that it feeds ends.
    ///
    /// # Errors
    /// [`FlowViolation`] if that contradicts what is known, or the leg is not attached.
    pub fn fin(&mut self, leg: LegId, offset: u64) -> Result<(), FlowViolation> {
        let direction = self.fed_by(leg).ok_or(FlowViolation::NotAttached)?;
        self.lane_mut(direction).set_fin(offset)
    }

    /// Whoever is behind `leg` says up to where the direction that feeds it was acked. Returns that direction.
    ///
    /// # Errors
    /// [`FlowViolation`] if this node is the direction's source and has not sent that much, or the leg is not attached.
    pub fn ack(&mut self, leg: LegId, offset: u64) -> Result<Direction, FlowViolation> {
        let direction = self.acked_by(leg).ok_or(FlowViolation::NotAttached)?;
        let wrong = self.fed_by(leg).filter(|_| planted::broken(Law::AckDirection));
        let direction = wrong.unwrap_or(direction);
        self.check_ack(direction, offset)?;
        self.lane_mut(direction).ack(offset);
        Ok(direction)
    }

    /// Only a direction's source can judge its acks (Law 1).
    fn check_ack(&self, direction: Direction, offset: u64) -> Result<(), FlowViolation> {
        let is_source = match direction {
            Direction::Forward => self.position == Position::Origin,
            Direction::Backward => self.position == Position::Target,
        };
        // The FIN counts as one more byte after the last.
        let sent = if is_source { self.lane(direction).received() } else { MAX_OFFSET + 1 };
        if offset > sent { Err(FlowViolation::AckBeyondSent { offset, sent }) } else { Ok(()) }
    }

    // ---- what goes out ----

    /// An ack for whoever feeds `direction`, if there is news and it can be told: (leg, offset).
    ///
    /// Backward acks wait for next's answer: an ack for a leg that next does not know yet would be lost (Law 3).
    pub fn take_ack(&mut self, direction: Direction) -> Option<(LegId, u64)> {
        let early = planted::broken(Law::AckAfterAttachOk);
        let acked = self.lane(direction).acked();
        let (leg, told) = match direction {
            // Law 3 holds here without a question: whoever is prev was answered when it attached.
            Direction::Forward => (self.prev, &mut self.told.0),
            Direction::Backward => (self.next.filter(|_| self.next_answered || early), &mut self.told.1),
        };
        let leg = leg.filter(|_| acked > *told)?;
        *told = acked;
        Some((leg, acked))
    }

    /// How far the ack that [`Splice::take_ack`] would give is ahead of the last one told.
    #[must_use]
    #[inline]
    pub const fn untold(&self, direction: Direction) -> u64 {
        match direction {
            Direction::Forward => self.forward.acked().saturating_sub(self.told.0),
            Direction::Backward => self.backward.acked().saturating_sub(self.told.1),
        }
    }

    /// The end of `direction`, once for each leg that it feeds: (leg, offset).
    ///
    /// A forward FIN that was not known at the dial waits for next's answer, like acks.
    pub fn take_fin(&mut self, direction: Direction) -> Option<(LegId, u64)> {
        let leg = match direction {
            Direction::Forward => self.next.filter(|_| self.next_answered),
            Direction::Backward => self.prev,
        }?;
        self.lane_mut(direction).take_fin().map(|offset| (leg, offset))
    }

    /// Bytes from the lane's front were written to the leg that `direction` feeds, or taken by the application.
    ///
    /// What the application takes is acked, but not the end: what becomes of it there may yet go wrong.
    pub fn wrote(&mut self, direction: Direction, count: usize) {
        self.lane_mut(direction).advance(count);
        if self.is_sink(direction) {
            let lane = self.lane_mut(direction);
            if let Some(written) = lane.written() {
                lane.ack(lane.fin().map_or(written, |fin| fin.min(written)));
            }
        }
    }

    /// Whether `direction` ends at this node's application.
    #[must_use]
    #[inline]
    pub const fn is_sink(&self, direction: Direction) -> bool {
        matches!(
            (direction, self.position),
            (Direction::Forward, Position::Target) | (Direction::Backward, Position::Origin)
        )
    }
}
