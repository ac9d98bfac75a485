//! `hopline bench churn`: relays come and go as a model of sessions says, and flows and messages go on over them.
//!
//! The bootstrap and the relays are processes of this binary; departures are SIGKILL, or SIGTERM for those that leave in
//! order. What arrives is checked byte by byte where it arrives; no counter of the system under test is trusted but for
//! the numbers of failovers and rebuilds. The same load runs first without churn, over the same pool.

mod chart;
mod pool;
mod report;
mod screen;
mod watch;

use super::{ends, load};
use crate::report::{RunArgs, histogram, uninterrupted, verdict};
use crate::stage::Stage;
use bytesize::ByteSize;
use ends::{Messages, Number, Pair};
use futures_util::future::try_join_all;
use hopline_churn::{Arrivals, Churn, Config, Crowd, Sessions, Spec, ZoneFailures};
use hopline_command::{Exit, Failure, duration};
use load::{Direction, Kind, Shared};
use pool::Pool;
use rand::SeedableRng;
use rand::rngs::StdRng;
use report::{Outcome, Phase};
use screen::Screen;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use watch::Counts;

/// How long the last bytes and receipts may take, after the last was sent.
const LAST_WORDS: Duration = Duration::from_secs(30);
/// More departures a second are no session model but a fork bomb.
const MAX_DEPARTURES_A_SECOND: f64 = 50.0;

/// Relays come and go under load, compared with the same load without churn. Every byte is checked.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  hopline bench churn                                        median sessions of 84 s, 20 times as fast
  hopline bench churn --sessions weibull:0.6:84s --plot churn.svg
  hopline bench churn --sessions pareto:1.5:5min --speedup 60 --relays 20 --hops 5
  hopline bench churn --zone-every 10min --zone-outage 1min  whole zones die now and then
  hopline bench churn --sessions trace:relays.csv --json | jq .churn.pause_ms

Sessions: exp:MEDIAN, weibull:SHAPE:MEDIAN, pareto:SHAPE:MEDIAN, or trace:FILE with a line JOIN,LEAVE in seconds for each
relay. The exit code is 0 only if nothing was lost, duplicated or reordered and every flow ended well.")]
pub(super) struct Args {
    /// Model of the relays' session lengths
    #[arg(long, default_value = "exp:84s", value_name = "MODEL")]
    sessions: Spec,
    /// By how much the model's time is sped up
    #[arg(long, default_value_t = 20.0, value_name = "FACTOR", value_parser = positive)]
    speedup: f64,
    /// Relays in the pool; at least one more than hops. A trace has its own number of relays
    #[arg(long, default_value_t = 12, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=500))]
    relays: u32,
    /// Relays arrive as a Poisson process, instead of one for each that left
    #[arg(long)]
    poisson: bool,
    /// Share of departures by SIGTERM; the others are by SIGKILL
    #[arg(long, default_value_t = 0.2, value_name = "SHARE", value_parser = share)]
    graceful: f64,
    /// Zones of the relays
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=100))]
    zones: u16,
    /// Mean time between failures of a whole zone, in the model's time; without it no zone fails
    #[arg(long, value_name = "DURATION", value_parser = duration::parse_positive)]
    zone_every: Option<Duration>,
    /// How long a zone is down, in the model's time
    #[arg(long, default_value = "1min", value_name = "DURATION", value_parser = duration::parse_positive)]
    zone_outage: Duration,
    /// This many more relays join within a second at half time
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=500))]
    crowd: u32,
    /// Relays on each flow's chain
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=8))]
    hops: u8,
    /// Flows that send at a steady rate, both ways
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=1000))]
    flows: u32,
    /// Rate of a steady flow, each way, in bytes a second
    #[arg(long, default_value = "256KiB", value_name = "SIZE", value_parser = hopline_command::size::parse)]
    rate: ByteSize,
    /// Flows that send as fast as possible, forward and backward in turn
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=100))]
    bulk: u32,
    /// Messages a second, of all origins together
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=10_000))]
    messages: u32,
    /// Origins, each with its own target, that share flows and messages
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=50))]
    pairs: u32,
    /// How long to send, first without churn and then with it
    #[arg(long, default_value_t = 60, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    seconds: u32,
    /// Draw goodput and pauses over time
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
    #[command(flatten)]
    run: RunArgs,
}

impl Args {
    /// What the schedule follows, in this machine's time.
    fn config(&self) -> Result<Config, Failure> {
        let usage = |message: String| Failure::new(Exit::Usage, message);
        let sessions = self
            .sessions
            .load(|path| std::fs::read_to_string(path))
            .map_err(|error| usage(error.to_string()))?;
        let sessions = match sessions {
            Sessions::Model(model) => Sessions::Model(
                model.sped_up(self.speedup).map_err(|error| usage(format!("with --speedup: {error}")))?,
            ),
            Sessions::Trace(trace) => Sessions::Trace(trace.sped_up(self.speedup)),
        };
        let (relays, rate) = match &sessions {
            Sessions::Model(model) => {
                (self.relays as usize, f64::from(self.relays) / model.mean().as_secs_f64())
            }
            Sessions::Trace(trace) => {
                let last = trace.stays().last().map_or(0.0, |stay| stay.joined.as_secs_f64());
                (trace.at_start(), (trace.stays().len() - trace.at_start()) as f64 / last.max(1.0))
            }
        };
        if relays <= usize::from(self.hops) {
            return Err(usage(format!(
                "{relays} relays are too few for --hops {}: at least {} are needed at the start",
                self.hops,
                self.hops + 1
            )));
        }
        if rate > MAX_DEPARTURES_A_SECOND {
            return Err(usage(format!(
                "{rate:.0} relays a second would come and go; at most {MAX_DEPARTURES_A_SECOND} may: use a smaller --speedup"
            )));
        }
        let faster = |time: Duration| Duration::try_from_secs_f64(time.as_secs_f64() / self.speedup);
        let faster = |time| faster(time).map_err(|_| usage("--speedup is too small".to_owned()));
        let zone_failures = match self.zone_every {
            Some(every) => Some(ZoneFailures { every: faster(every)?, outage: faster(self.zone_outage)? }),
            None => None,
        };
        let crowd = Crowd { at: self.length() / 2, relays: self.crowd, within: Duration::from_secs(1) };
        Ok(Config {
            sessions,
            size: self.relays,
            arrivals: if self.poisson { Arrivals::Poisson } else { Arrivals::Replace },
            graceful: self.graceful,
            zones: self.zones,
            zone_failures,
            crowd: (self.crowd > 0).then_some(crowd),
        })
    }

    fn length(&self) -> Duration {
        Duration::from_secs(self.seconds.into())
    }

    fn kinds(&self) -> Vec<Kind> {
        let paced = (0..self.flows).map(|_| Kind::Paced(self.rate.0));
        let bulk = (0..self.bulk).map(|number| Kind::Bulk { forward: number % 2 == 0 });
        paced.chain(bulk).collect()
    }
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() && number > 0.0 => Ok(number),
        _ => Err("write a number above 0".to_owned()),
    }
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("write a share between 0 and 1".to_owned()),
    }
}

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let config = args.config()?;
    let seed = args.run.seed();
    let stage = args.run.stage()?;
    let screen = Screen::new();
    let performed = uninterrupted("bench churn", seed, perform(&args, config, seed, &stage, &screen)).await;
    screen.end();
    let outcome = performed?;
    args.run.print(&outcome, &args)?;
    if let Some(path) = &args.plot {
        chart::draw(path, &args, &outcome)?;
    }
    verdict(outcome.is_clean())
}

async fn perform(
    args: &Args,
    config: Config,
    seed: u64,
    stage: &Stage,
    screen: &Screen,
) -> Result<Outcome, Failure> {
    let median_session = match &config.sessions {
        Sessions::Model(model) => Some(model.median()),
        Sessions::Trace(_) => None,
    };
    let mut schedule = Churn::new(config, StdRng::seed_from_u64(seed)).peekable();
    let first: Vec<_> = std::iter::from_fn(|| schedule.next_if(|event| event.at.is_zero())).collect();
    screen.say(&format!(
        "starting a bootstrap, {} relays and {} pairs of endpoints",
        first.len(),
        args.pairs
    ));
    let (mut bootstrap, ours) = stage.bootstrap(&[]).await?;
    let ticket = &ours.to_string();
    let mut pool = Pool::start(stage, ticket, &first, histogram()?).await?;
    let pairs =
        try_join_all((0..args.pairs).map(|number| Pair::join(stage, &ours, number, args.hops))).await?;
    let bench = Bench { args, seed, screen, pairs };
    let phases = async {
        let baseline = bench.phase(0, &mut pool, std::iter::empty()).await?;
        let churn = bench.phase(1, &mut pool, schedule).await?;
        Ok::<_, Failure>((baseline, churn))
    };
    let (baseline, churn) = tokio::select! {
        phases = phases => phases?,
        failure = bootstrap.death() => return Err(failure),
    };
    for pair in &bench.pairs {
        pair.shutdown().await;
    }
    Ok(Outcome { seed, relays: first.len(), median_session, baseline, churn, starts: pool.starts })
}

/// What both phases share.
struct Bench<'a> {
    args: &'a Args,
    seed: u64,
    screen: &'a Screen,
    pairs: Vec<Pair>,
}

impl Bench<'_> {
    async fn phase(
        &self,
        number: u32,
        pool: &mut Pool<'_>,
        schedule: impl Iterator<Item = hopline_churn::Event>,
    ) -> Result<Phase, Failure> {
        let name = if number == 0 { "no churn" } else { "churn" };
        let kinds = self.args.kinds();
        let mut counts = Counts::new(pool.gauges.clone())?;
        let events = self.pairs.iter().map(|pair| pair.origin.events()).collect();
        let numbers = (0u32..).map(|flow| Number(number << 16 | flow));
        let flows = numbers.zip(&kinds).zip(self.pairs.iter().cycle());
        let flows =
            try_join_all(flows.map(async |((number, kind), pair)| {
                Ok::<_, Failure>((number, *kind, pair.open(number).await?))
            }))
            .await?;
        let start = Instant::now();
        let shared = Arc::new(Shared {
            seed: self.seed,
            start,
            end: start + self.args.length(),
            give_up: CancellationToken::new(),
            received: AtomicU64::new(0),
            longest_pause: AtomicU64::new(0),
        });
        pool.begin(start);
        self.screen.say(&format!("{} flows for {} s, {name}", flows.len(), self.args.seconds));
        let carried = try_join_all(flows.into_iter().map(|(number, kind, (origin, target))| {
            load::carry(number, kind, origin, target, shared.clone())
        }));
        let gauges = pool.gauges.clone();
        let load = async { tokio::try_join!(carried, self.messages(number, &shared)) };
        let churn = async {
            pool.run(schedule, self.args.length()).await?;
            pool.attend().await
        };
        let (directions, messages) = tokio::select! {
            done = load => done?,
            ended = churn => return Err(ended.err().unwrap_or_else(|| Failure::new(Exit::Failed, "the pool ended"))),
            () = counts.follow(events) => return Err(Failure::new(Exit::Failed, "this process's own nodes ended")),
            () = self.screen.follow(name, &shared, &gauges) => unreachable!("the screen follows for ever"),
            never = self.give_up(&shared) => match never {},
        };
        pool.check().await?;
        Ok(Phase {
            seconds: self.args.length().as_secs_f64(),
            directions: directions.into_iter().flatten().collect::<Vec<Direction>>(),
            messages,
            counts,
            history: std::mem::take(&mut pool.history),
        })
    }

    /// Sees to it that a phase ends: what is not there some time after the last was sent is lost.
    async fn give_up(&self, shared: &Shared) -> std::convert::Infallible {
        sleep_until(shared.end + LAST_WORDS).await;
        shared.give_up.cancel();
        std::future::pending().await
    }

    async fn messages(&self, phase: u32, shared: &Shared) -> Result<Vec<Messages>, Failure> {
        if self.args.messages == 0 {
            return Ok(Vec::new());
        }
        let pause = Duration::from_secs(1) * self.args.pairs / self.args.messages;
        try_join_all(self.pairs.iter().map(|pair| {
            pair.begin(phase);
            pair.send_messages(phase, pause, shared.end, &shared.give_up)
        }))
        .await
    }
}
