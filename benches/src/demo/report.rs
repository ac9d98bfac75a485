//! What a person sees: progress, a line a kill, and the summary.

use super::Args;
use super::kill::{Kill, Repair};
use super::load::Progress;
use crate::pattern::Faults;
use crate::report::{Report, Times, ms};
use bytesize::ByteSize;
use hopline::endpoint::Chain;
use hopline_command::Failure;
use hopline_command::say;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use std::io::{IsTerminal, Write};
use std::time::Duration;
use tokio::time::interval;

/// How often the bar moves.
const FRAME: Duration = Duration::from_millis(100);

/// The live view, on stderr: a bar if that is a terminal, and lines.
#[derive(Debug)]
pub(super) struct Screen(Option<ProgressBar>);

impl Screen {
    pub(super) fn new(size: ByteSize) -> Self {
        let style =
            ProgressStyle::with_template("{bar:30} {bytes}/{total_bytes} echoed, {bytes_per_sec}, {elapsed}");
        let bar =
            || ProgressBar::new(size.0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self(std::io::stderr().is_terminal().then(bar))
    }

    /// Shows a line for good.
    pub(super) fn say(&self, line: &str) {
        match &self.0 {
            Some(bar) => bar.println(line),
            None => say::line(line),
        }
    }

    /// Moves the bar along with the transfer, for ever.
    pub(super) async fn follow(&self, progress: &Progress) {
        let mut frames = interval(FRAME);
        loop {
            frames.tick().await;
            if let Some(bar) = &self.0 {
                bar.set_position(progress.now().received);
            }
        }
    }

    /// Takes the bar away.
    pub(super) fn end(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }

    pub(super) fn killed(&self, number: u32, of: u32, kill: &Kill) {
        let Kill { relay, hop, repair, gap, replacement } = kill;
        let gap = ms(*gap);
        let repair = match repair {
            Repair::Rerouted { to, cause, .. } => format!("{to} took over ({cause})"),
            Repair::Rebuilt => "another chain took over".to_owned(),
        };
        self.say(&format!(
            "kill {number}/{of}: {relay} died carrying hop {hop}, {repair}, no data for {gap:.1} ms; {replacement} joined"
        ));
    }

    /// A chain as one line.
    pub(super) fn chain(&self, chain: &Chain) -> String {
        let hops = chain.hops().iter().map(|hop| {
            let backup = hop.backup.as_deref().unwrap_or("no backup");
            format!("{} ({backup})", hop.primary)
        });
        hops.collect::<Vec<_>>().join(" -> ")
    }
}

/// What came of the demo.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) seed: u64,
    pub(super) hops: u8,
    pub(super) kills_wanted: u32,
    pub(super) bytes_sent: u64,
    pub(super) bytes_received: u64,
    pub(super) data: Faults,
    pub(super) sha256_sent: String,
    pub(super) sha256_received: String,
    pub(super) messages_sent: u64,
    pub(super) messages_delivered: u64,
    pub(super) messages: Faults,
    pub(super) kills: Vec<Kill>,
    pub(super) failovers: u32,
    pub(super) longest_other_pause: Duration,
    pub(super) longest_message_pause: Duration,
    pub(super) duration: Duration,
}

impl Outcome {
    /// Whether everything arrived exactly once and in order, although all the relays were killed.
    pub(super) fn is_success(&self) -> bool {
        self.faults() == Faults::default()
            && self.bytes_sent == self.bytes_received
            && self.sha256_sent == self.sha256_received
            && self.messages_sent == self.messages_delivered
            && u32::try_from(self.kills.len()) == Ok(self.kills_wanted)
    }

    fn faults(&self) -> Faults {
        self.data + self.messages
    }

    fn hops_hit(&self) -> Vec<u8> {
        (1..=self.hops).filter(|hop| self.kills.iter().any(|kill| kill.hop == *hop)).collect()
    }

    fn gaps(&self) -> Result<Option<Times>, Failure> {
        let gaps: Vec<Duration> = self.kills.iter().map(|kill| kill.gap).collect();
        (!gaps.is_empty()).then(|| Times::of(&gaps)).transpose()
    }
}

impl Report<Args> for Outcome {
    fn to_json(&self, _: &Args) -> Result<Value, Failure> {
        let faults = self.faults();
        Ok(json!({
            "bytes_sent": self.bytes_sent,
            "bytes_received": self.bytes_received,
            "sha256_match": self.sha256_sent == self.sha256_received,
            "sha256": self.sha256_sent,
            "messages_sent": self.messages_sent,
            "messages_delivered": self.messages_delivered,
            "lost": faults.lost,
            "duplicated": faults.duplicated,
            "reordered": faults.reordered,
            "data": faults_json(self.data),
            "messages": faults_json(self.messages),
            "relays_killed": self.kills.len(),
            "hops_hit": self.hops_hit(),
            "failovers": self.failovers,
            "gap_ms": self.gaps()?.map(|gaps| gaps.to_json()),
            "longest_other_pause_ms": ms(self.longest_other_pause),
            "longest_message_pause_ms": ms(self.longest_message_pause),
            "kills": self.kills.iter().map(kill_json).collect::<Vec<_>>(),
            "seconds": self.duration.as_secs_f64(),
            "seed": self.seed,
        }))
    }

    fn print_table(&self, _: &Args, out: &mut dyn Write) -> Result<(), Failure> {
        let faults = self.faults();
        let Self { messages_sent, messages_delivered, failovers, .. } = self;
        let same = if self.sha256_sent == self.sha256_received { "equal" } else { "DIFFERENT" };
        let hops: Vec<String> = self.hops_hit().iter().map(u8::to_string).collect();
        let row = |out: &mut dyn Write, name: &str, value: String| writeln!(out, "{name:<34} {value}");
        writeln!(out)?;
        row(out, "data sent", ByteSize(self.bytes_sent).to_string())?;
        row(out, "data echoed", ByteSize(self.bytes_received).to_string())?;
        row(out, "SHA-256 of both", format!("{same}, {}", self.sha256_received))?;
        row(out, "messages delivered, both ways", format!("{messages_delivered} of {messages_sent}"))?;
        row(
            out,
            "bytes and messages",
            format!("lost {}, duplicated {}, reordered {}", faults.lost, faults.duplicated, faults.reordered),
        )?;
        row(
            out,
            "relays killed carrying the flow",
            format!("{} of {}", self.kills.len(), self.kills_wanted),
        )?;
        row(out, "hops hit", if hops.is_empty() { "none".to_owned() } else { hops.join(", ") })?;
        row(out, "failovers of the flow", failovers.to_string())?;
        if let Some(gaps) = self.gaps()? {
            row(out, "no data around a kill, ms", gaps.to_string())?;
        }
        row(out, "longest other pause, ms", format!("{:.1}", ms(self.longest_other_pause)))?;
        row(out, "longest pause of messages, ms", format!("{:.1}", ms(self.longest_message_pause)))?;
        row(out, "seconds", format!("{:.1}", self.duration.as_secs_f64()))?;
        Ok(row(out, "seed", self.seed.to_string())?)
    }
}

fn faults_json(faults: Faults) -> Value {
    json!({"lost": faults.lost, "duplicated": faults.duplicated, "reordered": faults.reordered})
}

fn kill_json(kill: &Kill) -> Value {
    let (to, cause, event_gap_ms) = match &kill.repair {
        Repair::Rerouted { to, cause, gap_ms } => (Some(to), cause.as_str(), Some(gap_ms)),
        Repair::Rebuilt => (None, "rebuilt", None),
    };
    json!({
        "relay": kill.relay,
        "hop": kill.hop,
        "to": to,
        "cause": cause,
        "gap_ms": ms(kill.gap),
        "event_gap_ms": event_gap_ms,
        "replacement": kill.replacement,
    })
}
