//! What came of a run under churn.

use crate::statistics::Statistics;
use crate::traffic::{App, quantile};
use crate::world::World;
use hopline_proto::frame::CloseCode;
use std::time::Duration;

/// One moment, and what happened since the one before.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sample {
    pub(crate) at: Duration,
    pub(crate) every: Duration,
    pub(crate) living: usize,
    /// How evenly flows are spread over relays.
    pub(crate) fairness: f64,
    pub(crate) most_loaded: u32,
    /// A second:
    pub(crate) delivered: f64,
    pub(crate) repair_bytes_per_relay: f64,
    pub(crate) asks: f64,
    pub(crate) reroutes: f64,
}

/// Running totals at the last sample.
#[derive(Clone, Copy, Debug, Default)]
struct Before {
    delivered: u64,
    control: u64,
    asks: u64,
    reroutes: u64,
}

/// See the module's documentation.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    pub(crate) joined: u64,
    pub(crate) left: u64,
    pub(crate) samples: Vec<Sample>,
    pub(crate) opened: u64,
    pub(crate) done: u64,
    pub(crate) lost: Vec<String>,
    pub(crate) unfinished: u64,
    pub(crate) sent: u64,
    pub(crate) taken: u64,
    pub(crate) corrupt: bool,
    /// From sending to taking.
    pub(crate) latency: Vec<(f64, Duration)>,
    pub(crate) messages: u64,
    /// From the last sign of life of a next hop to its successor's answer.
    pub(crate) gaps: Vec<(f64, Duration)>,
    /// How long deaths went unnoticed, where that was drawn and not lived through.
    pub(crate) noticed: Vec<(f64, Duration)>,
    /// How long flows had a hop without a backup, and how many had one before the end.
    pub(crate) protected: Vec<(f64, Duration)>,
    pub(crate) unprotected: usize,
    /// Bytes a second delivered by the same run without churn.
    pub(crate) baseline: Option<f64>,
    pub(crate) reroutes: u64,
    pub(crate) rebuilds: u64,
    pub(crate) backups: u64,
    pub(crate) open_failures: u64,
    pub(crate) control: Control,
    pub(crate) asks: u64,
    pub(crate) ask_bytes: u64,
    pub(crate) answer_bytes: u64,
    pub(crate) refused: u64,
    pub(crate) events: u64,
    pub(crate) connections: u64,
    pub(crate) simulated: Duration,
    pub(crate) hash: u64,
}

/// Frames that relays sent besides heartbeats, and their bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Control {
    pub(crate) acks: (u64, u64),
    pub(crate) repairs: (u64, u64),
    pub(crate) headers: (u64, u64),
}

const QUANTILES: [f64; 5] = [0.5, 0.9, 0.99, 0.999, 1.0];

impl Report {
    pub(super) fn sample(&mut self, sample: Sample, world: &World) {
        let (statistics, last) = (&world.statistics, self.totals());
        let now = Before {
            delivered: world.apps.delivery.bytes,
            control: control_bytes(statistics),
            asks: statistics.asks,
            reroutes: statistics.reroutes,
        };
        let seconds = sample.every.as_secs_f64().max(1e-9);
        let rate = |now: u64, before: u64| as_f64(now - before) / seconds;
        self.samples.push(Sample {
            delivered: rate(now.delivered, last.delivered),
            repair_bytes_per_relay: rate(now.control, last.control) / as_f64(sample.living.max(1) as u64),
            asks: rate(now.asks, last.asks),
            reroutes: rate(now.reroutes, last.reroutes),
            ..sample
        });
        self.taken = now.delivered;
        self.unprotected = statistics.unprotected();
        self.control = of_statistics(statistics);
        (self.asks, self.reroutes) = (now.asks, now.reroutes);
    }

    fn totals(&self) -> Before {
        let Control { acks, repairs, headers } = self.control;
        Before {
            delivered: self.taken,
            control: acks.1 + repairs.1 + headers.1,
            asks: self.asks,
            reroutes: self.reroutes,
        }
    }

    pub(super) fn conclude(&mut self, world: &World) {
        let (statistics, delivery) = (&world.statistics, &world.apps.delivery);
        for (number, app) in world.apps.iter().enumerate() {
            self.count(number, app);
        }
        let of = |histogram| QUANTILES.map(|q| (q, quantile(histogram, q))).to_vec();
        (self.latency, self.messages) = (of(&delivery.latency), delivery.latency.len());
        self.gaps = of(&statistics.gaps);
        self.protected = of(&statistics.protected);
        if !statistics.noticed.is_empty() {
            self.noticed = of(&statistics.noticed);
        }
        self.corrupt = delivery.corrupt.is_some();
        self.taken = delivery.bytes;
        (self.reroutes, self.rebuilds, self.backups) =
            (statistics.reroutes, statistics.rebuilds, statistics.backups);
        (self.opened, self.open_failures) = (statistics.opened, statistics.open_failures);
        (self.asks, self.refused) = (statistics.asks, statistics.refused);
        (self.ask_bytes, self.answer_bytes) = (statistics.ask_bytes, statistics.answer_bytes);
        (self.events, self.connections) = (world.events, statistics.connections);
        (self.simulated, self.hash) = (world.elapsed(), world.hash.value());
    }

    fn count(&mut self, number: usize, app: &App) {
        let (origin, target) = (app.half(0), app.half(1));
        self.sent += origin.sent + target.sent;
        match origin.ended {
            Some(CloseCode::Done) if app.is_complete() => self.done += 1,
            Some(code) => {
                self.lost.push(format!("flow {number} as {code:?}, {} of {}", target.taken, origin.sent))
            }
            None => self.unfinished += 1,
        }
    }

    fn mean(&self, of: impl Fn(&Sample) -> f64) -> f64 {
        self.samples.iter().map(of).sum::<f64>() / as_f64(self.samples.len().max(1) as u64)
    }

    /// Bytes a second that a relay sends on control streams and as headers, on average.
    pub(crate) fn control_per_relay(&self) -> f64 {
        self.mean(|sample| sample.repair_bytes_per_relay)
    }

    pub(crate) fn goodput(&self) -> f64 {
        self.mean(|sample| sample.delivered)
    }

    fn share_of_baseline(&self) -> Option<f64> {
        self.baseline.map(|baseline| 100.0 * self.goodput() / baseline.max(1e-9))
    }

    pub(crate) fn fairness(&self) -> f64 {
        self.mean(|sample| sample.fairness)
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
        let lost = self.lost.iter().take(10).map(|lost| ("lost", lost.clone()));
        let lines = self.promises().into_iter().chain(self.costs()).chain(lost);
        lines.fold(String::new(), |text, (what, value)| text + &format!("{what:<24} {value}\n"))
    }

    /// What users notice.
    fn promises(&self) -> Vec<(&'static str, String)> {
        let mut lines = Vec::new();
        let share = |part: u64| 100.0 * as_f64(part) / as_f64(self.sent.max(1));
        let mut line = |what, value| lines.push((what, value));
        line(
            "relays",
            format!(
                "{} joined, {} left; {:.0} alive on average",
                self.joined,
                self.left,
                self.mean(|s| as_f64(s.living as u64))
            ),
        );
        line(
            "flows",
            format!(
                "{} opened, {} done, {} lost, {} unfinished",
                self.opened,
                self.done,
                self.lost.len(),
                self.unfinished
            ),
        );
        line(
            "bytes",
            format!(
                "{} sent, {} taken ({:.3} %), {:.0} B/s",
                self.sent,
                self.taken,
                share(self.taken),
                self.goodput()
            ),
        );
        if let Some((baseline, share)) = self.baseline.zip(self.share_of_baseline()) {
            line("goodput", format!("{share:.2} % of the {baseline:.0} B/s without churn"));
        }
        line("delivery latency", quantiles(&self.latency) + &format!("; {} messages", self.messages));
        line("failovers", format!("{}, gap {}", self.reroutes, quantiles(&self.gaps)));
        if !self.noticed.is_empty() {
            line("deaths noticed after", quantiles(&self.noticed) + "; before the gaps");
        }
        lines
    }

    /// What it took.
    fn costs(&self) -> Vec<(&'static str, String)> {
        let mut lines = Vec::new();
        let mut line = |what, value| lines.push((what, value));
        line("rebuilds, new backups", format!("{}, {}", self.rebuilds, self.backups));
        line("protected again after", quantiles(&self.protected) + &format!("; {} never", self.unprotected));
        let Control { acks, repairs, headers } = self.control;
        line(
            "control per relay",
            format!(
                "{:.1} B/s (acks {}, repair {}, headers {} bytes in all)",
                self.control_per_relay(),
                acks.1,
                repairs.1,
                headers.1
            ),
        );
        let seconds = self.simulated.as_secs_f64().max(1e-9);
        line(
            "bootstrap",
            format!(
                "{:.1} asks/s ({} refused), {:.0} B/s in, {:.0} B/s out",
                as_f64(self.asks) / seconds,
                self.refused,
                as_f64(self.ask_bytes) / seconds,
                as_f64(self.answer_bytes) / seconds
            ),
        );
        line(
            "fairness (Jain)",
            format!(
                "{:.3} on average; most flows on one relay {}",
                self.fairness(),
                self.samples.iter().map(|s| s.most_loaded).max().unwrap_or(0)
            ),
        );
        lines
    }

    /// For machines.
    pub(crate) fn json(&self) -> String {
        let quantiles = |list: &[(f64, Duration)]| {
            let parts: Vec<String> =
                list.iter().map(|(q, d)| format!("\"{q}\":{:.3}", d.as_secs_f64() * 1e3)).collect();
            format!("{{{}}}", parts.join(","))
        };
        let number = |n: Option<f64>| n.map_or("null".to_owned(), |n| format!("{n:.2}"));
        let fields = [
            ("joined", self.joined.to_string()),
            ("left", self.left.to_string()),
            ("opened", self.opened.to_string()),
            ("done", self.done.to_string()),
            ("lost", self.lost.len().to_string()),
            ("unfinished", self.unfinished.to_string()),
            ("sent_bytes", self.sent.to_string()),
            ("taken_bytes", self.taken.to_string()),
            ("goodput_bytes_per_second", format!("{:.1}", self.goodput())),
            ("baseline_bytes_per_second", number(self.baseline)),
            ("goodput_percent_of_baseline", number(self.share_of_baseline())),
            ("latency_ms", quantiles(&self.latency)),
            ("failovers", self.reroutes.to_string()),
            ("failover_gap_ms", quantiles(&self.gaps)),
            ("noticed_ms", quantiles(&self.noticed)),
            ("rebuilds", self.rebuilds.to_string()),
            ("backups", self.backups.to_string()),
            ("protected_ms", quantiles(&self.protected)),
            ("unprotected", self.unprotected.to_string()),
            ("control_bytes_per_relay_per_second", format!("{:.2}", self.control_per_relay())),
            ("bootstrap_asks", self.asks.to_string()),
            ("bootstrap_in_bytes", self.ask_bytes.to_string()),
            ("bootstrap_out_bytes", self.answer_bytes.to_string()),
            ("fairness", format!("{:.4}", self.fairness())),
            ("events", self.events.to_string()),
            ("simulated_seconds", format!("{:.1}", self.simulated.as_secs_f64())),
            ("trace_hash", format!("\"{:016x}\"", self.hash)),
        ];
        let fields: Vec<String> = fields.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        format!("{{{}}}", fields.join(","))
    }
}

fn of_statistics(statistics: &Statistics) -> Control {
    Control { acks: statistics.acks, repairs: statistics.repairs, headers: statistics.headers }
}

fn control_bytes(statistics: &Statistics) -> u64 {
    statistics.acks.1 + statistics.repairs.1 + statistics.headers.1
}

fn quantiles(list: &[(f64, Duration)]) -> String {
    let names = ["median", "p90", "p99", "p99.9", "most"];
    let parts =
        names.iter().zip(list).map(|(name, (_, d))| format!("{name} {:.1} ms", d.as_secs_f64() * 1e3));
    parts.collect::<Vec<_>>().join(", ")
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
const fn as_f64(n: u64) -> f64 {
    n as f64
}
