//! One run: chaos, then peace without faults, and what is left afterwards.

use super::actions::Action;
use super::faults::{Kind, kinds};
use super::world::{LONGEST_WAIT, ORIGIN, World};
use crate::swarm::{Outcome, Trim};
use hopline_proto::frame::CloseCode;

/// Steps without a fault after which repairs must have settled, while the applications send nothing.
const SETTLED_STEPS: usize = 6_000;
/// Dials, or legs replaced, in that time that explain why they have not.
const MANY: u64 = 20;
/// Steps without a fault after which everything must be delivered, without help by the origin.
const PEACE_STEPS: usize = 15_000;
/// As it is counted.
const ORPHANS: &str = "nodes freed by their orphan timer";

/// Runs a world to its end.
pub(super) fn play(mut world: World, trim: &Trim) -> Outcome {
    let kinds = kinds(&mut world.dice);
    let mut run = Run { world, actions: Vec::new(), idle: 0 };
    run.chaos(&kinds, trim);
    let healed = run.world.elapsed();
    run.peace();
    let settled = run.world.elapsed() - healed;
    run.aftermath();
    let mut world = run.world;
    Outcome {
        hash: world.dice.next(),
        simulated: world.elapsed(),
        settled,
        failure: world.failure,
        counts: world.counts,
        ..Outcome::default()
    }
}

struct Run {
    world: World,
    /// What can happen next; kept for its memory.
    actions: Vec<Action>,
    /// Steps since anything could.
    idle: usize,
}

impl Run {
    /// Takes a step. `false` if nothing will happen any more.
    fn step(&mut self) -> bool {
        self.world.actions(&mut self.actions);
        self.world.now += 1;
        let Some(action) = self.world.dice.pick(&self.actions) else {
            self.idle += 1;
            return self.idle < LONGEST_WAIT;
        };
        self.idle = 0;
        self.world.perform(action);
        self.world.check(action.0);
        true
    }

    /// Whether the flow is done, or a law is broken.
    fn is_over(&self) -> bool {
        let world = &self.world;
        let target_done = world.nodes[world.target()].tombstone || world.origin_left;
        world.failure.is_some() || (world.is_delivered() && target_done)
    }

    /// Faults come at random while the flow is used.
    fn chaos(&mut self, kinds: &[Kind], trim: &Trim) {
        let faults = self.world.faults;
        let steps = 80 + 30 * self.world.hops.len() + 12 * faults;
        let mut struck = 0;
        for _ in 0..steps {
            if self.world.failure.is_some() {
                return;
            }
            if struck < faults && self.world.dice.one_in(steps / (faults + 1)) {
                let kind = self.world.dice.one_of(kinds);
                if !trim.ordeals.contains(&struck) {
                    self.world.fault(kind);
                }
                struck += 1;
            }
            if !self.step() && struck == faults {
                return;
            }
        }
    }

    /// No more faults. Repairs must settle while the applications send nothing, then everything must be delivered.
    fn peace(&mut self) {
        let world = &mut self.world;
        world.note(format_args!("no more faults; the applications rest until repairs have settled"));
        world.relays().for_each(|relay| world.nodes[relay].frozen = false);
        world.hush = true;
        self.idle = 0;
        let from = world.now;
        let before = ["legs replaced by a greater epoch", "dials"].map(|event| (event, world.counted(event)));
        while !self.is_over() && self.world.now - from < PEACE_STEPS {
            if self.world.hush && self.world.now - from > SETTLED_STEPS {
                break;
            }
            if !self.step() && !std::mem::take(&mut self.world.hush) {
                break;
            }
        }
        if self.is_over() {
            self.world.hush = false;
            return;
        }
        let since = before.map(|(event, before)| self.world.counted(event) - before);
        let checker = match since {
            _ if !self.world.hush && self.world.is_delivered() => "completion: target",
            // Law 4: paths replace each other for ever.
            [replaced, _] if replaced >= MANY => "steal war",
            // Law 5: nodes dial for ever.
            [_, dials] if dials >= MANY => "livelock",
            _ => "completion: stuck",
        };
        let [replaced, dials] = since;
        self.world
            .fail(checker, format_args!("{dials} dials and {replaced} replaced legs after the last fault"));
    }

    /// `Done` travels to whoever still holds the flow; orphan timers free the rest.
    fn aftermath(&mut self) {
        if self.world.failure.is_some() {
            return;
        }
        self.settle();
        for _ in 0..self.world.hops.len() {
            if self.free_orphans() {
                self.settle();
            }
        }
        let world = &mut self.world;
        if world.nodes[ORIGIN].splice.is_some() {
            world.fail("completion: stuck", format_args!("the origin never learns that the flow is done"));
        }
        if let Some(node) = world.nodes.iter().position(|node| node.splice.is_some()) {
            world.fail("leaks", format_args!("{} holds the flow", world.name(node)));
        }
        if let Some(leg) = world.live.iter().find(|leg| world.legs[**leg].dropped != [true; 2]).copied() {
            world.fail("leaks", format_args!("leg {leg} is open"));
        }
    }

    fn settle(&mut self) {
        self.idle = 0;
        for _ in 0..PEACE_STEPS {
            if self.world.failure.is_some() || !self.step() {
                return;
            }
        }
    }

    /// The orphan timers of all nodes that nobody is attached to run out. Whether there were any.
    fn free_orphans(&mut self) -> bool {
        let world = &mut self.world;
        let before = world.counted(ORPHANS);
        for node in 1..world.nodes.len() {
            let orphaned = world.nodes[node].splice.as_ref().is_some_and(|splice| splice.prev().is_none());
            let is_target = node == world.target();
            if world.failure.is_none() && orphaned && (!is_target || world.origin_left) {
                world.note(format_args!("the orphan timer of {} runs out", world.name(node)));
                world.count(ORPHANS);
                world.free(node, CloseCode::Lost, CloseCode::Lost);
                world.nodes[node].tombstone = is_target;
            }
        }
        world.counted(ORPHANS) > before
    }
}
