//! Follows a schedule of joins and departures, and takes samples on the way.

use super::report::{Report, Sample};
use crate::dice::Dice;
use crate::network::{NodeIndex, Weather};
use crate::node::{Blueprint, Role, Skew};
use crate::settings::{Fidelity, START, Settings};
use crate::traffic::{App, FlowPlan, Reader, Script, Step, When};
use crate::world::World;
use hopline_churn::{Arrivals, Change, Churn, Config, Crowd, Event, Leave, Member, Sessions, ZoneFailures};
use hopline_proto::Time;
use hopline_proto::bootstrap;
use hopline_proto::detector::Pace;
use hopline_proto::flows::FlowsConfig;
use hopline_proto::machine::Machine;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Until relays and targets are registered, and until flows are open.
const WARM_UP: Duration = Duration::from_secs(5);
const OPENING: Duration = Duration::from_secs(10);
/// What may still be under way when the schedule ends.
const LEFT_OVER: Duration = Duration::from_secs(90);
/// A machine comes back as another relay after this long, at the earliest.
const BACK_AFTER: Duration = Duration::from_secs(60);
/// How long a relay that leaves has to have its flows moved.
const LAST_WORDS: Duration = Duration::from_secs(1);
const SAMPLES: u32 = 200;
/// How long it takes until all have died who die together.
const DYING: Duration = Duration::from_millis(10);

/// What to run.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) seed: u64,
    /// `None` for a run without churn.
    pub(crate) sessions: Option<Sessions>,
    pub(crate) relays: u32,
    pub(crate) flows: usize,
    /// Flows that one endpoint opens, or is the target of.
    pub(crate) flows_per_endpoint: usize,
    pub(crate) hops: u8,
    pub(crate) duration: Duration,
    pub(crate) zones: u16,
    pub(crate) zone_failures: Option<ZoneFailures>,
    /// This many relays join within a second, half-way through.
    pub(crate) crowd: u32,
    /// So many relays die within [`DYING`], half-way through.
    pub(crate) deaths: usize,
    pub(crate) arrivals: Arrivals,
    pub(crate) graceful: f64,
    pub(crate) fidelity: Fidelity,
    pub(crate) message_bytes: u64,
    pub(crate) every: Duration,
    /// Of the longest way between two nodes.
    pub(crate) delay: Duration,
    /// Bandwidth of a link each way, in bytes a second; 0 is unlimited.
    pub(crate) bandwidth: u64,
    /// How long a lease is; three heartbeats fit into it.
    pub(crate) lease: Duration,
    /// Whether a packet for a process that is no more brings an error back.
    pub(crate) refusals: bool,
}

struct Run {
    world: World,
    options: Options,
    members: BTreeMap<Member, NodeIndex>,
    /// Relays that are gone, by when they went.
    gone: VecDeque<(Time, NodeIndex)>,
    /// Relays that have said goodbye, by when they end.
    leaving: VecDeque<(Time, NodeIndex)>,
    report: Report,
}

/// Runs it. `progress` is told now and then which share is done.
pub(crate) fn run(options: Options, progress: impl FnMut(f64)) -> Report {
    let world = World::new(settings(&options));
    let report = Report::default();
    let (members, gone, leaving) = (BTreeMap::new(), VecDeque::new(), VecDeque::new());
    let mut run = Run { world, options, members, gone, leaving, report };
    let mut schedule = run.schedule();
    run.populate(&mut schedule);
    run.open();
    run.follow(schedule, progress);
    run.conclude()
}

fn settings(options: &Options) -> Settings {
    let mut flows = FlowsConfig::default();
    if options.fidelity == Fidelity::Lean {
        flows.links.detector.pace = Pace::Off;
    }
    let mut bootstrap = bootstrap::Config { heartbeat: options.lease / 3, ..bootstrap::Config::default() };
    bootstrap.pool.lease = options.lease;
    bootstrap.pool.max_relays = bootstrap.pool.max_relays.max(options.relays as usize * 2);
    Settings {
        seed: options.seed,
        weather: Weather {
            delay: (options.delay / 10, options.delay),
            jitter_percent: 0,
            loss_ppm: 0,
            bandwidth: options.bandwidth,
            refusals: options.refusals,
        },
        fidelity: options.fidelity,
        flows,
        bootstrap,
        stream_window: 2 << 20,
        idle_timeout: Duration::from_secs(30),
        timer_slack: Duration::ZERO,
    }
}

type Schedule = std::iter::Peekable<Box<dyn Iterator<Item = Event>>>;

impl Run {
    fn schedule(&self) -> Schedule {
        let options = &self.options;
        let Some(sessions) = options.sessions.clone() else {
            let join = |n| {
                let zone = u16::try_from(n % u64::from(options.zones.max(1))).unwrap_or(0);
                Event { at: Duration::ZERO, change: Change::Join { member: Member(n), zone } }
            };
            let all: Vec<Event> = (0..u64::from(options.relays)).map(join).collect();
            let all: Box<dyn Iterator<Item = Event>> = Box::new(all.into_iter());
            return all.peekable();
        };
        let crowd = Crowd { at: options.duration / 2, relays: options.crowd, within: Duration::from_secs(1) };
        let config = Config {
            sessions,
            size: options.relays,
            arrivals: options.arrivals,
            graceful: options.graceful,
            zones: options.zones,
            zone_failures: options.zone_failures,
            crowd: (options.crowd > 0).then_some(crowd),
        };
        let churn: Box<dyn Iterator<Item = Event>> =
            Box::new(Churn::new(config, StdRng::seed_from_u64(options.seed)));
        churn.peekable()
    }

    /// Those who are there at the start, and the endpoints.
    fn populate(&mut self, schedule: &mut Schedule) {
        while let Some(event) = schedule.next_if(|event| event.at.is_zero()) {
            self.change(event.change);
        }
        let endpoints = self.options.flows.div_ceil(self.options.flows_per_endpoint).max(1) * 2;
        for n in 0..endpoints {
            let index = self.world.add(Blueprint::Endpoint, Skew::default());
            self.world.start(index);
            if n % 2 == 1 {
                self.serve(index);
            }
        }
        self.world.run_until(START + WARM_UP);
    }

    fn serve(&mut self, target: NodeIndex) {
        self.world.with(target, |role, now, actions| {
            if let Role::Endpoint(endpoint) = role {
                endpoint.serve(vec![format!("t{target}")], now, actions);
            }
        });
    }

    /// All flows open within a while; each sends a message now and then.
    fn open(&mut self) {
        let mut dice = Dice::new(self.options.seed, 200);
        let first =
            self.world.nodes.len() - self.options.flows.div_ceil(self.options.flows_per_endpoint).max(1) * 2;
        let options = self.options.clone();
        let period = u64::try_from(options.every.as_micros()).unwrap_or(u64::MAX).max(1);
        for n in 0..options.flows {
            let origin = first + n / options.flows_per_endpoint * 2;
            // Each target serves flows of several origins.
            let pairs = options.flows.div_ceil(options.flows_per_endpoint);
            let target =
                first + (n / options.flows_per_endpoint + n % options.flows_per_endpoint) % pairs * 2 + 1;
            let rounds = u64::try_from(options.duration.as_micros()).unwrap_or(0) / period;
            let step = Step { when: When::After(options.every), bytes: options.message_bytes };
            let talks = Script { steps: vec![step], rounds, reader: Reader::Eager };
            let within = period.max(u64::try_from(OPENING.as_micros()).unwrap_or(0));
            let opens = WARM_UP + Duration::from_micros(dice.below(within));
            let plan = FlowPlan {
                origin,
                target,
                name: format!("t{target}"),
                hops: options.hops,
                opens,
                scripts: [talks, Script::silent(Reader::Eager)],
                abort: None,
                kind: "messages",
            };
            let app = self.world.apps.add(App::new(plan, options.seed ^ (n as u64) << 32));
            self.world.plan_app(app, START + opens);
        }
    }

    /// Joins and departures begin when flows do.
    fn follow(&mut self, mut schedule: Schedule, mut progress: impl FnMut(f64)) {
        let begin = START + WARM_UP;
        let every = self.options.duration / SAMPLES;
        for n in 1..=SAMPLES {
            let end = begin + every * n;
            while let Some(event) = schedule.next_if(|event| begin + event.at <= end) {
                self.run_until(begin + event.at);
                self.change(event.change);
            }
            self.run_until(end);
            if n == SAMPLES / 2 {
                self.die_together();
            }
            self.sample(every);
            progress(f64::from(n) / f64::from(SAMPLES));
        }
    }

    fn run_until(&mut self, at: Time) {
        while let Some((due, node)) = self.leaving.front().copied().filter(|(due, _)| *due <= at) {
            self.leaving.pop_front();
            self.world.run_until(due);
            self.world.finish(node);
            self.gone.push_back((due, node));
        }
        self.world.run_until(at);
    }

    fn change(&mut self, change: Change) {
        match change {
            Change::Join { member, zone } => {
                let capacity = u32::try_from(self.options.flows).unwrap_or(u32::MAX).max(100);
                let blueprint = Blueprint::Relay { zone, capacity };
                let now = self.world.now;
                let back = self.gone.front().copied().filter(|(at, _)| now.since(*at) >= BACK_AFTER);
                let index = match back {
                    Some((_, index)) => {
                        self.gone.pop_front();
                        self.world.nodes.at_mut(index).blueprint = blueprint;
                        index
                    }
                    None => self.world.add(blueprint, Skew::default()),
                };
                self.members.insert(member, index);
                self.world.start(index);
                self.report.joined += 1;
            }
            Change::Leave { member, how } => {
                let Some(index) = self.members.remove(&member) else { return };
                let now = self.world.now;
                self.report.left += 1;
                if how == Leave::Graceful {
                    self.world.leave(index);
                    self.leaving.push_back((now + LAST_WORDS, index));
                } else {
                    self.world.crash(index);
                    self.gone.push_back((now, index));
                }
            }
        }
    }

    fn die_together(&mut self) {
        let living: Vec<Member> = self.members.keys().copied().collect();
        let victims = Dice::new(self.options.seed, 201).some(&living, self.options.deaths);
        let begin = self.world.now;
        for (member, n) in victims.iter().zip(0u32..) {
            self.run_until(begin + DYING * n / u32::try_from(victims.len()).unwrap_or(u32::MAX));
            self.change(Change::Leave { member: *member, how: Leave::Crash });
        }
    }

    fn sample(&mut self, every: Duration) {
        let mut loads = Vec::with_capacity(self.members.len());
        for index in self.members.values() {
            if let Some(role) = &mut self.world.nodes.at_mut(*index).role {
                loads.push(u32::try_from(role.flows().len()).unwrap_or(u32::MAX));
            }
        }
        let sample = Sample {
            at: self.world.elapsed().saturating_sub(WARM_UP),
            every,
            living: loads.len(),
            fairness: crate::statistics::jain(&loads),
            most_loaded: loads.iter().copied().max().unwrap_or(0),
            ..Sample::default()
        };
        self.report.sample(sample, &self.world);
    }

    fn conclude(mut self) -> Report {
        let now = self.world.now;
        self.run_until(now + LEFT_OVER);
        self.report.conclude(&self.world);
        self.report
    }
}
