//! One run: chaos, then peace without faults, help by the origin if that stalls, and what is left afterwards.

use super::actions::Action;
use super::checks::{Check, Finding};
use super::leg::index;
use super::tally::{Event, Tally};
use super::trace::Trace;
use super::world::{ORIGIN, World};
use crate::proto::frame::CloseCode;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Steps without a fault after which repairs must have settled, while the applications send nothing.
const SETTLED_STEPS: u32 = 6_000;
/// Steps without a fault after which everything must be delivered.
const PEACE_STEPS: u32 = 15_000;
/// Dials in that time that make it a livelock.
const LIVELOCK_DIALS: u64 = 100;
/// How often the origin rebuilds after a stall, and for how many steps each.
const REBUILDS: u32 = 10;
const REBUILD_STEPS: u32 = 2_000;

/// What a run came to.
pub(super) struct Outcome {
    pub(super) finding: Option<Finding>,
    pub(super) steps: u32,
    pub(super) faults: usize,
    pub(super) tally: Tally,
    /// An orphan timer had to free some node.
    pub(super) timers: bool,
    /// A stall was healed by the origin.
    pub(super) healed: bool,
}

/// Runs the world of `seed`. A panic is a finding.
pub(super) fn run(seed: u64, trace: &Trace) -> Outcome {
    let told = trace.clone();
    catch_unwind(AssertUnwindSafe(|| Run::new(seed, told).play())).unwrap_or_else(|panic| {
        let detail = panic.downcast_ref::<String>().cloned();
        let detail = detail.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
        let finding = Finding { check: Check::Panic, detail: detail.unwrap_or_default() };
        trace.line(0, format_args!("!! {finding}"));
        Outcome {
            finding: Some(finding),
            steps: u32::MAX,
            faults: 0,
            tally: Tally::default(),
            timers: false,
            healed: false,
        }
    })
}

struct Run {
    world: World,
    /// What can happen next; kept for its memory.
    actions: Vec<Action>,
    faults: usize,
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
    fn new(seed: u64, trace: Trace) -> Self {
        let mut world = World::new(seed, trace);
        let most = world.dice.pick(&[0, 3, 3, 6, 6, 20]);
        let faults = world.dice.below(most + 1);
        Self { world, actions: Vec::with_capacity(64), faults, stall: None }
    }

    fn play(mut self) -> Outcome {
        self.chaos();
        self.peace();
        let healed = self.stall.is_some() && self.rebuild();
        let timers = self.aftermath();
        Outcome {
            finding: self.stall.or(self.world.finding),
            steps: self.world.now,
            faults: self.faults,
            tally: self.world.tally,
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

    /// No more faults. The flow must be delivered, and first, while the applications rest, repairs must settle.
    fn peace(&mut self) {
        self.world.note(format_args!("## no more faults; the applications rest until repairs have settled"));
        for node in self.world.relays() {
            self.world.thaw(node);
        }
        let dials = self.world.tally.of(Event::Dial);
        let begin = self.world.now;
        self.world.hush = true;
        while !self.is_over() && self.world.now - begin < PEACE_STEPS {
            if self.world.hush && self.world.now - begin > SETTLED_STEPS {
                self.stall(Check::StealWar, SETTLED_STEPS);
                self.world.hush = false;
            }
            if self.step() == Step::Quiet && !std::mem::take(&mut self.world.hush) {
                break;
            }
        }
        self.world.hush = false;
        if !self.is_over() {
            let dials = self.world.tally.of(Event::Dial) - dials;
            let check = match () {
                () if self.world.is_delivered() => Check::TargetLearns,
                () if dials > LIVELOCK_DIALS => Check::Livelock,
                () => Check::Stall,
            };
            self.stall(check, self.world.now - begin);
        }
    }

    fn stall(&mut self, check: Check, steps: u32) {
        if self.world.finding.is_none() && self.stall.is_none() {
            self.world.note(format_args!("!! {} ({steps} steps after the last fault)", check.name()));
            self.stall = Some(Finding { check, detail: format!("{steps} steps after the last fault") });
        }
    }

    /// The origin takes other candidates, orphans time out: that must always help. Whether it did.
    fn rebuild(&mut self) -> bool {
        for _ in 0..REBUILDS {
            self.free_orphans();
            if let Some(leg) = self.world.nodes[ORIGIN].splice.as_mut().and_then(|splice| splice.leave_next()) {
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
        self.world.find(Check::Undelivered, format_args!("after {REBUILDS} rebuilds"));
        false
    }

    /// `Done` travels to whoever still holds the flow; orphan timers free the rest. Whether they had to.
    fn aftermath(&mut self) -> bool {
        if self.world.finding.is_some() {
            return false;
        }
        self.world.note(format_args!("## the rest"));
        self.settle();
        let mut timers = false;
        for _ in 0..self.world.hops.len() {
            timers |= self.free_orphans();
            self.settle();
        }
        if self.stall.is_some() {
            return timers;
        }
        if !self.world.origin_done {
            self.world.find(Check::OriginLearns, format_args!("it goes on dialling"));
        }
        let leak = self.world.nodes.iter().position(|node| node.splice.is_some());
        if let Some(node) = leak {
            self.world.find(Check::Leak, format_args!("{}", self.world.name(node)));
        }
        timers
    }

    fn settle(&mut self) {
        for _ in 0..PEACE_STEPS {
            if self.world.finding.is_some() || self.step() == Step::Quiet {
                return;
            }
        }
    }

    /// The orphan timers of all nodes that nobody is attached to run out.
    fn free_orphans(&mut self) -> bool {
        let world = &mut self.world;
        let mut freed = false;
        for node in 1..world.nodes.len() {
            let orphan = world.nodes[node].splice.as_ref().is_some_and(|splice| splice.prev().is_none());
            if orphan && (node != world.target() || world.origin_left) {
                freed = true;
                world.note(format_args!("## the orphan timer of {} runs out", world.name(node)));
                world.count(Event::Orphan);
                world.free(node, CloseCode::Lost, CloseCode::Lost);
            }
        }
        freed
    }
}
