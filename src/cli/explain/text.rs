//! A flow's story for people.

use super::story::{Moment, Repair, Story, Told};
use hopline::endpoint::Hop;
use serde_json::{Value, json};
use std::io::{self, Write};

/// The whole story, in the order in which it happened.
pub(super) fn tell(story: &Story, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "flow {} to {}", story.flow, or_unknown(story.name()))?;
    for (place, moment) in story.moments.iter().enumerate() {
        let mut lines = said(story, place, moment).into_iter();
        let offset = moment.at_ms.zip(story.opened_ms()).map(|(at, opened)| (at - opened) / 1000.0);
        let offset = offset.map_or_else(|| "?".to_owned(), |offset| format!("+{offset:.3} s"));
        writeln!(out, "{} {offset:>11}  {}", clock(moment.at_ms), lines.next().unwrap_or_default())?;
        for line in lines {
            writeln!(out, "{:36}  {line}", "")?;
        }
    }
    if story.complete().is_none() {
        writeln!(out, "it goes on, or the process that opened it was ended")?;
    }
    Ok(())
}

/// A line of the list.
pub(super) fn entry(flow: &str, story: Option<&Story>) -> String {
    let Some(story) = story else { return format!("{flow:<34} damaged") };
    let end = match story.complete() {
        Some(true) => "complete",
        Some(false) => "broken",
        None => "open",
    };
    let (name, opened) = (or_unknown(story.name()), clock(story.opened_ms()));
    format!("{flow:<34} {name:<20} {opened:<24} {:>9}  {end}", story.incidents())
}

pub(super) fn entry_json(flow: &str, story: Option<&Story>) -> Value {
    json!({
        "flow": flow,
        "name": story.map(Story::name),
        "opened_ms": story.and_then(Story::opened_ms),
        "incidents": story.map(Story::incidents),
        "complete": story.and_then(Story::complete),
        "damaged": story.is_none(),
    })
}

fn or_unknown(name: &str) -> &str {
    if name.is_empty() { "?" } else { name }
}

fn said(story: &Story, place: usize, moment: &Moment) -> Vec<String> {
    match &moment.told {
        Told::Chain { hops, .. } => chain(format!("opened over {}", counted(hops.len(), "hop")), hops),
        Told::Rerouted(repair) if repair.evidence.as_deref() == Some("none") => {
            let Repair { hop, from, to, .. } = repair;
            vec![format!(
                "hop {hop}: {to} serves instead of {from}: the hop before has another relay, which chose for itself"
            )]
        }
        Told::Rerouted(repair) => {
            let mut lines = failed(repair);
            lines.push(story.protected_again(place).map_or_else(
                || "no backup since".to_owned(),
                |(after, backup)| format!("protected again after {after:.0} ms: {backup} stands by"),
            ));
            lines
        }
        Told::Chosen { hop, from, to } => {
            vec![format!("hop {hop}: {to} serves, as it could be had sooner than {from}, which stands by")]
        }
        Told::Drained(repair) => {
            let Repair { hop, from, to, gap_ms, .. } = repair;
            vec![format!("hop {hop}: {from} drained; {to} took over, pause {gap_ms:.1} ms{}", again(repair))]
        }
        Told::BackupReplaced { hop, hops } => {
            let backup = hops.get(usize::from(*hop).wrapping_sub(1)).and_then(|hop| hop.backup.as_deref());
            vec![backup.map_or_else(
                || format!("hop {hop}: another record, without a backup"),
                |backup| format!("hop {hop}: {backup} stands by now"),
            )]
        }
        Told::Rebuilt { hops } => chain("the origin went on over another chain".to_owned(), hops),
        Told::Avoided { relay, evidence, since_ms, until_ms } => {
            let evidence = match evidence.as_str() {
                "gray" => "the flow's bytes stopped there",
                "hearsay" => "the hop before could not use it",
                evidence => evidence,
            };
            vec![format!(
                "avoids {relay} until {} ({evidence} at {})",
                time_of_day(*until_ms),
                time_of_day(*since_ms)
            )]
        }
        Told::Closed { complete: true } => vec!["closed: everything arrived, both ways".to_owned()],
        Told::Closed { complete: false } => vec!["broken: it ended before everything had arrived".to_owned()],
        Told::LeftOut => vec!["what came then was too much for the journal".to_owned()],
        Told::Unknown => vec!["something that this version of hopline does not know".to_owned()],
    }
}

fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("{count} {what}") } else { format!("{count} {what}s") }
}

fn chain(first: String, hops: &[Hop]) -> Vec<String> {
    let hop = |(number, hop): (u8, &Hop)| {
        let backup =
            hop.backup.as_ref().map_or_else(|| "no backup".to_owned(), |backup| format!("backup {backup}"));
        format!("hop {number}: {}, {backup}", hop.primary)
    };
    [first].into_iter().chain((1..).zip(hops).map(hop)).collect()
}

fn failed(repair: &Repair) -> Vec<String> {
    let Repair { hop, from, to, gap_ms, .. } = repair;
    let by = match repair.by.as_deref() {
        Some("origin") => "this origin",
        Some(by) => by,
        None => "?",
    };
    let mut lines =
        vec![format!("hop {hop}: {from} failed"), format!("noticed by {by}: {}", evidence(repair))];
    if let Some(watch) = &repair.watch {
        let doubt = match watch.doubt {
            0 => String::new(),
            doubt => format!(" ({} times the usual: it was late itself)", u16::from(doubt) + 1),
        };
        lines.push(format!(
            "last heard {:.1} ms before; deadline {:.1} ms{doubt}, interval {:.1} ms, round trip {:.1} ms",
            watch.silence_ms, watch.deadline_ms, watch.interval_ms, watch.rtt_ms
        ));
    }
    let detected = repair.detected_ms.map_or_else(String::new, |ms| format!("noticed after {ms:.1} ms; "));
    lines.push(format!("{detected}{to} took over, pause {gap_ms:.1} ms{}", again(repair)));
    lines
}

fn again(repair: &Repair) -> String {
    repair.replayed_bytes.map_or_else(String::new, |bytes| format!(", {bytes} bytes sent again"))
}

/// What the noticing relay went by, in a sentence.
fn evidence(repair: &Repair) -> String {
    let Repair { from, cause, .. } = repair;
    let evidence = repair.evidence.as_deref().or(cause.as_deref()).unwrap_or("?");
    match evidence {
        "silence" => format!("silence: nothing was heard from {from}"),
        "deafness" => format!("deafness: {from} was heard, but what went to it was lost"),
        "icmp refusal" => {
            format!(
                "icmp refusal: the network said that {from} can't be reached, and it left a probe unanswered"
            )
        }
        "hint" => format!("hint: another neighbour had failed, and {from} left a probe unanswered"),
        "stall" => format!("stall: {from} was heard, but the flows' bytes to it were lost again and again"),
        "transport" => format!("transport: the connection to {from} was closed or reset"),
        "its word" if cause.as_deref() == Some("no path") => {
            format!("its word: {from} said that it reaches nobody beyond")
        }
        "its word" => format!("its word: {from} closed the leg"),
        "no answer" => format!("no answer: {from} did not answer, or could not be dialled"),
        other => other.to_owned(),
    }
}

/// A moment of the wall clock, in UTC (RFC 3339), to the millisecond.
fn clock(at_ms: Option<f64>) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "saturates, and a journal's moments are far from that"
    )]
    let Some(ms) = at_ms.map(|ms| ms as i64) else { return "?".to_owned() };
    let (day, ms) = (ms.div_euclid(86_400_000), ms.rem_euclid(86_400_000));
    let (year, month, day) = civil(day);
    let (hour, minute, second, ms) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60, ms % 1000);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

/// Hours, minutes and seconds of a moment, as [`clock`] shows it.
fn time_of_day(at_ms: f64) -> String {
    clock(Some(at_ms)).get(11..19).unwrap_or("?").to_owned()
}

/// The Gregorian date of a day since the Unix epoch (H. Hinnant, `chrono`-compatible low-level date algorithms).
const fn civil(day: i64) -> (i64, i64, i64) {
    let day = day + 719_468;
    let (era, of_era) = (day.div_euclid(146_097), day.rem_euclid(146_097));
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let date = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + (month <= 2) as i64, month, date)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_dates() {
        assert_eq!(clock(Some(0.0)), "1970-01-01 00:00:00.000Z");
        assert_eq!(clock(Some(951_782_400_001.9)), "2000-02-29 00:00:00.001Z");
        assert_eq!(clock(Some(1_767_225_599_999.0)), "2025-12-31 23:59:59.999Z");
        assert_eq!(clock(None), "?");
    }

    #[test]
    fn a_failure_is_told_with_its_reasons() {
        let lines = r#"{"event":"chain","flow":"aa","name":"x","hops":[{"primary":"r1","backup":"r2"}],"at_ms":1000.0}
{"event":"rerouted","flow":"aa","hop":1,"from":"r1","to":"r2","cause":"silence","gap_ms":4.2,"by":"origin","evidence":"icmp refusal","detected_ms":2.1,"replayed_bytes":77,"watch":{"silence_ms":1.9,"deadline_ms":30.0,"interval_ms":10.0,"rtt_ms":0.4,"doubt":0},"at_ms":2204.0}
{"event":"avoided","flow":"aa","relay":"r1","evidence":"icmp refusal","since_ms":2204.0,"until_ms":7204.0,"at_ms":2204.0}
{"event":"backup_replaced","flow":"aa","hop":1,"hops":[{"primary":"r2","backup":"r3"}],"at_ms":2260.0}
{"event":"closed","flow":"aa","complete":true,"at_ms":3000.0}
"#;
        let mut out = Vec::new();
        tell(&Story::of_journal(lines).unwrap(), &mut out).unwrap();
        let expected = "\
flow aa to x
1970-01-01 00:00:01.000Z    +0.000 s  opened over 1 hop
                                      hop 1: r1, backup r2
1970-01-01 00:00:02.204Z    +1.204 s  hop 1: r1 failed
                                      noticed by this origin: icmp refusal: the network said that r1 can't be reached, and it left a probe unanswered
                                      last heard 1.9 ms before; deadline 30.0 ms, interval 10.0 ms, round trip 0.4 ms
                                      noticed after 2.1 ms; r2 took over, pause 4.2 ms, 77 bytes sent again
                                      protected again after 56 ms: r3 stands by
1970-01-01 00:00:02.204Z    +1.204 s  avoids r1 until 00:00:07 (icmp refusal at 00:00:02)
1970-01-01 00:00:02.260Z    +1.260 s  hop 1: r3 stands by now
1970-01-01 00:00:03.000Z    +2.000 s  closed: everything arrived, both ways
";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn an_event_of_an_older_version_is_told_as_far_as_it_goes() {
        let lines = "{\"event\":\"rerouted\",\"flow\":\"aa\",\"hop\":2,\"from\":\"r1\",\"to\":\"r2\",\"cause\":\"silence\",\"gap_ms\":4}\n";
        let mut out = Vec::new();
        tell(&Story::of_journal(lines).unwrap(), &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("noticed by ?: silence: nothing was heard from r1"), "{text}");
        assert!(text.contains("r2 took over, pause 4.0 ms\n") && text.contains("it goes on"), "{text}");
    }
}
