//! `hopline bench bootstrap`: how large a pool one bootstrap keeps, how fast it plans, and how many connections it carries.
//!
//! Measured twice. [`pool`] asks the machine alone, in pools of several sizes, each in a process of its own, so that what
//! memory holds is the pool's. There time is told, not waited for. [`quic`] runs a real bootstrap on loopback, with relays
//! that are registered over real connections and do nothing but heartbeat.

mod pool;
mod quic;
mod report;
mod times;

pub(super) use pool::{Args as PoolArgs, measure as measure_pool};

use super::{Exit, Failure};
use crate::report::{RunArgs, uninterrupted};
use crate::stage::Stage;
use hopline_command::duration::parse_positive;
use hopline_proto::BootId;
use hopline_proto::rpc::{Capabilities, Load, Offer, Request};
use indicatif::ProgressBar;
use report::Outcome;
use std::fmt::Display;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

/// Connections unless told otherwise.
const AUTO: u32 = 5_000;
/// How often a moving sign of life is drawn.
const FRAME: Duration = Duration::from_millis(200);

const MIB: f64 = 1024.0 * 1024.0;

/// How many relays of a pool share a subnet, and how many zones there are.
const RELAYS_A_SUBNET: u32 = 4;
const ZONES: u32 = 12;
/// The first subnet: the others follow, a host for each relay.
const FIRST_SUBNET: u32 = 0x1000_0000;
/// What the smallest relays carry; there are as many of twice and of four times that. No plan of a run fills one.
const CAPACITY: u32 = 1 << 16;
/// The process that every relay says it is.
const BOOT: BootId = BootId::from_bytes([1; 16]);

/// Heartbeats, plans, memory and expiry of one bootstrap: in process, by size of the pool, and over QUIC.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  hopline bench bootstrap                                     a few minutes, 1.5 GB of memory
  hopline bench bootstrap --only pool --plot bootstrap.svg
  hopline bench bootstrap --only quic --connections 8000 --seconds 60
  hopline bench bootstrap --json | jq '.pool[] | {relays, plan_us}'")]
pub(super) struct Args {
    /// Pool sizes of the in-process part
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_values_t = [1_000, 10_000, 100_000, 1_000_000],
        value_parser = clap::value_parser!(u32).range(100..=10_000_000))]
    sizes: Vec<u32>,
    /// Connections of the QUIC part; auto for 5000, or as many as fit
    #[arg(long, value_name = "N|auto", default_value = "auto", value_parser = connections)]
    connections: u32,
    /// How long to count heartbeats over QUIC
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    seconds: u32,
    /// Heartbeat interval of each connection
    #[arg(long, default_value = "10s", value_name = "TIME", value_parser = parse_positive)]
    heartbeat: Duration,
    /// Run only this part
    #[arg(long, value_enum)]
    only: Option<Part>,
    /// Draw plan times and heartbeats a second by size of the pool
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
    #[command(flatten)]
    run: RunArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// The machine alone, in process
    Pool,
    /// A bootstrap over QUIC
    Quic,
}

impl Args {
    fn wants(&self, part: Part) -> bool {
        self.only.is_none_or(|only| only == part)
    }
}

fn connections(text: &str) -> Result<u32, String> {
    match text.parse() {
        _ if text == "auto" => Ok(AUTO),
        Ok(count @ 1..) => Ok(count),
        _ => Err("write a number above 0, or auto".to_owned()),
    }
}

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    if args.plot.is_some() && !args.wants(Part::Pool) {
        return Err(Failure::new(
            Exit::Usage,
            "--plot shows the in-process part, which --only quic leaves out",
        ));
    }
    let seed = args.run.seed();
    let stage = args.run.stage()?;
    let screen = ProgressBar::new_spinner();
    screen.enable_steady_tick(FRAME);
    let performed = uninterrupted("bench bootstrap", seed, perform(&args, seed, &stage, &screen)).await;
    screen.finish_and_clear();
    let outcome = performed?;
    if let Some(path) = &args.plot {
        outcome.draw(path)?;
    }
    args.run.print(&outcome, &args)
}

async fn perform(args: &Args, seed: u64, stage: &Stage, screen: &ProgressBar) -> Result<Outcome, Failure> {
    let mut outcome = Outcome { seed, pools: Vec::new(), quic: None };
    if args.wants(Part::Pool) {
        for relays in &args.sizes {
            screen.set_message(format!("a pool of {relays} relays"));
            outcome.pools.push(pool::apart(stage, *relays, seed).await?);
        }
    }
    if args.wants(Part::Quic) {
        outcome.quic = Some(quic::measure(args, stage, screen).await?);
    }
    Ok(outcome)
}

/// How the relay of this number registers: on a host of its own, a few to a subnet, each subnet in one zone.
fn registration(number: u32) -> Request {
    let subnet = number / RELAYS_A_SUBNET;
    let host = FIRST_SUBNET.wrapping_add(subnet << 8) + 1 + number % RELAYS_A_SUBNET;
    let offer = Offer::Relay {
        addresses: vec![(Ipv4Addr::from_bits(host), 4433).into()],
        zone: format!("zone-{:02}", subnet % ZONES),
        capacity: CAPACITY << (number % 3),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        capabilities: Capabilities::default(),
    };
    Request::Register { name: format!("r{:06}", number + 1), offer, boot: BOOT }
}

/// What a relay says of itself in this heartbeat of its: something else each time.
const fn load(sequence: u64) -> Load {
    Load { flows: (sequence % 100) as u32, bytes_per_second: sequence % 1_000_000, resources: None }
}

/// Memory of a process that is in use, in bytes (proc(5)).
fn resident_bytes(process: impl Display) -> Result<f64, Failure> {
    proc_bytes(&format!("/proc/{process}/status"), "VmRSS:")
}

/// A size that the kernel tells in a line of a file.
fn proc_bytes(path: &str, name: &str) -> Result<f64, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| Failure::from(error).at(path))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<f64>().ok());
    kib.map(|kib| kib * 1024.0).ok_or_else(|| Failure::new(Exit::Failed, format!("{path} has no {name}")))
}
