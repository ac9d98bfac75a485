//! What the flows' events tell, counted.

use crate::cli::Failure;
use crate::endpoint::FlowEvent;
use hdrhistogram::Histogram;
use std::collections::BTreeMap;
use tokio::sync::broadcast::{Receiver, error::RecvError};

/// Repairs of all flows of a phase.
#[derive(Debug)]
pub(super) struct Counts {
    pub(super) rerouted: u64,
    pub(super) rebuilt: u64,
    pub(super) backups_replaced: u64,
    /// Flows that ended before everything had arrived.
    pub(super) broken: u64,
    /// Events that came too fast to be counted.
    pub(super) missed: u64,
    pub(super) causes: BTreeMap<&'static str, u64>,
    /// Of failovers: from the last sign of life over the old leg to the answer over the new one, in microseconds.
    pub(super) gaps: Histogram<u64>,
}

impl Counts {
    pub(super) fn new() -> Result<Self, Failure> {
        Ok(Self {
            rerouted: 0,
            rebuilt: 0,
            backups_replaced: 0,
            broken: 0,
            missed: 0,
            causes: BTreeMap::new(),
            gaps: super::histogram()?,
        })
    }

    /// Counts what happens until nothing can any more, or this is dropped.
    pub(super) async fn follow(&mut self, mut events: Vec<Receiver<FlowEvent>>) {
        while !events.is_empty() {
            let next = events.iter_mut().map(|events| Box::pin(events.recv()));
            let (event, place, _) = futures_util::future::select_all(next).await;
            match event {
                Ok(event) => self.count(&event),
                Err(RecvError::Lagged(missed)) => self.missed += missed,
                Err(RecvError::Closed) => drop(events.swap_remove(place)),
            }
        }
    }

    fn count(&mut self, event: &FlowEvent) {
        tracing::debug!(?event, "of a flow");
        match event {
            FlowEvent::Rerouted { cause, gap_ms, .. } => {
                self.rerouted += 1;
                *self.causes.entry(cause).or_default() += 1;
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "rounded, and bounded"
                )]
                self.gaps.saturating_record((gap_ms * 1000.0) as u64);
            }
            FlowEvent::Rebuilt { .. } => self.rebuilt += 1,
            FlowEvent::BackupReplaced { .. } => self.backups_replaced += 1,
            FlowEvent::Closed { complete: false, .. } => self.broken += 1,
            FlowEvent::Closed { .. } | FlowEvent::Chain { .. } => {}
        }
    }
}
