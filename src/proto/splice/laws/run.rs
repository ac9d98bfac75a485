//! One run: chaos, then peace without faults, help by the origin if that stalls, and what is left afterwards.

use super::actions::Action;
use super::coverage::{Coverage, Event};
use super::finding::{Check, Finding, Scope};
use super::leg::index;
use super::trace::Trace;
use super::world::{ORIGIN, World};
use crate::frame::CloseCode;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Steps without a fault after which repairs must have settled, while the applications send nothing.
const SETTLED_STEPS: u32 = 6_000;
/// Dials, or legs replaced, in that time that explain why they have not.
const MANY: u64 = 20;
/// Steps without a fault after which everything must be delivered.
const PEACE_STEPS: u32 = 15_000;
/// How often the origin rebuilds after a stall, and for how many steps each.
const REBUILDS: u32 = 10;
const REBUILD_STEPS: u32 = 2_000;

/// What a run came to.
#[derive(Default)]
pub(super) struct Outcome {
    pub(super) finding: Option<Finding>,
    pub(super) steps: u32,
    pub(super) coverage: Coverage,
    /// An orphan timer had to free some node.
    pub(super) timers: bool,
    /// It stalled until the origin rebuilt.
    pub(super) healed: bool,
}

/// Runs the world of `seed`. A panic is a finding.
pub(super) fn run(seed: u64, scope: Scope, trace: &Trace) -> Outcome {
    let told = trace.clone();
    catch_unwind(AssertUnwindSafe(|| Run::new(seed, scope, told).play())).unwrap_or_else(|panic| {
        let message = panic.downcast_ref::<String>().cloned();
        let detail = message.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
        let finding = Finding { check: Check::Panic, detail: detail.unwrap_or_default() };
        Outcome { finding: Some(finding), ..Outcome::default() }
    })
}

struct Run {
    world: World,
    faults: usize,
    /// What can happen next; kept for its memory.
    actions: Vec<Action>,
    /// A stall that has yet to show whether the origin can heal it.
    stall: Option<Finding>,
}

/// What became of a step.
#[derive(PartialEq, Eq)]
enum Step {
    Taken,
    /// Nothing can happen now, but later.
    Waited,
    /// Nothing will happen any more.
    Quiet,
}

impl Run {
    fn new(seed: u64, scope: Scope, trace: Trace) -> Self {
        let mut world = World::new(seed, scope, trace);
        let most = world.dice.pick(&[0, 3, 3, 6, 6, 20]);
        let faults = world.dice.within(0, most);
        Self { world, faults, actions: Vec::new(), stall: None }
    }

    fn play(mut self) -> Outcome {
        self.chaos();
        self.peace();
        let healed = self.stall.is_some() && self.rebuild();
        let timers = self.aftermath();
        Outcome {
            finding: self.world.finding.or(self.stall),
            steps: self.world.now,
            coverage: self.world.coverage,
            timers,
            healed,
        }
    }

    fn step(&mut self) -> Step {
        self.world.actions(&mut self.actions);
        self.world.now += 1;
        if self.actions.is_empty() {
            return if self.world.is_waiting() { Step::Waited } else { Step::Quiet };
        }
        let action = self.world.dice.pick(&self.actions);
        let node = self.world.perform(action);
        self.world.check(node);
        Step::Taken
    }

    /// Whether the flow is done, or its fate is known.
    fn is_over(&self) -> bool {
        let world = &self.world;
        let target_done = world.nodes[world.target()].tombstone || world.origin_left;
        world.finding.is_some() || (world.is_delivered() && target_done)
    }

    /// Faults come at random while the flow is used.
    fn chaos(&mut self) {
        let steps = 80 + 30 * self.world.hops.len() + 12 * self.faults;
        let mut left = self.faults;
        for _ in 0..steps {
            if self.world.finding.is_some() {
                return;
            }
            if left > 0 && self.world.dice.one_in(steps / (self.faults + 1)) {
                left -= 1;
                self.world.fault();
            }
            if self.step() == Step::Quiet && left == 0 {
                return;
            }
        }
    }

    /// No more faults. Repairs must settle while the applications send nothing, then everything must be delivered.
    fn peace(&mut self) {
        let from = Mark::of(&self.world);
        self.world.note(format_args!("## no more faults; the applications rest until repairs have settled"));
        for node in self.world.relays() {
            self.world.thaw(node);
        }
        self.world.hush = true;
        while !self.is_over() && self.world.now - from.step < PEACE_STEPS {
            if self.world.hush && self.world.now - from.step > SETTLED_STEPS {
                self.stalled(from.unrest(&self.world), &from);
                self.world.hush = false;
            }
            if self.step() == Step::Quiet && !std::mem::take(&mut self.world.hush) {
                break;
            }
        }
        self.world.hush = false;
        if !self.is_over() {
            let delivered = self.world.is_delivered();
            self.stalled(if delivered { Check::TargetLearns } else { Check::Stall }, &from);
        }
    }

    fn stalled(&mut self, check: Check, from: &Mark) {
        if self.world.finding.is_none() && self.stall.is_none() {
            let detail = from.since(&self.world);
            self.world.note(format_args!("!! {}: {detail}", check.failure()));
            self.stall = Some(Finding { check, detail });
        }
    }

    /// The origin takes other candidates and orphans time out: that must help. Whether it did.
    fn rebuild(&mut self) -> bool {
        for _ in 0..REBUILDS {
            self.free_orphans();
            let Some(origin) = &mut self.world.nodes[ORIGIN].splice else { break };
            if let Some(leg) = origin.leave_next() {
                self.world.note(format_args!("## the origin rebuilds"));
                self.world.count(Event::Rebuild);
                self.world.close(index(leg), ORIGIN, CloseCode::Moved, None);
            }
            for _ in 0..REBUILD_STEPS {
                if self.is_over() {
                    return self.world.finding.is_none();
                }
                self.step();
            }
        }
        if !self.world.is_delivered() {
            self.world.find(Check::Undelivered, format_args!("after {REBUILDS} rebuilds"));
        }
        false
    }

    /// `Done` travels to whoever still holds the flow; orphan timers free the rest. Whether they had to.
    fn aftermath(&mut self) -> bool {
        if self.world.finding.is_some() || self.stall.is_some() {
            return false;
        }
        self.world.note(format_args!("## everything is delivered"));
        self.settle();
        let mut timers = false;
        for _ in 0..self.world.hops.len() {
            timers |= self.free_orphans();
            self.settle();
        }
        self.check_rest();
        timers
    }

    fn check_rest(&mut self) {
        let world = &mut self.world;
        if !world.origin_done {
            world.find(Check::OriginLearns, format_args!("it goes on repairing"));
        }
        if let Some(node) = world.nodes.iter().position(|node| node.splice.is_some()) {
            world.find(Check::Leak, format_args!("{} holds the flow", world.name(node)));
        }
        if let Some(leg) = world.live.iter().find(|leg| !world.legs[**leg].is_over()).copied() {
            world.find(Check::Leak, format_args!("leg {leg} is open"));
        }
    }

    fn settle(&mut self) {
        for _ in 0..PEACE_STEPS {
            if self.world.finding.is_some() || self.step() == Step::Quiet {
                return;
            }
        }
    }

    /// The orphan timers of all nodes that nobody is attached to run out. Whether there were any.
    fn free_orphans(&mut self) -> bool {
        let world = &mut self.world;
        let mut freed = false;
        for node in 1..world.nodes.len() {
            let orphaned = world.nodes[node].splice.as_ref().is_some_and(|splice| splice.prev().is_none());
            if orphaned && (node != world.target() || world.origin_left) {
                freed = true;
                world.note(format_args!("## the orphan timer of {} runs out", world.name(node)));
                world.count(Event::Orphan);
                world.free(node, CloseCode::Lost, CloseCode::Lost);
                world.nodes[node].tombstone = node == world.target();
            }
        }
        freed
    }
}

/// A moment, to count from.
struct Mark {
    step: u32,
    coverage: Coverage,
}

impl Mark {
    fn of(world: &World) -> Self {
        Self { step: world.now, coverage: world.coverage }
    }

    fn dials(&self, world: &World) -> u64 {
        world.coverage.of(Event::Dial) - self.coverage.of(Event::Dial)
    }

    fn replaced(&self, world: &World) -> u64 {
        world.coverage.of(Event::Replaced) - self.coverage.of(Event::Replaced)
    }

    /// Why it does not settle.
    fn unrest(&self, world: &World) -> Check {
        match () {
            () if self.replaced(world) >= MANY => Check::StealWar,
            () if self.dials(world) >= MANY => Check::Livelock,
            () => Check::Stall,
        }
    }

    fn since(&self, world: &World) -> String {
        format!(
            "{} steps, {} dials and {} replaced legs after the last fault",
            world.now - self.step,
            self.dials(world),
            self.replaced(world),
        )
    }
}
