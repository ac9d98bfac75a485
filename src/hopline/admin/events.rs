//! The pool's events as server-sent events, one JSON object each, for as long as the reader stays.
//!
//! A reader that is too slow loses the oldest and is told how many; nothing waits for it.

use super::Endless;
use super::guard::refuse;
use crate::bootstrap::Observer;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde_json::json;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::sync::broadcast::error::RecvError;

/// Streams at once: the other half of the connections is for questions.
const MAX_STREAMS: usize = super::MAX_CONNECTIONS / 2;
/// So often something is sent, that both ends may know that the other one is there.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Where streams come from.
#[derive(Clone, Debug)]
pub(super) struct Streams {
    observer: Observer,
    seats: Arc<Semaphore>,
}

impl Streams {
    pub(super) fn new(observer: Observer) -> Self {
        Self { observer, seats: Arc::new(Semaphore::new(MAX_STREAMS)) }
    }
}

/// What happens from when this is answered.
pub(super) async fn page(State(streams): State<Streams>) -> Response {
    let Ok(seat) = streams.seats.try_acquire_owned() else {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "too many listen to events already: end one of them");
    };
    let told = stream::unfold((streams.observer.events(), seat), |(mut events, seat)| async {
        let told = match events.recv().await {
            Ok(event) => event.to_json(),
            Err(RecvError::Lagged(count)) => json!({"event": "missed", "count": count}),
            Err(RecvError::Closed) => return None,
        };
        Some((Ok::<_, Infallible>(Event::default().data(told.to_string())), (events, seat)))
    });
    let mut response = Sse::new(told).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response();
    response.extensions_mut().insert(Endless);
    response
}
