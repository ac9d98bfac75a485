//! What happens in a network, as its bootstrap tells it.

use super::NetworkView;
use serde::Deserialize;
use std::collections::HashMap;

/// Something that happened.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub(crate) struct NetworkEvent {
    /// The event.
    pub(crate) event: String,
    /// To whom, if it happened to a node.
    pub(crate) name: Option<String>,
    node: Option<String>,
    /// To how many, if it happened to many.
    #[serde(alias = "overdue")]
    count: Option<u64>,
    /// When, in seconds since the Unix epoch.
    at: Option<f64>,
}

impl NetworkEvent {
    /// As one line, with the time of day in UTC.
    pub(crate) fn line(&self) -> String {
        let time = self.at.map_or_else(|| " ".repeat(8), time_of_day);
        let who = self.name.as_deref().or(self.node.as_deref()).unwrap_or("the bootstrap");
        let count = self.count.map(|count| format!(" ({count})")).unwrap_or_default();
        format!("{time} {who} {}{count}", self.event)
    }
}

/// `HH:MM:SS` in UTC.
fn time_of_day(seconds: f64) -> String {
    let seconds = std::time::Duration::try_from_secs_f64(seconds).unwrap_or_default().as_secs();
    format!("{:02}:{:02}:{:02}", seconds / 3600 % 24, seconds / 60 % 60, seconds % 60)
}

/// What must have happened between two looks at a network, for a source that does not tell. Whoever changed and changed back
/// in between is missed.
pub(crate) fn changes(before: &NetworkView, after: &NetworkView) -> Vec<NetworkEvent> {
    let event = |name: Option<&str>, event: &str| NetworkEvent {
        event: event.to_owned(),
        name: name.map(str::to_owned),
        at: Some(after.timestamp),
        ..NetworkEvent::default()
    };
    let known: HashMap<&str, &str> =
        before.relays.iter().map(|relay| (relay.id.as_str(), relay.status.as_str())).collect();
    let mut events = Vec::new();
    for relay in &after.relays {
        let is_news =
            known.get(relay.id.as_str()).map_or(before.is_complete(), |status| *status != relay.status);
        if is_news {
            events.push(event(Some(&relay.name), &relay.status));
        }
    }
    let preserves = |view: &NetworkView| view.bootstrap.preserving_seconds.is_some();
    match (preserves(before), preserves(after)) {
        (false, true) => events.push(event(None, "preserving")),
        (true, false) => events.push(event(None, "resumed")),
        (true, true) | (false, false) => {}
    }
    events
}

#[cfg(test)]
mod tests {
    use super::super::tests::{network, relay};
    use super::*;

    #[test]
    fn an_event_is_a_line() {
        let line = |json: &str| serde_json::from_str::<NetworkEvent>(json).unwrap().line();
        let offline = r#"{"event":"offline","node":"abc","name":"r3","at":1800000061.5}"#;
        assert_eq!(line(offline), "08:01:01 r3 offline");
        assert_eq!(line(r#"{"event":"missed","count":12}"#), "         the bootstrap missed (12)");
        assert_eq!(line(r#"{"event":"joined","node":"abc","name":null,"at":-1e300}"#), "00:00:00 abc joined");
    }

    #[test]
    fn what_changed_between_two_looks_is_told() {
        let before =
            network(vec![relay("a", "online", 1), relay("b", "online", 1), relay("c", "offline", 0)]);
        let mut after =
            network(vec![relay("a", "online", 9), relay("b", "suspect", 1), relay("d", "registered", 0)]);
        after.bootstrap.preserving_seconds = Some(0.5);
        let told = |before, after| -> Vec<String> {
            changes(before, after).iter().map(|event| event.line()).collect()
        };
        assert_eq!(told(&before, &before), Vec::<String>::new());
        assert_eq!(
            told(&before, &after),
            ["08:00:00 b suspect", "08:00:00 d registered", "08:00:00 the bootstrap preserving"]
        );
        assert_eq!(told(&after, &network(Vec::new())), ["08:00:00 the bootstrap resumed"]);
    }
}
