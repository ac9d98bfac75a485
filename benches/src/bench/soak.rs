//! `hopline bench soak`: what a flow carries while a relay of its chain is killed every second, and while all relays are
//! restarted in turn, on real processes.
//!
//! One flow carries as much as there is room for (or a given rate) from origin to target, and a little back. Both of its ends
//! are threads of this process, so that one clock times both. Slices of time without kills lie between those with kills, so
//! that a machine that gets slower or faster does not pass for Hopline.

mod report;
mod rolling;

use super::{Exit, Failure};
use crate::pattern::Faults;
use crate::report::{RunArgs, uninterrupted, verdict};
use crate::stage::{Relays, Stage};
use crate::traffic::{Carried, Pace, Stream, carry};
use crate::watched::{Watched, is_protected};
use bytesize::ByteSize;
use hopline::endpoint::{Chain, Endpoint, Flow, Listener, Options};
use hopline::net::ticket::Ticket;
use report::{Outcome, Side};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

const TARGET: &str = "sink";
/// How long new backups, or the flow's last words, may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How often something is sent where the rate is limited,
const TICK: Duration = Duration::from_millis(1);
/// and the most that is written or read at once.
const BLOCK_BYTES: usize = 64 << 10;
/// What goes back from the target a second, so that its pauses can be seen too.
const BACKWARD_RATE: u64 = 256 << 10;
/// What a rolling restart carries if nothing else is said: below what any machine can, so that a pause is a relay's fault.
const ROLLING_RATE: u64 = 1 << 20;

/// Throughput of a flow while a relay of its chain is killed every second.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  hopline bench soak --seconds 60
  hopline bench soak --rate 20MiB --json | jq .ratio
  hopline bench soak --rolling

Without --rolling it takes twice --seconds: slices with and without kills alternate.
The exit code is 0 only if no byte was lost, duplicated or reordered.")]
pub(super) struct Args {
    /// How long to kill relays
    #[arg(long, default_value_t = 600, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    seconds: u32,
    /// Interval at which a relay of the chain is killed and replaced
    #[arg(long, default_value = "1s", value_name = "DURATION", value_parser = hopline_command::duration::parse_positive)]
    kill_every: Duration,
    /// Length of a slice: kills go on and pause in turns
    #[arg(long, default_value = "10s", value_name = "DURATION", value_parser = hopline_command::duration::parse_positive)]
    slice: Duration,
    /// Relays in the pool; at least two more than hops
    #[arg(long, default_value_t = 8, value_name = "N", value_parser = clap::value_parser!(u32).range(3..=100))]
    relays: u32,
    /// Relays on the flow's chain
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=8))]
    hops: u8,
    /// Rate from origin to target in bytes a second, or unlimited [default: unlimited, with --rolling 1MiB]
    #[arg(long, value_name = "SIZE", value_parser = rate)]
    rate: Option<Rate>,
    /// Restart every relay of the pool once, in turn, by SIGTERM, instead of kills
    #[arg(long, conflicts_with_all = ["seconds", "kill_every", "slice"])]
    rolling: bool,
    #[command(flatten)]
    run: RunArgs,
}

/// Bytes a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rate {
    Unlimited,
    Limited(u64),
}

impl Rate {
    const fn bytes(self) -> Option<u64> {
        match self {
            Self::Unlimited => None,
            Self::Limited(bytes) => Some(bytes),
        }
    }
}

fn rate(text: &str) -> Result<Rate, String> {
    if text == "unlimited" {
        return Ok(Rate::Unlimited);
    }
    match hopline_command::size::parse(text) {
        Ok(ByteSize(0)) => Err("nothing would flow".to_owned()),
        Ok(ByteSize(bytes)) => Ok(Rate::Limited(bytes)),
        Err(error) => Err(format!("{error}, or unlimited")),
    }
}

impl Args {
    fn check(&self) -> Result<(), Failure> {
        let usage = |message: String| Err(Failure::new(Exit::Usage, message));
        let least = u32::from(self.hops) + 2;
        if self.relays < least {
            return usage(format!(
                "--relays {} is too few for --hops {}: at least {least}",
                self.relays, self.hops
            ));
        }
        if self.kill_every.is_zero() || self.slice < self.kill_every {
            return usage(format!("--slice {:?} must be at least --kill-every", self.slice));
        }
        Ok(())
    }

    fn rate(&self) -> Rate {
        self.rate.unwrap_or(if self.rolling { Rate::Limited(ROLLING_RATE) } else { Rate::Unlimited })
    }
}

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    args.check()?;
    let seed = args.run.seed();
    let stage = args.run.stage()?;
    let outcome = uninterrupted("bench soak", seed, perform(&args, seed, &stage)).await?;
    args.run.print(&outcome, &args)?;
    verdict(outcome.is_clean())
}

async fn perform(args: &Args, seed: u64, stage: &Stage) -> Result<Outcome, Failure> {
    let mut bootstrap = stage.start("bootstrap", None, &["bootstrap"])?;
    let ready = bootstrap.ready().await?;
    let Some(ticket) = ready.get("ticket").and_then(|ticket| ticket.as_str()) else {
        return Err(bootstrap.failure("gave no ticket"));
    };
    let work = async {
        if args.rolling {
            let relays = rolling::start(stage, ticket, args.relays).await?;
            let load = Load::start(args, seed, ticket).await?;
            rolling::run(stage, ticket, relays, load, seed).await
        } else {
            let relays = Relays::start(stage, ticket, args.relays).await?;
            let load = Load::start(args, seed, ticket).await?;
            Soak { args, relays, load, kills: 0, spared: 0 }.run(seed).await
        }
    };
    tokio::select! {
        outcome = work => outcome,
        failure = bootstrap.death() => Err(failure),
    }
}

/// A flow under load.
struct Load {
    origin: Endpoint,
    target: Endpoint,
    watched: Watched,
    forward: Arc<Stream>,
    backward: Arc<Stream>,
    ends: [AbortOnDropHandle<std::io::Result<Carried>>; 2],
    stop: CancellationToken,
}

impl Load {
    async fn start(args: &Args, seed: u64, ticket: &str) -> Result<Self, Failure> {
        let ticket: Ticket =
            ticket.parse().map_err(|error| Failure::new(Exit::Failed, format!("the ticket: {error}")))?;
        let options =
            |name: &str| Options { name: Some(name.to_owned()), hops: args.hops, ..Options::default() };
        let target = Endpoint::join(ticket.clone(), options("target")).await?;
        let mut listener = target.listen(TARGET).await?;
        let origin = Endpoint::join(ticket, options("origin")).await?;
        let events = origin.events();
        let flow = origin.open(TARGET).await?;
        let watched = Watched::new(&flow, events);
        let pace = |rate| Pace { rate, tick: TICK, block: BLOCK_BYTES };
        let forward = Arc::new(Stream::new("forward", seed, pace(args.rate().bytes())));
        let backward = Arc::new(Stream::new("backward", !seed, pace(Some(BACKWARD_RATE))));
        let stop = CancellationToken::new();
        let end = |flow, sends: &Arc<Stream>, takes: &Arc<Stream>| {
            AbortOnDropHandle::new(tokio::spawn(carry(flow, sends.clone(), takes.clone(), stop.clone())))
        };
        let at_origin = end(flow, &forward, &backward);
        let at_target = end(arrived(&mut listener).await?, &backward, &forward);
        let ends = [at_origin, at_target];
        Ok(Self { origin, target, watched, forward, backward, ends, stop })
    }

    /// Minds the flow's events until then.
    async fn run_until(&mut self, then: Instant) -> Result<(), Failure> {
        while self.watched.event(then).await?.is_some() {}
        Ok(())
    }

    /// Waits until every hop has a primary and a backup that run.
    async fn protected(&mut self, runs: impl Fn(&str) -> bool) -> Result<(), Failure> {
        let so = |chain: &Chain| is_protected(chain, &runs);
        match self.watched.until(Instant::now() + TIMEOUT, so, |_| ()).await? {
            true => Ok(()),
            false => Err(lost("a hop has had no backup that runs for too long")),
        }
    }

    /// The longest pause since this was asked last, either way.
    fn longest(&self) -> Duration {
        self.forward.take_longest().max(self.backward.take_longest())
    }

    /// Ends the flow: what was wrong with what arrived, and whether both ends hashed the same.
    async fn finish(&mut self) -> Result<(Faults, bool), Failure> {
        self.stop.cancel();
        let [at_origin, at_target] = &mut self.ends;
        let ended = timeout(TIMEOUT, async { tokio::join!(at_origin, at_target) }).await;
        let (at_origin, at_target) = ended.map_err(|_| lost("the flow did not end"))?;
        let joined = |end: Result<_, tokio::task::JoinError>| end.map_err(std::io::Error::other);
        let (at_origin, at_target) = (joined(at_origin)??, joined(at_target)??);
        let equal = at_origin.is_whole_at(&at_target) && at_target.is_whole_at(&at_origin);
        tokio::join!(self.origin.shutdown(), self.target.shutdown());
        Ok((at_origin.faults + at_target.faults, equal))
    }
}

/// A flow reaches its target with the first byte.
async fn arrived(listener: &mut Listener) -> Result<Flow, Failure> {
    match timeout(TIMEOUT, listener.accept()).await {
        Ok(Some(flow)) => Ok(flow),
        _ => Err(lost("the flow was opened, and did not come to its target")),
    }
}

struct Soak<'a> {
    args: &'a Args,
    relays: Relays<'a>,
    load: Load,
    kills: u32,
    /// Kills that were due while no relay of the chain was known to live.
    spared: u32,
}

impl Soak<'_> {
    async fn run(mut self, seed: u64) -> Result<Outcome, Failure> {
        let (mut calm, mut killing) = (Side::new()?, Side::new()?);
        let slices = f64::from(self.args.seconds) / self.args.slice.as_secs_f64();
        let turns = self.args.slice.as_secs_f64() / self.args.kill_every.as_secs_f64();
        for number in 1..=whole(slices) {
            self.load.protected(|relay| self.relays.runs(relay)).await?;
            self.slice(whole(turns), false, &mut calm).await?;
            self.slice(whole(turns), true, &mut killing).await?;
            tracing::info!(number, of = whole(slices), kills = self.kills, "slice");
        }
        let chain = self.load.watched.chain();
        let (faults, equal) = self.load.finish().await?;
        self.relays.check().await?;
        Ok(Outcome {
            seed,
            calm,
            faulty: killing,
            kills: self.kills,
            spared: self.spared,
            failovers: chain.failovers(),
            rebuilds: chain.rebuilds(),
            restarts: Vec::new(),
            bytes: self.load.forward.received() + self.load.backward.received(),
            faults,
            equal,
        })
    }

    /// So many times the time between two kills, with or without them.
    async fn slice(&mut self, turns: u32, kill: bool, side: &mut Side) -> Result<(), Failure> {
        let (start, before) = (Instant::now(), self.load.forward.received());
        self.load.longest();
        for turn in 1..=turns {
            if kill {
                self.kill().await?;
            }
            self.load.run_until(start + self.args.kill_every * turn).await?;
            side.paused(self.load.longest());
        }
        side.carried(self.load.forward.received() - before, start.elapsed());
        Ok(())
    }

    /// Kills a relay of the chain, the hops in turn, and starts another.
    async fn kill(&mut self) -> Result<(), Failure> {
        let chain = self.load.watched.chain();
        let hops = u32::try_from(chain.hops().len()).unwrap_or(1).max(1);
        for turn in 0..hops {
            let hop = u8::try_from((self.kills + turn) % hops + 1).unwrap_or(1);
            let relay = chain.primary(hop).unwrap_or_default().to_owned();
            if self.relays.kill(&relay)? {
                tracing::debug!(relay, hop, "kill");
                self.kills += 1;
                self.relays.add().await?;
                return Ok(());
            }
        }
        self.spared += 1;
        Ok(())
    }
}

/// At least one.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates")]
fn whole(number: f64) -> u32 {
    number.round().max(1.0) as u32
}

fn lost(what: &str) -> Failure {
    Failure::new(
        Exit::FlowLost,
        format!("{what}; this is a bug: run it again with --logs DIR, and report it"),
    )
}
