//! What an [`Enrolment`](super::Enrolment) hears, commands and tells.

use crate::rpc::{Lease, Refusal, Request, Response};
use std::time::Duration;

/// Numbers the questions of one [`Enrolment`](super::Enrolment).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attempt(pub u64);

/// A fact that the machine is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The node is ready to serve what it offers.
    Start,
    /// A bootstrap answered.
    Answered {
        /// The request that this is about.
        attempt: Attempt,
        /// The answer.
        response: Response,
    },
    /// A question got no answer.
    Failed {
        /// The request that this is about.
        attempt: Attempt,
        /// Why it failed.
        failure: Failure,
    },
    /// A bootstrap can be reached again, over a connection that the next question may use.
    Reached,
    /// The node wants to take no more flows and leave later.
    Drain,
    /// The node leaves.
    Shutdown,
}

/// Why a question got no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
    /// None came in time.
    Timeout,
    /// There is no connection, or it broke.
    Network,
}

/// A command that the machine gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Ask a bootstrap. Ends in [`Event::Answered`] or [`Event::Failed`].
    Ask {
        /// The question's number.
        attempt: Attempt,
        /// The request.
        request: Request,
        /// Whom: its place in the list of bootstraps.
        bootstrap: usize,
        /// Over a new connection, with the address resolved anew.
        fresh_link: bool,
    },
    /// For the node, its log and its counters.
    Notify(Notice),
}

/// Something that the node should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// It is registered.
    Registered(Lease),
    /// Its lease was renewed; keys and counts may be new.
    Renewed(Lease),
    /// Something is in the way.
    Trouble(Trouble),
    /// It has no lease any more, as it wished.
    Left,
}

/// A [`Notice`] as those see it who watch a node: without keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The node is registered.
    Registered,
    /// Its lease was renewed.
    Renewed,
    /// Something is in the way; it goes on trying.
    Trouble(Trouble),
    /// It has no lease any more, as it wished.
    Left,
}

/// What is in the way of a lease. Whatever it is, the machine goes on trying.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// The list of bootstraps is empty.
    #[error("no bootstrap is known: the ticket names none")]
    NoBootstrap,
    /// A heartbeat failed; the node registers again at once.
    #[error("the lease may be lost: {setback}; registering again")]
    Lost {
        /// What failed.
        setback: Setback,
    },
    /// A registration failed.
    #[error("registration failed: {setback}; trying again in {} ms", retry_after.as_millis())]
    Failed {
        /// What failed.
        setback: Setback,
        /// When it is repeated.
        retry_after: Duration,
    },
    /// Many registrations failed in a row.
    #[error("no bootstrap could be reached in {attempts} attempts; still trying")]
    Timeout {
        /// The number of attempts.
        attempts: u32,
    },
    /// The bootstrap does not want the node.
    #[error("the bootstrap refused: {reason}")]
    Rejected {
        /// The reason.
        reason: Refusal,
    },
    /// The bootstrap is busy.
    #[error("the bootstrap is busy: trying again in {} ms", retry_after.as_millis())]
    Throttled {
        /// When it is asked again.
        retry_after: Duration,
    },
}

/// What went wrong with one question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Setback {
    /// The bootstrap doesn't know the node.
    #[error("the bootstrap does not know this node")]
    Unknown,
    /// The bootstrap could not, or answered nonsense.
    #[error("the bootstrap had an internal error")]
    Internal,
    /// It refused the heartbeat for another reason.
    #[error("the bootstrap refused the heartbeat")]
    Refused,
    /// No answer came in time.
    #[error("no answer in time")]
    Timeout,
    /// There is no connection.
    #[error("no connection")]
    Network,
}

/// How often what has happened. What made a node register again is among them: `offers`, `few_peers`, `unknown`, `internal`,
/// `timeouts`, `network`, `rejected` (the last five count answers to other questions, too).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Registrations asked for.
    pub registrations: u64,
    /// Registrations that brought a lease.
    pub registered: u64,
    /// Those asked for over a fresh link after several failures.
    pub full: u64,
    /// Those that told of a changed offer.
    pub offers: u64,
    /// Those because the bootstrap knew too few peers.
    pub few_peers: u64,
    /// Moves from one bootstrap to the next.
    pub moved: u64,
    /// Heartbeats sent.
    pub heartbeats: u64,
    /// Heartbeats that renewed the lease.
    pub renewed: u64,
    /// Answers that the node is unknown.
    pub unknown: u64,
    /// Internal errors, and answers that were none.
    pub internal: u64,
    /// Questions without an answer in time.
    pub timeouts: u64,
    /// Questions without a connection.
    pub network: u64,
    /// Answers that the bootstrap is busy.
    pub throttled: u64,
    /// Refusals.
    pub rejected: u64,
}
