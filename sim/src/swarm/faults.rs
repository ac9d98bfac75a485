//! Random faults.
//!
//! None lasts long enough for an endpoint to give its flows up, however many come together: what is lost is then the
//! protocol's fault.

use super::scene::{Scene, WARM_UP};
use crate::dice::Dice;
use crate::fault::{Aim, Fault, Found, Ordeal};
use crate::network::{BOOTSTRAP, NodeIndex};
use crate::node::Gray;
use crate::traffic::FlowPlan;
use std::time::Duration;

/// In long runs faults come in bursts: so long, and so long from one to the next.
const BURST_MS: u64 = 8_000;
const BURST_EVERY_MS: u64 = 20_000;

/// Draws 0 to 20 faults, each of which ends before all is calm.
pub(super) fn draw(seed: u64, scene: &Scene, flows: &[FlowPlan]) -> Vec<Ordeal> {
    let mut dice = Dice::new(seed, 102);
    let count = if scene.is_long { dice.within(4, 20) } else { dice.below(13) };
    let favourite = dice.percent(30).then(|| dice.below(100));
    let begin = u64::try_from(WARM_UP.as_millis()).unwrap_or(0);
    let calm = u64::try_from(scene.calm.as_millis()).unwrap_or(u64::MAX);
    let mut ordeals: Vec<Ordeal> = (0..count)
        .map(|_| {
            let (from, to) = if scene.is_long {
                let burst = begin + dice.below((calm - begin) / BURST_EVERY_MS + 1) * BURST_EVERY_MS;
                (burst, (burst + BURST_MS).min(calm))
            } else {
                (begin, calm)
            };
            let at = dice.millis(from.min(to.saturating_sub(2)), to.saturating_sub(1));
            let kind = favourite.filter(|_| dice.percent(70)).unwrap_or_else(|| dice.below(100));
            let lasts = dice.log_millis(5, 6000).min(Duration::from_millis(to).saturating_sub(at));
            Ordeal { at, lasts, fault: fault(&mut dice, kind, scene, flows) }
        })
        .collect();
    ordeals.sort_by_key(|ordeal| ordeal.at);
    let mut dice = Dice::new(seed, 103);
    for ordeal in &mut ordeals {
        if ordeal.fault == Fault::Bootstrap(Found::All) {
            ordeal.fault = Fault::Bootstrap(found(&mut dice));
        }
    }
    ordeals
}

fn fault(dice: &mut Dice, kind: u64, scene: &Scene, flows: &[FlowPlan]) -> Fault {
    let aim = aim(dice, scene, flows);
    match kind {
        0..28 => Fault::Crash(aim),
        28..42 => Fault::Freeze(any(dice, aim, scene)),
        42..50 => Fault::Slow(any(dice, aim, scene), dice.log_millis(1, 40)),
        50..54 => Fault::Drain(aim),
        54..58 => Fault::Gray(aim, gray(dice)),
        58..64 => Fault::EndStreams(aim),
        64..74 => Fault::Isolate(any(dice, aim, scene), u8::try_from(dice.below(3)).unwrap_or(2)),
        74..82 => {
            let (from, to) = sides(dice, scene);
            Fault::Partition { from, to, both: dice.percent(60) }
        }
        82..88 => {
            let (from, to) = sides(dice, scene);
            Fault::Hold { from, to }
        }
        88..92 => Fault::ZoneOutage(u16::try_from(dice.below(scene.zones.into())).unwrap_or(0)),
        92..95 if scene.crowd > 0 => Fault::FlashCrowd((scene.relays..scene.relays + scene.crowd).collect()),
        _ => Fault::Bootstrap(if dice.percent(50) { Found::All } else { Found::Nothing }),
    }
}

/// What a bootstrap finds whose disk is not lost.
fn found(dice: &mut Dice) -> Found {
    match dice.below(4) {
        0 => Found::Half(dice.next()),
        1 => Found::Older(dice.log_millis(10, 60_000)),
        _ => Found::All,
    }
}

fn gray(dice: &mut Dice) -> Gray {
    let ways = match dice.below(3) {
        0 => [true, false],
        1 => [false, true],
        _ => [true, true],
    };
    Gray { ways, deaf: dice.percent(50) }
}

fn aim(dice: &mut Dice, scene: &Scene, flows: &[FlowPlan]) -> Aim {
    let flow = dice.place(flows.len().max(1));
    match flows.get(flow) {
        Some(plan) if dice.percent(60) => {
            let hop = u8::try_from(dice.within(1, plan.hops.into())).unwrap_or(1);
            Aim::Hop { flow, hop }
        }
        _ => Aim::At(dice.place(scene.relays)),
    }
}

/// Now and then an endpoint instead.
fn any(dice: &mut Dice, aim: Aim, scene: &Scene) -> Aim {
    if dice.percent(80) {
        return aim;
    }
    Aim::At(scene.relays + scene.crowd + dice.place(scene.endpoints))
}

/// Two disjoint sets of nodes; the bootstrap may be in one.
fn sides(dice: &mut Dice, scene: &Scene) -> (Vec<NodeIndex>, Vec<NodeIndex>) {
    let mut all: Vec<NodeIndex> = (0..scene.relays + scene.crowd + scene.endpoints).collect();
    all.push(BOOTSTRAP);
    let one = dice.size(1, all.len() - 1);
    let from = dice.some(&all, one);
    let to = all.into_iter().filter(|node| !from.contains(node)).collect();
    (from, to)
}
