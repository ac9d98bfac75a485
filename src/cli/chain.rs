//! What a flow's events tell of its chain.

use crate::endpoint::{FlowEvent, Hop};

/// A flow's chain, as its events tell it.
#[derive(Debug, Default)]
pub(super) struct Chain {
    hops: Vec<Hop>,
    failovers: u32,
}

impl Chain {
    pub(super) fn hops(&self) -> &[Hop] {
        &self.hops
    }

    /// How often the flow was rerouted or rebuilt.
    pub(super) const fn failovers(&self) -> u32 {
        self.failovers
    }

    pub(super) fn apply(&mut self, event: &FlowEvent) {
        match event {
            FlowEvent::Chain { hops, .. } | FlowEvent::BackupReplaced { hops, .. } => {
                self.hops.clone_from(hops);
            }
            FlowEvent::Rebuilt { hops, .. } => {
                self.hops.clone_from(hops);
                self.failovers += 1;
            }
            FlowEvent::Rerouted { hop, to, .. } | FlowEvent::Drained { hop, to, .. } => {
                self.failovers += 1;
                if let Some(hop) = self.hops.get_mut(usize::from(*hop).wrapping_sub(1)) {
                    hop.backup.take_if(|backup| backup == to);
                    hop.primary.clone_from(to);
                }
            }
            FlowEvent::Closed { .. } => {}
        }
    }

    pub(super) fn primary(&self, hop: u8) -> Option<&str> {
        self.hops.get(usize::from(hop).checked_sub(1)?).map(|hop| hop.primary.as_str())
    }

    pub(super) fn carries(&self, relay: &str) -> bool {
        self.hops.iter().any(|hop| hop.primary == relay)
    }

    /// The first hop without a primary and a backup that run.
    pub(super) fn unprotected(&self, runs: impl Fn(&str) -> bool) -> Option<usize> {
        let protected =
            |hop: &Hop| runs(&hop.primary) && hop.backup.as_ref().is_some_and(|backup| runs(backup));
        self.hops.iter().position(|hop| !protected(hop)).map(|place| place + 1)
    }
}
