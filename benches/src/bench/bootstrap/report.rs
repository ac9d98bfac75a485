//! What came of it, for people, for scripts, and as a picture.

use super::times::Spread;
use super::{Args, MIB, pool, quic};
use crate::plot::{self, Chart, Series, Shape};
use crate::report::Report;
use hopline_command::Failure;
use plotters::style::RGBColor;
use serde_json::{Value, json};
use std::io::Write;
use std::path::Path;

/// Both parts, as far as they were asked for.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) seed: u64,
    pub(super) pools: Vec<pool::Measured>,
    pub(super) quic: Option<quic::Measured>,
}

impl Report<Args> for Outcome {
    fn to_json(&self, _: &Args) -> Result<Value, Failure> {
        Ok(json!({"seed": self.seed, "pool": self.pools, "quic": self.quic}))
    }

    fn print_table(&self, _: &Args, out: &mut dyn Write) -> Result<(), Failure> {
        if !self.pools.is_empty() {
            self.print_pools(out)?;
        }
        Ok(self.quic.iter().try_for_each(|quic| print_quic(quic, out))?)
    }
}

impl Outcome {
    fn print_pools(&self, out: &mut dyn Write) -> std::io::Result<()> {
        writeln!(out, "In process, on one thread, seed {}", self.seed)?;
        let mut row = |what: &str, cell: &dyn Fn(&pool::Measured) -> String| {
            let cells: String = self.pools.iter().map(|pool| format!("{:>23}", cell(pool))).collect();
            writeln!(out, "{what:<46}{cells}")
        };
        row("relays", &|pool| grouped(pool.relays.into()))?;
        row("registrations a second", &|pool| grouped(pool.registrations_per_second))?;
        row("heartbeats a second", &|pool| grouped(pool.heartbeats.per_second))?;
        row("  in a plain hash map", &|pool| grouped(pool.map_heartbeats.per_second))?;
        row("CPU of a heartbeat, µs", &|pool| format!("{:.3}", pool.heartbeats.cpu_us))?;
        row("planner, µs: p50 / p90 / p99", &|pool| quantiles(pool.plan_us))?;
        row("  the same number of relays drawn blindly", &|pool| quantiles(pool.random_pick_us))?;
        row("answered plan, sealed, µs: p50 / p90 / p99", &|pool| quantiles(pool.answered_plan_us))?;
        row("bytes a relay", &|pool| grouped(pool.resident_bytes_per_relay))?;
        row("  of which the record alone", &|pool| grouped(pool.record_bytes_per_relay))?;
        row("leases that end at once", &|pool| grouped(pool.expiry.leases as f64))?;
        row("  renewals meanwhile, ms: p99 / most", &|pool| tail(pool.expiry.renewal_ms))?;
        row("  their CPU alone, ms: p99 / most", &|pool| tail(pool.expiry.renewal_cpu_ms))?;
        row("  CPU of all that ends, ms", &|pool| short(pool.expiry.total_cpu_ms))
    }

    /// Plan times and heartbeats a second by size of the pool.
    pub(super) fn draw(&self, path: &Path) -> Result<(), Failure> {
        let line = |name: &str, colour: RGBColor, value: &dyn Fn(&pool::Measured) -> f64| Series {
            name: name.to_owned(),
            colour,
            shape: Shape::Dots,
            points: self.pools.iter().map(|pool| (pool.relays.into(), value(pool))).collect(),
        };
        let chart = |label: &str, series| Chart { label: label.to_owned(), series, marks: Vec::new() };
        let charts = [
            chart(
                "planner, µs",
                vec![
                    line("p50", plot::BLUE, &|pool| pool.plan_us.p50),
                    line("p99", plot::ORANGE, &|pool| pool.plan_us.p99),
                    line("drawn blindly, p50", plot::GREY, &|pool| pool.random_pick_us.p50),
                ],
            ),
            chart(
                "answered plan, µs",
                vec![
                    line("p50", plot::BLUE, &|pool| pool.answered_plan_us.p50),
                    line("p99", plot::ORANGE, &|pool| pool.answered_plan_us.p99),
                ],
            ),
            chart(
                "million heartbeats a second",
                vec![
                    line("answered", plot::BLUE, &|pool| pool.heartbeats.per_second / 1e6),
                    line("in a plain hash map", plot::GREY, &|pool| pool.map_heartbeats.per_second / 1e6),
                ],
            ),
        ];
        let caption = format!("hopline bench bootstrap: one thread, seed {}", self.seed);
        plot::draw_by_decades(path, &caption, "relays in the pool", &charts)
    }
}

fn print_quic(quic: &quic::Measured, out: &mut dyn Write) -> std::io::Result<()> {
    let mut row = |what: &str, value: String| writeln!(out, "{what:<46}{value}");
    let connections = grouped(quic.connections as f64);
    row("Over QUIC, connections", connections)?;
    if let Some(limit) = &quic.limited_by {
        row("  not more because of", limit.clone())?;
    }
    row("registered and online", grouped(quic.online.into()))?;
    row("connections a second, registration included", grouped(quic.connections_per_second))?;
    let (before, after) = (quic.resident_bytes_before / MIB, quic.resident_bytes_after / MIB);
    row("memory of the bootstrap, MiB: before / after", format!("{before:.1} / {after:.1}"))?;
    row("  KiB a connection", format!("{:.1}", quic.resident_kib_per_connection))?;
    let mut load = |what: String, load: &quic::Load| {
        row(&what, format!("for {:.0} s", load.seconds))?;
        row("  heartbeats a second", grouped(load.heartbeats_per_second))?;
        row("  latency, ms: p50 / p99 / most", {
            let Spread { p50, p99, max, .. } = load.latency_ms;
            format!("{} / {} / {}", short(p50), short(p99), short(max))
        })?;
        row("  CPU of the bootstrap, % of a core", format!("{:.1}", load.cpu_percent))?;
        let why = load.failure.as_ref().map(|why| format!(" (the first: {why})"));
        row("  failures", format!("{}{}", load.failures, why.unwrap_or_default()))
    };
    load(format!("a heartbeat every {} s on each", quic.heartbeat_seconds), &quic.paced)?;
    load(format!("as many as fit, on {} of them", quic.saturated_connections), &quic.saturated)
}

fn quantiles(Spread { p50, p90, p99, .. }: Spread) -> String {
    format!("{} / {} / {}", short(p50), short(p90), short(p99))
}

fn tail(Spread { p99, max, .. }: Spread) -> String {
    format!("{p99:.3} / {max:.3}")
}

/// A measure with three digits or so.
fn short(value: f64) -> String {
    let decimals = match value {
        100.0.. => 0,
        10.0.. => 1,
        _ => 2,
    };
    format!("{value:.decimals$}")
}

/// A count with its thousands apart.
pub(super) fn grouped(count: f64) -> String {
    let digits = format!("{count:.0}");
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().filter_map(|group| std::str::from_utf8(group).ok()).collect();
    groups.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_told_apart() {
        for (count, text) in [(0.0, "0"), (999.4, "999"), (1000.0, "1,000"), (1_234_567.0, "1,234,567")] {
            assert_eq!(grouped(count), text);
        }
    }
}
