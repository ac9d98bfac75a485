//! One flow at a node: its splice, and the parts that decide about it.
//!
//! The parts know neither links nor each other's insides; [`Flows`](super::Flows) brings them together.

pub(super) mod allowances;
pub(super) mod alone;
pub(super) mod avoided;
pub(super) mod backup_search;
pub(super) mod candidates;
pub(super) mod dials;
pub(super) mod end;
pub(super) mod next;
pub(super) mod outage;
pub(super) mod room;
pub(super) mod route_search;
pub(super) mod timer;
pub(super) mod view;

use super::budget::{Budget, RESERVE_BYTES};
use super::probe::{Marks, ProgressWatch};
use super::rights::Rights;
use crate::crypto::Sealed;
use crate::frame::Cause;
use crate::id::NodeId;
use crate::record::{Candidate, Record};
use crate::splice::{Direction, LegId, Position, Splice};
use crate::time::Time;
use allowances::Allowances;
use alone::Alone;
use backup_search::BackupSearch;
use candidates::Candidates;
use dials::Dials;
use end::End;
use next::{Event, Next};
use outage::Outage;
use room::Room;
use route_search::RouteSearch;
use std::collections::BTreeSet;
use timer::{Timer, TimerTable};
use view::ChainView;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Flow {
    pub(super) splice: Splice,
    /// What it may hold.
    pub(super) room: Room,
    pub(super) rights: Rights,
    /// Whom the next hop may be served by, and how it is.
    pub(super) candidates: Candidates,
    pub(super) next: Next,
    pub(super) outage: Outage,
    pub(super) dials: Dials,
    /// Hops whose new records next is told once it has answered.
    pub(super) late_update: BTreeSet<u8>,
    pub(super) backup: BackupSearch,
    pub(super) route: RouteSearch,
    pub(super) view: ChainView,
    /// What only the ends of a flow have.
    pub(super) end: Option<End>,
    pub(super) alone: Alone,
    pub(super) allowances: Allowances,
    /// The deadlines that no part keeps for itself.
    timers: TimerTable,
}

impl Flow {
    pub(super) fn new(splice: Splice, rights: Rights, now: Time) -> Self {
        let is_origin = splice.position() == Position::Origin;
        let is_end = splice.position() != Position::Relay;
        Self {
            splice,
            room: Room::default(),
            rights,
            candidates: Candidates::default(),
            next: Next::Idle,
            outage: Outage::default(),
            dials: Dials::new(now),
            late_update: BTreeSet::new(),
            backup: BackupSearch::default(),
            route: RouteSearch::default(),
            view: ChainView::default(),
            end: is_end.then(|| End::new(is_origin)),
            alone: Alone::default(),
            allowances: Allowances::default(),
            timers: TimerTable::default(),
        }
    }

    pub(super) fn is_origin(&self) -> bool {
        self.splice.position() == Position::Origin
    }

    /// Whether nobody has carried the flow beyond this node yet, and nothing was ever repaired before it.
    pub(super) fn is_opening(&self) -> bool {
        self.splice.dials() == 0 && self.is_first_path()
    }

    /// Whether nothing was ever repaired before this node.
    pub(super) fn is_first_path(&self) -> bool {
        self.splice.epoch().counters().iter().all(|counter| *counter == 1)
    }

    /// What of its lanes counts against the node's budget.
    pub(super) fn charge(&self) -> u64 {
        Direction::BOTH.iter().map(|direction| Budget::share(self.splice.lane(*direction).held())).sum()
    }

    /// Whether much would have to be sent again.
    pub(super) fn is_bulky(&self) -> bool {
        Direction::BOTH.iter().any(|direction| self.splice.lane(*direction).held() > RESERVE_BYTES)
    }

    /// Bytes that were acked or received here.
    pub(super) fn progress(&self) -> u64 {
        let lane = |direction| self.splice.lane(direction);
        lane(Direction::Forward).acked() + lane(Direction::Backward).received()
    }

    // ---- timers ----

    pub(super) fn set_timer(&mut self, timer: Timer, until: Option<Time>) {
        self.timers.set(timer, until);
    }

    pub(super) fn timer(&self, timer: Timer) -> Option<Time> {
        self.timers.get(timer)
    }

    /// Everything that it waits for; `alone_until` depends on the node's settings.
    pub(super) fn timers(&self, alone_until: Option<Time>) -> TimerTable {
        let mut timers = self.timers;
        timers.set(Timer::Next, self.next.until());
        timers.set(Timer::Doubt, self.next.doubted_until());
        timers.set(Timer::Route, self.route.due());
        timers.set(Timer::Backup, self.backup.due());
        timers.set(Timer::Look, self.end.as_ref().and_then(|end| end.watch.due()));
        timers.set(Timer::Alone, alone_until);
        timers
    }

    // ---- the next hop ----

    /// Takes what happened to the next hop.
    pub(super) fn on_next(&mut self, event: Event) {
        self.next = self.next.after(event);
    }

    /// The leg to next may have been lost.
    pub(super) fn note_lost_leg(&mut self) {
        // The leg that ended may have been prev's, or one that was fading.
        if self.splice.next().is_none() {
            self.on_next(Event::LegLost);
        }
    }

    /// Gives up on next; the leg to close as moved.
    pub(super) fn leave_next(&mut self) -> Option<LegId> {
        let leg = self.splice.leave_next();
        self.note_lost_leg();
        leg
    }

    /// Leaves next in peace; a leg to close as moved, if there is one.
    pub(super) fn part_from_next(&mut self) -> Option<LegId> {
        let leg = self.splice.part_from_next();
        self.note_lost_leg();
        leg
    }

    /// Whether the books of the next hop agree with the splice.
    pub(super) fn is_sound(&self) -> bool {
        let serves = matches!(self.next, Next::Serving { .. });
        self.next.has_leg() == self.splice.next().is_some()
            && (!serves || self.splice.is_next_answered() && self.outage.is_over())
    }

    /// Whether whoever serves the next hop is not among its candidates any more. Nobody else would know of it, nor provide for
    /// its failure.
    pub(super) fn is_next_unnamed(&self) -> bool {
        self.splice.is_next_answered() && self.candidates.current_place().is_none()
    }

    // ---- the other end ----

    /// What the other end said of why it gave the flow up.
    pub(super) fn told(&self, cause: Option<&Sealed>) -> Option<String> {
        self.end.as_ref()?.told(cause?)
    }

    /// Whether that is the other end's own word.
    pub(super) fn is_proven(&self, cause: Option<&Sealed>) -> bool {
        self.told(cause).is_some()
    }

    /// Whether both ends have agreed on TLS, as this one knows.
    pub(super) fn has_key(&self) -> bool {
        self.end.as_ref().is_some_and(End::has_key)
    }

    pub(super) fn watch_mut(&mut self) -> Option<&mut ProgressWatch> {
        self.end.as_mut().map(|end| &mut end.watch)
    }

    /// Looks how far the flow has come at this end of it. Returns whether there is something to wait for now that there
    /// was not before.
    pub(super) fn look(&mut self, now: Time) -> bool {
        let Some(watch) = self.end.as_mut().map(|end| &mut end.watch) else { return false };
        let (sends, takes) = (self.splice.lane(self.splice.source()), self.splice.lane(self.splice.sink()));
        let marks = Marks {
            sent: sends.received(),
            acked: sends.acked(),
            received: takes.received(),
            // A sink acks what its application took, so the rest waits for its reader.
            reader_blocked: takes.acked() < takes.received(),
        };
        let before = watch.due();
        watch.note(marks, now);
        let is_new = watch.due() != before;
        self.see();
        is_new
    }

    /// The flow goes over other relays.
    pub(super) fn watch_anew(&mut self, now: Time) {
        if let Some(watch) = self.watch_mut() {
            watch.restart(now);
        }
    }

    /// The target may not be reached any more: an origin asks for it until it answers.
    pub(super) fn lose_sight(&mut self, now: Time) {
        if self.is_origin() {
            self.alone.lost(now);
            if let Some(watch) = self.watch_mut() {
                watch.seek(now);
            }
        }
    }

    /// Something may have come that shows that an origin's target is there.
    pub(super) fn see(&mut self) {
        if self.is_origin() && self.end.as_ref().is_some_and(|end| !end.watch.is_seeking()) {
            self.alone.found();
        }
    }

    /// Whether a node that is not the origin has lost the way to it.
    pub(super) fn is_orphan(&self) -> bool {
        !self.is_origin() && self.alone.since().is_some()
    }

    // ---- the chain ----

    /// An origin leaves its chain for another one: why, where known.
    pub(super) fn leave_chain(&mut self, now: Time) -> Option<Cause> {
        self.watch_anew(now);
        self.view.avoided.take_cause().or_else(|| self.outage.cause())
    }

    /// The version of the newest record of `hop`.
    pub(super) fn version(&self, hop: u8) -> Option<u32> {
        let record = self.rights.records().iter().find(|record| record.scope.hop == hop);
        record.map(|record| record.scope.version)
    }

    /// Who serves the hop of `record`, if that does not name it: a relay moved on to another candidate while the bootstrap
    /// made this record around the last one. Then another record is needed.
    pub(super) fn unnamed_in(&self, record: &Record) -> Option<NodeId> {
        let serves = self.view.serves(record.scope.hop)?;
        let candidates = self.rights.chain()?.open(record)?;
        candidates.iter().all(|candidate| candidate.node != serves).then_some(serves)
    }

    /// Who watches over `hop`, as this origin knows it: whoever serves the hop before.
    pub(super) fn noticed_by(&self, hop: u8) -> Option<Box<Candidate>> {
        self.known_to_serve(hop.checked_sub(1)?).map(Box::new)
    }

    /// Who serves a relay's hop, as this origin knows it.
    pub(super) fn known_to_serve(&self, hop: u8) -> Option<Candidate> {
        let candidates = self.rights.chain()?.hops().nth(usize::from(hop).checked_sub(1)?)?;
        let serves = |candidate: &Candidate| self.view.serves(hop).is_none_or(|node| node == candidate.node);
        candidates.into_iter().find(serves)
    }

    /// The relays that carry an origin's flow, as far as it knows, from the direction's source on; none if there should be
    /// another number of them.
    pub(super) fn carriers(&self, direction: Direction, number: usize) -> Vec<NodeId> {
        let Some(chain) = self.rights.chain() else { return Vec::new() };
        // The last hop is the target's.
        let relays = chain.hops().len().saturating_sub(1);
        let near = self.candidates.current().map(|candidate| candidate.node);
        let carrier = |(hop, candidates): (u8, Vec<Candidate>)| {
            let first = candidates.into_iter().next().map(|candidate| candidate.node);
            // Its own next it knows. Of the others it knows what it was told; else the plan holds.
            near.filter(|_| hop == 1).or_else(|| self.view.serves(hop)).or(first)
        };
        let mut nodes: Vec<NodeId> = (1u8..).zip(chain.hops().take(relays)).filter_map(carrier).collect();
        if direction == Direction::Backward {
            nodes.reverse();
        }
        // With another number of relays the places would name the wrong ones.
        if nodes.len() == number { nodes } else { Vec::new() }
    }
}
