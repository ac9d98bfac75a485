//! The pool's events, for any number of readers. Each reader has a queue of at most [`QUEUED`] events. A slow reader loses the oldest
//! ones and is told how many; nothing waits for it.

use hopline_proto::bootstrap::Bootstrap;
use hopline_proto::pool::{Ignored, PoolEvent};
use hopline_proto::{NodeId, Time};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use serde_json::{Value, json};
use tokio::sync::broadcast;

/// What may wait for a slow reader.
const QUEUED: usize = 1024;

/// Something that happened to the pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootstrapEvent {
    /// The kind.
    pub kind: PoolEvent,
    /// What people call the node that it happened to, where that is known.
    pub name: Option<String>,
    /// When it happened.
    pub at: Time,
}

impl BootstrapEvent {
    pub(super) fn new(event: PoolEvent, machine: &Bootstrap, at: Time) -> Self {
        let name = node_of(&event).and_then(|node| {
            let target = || machine.targets().get(node).and_then(|target| target.names.first());
            machine.pool().get(node).map(|relay| &relay.offer().name).or_else(target).cloned()
        });
        Self { kind: event, name, at }
    }

    /// To whom it happened; `None` if to the pool as a whole.
    #[must_use]
    pub const fn node(&self) -> Option<&NodeId> {
        node_of(&self.kind)
    }

    /// One word for what happened.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self.kind {
            PoolEvent::Joined(_) => "joined",
            PoolEvent::Online(_) => "online",
            PoolEvent::Suspect(_) => "suspect",
            PoolEvent::Draining(_) => "draining",
            PoolEvent::Offline(_) => "offline",
            PoolEvent::Back(_) => "back",
            PoolEvent::Left(_) => "left",
            PoolEvent::Forgotten(_) => "forgotten",
            PoolEvent::TargetJoined(_) => "target_joined",
            PoolEvent::TargetLeft(_) => "target_left",
            PoolEvent::Unreached(_) => "unreached",
            PoolEvent::Distrusted(_) => "distrusted",
            PoolEvent::Preserving { .. } => "preserving",
            PoolEvent::Resumed => "resumed",
            PoolEvent::Ignored(Ignored::Report) => "ignored_report",
            PoolEvent::Ignored(Ignored::Heartbeat) => "ignored_heartbeat",
        }
    }

    /// For programs elsewhere.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let overdue = if let PoolEvent::Preserving { overdue } = self.kind { Some(overdue) } else { None };
        let fields = [
            ("event", json!(self.word())),
            ("node", json!(self.node().map(NodeId::to_string))),
            ("name", json!(self.name)),
            ("overdue", json!(overdue)),
            ("at", json!(self.at.as_micros() as f64 / 1e6)),
        ];
        fields.into_iter().filter(|(_, value)| !value.is_null()).collect()
    }
}

const fn node_of(event: &PoolEvent) -> Option<&NodeId> {
    match event {
        PoolEvent::Joined(node)
        | PoolEvent::Online(node)
        | PoolEvent::Suspect(node)
        | PoolEvent::Draining(node)
        | PoolEvent::Offline(node)
        | PoolEvent::Back(node)
        | PoolEvent::Left(node)
        | PoolEvent::Forgotten(node)
        | PoolEvent::TargetJoined(node)
        | PoolEvent::TargetLeft(node)
        | PoolEvent::Unreached(node)
        | PoolEvent::Distrusted(node) => Some(node),
        PoolEvent::Preserving { .. } | PoolEvent::Resumed | PoolEvent::Ignored(_) => None,
    }
}

/// Where events are told and counted.
#[derive(Debug)]
pub(super) struct EventFeed {
    readers: broadcast::Sender<BootstrapEvent>,
    counts: EventCounts,
}

/// How often what has happened, by the event's word.
pub(crate) type EventCounts = Family<[(&'static str, &'static str); 1], Counter>;

impl Default for EventFeed {
    fn default() -> Self {
        Self { readers: broadcast::channel(QUEUED).0, counts: EventCounts::default() }
    }
}

impl EventFeed {
    /// Tells and counts. What was merely not taken at its word is counted only.
    pub(super) fn publish(&self, event: &BootstrapEvent) {
        self.counts.get_or_create(&[("event", event.word())]).inc();
        if self.readers.receiver_count() > 0 && !matches!(event.kind, PoolEvent::Ignored(_)) {
            let _ = self.readers.send(event.clone()); // the last reader may have gone
        }
    }

    /// What happens from now on.
    pub(super) fn subscribe(&self) -> broadcast::Receiver<BootstrapEvent> {
        self.readers.subscribe()
    }

    pub(super) fn counts(&self) -> EventCounts {
        self.counts.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_told_what_when_and_to_whom() {
        let node = NodeId::from_bytes([7; 32]);
        let at = Time::from_micros(1_500_000);
        let event = BootstrapEvent { kind: PoolEvent::Offline(node), name: Some("r1".to_owned()), at };
        let expected = json!({"event": "offline", "node": node.to_string(), "name": "r1", "at": 1.5});
        assert_eq!(event.to_json(), expected);
        let event = BootstrapEvent { kind: PoolEvent::Preserving { overdue: 4 }, name: None, at };
        assert_eq!(event.to_json(), json!({"event": "preserving", "overdue": 4, "at": 1.5}));
    }

    #[tokio::test]
    async fn a_slow_reader_loses_the_oldest_and_holds_nobody_up() {
        let event_feed = EventFeed::default();
        let mut slow = event_feed.subscribe();
        let event = PoolEvent::Resumed;
        for micros in 0..QUEUED as u64 + 5 {
            event_feed.publish(&BootstrapEvent {
                kind: event.clone(),
                name: None,
                at: Time::from_micros(micros),
            });
        }
        let ignored = PoolEvent::Ignored(Ignored::Report);
        event_feed.publish(&BootstrapEvent { kind: ignored, name: None, at: Time::ZERO });
        assert_eq!(slow.recv().await, Err(broadcast::error::RecvError::Lagged(5)));
        assert_eq!(slow.recv().await.unwrap().at, Time::from_micros(5));
        let count = |word| event_feed.counts.get_or_create(&[("event", word)]).get();
        assert_eq!((count("resumed"), count("ignored_report")), (QUEUED as u64 + 5, 1));
    }
}
