//! `hopline bench`: measurements on this machine, with a baseline from the same run.

mod accuracy;
mod bootstrap;
mod churn;
mod ends;
mod failover;
mod flow;
mod latency;
mod line;
mod load;
mod network;
mod orders;
mod peers;
mod soak;
mod throughput;
mod wan;

use crate::splice;
use futures_util::future::LocalBoxFuture;
use hopline_command::{Exit, Failure};
use std::net::SocketAddr;

/// Measure on real processes on this machine.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Throughput and CPU cost of a chain, compared with the simplest chain of relays
    Throughput(throughput::Args),
    /// Round trips, first bytes and set-ups of short flows, compared with the simplest chain of relays
    Latency(latency::Args),
    /// Goodput over long and lossy links, compared with the simplest chain of relays and with TCP; needs root
    Wan(wan::Args),
    /// How long data pauses when a relay of the chain is killed, frozen, drained or cut off
    Failover(failover::Args),
    /// Loss, pauses and goodput while relays come and go
    Churn(Box<churn::Args>),
    /// False alarms: how often live relays are declared dead, on a busy machine or a lossy network
    Accuracy(accuracy::Args),
    /// Heartbeats, plans, memory and expiry of one bootstrap: in process by size of the pool, and over QUIC
    Bootstrap(Box<bootstrap::Args>),
    /// A process of the measurement: one pool
    #[command(hide = true)]
    BootstrapPool(bootstrap::PoolArgs),
    /// A process of the measurement: keeps a core busy
    #[command(hide = true)]
    Spin,
    /// Throughput of a flow while a relay of its chain is killed every second, or all are restarted in turn
    Soak(soak::Args),
    /// A process of the measurement: counts what comes
    #[command(hide = true)]
    FlowSink(flow::SinkArgs),
    /// A process of the measurement: sends
    #[command(hide = true)]
    FlowSource(flow::SourceArgs),
    /// A process of the measurement: serves
    #[command(hide = true)]
    Server(peers::ServerArgs),
    /// A process of the measurement: opens, and does as it is told
    #[command(hide = true)]
    Client(peers::ClientArgs),
    /// A process of the baseline: counts what comes
    #[command(hide = true)]
    SpliceSink {
        /// Its own address
        #[arg(long, default_value_t = ANYWHERE)]
        listen: SocketAddr,
    },
    /// A process of the baseline: copies to the next
    #[command(hide = true)]
    SpliceRelay {
        /// Where to
        next: SocketAddr,
        /// Its own address
        #[arg(long, default_value_t = ANYWHERE)]
        listen: SocketAddr,
    },
    /// A process of the baseline: sends
    #[command(hide = true)]
    SpliceSource {
        /// Where to
        next: SocketAddr,
        /// How much
        bytes: u64,
    },
}

/// Runs the benchmark that is asked for.
///
/// # Errors
/// [`Failure`] if it can't be run here, or what it measured is a fault.
pub fn run(args: Args) -> LocalBoxFuture<'static, Result<(), Failure>> {
    Box::pin(measure(args.what))
}

async fn measure(what: What) -> Result<(), Failure> {
    match what {
        What::Throughput(args) => throughput::run(args).await,
        What::Latency(args) => latency::run(args).await,
        What::Wan(args) => wan::run(args).await,
        What::Failover(args) => failover::run(args).await,
        What::Churn(args) => churn::run(*args).await,
        What::Accuracy(args) => accuracy::run(args).await,
        What::Bootstrap(args) => bootstrap::run(*args).await,
        What::BootstrapPool(args) => bootstrap::measure_pool(&args),
        What::Spin => accuracy::spin(),
        What::Soak(args) => soak::run(args).await,
        What::Server(args) => peers::serve(args).await,
        What::Client(args) => peers::obey(args).await,
        What::FlowSink(args) => flow::sink(args).await,
        What::FlowSource(args) => flow::source(args).await,
        What::SpliceSink { listen } => on_one_thread(async move || {
            splice::server(listen, splice::Options::default(), splice::count).await
        }),
        What::SpliceRelay { next, listen } => {
            on_one_thread(async move || splice::relay(listen, next, splice::Options::default()).await)
        }
        What::SpliceSource { next, bytes } => on_one_thread(async move || {
            let report = splice::client(next, bytes, splice::Options::default()).await?;
            let cpu = report.cpu.seconds - report.cpu.setup_seconds;
            flow::print_line(&format!(
                r#"done {{"bytes":{},"seconds":{},"cpu_seconds":{cpu}}}"#,
                report.bytes, report.seconds
            ))?;
            Ok(())
        }),
    }
}

/// Loopback, any port.
const ANYWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// The baseline gets what a relay of Hopline has: a single-threaded runtime of its own.
fn on_one_thread(main: impl AsyncFnOnce() -> splice::Result<()> + Send + 'static) -> Result<(), Failure> {
    let run = move || -> Result<(), String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(|error| error.to_string())?.block_on(main()).map_err(|error| error.to_string())
    };
    let ended = std::thread::spawn(run).join().unwrap_or_else(|_| Err("the thread panicked".to_owned()));
    ended.map_err(|error| Failure::new(Exit::Failed, error))
}
