//! A relay's pages: its health and its metrics.

use super::Pages;
use super::bootstrap::readiness;
use super::exposition::Exposition;
use crate::relay::{Observer, Vitals};
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use hopline_proto::enrolment::Counters;
use hopline_proto::forward::Drop;

/// The pages of a relay.
#[must_use]
pub fn pages(observer: Observer) -> Pages {
    Pages::new()
        .page("/readyz", get(readyz).with_state(observer.clone()))
        .page("/metrics", get(metrics).with_state(observer))
}

/// Whether it takes new flows.
async fn readyz(State(observer): State<Observer>) -> Response {
    let doubt = match observer.vitals().await {
        _ if observer.is_leaving() => Some("draining: it takes no new flows"),
        None => Some("its thread does not answer"),
        Some(Vitals { is_enrolled: false, .. }) => Some("not in the pool: no bootstrap has given it a lease"),
        Some(_) => None,
    };
    readiness(&doubt.map(str::to_owned).into_iter().collect::<Vec<_>>())
}

async fn metrics(State(observer): State<Observer>) -> Exposition {
    let mut exposition = Exposition::new("relay");
    links(&observer, &mut exposition);
    packets(&observer, &mut exposition);
    let failovers = observer.failovers();
    exposition.metric(
        "hopline_relay_failovers",
        "Flows moved to another next relay",
        failovers.causes.clone(),
    );
    let help = "How long a failover kept bytes from flowing";
    exposition.metric("hopline_relay_gap_seconds", help, failovers.gaps.clone());
    let draining = f64::from(observer.is_leaving());
    exposition.gauge("hopline_relay_draining", "Whether it takes no new flows, as it leaves", draining);
    // Where the thread does not answer, its numbers are missing rather than wrong.
    if let Some(vitals) = observer.vitals().await {
        exposition.gauge("hopline_relay_flows", "Flows that it carries", vitals.flows as f64);
        let help = "What is kept for replay beyond the reserves";
        exposition.gauge("hopline_relay_replay_bytes", help, vitals.replay_bytes as f64);
        let help = "Whether it has a lease, as far as it knows";
        exposition.gauge("hopline_relay_enrolled", help, f64::from(vitals.is_enrolled));
        enrolment(&vitals.enrolment, &mut exposition);
        exposition.admission("relay", &vitals.admission);
    }
    exposition
}

fn links(observer: &Observer, exposition: &mut Exposition) {
    let neighbours = observer.neighbours();
    exposition.gauge("hopline_relay_links", "Links that are up", neighbours.links.into());
    exposition.counter("hopline_relay_received_bytes", "Payload received", observer.received_bytes());
    let judgements =
        [("suspect", neighbours.suspected), ("recovered", neighbours.recovered), ("down", neighbours.down)];
    let help = "What it came to think of its neighbours";
    exposition.counters("hopline_relay_judgements", help, "state", judgements);
}

fn packets(observer: &Observer, exposition: &mut Exposition) {
    let packets = observer.packets();
    exposition.counter("hopline_relay_packets_passed", "Packets of sessions passed on", packets.passed);
    let help = "How much these were, as UDP payload";
    exposition.counter("hopline_relay_packets_passed_bytes", help, packets.passed_bytes);
    let help = "Packets of sessions that waited for a next hop";
    exposition.counter("hopline_relay_packets_held", help, packets.held);
    let dropped = Drop::ALL.iter().map(|cause| cause.as_str()).zip(packets.dropped);
    exposition.counters("hopline_relay_packets_dropped", "Packets of sessions dropped", "cause", dropped);
}

fn enrolment(counters: &Counters, exposition: &mut Exposition) {
    let questions = [
        ("register", counters.registrations),
        ("register_afresh", counters.full),
        ("register_offer", counters.offers),
        ("register_few_peers", counters.few_peers),
        ("heartbeat", counters.heartbeats),
    ];
    let help = "What it asked of bootstraps; register counts all registrations";
    exposition.counters("hopline_relay_questions", help, "kind", questions);
    let leases = [("register", counters.registered), ("heartbeat", counters.renewed)];
    let help = "Questions of these kinds that brought a lease";
    exposition.counters("hopline_relay_leases", help, "kind", leases);
    let help = "Moves from one bootstrap to the next";
    exposition.counter("hopline_relay_moves", help, counters.moved);
    let setbacks = [
        ("unknown", counters.unknown),
        ("internal", counters.internal),
        ("timeout", counters.timeouts),
        ("network", counters.network),
        ("throttled", counters.throttled),
        ("rejected", counters.rejected),
    ];
    let help = "What was in the way of a lease; all but throttled and rejected lead to a registration";
    exposition.counters("hopline_relay_setbacks", help, "cause", setbacks);
}
