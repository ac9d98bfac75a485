//! Peers that broke the protocol: turned away for a while, the longer the more often.

use crate::id::NodeId;
use crate::time::Time;
use foldhash::{HashMap, HashMapExt};
use std::time::Duration;

/// How long one is turned away at first; doubled each time, so often at most.
const FIRST_BAN: Duration = Duration::from_secs(1);
const MAX_DOUBLINGS: u32 = 6;
/// After so long in peace it is forgotten.
const MEMORY: Duration = Duration::from_secs(600);

#[derive(Clone, Copy, Debug)]
struct Ban {
    count: u32,
    until: Time,
}

/// See the module's documentation. There are so many at most; if there are more, the newest are not turned away.
#[derive(Debug)]
pub(super) struct Bans {
    max: usize,
    bans: HashMap<NodeId, Ban>,
}

impl Bans {
    pub(super) fn new(max: usize) -> Self {
        Self { max, bans: HashMap::new() }
    }

    pub(super) fn add(&mut self, peer: NodeId, now: Time) {
        if self.bans.len() >= self.max {
            self.bans.retain(|_, ban| now.since(ban.until) < MEMORY);
        }
        let before = self.bans.get(&peer).filter(|ban| now.since(ban.until) < MEMORY);
        let count = before.map_or(0, |ban| ban.count);
        let until = now + FIRST_BAN * (1 << count.min(MAX_DOUBLINGS));
        if self.bans.len() < self.max || self.bans.contains_key(&peer) {
            self.bans.insert(peer, Ban { count: count.saturating_add(1), until });
        }
    }

    pub(super) fn until(&self, peer: NodeId, now: Time) -> Option<Time> {
        self.bans.get(&peer).map(|ban| ban.until).filter(|until| *until > now)
    }
}
