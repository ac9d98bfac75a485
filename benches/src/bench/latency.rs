//! `hopline bench latency`: how long small things take over a chain, and what they cost, over real processes on loopback.
//!
//! Round trips of small echoes, the first byte of a new flow, and flows that are opened as fast as it goes, on both planes of Hopline
//! and, interleaved in the same run, over the dumb splice (benches/src/splice.rs) with as many relays and the same end-to-end TLS.
//! What goes before a flow is up on all three: the splice's links, Hopline's links, and a session. Every byte is compared.

mod report;

use super::network::{Network, SpliceChain, Subject, TARGET};
use super::orders::{Opened, Order, Timed};
use super::peers::Client;
use crate::report::{RunArgs, uninterrupted, verdict};
use crate::stage::{Process, Stage};
use bytesize::ByteSize;
use hopline_command::{Exit, Failure};
use indicatif::ProgressBar;
use report::{Outcome, SUBJECTS, Side};
use std::time::Duration;

/// First bytes that are timed a round.
const FIRST_BYTES: u32 = 100;
/// The largest echo: what is on its way must fit everywhere, as nobody reads while it is written.
const MAX_ECHO: u64 = 64 << 10;
/// How long a client may take for an order, beyond what it was told: it minds its own time.
const ORDER_TIMEOUT: Duration = Duration::from_secs(300);
const FRAME: Duration = Duration::from_millis(200);

/// Round trips, first bytes and set-ups of short flows, stored and over a session, compared with a dumb splice over as many relays.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  hopline bench latency
  hopline bench latency --hops 1 --size 1KiB --count 500
  hopline bench latency --rounds 2 --seconds 1 --json | jq .session.echo_ms

The exit code is 0 only if every byte came back as it was sent.")]
pub(super) struct Args {
    /// Relays on the chain
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=8))]
    hops: u8,
    /// Size of an echo, up to 64KiB
    #[arg(long, default_value = "64", value_name = "SIZE", value_parser = hopline_command::size::parse)]
    size: ByteSize,
    /// Echoes of a round, one after the other
    #[arg(long, default_value_t = 2000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    count: u32,
    /// Rounds; in each, all three are measured in turn
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// How many open flows at once when set-ups are counted
    #[arg(long, default_value_t = 16, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    parallel: u32,
    /// How long set-ups are counted in each round
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,
    #[command(flatten)]
    run: RunArgs,
}

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    if !(1..=MAX_ECHO).contains(&args.size.0) {
        return Err(Failure::new(Exit::Usage, format!("--size {} is not within 1 B and 64 KiB", args.size)));
    }
    let seed = args.run.seed();
    let stage = args.run.stage()?;
    let screen = ProgressBar::new_spinner();
    screen.enable_steady_tick(FRAME);
    let outcome = uninterrupted("bench latency", seed, perform(&args, seed, &stage, &screen)).await;
    screen.finish_and_clear();
    let outcome = outcome?;
    args.run.print(&outcome, &args)?;
    verdict(outcome.is_clean())
}

async fn perform(args: &Args, seed: u64, stage: &Stage, screen: &ProgressBar) -> Result<Outcome, Failure> {
    screen.set_message("starting the processes");
    let server = ["bench", "server", "hopline", TARGET];
    let network = Network::start(stage, args.hops.into(), &server).await?;
    let splice = SpliceChain::start(stage, args.hops, &["bench", "server", "splice"]).await?;
    let start = async |subject: Subject| {
        let name = format!("client-{}", subject.as_str());
        let client = match subject {
            Subject::Flows(plane) => network.client(stage, &name, (plane, args.hops), seed).await?,
            _ => Client::start(stage, &name, None, seed, &["splice", splice.first()]).await?,
        };
        Ok::<_, Failure>(Contest { subject, client, side: Side::new()? })
    };
    let [first, second, third] = SUBJECTS;
    let mut contests = [start(first).await?, start(second).await?, start(third).await?];
    for round in 1..=args.rounds {
        for measure in Measure::ALL {
            for Contest { subject, client, side } in &mut contests {
                screen.set_message(format!(
                    "round {round} of {}: {}, {measure:?}",
                    args.rounds,
                    subject.as_str()
                ));
                let relays = || -> f64 {
                    match subject {
                        Subject::Flows(_) => network.relays.iter().map(Process::cpu_seconds).sum(),
                        _ => splice.relays.iter().map(Process::cpu_seconds).sum(),
                    }
                };
                measure.take(args, client, relays, side).await?;
                tracing::info!(round, subject = subject.as_str(), ?measure, "measured");
            }
        }
    }
    let sides = contests.map(|Contest { subject, client, side }| ((subject, side), client));
    let [(splice, one), (stored, two), (session, three)] = sides;
    tokio::join!(one.end(), two.end(), three.end());
    Ok(Outcome { sides: [splice, stored, session] })
}

/// One of the three.
struct Contest {
    subject: Subject,
    client: Client,
    side: Side,
}

#[derive(Clone, Copy, Debug)]
enum Measure {
    Echo,
    FirstByte,
    SetUp,
}

impl Measure {
    const ALL: [Self; 3] = [Self::Echo, Self::FirstByte, Self::SetUp];

    /// Measures it once; `relays` tells the CPU time of the relays so far.
    async fn take(
        self,
        args: &Args,
        client: &mut Client,
        relays: impl Fn() -> f64,
        side: &mut Side,
    ) -> Result<(), Failure> {
        let size = usize::try_from(args.size.0).unwrap_or_default();
        match self {
            Self::Echo => {
                let order = Order::Echo { size, count: args.count };
                let timed: Timed = client.order(order, ORDER_TIMEOUT).await?;
                side.echoed(&timed, args.size.0);
            }
            Self::FirstByte => {
                let timed: Timed =
                    client.order(Order::FirstByte { count: FIRST_BYTES }, ORDER_TIMEOUT).await?;
                side.came_first(&timed);
            }
            Self::SetUp => {
                let order = Order::SetUp { openers: args.parallel, seconds: args.seconds };
                let before = relays();
                let within = ORDER_TIMEOUT + Duration::from_secs(args.seconds.into());
                let opened: Opened = client.order(order, within).await?;
                side.opened(&opened, relays() - before);
            }
        }
        Ok(())
    }
}
