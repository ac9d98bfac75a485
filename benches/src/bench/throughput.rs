//! `hopline bench throughput`: one flow, bulk one way, over real processes on loopback. Interleaved in the same run goes
//! the dumb splice (benches/src/splice.rs): the simplest chain of QUIC relays that works, which keeps nothing, at the
//! same MTU setting and with the same end-to-end TLS.

use crate::stage::{Process, Stage};
use bytesize::ByteSize;
use hopline_command::{Exit, Failure, say};
use serde_json::{Value, json};
use std::io::Write;
use std::time::Duration;
use tokio::io::AsyncWriteExt;

/// One bulk flow over 1 and 3 relays, compared with a dumb splice over 0, 1 and 3. (A flow has at least one relay.)
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
/// Ticks of /proc/PID/stat in a second, on Linux.
const TICKS: f64 = 100.0;

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
    flow: Vec<Transfer>,
    splice: Vec<Transfer>,
}

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let stage = Stage::new(None)?;
    let bytes = args.size.0;
    let network = Network::start(&stage).await?;
    let mut rows = vec![Row { relays: 0, flow: Vec::new(), splice: Vec::new() }];
    rows.extend(CHAINS.map(|relays| Row { relays, flow: Vec::new(), splice: Vec::new() }));
    for pair in 1..=args.pairs {
        for row in &mut rows {
            row.splice.push(splice(&stage, row.relays, bytes).await?);
            if row.relays > 0 {
                row.flow.push(network.flow(&stage, row.relays, bytes).await?);
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

/// A bootstrap, relays and a sink that serve every transfer of a run.
struct Network {
    ticket: String,
    processes: Vec<Process>,
}

impl Network {
    async fn start(stage: &Stage) -> Result<Self, Failure> {
        let (bootstrap, ticket) = stage.bootstrap(&[]).await?;
        let ticket = ticket.to_string();
        let mut processes = vec![bootstrap];
        for relay in 1..=3 {
            let name = format!("r{relay}");
            let arguments = ["relay", "--name", &name, "--listen", "127.0.0.1:0"];
            processes.push(stage.start(&name, Some(&ticket), &arguments)?);
        }
        for relay in processes.iter_mut().skip(1) {
            relay.ready().await?;
        }
        let mut sink = stage.start("sink", Some(&ticket), &["bench", "flow-sink", "bench-sink"])?;
        sink.ready().await?;
        processes.push(sink);
        Ok(Self { ticket, processes })
    }

    async fn flow(&self, stage: &Stage, relays: u8, bytes: u64) -> Result<Transfer, Failure> {
        let (bytes, hops) = (bytes.to_string(), relays.to_string());
        let arguments = ["bench", "flow-source", "bench-sink", &bytes, "--hops", &hops];
        let mut source = stage.start("source", Some(&self.ticket), &arguments)?;
        source.ready().await?;
        let cpu = |source: &Process| self.processes.iter().chain([source]).map(cpu_seconds).sum::<f64>();
        let before = cpu(&source);
        let mut stdin = source.stdin().ok_or_else(|| source.failure("has no stdin"))?;
        stdin.write_all(b"go\n").await?;
        let done = done(&mut source).await?;
        let cpu_seconds = cpu(&source) - before;
        drop(stdin);
        source.success(TRANSFER_TIMEOUT).await?;
        Ok(Transfer { seconds: number(&done, "seconds"), cpu_seconds })
    }
}

/// The same bytes through the dumb splice, in processes of its own.
async fn splice(stage: &Stage, relays: u8, bytes: u64) -> Result<Transfer, Failure> {
    let mut servers = vec![stage.start("splice-sink", None, &["bench", "splice-sink"])?];
    let mut next = address(&mut servers, 0).await?;
    for relay in 1..=usize::from(relays) {
        let name = format!("splice-{relay}");
        servers.push(stage.start(&name, None, &["bench", "splice-relay", &next])?);
        next = address(&mut servers, relay).await?;
    }
    let bytes = bytes.to_string();
    let mut source = stage.start("splice-source", None, &["bench", "splice-source", &next, &bytes])?;
    let report = done(&mut source).await?;
    let mut cpu_seconds = number(&report, "cpu_seconds");
    for server in &mut servers {
        let report = done(server).await?;
        cpu_seconds += number(&report, "cpu_seconds") - number(&report, "setup_cpu_seconds");
    }
    Ok(Transfer { seconds: number(&report, "seconds"), cpu_seconds })
}

async fn address(servers: &mut [Process], place: usize) -> Result<String, Failure> {
    let server = servers.get_mut(place).ok_or_else(|| Failure::new(Exit::Failed, "no such server"))?;
    let ready = server.ready().await?;
    Ok(ready.get("addr").and_then(Value::as_str).unwrap_or_default().to_owned())
}

/// What a process says when it is done.
async fn done(process: &mut Process) -> Result<Value, Failure> {
    let line = tokio::time::timeout(TRANSFER_TIMEOUT, process.line()).await;
    let line = line.map_err(|_| process.failure("did not finish in time"))??;
    match line.as_deref().and_then(|line| line.strip_prefix("done ")) {
        Some(fields) => serde_json::from_str(fields).map_err(|_| process.failure("said nonsense")),
        None => Err(process.died("before it was done").await),
    }
}

fn number(fields: &Value, name: &str) -> f64 {
    fields.get(name).and_then(Value::as_f64).unwrap_or(f64::NAN)
}

/// User and system time of a process so far (proc(5): fields 14 and 15 of stat, counted after the command's name).
pub(super) fn cpu_seconds(process: &Process) -> f64 {
    let stat = process.id().and_then(|id| std::fs::read_to_string(format!("/proc/{id}/stat")).ok());
    let fields = stat.as_deref().and_then(|stat| stat.rsplit_once(')')).map_or("", |(_, rest)| rest);
    let ticks = fields.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok());
    ticks.sum::<f64>() / TICKS
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// How many times as fast as the splice the flow was, pair by pair.
fn ratios(row: &Row) -> impl Iterator<Item = f64> + '_ {
    row.flow.iter().zip(&row.splice).map(|(flow, splice)| splice.seconds / flow.seconds)
}

fn to_json(rows: &[Row], bytes: u64) -> Value {
    let side = |transfers: &[Transfer]| {
        json!({
            "mb_per_second": transfers.iter().map(|t| t.megabytes_a_second(bytes)).collect::<Vec<_>>(),
            "cpu_seconds_per_gib": transfers.iter().map(|t| t.cpu_seconds_a_gibibyte(bytes)).collect::<Vec<_>>(),
        })
    };
    let row = |row: &Row| {
        let hopline = (!row.flow.is_empty()).then(|| side(&row.flow));
        let ratio = (!row.flow.is_empty()).then(|| median(ratios(row)));
        json!({
            "relays": row.relays,
            "hopline": hopline,
            "dumb_splice": side(&row.splice),
            "ratios": ratios(row).collect::<Vec<_>>(),
            "median_ratio": ratio,
        })
    };
    json!({"bytes": bytes, "chains": rows.iter().map(row).collect::<Vec<_>>()})
}

fn print(rows: &[Row], bytes: u64) -> std::io::Result<()> {
    let mut out = say::output();
    writeln!(out, "{:<7} {:>30} {:>30} {:>22}", "", "Hopline", "dumb splice", "Hopline / dumb splice")?;
    writeln!(
        out,
        "{:<7} {:>16} {:>13} {:>16} {:>13} {:>22}",
        "relays", "MB/s (median)", "CPU-s/GiB", "MB/s (median)", "CPU-s/GiB", "median (all pairs)"
    )?;
    for row in rows {
        let speed = |side: &[Transfer]| median(side.iter().map(|t| t.megabytes_a_second(bytes)));
        let cpu = |side: &[Transfer]| median(side.iter().map(|t| t.cpu_seconds_a_gibibyte(bytes)));
        let (dumb_speed, dumb_cpu) = (speed(&row.splice), cpu(&row.splice));
        if row.flow.is_empty() {
            writeln!(
                out,
                "{:<7} {:>30} {dumb_speed:>16.0} {dumb_cpu:>13.2}",
                row.relays, "a flow has relays"
            )?;
            continue;
        }
        let all: Vec<String> = ratios(row).map(|ratio| format!("{ratio:.2}")).collect();
        let (own_speed, own_cpu, ratio) = (speed(&row.flow), cpu(&row.flow), median(ratios(row)));
        writeln!(
            out,
            "{:<7} {own_speed:>16.0} {own_cpu:>13.2} {dumb_speed:>16.0} {dumb_cpu:>13.2} {ratio:>12.2} ({})",
            row.relays,
            all.join(" ")
        )?;
    }
    Ok(())
}
