//! How patient a node is with bootstraps: a preset.

use hopline_proto::enrolment::Config;

/// What fits which network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Preset {
    /// Failed registrations are repeated after 5 to 80 s
    Default,
    /// After 50 ms to 2 s: for tests and demonstrations on one machine
    Dev,
}

/// How patient to be.
#[derive(Clone, Debug, clap::Args)]
pub struct PatienceArgs {
    /// How long to wait before a bootstrap that did not answer is asked again
    #[arg(long, env = "HOPLINE_PATIENCE", value_enum, default_value = "default", value_name = "PRESET")]
    patience: Preset,
}

impl PatienceArgs {
    /// What these options say.
    pub fn config(&self) -> Config {
        match self.patience {
            Preset::Default => Config::default(),
            Preset::Dev => Config::dev(),
        }
    }
}
