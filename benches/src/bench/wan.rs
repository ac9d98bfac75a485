//! `hopline bench wan`: how much one bulk flow carries over long and lossy links, on hosts of the [testbed](crate::testbed).
//!
//! Origin, relays, target and bootstrap have a host each. All wires between two of them have the round trip and the losses of a cell, as
//! it is the bootstrap who says in which order relays stand in a chain. Two wires are others: those of the bootstrap take no time, and
//! the one from origin to target stands for the direct way, as long as the links of a chain together and as lossy. It is cut but for TCP:
//! what Hopline and the dumb splice carry goes over the relays, or not at all.
//!
//! Each transfer has processes of its own, and is counted at the target from its first byte on, so slow start is in it. One that makes no
//! progress counts as nothing, and is named.

mod report;

use super::network::{Network, ORIGIN, SpliceChain, Subject, TARGET, told};
use super::orders::{Order, Sent};
use super::peers::{Client, NO_PROGRESS, Received};
use crate::report::{RunArgs, uninterrupted, verdict};
use crate::stage::{Process, Stage};
use hopline::endpoint::Plane;
use hopline_command::{Exit, Failure};
use indicatif::ProgressBar;
use report::{Cell, Outcome};
use std::time::Duration;
use tokio::time::timeout;

/// All that is compared, in the order of the transfers.
const SUBJECTS: [Subject; 4] =
    [Subject::Flows(Plane::Stored), Subject::Flows(Plane::Session), Subject::Splice, Subject::Tcp];
/// Hosts that are not a relay's: those of the bootstrap, the origin and the target.
const NOT_RELAYS: usize = 3;
/// How long a flow may take until it is open, and what it is about may be said.
const OPEN_TIMEOUT: Duration = Duration::from_secs(40);
/// How long the target may take to tell what came, when the origin has ended first.
const LAST_WORDS: Duration = Duration::from_secs(2);
const FRAME: Duration = Duration::from_millis(200);

/// Goodput of one flow over long and lossy links, on both planes, compared with a dumb splice over the same hosts and with TCP end to
/// end.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  sudo hopline bench wan                              12 cells, some 12 minutes
  sudo hopline bench wan --rtt 50 --loss 0,0.1,1 --seconds 20
  sudo hopline bench wan --hops 1 --rtt 100 --loss 1 --json | jq .cells

It makes a network of its own, in network namespaces, and so needs Linux and root: elsewhere the exit code is 2. It is 0 only if no
byte was lost, duplicated or reordered. A transfer that makes no progress counts as 0 and is named.")]
pub(super) struct Args {
    /// Relays on the chain
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=8))]
    hops: u8,
    /// Round-trip times of a link, in milliseconds
    #[arg(long, default_value = "0,10,50,150", value_name = "MS,...", value_delimiter = ',', value_parser = milliseconds)]
    rtt: Vec<Duration>,
    /// Losses of a link each way, in percent
    #[arg(long, default_value = "0,0.1,1", value_name = "PERCENT,...", value_delimiter = ',', value_parser = percent)]
    loss: Vec<f64>,
    /// How long each transfer is counted, from its first byte on
    #[arg(long, default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,
    #[command(flatten)]
    run: RunArgs,
}

fn milliseconds(text: &str) -> Result<Duration, String> {
    let number = text.strip_suffix("ms").unwrap_or(text).parse::<f64>();
    match number {
        Ok(ms) if (0.0..=2000.0).contains(&ms) => Ok(Duration::from_secs_f64(ms / 1000.0)),
        _ => Err("write milliseconds from 0 to 2000".to_owned()),
    }
}

/// As a share.
fn percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text).parse::<f64>();
    match number {
        Ok(percent) if (0.0..100.0).contains(&percent) => Ok(percent / 100.0),
        _ => Err("write a percentage from 0 to below 100".to_owned()),
    }
}

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let seed = args.run.seed();
    let stage = args.run.stage()?.on_testbed(usize::from(args.hops) + NOT_RELAYS, seed);
    let stage = stage.map_err(|failure| {
        let message = format!("{}; run `hopline bench wan` on Linux, as root", failure.message());
        Failure::new(Exit::Usage, message)
    })?;
    let screen = ProgressBar::new_spinner();
    screen.enable_steady_tick(FRAME);
    let bench = Bench { args: &args, stage: &stage, screen: &screen, seed, congestion_control: None };
    let outcome = uninterrupted("bench wan", seed, bench.run()).await;
    screen.finish_and_clear();
    let outcome = outcome?;
    args.run.print(&outcome, &args)?;
    verdict(outcome.is_clean())
}

struct Bench<'a> {
    args: &'a Args,
    stage: &'a Stage,
    screen: &'a ProgressBar,
    seed: u64,
    /// What the kernel's TCP uses.
    congestion_control: Option<String>,
}

impl Bench<'_> {
    async fn run(mut self) -> Result<Outcome, Failure> {
        let Args { rtt, loss, .. } = self.args;
        let links = loss.iter().flat_map(|loss| rtt.iter().map(move |rtt| (*rtt, *loss))).collect::<Vec<_>>();
        let mut cells = Vec::new();
        for (place, (rtt, loss)) in links.iter().enumerate() {
            let mut cell = Cell::new(*rtt, *loss, self.args.hops);
            self.wire(&cell);
            for subject in SUBJECTS {
                let what = format!("cell {} of {} ({cell}): {}", place + 1, links.len(), subject.as_str());
                self.screen.set_message(what);
                // The direct way is for TCP alone.
                match subject {
                    Subject::Tcp => self.stage.heal(),
                    Subject::Flows(_) | Subject::Splice => self.stage.cut(ORIGIN, TARGET),
                }
                let attempt = self.attempt(subject).await;
                let nothing = |failure: Failure| Received {
                    cause: Some(failure.cause().to_owned()),
                    ..Received::default()
                };
                let received = attempt.unwrap_or_else(nothing);
                tracing::info!(%cell, subject = subject.as_str(), ?received, "measured");
                cell.transfers.push((subject, received));
            }
            cells.push(cell);
        }
        Ok(Outcome { seed: self.seed, cells, congestion_control: self.congestion_control })
    }

    /// Makes the wires those of a cell.
    fn wire(&self, cell: &Cell) {
        let relays = (1..=self.args.hops).map(|number| format!("r{number}"));
        let chain: Vec<String> =
            [ORIGIN.to_owned()].into_iter().chain(relays).chain([TARGET.to_owned()]).collect();
        for (place, a) in chain.iter().enumerate() {
            for b in chain.iter().skip(place + 1) {
                self.stage.link(a, b, cell.rtt / 2, cell.loss);
            }
        }
        self.stage.link(ORIGIN, TARGET, cell.end_to_end_rtt() / 2, cell.end_to_end_loss());
    }

    /// One transfer: what came of it.
    async fn attempt(&mut self, subject: Subject) -> Result<Received, Failure> {
        let (stage, seed, hops) = (self.stage, self.seed, self.args.hops);
        let (seconds, pattern) = (self.args.seconds.to_string(), seed.to_string());
        let time = Duration::from_secs(self.args.seconds.into());
        let server = ["bench", "server", "--seed", &pattern, "--check", &seconds];
        let name = format!("client-{}", subject.as_str());
        match subject {
            Subject::Flows(plane) => {
                let server = [&server[..], &["hopline", TARGET]].concat();
                let mut network = Network::start(stage, hops.into(), &server).await?;
                let client = network.client(stage, &name, (plane, hops), seed).await?;
                transfer(client, &mut network.server, time).await
            }
            Subject::Splice => {
                let server = [&server[..], &["splice"]].concat();
                let mut chain = SpliceChain::start(stage, hops, &server).await?;
                let client = Client::start(stage, &name, None, seed, &["splice", chain.first()]).await?;
                transfer(client, &mut chain.server, time).await
            }
            Subject::Tcp => {
                let listen = stage.address(TARGET);
                let server = [&server[..], &["tcp", "--listen", &listen]].concat();
                let mut server = stage.start_at(TARGET, "tcp-target", None, &server)?;
                let ready = server.ready().await?;
                self.congestion_control = told(&ready, "congestion_control");
                let address = told(&ready, "addr").unwrap_or_default();
                let client = Client::start(stage, &name, None, seed, &["tcp", &address]).await?;
                transfer(client, &mut server, time).await
            }
        }
    }
}

/// Has a client send until the server has counted for so long, or nothing comes of it.
async fn transfer(mut client: Client, server: &mut Process, time: Duration) -> Result<Received, Failure> {
    let bound = OPEN_TIMEOUT + NO_PROGRESS + time;
    let ended = tokio::select! {
        biased;
        received = received(server, bound) => received,
        sent = client.order::<Sent>(Order::Bulk, bound) => {
            let cause = sent?.cause;
            let told = received(server, LAST_WORDS).await;
            told.map_err(|_| Failure::new(Exit::FlowLost, cause))
        }
    };
    client.end().await;
    ended
}

/// What a server says that it received.
async fn received(server: &mut Process, within: Duration) -> Result<Received, Failure> {
    let late =
        || Failure::new(Exit::FlowLost, format!("nothing came to the target within {} s", within.as_secs()));
    match timeout(within, server.line()).await.map_err(|_| late())?? {
        Some(line) => serde_json::from_str(&line).map_err(|_| server.failure(&format!("said {line:?}"))),
        None => Err(server.died("before anything had come").await),
    }
}
