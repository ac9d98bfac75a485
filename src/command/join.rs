//! What every command that joins a network takes: the ticket and where to keep the identity.

use crate::journal;
use crate::liveness::LivenessArgs;
use crate::patience::PatienceArgs;
use crate::wait::WaitArgs;
use crate::{Exit, Failure};
use clap::Args;
use hopline::endpoint::{Endpoint, Options};
use hopline::net::datadir::{DataDir, Role};
use hopline::net::state::last_ticket;
use hopline::net::ticket::Ticket;
use hopline_proto::enrolment::{Change, Trouble};
use hopline_proto::rpc::Refusal;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

const DATA: &str = "HOPLINE_DATA";

/// How to join.
#[derive(Clone, Debug, Args)]
pub struct JoinArgs {
    /// The network's ticket; by default that of the network joined last
    #[arg(long, env = "HOPLINE_TICKET", value_name = "TICKET", hide_env_values = true)]
    ticket: Option<String>,
    /// Keep this node's identity here, and the routes that lead it on while no bootstrap answers; without it, both are
    /// forgotten with the process
    #[arg(long, env = DATA, value_name = "DIR")]
    data: Option<PathBuf>,
    /// What listings call this node
    #[arg(long = "name", env = "HOPLINE_NAME", value_name = "NAME")]
    node_name: Option<String>,
    #[command(flatten)]
    liveness: LivenessArgs,
    #[command(flatten)]
    patience: PatienceArgs,
    /// For how long to wait for what is not there yet.
    #[command(flatten)]
    pub wait: WaitArgs,
    /// Keep no journal of this node's flows for `hopline explain`
    #[arg(long, env = "HOPLINE_NO_JOURNAL", value_parser = clap::builder::FalseyValueParser::new())]
    no_journal: bool,
}

impl JoinArgs {
    /// The ticket in question: the flag, the environment, or what the last join left.
    pub fn ticket(&self) -> Result<Ticket, Failure> {
        find_ticket(self.ticket.as_deref())
    }

    /// Joins as an endpoint, does this with it, and leaves, whatever came of it: the bootstrap is told, and so are the other ends of
    /// flows that are still open. It ends early if `stop` resolves.
    pub async fn with_endpoint(
        &self,
        hops: u8,
        stop: impl Future<Output = Result<(), Failure>>,
        work: impl AsyncFnOnce(&Endpoint) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let endpoint = self.endpoint(hops).await?;
        let lost = name_lost(endpoint.enrolment());
        // Work that was stopped is dropped only when all is told: a flow that is dropped says less.
        let mut work = pin!(work(&endpoint));
        let result = tokio::select! {
            biased;
            result = &mut work => result,
            stopped = stop => stopped,
            failure = lost => Err(failure),
        };
        let cause = result.as_ref().err().map_or("its process ended", Failure::message);
        endpoint.shutdown_because(cause).await;
        result
    }

    /// Joins as an endpoint, once a bootstrap answers.
    pub async fn endpoint(&self, hops: u8) -> Result<Endpoint, Failure> {
        self.join(hops, self.data.clone()).await
    }

    /// Joins for as long as it takes to look or to tell somebody something. Whose directory the environment names is of no
    /// concern to that: it may be that of a bootstrap, or of an endpoint that runs, on this machine.
    pub async fn visitor(&self) -> Result<Endpoint, Failure> {
        let is_told = |data: &&PathBuf| std::env::var_os(DATA).is_none_or(|told| told != data.as_os_str());
        let is_ours = |data: &Path| {
            Role::of(data) == Some(Role::Endpoint)
                && DataDir::open(data, Role::Endpoint, Duration::ZERO).is_ok()
        };
        let data = self.data.as_ref().filter(|data| is_told(data) || is_ours(data));
        self.join(1, data.cloned()).await
    }

    async fn join(&self, hops: u8, data: Option<PathBuf>) -> Result<Endpoint, Failure> {
        let ticket = self.ticket()?;
        let (name, liveness) = (self.node_name.clone(), self.liveness.config());
        let enrolment = self.patience.config();
        let options = Options { data, name, hops, liveness, enrolment, ..Options::default() };
        let join = async || Ok(Endpoint::join(ticket.clone(), options.clone()).await?);
        let endpoint = self.wait.until(join).await?;
        remember(&ticket);
        if !self.no_journal {
            journal::keep(&endpoint);
        }
        Ok(endpoint)
    }
}

/// Parses `given`, or what the last join left.
pub fn find_ticket(given: Option<&str>) -> Result<Ticket, Failure> {
    let (text, place) = match given {
        Some(text) => (text.to_owned(), "the ticket".to_owned()),
        None => {
            let path = last_ticket().ok_or_else(no_ticket)?;
            let text = std::fs::read_to_string(&path).map_err(|_| no_ticket())?;
            (text, format!("the ticket in {}", path.display()))
        }
    };
    text.trim().parse().map_err(|error| Failure::new(Exit::Usage, format!("{error}")).at(place))
}

/// Leaves the ticket for the next command. Not being able to is no failure.
pub fn remember(ticket: &Ticket) {
    let Some(path) = last_ticket() else { return };
    let text = ticket.to_string();
    if std::fs::read_to_string(&path).is_ok_and(|before| before == text) {
        return;
    }
    if let Err(error) = hopline::net::keyfile::write_memo(&path, &text) {
        tracing::debug!(%error, "did not keep the ticket for next time");
    }
}

fn no_ticket() -> Failure {
    Failure::new(
        Exit::Usage,
        "no ticket: give one with --ticket or HOPLINE_TICKET; `hopline bootstrap` prints its network's",
    )
}

/// Ends once another node has a name that this one served. That happens to whoever was stopped, or cut off, for so long that it
/// was taken for dead.
async fn name_lost(mut changes: broadcast::Receiver<Change>) -> Failure {
    let mut served = false;
    loop {
        match changes.recv().await {
            Ok(Change::Registered | Change::Renewed) => served = true,
            Ok(Change::Trouble(Trouble::Rejected { reason: reason @ Refusal::NameTaken { .. } }))
                if served =>
            {
                return reason.into();
            }
            Ok(Change::Trouble(_) | Change::Left) | Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return std::future::pending().await,
        }
    }
}
