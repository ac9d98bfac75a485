//! When the records of an origin's flows are renewed.
//!
//! Records expire, and the keys that their entries are sealed to are forgotten some time later. A flow may outlive both: so
//! its origin has its records renewed in time, again and again, and hands them down the chain.

use super::{Asked, Endpoint};
use crate::backoff::{Backoff, Pauses};
use crate::flows::FlowKey;
use crate::machine::{Action, AskFailure};
use crate::rpc::{Request, Response};
use crate::time::Time;
use crate::timers::Timers;
use std::collections::HashMap;
use std::time::Duration;

/// No record is renewed sooner than this after it was made.
const SOONEST: Duration = Duration::from_secs(1);
/// After records could not be renewed.
const PAUSES: Pauses = Pauses::doubling(SOONEST, Duration::from_secs(64));

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Renewals {
    due: Timers<FlowKey>,
    failed: HashMap<FlowKey, Backoff>,
}

impl Renewals {
    /// The first of a flow's records expires after that: they are renewed when a third to two thirds of the time that is left have
    /// passed, which one flow or another spreads out.
    fn expire(&mut self, flow: FlowKey, left: Duration, now: Time) {
        self.failed.remove(&flow);
        let place = flow.flow.as_bytes().first().copied().unwrap_or(0);
        let pause = left / 768 * (256 + u32::from(place));
        self.due.set(flow, Some(now + pause.max(SOONEST)));
    }

    /// They could not be renewed.
    fn failed(&mut self, flow: FlowKey, now: Time) {
        let backoff = self.failed.entry(flow).or_insert(Backoff::new(PAUSES));
        self.due.set(flow, Some(backoff.next(now)));
    }

    /// The bootstrap had no time: they are renewed then.
    pub(super) fn postpone(&mut self, flow: FlowKey, again: Time) {
        self.due.set(flow, Some(again));
    }

    /// A flow is over.
    pub(super) fn forget(&mut self, flow: FlowKey) {
        self.failed.remove(&flow);
        self.due.set(flow, None);
    }

    /// When to look again.
    pub(super) const fn poll_timeout(&self) -> Option<Time> {
        self.due.next()
    }
}

impl Endpoint {
    /// A flow has other records than before.
    pub(super) fn renew_in_time(&mut self, flow: FlowKey, now: Time) {
        if let Some(expires) = self.flows.expires(&flow) {
            let left = expires.since(self.flows.time().at(now));
            self.renewals.expire(flow, left, now);
        }
    }

    pub(super) fn renew_due(&mut self, now: Time, actions: &mut Vec<Action>) {
        while let Some(flow) = self.renewals.due.pop_due(now) {
            let Some((records, _)) = self.flows.chain(&flow, now) else { continue };
            let request = Request::Renew { records: records.to_vec() };
            self.agent.ask(Asked::Renewal { flow }, request, false, actions);
        }
    }

    pub(super) fn renewal_answered(
        &mut self,
        flow: FlowKey,
        result: Result<Response, AskFailure>,
        now: Time,
        actions: &mut Vec<Action>,
    ) {
        if let Ok(Response::Renewed(records)) = result {
            self.flows.renewed(flow, &records, now, actions);
            self.records_changed(flow, now);
        } else if self.open.contains_key(&flow) {
            // A flow that is over meanwhile needs no records.
            self.renewals.failed(flow, now);
        }
    }
}
