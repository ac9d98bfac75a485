//! What the flows' events tell, counted.

use super::pool::Gauges;
use hdrhistogram::Histogram;
use hopline::endpoint::{FlowEvent, Hop};
use hopline_command::Failure;
use hopline_proto::id::FlowId;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::{Receiver, error::RecvError};

/// Who died less long ago may be named in good faith: nobody can know yet.
const FRESHLY_DEAD: Duration = Duration::from_millis(50);

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
    /// Relays that a flow was given, as primary or backup, and those of them that were dead by then.
    pub(super) assigned: u64,
    pub(super) assigned_dead: u64,
    /// For how long those had been dead, in microseconds.
    pub(super) dead_for: Histogram<u64>,
    known: HashMap<FlowId, HashSet<String>>,
    gauges: Arc<Gauges>,
    pub(super) causes: BTreeMap<&'static str, u64>,
    /// Of failovers: from the last sign of life over the old leg to the answer over the new one, in microseconds.
    pub(super) gaps: Histogram<u64>,
}

impl Counts {
    pub(super) fn new(gauges: Arc<Gauges>) -> Result<Self, Failure> {
        Ok(Self {
            rerouted: 0,
            rebuilt: 0,
            backups_replaced: 0,
            broken: 0,
            missed: 0,
            assigned: 0,
            assigned_dead: 0,
            dead_for: super::histogram()?,
            known: HashMap::new(),
            gauges,
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
        if let FlowEvent::Chain { flow, hops, .. }
        | FlowEvent::BackupReplaced { flow, hops, .. }
        | FlowEvent::Rebuilt { flow, hops, .. } = event
        {
            self.assign(*flow, hops);
        }
        match event {
            FlowEvent::Rerouted { gap_ms, .. } | FlowEvent::Drained { gap_ms, .. } => {
                let cause =
                    if let FlowEvent::Rerouted { cause, .. } = event { cause.as_str() } else { "drain" };
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
            _ => {}
        }
    }

    /// Looks at the relays that a flow's chain did not name before.
    fn assign(&mut self, flow: FlowId, hops: &[Hop]) {
        let named = hops.iter().flat_map(|hop| [Some(&hop.primary), hop.backup.as_ref()]).flatten();
        let named: HashSet<String> = named.cloned().collect();
        let before = self.known.remove(&flow).unwrap_or_default();
        for relay in named.difference(&before) {
            self.assigned += 1;
            if let Some(dead_for) = self.gauges.dead_for(relay).filter(|dead_for| *dead_for > FRESHLY_DEAD) {
                self.assigned_dead += 1;
                self.dead_for.saturating_record(u64::try_from(dead_for.as_micros()).unwrap_or(u64::MAX));
            }
        }
        self.known.insert(flow, named);
    }
}
