//! `hopline bench failover`: how long data pauses when a relay of its chain fails, drains or is cut off, on real processes.
//!
//! One flow carries data at a steady rate, both ways, while one relay after the other has the same fault. Its two ends are
//! threads of this process, so that one clock times both. Each pause is reported with the longest pause of the moments before,
//! without a fault: on a busy machine, compare pauses with that.

mod crowd;
mod report;

use super::{Exit, Failure};
use crate::busy_flow::{BusyFlow, Ends};
use crate::plot::{self, Chart, Series, Shape};
use crate::report::{RunArgs, uninterrupted, verdict};
use crate::stage::{Process, Relays, Stage};
use crate::traffic::{Pace, Stream};
use crate::watched::{is_protected, lost};
use bytesize::ByteSize;
use hopline::endpoint::{Cause as Shown, Chain, FlowEvent, Options};
use hopline_command::duration::parse_positive;
use hopline_command::plane::PlaneArgs;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use report::{Outcome, Pauses, Repair, Run};
use rustix::process::Signal;
use std::path::PathBuf;
use std::time::Duration;
use tokio::time::Instant;

const TARGET: &str = "sink";
const ORIGIN: &str = "origin";
/// Bootstrap, origin, target.
const NOT_RELAYS: usize = 3;
/// How long a repair, a new backup, or the flow's last words may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How long nothing is done before each fault, in milliseconds: at random, so that faults meet heartbeats at any phase.
const CALM_MS: std::ops::RangeInclusive<u64> = 100..=200;

/// What a flow carries a second, in bytes: one alone, and one of many.
const RATE_BYTES: u64 = 1 << 20;
const LOW_RATE_BYTES: u64 = 4 << 10;
/// How one flow alone is fed.
const TICK: Duration = Duration::from_millis(1);
const BLOCK_BYTES: usize = 64 << 10;

/// What happens to a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Cause {
    /// SIGKILL
    Kill,
    /// SIGSTOP, and SIGCONT when the flow has gone on
    Freeze,
    /// SIGTERM
    Drain,
    /// Its link to the hop before it is cut, both ways, until the flow has gone on; needs root
    Cut,
    /// It carries nothing more, and heartbeats as ever; killed when the flow has gone on
    Gray,
}

impl Cause {
    /// Lets it happen to a process; what happens to its links is the stage's to do.
    fn strike(self, relay: &mut Process) -> std::io::Result<()> {
        match self {
            Self::Kill => relay.kill(),
            Self::Freeze => relay.signal(Signal::STOP),
            Self::Drain => relay.terminate(),
            Self::Cut => Ok(()),
            Self::Gray => relay.signal(Signal::USR1),
        }
    }

    /// Whether the flow still goes over `relay` where that matters: one whose link to the hop before is cut is of use to
    /// whoever else serves that hop, and at another.
    fn hits(self, chain: &Chain, prev: &str, relay: &str, at: u8) -> bool {
        match self {
            Self::Cut => {
                let before = chain.primary(at - 1).unwrap_or(ORIGIN);
                chain.primary(at) == Some(relay) && before == prev
            }
            Self::Kill | Self::Freeze | Self::Drain | Self::Gray => chain.carries(relay),
        }
    }
}

/// A hop of the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Where {
    Any,
    Hop(u8),
}

/// Which way the pauses are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Way {
    Forward,
    Backward,
    Both,
}

/// How long data pauses when a relay of its chain is killed, frozen, drained or cut off.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  hopline bench failover --cause kill --runs 100
  hopline bench failover --cause freeze --hop 2 --direction forward
  hopline bench failover --cause drain --json | jq .gap_ms
  hopline bench failover --cause kill --plane session
  hopline bench failover --cause kill --redundant
  sudo hopline bench failover --cause cut    on a network of its own, in network namespaces
  hopline bench failover --cause kill --plot cdf.svg
  hopline bench failover --cause kill --flows 500 --hops 1 --relays 4 --runs 5
  hopline bench failover --cause kill --relays 50 --at-once 17 --flows 200 --runs 1

With several flows, data comes in a few portions a second. So the report has the delay of portions beside the pauses.

The exit code is 0 only if no byte was lost, duplicated or reordered.")]
pub(super) struct Args {
    /// The fault
    #[arg(long, value_enum, default_value = "kill")]
    cause: Cause,
    /// Number of faults
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    runs: u32,
    /// Hop of the relay: a number, or any for a random one each time
    #[arg(long, default_value = "any", value_name = "HOP", value_parser = place)]
    hop: Where,
    /// Direction in which pauses are measured; data goes both ways
    #[arg(long, value_enum, default_value = "both")]
    direction: Way,
    /// Relays on the flow's chain
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=8))]
    hops: u8,
    #[command(flatten)]
    plane: PlaneArgs,
    /// Flows; with more than one the fault is at the relay that most of them use
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    flows: u32,
    /// Relays of the pool to kill within 10 ms
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=50))]
    at_once: u32,
    /// Pairs of an origin and a target that share the flows; by default 1, and 4 with --at-once. All flows of a target
    /// come over the same relay
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=16))]
    pairs: Option<u32>,
    /// Relays in the pool; after a fault at least one more than hops must be left
    #[arg(long, default_value_t = 12, value_name = "N", value_parser = clap::value_parser!(u32).range(3..=100))]
    relays: u32,
    /// Rate of each flow, each way, in bytes a second; by default 1MiB, and 4KiB with --flows or --at-once
    #[arg(long, value_name = "SIZE", value_parser = hopline_command::size::parse)]
    rate: Option<ByteSize>,
    /// Send interval of each of many flows, 10ms to 1s; by default all together send 400 times a second. Each also
    /// sends at the moment of the fault
    #[arg(long, value_name = "TIME", value_parser = parse_positive)]
    every: Option<Duration>,
    /// Draw the distribution of the pauses
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
    #[command(flatten)]
    run: RunArgs,
}

fn place(text: &str) -> Result<Where, String> {
    match text.parse() {
        _ if text == "any" => Ok(Where::Any),
        Ok(hop) if hop >= 1 => Ok(Where::Hop(hop)),
        _ => Err("write a hop's number, or any".to_owned()),
    }
}

impl Args {
    fn check(&self) -> Result<(), Failure> {
        let usage = |message: String| Err(Failure::new(Exit::Usage, message));
        let least = u32::from(self.hops) + 1 + self.at_once;
        if self.relays < least {
            return usage(format!(
                "--relays {} is too few for --hops {} and {} that fail: at least {least}",
                self.relays, self.hops, self.at_once
            ));
        }
        if self.is_crowd() && self.cause == Cause::Cut {
            return usage("--cause cut is measured with one flow only".to_owned());
        }
        if self.cause == Cause::Gray && !cfg!(feature = "faults") {
            return usage(
                "--cause gray needs relays that can be told to fail: build with --features faults".to_owned(),
            );
        }
        if self.at_once > 1 && self.cause != Cause::Kill {
            return usage("--at-once is for --cause kill".to_owned());
        }
        if self.at_once > 1 && self.hop != Where::Any {
            return usage("--at-once takes any relays of the pool: leave --hop away".to_owned());
        }
        match self.hop {
            Where::Hop(hop) if hop > self.hops => {
                usage(format!("--hop {hop} is beyond --hops {}", self.hops))
            }
            Where::Hop(_) | Where::Any => Ok(()),
        }
    }

    const fn is_crowd(&self) -> bool {
        self.flows > 1 || self.at_once > 1
    }

    fn rate(&self) -> u64 {
        self.rate.map_or(if self.is_crowd() { LOW_RATE_BYTES } else { RATE_BYTES }, |rate| rate.0)
    }
}

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    args.check()?;
    let seed = args.run.seed();
    let mut stage = args.run.stage()?;
    if args.cause == Cause::Cut {
        stage = stage.on_testbed(args.relays as usize + NOT_RELAYS, seed)?;
    }
    let perform = async {
        let one: Box<dyn Pauses> = if args.is_crowd() {
            Box::new(crowd::perform(&args, seed, &stage).await?)
        } else {
            Box::new(perform(&args, seed, &stage).await?)
        };
        Ok(one)
    };
    let outcome = uninterrupted("bench failover", seed, perform).await?;
    args.run.print(outcome.as_ref(), &args)?;
    if let Some(path) = &args.plot {
        draw(path, &args, outcome.as_ref())?;
    }
    verdict(outcome.is_clean())
}

/// The cumulative distribution of pauses, with and without a fault.
fn draw(path: &std::path::Path, args: &Args, outcome: &dyn Pauses) -> Result<(), Failure> {
    let curve = |name: &str, colour, mut times: Vec<f64>| {
        times.sort_by(f64::total_cmp);
        let count = u32::try_from(times.len()).unwrap_or(u32::MAX);
        let share = |n: u32| 100.0 * f64::from(n) / f64::from(count.max(1));
        let points = times.into_iter().zip(1..).flat_map(|(at, n)| [(at, share(n - 1)), (at, share(n))]);
        Series { name: name.to_owned(), colour, shape: Shape::Line, points: points.collect() }
    };
    let series = vec![
        curve("around the fault", plot::BLUE, outcome.gaps()),
        curve("without a fault", plot::GREY, outcome.calm()),
    ];
    let end = outcome.gaps().into_iter().chain(outcome.calm()).fold(1.0, f64::max);
    let chart = Chart {
        label: if args.is_crowd() { "% of the flows" } else { "% of the runs" }.to_owned(),
        series,
        marks: Vec::new(),
    };
    let caption = format!("hopline bench failover --cause {}: longest pause", args.cause.name());
    plot::draw(path, &caption, ("milliseconds", end), &[chart])
}

async fn perform(args: &Args, seed: u64, stage: &Stage) -> Result<Outcome, Failure> {
    let (mut bootstrap, ours) = stage.bootstrap(&[]).await?;
    let relays = Relays::start(stage, &ours.to_string(), args.relays).await?;
    let mut ends = Ends::join(stage, &ours, args.plane.options(Options::default())?).await?;
    let pace = Pace { rate: Some(args.rate()), tick: TICK, block: BLOCK_BYTES };
    let streams = [Stream::new("forward", seed, pace), Stream::new("backward", !seed, pace)];
    let flow = ends.open(args.hops, streams).await?;
    let bench = Bench { args, stage, rng: StdRng::seed_from_u64(seed), relays, flow };
    let outcome = tokio::select! {
        outcome = bench.run(seed) => outcome,
        failure = bootstrap.death() => Err(failure),
    };
    ends.shutdown().await;
    outcome
}

/// What prev did about a failure, or why the origin left the chain.
type Repaired = (Option<Repair>, Option<Shown>);

struct Bench<'a> {
    args: &'a Args,
    stage: &'a Stage,
    rng: StdRng,
    relays: Relays<'a>,
    flow: BusyFlow,
}

impl Bench<'_> {
    async fn run(mut self, seed: u64) -> Result<Outcome, Failure> {
        let mut runs = Vec::new();
        for number in 1..=self.args.runs {
            let run = self.one().await?;
            tracing::debug!(number, ?run, "one more");
            runs.push(run);
        }
        let (faults, _) = self.flow.finish().await?;
        let bytes = self.flow.forward.sent() + self.flow.backward.sent();
        Ok(Outcome { seed, runs, faults, bytes })
    }

    /// Lets it happen to one relay.
    async fn one(&mut self) -> Result<Run, Failure> {
        loop {
            self.flow.protected(|relay| self.relays.runs(relay)).await?;
            self.longest();
            let calm = Instant::now() + Duration::from_millis(self.rng.random_range(CALM_MS));
            self.flow.run_until(calm).await?;
            if is_protected(&self.flow.watched.chain(), |relay| self.relays.runs(relay)) {
                break;
            }
        }
        let hop = match self.args.hop {
            Where::Hop(hop) => hop,
            Where::Any => self.rng.random_range(1..=self.args.hops),
        };
        let chain = self.flow.watched.chain();
        let name = chain.primary(hop).unwrap_or_default().to_owned();
        let prev = chain.primary(hop - 1).unwrap_or(ORIGIN).to_owned();
        let mut relay = self.relays.take(&name).ok_or_else(|| lost("no relay runs where one should"))?;
        let calm = self.longest();
        if self.args.cause == Cause::Cut {
            self.stage.cut(&prev, &name);
        }
        tracing::debug!(name, hop, "it strikes");
        self.args.cause.strike(&mut relay)?;
        let (repair, rebuilt_for) = self.repaired(&prev, &name, hop).await?;
        self.flow.flows(0).await?;
        let gap = self.longest();
        self.restore(relay).await?;
        Ok(Run { hop, gap, repair, rebuilt_for, calm })
    }

    /// The longest pause since this was called last, in the directions that count.
    fn longest(&self) -> Duration {
        let [forward, backward] = self.flow.longest();
        match self.args.direction {
            Way::Forward => forward,
            Way::Backward => backward,
            Way::Both => forward.max(backward),
        }
    }

    async fn restore(&mut self, mut relay: Process) -> Result<(), Failure> {
        match self.args.cause {
            Cause::Kill => {}
            Cause::Gray => relay.kill()?,
            Cause::Freeze => {
                relay.signal(Signal::CONT)?;
                self.relays.put_back(relay);
                return Ok(());
            }
            Cause::Drain => relay.success(TIMEOUT).await?,
            Cause::Cut => {
                self.stage.heal();
                self.relays.put_back(relay);
                return Ok(());
            }
        }
        self.relays.add().await?;
        Ok(())
    }

    /// Waits until the flow no longer goes over `relay`; what its prev said of that.
    async fn repaired(&mut self, prev: &str, relay: &str, at: u8) -> Result<Repaired, Failure> {
        let (mut repair, mut rebuilt_for) = (None, None);
        let heard = |event: &FlowEvent| match *event {
            FlowEvent::Rerouted { hop, evidence, gap_ms, detected_ms, replayed_bytes, .. } if hop == at => {
                let (gap, detected) = (span(gap_ms), span(detected_ms));
                repair = Some(Repair { evidence: evidence.as_str(), gap, detected, replayed_bytes });
            }
            FlowEvent::Drained { hop, gap_ms, replayed_bytes, .. } if hop == at => {
                let (evidence, gap, detected) = ("drain", span(gap_ms), Duration::ZERO);
                repair = Some(Repair { evidence, gap, detected, replayed_bytes });
            }
            FlowEvent::Rebuilt { cause, .. } => rebuilt_for = cause,
            _ => {}
        };
        let cause = self.args.cause;
        let is_left = |chain: &Chain| !cause.hits(chain, prev, relay, at);
        if self.flow.watched.until(Instant::now() + TIMEOUT, is_left, heard).await? {
            Ok((repair, rebuilt_for))
        } else {
            Err(lost("nobody took over"))
        }
    }
}

fn span(ms: f64) -> Duration {
    Duration::from_secs_f64(ms.max(0.0) / 1000.0)
}
