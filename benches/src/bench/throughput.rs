//! `hopline bench throughput`: one flow, bulk one way, over real processes on loopback. Interleaved in the same run goes
//! the dumb splice (benches/src/splice.rs): the simplest chain of QUIC relays that works, which keeps nothing, at the
//! same MTU setting and with the same end-to-end TLS.

use super::network::{Network, SpliceChain, done, number};
use crate::stage::{Process, Stage};
use bytesize::ByteSize;
use hopline::endpoint::Plane;
use hopline_command::{Failure, say};
use serde_json::{Value, json};
use std::io::Write;
use std::time::Duration;
use tokio::io::AsyncWriteExt;

/// One bulk flow over 1 and 3 relays, stored and over a session, compared with a dumb splice over 0, 1 and 3. (A flow has at least one
/// relay.)
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  hopline bench throughput
  hopline bench throughput --size 256MiB --pairs 3 --json")]
pub(super) struct Args {
    /// Size of each transfer
    #[arg(long, default_value = "1GiB", value_name = "SIZE", value_parser = hopline_command::size::parse)]
    size: ByteSize,
    /// Measurements of each pair
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    pairs: u32,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// How long one transfer may take.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(300);
/// The numbers of relays that are measured.
const CHAINS: [u8; 2] = [1, 3];
/// Relays of the pool: as many as the longest of these has.
const POOL: u32 = 3;
/// The name that the sink serves.
const SINK: &str = "bench-sink";

/// One transfer.
#[derive(Clone, Copy, Debug)]
struct Transfer {
    seconds: f64,
    cpu_seconds: f64,
}

impl Transfer {
    fn megabytes_a_second(self, bytes: u64) -> f64 {
        bytes as f64 / 1e6 / self.seconds
    }

    fn cpu_seconds_a_gibibyte(self, bytes: u64) -> f64 {
        self.cpu_seconds / (bytes as f64 / f64::from(1 << 30))
    }
}

/// All transfers over one number of relays.
struct Row {
    relays: u8,
    /// Of flows on each plane, in the order of [`Plane::ALL`]; none without a relay.
    flows: [Vec<Transfer>; 2],
    splice: Vec<Transfer>,
}

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let stage = Stage::new(None)?;
    let bytes = args.size.0;
    let network = Network::start(&stage, POOL, &["bench", "flow-sink", SINK]).await?;
    let row = |relays| Row { relays, flows: Default::default(), splice: Vec::new() };
    let mut rows: Vec<Row> = std::iter::once(0).chain(CHAINS).map(row).collect();
    for pair in 1..=args.pairs {
        for row in &mut rows {
            row.splice.push(splice(&stage, row.relays, bytes).await?);
            for (plane, flows) in Plane::ALL.into_iter().zip(&mut row.flows).filter(|_| row.relays > 0) {
                flows.push(flow(&stage, &network, plane, row.relays, bytes).await?);
            }
            tracing::info!(pair, relays = row.relays, "measured");
        }
    }
    if args.json {
        writeln!(say::output(), "{}", to_json(&rows, bytes))?;
    } else {
        print(&rows, bytes)?;
    }
    Ok(())
}

/// One flow's transfer.
async fn flow(
    stage: &Stage,
    network: &Network<'_>,
    plane: Plane,
    relays: u8,
    bytes: u64,
) -> Result<Transfer, Failure> {
    let (bytes, hops) = (bytes.to_string(), relays.to_string());
    let plane = plane.as_str();
    let arguments = ["bench", "flow-source", SINK, &bytes, "--hops", &hops, "--plane", plane];
    let mut source = stage.start("source", Some(&network.ticket), &arguments)?;
    source.ready().await?;
    let cpu = |source: &Process| network.processes().chain([source]).map(Process::cpu_seconds).sum::<f64>();
    let before = cpu(&source);
    let mut stdin = source.stdin().ok_or_else(|| source.failure("has no stdin"))?;
    stdin.write_all(b"go\n").await?;
    let done = done(&mut source, TRANSFER_TIMEOUT).await?;
    let cpu_seconds = cpu(&source) - before;
    drop(stdin);
    source.success(TRANSFER_TIMEOUT).await?;
    Ok(Transfer { seconds: number(&done, "seconds"), cpu_seconds })
}

/// The same bytes through the dumb splice, in processes of its own.
async fn splice(stage: &Stage, relays: u8, bytes: u64) -> Result<Transfer, Failure> {
    let chain = SpliceChain::start(stage, relays, &["bench", "splice-sink"]).await?;
    let bytes = bytes.to_string();
    let mut source =
        stage.start("splice-source", None, &["bench", "splice-source", chain.first(), &bytes])?;
    let report = done(&mut source, TRANSFER_TIMEOUT).await?;
    let cpu_seconds = number(&report, "cpu_seconds") + chain.ended(TRANSFER_TIMEOUT).await?;
    Ok(Transfer { seconds: number(&report, "seconds"), cpu_seconds })
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// How many times as fast as the splice flows were, pair by pair.
fn ratios(flows: &[Transfer], splice: &[Transfer]) -> Vec<f64> {
    flows.iter().zip(splice).map(|(flow, splice)| splice.seconds / flow.seconds).collect()
}

fn to_json(rows: &[Row], bytes: u64) -> Value {
    let speeds = |side: &[Transfer]| side.iter().map(|t| t.megabytes_a_second(bytes)).collect::<Vec<_>>();
    let cpu = |side: &[Transfer]| side.iter().map(|t| t.cpu_seconds_a_gibibyte(bytes)).collect::<Vec<_>>();
    let row = |row: &Row| {
        let planes = Plane::ALL.iter().zip(&row.flows).filter(|(_, flows)| !flows.is_empty());
        let planes = planes.map(|(plane, flows)| {
            let ratios = ratios(flows, &row.splice);
            let told = json!({
                "mb_per_second": speeds(flows),
                "cpu_seconds_per_gib": cpu(flows),
                "median_ratio": median(ratios.iter().copied()),
                "ratios": ratios,
            });
            (plane.as_str().to_owned(), told)
        });
        json!({
            "relays": row.relays,
            "hopline": planes.collect::<serde_json::Map<_, _>>(),
            "dumb_splice": {"mb_per_second": speeds(&row.splice), "cpu_seconds_per_gib": cpu(&row.splice)},
        })
    };
    json!({"bytes": bytes, "chains": rows.iter().map(row).collect::<Vec<_>>()})
}

fn print(rows: &[Row], bytes: u64) -> std::io::Result<()> {
    let mut out = say::output();
    writeln!(
        out,
        "{:<7} {:<12} {:>14} {:>10}  times the splice: median (all pairs)",
        "relays", "", "MB/s (median)", "CPU-s/GiB"
    )?;
    for row in rows {
        line(&mut out, row.relays, "dumb splice", &row.splice, bytes)?;
        writeln!(out)?;
        for (plane, flows) in Plane::ALL.iter().zip(&row.flows).filter(|(_, flows)| !flows.is_empty()) {
            let ratios = ratios(flows, &row.splice);
            let all: Vec<String> = ratios.iter().map(|ratio| format!("{ratio:.2}")).collect();
            line(&mut out, row.relays, plane.as_str(), flows, bytes)?;
            writeln!(out, "  {:.2} ({})", median(ratios.into_iter()), all.join(" "))?;
        }
    }
    Ok(())
}

/// What one kind of transfers came to.
fn line(
    out: &mut impl Write,
    relays: u8,
    kind: &str,
    transfers: &[Transfer],
    bytes: u64,
) -> std::io::Result<()> {
    let speed = median(transfers.iter().map(|transfer| transfer.megabytes_a_second(bytes)));
    let cpu = median(transfers.iter().map(|transfer| transfer.cpu_seconds_a_gibibyte(bytes)));
    write!(out, "{relays:<7} {kind:<12} {speed:>14.0} {cpu:>10.2}")
}
