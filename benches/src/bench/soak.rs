//! `hopline bench soak`: what a flow carries while a relay of its chain is killed every second, and while all relays are
//! restarted in turn, on real processes.
//!
//! One flow carries as much as there is room for (or a given rate) from origin to target, and a little back. Both of its ends
//! are threads of this process, so that one clock times both. Slices of time without kills lie between those with kills, so
//! that a machine that gets slower or faster does not pass for Hopline.

mod report;
mod rolling;

use super::{Exit, Failure};
use crate::busy_flow::{BusyFlow, Ends};
use crate::report::{RunArgs, uninterrupted, verdict};
use crate::stage::{Relays, Stage};
use crate::traffic::{Pace, Stream};
use bytesize::ByteSize;
use hopline::endpoint::Options;
use hopline::net::ticket::Ticket;
use hopline_command::plane::PlaneArgs;
use report::{Outcome, Side};
use std::time::Duration;
use tokio::time::Instant;

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
    #[command(flatten)]
    plane: PlaneArgs,
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
    let (mut bootstrap, ours) = stage.bootstrap(&[]).await?;
    let ticket = &ours.to_string();
    let work = async {
        if args.rolling {
            let relays = rolling::start(stage, ticket, args.relays).await?;
            let (ends, flow) = open(args, seed, stage, &ours).await?;
            let outcome = rolling::run(stage, ticket, relays, flow, seed).await;
            ends.shutdown().await;
            outcome
        } else {
            let relays = Relays::start(stage, ticket, args.relays).await?;
            let (ends, flow) = open(args, seed, stage, &ours).await?;
            let outcome = Soak { args, relays, flow, kills: 0, spared: 0 }.run(seed).await;
            ends.shutdown().await;
            outcome
        }
    };
    tokio::select! {
        outcome = work => outcome,
        failure = bootstrap.death() => Err(failure),
    }
}

async fn open(args: &Args, seed: u64, stage: &Stage, ticket: &Ticket) -> Result<(Ends, BusyFlow), Failure> {
    let pace = |rate| Pace { rate, tick: TICK, block: BLOCK_BYTES };
    let forward = Stream::new("forward", seed, pace(args.rate().bytes()));
    let backward = Stream::new("backward", !seed, pace(Some(BACKWARD_RATE)));
    let mut ends = Ends::join(stage, ticket, args.plane.options(Options::default())?).await?;
    let flow = ends.open(args.hops, [forward, backward]).await?;
    Ok((ends, flow))
}

/// The longest pause since this was asked last, either way.
fn longest(flow: &BusyFlow) -> Duration {
    let [forward, backward] = flow.longest();
    forward.max(backward)
}

struct Soak<'a> {
    args: &'a Args,
    relays: Relays<'a>,
    flow: BusyFlow,
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
            self.flow.protected(|relay| self.relays.runs(relay)).await?;
            self.slice(whole(turns), false, &mut calm).await?;
            self.slice(whole(turns), true, &mut killing).await?;
            tracing::info!(number, of = whole(slices), kills = self.kills, "slice");
        }
        let chain = self.flow.watched.chain();
        let (faults, equal) = self.flow.finish().await?;
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
            bytes: self.flow.forward.received() + self.flow.backward.received(),
            faults,
            equal: equal == [true; 2],
        })
    }

    /// So many times the time between two kills, with or without them.
    async fn slice(&mut self, turns: u32, kill: bool, side: &mut Side) -> Result<(), Failure> {
        let (start, before) = (Instant::now(), self.flow.forward.received());
        longest(&self.flow);
        for turn in 1..=turns {
            if kill {
                self.kill().await?;
            }
            self.flow.run_until(start + self.args.kill_every * turn).await?;
            side.paused(longest(&self.flow));
        }
        side.carried(self.flow.forward.received() - before, start.elapsed());
        Ok(())
    }

    /// Kills a relay of the chain, the hops in turn, and starts another.
    async fn kill(&mut self) -> Result<(), Failure> {
        let chain = self.flow.watched.chain();
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
