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
pub struct News {
    /// What.
    pub event: PoolEvent,
    /// What people call the node that it happened to, where that is known.
    pub name: Option<String>,
    /// When.
    pub at: Time,
}

impl News {
    pub(super) fn new(event: PoolEvent, machine: &Bootstrap, at: Time) -> Self {
        let name = node_of(&event).and_then(|node| {
            let target = || machine.targets().get(node).and_then(|target| target.names.first());
            machine.pool().get(node).map(|relay| &relay.offer().name).or_else(target).cloned()
        });
        Self { event, name, at }
    }

    /// To whom it happened; `None` if to the pool as a whole.
    #[must_use]
    pub const fn node(&self) -> Option<&NodeId> {
        node_of(&self.event)
    }

    /// One word for what happened.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self.event {
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
        let overdue = if let PoolEvent::Preserving { overdue } = self.event { Some(overdue) } else { None };
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

/// Where news are told and counted.
#[derive(Debug)]
pub(super) struct Bulletin {
    readers: broadcast::Sender<News>,
    counts: EventCounts,
}

/// How often what has happened, by the event's word.
pub(crate) type EventCounts = Family<[(&'static str, &'static str); 1], Counter>;

impl Default for Bulletin {
    fn default() -> Self {
        Self { readers: broadcast::channel(QUEUED).0, counts: EventCounts::default() }
    }
}

impl Bulletin {
    /// Tells and counts. What was merely not taken at its word is counted only.
    pub(super) fn publish(&self, news: &News) {
        self.counts.get_or_create(&[("event", news.word())]).inc();
        if self.readers.receiver_count() > 0 && !matches!(news.event, PoolEvent::Ignored(_)) {
            let _ = self.readers.send(news.clone()); // the last reader may have gone
        }
    }

    /// What happens from now on.
    pub(super) fn subscribe(&self) -> broadcast::Receiver<News> {
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
        let news = News { event: PoolEvent::Offline(node), name: Some("r1".to_owned()), at };
        let expected = json!({"event": "offline", "node": node.to_string(), "name": "r1", "at": 1.5});
        assert_eq!(news.to_json(), expected);
        let news = News { event: PoolEvent::Preserving { overdue: 4 }, name: None, at };
        assert_eq!(news.to_json(), json!({"event": "preserving", "overdue": 4, "at": 1.5}));
    }

    #[tokio::test]
    async fn a_slow_reader_loses_the_oldest_and_holds_nobody_up() {
        let bulletin = Bulletin::default();
        let mut slow = bulletin.subscribe();
        let event = PoolEvent::Resumed;
        for micros in 0..QUEUED as u64 + 5 {
            bulletin.publish(&News { event: event.clone(), name: None, at: Time::from_micros(micros) });
        }
        let ignored = PoolEvent::Ignored(Ignored::Report);
        bulletin.publish(&News { event: ignored, name: None, at: Time::ZERO });
        assert_eq!(slow.recv().await, Err(broadcast::error::RecvError::Lagged(5)));
        assert_eq!(slow.recv().await.unwrap().at, Time::from_micros(5));
        let count = |word| bulletin.counts.get_or_create(&[("event", word)]).get();
        assert_eq!((count("resumed"), count("ignored_report")), (QUEUED as u64 + 5, 1));
    }
}
