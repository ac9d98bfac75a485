//! How an endpoint's flows travel.

use crate::{Exit, Failure};
use hopline::endpoint::{Options, Plane};
use std::time::Duration;

/// As on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum PlaneArg {
    /// Relays keep a flow's bytes until they have arrived: for links that lose packets
    Stored,
    /// Relays pass packets on; all flows to a name share one QUIC connection from end to end: faster, and opened at once
    Session,
}

/// How flows travel.
#[derive(Clone, Debug, clap::Args)]
pub struct PlaneArgs {
    /// How flows travel [default: stored, with --redundant session]
    #[arg(long, env = "HOPLINE_PLANE", value_enum, value_name = "PLANE")]
    plane: Option<PlaneArg>,
    /// Send each packet over two chains without a common relay: what happens to one interrupts nothing
    #[arg(long, env = "HOPLINE_REDUNDANT", value_parser = clap::builder::FalseyValueParser::new())]
    redundant: bool,
    /// Close a session that has carried no flow for so long; the next flow opens another
    #[arg(long, env = "HOPLINE_SESSION_IDLE", default_value = "5min", value_name = "DURATION", value_parser = crate::duration::parse)]
    session_idle: Duration,
}

impl PlaneArgs {
    /// These options, with what was asked for here.
    ///
    /// # Errors
    /// [`Failure`] if it contradicts itself.
    pub fn options(&self, options: Options) -> Result<Options, Failure> {
        if self.redundant && self.plane == Some(PlaneArg::Stored) {
            let cause = "--redundant sends packets over two chains, which --plane stored can't; leave one of the two out";
            return Err(Failure::new(Exit::Usage, cause));
        }
        let plane = match self.plane {
            Some(PlaneArg::Session) => Plane::Session,
            None if self.redundant => Plane::Session,
            Some(PlaneArg::Stored) | None => Plane::Stored,
        };
        Ok(Options { plane, redundant: self.redundant, session_idle: self.session_idle, ..options })
    }

    /// What it comes to, in a word.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match (self.redundant, self.plane) {
            (true, _) => "redundant",
            (false, Some(PlaneArg::Session)) => Plane::Session.as_str(),
            (false, Some(PlaneArg::Stored) | None) => Plane::Stored.as_str(),
        }
    }
}
