//! `churn`.
#![expect(clippy::print_stdout, reason = "the result of the run")]

use super::stopwatch;
use crate::churn::{Options, draw, run};
use crate::settings::Fidelity;
use clap::Args;
use hopline_churn::{Arrivals, Spec, ZoneFailures, parse_duration};
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Above so many relays links' heartbeats are not simulated unless asked for.
const MANY: u32 = 100;

/// Simulate a pool whose relays come and go.
#[derive(Debug, Args)]
pub(super) struct Churn {
    /// Model of the relays' session lengths: exp:MEDIAN, weibull:SHAPE:MEDIAN, pareto:SHAPE:MEDIAN, trace:FILE, or none.
    #[arg(long, default_value = "exp:1.4min")]
    sessions: String,
    #[arg(long, default_value_t = 100)]
    relays: u32,
    #[arg(long, default_value_t = 50)]
    flows: usize,
    /// Flows of each origin and of each target.
    #[arg(long, default_value_t = 10, value_parser = at_least_one)]
    per_endpoint: usize,
    #[arg(long, default_value_t = 3)]
    hops: u8,
    /// Simulated time.
    #[arg(long, default_value = "10min", value_parser = duration)]
    duration: Duration,
    #[arg(long, default_value_t = 4)]
    zones: u16,
    /// Mean time between failures of a zone; each lasts `--zone-outage`.
    #[arg(long, value_parser = duration)]
    zone_failures: Option<Duration>,
    #[arg(long, default_value = "20s", value_parser = duration)]
    zone_outage: Duration,
    /// This many relays join within a second, half-way through.
    #[arg(long, default_value_t = 0)]
    crowd: u32,
    /// This many relays die within 10 ms, half-way through.
    #[arg(long, default_value_t = 0)]
    deaths: usize,
    /// Replace each relay that leaves at once, instead of arrivals as a Poisson process.
    #[arg(long)]
    replace: bool,
    /// Share of relays that drain before they leave.
    #[arg(long, default_value_t = 0.0)]
    graceful: f64,
    /// Size of each message in bytes.
    #[arg(long, default_value_t = 1024)]
    message: u64,
    /// Interval of each flow's messages.
    #[arg(long, default_value = "1s", value_parser = duration)]
    every: Duration,
    /// Longest one-way delay between two nodes; the shortest is a tenth of it.
    #[arg(long, default_value = "20ms", value_parser = duration)]
    delay: Duration,
    /// Bandwidth of a link each way, in bytes a second; 0 is unlimited.
    #[arg(long, default_value_t = 0)]
    bandwidth: u64,
    /// Lease: how long a relay keeps its place without a heartbeat; the interval is a third of it.
    #[arg(long, default_value = "30s", value_parser = duration)]
    lease: Duration,
    /// A packet for a dead process brings an ICMP error back, as on one machine or in one network.
    #[arg(long)]
    refusals: bool,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Simulate every heartbeat of every link, whatever the size of the pool.
    #[arg(long, conflicts_with = "lean")]
    full: bool,
    /// Simulate no heartbeats on links, whatever the size of the pool.
    #[arg(long)]
    lean: bool,
    /// Skip the same run without churn, with which goodput is compared.
    #[arg(long)]
    alone: bool,
    /// Draw the run as SVG.
    #[arg(long)]
    plot: Option<PathBuf>,
    #[arg(long)]
    json: bool,
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| "write 84s, 1.4min, 2h or 500ms".to_owned())
}

fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|count| *count > 0).ok_or_else(|| "write a number from 1 on".to_owned())
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
            flows_per_endpoint: self.per_endpoint,
            hops: self.hops,
            duration: self.duration,
            zones: self.zones,
            zone_failures,
            crowd: self.crowd,
            deaths: self.deaths,
            arrivals: if self.replace { Arrivals::Replace } else { Arrivals::Poisson },
            graceful: self.graceful,
            fidelity: if lean { Fidelity::Lean } else { Fidelity::Full },
            message_bytes: self.message,
            every: self.every,
            delay: self.delay,
            bandwidth: self.bandwidth,
            lease: self.lease,
            refusals: self.refusals,
        };
        let calm = Options { sessions: None, crowd: 0, deaths: 0, ..options.clone() };
        let baseline = (!self.alone && (options.sessions.is_some() || options.deaths > 0))
            .then(|| run(calm, progress("without churn")));
        let clock = stopwatch();
        let mut report = run(options, progress("under churn"));
        let took = clock();
        report.baseline = baseline.map(|baseline| baseline.goodput());
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

/// Says on a terminal how far a long run has come.
#[expect(clippy::print_stderr, reason = "that is what it is for")]
fn progress(what: &'static str) -> impl FnMut(f64) {
    let (clock, shown) = (stopwatch(), std::io::stderr().is_terminal());
    move |share| {
        if shown && share < 1.0 {
            eprint!("\r{what}: {:3.0} % after {:.0} s ", share * 100.0, clock().as_secs_f64());
        } else if shown {
            eprint!("\r\x1b[K");
        }
    }
}

/// The most memory that this process has had, where the system tells.
fn memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).map_or("?", str::trim);
    format!("peak memory {peak}")
}
