//! Heartbeat interval and lease of a bootstrap's nodes: a preset, and exact values.

use hopline_command::duration::parse;
use hopline_proto::bootstrap::Config;
use hopline_proto::bootstrap::cadence::{Cadence, CadencePreset};
use std::time::Duration;

/// The shortest heartbeat: below it nodes do little else.
const MIN_HEARTBEAT: Duration = Duration::from_millis(100);
/// The longest one.
const MAX_HEARTBEAT: Duration = Duration::from_secs(24 * 3600);
/// The longest lease.
const MAX_LEASE: Duration = Duration::from_secs(7 * 24 * 3600);
/// The shortest time between two sweeps.
const MIN_SWEEP: Duration = Duration::from_secs(1);

/// What fits which network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Preset {
    /// A heartbeat every 10 s, a lease of 30 s
    Default,
    /// 1 s and 3 s: for trials
    Dev,
    /// 2 s and 8 s: machines in one room
    Local,
    /// 20 s and 75 s: relays on several continents
    CrossRegion,
    /// 30 s and 2 min: satellites, mobile networks
    HighLatency,
    /// 60 s and 3 min: like most service registries
    Classic,
    /// 2 min and 10 min: very many relays
    Relaxed,
}

/// How often nodes are heard.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct CadenceArgs {
    /// Preset for the heartbeat interval and the lease
    #[arg(long, env = "HOPLINE_CADENCE", value_enum, default_value = "default", value_name = "PRESET")]
    cadence: Preset,
    /// Heartbeat interval, in place of the preset's: 100ms to 1d, or 0 for no monitoring, so that leases do not expire
    #[arg(long, env = "HOPLINE_CADENCE_HEARTBEAT", value_name = "TIME", value_parser = heartbeat)]
    heartbeat: Option<Duration>,
    /// Lease: how long a node keeps its place without a heartbeat, in place of the preset's; by default three times --heartbeat
    #[arg(long, env = "HOPLINE_LEASE", value_name = "TIME", value_parser = lease)]
    lease: Option<Duration>,
    /// Interval of the full lease sweep
    #[arg(long, env = "HOPLINE_SWEEP", default_value = "15min", value_name = "TIME", value_parser = sweep)]
    sweep: Duration,
}

impl CadenceArgs {
    /// The policies with this cadence.
    pub(super) fn apply(&self, policies: Config) -> Config {
        let preset = match self.cadence {
            Preset::Default => CadencePreset::Default,
            Preset::Dev => CadencePreset::Dev,
            Preset::Local => CadencePreset::Local,
            Preset::CrossRegion => CadencePreset::CrossRegion,
            Preset::HighLatency => CadencePreset::HighLatency,
            Preset::Classic => CadencePreset::Classic,
            Preset::Relaxed => CadencePreset::Relaxed,
        };
        let mut cadence = self.heartbeat.map_or_else(|| preset.cadence(), Cadence::of);
        cadence.lease = self.lease.unwrap_or(cadence.lease);
        Config { sweep: self.sweep, ..policies.with_cadence(cadence) }
    }
}

fn heartbeat(text: &str) -> Result<Duration, String> {
    let heartbeat = if text == "0" { Duration::ZERO } else { parse(text)? };
    if heartbeat.is_zero() || (MIN_HEARTBEAT..=MAX_HEARTBEAT).contains(&heartbeat) {
        Ok(heartbeat)
    } else {
        Err(format!("not between {MIN_HEARTBEAT:?} and {MAX_HEARTBEAT:?}; 0 is never"))
    }
}

fn lease(text: &str) -> Result<Duration, String> {
    within(text, MIN_HEARTBEAT * 2, MAX_LEASE)
}

fn sweep(text: &str) -> Result<Duration, String> {
    within(text, MIN_SWEEP, MAX_LEASE)
}

fn within(text: &str, least: Duration, most: Duration) -> Result<Duration, String> {
    let duration = parse(text)?;
    if (least..=most).contains(&duration) {
        Ok(duration)
    } else {
        Err(format!("not between {least:?} and {most:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use hopline_proto::bootstrap::PolicyError;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        cadence: CadenceArgs,
    }

    /// The policies after `hopline bootstrap` with these flags.
    fn policies(flags: &[&str]) -> Result<Config, clap::Error> {
        let line = Line::try_parse_from(["bootstrap"].iter().chain(flags))?;
        Ok(line.cadence.apply(Config::default()))
    }

    fn cadence(flags: &[&str]) -> (u64, u64) {
        let policies = policies(flags).unwrap();
        (policies.heartbeat.as_secs(), policies.pool.lease.as_secs())
    }

    #[test]
    fn flags_go_before_presets() {
        assert_eq!(policies(&[]).unwrap(), Config::default());
        assert_eq!(cadence(&["--cadence", "cross-region"]), (20, 75));
        assert_eq!(cadence(&["--cadence", "relaxed", "--heartbeat", "5s"]), (5, 15));
        assert_eq!(cadence(&["--cadence", "classic", "--lease", "5min"]), (60, 300));
        assert_eq!(cadence(&["--heartbeat", "5s", "--lease", "1min"]), (5, 60));
        assert_eq!(cadence(&["--heartbeat", "0"]).0, 0);
        assert_eq!(policies(&["--sweep", "1min"]).unwrap().sweep, Duration::from_secs(60));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for flags in [
            ["--heartbeat", "10ms"],
            ["--heartbeat", "2d"],
            ["--lease", "0s"],
            ["--lease", "30d"],
            ["--sweep", "0s"],
            ["--cadence", "never"],
        ] {
            assert!(policies(&flags).is_err(), "{flags:?}");
        }
        let short = policies(&["--heartbeat", "10s", "--lease", "15s"]).unwrap().validate();
        assert!(matches!(short, Err(PolicyError::ShortLease { .. })), "{short:?}");
    }
}
