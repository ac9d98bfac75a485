//! Which hops of an origin's flows need another candidate, and when to ask for one again.
//!
//! A relay's wish may die with the relay, and the bootstrap may have nobody yet (a target that lost an attachment relay
//! needs a moment to find another). So the origin itself goes on asking until it is told of one.

use crate::proto::flows::FlowKey;
use crate::proto::id::NodeId;
use crate::proto::time::Time;
use crate::proto::timers::Timers;
use std::collections::BTreeMap;
use std::time::Duration;

/// The first pause between two questions for the same hop; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// The same for a hop that nobody serves.
const FIRST_URGENT_PAUSE: Duration = Duration::from_millis(10);
/// After so many questions it is up to the relay to wish again.
const MAX_ATTEMPTS: u32 = 7;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Backups {
    wanted: BTreeMap<(FlowKey, u8), Wanted>,
    due: Timers<(FlowKey, u8)>,
}

#[derive(Debug)]
struct Wanted {
    /// Who serves the hop now.
    active: Option<NodeId>,
    attempts: u32,
    asking: bool,
}

impl Backups {
    /// A hop needs another candidate. Returns whether that is news to ask about now.
    pub(super) fn want(&mut self, flow: FlowKey, hop: u8, active: Option<NodeId>) -> bool {
        let fresh = Wanted { active, attempts: 0, asking: false };
        let wanted = self.wanted.entry((flow, hop)).or_insert(fresh);
        let is_news = wanted.attempts == 0 || wanted.active != active;
        if wanted.active != active {
            (wanted.active, wanted.attempts) = (active, 0);
        }
        if wanted.asking || !is_news {
            return false;
        }
        wanted.asking = true;
        self.due.set((flow, hop), None);
        true
    }

    /// No more is to be asked for a hop.
    pub(super) fn remove(&mut self, flow: FlowKey, hop: u8) {
        self.wanted.remove(&(flow, hop));
        self.due.set((flow, hop), None);
    }

    /// There is none yet. Returns whether nobody serves the hop: then another route may help.
    pub(super) fn refused(&mut self, flow: FlowKey, hop: u8, now: Time) -> bool {
        let Some(wanted) = self.wanted.get_mut(&(flow, hop)) else { return false };
        let is_urgent = wanted.active.is_none();
        let pause = if is_urgent { FIRST_URGENT_PAUSE } else { FIRST_PAUSE };
        let again = now + pause * (1 << wanted.attempts);
        wanted.asking = false;
        wanted.attempts += 1;
        if wanted.attempts >= MAX_ATTEMPTS {
            self.remove(flow, hop);
        } else {
            self.due.set((flow, hop), Some(again));
        }
        is_urgent
    }

    /// What to ask for again now.
    pub(super) fn take_due(&mut self, now: Time) -> Vec<(FlowKey, u8, Option<NodeId>)> {
        let mut due = Vec::new();
        while let Some(key) = self.due.pop_due(now) {
            if let Some(wanted) = self.wanted.get_mut(&key) {
                wanted.asking = true;
                due.push((key.0, key.1, wanted.active));
            }
        }
        due
    }

    /// When to look again.
    pub(super) fn poll_timeout(&self) -> Option<Time> {
        self.due.next()
    }

    /// A flow is over, or goes over another chain.
    pub(super) fn forget(&mut self, flow: FlowKey) {
        let hops =
            self.wanted.range((flow, 0)..=(flow, u8::MAX)).map(|((_, hop), _)| *hop).collect::<Vec<u8>>();
        for hop in hops {
            self.remove(flow, hop);
        }
    }
}
