//! Failure detection of a node: a preset, and a heartbeat interval.

use hopline_proto::detector::{Config, Liveness, MAX_INTERVAL, MIN_INTERVAL};
use std::time::Duration;

/// What fits which network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Preset {
    /// Adapts to the measured round trips
    Auto,
    /// Machines in one room
    Lan,
    /// The Internet
    Wan,
    /// Geostationary satellites
    Satellite,
    /// No heartbeats: only QUIC's own timeout
    Off,
}

/// How to watch.
#[derive(Clone, Debug, clap::Args)]
pub struct LivenessArgs {
    /// Failure-detection preset for the network between the nodes
    #[arg(long, env = "HOPLINE_LIVENESS", value_enum, default_value = "auto", value_name = "PRESET")]
    liveness: Preset,
    /// Heartbeat interval of links with flows, in place of the preset's: 10ms to 1min, or 0 for no heartbeats
    #[arg(long, env = "HOPLINE_HEARTBEAT", value_name = "DURATION", value_parser = interval)]
    heartbeat: Option<Duration>,
}

impl LivenessArgs {
    /// What these options say.
    pub fn config(&self) -> Config {
        let preset = match self.liveness {
            Preset::Auto => Liveness::Auto,
            Preset::Lan => Liveness::Lan,
            Preset::Wan => Liveness::Wan,
            Preset::Satellite => Liveness::Satellite,
            Preset::Off => Liveness::Off,
        };
        let preset = preset.config();
        self.heartbeat.and_then(|heartbeat| preset.with_heartbeat(heartbeat)).unwrap_or(preset)
    }
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = if text == "0" { Duration::ZERO } else { crate::duration::parse(text)? };
    match Config::default().with_heartbeat(interval) {
        Some(_) => Ok(interval),
        None => Err(format!("not between {MIN_INTERVAL:?} and {MAX_INTERVAL:?}; 0 is never")),
    }
}
