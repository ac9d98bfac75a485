//! A bootstrap's pages: pool, health, metrics and events.

use super::events::{self, Streams};
use super::exposition::Exposition;
use super::view::STATUSES;
use super::{Pages, peers};
use crate::bootstrap::Observer;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::json;

/// The pages of a bootstrap.
#[must_use]
pub fn pages(observer: Observer) -> Pages {
    let streams = Streams::new(observer.clone());
    Pages::new()
        .page("/readyz", get(readyz).with_state(observer.clone()))
        .page("/metrics", get(metrics).with_state(observer.clone()))
        .page("/peers", get(peers::page).with_state(observer))
        .page("/events", get(events::page).with_state(streams))
}

/// Whether it does all that it should: whoever spreads requests over several bootstraps may ask.
async fn readyz(State(observer): State<Observer>) -> Response {
    readiness(&doubts(&observer))
}

/// What a node says of itself that is ready, or is not for these reasons.
pub(super) fn readiness(reasons: &[String]) -> Response {
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({"ready": reasons.is_empty(), "reasons": reasons}))).into_response()
}

fn doubts(observer: &Observer) -> Vec<String> {
    let preserving =
        observer.inspect(|machine, now| machine.pool().preserving_since().map(|at| now.since(at)));
    let preserving = preserving.map(|length| {
        format!(
            "self-preservation: so many relays are silent that no leases have ended for {} s",
            length.as_secs()
        )
    });
    let store = observer.store_health().failing.map(|failure| format!("the store fails: {}", failure.cause));
    let stopping = observer.is_stopping().then(|| "shutting down".to_owned());
    [stopping, store, preserving].into_iter().flatten().collect()
}

async fn metrics(State(observer): State<Observer>) -> Exposition {
    let mut exposition = Exposition::new("bootstrap");
    pool(&observer, &mut exposition);
    let metrics = observer.metrics();
    exposition.metric("hopline_pool_events", "What happened to the pool", observer.event_counts());
    exposition.metric("hopline_bootstrap_requests", "Requests answered", metrics.requests.clone());
    exposition.metric("hopline_bootstrap_refusals", "Requests refused", metrics.refusals.clone());
    let help = "From when a request has arrived until its answer is ready";
    exposition.metric("hopline_bootstrap_request_seconds", help, metrics.latencies.clone());
    exposition.metric(
        "hopline_webhook_events",
        "What became of events for the webhook",
        metrics.webhook.clone(),
    );
    for (name, help, value) in observer.counters().each() {
        exposition.counter(&format!("hopline_bootstrap_{name}"), help.trim_end_matches('.'), value);
    }
    exposition.admission("bootstrap", &observer.admission());
    let failing = observer.store_health().failing.is_some();
    exposition.gauge("hopline_store_failing", "Whether the store fails", f64::from(failing));
    exposition
}

fn pool(observer: &Observer, exposition: &mut Exposition) {
    let (by_status, counts, targets, preserving, uptime) = observer.inspect(|machine, now| {
        let by_status = STATUSES.map(|status| (status, machine.pool().count(status)));
        let preserving = machine.pool().preserving_since().is_some();
        (
            by_status,
            machine.pool().counts(),
            machine.targets().len(),
            preserving,
            now.since(observer.started_at()),
        )
    });
    let relays = by_status.map(|(status, count)| (status.as_str(), count as f64));
    exposition.gauges("hopline_pool_relays", "Relays known", "status", relays);
    exposition.gauge("hopline_pool_assignable", "Relays that chains may be led over", counts.online.into());
    exposition.gauge("hopline_pool_targets", "Targets announced", targets as f64);
    let help = "Whether self-preservation keeps silent relays in the pool";
    exposition.gauge("hopline_pool_preserving", help, f64::from(preserving));
    exposition.gauge("hopline_uptime_seconds", "Since the start of the process", uptime.as_secs_f64());
}
