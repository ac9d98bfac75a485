//! One run: a safety phase with faults, a liveness phase in which a core is healed and everything has to complete, and a
//! last look at what is left.

use super::game::{Outcome, Trim};
use super::plan::Plan;
use super::scene::WARM_UP;
use crate::dice::Dice;
use crate::fault::{Found, Ordeal};
use crate::network::NodeIndex;
use crate::node::{Blueprint, Role};
use crate::settings::START;
use crate::traffic::App;
use crate::world::{Hit, World};
use hopline_proto::Time;
use std::time::Duration;

/// How long flows may take from the moment when all is healed.
const LIVENESS_BOUND: Duration = Duration::from_secs(90);
/// After so long without flows nobody may hold any: each relay of a chain waits for 30 s for a prev, one after the other, the
/// target at its end for a minute,
const LEAK_BOUND: Duration = Duration::from_secs(240);
/// and no link that no flow needs may be there.
const LINK_BOUND: Duration = Duration::from_secs(25);
/// How often a run is looked at as a whole.
const LOOK: Duration = Duration::from_secs(1);

/// Something that a run does at its time.
#[derive(Debug)]
enum Step {
    Begin(usize),
    Conclude(usize),
    End(usize),
}

/// Runs a plan; `told` shows its timeline.
pub(crate) fn run(plan: &Plan, trim: &Trim, told: bool) -> Outcome {
    let mut world = build(plan, trim, told);
    let faults = trouble(&mut world, plan, trim);
    if plan.wants_backups {
        world.check_backups();
    }
    let healed = heal(&mut world, plan);
    let settled = complete(&mut world, healed);
    world.check_blame(faults);
    aftermath(&mut world, healed);
    Outcome {
        failure: world.checks.failure.clone(),
        hash: world.hash.value(),
        simulated: world.elapsed(),
        counts: [
            ("events", world.events),
            ("faults", faults as u64),
            ("reroutes", world.statistics.reroutes),
            ("rebuilds", world.statistics.rebuilds),
            ("rebuilds for want of progress", world.statistics.gray),
            ("violations", world.checks.violations),
            ("bytes delivered", world.apps.delivery.bytes),
        ]
        .into(),
        longest: Duration::from_micros(world.apps.delivery.latency.max()),
        settled,
    }
}

fn build(plan: &Plan, trim: &Trim, told: bool) -> World {
    let mut world = World::new(plan.settings.clone());
    let mut dice = Dice::new(plan.settings.seed, 103);
    world.checks.on = true;
    world.checks.limits = plan.settings.flows.limits;
    if told {
        world.trace.start();
        world.trace.remark(START, describe(plan));
    }
    for (index, skew) in plan.skews.iter().enumerate() {
        let blueprint = if index < plan.relays + plan.crowd {
            let zone = u16::try_from(dice.below(plan.zones.into())).unwrap_or(0);
            Blueprint::Relay { zone, capacity: 50 + u32::try_from(dice.below(100)).unwrap_or(0) }
        } else {
            Blueprint::Endpoint
        };
        world.add(blueprint, *skew);
    }
    let first = plan.relays + plan.crowd;
    for index in (0..plan.started).chain(first..plan.nodes()) {
        let now = world.now;
        world.run_until(now + dice.millis(0, 20));
        world.start(index);
    }
    serve(&mut world, plan);
    for (number, flow) in plan.flows.iter().enumerate() {
        let app = App::new(flow.clone(), plan.settings.seed ^ (number as u64) << 32);
        if trim.flows.contains(&number) {
            world.apps.add(app.left_out());
        } else {
            let app = world.apps.add(app);
            world.plan_app(app, START + flow.opens);
        }
    }
    world
}

fn serve(world: &mut World, plan: &Plan) {
    let targets: std::collections::BTreeSet<NodeIndex> = plan.flows.iter().map(|flow| flow.target).collect();
    for target in targets {
        world.with(target, |role, now, actions| {
            if let Role::Endpoint(endpoint) = role {
                endpoint.serve(vec![format!("t{target}")], now, actions);
            }
        });
    }
}

/// The safety phase; returns how many faults there were.
fn trouble(world: &mut World, plan: &Plan, trim: &Trim) -> usize {
    let ordeals: Vec<(usize, &Ordeal)> =
        plan.ordeals.iter().enumerate().filter(|(n, _)| !trim.ordeals.contains(n)).collect();
    let mut steps: Vec<(Duration, Step)> = Vec::new();
    for (n, ordeal) in &ordeals {
        steps.push((ordeal.at, Step::Begin(*n)));
        let words = World::last_words(&ordeal.fault);
        steps.extend(words.map(|words| (ordeal.at + words, Step::Conclude(*n))));
        steps.push((ordeal.at + ordeal.lasts.max(words.unwrap_or_default()), Step::End(*n)));
    }
    steps.sort_by_key(|(at, _)| *at);
    let mut hits: Vec<Hit> = plan.ordeals.iter().map(|_| Hit::default()).collect();
    let mut looked = START + WARM_UP;
    for (at, step) in steps {
        let at = START + at;
        while looked < at {
            world.run_until(looked);
            world.check_lost();
            world.check_ways();
            looked = looked + LOOK;
        }
        world.run_until(at);
        let (Step::Begin(n) | Step::Conclude(n) | Step::End(n)) = step;
        let (Some(ordeal), Some(hit), Ok(number)) = (plan.ordeals.get(n), hits.get_mut(n), u32::try_from(n))
        else {
            continue;
        };
        match step {
            Step::Begin(_) => *hit = world.begin(number, &ordeal.fault),
            Step::Conclude(_) => world.conclude(hit),
            Step::End(_) => world.end(number, &ordeal.fault, hit),
        }
    }
    world.run_until(START + plan.calm);
    ordeals.len()
}

/// All ways are opened, everybody who lives goes on, and of the dead as many as are needed start again.
fn heal(world: &mut World, plan: &Plan) -> Time {
    let now = world.now;
    world.trace.remark(now, "all is healed");
    world.network.open_all();
    world.unstall();
    world.start_bootstrap(Found::All);
    for index in 0..world.nodes.len() {
        world.slow_down(index, Duration::ZERO);
        world.thaw(index);
        world.turn_gray(index, None);
        world.set_lie(index, None);
    }
    let needed = plan.core.map_or(plan.relays, |spare| plan.longest_chain() + spare).min(plan.started);
    for index in 0..plan.started {
        if world.nodes.living_relays().len() >= needed {
            break;
        }
        world.start(index);
    }
    now
}

/// The liveness phase; returns how long it took.
fn complete(world: &mut World, healed: Time) -> Duration {
    while world.checks.failure.is_none() && world.now < healed + LIVENESS_BOUND {
        let now = world.now;
        world.run_until(now + LOOK);
        world.check_lost();
        world.check_ways();
        if world.apps.all_over() {
            break;
        }
    }
    world.check_complete();
    world.now.since(healed)
}

fn aftermath(world: &mut World, healed: Time) {
    if world.checks.failure.is_some() {
        return;
    }
    let now = world.now;
    world.run_until(now + LEAK_BOUND);
    world.check_leaks();
    world.check_targets(healed);
    let now = world.now;
    world.run_until(now + LINK_BOUND);
    world.check_links();
    let reachable_for = world.now.since(healed);
    world.check_pool(reachable_for);
}

fn describe(plan: &Plan) -> String {
    let mut text = format!(
        "{} relays, {} in a crowd, {} zones, {} endpoints; {:?}",
        plan.relays, plan.crowd, plan.zones, plan.endpoints, plan.settings.weather
    );
    for (n, flow) in plan.flows.iter().enumerate() {
        let kind = flow.kind;
        text += &format!(
            "\n  flow {n}: {kind}, e{} to e{} over {} hops, {} bytes, opens at {:?}, {:?}",
            flow.origin,
            flow.target,
            flow.hops,
            flow.bytes(),
            flow.opens,
            flow.abort
        );
    }
    for (n, ordeal) in plan.ordeals.iter().enumerate() {
        text += &format!("\n  fault {n}: {ordeal}");
    }
    text
}
