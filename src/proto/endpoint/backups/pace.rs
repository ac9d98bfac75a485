//! How fast an origin asks for backups when many hops need one, as when a relay dies that many flows went over.
//!
//! What an answer costs is that neighbours meet: a handshake costs as much as moving many flows. So [`AT_ONCE`] questions may be
//! under way, and one more each [`INTERVAL`]. An answer after which nobody has to meet (links of other flows are up already)
//! makes place for the next at once, and for one more: with few relays a thousand flows need few handshakes, and get their
//! backups in a few round trips.

use crate::id::NodeId;
use crate::time::Time;
use foldhash::HashMap;
use std::time::Duration;

/// Questions that may be under way though neighbours have to meet after each of them.
pub(super) const AT_ONCE: u32 = 8;
/// How long until one more may be asked.
const INTERVAL: Duration = Duration::from_millis(15);
/// However little they cost, no more are under way.
const MOST_AT_ONCE: u32 = 64;

/// See the module's documentation. It is the generic cell rate algorithm (ITU-T I.371), which is given back what was not used.
#[derive(Debug)]
pub(super) struct Pace {
    /// When all that was asked would have been, at one question each interval.
    spent: Time,
    /// Questions that may be under way.
    at_once: u32,
    not_before: Time,
}

impl Default for Pace {
    fn default() -> Self {
        Self { spent: Time::ZERO, at_once: AT_ONCE, not_before: Time::ZERO }
    }
}

impl Pace {
    /// When the next question may be asked.
    pub(super) fn turn(&self) -> Time {
        (self.spent - INTERVAL * (self.at_once - 1)).max(self.not_before)
    }

    /// One is asked.
    pub(super) fn asked(&mut self, now: Time) {
        self.spent = self.spent.max(now) + INTERVAL;
    }

    /// One is answered, and neighbours have to meet, or not.
    pub(super) fn answered(&mut self, is_new: bool) {
        if is_new {
            self.at_once = AT_ONCE;
        } else {
            self.spent = self.spent - INTERVAL;
            self.at_once = (self.at_once + 1).min(MOST_AT_ONCE);
        }
    }

    /// None is to be asked before that.
    pub(super) fn not_before(&mut self, then: Time) {
        self.not_before = self.not_before.max(then);
    }
}

/// For so long neighbours count as linked after a record made them so.
const MEMORY: Duration = Duration::from_secs(20);
/// Pairs of neighbours that are remembered; beyond, all are forgotten that met first longer ago than that, or all.
const MAX_PAIRS: usize = 4096;

/// Which relays know each other, as this origin's records made them neighbours.
#[derive(Debug, Default)]
pub(super) struct Acquainted {
    pairs: HashMap<(NodeId, NodeId), Time>,
}

impl Acquainted {
    /// Two are neighbours. Returns whether that is new to them.
    pub(super) fn meet(&mut self, one: NodeId, other: NodeId, now: Time) -> bool {
        if self.pairs.len() >= MAX_PAIRS {
            self.pairs.retain(|_, at| now.since(*at) < MEMORY);
            if self.pairs.len() >= MAX_PAIRS {
                self.pairs.clear();
            }
        }
        let before = self.pairs.insert((one, other), now);
        before.is_none_or(|at| now.since(at) >= MEMORY)
    }
}
