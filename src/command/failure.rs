//! How a command fails: an exit code, and a line with the cause, the place, and what to do next.

#![expect(clippy::wildcard_enum_match_arm, reason = "what has no exit code of its own has failed")]

use crate::say::say;
use hopline::endpoint::{DrainError, FlowError, ListenError, OpenError, SendError, StartError};
use hopline::net::bootstrap_client::JoinError;
use hopline::net::datadir::DataDirError;
use hopline::net::error::ErrorKind;
use hopline_proto::machine::OpenFailure;
use hopline_proto::rpc::Refusal;
use std::fmt::Display;
use std::process::ExitCode;

/// The exit codes that scripts rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It did not work.
    Failed = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// No bootstrap could be reached.
    NoBootstrap = 3,
    /// The bootstrap refused: ticket, revoked, unknown name.
    Refused = 4,
    /// There are fewer relays than hops.
    PoolTooSmall = 5,
    /// The flow is lost: its other end is gone, or no path was found in time.
    FlowLost = 6,
}

/// Why a command failed.
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    message: String,
    /// What may mend it by itself.
    awaits: Option<&'static str>,
}

const A_BOOTSTRAP: &str = "a bootstrap to answer";

impl Failure {
    /// A failure with its last line.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), awaits: None }
    }

    /// The same failure, which may mend by itself when this comes.
    #[must_use]
    pub const fn awaiting(mut self, what: &'static str) -> Self {
        self.awaits = Some(what);
        self
    }

    /// What may mend it by itself; `None` if it is no use to wait.
    pub const fn awaits(&self) -> Option<&'static str> {
        self.awaits
    }

    /// What went wrong, without what to do about it.
    pub fn cause(&self) -> &str {
        self.message.split_once("; ").map_or(&self.message, |(cause, _)| cause)
    }

    /// No bootstrap answers, so far.
    pub fn no_bootstrap(message: impl Into<String>) -> Self {
        Self::new(Exit::NoBootstrap, message).awaiting(A_BOOTSTRAP)
    }

    /// The exit code.
    #[must_use]
    pub const fn exit(&self) -> Exit {
        self.exit
    }

    /// The last line.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The same failure, and where it happened.
    #[must_use]
    pub fn at(mut self, place: impl Display) -> Self {
        self.message = format!("{place}: {}", self.message);
        self
    }

    /// Prints the last line and gives the exit code.
    pub fn report(self) -> ExitCode {
        say(&self.message);
        ExitCode::from(self.exit as u8)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<FlowError>()) {
            Some(flow) => flow.clone().into(),
            None if error.kind() == std::io::ErrorKind::BrokenPipe => {
                Self::new(Exit::Failed, "the reader of this command's output has closed it")
            }
            None => Self::new(Exit::Failed, error.to_string()),
        }
    }
}

impl From<FlowError> for Failure {
    fn from(error: FlowError) -> Self {
        let next = match error {
            FlowError::Version(_) => return Self::new(Exit::Refused, error.to_string()),
            FlowError::Aborted { .. } => "see there what it needs, and try again",
            FlowError::OutOfTime { .. } => "set the clock that is wrong, and try again",
            FlowError::Untrusted { .. } => "see there whether its clock is right, and try again",
            FlowError::Unknown | FlowError::Lost => "see whether the process that serves it runs",
            _ => "see `hopline status` for the relays that are up, and try again",
        };
        Self::new(Exit::FlowLost, format!("the flow is lost: {error}; {next}"))
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let (exit, next) = match &refusal {
            Refusal::UnknownName { .. } => {
                (Exit::Refused, "`hopline status` lists the names; serve it with `hopline listen NAME`")
            }
            Refusal::NameTaken { .. } => {
                (Exit::Refused, "choose another name, or end the process that serves it")
            }
            Refusal::PoolTooSmall { .. } => {
                (Exit::PoolTooSmall, "start more relays with `hopline relay TICKET`, or ask for fewer --hops")
            }
            Refusal::OutOfReach { .. } => (
                Exit::PoolTooSmall,
                "give this machine an address of the other IP family, or start relays that have both",
            ),
            Refusal::UnknownRelay { .. } => (Exit::Refused, "`hopline status` lists the relays"),
            Refusal::AmbiguousRelay { .. } => {
                (Exit::Refused, "name it by its id, which `hopline status --json` shows")
            }
            Refusal::Denied { .. } => (Exit::Refused, "ask whoever runs the bootstrap"),
            Refusal::UnknownRequest => (Exit::Refused, "upgrade the bootstrap"),
            Refusal::Unknown => (Exit::Refused, "upgrade this node"),
            _ => (Exit::Failed, "try again"),
        };
        let failure = Self::new(exit, format!("{refusal}; {next}"));
        match refusal {
            Refusal::UnknownName { .. } | Refusal::NotAttached { .. } => {
                failure.awaiting("somebody to serve it")
            }
            Refusal::PoolTooSmall { .. } => failure.awaiting("more relays"),
            Refusal::Throttled { .. } | Refusal::Internal => failure.awaiting("the bootstrap"),
            _ => failure,
        }
    }
}

impl From<DrainError> for Failure {
    fn from(error: DrainError) -> Self {
        match error {
            DrainError::Refused(refusal) => refusal.into(),
            DrainError::Bootstrap(error) => (&*error).into(),
            error => Self::new(Exit::Failed, error.to_string()),
        }
    }
}

impl From<JoinError> for Failure {
    fn from(error: JoinError) -> Self {
        (&error).into()
    }
}

impl From<&JoinError> for Failure {
    fn from(error: &JoinError) -> Self {
        let exit = match error.kind() {
            ErrorKind::Refused => Exit::Refused,
            ErrorKind::Unreachable | ErrorKind::Overloaded => Exit::NoBootstrap,
            _ => Exit::Failed,
        };
        let failure = Self::new(exit, error.to_string());
        if exit == Exit::NoBootstrap { failure.awaiting(A_BOOTSTRAP) } else { failure }
    }
}

impl From<DataDirError> for Failure {
    fn from(error: DataDirError) -> Self {
        let is_misuse = matches!(error, DataDirError::OtherRole { .. });
        Self::new(if is_misuse { Exit::Usage } else { Exit::Failed }, error.to_string())
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Join(error) => error.into(),
            StartError::Data(error) => error.into(),
            error => Self::new(Exit::Failed, error.to_string()),
        }
    }
}

impl From<hopline::relay::StartError> for Failure {
    fn from(error: hopline::relay::StartError) -> Self {
        match error {
            hopline::relay::StartError::Join(error) => error.into(),
            hopline::relay::StartError::Data(error) => error.into(),
            error => Self::new(Exit::Failed, error.to_string()),
        }
    }
}

impl From<hopline::bootstrap::StartError> for Failure {
    fn from(error: hopline::bootstrap::StartError) -> Self {
        match error {
            hopline::bootstrap::StartError::Data(error) => error.into(),
            error @ (hopline::bootstrap::StartError::Policies(_)
            | hopline::bootstrap::StartError::Validity { .. }) => Self::new(Exit::Usage, error.to_string()),
            error => Self::new(Exit::Failed, error.to_string()),
        }
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Route(OpenFailure::Refused(refusal)) => refusal.into(),
            OpenError::Route(OpenFailure::NoAnswer(_)) => Self::no_bootstrap(
                "no bootstrap answered when a route was asked for; see whether it runs, and try again",
            ),
            OpenError::Flow(error) => error.into(),
            OpenError::Outdated(_) => {
                Self::no_bootstrap(format!("{error}; see whether the bootstrap runs, and try again"))
            }
            OpenError::Hops { .. } => Self::new(Exit::Usage, error.to_string()),
            error => Self::new(Exit::Failed, error.to_string()),
        }
    }
}

impl From<SendError> for Failure {
    fn from(error: SendError) -> Self {
        match error {
            // Who gives a flow up with a cause takes nothing more, as one who refuses.
            SendError::Refused { .. }
            | SendError::Open(OpenError::Flow(FlowError::Aborted { .. }))
            | SendError::Broken(FlowError::Aborted { .. })
            | SendError::Lost(FlowError::Aborted { .. }) => {
                Self::new(Exit::Refused, format!("{error}; see there what it waits for"))
            }
            SendError::Open(error) => error.into(),
            SendError::Broken(_) | SendError::Lost(_) => Self::new(
                Exit::FlowLost,
                format!("{error}; see whether the process that serves it runs, and send it again"),
            ),
            error => Self::new(Exit::Usage, error.to_string()),
        }
    }
}

impl From<ListenError> for Failure {
    fn from(error: ListenError) -> Self {
        match error {
            ListenError::Refused(refusal) => refusal.into(),
            error => Self::new(Exit::Failed, error.to_string()),
        }
    }
}
