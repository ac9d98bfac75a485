//! The chain that a flow goes over at present.

use super::events::{FlowEvent, Hop};
use hopline_proto::frame::Cause;
use std::fmt;

/// How safe a hop is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HopState {
    /// The primary serves it, and the backup can take over within milliseconds.
    Serving,
    /// The primary serves it. If it fails now, another relay has to be found first.
    Unprotected,
    /// No relay serves it. The flow goes on as soon as one is found.
    Repairing,
}

impl HopState {
    const fn of(backup: Option<&String>) -> Self {
        if backup.is_some() { Self::Serving } else { Self::Unprotected }
    }
}

impl fmt::Display for HopState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Serving => "serving",
            Self::Unprotected => "unprotected",
            Self::Repairing => "repairing",
        })
    }
}

/// A hop of a [`Chain`], as it is now. Relays are named as in listings; `?` is one that this endpoint does not know.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChainHop {
    /// The relay that serves the hop.
    pub primary: String,
    /// The relay that takes over if the primary fails; `None` while there is none.
    pub backup: Option<String>,
    /// How safe the hop is.
    pub state: HopState,
    /// How often another relay took over the hop since the flow was opened, or since its last rebuild.
    pub failovers: u32,
}

impl ChainHop {
    /// Another relay serves the hop. If that was the backup, the one before stands by or is gone.
    fn change_primary(&mut self, to: &str, stands_by: bool) {
        let before = std::mem::replace(&mut self.primary, to.to_owned());
        if self.backup.as_deref() == Some(to) {
            self.backup = stands_by.then_some(before);
        }
        self.state = HopState::of(self.backup.as_ref());
    }
}

/// The chain that a flow goes over at present; from [`Flow::watch_chain`](super::Flow::watch_chain).
///
/// Only the flow's origin knows the chain. At the target it has no hops.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    hops: Vec<ChainHop>,
    failovers: u32,
    rebuilds: u32,
}

impl Chain {
    /// The hops, that of the nearest relay first.
    #[must_use]
    pub fn hops(&self) -> &[ChainHop] {
        &self.hops
    }

    /// How often a relay took over from another since the flow was opened, rebuilds included.
    #[must_use]
    pub const fn failovers(&self) -> u32 {
        self.failovers
    }

    /// How often the flow moved to another chain as a whole.
    #[must_use]
    pub const fn rebuilds(&self) -> u32 {
        self.rebuilds
    }

    /// The relay that serves a hop; the nearest hop is 1.
    #[must_use]
    pub fn primary(&self, hop: u8) -> Option<&str> {
        self.hops.get(usize::from(hop).checked_sub(1)?).map(|hop| hop.primary.as_str())
    }

    /// Whether a relay of this name serves a hop.
    #[must_use]
    pub fn carries(&self, relay: &str) -> bool {
        self.hops.iter().any(|hop| hop.primary == relay)
    }

    /// Whether the chain is known, and each hop has a backup that can take over.
    #[must_use]
    pub fn is_protected(&self) -> bool {
        !self.hops.is_empty() && self.hops.iter().all(|hop| hop.state == HopState::Serving)
    }

    /// Takes in what happened to the flow.
    pub(super) fn apply(&mut self, event: &FlowEvent) {
        match event {
            FlowEvent::Chain { hops, .. } => self.replace(hops),
            FlowEvent::BackupReplaced { hop, hops, .. } => {
                self.replace(hops);
                // Where nobody serves a hop, that is so until somebody has taken it over.
                if let Some(hop) = self.hop(*hop).filter(|hop| hop.state != HopState::Repairing) {
                    hop.state = HopState::of(hop.backup.as_ref());
                }
            }
            FlowEvent::Rebuilt { hops, .. } => {
                self.failovers += 1;
                self.rebuilds += 1;
                self.hops.clear();
                self.replace(hops);
            }
            // Nobody failed there: whoever took over the hop before chose the backup, and the two change places.
            FlowEvent::Rerouted { hop, to, cause: Cause::Followed, .. } => self.taken_over(*hop, to, true),
            FlowEvent::Rerouted { hop, to, .. } | FlowEvent::Drained { hop, to, .. } => {
                self.taken_over(*hop, to, false);
            }
            FlowEvent::Chosen { hop, to, .. } => {
                if let Some(hop) = self.hop(*hop) {
                    hop.change_primary(to, true);
                }
            }
            FlowEvent::Avoided { .. } | FlowEvent::Closed { .. } => {}
        }
    }

    /// A hop needs another candidate. Returns whether the chain did not show that.
    pub(super) fn lacks_candidate(&mut self, hop: u8, is_served: bool) -> bool {
        let state = if is_served { HopState::Unprotected } else { HopState::Repairing };
        self.hop(hop).is_some_and(|hop| std::mem::replace(&mut hop.state, state) != state)
    }

    fn hop(&mut self, hop: u8) -> Option<&mut ChainHop> {
        self.hops.get_mut(usize::from(hop).checked_sub(1)?)
    }

    /// The hops are these now. The state of one whose relays are the same stays as it was.
    fn replace(&mut self, hops: &[Hop]) {
        let before = std::mem::take(&mut self.hops);
        let mut before = before.into_iter();
        let new = hops.iter().map(|Hop { primary, backup }| {
            let (primary, backup) = (primary.clone(), backup.clone());
            let (mut state, mut failovers) = (HopState::of(backup.as_ref()), 0);
            if let Some(before) = before.next() {
                failovers = before.failovers;
                let is_same = before.primary == primary && before.backup == backup;
                if is_same || before.state == HopState::Repairing {
                    state = before.state;
                }
            }
            ChainHop { primary, backup, state, failovers }
        });
        self.hops = new.collect();
    }

    fn taken_over(&mut self, hop: u8, to: &str, stands_by: bool) {
        self.failovers += 1;
        if let Some(hop) = self.hop(hop) {
            hop.failovers += 1;
            hop.change_primary(to, stands_by);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hopline_proto::frame::Evidence;
    use hopline_proto::id::FlowId;

    const FLOW: FlowId = FlowId::from_bytes([1; 16]);

    fn hops(backup: Option<&str>) -> Vec<Hop> {
        vec![Hop { primary: "a".to_owned(), backup: backup.map(str::to_owned) }]
    }

    fn opened() -> Chain {
        let mut chain = Chain::default();
        assert!(!chain.is_protected(), "it is not known yet");
        chain.apply(&FlowEvent::Chain { flow: FLOW, name: "x".to_owned(), hops: hops(Some("b")) });
        assert!(chain.is_protected());
        chain
    }

    fn rerouted(cause: Cause) -> FlowEvent {
        FlowEvent::Rerouted {
            flow: FLOW,
            hop: 1,
            from: "a".to_owned(),
            to: "b".to_owned(),
            cause,
            gap_ms: 0.0,
            by: "origin".to_owned(),
            evidence: Evidence::None,
            detected_ms: 0.0,
            replayed_bytes: 0,
            watch: None,
        }
    }

    #[test]
    fn whoever_failed_stands_by_no_more_but_whoever_was_passed_over_does() {
        for (cause, backup, state) in
            [(Cause::Silence, None, HopState::Unprotected), (Cause::Followed, Some("a"), HopState::Serving)]
        {
            let mut chain = opened();
            chain.apply(&rerouted(cause));
            let hop = &chain.hops()[0];
            assert_eq!((chain.primary(1), hop.backup.as_deref(), hop.state), (Some("b"), backup, state));
            assert_eq!((hop.failovers, chain.failovers(), chain.rebuilds()), (1, 1, 0), "{cause:?}");
        }
    }

    #[test]
    fn a_hop_is_repaired_once_a_relay_serves_it_and_safe_once_it_has_another_backup() {
        let replaced = FlowEvent::BackupReplaced { flow: FLOW, hop: 1, hops: hops(Some("c")) };
        let mut chain = opened();
        assert!(chain.lacks_candidate(1, false) && !chain.lacks_candidate(1, false), "told once");
        assert_eq!(chain.hops()[0].state, HopState::Repairing);
        chain.apply(&replaced);
        assert_eq!(chain.hops()[0].state, HopState::Repairing, "nobody has taken over yet");
        chain.apply(&rerouted(Cause::Silence));
        chain.lacks_candidate(1, true);
        assert_eq!(chain.hops()[0].state, HopState::Unprotected);
        chain.apply(&replaced);
        assert!(chain.is_protected());
        assert_eq!(chain.hops()[0].failovers, 1, "it counts on");
        assert!(!chain.lacks_candidate(9, true), "there is no such hop");
    }

    #[test]
    fn another_hops_new_backup_does_not_make_a_hop_safe() {
        let mut chain = opened();
        assert!(chain.lacks_candidate(1, true));
        chain.apply(&FlowEvent::BackupReplaced { flow: FLOW, hop: 2, hops: hops(Some("b")) });
        assert!(!chain.is_protected());
    }

    #[test]
    fn a_rebuilt_chain_counts_its_hops_anew() {
        let mut chain = opened();
        chain.apply(&rerouted(Cause::Silence));
        chain.apply(&FlowEvent::Rebuilt { flow: FLOW, hops: hops(None), cause: None });
        assert_eq!((chain.failovers(), chain.rebuilds(), chain.hops()[0].failovers), (2, 1, 0));
        assert!(!chain.is_protected() && chain.carries("a"));
    }
}
