//! How the bootstrap answers: the number of requests of each kind, the time to answer, and the refusals with their reasons.
//!
//! A request is measured from its arrival until its answer is ready to be written.

use crate::net::bootstrap_rpc::{BootstrapRequest, BootstrapResponse};
use crate::net::join;
use hopline_proto::rpc::{Refusal, Request, Response};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use std::time::Duration;
use tokio::time::Instant;

/// In seconds: four times as long from each to the next.
const LATENCY_BUCKETS: [f64; 10] = [1e-5, 4e-5, 16e-5, 64e-5, 256e-5, 1e-2, 4e-2, 16e-2, 64e-2, 2.5];

/// By what a metric is told apart.
type Labels<const N: usize> = [(&'static str, &'static str); N];

/// What a bootstrap measures. A copy shares what is counted.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    /// How long answers took, by kind of request.
    pub(crate) latencies: Family<Labels<1>, Histogram>,
    /// Requests answered, by kind.
    pub(crate) requests: Family<Labels<1>, Counter>,
    /// Requests refused, by kind and reason.
    pub(crate) refusals: Family<Labels<2>, Counter>,
    /// What became of the events for the webhook.
    pub(crate) webhook: Family<Labels<1>, Counter>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            latencies: Family::new_with_constructor(|| Histogram::new(LATENCY_BUCKETS)),
            requests: Family::default(),
            refusals: Family::default(),
            webhook: Family::default(),
        }
    }
}

impl Metrics {
    /// Waits for the answer to a request of this kind, and takes note of it.
    pub(super) async fn measure(
        &self,
        kind: &'static str,
        answering: impl Future<Output = Option<BootstrapResponse>>,
    ) -> Option<BootstrapResponse> {
        let began = Instant::now();
        let response = answering.await?;
        self.note(kind, began.elapsed(), &response);
        Some(response)
    }

    fn note(&self, kind: &'static str, took: Duration, response: &BootstrapResponse) {
        self.latencies.get_or_create(&[("kind", kind)]).observe(took.as_secs_f64());
        self.requests.get_or_create(&[("kind", kind)]).inc();
        if let Some(reason) = refusal(response) {
            self.refusals.get_or_create(&[("kind", kind), ("reason", reason)]).inc();
        }
    }
}

/// What only newer nodes know.
const UNKNOWN: &str = "unknown";

/// What was asked, in a word.
pub(super) const fn kind(request: &BootstrapRequest) -> &'static str {
    match request {
        BootstrapRequest::Join(_) => "join",
        BootstrapRequest::Renew => "renew_certificate",
        BootstrapRequest::Drain { .. } => "order_drain",
        BootstrapRequest::Ask(request) => match request {
            Request::Register { .. } => "register",
            Request::Heartbeat(_) => "heartbeat",
            Request::Deregister { .. } => "deregister",
            Request::ReportDown { .. } => "report_down",
            Request::ReportUp { .. } => "report_up",
            Request::ReportUnreached { .. } => "report_unreached",
            Request::ReportReached { .. } => "report_reached",
            Request::Attachments { .. } => "attachments",
            Request::Plan { .. } => "plan",
            Request::Spare { .. } => "spare",
            Request::Replace { .. } => "replace",
            Request::Renew { .. } => "renew_records",
            Request::List => "list",
            Request::Drain => "drain",
            Request::Unknown => UNKNOWN,
        },
        BootstrapRequest::Unknown => UNKNOWN,
    }
}

/// Why it was refused, in a word; `None` if it was not.
const fn refusal(response: &BootstrapResponse) -> Option<&'static str> {
    match response {
        BootstrapResponse::Answer(Response::Refused(refusal)) => Some(match refusal {
            Refusal::UnknownNode => "unknown_node",
            Refusal::Internal => "internal",
            Refusal::Throttled { .. } => "throttled",
            Refusal::UnknownName { .. } => "unknown_name",
            Refusal::NameTaken { .. } => "name_taken",
            Refusal::PoolTooSmall { .. } => "pool_too_small",
            Refusal::NoSpare => "no_spare",
            Refusal::Denied { .. } => "denied",
            Refusal::NotAttached { .. } => "not_attached",
            Refusal::UnknownRelay { .. } => "unknown_relay",
            Refusal::AmbiguousRelay { .. } => "ambiguous_relay",
            Refusal::OutOfReach { .. } => "out_of_reach",
            Refusal::UnknownRequest => "unknown_request",
            Refusal::Unknown => UNKNOWN,
        }),
        BootstrapResponse::JoinRefused(refusal) => Some(match refusal {
            join::Refusal::WrongSecret => "wrong_secret",
            join::Refusal::Expired { .. } => "expired",
            join::Refusal::NotYours => "not_yours",
            join::Refusal::Used => "used",
            join::Refusal::Revoked => "revoked",
            join::Refusal::Removed => "removed",
            join::Refusal::SingleUse => "single_use",
            join::Refusal::Unknown => UNKNOWN,
        }),
        BootstrapResponse::Issued(_)
        | BootstrapResponse::Unknown
        | BootstrapResponse::Answer(
            Response::Lease(_)
            | Response::Done
            | Response::Relays(_)
            | Response::Planned(_)
            | Response::Replaced(_)
            | Response::Listing(_)
            | Response::Renewed(_)
            | Response::Unknown,
        ) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::ready;

    #[tokio::test]
    async fn answers_are_told_apart_and_what_got_none_does_not_count() {
        let metrics = Metrics::default();
        let refused = BootstrapResponse::Answer(Response::Refused(Refusal::NoSpare));
        metrics.measure("replace", ready(Some(refused))).await.unwrap();
        let done = BootstrapResponse::Answer(Response::Done);
        metrics.measure("replace", ready(Some(done))).await.unwrap();
        assert_eq!(metrics.measure("replace", ready(None)).await, None);
        assert_eq!(metrics.requests.get_or_create(&[("kind", "replace")]).get(), 2);
        let labels = [("kind", "replace"), ("reason", "no_spare")];
        assert_eq!(metrics.refusals.get_or_create(&labels).get(), 1);
    }
}
