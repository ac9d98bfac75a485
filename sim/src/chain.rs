//! The smallest scenario: one flow, echoed by its target, while each hop loses its relay.

use crate::world::{NodeIndex, World};
use bytes::Bytes;
use hopline::proto::clerk::ClerkConfig;
use hopline::proto::endpoint::{Destination, Endpoint};
use hopline::proto::flows::{FlowKey, Flows, FlowsConfig};
use hopline::proto::frame::CloseCode;
use hopline::proto::machine::{Action, Event, Machine, Notice};
use hopline::proto::relay::Relay;
use hopline::proto::rpc::Offer;
use hopline::proto::{FlowId, NodeId, Time};
use rand::RngExt;
use std::fmt;
use std::time::Duration;

/// A relay or an endpoint.
pub(crate) enum Role {
    /// A relay.
    Relay(Box<Relay>),
    /// An endpoint.
    Endpoint(Box<Endpoint>),
}

impl Machine for Role {
    fn handle(&mut self, event: Event, now: Time, actions: &mut Vec<Action>) {
        match self {
            Self::Relay(relay) => relay.handle(event, now, actions),
            Self::Endpoint(endpoint) => endpoint.handle(event, now, actions),
        }
    }

    fn handle_timeout(&mut self, now: Time, actions: &mut Vec<Action>) {
        match self {
            Self::Relay(relay) => relay.handle_timeout(now, actions),
            Self::Endpoint(endpoint) => endpoint.handle_timeout(now, actions),
        }
    }

    fn poll_timeout(&self) -> Option<Time> {
        match self {
            Self::Relay(relay) => relay.poll_timeout(),
            Self::Endpoint(endpoint) => endpoint.poll_timeout(),
        }
    }

    fn flows(&mut self) -> &mut Flows {
        match self {
            Self::Relay(relay) => relay.flows(),
            Self::Endpoint(endpoint) => endpoint.flows(),
        }
    }
}

/// One flow over three hops; every 100 ms the relay that carries it at the next hop is killed.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    seed: u64,
    relays: u8,
    kills: u8,
    bytes: u64,
    bootstrap_dies: bool,
    /// The longest that a relay is stopped for; none is if zero.
    freezes: Duration,
    traced: bool,
}

/// What came of a run.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    sent: u64,
    returned: u64,
    corrupt: bool,
    killed: u8,
    rerouted: usize,
    worst_gap: Duration,
    ended: Option<CloseCode>,
    leaked: usize,
    took: Duration,
}

impl Outcome {
    /// Whether every byte came back, the flow ended well, and no relay holds anything of it.
    #[must_use]
    pub fn is_good(&self) -> bool {
        let complete = self.returned == self.sent && !self.corrupt;
        complete && self.ended == Some(CloseCode::Done) && self.leaked == 0
    }

    /// How many relays were killed while they carried the flow.
    #[must_use]
    pub const fn killed(&self) -> u8 {
        self.killed
    }

    /// The longest that the origin's application waited for bytes that were under way.
    #[must_use]
    pub const fn worst_gap(&self) -> Duration {
        self.worst_gap
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sent, returned, corrupt, killed, rerouted, worst_gap, ended, leaked, took } = self;
        let (gap, took) = (worst_gap.as_secs_f64() * 1000.0, took.as_secs_f64());
        write!(
            f,
            "sent {sent}, returned {returned}, corrupt {corrupt}, killed {killed}, rerouted {rerouted}, worst gap \
             {gap:.1} ms, ended {ended:?}, leaked {leaked}, {took:.3} s"
        )
    }
}

const CHUNK: u64 = 4096;
/// How fast the origin's application sends.
const BYTES_A_MICROSECOND: u64 = 4;
const BETWEEN_KILLS: Duration = Duration::from_millis(100);
const TIME_LIMIT: Duration = Duration::from_secs(60);

/// The byte at an offset.
const fn pattern(offset: u64) -> u8 {
    (offset % 251) as u8
}

struct Run {
    world: World<Role>,
    origin: NodeIndex,
    target: NodeIndex,
    outcome: Outcome,
    next_hop: u8,
    /// The longest freeze.
    frozen: Duration,
    /// When the origin's application last got something, or sent something while nothing was under way.
    heard: Time,
    seen: u64,
}

impl Scenario {
    /// The scenario as it is run by default.
    #[must_use]
    pub const fn with_seed(seed: u64) -> Self {
        Self {
            seed,
            relays: 12,
            kills: 6,
            bytes: 4 << 20,
            bootstrap_dies: false,
            freezes: Duration::ZERO,
            traced: false,
        }
    }

    /// The bootstrap answers nothing once the flow is open; each hop loses one relay.
    #[must_use]
    pub const fn without_bootstrap(self) -> Self {
        Self { kills: 3, bootstrap_dies: true, ..self }
    }

    /// No relay dies; one after the other is stopped for a while, in a pool that has nobody to spare.
    #[must_use]
    pub const fn with_freezes(self, relays: u8, longest: Duration) -> Self {
        Self { relays, kills: 10, bytes: 60 << 20, freezes: longest, ..self }
    }

    /// The same, with its timeline on standard output.
    #[must_use]
    pub const fn traced(self) -> Self {
        Self { traced: true, ..self }
    }

    /// Runs it to its end.
    #[must_use]
    pub fn run(self) -> Outcome {
        let mut run = self.set_up();
        run.until(|run| run.noticed(run.target, |n| matches!(n, Notice::Enrolled)));
        let flow = FlowId::random(&mut run.world.rng);
        let to = Destination { name: "echo".to_owned(), hops: 3 };
        run.with_endpoint(run.origin, |endpoint, _, actions| endpoint.open(flow, to, actions));
        run.until(|run| run.noticed(run.origin, |n| matches!(n, Notice::Opened { .. })));
        run.world.bootstrap_answers = !self.bootstrap_dies;
        let Some(key) = run.opened() else { return run.outcome };
        let start = run.world.now;
        let mut next_kill = start + BETWEEN_KILLS;
        let mut freezes = 0;
        while run.world.now.since(start) < TIME_LIMIT && run.outcome.ended.is_none() {
            if !self.freezes.is_zero() && run.world.now >= next_kill && freezes < self.kills {
                let relay = run.world.rng.random_range(0..usize::from(self.relays));
                let pause = self.freezes * run.world.rng.random_range(15..=100) / 100;
                run.world.freeze(relay, pause);
                run.frozen = run.frozen.max(pause);
                freezes += 1;
                next_kill = run.world.now + pause + Duration::from_secs(1);
            }
            run.feed(key, self.bytes, start);
            run.echo();
            run.take(key);
            run.measure();
            if self.freezes.is_zero()
                && run.world.now >= next_kill
                && run.outcome.killed < self.kills
                && run.kill(key)
            {
                next_kill = run.world.now + BETWEEN_KILLS;
            }
            if !run.world.step() {
                break;
            }
        }
        run.conclude(start)
    }

    fn set_up(self) -> Run {
        let mut world = World::new(self.seed);
        if self.traced {
            world.trace.start();
        }
        for n in 0..self.relays {
            let id = NodeId::from_bytes(world.rng.random());
            let clerk =
                ClerkConfig { name: format!("r{n}"), seed: world.rng.random(), ..ClerkConfig::default() };
            let address = ([10, 0, n, 1], 1).into();
            let offer = Offer::Relay { address, zone: String::new(), capacity: 100 };
            let relay = Relay::new(id, FlowsConfig::default(), clerk, offer);
            let index = world.add(id, &format!("r{n}"), Role::Relay(Box::new(relay)));
            world.with(index, |role, now, actions| {
                if let Role::Relay(relay) = role {
                    relay.start(now, actions);
                }
            });
        }
        let [origin, target] = ["origin", "target"].map(|name| {
            let id = NodeId::from_bytes(world.rng.random());
            let clerk =
                ClerkConfig { name: name.to_owned(), seed: world.rng.random(), ..ClerkConfig::default() };
            world.add(id, name, Role::Endpoint(Box::new(Endpoint::new(id, FlowsConfig::default(), clerk))))
        });
        let mut run = Run {
            world,
            origin,
            target,
            outcome: Outcome::default(),
            next_hop: 1,
            frozen: Duration::ZERO,
            heard: Time::ZERO,
            seen: 0,
        };
        let settled = run.world.now + Duration::from_millis(10);
        run.until(|run| run.world.now >= settled);
        run.with_endpoint(target, |endpoint, now, actions| {
            endpoint.serve(vec!["echo".to_owned()], now, actions)
        });
        run
    }
}

impl Run {
    fn until(&mut self, done: impl Fn(&Self) -> bool) {
        let limit = self.world.now + TIME_LIMIT;
        while !done(self) && self.world.now < limit && self.world.step() {}
    }

    fn noticed(&self, node: NodeIndex, what: impl Fn(&Notice) -> bool) -> bool {
        self.world.nodes.get(node).is_some_and(|node| node.notices.iter().any(what))
    }

    fn with_endpoint(&mut self, node: NodeIndex, f: impl FnOnce(&mut Endpoint, Time, &mut Vec<Action>)) {
        self.world.with(node, |role, now, actions| {
            if let Role::Endpoint(endpoint) = role {
                f(endpoint, now, actions);
            }
        });
    }

    fn opened(&self) -> Option<FlowKey> {
        self.world
            .nodes
            .get(self.origin)?
            .notices
            .iter()
            .find_map(|notice| if let Notice::Opened { flow, .. } = notice { Some(*flow) } else { None })
    }

    /// The origin's application sends at a steady rate, so that every kill hits a flow under way.
    fn feed(&mut self, key: FlowKey, total: u64, start: Time) {
        let Outcome { sent, .. } = &mut self.outcome;
        let (mut at, now) = (*sent, self.world.now);
        let due = u64::try_from(now.since(start).as_micros())
            .unwrap_or(u64::MAX)
            .saturating_mul(BYTES_A_MICROSECOND);
        self.world.with(self.origin, |role, now, actions| {
            while at < total.min(due) && role.flows().may_send(&key).is_some_and(|(room, _)| room) {
                let end = (at + CHUNK).min(total);
                let bytes: Vec<u8> = (at..end).map(pattern).collect();
                role.flows().send(key, Bytes::from(bytes), actions).expect("the origin may send");
                at = end;
                if at == total {
                    role.flows().finish(key, now, actions);
                }
            }
        });
        *sent = at;
    }

    /// The target's application returns what comes.
    fn echo(&mut self) {
        let accepted = self.world.nodes.get(self.target).and_then(|node| {
            node.notices
                .iter()
                .find_map(|n| if let Notice::Accepted { flow } = n { Some(*flow) } else { None })
        });
        let Some(key) = accepted else { return };
        self.world.with(self.target, |role, now, actions| {
            while role.flows().may_send(&key).is_some_and(|(room, _)| room) {
                let Some((_, chunks, ended)) = role.flows().to_take(&key) else { return };
                let Some(chunk) = chunks.into_iter().next() else {
                    if ended {
                        role.flows().took(key, 0, now, actions);
                        role.flows().finish(key, now, actions);
                    }
                    return;
                };
                role.flows().took(key, chunk.len(), now, actions);
                role.flows().send(key, chunk, actions).expect("the target may send");
            }
        });
    }

    /// A gap ends when something comes back, and none begins while nothing is under way.
    fn measure(&mut self) {
        let Outcome { sent, returned, worst_gap, .. } = &mut self.outcome;
        let now = self.world.now;
        if *returned > self.seen {
            *worst_gap = (*worst_gap).max(now.since(self.heard));
        }
        if *returned > self.seen || sent == returned {
            (self.seen, self.heard) = (*returned, now);
        }
    }

    /// The origin's application takes what came back.
    fn take(&mut self, key: FlowKey) {
        let Outcome { returned, corrupt, .. } = &mut self.outcome;
        self.world.with(self.origin, |role, now, actions| {
            while let Some((_, chunks, ended)) = role.flows().to_take(&key) {
                let count: usize = chunks.iter().map(Bytes::len).sum();
                for byte in chunks.iter().flatten() {
                    *corrupt |= *byte != pattern(*returned);
                    *returned += 1;
                }
                if count > 0 || ended {
                    role.flows().took(key, count, now, actions);
                }
                if count == 0 {
                    return;
                }
            }
        });
        let notices = self.world.nodes.get(self.origin).map(|node| &node.notices);
        self.outcome.ended = notices
            .into_iter()
            .flatten()
            .find_map(|notice| if let Notice::Ended { code, .. } = notice { Some(*code) } else { None });
    }

    /// Kills the relay that carries the flow at the next hop in turn.
    fn kill(&mut self, key: FlowKey) -> bool {
        let carrying = FlowKey { hop: self.next_hop, ..key };
        let nodes = 0..self.world.nodes.len();
        let carrier = nodes.rev().find(|node| {
            let alive = self.world.is_alive(*node);
            let sim = self.world.nodes.get_mut(*node).filter(|_| alive);
            sim.is_some_and(|sim| {
                let splice = sim.machine.flows().splice(&carrying);
                splice.is_some_and(|splice| splice.prev().is_some() && splice.is_next_answered())
            })
        });
        let Some(carrier) = carrier else { return false };
        self.world.crash(carrier);
        self.outcome.killed += 1;
        self.next_hop = self.next_hop % 3 + 1;
        true
    }

    fn conclude(mut self, start: Time) -> Outcome {
        self.outcome.took = self.world.now.since(start);
        // A relay that missed the end keeps its part for as long as an orphan.
        let settled = self.world.now + FlowsConfig::default().orphan_timeout * 2;
        self.until(|run| run.world.now >= settled);
        let alive: Vec<NodeIndex> = (0..self.world.nodes.len()).filter(|n| self.world.is_alive(*n)).collect();
        for node in alive {
            self.outcome.leaked += self.world.nodes.get_mut(node).map_or(0, |sim| sim.machine.flows().len());
        }
        let notices = self.world.nodes.get(self.origin).map(|node| &node.notices);
        for notice in notices.into_iter().flatten() {
            self.outcome.rerouted += usize::from(matches!(notice, Notice::Rerouted { .. }));
        }
        self.outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hop_loses_its_relay_and_no_byte_is_lost() {
        for seed in 0..20 {
            let outcome = Scenario::with_seed(seed).run();
            assert!(outcome.is_good() && outcome.killed() == 6, "seed {seed}: {outcome}");
        }
    }

    /// With nobody to spare a flow waits for the relay that was stopped, and not much longer than that.
    #[test]
    fn a_stop_costs_its_own_time_at_most() {
        for seed in 0..5 {
            for (relays, longest) in [(3, 700), (5, 2000), (8, 5000)] {
                let longest = Duration::from_millis(longest);
                let outcome = Scenario::with_seed(seed).with_freezes(relays, longest).run();
                let in_time = outcome.worst_gap() < longest + Duration::from_millis(50);
                assert!(outcome.is_good() && in_time, "seed {seed}, {relays} relays: {outcome}");
            }
        }
    }

    #[test]
    fn the_bootstrap_is_not_needed_for_a_flow_that_is_open() {
        for seed in 0..20 {
            let outcome = Scenario::with_seed(seed).without_bootstrap().run();
            assert!(outcome.is_good() && outcome.killed() == 3, "seed {seed}: {outcome}");
        }
    }
}
