//! `churn`.
#![expect(clippy::print_stdout, reason = "the result of the run")]

use super::stopwatch;
use crate::churn::{Options, draw, run};
use crate::world::Fidelity;
use clap::Args;
use hopline::churn::{Spec, ZoneFailures, parse_duration};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Above so many relays links' heartbeats are not simulated unless asked for.
const MANY: u32 = 100;

/// A pool whose relays come and go.
#[derive(Debug, Args)]
pub(super) struct Churn {
    /// How long relays stay: exp:MEDIAN, weibull:SHAPE:MEDIAN, pareto:SHAPE:MEDIAN, trace:FILE, or none.
    #[arg(long, default_value = "exp:1.4min")]
    sessions: String,
    #[arg(long, default_value_t = 100)]
    relays: u32,
    #[arg(long, default_value_t = 50)]
    flows: usize,
    #[arg(long, default_value_t = 3)]
    hops: u8,
    /// Simulated.
    #[arg(long, default_value = "10min", value_parser = duration)]
    duration: Duration,
    #[arg(long, default_value_t = 4)]
    zones: u16,
    /// A zone fails so often on average, for `--zone-outage`.
    #[arg(long, value_parser = duration)]
    zone_failures: Option<Duration>,
    #[arg(long, default_value = "20s", value_parser = duration)]
    zone_outage: Duration,
    /// The share of relays that leave in good order.
    #[arg(long, default_value_t = 0.0)]
    graceful: f64,
    /// Bytes of each message.
    #[arg(long, default_value_t = 1024)]
    message: u64,
    /// From one message of a flow to the next.
    #[arg(long, default_value = "1s", value_parser = duration)]
    every: Duration,
    /// How long a lease lasts without a heartbeat; three fit into it.
    #[arg(long, default_value = "30s", value_parser = duration)]
    lease: Duration,
    /// How often nodes see to the links that their flows may need.
    #[arg(long, default_value = "5s", value_parser = duration)]
    upkeep: Duration,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Every heartbeat of every link, however large the pool is.
    #[arg(long, conflicts_with = "lean")]
    full: bool,
    /// No heartbeats on links, however small the pool is.
    #[arg(long)]
    lean: bool,
    /// Draw the run as SVG.
    #[arg(long)]
    plot: Option<PathBuf>,
    #[arg(long)]
    json: bool,
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| "write 84s, 1.4min, 2h or 500ms".to_owned())
}

impl Churn {
    pub(super) fn run(&self) -> ExitCode {
        match self.try_run() {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(error) => {
                println!("{error}");
                ExitCode::FAILURE
            }
        }
    }

    fn try_run(&self) -> Result<bool, Box<dyn std::error::Error>> {
        let sessions = match self.sessions.as_str() {
            "none" => None,
            text => Some(text.parse::<Spec>()?.load(|path| std::fs::read_to_string(path))?),
        };
        let lean = self.lean || (self.relays > MANY && !self.full);
        let zone_failures = self.zone_failures.map(|every| ZoneFailures { every, outage: self.zone_outage });
        let options = Options {
            seed: self.seed,
            sessions,
            relays: self.relays,
            flows: self.flows,
            hops: self.hops,
            duration: self.duration,
            zones: self.zones,
            zone_failures,
            graceful: self.graceful,
            fidelity: if lean { Fidelity::Lean } else { Fidelity::Full },
            message_bytes: self.message,
            every: self.every,
            lease: self.lease,
            upkeep: self.upkeep,
        };
        let clock = stopwatch();
        let report = run(options);
        let took = clock();
        let caption = format!(
            "hopline-sim churn: {}, {} relays, {} flows over {} hops, seed {}",
            self.sessions, self.relays, self.flows, self.hops, self.seed
        );
        if let Some(path) = &self.plot {
            std::fs::write(path, draw(&caption, &report)?)?;
        }
        if self.json {
            println!("{}", report.json());
        } else {
            let speed = report.simulated.as_secs_f64() / took.as_secs_f64();
            println!("{caption}\n{}", report.text());
            println!(
                "{:.0} s simulated in {:.2} s, {speed:.0} times real time, {} events, {} connections, {}, hash {:016x}",
                report.simulated.as_secs_f64(),
                took.as_secs_f64(),
                report.events,
                report.connections,
                memory(),
                report.hash
            );
        }
        Ok(report.lost.is_empty() && !report.corrupt)
    }
}

/// The most memory that this process has had, where the system tells.
fn memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).map_or("?", str::trim);
    format!("peak memory {peak}")
}
