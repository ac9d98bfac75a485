//! A random network, drawn from a seed: the same seed always gives the same.
//!
//! Each aspect is drawn with dice of its own, so that a [`Trim`], which leaves things out, changes nothing of the rest.

use super::game::{Parts, Trim};
use super::scene::Scene;
use super::{faults, flows};
use crate::dice::Dice;
use crate::fault::Ordeal;
use crate::network::Weather;
use crate::node::Skew;
use crate::settings::{Fidelity, Settings};
use crate::traffic::FlowPlan;
use hopline_proto::bootstrap;
use hopline_proto::flows::FlowsConfig;
use hopline_proto::splice::Limits;
use std::time::Duration;

/// Everything that a run is made of.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) settings: Settings,
    /// Relays, how many of them are there from the beginning, and those that may join in a crowd.
    pub(crate) relays: usize,
    pub(crate) started: usize,
    pub(crate) crowd: usize,
    pub(crate) zones: u16,
    pub(crate) endpoints: usize,
    pub(crate) flows: Vec<FlowPlan>,
    pub(crate) ordeals: Vec<Ordeal>,
    /// When the last fault has ended and all that is left is healed.
    pub(crate) calm: Duration,
    /// Whether by then every hop must have a backup.
    pub(crate) wants_backups: bool,
    /// How many more relays than the longest chain needs are started then; all, if none.
    pub(crate) core: Option<usize>,
    pub(crate) skews: Vec<Skew>,
}

impl Plan {
    pub(crate) fn draw(seed: u64) -> Self {
        let mut dice = Dice::new(seed, 100);
        let most = if dice.percent(50) { 6 } else { 18 };
        let relays = 3 + dice.place(most);
        let crowd = if dice.percent(20) { dice.size(1, 10) } else { 0 };
        let zones = u16::try_from(dice.within(1, 4)).unwrap_or(1);
        let endpoints = dice.size(2, 5);
        let is_long = dice.percent(15);
        let calm = if is_long { dice.millis(40_000, 90_000) } else { dice.millis(6_000, 16_000) };
        let core = dice.percent(50).then(|| dice.size(1, 3));
        let settings = settings(seed, &mut dice);
        let nodes = relays + crowd + endpoints;
        let skewed = dice.percent(50);
        let skews = (0..nodes).map(|_| if skewed { skew(&mut dice) } else { Skew::default() }).collect();
        let scene = Scene { relays, crowd, zones, endpoints, calm, is_long };
        let flows = flows::draw(seed, &scene, &settings);
        let ordeals = faults::draw(seed, &scene, &flows);
        let started = relays;
        // Faults may go on until then.
        let wants_backups = false;
        Self {
            settings,
            relays,
            started,
            crowd,
            zones,
            endpoints,
            flows,
            ordeals,
            calm,
            wants_backups,
            core,
            skews,
        }
    }

    /// The plan without what is left out.
    pub(crate) fn trimmed(mut self, trim: &Trim) -> Self {
        self.started = self.relays.saturating_sub(trim.relays);
        for step in
            self.flows.iter_mut().flat_map(|flow| &mut flow.scripts).flat_map(|script| &mut script.steps)
        {
            step.bytes = (step.bytes >> trim.halvings).max(step.bytes.min(1));
        }
        if trim.halvings > 0 {
            self.flows.iter_mut().for_each(flows::mend);
        }
        if trim.fair_weather {
            (self.settings.weather.loss_ppm, self.settings.weather.jitter_percent) = (0, 0);
            self.settings.weather.bandwidth = 0;
        }
        self
    }

    pub(crate) fn nodes(&self) -> usize {
        self.skews.len()
    }

    pub(super) fn parts(&self) -> Parts {
        Parts {
            ordeals: self.ordeals.len(),
            flows: self.flows.len(),
            relays: self.relays.saturating_sub(self.longest_chain() + 2),
        }
    }

    pub(crate) fn longest_chain(&self) -> usize {
        self.flows.iter().map(|flow| usize::from(flow.hops)).max().unwrap_or(1)
    }
}

fn settings(seed: u64, dice: &mut Dice) -> Settings {
    let least = dice.log_millis(1, 60) / 4;
    let most = least * u32::try_from(dice.within(1, 4)).unwrap_or(1);
    let weather = Weather {
        delay: (least, most),
        jitter_percent: if dice.percent(60) { dice.within(0, 60) } else { 0 },
        loss_ppm: if dice.percent(50) { dice.below(30_000) } else { 0 },
        bandwidth: if dice.percent(60) { 125_000 << dice.below(8) } else { 0 },
        refusals: seed.is_multiple_of(2),
    };
    let mut flows = FlowsConfig::default();
    if dice.percent(40) {
        let window = 16 << 10 << dice.below(7);
        flows.limits = Limits {
            window_bytes: window,
            max_window_bytes: window << dice.below(4),
            backlog_bytes: (window / 4).max(4 << 10),
        };
    }
    if seed.is_multiple_of(3) {
        flows.replay_bytes = (seed / 3 % 4) * (64 << 10);
    }
    Settings {
        seed,
        weather,
        fidelity: Fidelity::Full,
        flows,
        bootstrap: bootstrap::Config::default(),
        stream_window: 16 << 10 << dice.below(8),
        idle_timeout: Duration::from_secs(30),
        timer_slack: Duration::from_millis(dice.below(2)),
    }
}

fn skew(dice: &mut Dice) -> Skew {
    let signed = |n: u64, most: i64| i64::try_from(n).unwrap_or(0) - most;
    Skew { offset: signed(dice.below(400_001), 200_000), drift_ppm: signed(dice.below(401), 200) }
}
