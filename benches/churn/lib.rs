//! How relays come and go: the schedule that simulations and benchmarks follow.
//!
//! [`Churn`] is an iterator over joins and departures in the order of their times. It draws everything from the generator
//! that it is given, so a seed gives one schedule, in virtual time and in a real run alike. It knows nothing of relays but
//! their numbers and zones, and nothing of what becomes of flows.
//!
//! At the start the pool is in its steady state: whoever is there has been there for some time, so what is left of its
//! session is drawn, not a fresh session ([`Model::residual`]). Sessions have a bound ([`LONGEST_MEDIANS`]), so every
//! model has a mean, and Poisson arrivals at size / mean keep the pool at its size on average (Little's law).

mod model;
mod spec;
mod trace;

pub use model::{Family, LONGEST_MEDIANS, MEDIANS, Model, ModelError, SHAPES};
pub use spec::{LoadError, Spec, SpecError, parse_duration};
pub use trace::{LineError, MAX_LINE_BYTES, MAX_SECONDS, MAX_SESSIONS, Stay, Trace, TraceError};

use rand::{Rng, RngExt};
use rand_distr::{Distribution, Exp1};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::time::Duration;

/// How long relays stay.
#[derive(Clone, Debug, PartialEq)]
pub enum Sessions {
    /// As a distribution says.
    Model(Model),
    /// As somebody measured. The trace also says when relays come, and how many there are.
    Trace(Trace),
}

/// When relays come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrivals {
    /// A Poisson process that keeps the pool at its size on average. The size then varies as its square root does.
    Poisson,
    /// One for each that left, at once: the pool always has its size (how Bamboo was tested).
    Replace,
}

/// Whole zones that fail now and then: all their relays at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ZoneFailures {
    /// The mean time from one to the next, of any zone; they come as a Poisson process.
    pub every: Duration,
    /// How long a zone is down. Then as many relays as it lost join in it.
    pub outage: Duration,
}

/// Many relays that join at once, on top of those that keep the pool at its size. No one replaces them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crowd {
    /// When it begins.
    pub at: Duration,
    /// The relays.
    pub relays: u32,
    /// How long it takes until all have joined; their times are uniform in it.
    pub within: Duration,
}

/// What a [`Churn`] follows.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// How long relays stay.
    pub sessions: Sessions,
    /// Relays in the pool; a trace has its own number.
    pub size: u32,
    /// When relays come; a trace has its own times.
    pub arrivals: Arrivals,
    /// The share of those whose session ends that leave in order; the others die.
    pub graceful: f64,
    /// Zones that relays are in, at least one, each as likely as any other.
    pub zones: u16,
    /// Whether zones fail.
    pub zone_failures: Option<ZoneFailures>,
    /// Whether many join at once.
    pub crowd: Option<Crowd>,
}

/// A relay's number, never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Member(pub u64);

/// How a relay leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Leave {
    /// Its process dies.
    Crash,
    /// It moves its flows away, says goodbye and ends.
    Graceful,
    /// It dies with its whole zone.
    ZoneFailure,
}

/// Something happens to the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A relay joins.
    Join {
        /// Who.
        member: Member,
        /// Where.
        zone: u16,
    },
    /// A relay leaves.
    Leave {
        /// Who.
        member: Member,
        /// How.
        how: Leave,
    },
}

/// A [`Change`] and its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Since the start.
    pub at: Duration,
    /// What happens.
    pub change: Change,
}

/// What is to come, in the order of time and of being planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Plan {
    /// In this zone, or anywhere.
    Join {
        zone: Option<u16>,
        left: Option<Duration>,
        extra: bool,
    },
    Leave(Member),
    Arrive,
    ZoneFails,
    ZoneReturns {
        zone: u16,
        relays: usize,
    },
}

/// Where a member is.
#[derive(Clone, Copy, Debug)]
struct Place {
    zone: u16,
    /// Nobody takes its place.
    extra: bool,
}

/// The schedule of a pool: joins and departures in the order of their times, for ever, or to the end of a trace.
#[derive(Clone, Debug)]
pub struct Churn<R> {
    config: Config,
    rng: R,
    plans: BinaryHeap<Reverse<(Duration, u64, Plan)>>,
    planned: u64,
    joined: u64,
    members: HashMap<Member, Place>,
    /// For each zone how many failures it is down with.
    down: Vec<u32>,
    ready: VecDeque<Event>,
}

impl<R: Rng> Churn<R> {
    /// The schedule that `config` and the state of `rng` lead to. The relays that are there at the start join at zero.
    pub fn new(config: Config, rng: R) -> Self {
        let mut churn = Self {
            down: vec![0; usize::from(config.zones.max(1))],
            config,
            rng,
            plans: BinaryHeap::new(),
            planned: 0,
            joined: 0,
            members: HashMap::new(),
            ready: VecDeque::new(),
        };
        churn.start();
        churn
    }

    fn start(&mut self) {
        match self.config.sessions.clone() {
            Sessions::Model(model) => {
                for _ in 0..self.config.size {
                    let left = Some(model.residual(&mut self.rng));
                    self.plan(Duration::ZERO, Plan::Join { zone: None, left, extra: false });
                }
                if self.config.arrivals == Arrivals::Poisson {
                    self.plan_arrival(Duration::ZERO);
                }
            }
            Sessions::Trace(trace) => {
                for stay in trace.stays() {
                    let left = stay.left.map(|left| left.saturating_sub(stay.joined));
                    self.plan(stay.joined, Plan::Join { zone: None, left, extra: true });
                }
            }
        }
        if let Some(failures) = self.config.zone_failures {
            let wait = self.wait(failures.every);
            self.plan(wait, Plan::ZoneFails);
        }
        if let Some(crowd) = self.config.crowd {
            for _ in 0..crowd.relays {
                let at = crowd.at + crowd.within.mul_f64(self.rng.random());
                let left = self.fresh();
                self.plan(at, Plan::Join { zone: None, left, extra: true });
            }
        }
    }

    fn plan(&mut self, at: Duration, plan: Plan) {
        self.plans.push(Reverse((at, self.planned, plan)));
        self.planned += 1;
    }

    fn plan_arrival(&mut self, now: Duration) {
        let Sessions::Model(model) = &self.config.sessions else { return };
        if self.config.size == 0 {
            return;
        }
        let wait = self.wait(model.mean() / self.config.size);
        self.plan(now + wait, Plan::Arrive);
    }

    /// A time between two events of a Poisson process. Never zero, so that time goes on.
    fn wait(&mut self, mean: Duration) -> Duration {
        let share: f64 = Exp1.sample(&mut self.rng);
        Duration::try_from_secs_f64(mean.as_secs_f64() * share)
            .unwrap_or(Duration::MAX / 4)
            .clamp(Duration::from_nanos(1), Duration::MAX / 4)
    }

    /// A whole session; `None` for one without end.
    fn fresh(&mut self) -> Option<Duration> {
        match &self.config.sessions {
            Sessions::Model(model) => Some(model.session(&mut self.rng)),
            // Those who come on top of a trace stay.
            Sessions::Trace(_) => None,
        }
    }

    fn carry_out(&mut self, now: Duration, plan: Plan) {
        match plan {
            Plan::Join { zone, left, extra } => self.join(now, zone, left, extra),
            Plan::Leave(member) => self.leave(now, member),
            Plan::Arrive => {
                let left = self.fresh();
                // A member of a pool that others keep at its size is not replaced either.
                self.join(now, None, left, true);
                self.plan_arrival(now);
            }
            Plan::ZoneFails => self.zone_fails(now),
            Plan::ZoneReturns { zone, relays } => self.zone_returns(now, zone, relays),
        }
    }

    fn join(&mut self, now: Duration, zone: Option<u16>, left: Option<Duration>, extra: bool) {
        let zone = zone.unwrap_or_else(|| self.pick_zone());
        let member = Member(self.joined);
        self.joined += 1;
        self.members.insert(member, Place { zone, extra });
        self.ready.push_back(Event { at: now, change: Change::Join { member, zone } });
        if let Some(left) = left {
            self.plan(now.saturating_add(left), Plan::Leave(member));
        }
    }

    /// A zone that is not down; any, if all are.
    fn pick_zone(&mut self) -> u16 {
        let up: Vec<u16> =
            (0..).zip(&self.down).filter(|(_, down)| **down == 0).map(|(zone, _)| zone).collect();
        let all = self.config.zones.max(1);
        match up.len() {
            0 => self.rng.random_range(0..all),
            count => up.get(self.rng.random_range(0..count)).copied().unwrap_or(0),
        }
    }

    fn leave(&mut self, now: Duration, member: Member) {
        // It may have died with its zone before.
        let Some(place) = self.members.remove(&member) else { return };
        let how = if self.rng.random_bool(self.config.graceful.clamp(0.0, 1.0)) {
            Leave::Graceful
        } else {
            Leave::Crash
        };
        self.ready.push_back(Event { at: now, change: Change::Leave { member, how } });
        if self.config.arrivals == Arrivals::Replace && !place.extra {
            let left = self.fresh();
            self.join(now, None, left, false);
        }
    }

    fn zone_fails(&mut self, now: Duration) {
        let Some(failures) = self.config.zone_failures else { return };
        let wait = self.wait(failures.every);
        self.plan(now + wait, Plan::ZoneFails);
        let zone = self.rng.random_range(0..self.config.zones.max(1));
        let mut lost: Vec<Member> =
            self.members.iter().filter(|(_, at)| at.zone == zone).map(|(id, _)| *id).collect();
        lost.sort();
        for member in &lost {
            self.members.remove(member);
            let change = Change::Leave { member: *member, how: Leave::ZoneFailure };
            self.ready.push_back(Event { at: now, change });
        }
        if let Some(down) = self.down.get_mut(usize::from(zone)) {
            *down += 1;
        }
        self.plan(now + failures.outage, Plan::ZoneReturns { zone, relays: lost.len() });
    }

    /// The relays return as other members, each with what a session has left at a random moment.
    fn zone_returns(&mut self, now: Duration, zone: u16, relays: usize) {
        if let Some(down) = self.down.get_mut(usize::from(zone)) {
            *down = down.saturating_sub(1);
        }
        let extra = self.config.arrivals == Arrivals::Poisson;
        for _ in 0..relays {
            let left = match &self.config.sessions {
                Sessions::Model(model) => Some(model.residual(&mut self.rng)),
                Sessions::Trace(_) => None,
            };
            self.join(now, Some(zone), left, extra);
        }
    }
}

impl<R: Rng> Iterator for Churn<R> {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        while self.ready.is_empty() {
            let Reverse((at, _, plan)) = self.plans.pop()?;
            self.carry_out(at, plan);
        }
        self.ready.pop_front()
    }
}

/// A time that is `by` times as short.
fn divide(time: Duration, by: f64) -> Duration {
    Duration::try_from_secs_f64(time.as_secs_f64() / by).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests;
