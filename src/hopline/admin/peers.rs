//! The whole pool: every relay and every target.
//!
//! The ids are read at once. The rest is read in batches, between which the bootstrap answers other requests. So it stays responsive with
//! any number of relays, and the whole text is never in memory. A relay that is forgotten meanwhile is left out.

use super::Client;
use super::exposition::seconds;
use super::guard::refuse;
use super::view::{RelayView, STATUSES, TargetView};
use crate::bootstrap::Observer;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Query, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use hopline_proto::bootstrap::relay_info;
use hopline_proto::pool::Relay;
use hopline_proto::rpc::{Status, TargetInfo};
use hopline_proto::{NodeId, Time};
use serde::Deserialize;
use serde_json::{Value, json};
use std::convert::Infallible;

/// How many are read before others get their turn.
const BATCH: usize = 256;

/// What the reader wants to see.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PeersQuery {
    /// The relays' real addresses too.
    #[serde(default)]
    addresses: bool,
    /// Only relays of this status.
    status: Option<String>,
    /// At most so many relays.
    limit: Option<usize>,
}

/// Which relays are shown, and how.
#[derive(Clone, Copy)]
struct Selection {
    addresses: bool,
    status: Option<Status>,
}

impl Selection {
    fn admits(self, relay: &Relay) -> bool {
        self.status.is_none_or(|status| relay.status == status)
    }
}

/// Who is shown.
struct Census {
    relays: Vec<NodeId>,
    targets: Vec<NodeId>,
}

pub(super) async fn page(
    State(observer): State<Observer>,
    Extension(Client(from)): Extension<Client>,
    query: Result<Query<PeersQuery>, QueryRejection>,
) -> Response {
    let (query, selection) = match understand(query) {
        Ok(understood) => understood,
        Err(why) => return refuse(StatusCode::BAD_REQUEST, &why),
    };
    if selection.addresses && !from.ip().to_canonical().is_loopback() {
        let why =
            "the relays' real addresses are shown on the bootstrap's own machine only: ask over loopback";
        return refuse(StatusCode::FORBIDDEN, why);
    }
    let (head, census) = begin(&observer, selection, query.limit.unwrap_or(usize::MAX));
    let parts = stream::iter(render(observer, selection, head, census).map(Ok::<_, Infallible>));
    ([(CONTENT_TYPE, "application/json")], Body::from_stream(parts)).into_response()
}

fn understand(query: Result<Query<PeersQuery>, QueryRejection>) -> Result<(PeersQuery, Selection), String> {
    let Query(query) = query.map_err(|rejection| rejection.body_text())?;
    let status = query.status.as_deref().map(parse_status).transpose()?;
    let selection = Selection { addresses: query.addresses, status };
    Ok((query, selection))
}

fn parse_status(text: &str) -> Result<Status, String> {
    STATUSES.into_iter().find(|status| status.as_str() == text).ok_or_else(|| {
        let known = STATUSES.map(Status::as_str).join(", ");
        format!("no relay has the status \"{text}\"; there are {known}")
    })
}

/// All but the lists, and who is to be in those.
fn begin(observer: &Observer, selection: Selection, limit: usize) -> (Value, Census) {
    let (preserving, counts, now, mut census) = observer.inspect(|machine, now| {
        let relays = machine.pool().iter().filter(|relay| selection.admits(relay)).map(|relay| relay.node);
        let targets = machine.targets().iter_by_name().map(|target| target.node).collect();
        let preserving = machine.pool().preserving_since().map(|since| now.since(since).as_secs_f64());
        (preserving, machine.pool().counts(), now, Census { relays: relays.collect(), targets })
    });
    // The pool's own order changes all the time.
    census.relays.sort_unstable();
    census.relays.truncate(limit);
    let health = observer.store_health();
    let store = health.failing.map_or(json!("ok"), |failure| {
        json!({"failing": failure.cause, "since": failure.since.as_micros() as f64 / 1e6, "unsaved": health.unsaved})
    });
    let head = json!({
        "network": observer.network().to_string(),
        "bootstrap": {
            "id": observer.id().to_string(),
            "uptime_seconds": now.since(observer.started_at()).as_secs_f64(),
            "preserving_seconds": preserving,
            "store": store,
        },
        "total": counts.online,
        "totalRegistered": counts.registered,
        "timestamp": seconds(now),
    });
    (head, census)
}

/// The text of the whole answer, part by part.
fn render(
    observer: Observer,
    selection: Selection,
    head: Value,
    census: Census,
) -> impl Iterator<Item = String> + Send + 'static {
    let others = observer.clone();
    let relays = list(census.relays, move |nodes| {
        let (relays, now): (Vec<Relay>, Time) = observer.inspect(|machine, now| {
            let known = nodes.iter().filter_map(|node| machine.pool().get(node));
            (known.filter(|relay| selection.admits(relay)).cloned().collect(), now)
        });
        relays.iter().map(|relay| relay_json(relay, selection.addresses, now)).collect()
    });
    let targets = list(census.targets, move |nodes| {
        let targets: Vec<TargetInfo> = others.inspect(|machine, now| {
            let known = nodes.iter().filter_map(|node| machine.targets().get(node));
            known.map(|target| machine.target_info(target, now)).collect()
        });
        targets.iter().map(|target| json!(TargetView::from(target))).collect()
    });
    let mut head = head.to_string();
    head.pop(); // its brace
    std::iter::once(head + ",\"peers\":[")
        .chain(relays)
        .chain(std::iter::once("],\"targets\":[".to_owned()))
        .chain(targets)
        .chain(std::iter::once("]}\n".to_owned()))
}

/// The items of a JSON list, batch by batch.
fn list(nodes: Vec<NodeId>, describe: impl Fn(&[NodeId]) -> Vec<Value>) -> impl Iterator<Item = String> {
    let mut separator = "";
    (0..nodes.len()).step_by(BATCH).map(move |from| {
        let batch: Vec<NodeId> = nodes.iter().skip(from).take(BATCH).copied().collect();
        let mut text = String::new();
        for item in describe(&batch) {
            text += std::mem::replace(&mut separator, ",");
            text += &item.to_string();
        }
        text
    })
}

fn relay_json(relay: &Relay, with_address: bool, now: Time) -> Value {
    let clock_ahead_ms = Some(relay.clock_ahead_us() as f64 / 1e3);
    let mut json = json!(RelayView { clock_ahead_ms, ..RelayView::from(&relay_info(relay, now)) });
    if with_address && let Some(fields) = json.as_object_mut() {
        let addresses = relay.offer().addresses.iter().map(ToString::to_string);
        fields.insert("addresses".to_owned(), addresses.collect::<Vec<_>>().into());
    }
    json
}
