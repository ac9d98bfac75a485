//! A search for a bootstrap that knows more peers, when the present one knows too few.

use super::{Action, Enrolment};
use crate::time::Time;

/// For a bootstrap that knows more peers than the one where it began, `moves` bootstraps ago.
#[derive(Clone, Copy, Debug)]
pub(super) struct Search {
    known: u32,
    moves: usize,
}

impl Enrolment {
    /// Whether a lease that tells of so many peers calls for another bootstrap.
    pub(super) fn misses_peers(&mut self, peers: u32, now: Time) -> bool {
        let too_few = peers < self.peers.min(self.config.min_peers);
        self.peers = self.peers.max(peers);
        too_few && now >= self.register_not_before + self.config.backoff
    }

    /// Another bootstrap may know more peers than `known`, this node among them. If none does, it comes back to this one, and
    /// leaves it at that until there are fewer still.
    pub(super) fn look_for_peers(&mut self, known: u32, now: Time, actions: &mut Vec<Action>) {
        self.peers = 0;
        self.counters.few_peers += 1;
        self.search = Some(Search { known, moves: 0 });
        self.look_on(now, actions);
    }

    pub(super) fn look_on(&mut self, now: Time, actions: &mut Vec<Action>) {
        if let Some(search) = &mut self.search {
            search.moves += 1;
            self.move_on();
            self.register_soon(now, actions);
        }
    }

    /// Whether to look further for peers, after a bootstrap that knows so many.
    pub(super) fn looks_further(&mut self, peers: u32) -> bool {
        let further = |search: &Search| peers <= search.known && search.moves < self.bootstraps;
        self.search = self.search.take_if(|search| further(search));
        self.search.is_some()
    }
}
