//! What came of a run: figures of each phase, JSON and tables.

use super::Args;
use super::ends::Messages;
use super::load::{BUCKET, Direction};
use super::pool::History;
use super::watch::Counts;
use crate::pattern::Faults;
use crate::report::{Report, histogram};
use hdrhistogram::Histogram;
use hopline_churn::Leave;
use hopline_command::Failure;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

/// How many of the longest pauses the JSON lists.
const LONGEST_SHOWN: usize = 10;

/// A phase: the same load with churn or without.
#[derive(Debug)]
pub(super) struct Phase {
    pub(super) seconds: f64,
    pub(super) directions: Vec<Direction>,
    pub(super) messages: Vec<Messages>,
    pub(super) counts: Counts,
    pub(super) history: History,
}

/// A flow that did not end well.
#[derive(Debug)]
struct LostFlow {
    what: String,
    cause: String,
}

impl Phase {
    /// Bytes that arrived while the senders were sending, a second.
    pub(super) fn goodput(&self, paced: bool) -> f64 {
        let buckets = (self.seconds / BUCKET.as_secs_f64()).round();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a small number of buckets"
        )]
        let buckets = buckets as usize;
        let of = |direction: &Direction| direction.buckets.iter().take(buckets).sum::<u64>();
        let bytes: u64 = self.directions.iter().filter(|direction| direction.paced == paced).map(of).sum();
        bytes as f64 / self.seconds
    }

    /// Bytes a second over time, all flows together.
    pub(super) fn goodput_over_time(&self, paced: bool) -> Vec<(f64, f64)> {
        let buckets = (self.seconds / BUCKET.as_secs_f64()).floor();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a small number of buckets"
        )]
        let mut sums = vec![0u64; buckets as usize];
        for direction in self.directions.iter().filter(|direction| direction.paced == paced) {
            sums.iter_mut().zip(&direction.buckets).for_each(|(sum, bytes)| *sum += bytes);
        }
        let at = |n: u32| (f64::from(n) + 0.5) * BUCKET.as_secs_f64();
        (0..).zip(sums).map(|(n, sum)| (at(n), sum as f64 / BUCKET.as_secs_f64())).collect()
    }

    pub(super) fn bytes(&self) -> (u64, u64) {
        self.directions.iter().fold((0, 0), |(sent, received), direction| {
            (sent + direction.sent, received + direction.received)
        })
    }

    pub(super) fn data(&self) -> Faults {
        self.directions.iter().fold(Faults::default(), |sum, direction| sum + direction.faults)
    }

    pub(super) fn message_faults(&self) -> Faults {
        self.messages.iter().fold(Faults::default(), |sum, messages| sum + messages.faults)
    }

    /// Whether everything arrived exactly once and in order, and every flow ended well.
    pub(super) fn is_clean(&self) -> bool {
        self.data() + self.message_faults() == Faults::default() && self.lost_flows().is_empty()
    }

    fn lost_flows(&self) -> Vec<LostFlow> {
        let mut lost = BTreeMap::new();
        for direction in &self.directions {
            if let Some(cause) = &direction.error {
                let what = if direction.paced { "paced" } else { "bulk" };
                lost.entry(direction.flow.0).or_insert((what, Vec::new())).1.push(cause.clone());
            }
        }
        let flows = lost.into_iter().map(|(flow, (what, causes))| LostFlow {
            what: format!("{what} flow {flow}"),
            cause: causes.join("; "),
        });
        let messages = self.messages.iter().filter(|messages| messages.receipts != messages.sent);
        let messages = messages.map(|messages| LostFlow {
            what: "messages".to_owned(),
            cause: format!(
                "{} of {} have no receipt: {}",
                messages.sent - messages.receipts,
                messages.sent,
                messages.cause.as_deref().unwrap_or("they did not come in time")
            ),
        });
        flows.chain(messages).collect()
    }

    /// All pauses of all paced flows, in microseconds.
    pub(super) fn pauses(&self) -> Result<Histogram<u64>, Failure> {
        sum(self.directions.iter().map(|direction| &direction.pauses))
    }

    /// The longest of them, with place and time.
    fn longest_pauses(&self) -> Vec<Value> {
        let all = self.directions.iter().flat_map(|direction| {
            direction.long_pauses.iter().map(move |(at, pause)| (*pause, *at, direction))
        });
        let mut all: Vec<_> = all.collect();
        all.sort_by_key(|(pause, ..)| std::cmp::Reverse(*pause));
        let shown = all.iter().take(LONGEST_SHOWN).map(|(pause, at, direction)| {
            json!({
                "ms": pause.as_secs_f64() * 1000.0, "ended_at_seconds": at.as_secs_f64(),
                "flow": direction.flow.0, "to": direction.to,
            })
        });
        shown.collect()
    }

    pub(super) fn latency(&self) -> Result<Histogram<u64>, Failure> {
        sum(self.messages.iter().map(|messages| &messages.latency))
    }

    fn to_json(&self) -> Result<Value, Failure> {
        let (sent, received) = self.bytes();
        let all = self.data() + self.message_faults();
        let pauses = self.pauses()?;
        let lost: Vec<Value> =
            self.lost_flows().iter().map(|lost| json!({"what": lost.what, "cause": lost.cause})).collect();
        Ok(json!({
            "seconds": self.seconds,
            "bytes_sent": sent,
            "bytes_received": received,
            "messages_sent": self.messages.iter().map(|messages| messages.sent).sum::<u64>(),
            "messages_delivered": self.messages.iter().map(|messages| messages.delivered).sum::<u64>(),
            "lost": all.lost,
            "duplicated": all.duplicated,
            "reordered": all.reordered,
            "lost_flows": lost,
            "goodput_paced_mb_per_second": self.goodput(true) / 1e6,
            "goodput_bulk_mb_per_second": self.goodput(false) / 1e6,
            "message_latency_ms": quantiles(&self.latency()?),
            "pause_ms": quantiles(&pauses),
            "pauses_over_100_ms": over(&pauses, 100),
            "pauses_over_1_s": over(&pauses, 1000),
            "longest_pauses": self.longest_pauses(),
            "failovers": self.counts.rerouted,
            "failover_causes": self.counts.causes,
            "failover_gap_ms": quantiles(&self.counts.gaps),
            "rebuilds": self.counts.rebuilt,
            "backups_replaced": self.counts.backups_replaced,
            "relays_assigned": self.counts.assigned,
            "relays_assigned_dead": self.counts.assigned_dead,
            "dead_when_assigned_ms": quantiles(&self.counts.dead_for),
            "flows_closed_incomplete": self.counts.broken,
            "events_missed": self.counts.missed,
        }))
    }
}

/// A whole run.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) seed: u64,
    /// Relays at the start.
    pub(super) relays: usize,
    pub(super) median_session: Option<Duration>,
    pub(super) baseline: Phase,
    pub(super) churn: Phase,
    /// From the start of a relay's process until it is in the pool, in microseconds.
    pub(super) starts: Histogram<u64>,
}

impl Outcome {
    pub(super) fn is_clean(&self) -> bool {
        self.baseline.is_clean() && self.churn.is_clean()
    }

    fn ratio(&self, paced: bool) -> Option<f64> {
        let baseline = self.baseline.goodput(paced);
        (baseline > 0.0).then(|| self.churn.goodput(paced) / baseline)
    }
}

impl Report<Args> for Outcome {
    fn to_json(&self, args: &Args) -> Result<Value, Failure> {
        let phase = &self.churn;
        let History { joins, overdue, .. } = phase.history;
        let end = Duration::from_secs_f64(phase.seconds);
        let faults =
            self.baseline.data() + self.baseline.message_faults() + phase.data() + phase.message_faults();
        Ok(json!({
            "lost": faults.lost,
            "duplicated": faults.duplicated,
            "reordered": faults.reordered,
            "lost_flows": self.baseline.lost_flows().len() + phase.lost_flows().len(),
            "sessions": args.sessions.to_string(),
            "speedup": args.speedup,
            "median_session_seconds": self.median_session.map(|median| median.as_secs_f64()),
            "relays": self.relays,
            "hops": args.hops,
            "flows": args.flows,
            "bulk": args.bulk,
            "seed": self.seed,
            "killed": phase.history.count(Leave::Crash),
            "left": phase.history.count(Leave::Graceful),
            "left_overdue": overdue,
            "died_with_zone": phase.history.count(Leave::ZoneFailure),
            "joined": joins,
            "start_ms": quantiles(&self.starts),
            "pool_mean": phase.history.mean(end),
            "pool_smallest": phase.history.smallest(),
            "seconds_below_hops_plus_1": phase.history.below(usize::from(args.hops) + 1, end).as_secs_f64(),
            "goodput_ratio_paced": self.ratio(true),
            "goodput_ratio_bulk": self.ratio(false),
            "baseline": self.baseline.to_json()?,
            "churn": phase.to_json()?,
        }))
    }

    fn print_table(&self, args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
        let end = Duration::from_secs_f64(self.churn.seconds);
        let history = &self.churn.history;
        let least = usize::from(args.hops) + 1;
        writeln!(
            out,
            "sessions {}, {} times as fast; {} relays ({} to start, {} to join: p50 {} ms)",
            args.sessions,
            args.speedup,
            self.relays,
            self.relays,
            history.joins,
            self.starts.value_at_quantile(0.5) / 1000
        )?;
        writeln!(
            out,
            "{} killed, {} left ({} too slowly), {} died with their zone; pool: mean {:.1}, smallest {}, {:.2} s below {least}",
            history.count(Leave::Crash),
            history.count(Leave::Graceful),
            history.overdue,
            history.count(Leave::ZoneFailure),
            history.mean(end),
            history.smallest(),
            history.below(least, end).as_secs_f64(),
        )?;
        writeln!(out)?;
        let mut row = |name: &str, cell: &dyn Fn(&Phase) -> Result<String, Failure>| {
            let (baseline, churn) = (cell(&self.baseline)?, cell(&self.churn)?);
            writeln!(out, "{name:<36} {baseline:>26} {churn:>26}").map_err(Failure::from)
        };
        row("", &|phase| {
            Ok(if std::ptr::eq(phase, &raw const self.churn) { "churn" } else { "no churn" }.to_owned())
        })?;
        row("paced goodput, MB/s", &|phase| Ok(format!("{:.2}", phase.goodput(true) / 1e6)))?;
        row("bulk goodput, MB/s", &|phase| Ok(format!("{:.2}", phase.goodput(false) / 1e6)))?;
        row("messages delivered", &|phase| {
            let count = |of: fn(&Messages) -> u64| phase.messages.iter().map(of).sum::<u64>();
            Ok(format!("{} of {}", count(|m| m.delivered), count(|m| m.sent)))
        })?;
        row("lost / duplicated / reordered", &|phase| {
            let Faults { lost, duplicated, reordered } = phase.data() + phase.message_faults();
            Ok(format!("{lost} / {duplicated} / {reordered}"))
        })?;
        row("flows lost", &|phase| Ok(phase.lost_flows().len().to_string()))?;
        row("message latency, ms: p50 p99 max", &|phase| Ok(three(&phase.latency()?)))?;
        row("pauses of data, ms: p50 p99.9 max", &|phase| Ok(three_far(&phase.pauses()?)))?;
        row("pauses over 100 ms, over 1 s", &|phase| {
            let pauses = phase.pauses()?;
            Ok(format!("{}, {}", over(&pauses, 100), over(&pauses, 1000)))
        })?;
        row("failovers, rebuilds", &|phase| {
            Ok(format!("{}, {}", phase.counts.rerouted, phase.counts.rebuilt))
        })?;
        row("gap of a failover, ms: p50 p99 max", &|phase| Ok(three(&phase.counts.gaps)))?;
        row("relays assigned, dead by then", &|phase| {
            Ok(format!("{}, {}", phase.counts.assigned, phase.counts.assigned_dead))
        })?;
        for (name, phase) in [("without churn", &self.baseline), ("with churn", &self.churn)] {
            for LostFlow { what, cause } in phase.lost_flows() {
                writeln!(out, "LOST {name}: {what}: {cause}")?;
            }
        }
        for (what, paced) in [("paced", true), ("bulk", false)] {
            if let Some(ratio) = self.ratio(paced) {
                writeln!(out, "{what} goodput with churn: {:.1} % of that without", ratio * 100.0)?;
            }
        }
        writeln!(out, "seed {}", self.seed)?;
        Ok(())
    }
}

fn sum<'a>(parts: impl Iterator<Item = &'a Histogram<u64>>) -> Result<Histogram<u64>, Failure> {
    let mut sum = histogram()?;
    for part in parts {
        // All have the same bounds.
        let _ = sum.add(part);
    }
    Ok(sum)
}

/// How many are longer than `ms` milliseconds.
fn over(histogram: &Histogram<u64>, ms: u64) -> u64 {
    histogram.len() - histogram.count_between(0, ms * 1000)
}

fn quantiles(histogram: &Histogram<u64>) -> Option<Value> {
    let at = |share| histogram.value_at_quantile(share) as f64 / 1000.0;
    (!histogram.is_empty()).then(|| {
        json!({
            "count": histogram.len(), "p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "p999": at(0.999),
            "max": histogram.max() as f64 / 1000.0,
        })
    })
}

fn three(histogram: &Histogram<u64>) -> String {
    spread(histogram, 0.99)
}

fn three_far(histogram: &Histogram<u64>) -> String {
    spread(histogram, 0.999)
}

fn spread(histogram: &Histogram<u64>, far: f64) -> String {
    if histogram.is_empty() {
        return "-".to_owned();
    }
    let ms = |us: u64| us as f64 / 1000.0;
    let (mid, far) = (histogram.value_at_quantile(0.5), histogram.value_at_quantile(far));
    format!("{:.1} {:.1} {:.1}", ms(mid), ms(far), ms(histogram.max()))
}
