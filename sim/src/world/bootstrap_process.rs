//! The bootstrap: its machine, its process's life, and the way of questions to it and back.

use super::World;
use crate::dice::Dice;
use crate::fault::Found;
use crate::happening::Happening;
use crate::network::{BOOTSTRAP, NodeIndex, Way};
use crate::settings::{Fidelity, START};
use hopline_proto::bootstrap::kept::{Change, Key};
use hopline_proto::bootstrap::{Bootstrap, Config, Registration};
use hopline_proto::codec;
use hopline_proto::crypto;
use hopline_proto::machine::{AskFailure, AskId};
use hopline_proto::rpc::{Request, Response};
use hopline_proto::{NodeId, Time};
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a question may take.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a dial to a bootstrap that is down takes to fail.
const DIAL_TIMEOUT: Duration = Duration::from_secs(3);

/// See the module's documentation.
pub(crate) struct BootstrapProcess {
    pub(crate) bootstrap: Option<Bootstrap>,
    config: Config,
    secret: crypto::Key,
    seed: u64,
    lives: u64,
    /// What was stored and taken out, in this order: the disk.
    log: Vec<(Time, Change)>,
    armed: Option<Time>,
    /// Since when it has been up, or down.
    pub(crate) up_since: Time,
    down_since: Time,
}

impl BootstrapProcess {
    pub(crate) fn new(config: Config, secret: crypto::Key, seed: u64) -> Self {
        let mut new = Self {
            bootstrap: None,
            config,
            secret,
            seed,
            lives: 0,
            log: Vec::new(),
            down_since: START,
            armed: None,
            up_since: START,
        };
        new.start(START, Found::Nothing);
        new
    }

    /// Starts with what is found; returns what got its place back.
    fn start(&mut self, now: Time, found: Found) -> Vec<Key> {
        self.lives += 1;
        let rng = StdRng::seed_from_u64(self.seed ^ self.lives);
        let mut bootstrap = Bootstrap::new(self.config, self.secret.clone(), rng, now);
        let mut restored = Vec::new();
        self.log = self.disk(found).into_values().map(|kept| (now, Change::Put(kept))).collect();
        self.log.retain(|(_, change)| {
            let Change::Put(registration) = change else { return false };
            let has_place = bootstrap.restore(registration.clone(), now);
            restored.extend(has_place.then(|| Key::of(registration)));
            has_place
        });
        self.bootstrap = Some(bootstrap);
        (self.armed, self.up_since) = (None, now);
        restored
    }

    /// What is on the disk when the process starts again.
    fn disk(&self, found: Found) -> BTreeMap<Key, Registration> {
        let last = match found {
            Found::All | Found::Half(_) => self.down_since,
            Found::Older(age) => self.down_since - age,
            Found::Nothing => return BTreeMap::new(),
        };
        let mut disk = BTreeMap::new();
        for (_, change) in self.log.iter().filter(|(at, _)| *at <= last) {
            match change {
                Change::Put(registration) => drop(disk.insert(Key::of(registration), registration.clone())),
                Change::Remove(key) => drop(disk.remove(key)),
            }
        }
        if let Found::Half(seed) = found {
            let mut dice = Dice::new(seed, 1);
            disk.retain(|_, _| dice.percent(50));
        }
        disk
    }

    /// Keeps the disk in step with the machine, as the driver of a bootstrap does.
    fn keep(&mut self, changes: Vec<Change>, now: Time) {
        let Some(bootstrap) = &mut self.bootstrap else { return };
        let events = bootstrap.take_events();
        let lost = events.iter().filter_map(|event| bootstrap.lost(event)).map(Change::Remove);
        self.log.extend(changes.into_iter().chain(lost).map(|change| (now, change)));
    }
}

impl World {
    pub(crate) fn crash_bootstrap(&mut self) {
        if self.bootstrap_process.bootstrap.take().is_some() {
            self.bootstrap_process.down_since = self.now;
        }
        self.trace.remark(self.now, "the bootstrap is KILLED");
    }

    /// Starts the bootstrap again, with what it finds on its disk.
    pub(crate) fn start_bootstrap(&mut self, found: Found) {
        if self.bootstrap_process.bootstrap.is_none() {
            let restored = self.bootstrap_process.start(self.now, found);
            self.trace.remark(self.now, format_args!("the bootstrap is STARTED, finds {found:?}"));
            self.check_restored(&restored);
            self.arm_bootstrap();
        }
    }

    pub(super) fn ask(&mut self, node: NodeIndex, ask: AskId, request: Request, fresh: bool) {
        let life = self.nodes.at(node).life;
        let failure = |after, result| (after, Err(result));
        let open = self.network.way(node, BOOTSTRAP) == Way::Open;
        let (after, result) = match &self.bootstrap_process.bootstrap {
            Some(_) if open => {
                let mut way = self.network.travel(node, BOOTSTRAP, &mut self.dice);
                way += self.network.retransmissions(node, BOOTSTRAP, &mut self.dice);
                let handshake = if fresh { self.network.delay(node, BOOTSTRAP) * 2 } else { Duration::ZERO };
                let at = self.now + way + handshake;
                self.statistics.ask(&request, self.settings.fidelity);
                let request = Box::new(request);
                return self.schedule(at, Happening::Request { node, life, ask, request });
            }
            None if open => failure(DIAL_TIMEOUT, AskFailure::Unreachable),
            _ => failure(ASK_TIMEOUT, AskFailure::Timeout),
        };
        self.trace.ask(self.now, self.nodes.at(node).id, &request, &result);
        let result = Box::new(result);
        self.schedule(self.now + after, Happening::Answer { node, life, ask, result });
    }

    /// A question arrives.
    pub(super) fn request(&mut self, node: NodeIndex, life: u32, ask: AskId, request: Request) {
        let from = self.nodes.at(node).id;
        if self.is_full() {
            self.hash.bytes(&codec::to_bytes(&request));
        }
        if self.bootstrap_process.bootstrap.is_none() {
            let result = Box::new(Err(AskFailure::Unreachable));
            return self.schedule(self.now + DIAL_TIMEOUT, Happening::Answer { node, life, ask, result });
        }
        let kept = (self.trace.is_on() || self.checks.on).then(|| request.clone());
        let is_full = self.is_full();
        let Some(bootstrap) = &mut self.bootstrap_process.bootstrap else { return };
        let response = if is_full {
            let (response, changes) = bootstrap.answer_kept(from, request, self.now);
            self.bootstrap_process.keep(changes, self.now);
            response
        } else {
            let response = bootstrap.answer(from, request, self.now);
            drop(bootstrap.take_events());
            response
        };
        self.statistics.answer(&response, self.settings.fidelity);
        if self.is_full() {
            self.hash.bytes(&codec::to_bytes(&response));
        }
        let result = Ok(response);
        if let Some(request) = kept {
            self.check_answer(&request, &result);
            self.trace.ask(self.now, from, &request, &result);
        }
        self.arm_bootstrap();
        let (mut after, mut result) = (self.network.travel(BOOTSTRAP, node, &mut self.dice), result);
        if self.network.way(BOOTSTRAP, node) == Way::Open {
            after += self.network.retransmissions(BOOTSTRAP, node, &mut self.dice);
        } else {
            (after, result) = (ASK_TIMEOUT, Err(AskFailure::Timeout));
        }
        let result = Box::new(result);
        self.schedule(self.now + after, Happening::Answer { node, life, ask, result });
    }

    fn arm_bootstrap(&mut self) {
        let Some(due) = self.bootstrap_process.bootstrap.as_ref().and_then(Bootstrap::poll_timeout) else {
            return;
        };
        if self.bootstrap_process.armed.is_none_or(|armed| armed > due) {
            self.bootstrap_process.armed = Some(due);
            self.schedule(due, Happening::Bootstrap);
        }
    }

    pub(super) fn bootstrap_due(&mut self) {
        self.bootstrap_process.armed = None;
        if let Some(bootstrap) = &mut self.bootstrap_process.bootstrap
            && bootstrap.poll_timeout().is_some_and(|due| due <= self.now)
        {
            bootstrap.handle_timeout(self.now);
            if self.settings.fidelity == Fidelity::Full {
                self.bootstrap_process.keep(Vec::new(), self.now);
            } else {
                drop(bootstrap.take_events());
            }
        }
        self.arm_bootstrap();
    }

    fn check_answer(&mut self, request: &Request, result: &Result<Response, AskFailure>) {
        let Ok(response) = result else { return };
        let Some(bootstrap) = &self.bootstrap_process.bootstrap else { return };
        let may_stay = self.settings.bootstrap.pool.lease * 2;
        let up_for = self.now.since(self.bootstrap_process.up_since);
        let preserving = bootstrap.pool().preserving_since().is_some();
        let (index, nodes, now) = (&self.index, &self.nodes, self.now);
        let is_long_dead = |node: NodeId| {
            let node = index.get(&node).map(|index| nodes.at(*index)).filter(|node| !node.is_alive());
            !preserving && node.is_some_and(|node| now.since(node.since).min(up_for) > may_stay)
        };
        self.checks.answered(now, request, response, is_long_dead);
    }
}
