//! What an endpoint does when the bootstrap has no time for a question: it asks again when it was told to. Nothing has
//! failed, so nothing is counted; where there is another way for a flow, that is taken meanwhile.

use super::rebuild::Waiting;
use super::{Asked, Endpoint};
use crate::machine::Action;
use crate::time::Time;
use std::time::Duration;

/// Whatever a bootstrap says, nobody asks sooner,
const SHORTEST_WAIT: Duration = Duration::from_millis(10);
/// or waits for longer.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

impl Endpoint {
    pub(super) fn throttled(
        &mut self,
        asked: Asked,
        retry_after: Duration,
        now: Time,
        actions: &mut Vec<Action>,
    ) {
        let again = now + retry_after.clamp(SHORTEST_WAIT, LONGEST_WAIT);
        tracing::debug!(?asked, ?retry_after, "the bootstrap is busy; asks again");
        match asked {
            Asked::Plan { flow, attempt, .. } => {
                if !self.open_over_kept(flow, now, actions) {
                    self.waits.set(Waiting::Plan(flow, attempt), Some(again));
                }
            }
            // It goes on counting as asked: a kept route is taken when that has lasted for too long.
            Asked::NewRoute { flow, without } => {
                self.waits.set(Waiting::NewRoute(flow, without), Some(again));
            }
            Asked::Spare { flow, .. } => {
                if let Some(to) = self.open.get(&flow) {
                    self.routes.set_spare_due(to, Some(again));
                }
            }
            Asked::Backup { flow, hop, chain } => {
                if self.goes_over(flow, chain) {
                    self.backups.postpone(flow, hop, again);
                }
            }
            Asked::Renewal { flow } => {
                if self.open.contains_key(&flow) {
                    self.renewals.postpone(flow, again);
                }
            }
            Asked::Attachments => {
                if let Some(target) = &mut self.target {
                    target.ask_not_before = again;
                    target.ask_due = Some(again);
                }
            }
        }
    }
}
