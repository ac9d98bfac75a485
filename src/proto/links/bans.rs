//! Peers that broke the protocol: turned away for a while, the longer the more often.

use crate::backoff::{Backoff, Pauses};
use crate::id::NodeId;
use crate::time::Time;
use foldhash::{HashMap, HashMapExt};
use std::time::Duration;

/// How long one is turned away.
const BANS: Pauses = Pauses::doubling(Duration::from_secs(1), Duration::from_secs(64));
/// After so long in peace it is forgotten.
const MEMORY: Duration = Duration::from_secs(600);

/// See the module's documentation. There are so many at most; if there are more, the newest are not turned away.
#[derive(Debug)]
pub(super) struct Bans {
    max: usize,
    /// Due when they end.
    bans: HashMap<NodeId, Backoff>,
}

impl Bans {
    pub(super) fn new(max: usize) -> Self {
        Self { max, bans: HashMap::new() }
    }

    pub(super) fn add(&mut self, peer: NodeId, now: Time) {
        let is_remembered = |ban: &Backoff| ban.due().is_some_and(|until| now.since(until) < MEMORY);
        if self.bans.len() >= self.max {
            self.bans.retain(|_, ban| is_remembered(ban));
        }
        let before = self.bans.get(&peer).copied().filter(is_remembered);
        if self.bans.len() < self.max || self.bans.contains_key(&peer) {
            let mut ban = before.unwrap_or(Backoff::new(BANS));
            ban.next(now);
            self.bans.insert(peer, ban);
        }
    }

    pub(super) fn until(&self, peer: NodeId, now: Time) -> Option<Time> {
        self.bans.get(&peer).and_then(Backoff::due).filter(|until| *until > now)
    }
}
