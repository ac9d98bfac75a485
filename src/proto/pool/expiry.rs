//! What time brings about: leases end, and who has been gone for long is forgotten.
//!
//! Queues are lazy: a heartbeat leaves a relay where it is queued, and when that time comes the relay is queued anew. So
//! first those that are due are looked through, and who is still due then was not heard. Of very much that is due each
//! call does a part.

use super::leases::Entry;
use super::{Kind, Pool, PoolEvent};
use crate::id::NodeId;
use crate::rpc::Status;
use crate::time::Time;
use std::collections::BTreeSet;
use std::ops::Bound;
use std::time::Duration;

/// How many leases end in one call; with more due, the next ones follow after [`PAUSE`].
pub(super) const BATCH: usize = 500;
pub(super) const PAUSE: Duration = Duration::from_millis(1);
/// How many relays are looked at in one call whether they were heard since they were queued.
const LOOK: usize = 4000;

/// What an index has up to now.
fn due(index: &BTreeSet<(Time, NodeId)>, now: Time) -> impl Iterator<Item = &(Time, NodeId)> {
    index.iter().take_while(move |(at, _)| *at <= now)
}

impl Pool {
    /// Does what time has brought about: ends leases, forgets who is long gone. Of very much that is due it does a part, so
    /// that nobody waits for long, and the rest soon.
    pub fn expire(&mut self, now: Time) {
        if self.more_at.is_some_and(|at| now < at) {
            return;
        }
        let mut is_more = self.forget_gone(now);
        if self.preservation.review_at().is_none_or(|at| at <= now) {
            is_more |= self.look_through(now) || self.end_leases(now);
        }
        self.more_at = is_more.then_some(now + PAUSE);
    }

    /// Forgets who has been gone for long. Whether there are more of them.
    fn forget_gone(&mut self, now: Time) -> bool {
        for (_, node) in due(&self.gone, now).take(BATCH).copied().collect::<Vec<_>>() {
            self.forget(&node);
        }
        due(&self.gone, now).next().is_some()
    }

    /// Queues anew who was heard since it was queued. Whether some are left to look at.
    fn look_through(&mut self, now: Time) -> bool {
        let begun: Vec<Entry> = std::iter::from_fn(|| self.leases.pop(now)).take(LOOK).collect();
        for entry in &begun {
            self.queue_anew(entry, now);
        }
        let last = (now, NodeId::from_bytes([0xff; 32]));
        if begun.len() == LOOK {
            return true;
        } else if self.looked_at.is_some_and(|seen| seen >= last) {
            return false;
        }
        let from = self.looked_at.map_or(Bound::Unbounded, Bound::Excluded);
        let ahead = self.leases.near().range((from, Bound::Included(last)));
        let batch: Vec<(Time, NodeId)> = ahead.take(LOOK).copied().collect();
        self.looked_at = batch.last().copied().or(self.looked_at);
        for (_, node) in &batch {
            self.requeue(node, now);
        }
        batch.len() == LOOK
    }

    /// Queues a relay again whose part of the leases has begun, if the entry is still of use.
    fn queue_anew(&mut self, entry: &Entry, now: Time) {
        let is_there = self.relays.get(entry.place).is_some_and(|relay| relay.node == entry.node);
        let place = if is_there { Some(entry.place) } else { self.place(&entry.node) };
        let Some((place, relay)) = place.and_then(|place| Some((place, self.relays.get(place)?))) else {
            return;
        };
        let kind = Kind::of(relay);
        if relay.queued_at == entry.at && kind.is_well() {
            let due = relay.due(self.config.lease).max(entry.at);
            // It may have come back for the same time meanwhile.
            self.unqueue(entry.node, entry.at, kind);
            self.queue(place, due, kind, now);
        }
    }

    /// Has silence its consequences, if not for too many at once. Whether there are more of them.
    fn end_leases(&mut self, now: Time) -> bool {
        let silent = due(self.leases.near(), now).count();
        let may_lose = silent == 0 && self.preserving_since().is_none() || self.may_lose(silent, now);
        let silent = due(self.leases.near(), now).take(if may_lose { BATCH } else { 0 });
        let ending: Vec<NodeId> =
            silent.chain(due(&self.doubtful, now).take(BATCH)).map(|(_, node)| *node).collect();
        for node in ending {
            if !self.requeue(&node, now) {
                self.end_lease(&node, now);
            }
        }
        let is_more = may_lose && due(self.leases.near(), now).next().is_some();
        if !is_more {
            self.looked_at = None;
        }
        is_more || due(&self.doubtful, now).next().is_some()
    }

    /// Queues a relay for a later time, if that is due later than it is queued. Whether it is.
    fn requeue(&mut self, node: &NodeId, now: Time) -> bool {
        let Some((place, relay)) = self.place(node).and_then(|place| Some((place, self.relays.get(place)?)))
        else {
            return false;
        };
        let (at, due, kind) = (relay.queued_at, relay.due(self.config.lease), Kind::of(relay));
        if due > at {
            self.unqueue(*node, at, kind);
            self.queue(place, due, kind, now);
        }
        due > at
    }

    /// When to [`Pool::expire`] next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        let first = |index: &BTreeSet<(Time, NodeId)>| index.first().map(|(at, _)| *at);
        let ending = || [self.leases.next(), first(&self.doubtful)].into_iter().flatten().min();
        // While the pool preserves itself no lease ends before the review.
        let lease = self.preservation.review_at().or_else(ending);
        self.more_at.or_else(|| [lease, first(&self.gone)].into_iter().flatten().min())
    }

    /// The lease of `node` is about to end, or has.
    fn end_lease(&mut self, node: &NodeId, now: Time) {
        let over = self.get(node).is_some_and(|relay| relay.lease_ends <= now);
        self.set_status(node, if over { Status::Offline } else { Status::Suspect }, now);
    }

    /// Whether relays may be taken for dead because so many are silent; if so, the first of them are, now.
    fn may_lose(&mut self, silent: usize, now: Time) -> bool {
        let was_preserving = self.preserving_since().is_some();
        let may = self.preservation.may_lose(silent, silent.min(BATCH), self.population(), now);
        match (was_preserving, may) {
            (false, false) => self.events.push(PoolEvent::Preserving { overdue: silent }),
            (true, true) => self.events.push(PoolEvent::Resumed),
            (false, true) | (true, false) => {}
        }
        may
    }
}
