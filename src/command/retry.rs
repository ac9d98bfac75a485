//! How soon a node asks a bootstrap again that did not answer: a preset.

use hopline_proto::enrolment::Config;

/// What fits which network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Preset {
    /// Retry after 5 to 80 s
    Default,
    /// Retry after 50 ms to 2 s: for tests and demonstrations on one machine
    Dev,
}

/// The retry profile.
#[derive(Clone, Debug, clap::Args)]
pub struct RetryArgs {
    /// Retry profile for registrations that no bootstrap answers
    #[arg(
        long,
        alias = "patience",
        env = "HOPLINE_RETRY",
        value_enum,
        default_value = "default",
        value_name = "PRESET"
    )]
    retry: Preset,
}

impl RetryArgs {
    /// What these options say.
    pub fn config(&self) -> Config {
        match self.retry {
            Preset::Default => Config::default(),
            Preset::Dev => Config::dev(),
        }
    }
}
