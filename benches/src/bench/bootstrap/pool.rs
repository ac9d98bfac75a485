//! The bootstrap's machine alone: one thread, one pool, no I/O.
//!
//! What is timed is [`Bootstrap::answer`] and the taking of its events, as its driver does both for each question. Time is
//! told: heartbeats come as far apart as they would, without anybody waiting. Beside it stands the plainest thing that could work: a
//! hash map from relays to the ends of their leases, and as many relays as a chain has candidates, drawn blindly.

use super::times::{Spread, Times};
use super::{BOOT, load, registration, resident_bytes};
use crate::bench::flow::print_line;
use crate::stage::Stage;
use hopline_command::{Exit, Failure};
use hopline_proto::bootstrap::{Bootstrap, Config};
use hopline_proto::crypto::Key;
use hopline_proto::families::Families;
use hopline_proto::planner::Planner;
use hopline_proto::pool::{self, PoolEvent, Relay};
use hopline_proto::rpc::{Heartbeat, Lease, Offer, Request, Response};
use hopline_proto::{NodeId, Time};
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::hint::black_box;
use std::ops::Range;
use std::time::Duration;
use tokio::time::Instant;

/// When it all begins; any time will do.
const BEGINNING: Time = Time::from_micros(1_800_000_000_000_000);
/// How often a relay sends a heartbeat.
const INTERVAL: Duration = Duration::from_secs(10);
/// Rounds of heartbeats are repeated for at least this long.
const LONG_ENOUGH: Duration = Duration::from_secs(2);
/// This many plans are made, or as many as fit this time, after a tenth of them unmeasured.
const PLANS: u32 = 20_000;
const PLANNING: Duration = Duration::from_secs(4);
/// Registrations that are prepared at once, so that preparing them is not measured.
const PREPARED: usize = 10_000;
const HOPS: u8 = 3;
const ATTACHMENTS: u8 = 3;
const TARGET_NAME: &str = "bench";
const TARGET: NodeId = NodeId::from_bytes([0xbb; 32]);
const ORIGIN: NodeId = NodeId::from_bytes([0xaa; 32]);
/// Leases that end at once: as many, but not more than this part of the pool.
const ENDING: usize = 10_000;
const ENDING_PART: usize = 10;
/// So soon after that these relays are forgotten, too.
const FORGET_AFTER: Duration = Duration::from_secs(5);

/// A pool of one size. Prints a line of JSON.
#[derive(Debug, clap::Args)]
pub(in crate::bench) struct Args {
    /// How many relays it has
    relays: u32,
    /// What they follow from
    #[arg(long)]
    seed: u64,
}

/// What came of one size.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Measured {
    pub(super) relays: u32,
    pub(super) registrations_per_second: f64,
    pub(super) heartbeats: Rate,
    pub(super) map_heartbeats: Rate,
    /// The planner alone.
    pub(super) plan_us: Spread,
    /// The whole answer: planned, sealed, counted.
    pub(super) answered_plan_us: Spread,
    pub(super) random_pick_us: Spread,
    /// By how much the process grew for each relay.
    pub(super) resident_bytes_per_relay: f64,
    /// What the record of a relay alone takes of that, its strings included.
    pub(super) record_bytes_per_relay: f64,
    pub(super) expiry: Expiry,
}

/// How fast something is done over and over.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Rate {
    pub(super) per_second: f64,
    /// CPU time of each.
    pub(super) cpu_us: f64,
}

/// Many leases end in one instant, while the other relays go on renewing theirs.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Expiry {
    /// How many end.
    pub(super) leases: usize,
    /// How long the others' renewals took, until the last of those relays was forgotten.
    pub(super) renewal_ms: Spread,
    /// What they took of a processor, whatever else the machine had to do.
    pub(super) renewal_cpu_ms: Spread,
    /// All of a processor's time that went into it: relays become suspect, go offline, and are forgotten.
    pub(super) total_cpu_ms: f64,
}

/// Has a process of its own measure.
pub(super) async fn apart(stage: &Stage, relays: u32, seed: u64) -> Result<Measured, Failure> {
    let (name, relays, seed) = (format!("pool-{relays}"), relays.to_string(), seed.to_string());
    let mut process = stage.start(&name, None, &["bench", "bootstrap-pool", &relays, "--seed", &seed])?;
    match process.line().await? {
        Some(line) => serde_json::from_str(&line).map_err(|_| process.failure(&format!("said {line:?}"))),
        None => Err(process.died("before it was done").await),
    }
}

/// Measures in this process.
pub(in crate::bench) fn measure(args: &Args) -> Result<(), Failure> {
    let mut crowd = Crowd::new(args.relays, args.seed);
    let before = resident_bytes("self")?;
    let registrations_per_second = crowd.register()?;
    crowd.round(crowd.all(), INTERVAL, renew)?;
    let grown = (resident_bytes("self")? - before).max(0.0);
    let heartbeats = crowd.heartbeats()?;
    let attachments = crowd.attach()?;
    let measured = Measured {
        relays: args.relays,
        registrations_per_second,
        heartbeats,
        map_heartbeats: crowd.map_heartbeats()?,
        plan_us: crowd.plans(&attachments)?,
        answered_plan_us: crowd.answered_plans()?,
        random_pick_us: crowd.random_picks()?,
        resident_bytes_per_relay: grown / f64::from(args.relays),
        record_bytes_per_relay: crowd.record_bytes() / f64::from(args.relays),
        expiry: crowd.expiry()?,
    };
    let line = serde_json::to_string(&measured).map_err(|error| failed(error.to_string()))?;
    Ok(print_line(&line)?)
}

/// Relays, and the bootstrap that they ask.
struct Crowd {
    machine: Bootstrap,
    /// In the order of their registrations, and then of their heartbeats.
    relays: Vec<NodeId>,
    now: Time,
    /// What is greater at each heartbeat than at all before, whosever it is.
    sequence: u64,
    /// The latest that they all have a key of.
    key_epoch: Option<u32>,
    rng: StdRng,
}

impl Crowd {
    fn new(relays: u32, seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let pool = pool::Config {
            max_relays: relays as usize,
            // No expiry of this benchmark is to be taken for a partition.
            preserve_percent: 100,
            forget_after: FORGET_AFTER,
            ..pool::Config::default()
        };
        let config = Config { pool, heartbeat: INTERVAL, ..Config::default() };
        let mut node = || {
            let mut bytes = [0; 32];
            rng.fill_bytes(&mut bytes);
            NodeId::from_bytes(bytes)
        };
        let relays = (0..relays).map(|_| node()).collect();
        let machine_rng = StdRng::seed_from_u64(rng.next_u64());
        let machine = Bootstrap::new(config, Key::from_bytes([7; 32]), machine_rng, BEGINNING);
        Self { machine, relays, now: BEGINNING, sequence: 0, key_epoch: None, rng }
    }

    const fn all(&self) -> Range<usize> {
        0..self.relays.len()
    }

    /// Registers all; how many a second.
    fn register(&mut self) -> Result<f64, Failure> {
        let mut took = Duration::ZERO;
        let mut numbers = 0..;
        for relays in self.relays.chunks(PREPARED) {
            let prepared: Vec<(NodeId, Request)> =
                relays.iter().zip(&mut numbers).map(|(node, number)| (*node, registration(number))).collect();
            let start = Instant::now();
            for (node, request) in prepared {
                let lease = leased(self.machine.answer(node, request, self.now))?;
                self.key_epoch = lease.keys.last().map(|(epoch, _)| *epoch);
                self.machine.take_events();
            }
            took += start.elapsed();
        }
        let count = self.relays.len();
        self.relays.shuffle(&mut self.rng);
        Ok(count as f64 / took.as_secs_f64())
    }

    /// A heartbeat of each of these relays, evenly over this time.
    fn round(
        &mut self,
        which: Range<usize>,
        over: Duration,
        mut each: impl FnMut(&mut Bootstrap, NodeId, Request, Time) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let relays = self.relays.get(which).unwrap_or_default();
        let pace = over / u32::try_from(relays.len()).unwrap_or(u32::MAX).max(1);
        for node in relays {
            self.now = self.now + pace;
            self.sequence += 1;
            let (sequence, sent_at, key_epoch) = (self.sequence, self.now, self.key_epoch);
            let heartbeat = Heartbeat { sequence, sent_at, load: load(sequence), key_epoch };
            each(&mut self.machine, *node, Request::Heartbeat(heartbeat), self.now)?;
        }
        Ok(())
    }

    fn heartbeats(&mut self) -> Result<Rate, Failure> {
        rate(self.relays.len(), || self.round(self.all(), INTERVAL, renew))
    }

    /// The same with a hash map, which knows nothing but when leases end.
    fn map_heartbeats(&self) -> Result<Rate, Failure> {
        let mut leases: HashMap<NodeId, Time> = self.relays.iter().map(|node| (*node, self.now)).collect();
        let (mut now, lease) = (self.now, pool::Config::default().lease);
        rate(self.relays.len(), || {
            for node in &self.relays {
                now = now + Duration::from_micros(1);
                let ends = leases.get_mut(node).ok_or_else(|| failed("a relay is missing"))?;
                *ends = now + lease;
            }
            Ok(())
        })
    }

    /// Registers the target, attached to relays that the bootstrap chooses.
    fn attach(&mut self) -> Result<Vec<NodeId>, Failure> {
        let request = Request::Attachments { count: ATTACHMENTS, exclude: Vec::new(), dials: Families::BOTH };
        let response = self.machine.answer(TARGET, request, self.now);
        let Response::Relays(relays) = response else { return Err(unexpected(&response)) };
        let attachments: Vec<NodeId> = relays.iter().map(|relay| relay.node).collect();
        let offer = Offer::Target { names: vec![TARGET_NAME.to_owned()], attachments: attachments.clone() };
        let request = Request::Register { name: TARGET_NAME.to_owned(), offer, boot: BOOT };
        leased(self.machine.answer(TARGET, request, self.now))?;
        Ok(attachments)
    }

    fn plans(&mut self, attachments: &[NodeId]) -> Result<Spread, Failure> {
        let (pool, now, rng) = (self.machine.pool(), self.now, &mut self.rng);
        spread(|| match Planner::new(pool, now, rng).plan(HOPS, attachments, &[]) {
            Ok(plan) => {
                black_box(plan);
                Ok(())
            }
            Err(error) => Err(failed(error.to_string())),
        })
    }

    fn answered_plans(&mut self) -> Result<Spread, Failure> {
        let request = Request::Plan {
            target: TARGET_NAME.to_owned(),
            hops: HOPS,
            exclude: Vec::new(),
            dials: Families::BOTH,
        };
        spread(|| {
            let response = self.machine.answer(ORIGIN, request.clone(), self.now);
            self.machine.take_events();
            if let Response::Planned(_) = response { Ok(()) } else { Err(unexpected(&response)) }
        })
    }

    /// As many relays as a plan has candidates, whichever they are.
    fn random_picks(&mut self) -> Result<Spread, Failure> {
        let (relays, rng) = (&self.relays, &mut self.rng);
        spread(|| {
            let picked: Vec<NodeId> = relays.sample(rng, usize::from(HOPS) * 2).copied().collect();
            black_box(picked);
            Ok(())
        })
    }

    fn record_bytes(&self) -> f64 {
        self.machine.pool().iter().map(Relay::bytes).sum::<usize>() as f64
    }

    /// See [`Expiry`].
    fn expiry(&mut self) -> Result<Expiry, Failure> {
        let ending = (self.relays.len() / ENDING_PART).min(ENDING);
        let (heard_last, heard_on) = (0..ending, ending..self.relays.len());
        self.round(heard_last, Duration::ZERO, renew)?;
        // Two intervals are less than a lease, and in the second of these rounds all that happens to the others happens.
        self.round(heard_on.clone(), INTERVAL * 2, renew)?;
        let (mut times, mut cpu_times, mut total) = (Times::new()?, Times::new()?, Duration::ZERO);
        let (mut offline, mut forgotten) = (0, 0);
        self.round(heard_on, INTERVAL * 2, |machine, node, request, now| {
            let (cpu, start) = (cpu_time(), Instant::now());
            // A renewal may have to wait for what is due.
            if machine.poll_timeout().is_some_and(|due| due <= now) {
                machine.handle_timeout(now);
            }
            let lease = leased(machine.answer(node, request, now));
            let events = machine.take_events();
            times.record(start.elapsed());
            let cpu = cpu_time().saturating_sub(cpu);
            cpu_times.record(cpu);
            total += if events.is_empty() { Duration::ZERO } else { cpu };
            offline += events.iter().filter(|event| matches!(event, PoolEvent::Offline(_))).count();
            forgotten += events.iter().filter(|event| matches!(event, PoolEvent::Forgotten(_))).count();
            lease.map(drop)
        })?;
        if (offline, forgotten) != (ending, ending) {
            let what = format!("of {ending} relays {offline} went offline and {forgotten} were forgotten");
            return Err(failed(what));
        }
        Ok(Expiry {
            leases: ending,
            renewal_ms: times.ms(),
            renewal_cpu_ms: cpu_times.ms(),
            total_cpu_ms: total.as_secs_f64() * 1e3,
        })
    }
}

/// A heartbeat that nobody looks at.
fn renew(machine: &mut Bootstrap, node: NodeId, request: Request, now: Time) -> Result<(), Failure> {
    leased(machine.answer(node, request, now))?;
    machine.take_events();
    Ok(())
}

fn leased(response: Response) -> Result<Lease, Failure> {
    if let Response::Lease(lease) = response { Ok(lease) } else { Err(unexpected(&response)) }
}

fn unexpected(response: &Response) -> Failure {
    failed(format!("the bootstrap answered {response:?}"))
}

fn failed(what: impl Into<String>) -> Failure {
    Failure::new(Exit::Failed, what)
}

/// How fast rounds of so many steps are, after one that is not counted.
fn rate(steps: usize, mut round: impl FnMut() -> Result<(), Failure>) -> Result<Rate, Failure> {
    round()?;
    let (start, cpu) = (Instant::now(), cpu_time());
    let mut done = 0;
    while start.elapsed() < LONG_ENOUGH {
        round()?;
        done += steps;
    }
    let (wall, cpu) = (start.elapsed().as_secs_f64(), cpu_time().saturating_sub(cpu).as_secs_f64());
    Ok(Rate { per_second: done as f64 / wall, cpu_us: cpu * 1e6 / done as f64 })
}

/// How long each of many runs takes.
fn spread(mut run: impl FnMut() -> Result<(), Failure>) -> Result<Spread, Failure> {
    for _ in 0..PLANS / 10 {
        run()?;
    }
    let mut times = Times::new()?;
    let begun = Instant::now();
    for _ in 0..PLANS {
        let start = Instant::now();
        run()?;
        times.record(start.elapsed());
        if begun.elapsed() > PLANNING {
            break;
        }
    }
    Ok(times.us())
}

/// What this thread has had of a processor so far.
fn cpu_time() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().unwrap_or_default()
}
