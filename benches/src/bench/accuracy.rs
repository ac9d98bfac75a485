//! `hopline bench accuracy`: how often a live neighbour is declared dead, and what that costs.
//!
//! No node dies. Processes that only spin take CPU, or the [testbed](crate::testbed) loses datagrams, while many flows carry a little
//! checked data both ways. So every suspicion is false, and every failover unnecessary. Suspicions come from every node's own
//! [counters](hopline::net::counters), which relays tell over their stdin, from when all flows were open until the senders stop.

mod report;

use super::ends::{Number, Pair};
use super::load::{self, Direction, Kind, Shared};
use super::{Exit, Failure};
use crate::report::{RunArgs, uninterrupted, verdict};
use crate::stage::{Process, Stage};
use bytesize::ByteSize;
use futures_util::future::{select_all, try_join_all};
use hopline::endpoint::FlowEvent;
use hopline::net::counters::Neighbours;
use hopline_command::ready;
use report::{Node, Outcome, Repairs};
use serde_json::json;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// How long the last bytes may take, after the last was sent.
const LAST_WORDS: Duration = Duration::from_secs(60);
/// Hosts of the testbed that are not a relay's: the bootstrap's, and for each pair the origin's and the target's.
const BOOTSTRAPS: u32 = 1;
const ENDS: u32 = 2;

/// False alarms: how often live relays are declared dead, on a busy machine or a lossy network.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  hopline bench accuracy --busy 4 --flows 100 --seconds 1800
  sudo hopline bench accuracy --busy 0 --loss 10%          on a network of its own, in network namespaces
  hopline bench accuracy --busy 8 --seconds 60 --json | jq .suspicions

The exit code is 0 only if no byte was lost, duplicated or reordered and every flow ended well.")]
pub(super) struct Args {
    /// Processes that only keep a core busy
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=64))]
    busy: u32,
    /// Share of lost datagrams, such as 10%; needs root
    #[arg(long, default_value = "0%", value_name = "SHARE", value_parser = share)]
    loss: f64,
    /// Flows that send at a steady rate, both ways
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    flows: u32,
    /// Rate of a flow, each way, in bytes a second
    #[arg(long, default_value = "4KiB", value_name = "SIZE", value_parser = hopline_command::size::parse)]
    rate: ByteSize,
    /// Relays in the pool; at least one more than hops
    #[arg(long, default_value_t = 8, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=100))]
    relays: u32,
    /// Relays on each flow's chain
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=8))]
    hops: u8,
    /// Origins, each with its own target, that share the flows
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=50))]
    pairs: u32,
    /// How long to send
    #[arg(long, default_value_t = 60, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    seconds: u32,
    #[command(flatten)]
    run: RunArgs,
}

fn share(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').and_then(|percent| percent.parse::<f64>().ok());
    match number.map(|percent| percent / 100.0) {
        Some(share) if (0.0..1.0).contains(&share) => Ok(share),
        _ => Err("write a percentage from 0% to below 100%".to_owned()),
    }
}

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    if args.relays <= u32::from(args.hops) {
        let least = args.hops + 1;
        let what = format!("--relays {} is too few for --hops {}: at least {least}", args.relays, args.hops);
        return Err(Failure::new(Exit::Usage, what));
    }
    let seed = args.run.seed();
    let mut stage = args.run.stage()?;
    if args.loss > 0.0 {
        stage = stage.on_testbed((args.relays + BOOTSTRAPS + ENDS * args.pairs) as usize, seed)?;
    }
    let outcome = uninterrupted("bench accuracy", seed, perform(&args, seed, &stage)).await?;
    args.run.print(&outcome, &args)?;
    verdict(outcome.is_clean())
}

/// Keeps a core busy until its stdin ends.
pub(super) fn spin() -> Result<(), Failure> {
    std::thread::spawn(|| {
        loop {
            std::hint::spin_loop();
        }
    });
    ready::print(&json!({"role": "spinner"}));
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

async fn perform(args: &Args, seed: u64, stage: &Stage) -> Result<Outcome, Failure> {
    let (mut bootstrap, ours) = stage.bootstrap(&[]).await?;
    let ticket = ours.to_string();
    let relays = (1..=args.relays).map(|number| {
        let (name, ticket) = (format!("r{number}"), Some(&*ticket));
        stage.start(
            &name,
            ticket,
            &["relay", "--name", &name, "--listen", &stage.address(&name), "--counters"],
        )
    });
    let relays = all_ready(relays.collect::<Result<_, _>>()?).await?;
    let pairs =
        try_join_all((0..args.pairs).map(|number| Pair::join(stage, &ours, number, args.hops))).await?;
    let mut bench = Bench { args, seed, stage, relays, pairs };
    let outcome = tokio::select! {
        outcome = bench.run() => outcome,
        failure = bootstrap.death() => Err(failure),
    };
    for pair in &bench.pairs {
        pair.shutdown().await;
    }
    outcome
}

async fn all_ready(mut processes: Vec<Process>) -> Result<Vec<Process>, Failure> {
    for process in &mut processes {
        process.ready().await?;
    }
    Ok(processes)
}

struct Bench<'a> {
    args: &'a Args,
    seed: u64,
    stage: &'a Stage,
    relays: Vec<Process>,
    pairs: Vec<Pair>,
}

impl Bench<'_> {
    async fn run(&mut self) -> Result<Outcome, Failure> {
        let args = self.args;
        let mut repairs = Repairs::default();
        let flows = (0..args.flows).map(Number).zip(self.pairs.iter().cycle());
        let open =
            async |(number, pair): (Number, &Pair)| Ok::<_, Failure>((number, pair.open(number).await?));
        let flows = try_join_all(flows.map(open)).await?;
        let events = self.pairs.iter().map(|pair| pair.origin.events()).collect();
        let spinners = (1..=args.busy)
            .map(|number| self.stage.start(&format!("spinner-{number}"), None, &["bench", "spin"]));
        let _spinners = all_ready(spinners.collect::<Result<_, _>>()?).await?;
        self.stage.lose(args.loss);
        let before = self.counters().await?;
        let start = Instant::now();
        let shared = Arc::new(Shared {
            seed: self.seed,
            start,
            end: start + Duration::from_secs(args.seconds.into()),
            give_up: CancellationToken::new(),
            received: AtomicU64::new(0),
            longest_pause: AtomicU64::new(0),
        });
        let carried = try_join_all(flows.into_iter().map(|(number, (origin, target))| {
            load::carry(number, Kind::Paced(args.rate.0), origin, target, shared.clone())
        }));
        let measured = async {
            let (directions, nodes) = tokio::try_join!(carried, self.measure(&before, &shared))?;
            Ok::<_, Failure>((directions.into_iter().flatten().collect::<Vec<Direction>>(), nodes))
        };
        let (directions, nodes) = tokio::select! {
            measured = measured => measured?,
            () = follow(events, &mut repairs) => return Err(Failure::new(Exit::Failed, "this process's own nodes ended")),
        };
        Ok(Outcome { seed: self.seed, directions, nodes, repairs })
    }

    /// What the nodes thought of each other while there was load; sees to it that the load ends, too.
    async fn measure(&mut self, before: &[Node], shared: &Shared) -> Result<Vec<Node>, Failure> {
        sleep_until(shared.end).await;
        let after = self.counters().await?;
        // What is still under way may arrive in peace.
        self.stage.lose(0.0);
        let give_up = shared.give_up.clone();
        tokio::spawn(async move {
            tokio::time::sleep(LAST_WORDS).await;
            give_up.cancel();
        });
        Ok(after.into_iter().zip(before).map(|(after, before)| after.since(before)).collect())
    }

    /// What each node thinks of its neighbours.
    async fn counters(&mut self) -> Result<Vec<Node>, Failure> {
        let mut nodes = Vec::new();
        for relay in &mut self.relays {
            let answer = relay.ask("neighbours").await?;
            let neighbours = serde_json::from_str::<Neighbours>(&answer)
                .map_err(|_| relay.failure(&format!("said {answer:?} of its neighbours")))?;
            nodes.push(Node { name: relay.name().to_owned(), neighbours });
        }
        for (number, pair) in self.pairs.iter().enumerate() {
            for (what, endpoint) in [("origin", &pair.origin), ("target", &pair.target)] {
                nodes.push(Node { name: format!("{what}-{number}"), neighbours: endpoint.neighbours() });
            }
        }
        Ok(nodes)
    }
}

/// Counts repairs until nothing can happen any more, or this is dropped.
async fn follow(mut events: Vec<Receiver<FlowEvent>>, repairs: &mut Repairs) {
    while !events.is_empty() {
        let next = events.iter_mut().map(|events| Box::pin(events.recv()));
        let (event, place, _) = select_all(next).await;
        match event {
            Ok(event) => repairs.count(&event),
            Err(RecvError::Lagged(missed)) => repairs.missed += missed,
            Err(RecvError::Closed) => drop(events.swap_remove(place)),
        }
    }
}
