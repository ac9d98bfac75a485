//! What a flow's events tell of its chain.

use hopline::endpoint::{FlowEvent, Hop};
use hopline_proto::frame::Cause;

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
            FlowEvent::Rerouted { hop, to, cause, .. } if *cause == Cause::Followed.as_str() => {
                // Nobody failed there: whoever took over the hop before chose the backup, and the two change places.
                self.failovers += 1;
                self.change_places(*hop, to);
            }
            FlowEvent::Chosen { hop, to, .. } => self.change_places(*hop, to),
            FlowEvent::Rerouted { hop, to, .. } | FlowEvent::Drained { hop, to, .. } => {
                self.failovers += 1;
                if let Some(hop) = self.hops.get_mut(usize::from(*hop).wrapping_sub(1)) {
                    hop.backup.take_if(|backup| backup == to);
                    hop.primary.clone_from(to);
                }
            }
            _ => {}
        }
    }

    /// A hop's backup serves it now, and its primary stands by.
    fn change_places(&mut self, hop: u8, to: &str) {
        if let Some(hop) = self.hops.get_mut(usize::from(hop).wrapping_sub(1)) {
            let before = std::mem::replace(&mut hop.primary, to.to_owned());
            if hop.backup.as_deref() == Some(to) {
                hop.backup = Some(before);
            }
        }
    }

    pub(super) fn primary(&self, hop: u8) -> Option<&str> {
        self.hops.get(usize::from(hop).checked_sub(1)?).map(|hop| hop.primary.as_str())
    }

    pub(super) fn carries(&self, relay: &str) -> bool {
        self.hops.iter().any(|hop| hop.primary == relay)
    }

    /// The first hop without a primary and a backup that run. Who serves the hop before is no backup: it can't dial itself.
    pub(super) fn unprotected(&self, runs: impl Fn(&str) -> bool) -> Option<u8> {
        let protected = |at: u8, hop: &Hop| {
            let may_serve = |backup: &String| runs(backup) && self.primary(at - 1) != Some(backup);
            runs(&hop.primary) && hop.backup.as_ref().is_some_and(may_serve)
        };
        (1..).zip(&self.hops).find(|(at, hop)| !protected(*at, hop)).map(|(at, _)| at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hopline_proto::id::FlowId;

    fn rerouted(cause: Cause) -> FlowEvent {
        let flow = FlowId::from_bytes([1; 16]);
        FlowEvent::Rerouted {
            flow,
            hop: 1,
            from: "a".to_owned(),
            to: "b".to_owned(),
            cause: cause.as_str(),
            gap_ms: 0.0,
            by: "origin".to_owned(),
            evidence: "none",
            detected_ms: 0.0,
            replayed_bytes: 0,
            watch: None,
        }
    }

    #[test]
    fn whoever_failed_stands_by_no_more_but_whoever_was_passed_over_does() {
        for (cause, backup) in [(Cause::Silence, None), (Cause::Followed, Some("a"))] {
            let mut chain = Chain::default();
            let hops = vec![Hop { primary: "a".to_owned(), backup: Some("b".to_owned()) }];
            chain.apply(&FlowEvent::Rebuilt { flow: FlowId::from_bytes([1; 16]), hops, cause: None });
            chain.apply(&rerouted(cause));
            assert_eq!(
                (chain.primary(1), chain.hops()[0].backup.as_deref()),
                (Some("b"), backup),
                "{cause:?}"
            );
        }
    }
}
