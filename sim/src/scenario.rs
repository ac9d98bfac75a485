//! A few scripted runs that people ask for by name. Each is a [`Plan`], so all checks of the swarm are on.

use crate::fault::{Aim, Fault, Found, Ordeal};
use crate::network::Weather;
use crate::node::{Gray, Lie, Skew};
use crate::settings::{Fidelity, Settings};
use crate::swarm::Plan;
use crate::traffic::{FlowPlan, Reader, Script, Step, When};
use hopline_proto::bootstrap;
use hopline_proto::flows::FlowsConfig;
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);
/// When flows open, when faults begin, and when all is healed.
const OPENS: Duration = Duration::from_millis(2000);
const BEGINS: Duration = Duration::from_millis(3000);
const CALM: Duration = Duration::from_millis(12_000);

/// Run a script.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    plan: fn(u64) -> Plan,
}

/// All of them.
pub(crate) const SCENARIOS: [Scenario; 11] = [
    Scenario { name: "kills", about: "each hop in turn loses its relay, six times", plan: kills },
    Scenario {
        name: "kills-without-bootstrap",
        about: "each hop loses its relay once, while the bootstrap is down",
        plan: kills_without_bootstrap,
    },
    Scenario {
        name: "few-relays",
        about: "two hops lose their relays; with five left every hop has a backup again",
        plan: few_relays,
    },
    Scenario { name: "frozen-relay", about: "the middle relay stops for five seconds", plan: frozen },
    Scenario { name: "drain", about: "each hop's relay drains", plan: drain },
    Scenario { name: "zone-outage", about: "one of four zones dies for five seconds", plan: zone_outage },
    Scenario { name: "flash-crowd", about: "forty relays join eight, and die", plan: flash_crowd },
    Scenario { name: "gray", about: "each hop's relay in turn turns gray, in every direction", plan: gray },
    Scenario {
        name: "false-acks",
        about: "each hop's relay in turn acks what was never sent",
        plan: false_acks,
    },
    Scenario { name: "false-ends", about: "each hop's relay in turn announces false ends", plan: false_ends },
    Scenario {
        name: "one-way",
        about: "the middle relay receives, but nothing that it sends arrives",
        plan: one_way,
    },
];

impl Scenario {
    pub(crate) fn named(name: &str) -> Option<&'static Self> {
        SCENARIOS.iter().find(|scenario| scenario.name == name)
    }

    pub(crate) fn plan(&self, seed: u64) -> Plan {
        (self.plan)(seed)
    }
}

/// `relays` in four zones on a quiet local network, `flows` of small messages both ways over three hops, and no faults.
fn quiet(seed: u64, relays: usize, flows: usize) -> Plan {
    let steps = vec![Step { when: When::After(MS * 5), bytes: 1000 }];
    let script = Script { steps, rounds: 1800, reader: Reader::Eager };
    let flow = FlowPlan {
        origin: relays,
        target: relays + 1,
        name: format!("t{}", relays + 1),
        hops: 3,
        opens: OPENS,
        scripts: [script.clone(), script],
        abort: None,
        kind: "messages",
    };
    Plan {
        settings: Settings {
            seed,
            weather: Weather {
                delay: (MS / 10, MS / 2),
                jitter_percent: 20,
                loss_ppm: 0,
                bandwidth: 0,
                refusals: true,
            },
            fidelity: Fidelity::Full,
            flows: FlowsConfig::default(),
            bootstrap: bootstrap::Config::default(),
            stream_window: 2 << 20,
            idle_timeout: Duration::from_secs(30),
            timer_slack: MS,
        },
        relays,
        started: relays,
        crowd: 0,
        zones: 4,
        endpoints: 2,
        flows: vec![flow; flows],
        ordeals: Vec::new(),
        calm: CALM,
        wants_backups: false,
        core: None,
        skews: vec![Skew::default(); relays + 2],
    }
}

fn at(n: u32, lasts: Duration, fault: Fault) -> Ordeal {
    Ordeal { at: BEGINS + MS * 500 * n, lasts, fault }
}

const fn hop(hop: u8) -> Aim {
    Aim::Hop { flow: 0, hop }
}

fn kills(seed: u64) -> Plan {
    let hops = [1, 2, 3, 1, 2, 3].into_iter().zip(0..);
    let ordeals = hops.map(|(n, turn)| at(turn, CALM, Fault::Crash(hop(n)))).collect();
    Plan { ordeals, ..quiet(seed, 12, 1) }
}

fn kills_without_bootstrap(seed: u64) -> Plan {
    let down =
        Ordeal { at: BEGINS - MS * 300, lasts: Duration::from_secs(8), fault: Fault::Bootstrap(Found::All) };
    let hops = [1, 2, 3].into_iter().zip(0..);
    let kills = hops.map(|(n, turn)| at(turn, CALM, Fault::Crash(hop(n))));
    Plan { ordeals: [down].into_iter().chain(kills).collect(), ..quiet(seed, 12, 1) }
}

fn few_relays(seed: u64) -> Plan {
    let kills = [(0, 1), (10, 2)].map(|(turn, n)| at(turn, CALM * 3, Fault::Crash(hop(n))));
    let mut plan = Plan { ordeals: kills.into(), calm: CALM * 2, wants_backups: true, ..quiet(seed, 7, 1) };
    plan.flows.iter_mut().flat_map(|flow| &mut flow.scripts).for_each(|script| script.rounds *= 3);
    plan
}

fn frozen(seed: u64) -> Plan {
    Plan { ordeals: vec![at(0, MS * 5000, Fault::Freeze(hop(2)))], ..quiet(seed, 12, 1) }
}

fn drain(seed: u64) -> Plan {
    let ordeals = [1, 2, 3].into_iter().zip(0..).map(|(n, turn)| at(turn * 2, CALM, Fault::Drain(hop(n))));
    Plan { ordeals: ordeals.collect(), ..quiet(seed, 12, 1) }
}

fn gray(seed: u64) -> Plan {
    let ways = [[true, true], [true, false], [false, true]];
    let grays = ways.into_iter().flat_map(|ways| [true, false].map(|deaf| Gray { ways, deaf }));
    let hops = [1, 2, 3, 1, 2, 3];
    let turns = grays
        .zip(hops)
        .zip(0..)
        .map(|((gray, n), turn)| at(turn * 3, MS * 20_000, Fault::Gray(hop(n), gray)));
    Plan { ordeals: turns.collect(), ..quiet(seed, 16, 1) }
}

fn liars(seed: u64, lie: Lie) -> Plan {
    let lies =
        [1, 2, 3].into_iter().zip(0..).map(|(n, turn)| at(turn * 4, MS * 20_000, Fault::Lie(hop(n), lie)));
    Plan { ordeals: lies.collect(), ..quiet(seed, 16, 1) }
}

fn false_acks(seed: u64) -> Plan {
    liars(seed, Lie::Acks)
}

fn false_ends(seed: u64) -> Plan {
    liars(seed, Lie::Ends)
}

fn zone_outage(seed: u64) -> Plan {
    Plan { ordeals: vec![at(0, MS * 5000, Fault::ZoneOutage(1))], ..quiet(seed, 16, 4) }
}

fn flash_crowd(seed: u64) -> Plan {
    let base = quiet(seed, 8, 4);
    let crowd = 40;
    let ordeals = vec![at(0, MS * 5000, Fault::FlashCrowd((8..8 + crowd).collect()))];
    let moved = |flow: &FlowPlan| FlowPlan {
        origin: 8 + crowd,
        target: 9 + crowd,
        name: format!("t{}", 9 + crowd),
        ..flow.clone()
    };
    let flows = base.flows.iter().map(moved).collect();
    Plan { crowd, ordeals, flows, skews: vec![Skew::default(); 10 + crowd], ..base }
}

fn one_way(seed: u64) -> Plan {
    Plan { ordeals: vec![at(0, MS * 5000, Fault::Isolate(hop(2), 0))], ..quiet(seed, 12, 1) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::swarm::{Trim, run};

    #[test]
    fn all_keep_every_law() {
        for scenario in &SCENARIOS {
            for seed in 1..4 {
                let outcome = run(&scenario.plan(seed), &Trim::default(), false);
                assert_eq!(outcome.failure, None, "{} {seed}", scenario.name);
                assert!(outcome.longest < Duration::from_secs(2), "{} {seed}: {outcome:?}", scenario.name);
                let gray = if scenario.name == "gray" { 6 } else { 0 };
                assert_eq!(
                    outcome.counts["rebuilds for want of progress"], gray,
                    "{} {seed}: {outcome:?}",
                    scenario.name
                );
                let lies = scenario.name.starts_with("false");
                assert_eq!(outcome.counts["violations"] > 0, lies, "{} {seed}: {outcome:?}", scenario.name);
            }
        }
    }
}
