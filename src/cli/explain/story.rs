//! What a flow's events add up to.

use hopline::endpoint::{Hop, Watched};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::HashMap;

/// An event, as a line tells it. What an older line lacks is `None`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(super) enum Told {
    Chain {
        #[serde(default)]
        name: String,
        hops: Vec<Hop>,
    },
    Rerouted(Repair),
    Drained(Repair),
    Chosen {
        hop: u8,
        from: String,
        to: String,
    },
    BackupReplaced {
        hop: u8,
        hops: Vec<Hop>,
    },
    Rebuilt {
        hops: Vec<Hop>,
    },
    Avoided {
        relay: String,
        evidence: String,
        since_ms: f64,
        until_ms: f64,
    },
    Closed {
        complete: bool,
    },
    /// There was more than a journal takes.
    LeftOut,
    /// Of a later version.
    #[serde(other)]
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Repair {
    pub(super) hop: u8,
    pub(super) from: String,
    pub(super) to: String,
    pub(super) gap_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cause: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) evidence: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) detected_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) replayed_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) watch: Option<Watched>,
}

#[derive(Clone, Debug, Deserialize)]
struct Line {
    flow: String,
    /// Milliseconds since the Unix epoch.
    at_ms: Option<f64>,
    #[serde(flatten)]
    told: Told,
}

/// A line that is no event.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Damage {
    #[error("line {0} is no event")]
    Line(usize),
    #[error("it is empty")]
    Empty,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Moment {
    pub(super) at_ms: Option<f64>,
    pub(super) told: Told,
}

/// One flow's.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Story {
    pub(super) flow: String,
    pub(super) moments: Vec<Moment>,
}

impl Story {
    /// The story that a flow's journal tells. Its writer may have died in the middle of the last line.
    pub(super) fn of_journal(text: &str) -> Result<Self, Damage> {
        let whole = text.rfind('\n').map_or("", |end| text.get(..end).unwrap_or_default());
        let stories = gather(whole.lines().enumerate())?;
        stories.into_iter().next().ok_or(Damage::Empty)
    }

    /// The stories that a command's events tell, in the order in which its flows were opened. Log lines may stand between
    /// them.
    pub(super) fn of_events(text: &str) -> Result<Vec<Self>, Damage> {
        let lines = text.lines().enumerate().filter(|(_, line)| line.starts_with('{'));
        let mut lines: Vec<_> = lines.collect();
        // Whoever wrote them may have died in the middle of the last one.
        if !text.ends_with('\n') {
            lines.pop_if(|(_, line)| serde_json::from_str::<Line>(line).is_err());
        }
        gather(lines.into_iter())
    }

    pub(super) fn name(&self) -> &str {
        self.moments.iter().find_map(|moment| named(&moment.told)).unwrap_or_default()
    }

    pub(super) fn opened_ms(&self) -> Option<f64> {
        self.moments.first()?.at_ms
    }

    /// How often something befell the flow.
    pub(super) fn incidents(&self) -> usize {
        self.moments.iter().filter(|moment| is_incident(&moment.told)).count()
    }

    /// Whether the flow is over, and everything arrived.
    pub(super) fn complete(&self) -> Option<bool> {
        self.moments.iter().rev().find_map(|moment| ended(&moment.told))
    }

    /// Since when the hop that was repaired at `place` has had a backup again: how long after, in milliseconds, and who it
    /// is.
    pub(super) fn protected_again(&self, place: usize) -> Option<(f64, &str)> {
        let repaired = self.moments.get(place)?;
        let (Told::Rerouted(repair) | Told::Drained(repair)) = &repaired.told else { return None };
        let later = self.moments.iter().skip(place + 1);
        let (at, backup) = later.into_iter().find_map(|moment| restored(moment, repair.hop))?;
        Some((at - repaired.at_ms?, backup))
    }

    pub(super) fn to_json(&self) -> Value {
        let opened = self.opened_ms();
        let offset = |at: Option<f64>| Some(at? - opened?);
        let incidents = self.moments.iter().enumerate().filter(|(_, moment)| is_incident(&moment.told));
        let incident = |(place, moment): (usize, &Moment)| {
            let mut told = json!(moment.told);
            if let Some(told) = told.as_object_mut() {
                told.insert("at_ms".to_owned(), json!(moment.at_ms));
                told.insert("offset_ms".to_owned(), json!(offset(moment.at_ms)));
                let again = self.protected_again(place);
                told.insert("protected_after_ms".to_owned(), json!(again.map(|(after, _)| after)));
                told.insert("backup".to_owned(), json!(again.map(|(_, backup)| backup)));
            }
            told
        };
        let over = self.moments.iter().find(|moment| ended(&moment.told).is_some());
        json!({
            "flow": self.flow,
            "name": self.name(),
            "opened_ms": opened,
            "hops": self.moments.first().and_then(|first| chain(&first.told)),
            "incidents": incidents.map(incident).collect::<Vec<_>>(),
            "complete": self.complete(),
            "closed_offset_ms": over.and_then(|over| offset(over.at_ms)),
        })
    }
}

fn gather<'a>(lines: impl Iterator<Item = (usize, &'a str)>) -> Result<Vec<Story>, Damage> {
    let mut stories: Vec<Story> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for (number, line) in lines {
        let Line { flow, at_ms, told } = serde_json::from_str(line).map_err(|_| Damage::Line(number + 1))?;
        let place = *places.entry(flow.clone()).or_insert(stories.len());
        if place == stories.len() {
            stories.push(Story { flow, moments: Vec::new() });
        }
        stories.get_mut(place).into_iter().for_each(|s| s.moments.push(Moment { at_ms, told: told.clone() }));
    }
    Ok(stories)
}

fn named(told: &Told) -> Option<&str> {
    if let Told::Chain { name, .. } = told { Some(name) } else { None }
}

fn chain(told: &Told) -> Option<&[Hop]> {
    if let Told::Chain { hops, .. } = told { Some(hops) } else { None }
}

const fn ended(told: &Told) -> Option<bool> {
    if let Told::Closed { complete } = told { Some(*complete) } else { None }
}

const fn is_incident(told: &Told) -> bool {
    matches!(told, Told::Rerouted(_) | Told::Drained(_) | Told::Rebuilt { .. })
}

/// When, and who stands by, if `moment` gave `repaired` another backup.
fn restored(moment: &Moment, repaired: u8) -> Option<(f64, &str)> {
    let hops = match &moment.told {
        Told::BackupReplaced { hop, hops } if *hop == repaired => hops,
        Told::Rebuilt { hops } => hops,
        Told::Chain { .. }
        | Told::Rerouted(_)
        | Told::Drained(_)
        | Told::Chosen { .. }
        | Told::BackupReplaced { .. }
        | Told::Avoided { .. }
        | Told::Closed { .. }
        | Told::LeftOut
        | Told::Unknown => return None,
    };
    let hop = hops.get(usize::from(repaired).checked_sub(1)?)?;
    Some((moment.at_ms?, hop.backup.as_deref()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hopline::endpoint::{Cause, Evidence, FlowEvent, Ground};
    use hopline_proto::id::FlowId;

    const LINES: &str = r#"{"event":"chain","flow":"aa","name":"x","hops":[{"primary":"r1","backup":"r2"}],"at_ms":1000.0}
 INFO a log line
{"event":"chain","flow":"bb","hops":[],"at_ms":1500.0}
{"event":"rerouted","flow":"aa","hop":1,"from":"r1","to":"r2","cause":"silence","gap_ms":12.5,"at_ms":2000.0}
{"event":"later_version","flow":"aa","at_ms":2001.0}
{"event":"backup_replaced","flow":"aa","hop":1,"hops":[{"primary":"r2","backup":null}],"at_ms":2020.0}
{"event":"backup_replaced","flow":"aa","hop":1,"hops":[{"primary":"r2","backup":"r3"}],"at_ms":2040.0}
{"event":"closed","flow":"aa","complete":true,"at_ms":3000.0}
"#;

    #[test]
    fn events_are_told_apart_by_flow_and_add_up() {
        let stories = Story::of_events(LINES).unwrap();
        let [a, b] = stories.as_slice() else { panic!("two flows") };
        assert_eq!((a.flow.as_str(), a.name(), a.incidents(), a.complete()), ("aa", "x", 1, Some(true)));
        assert_eq!((b.flow.as_str(), b.incidents(), b.complete()), ("bb", 0, None));
        assert_eq!(a.protected_again(1), Some((40.0, "r3")));
        let told = a.to_json();
        assert_eq!(told["incidents"][0]["offset_ms"], 1000.0);
        assert_eq!(told["incidents"][0]["from"], "r1");
        assert_eq!(told["closed_offset_ms"], 2000.0);
    }

    #[test]
    fn damage_is_told_and_a_line_that_was_being_written_is_none() {
        let journal: String =
            LINES.lines().filter(|line| line.contains("aa")).map(|l| format!("{l}\n")).collect();
        assert_eq!(Story::of_journal(&journal).unwrap().moments.len(), 6);
        let cut = journal.trim_end_matches(|c| c != ',');
        assert_eq!(Story::of_journal(cut).unwrap().moments.len(), 5, "the writer was killed");
        assert_eq!(Story::of_events(cut).unwrap()[0].moments.len(), 5);
        assert_eq!(Story::of_journal(&journal.replace("rerouted", "\u{0}")), Err(Damage::Line(2)));
        assert_eq!(Story::of_journal(""), Err(Damage::Empty));
    }

    #[test]
    fn what_is_written_is_read() {
        let hops = vec![Hop { primary: "r1".to_owned(), backup: None }];
        let flow = FlowId::from_bytes([7; 16]);
        let watch = Watched { silence_ms: 1.0, deadline_ms: 30.0, interval_ms: 10.0, rtt_ms: 0.5, doubt: 0 };
        let events = [
            FlowEvent::Chain { flow, name: "x".to_owned(), hops: hops.clone() },
            FlowEvent::Rerouted {
                flow,
                hop: 1,
                from: "r1".to_owned(),
                to: "r2".to_owned(),
                cause: Cause::Silence,
                gap_ms: 4.0,
                by: "origin".to_owned(),
                evidence: Evidence::Refusal,
                detected_ms: 2.0,
                replayed_bytes: 77,
                watch: Some(watch),
            },
            FlowEvent::Rebuilt { flow, hops, cause: None },
            FlowEvent::Avoided {
                flow,
                relay: "r1".to_owned(),
                evidence: Ground::Gray,
                since_ms: 1.0,
                until_ms: 5001.0,
            },
        ];
        let lines = events.iter().map(|event| {
            serde_json::to_string(&hopline_command::journal::Stamped::now(event)).unwrap() + "\n"
        });
        let story = Story::of_journal(&lines.collect::<String>()).unwrap();
        let Told::Rerouted(repair) = &story.moments[1].told else { panic!("{:?}", story.moments[1]) };
        assert_eq!((repair.replayed_bytes, repair.watch), (Some(77), Some(watch)));
        assert_eq!(repair.evidence.as_deref(), Some("icmp refusal"));
        assert!(matches!(&story.moments[3].told, Told::Avoided { relay, .. } if relay == "r1"));
        assert!(story.moments.iter().all(|moment| moment.at_ms.is_some()));
    }
}
