//! What every command that joins a network takes: the ticket and where to keep the identity.

use crate::journal;
use crate::liveness::LivenessArgs;
use crate::plane::PlaneArgs;
use crate::retry::RetryArgs;
use crate::wait::WaitArgs;
use crate::{Exit, Failure};
use clap::Args;
use futures_util::future::LocalBoxFuture;
use hopline::endpoint::{Endpoint, Options};
use hopline::net::datadir::{DataDir, Role};
use hopline::net::state::last_ticket;
use hopline::net::ticket::Ticket;
use hopline::net::transport::Congestion;
use hopline_proto::enrolment::{Change, Trouble};
use hopline_proto::rpc::Refusal;
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::time::Duration;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

const DATA: &str = "HOPLINE_DATA";

/// Which network, and as whom.
#[derive(Clone, Debug, Args)]
pub struct NetworkArgs {
    /// The network's ticket; by default that of the network joined last
    #[arg(long, env = "HOPLINE_TICKET", value_name = "TICKET", hide_env_values = true)]
    ticket: Option<String>,
    /// Directory for this node's identity and its kept routes; without it, both end with the process
    #[arg(long, env = DATA, value_name = "DIR")]
    data: Option<PathBuf>,
    /// For how long to wait for what is not there yet.
    #[command(flatten)]
    pub wait: WaitArgs,
}

/// How an endpoint joins.
#[derive(Clone, Debug, Args)]
pub struct JoinArgs {
    /// Which network, and as whom.
    #[command(flatten)]
    pub network: NetworkArgs,
    /// This node's own name, as listings show it
    #[arg(long, alias = "name", env = "HOPLINE_NODE_NAME", value_name = "NODE")]
    node_name: Option<String>,
    /// How long to keep a flow that does not reach its other end; then it is lost
    #[arg(long, env = "HOPLINE_FLOW_TIMEOUT", default_value = "25s", value_name = "DURATION", value_parser = crate::duration::parse_positive)]
    flow_timeout: Duration,
    /// How this end of a session finds its pace
    #[arg(long, env = "HOPLINE_CONGESTION", value_enum, value_name = "ALGORITHM", default_value = "cubic")]
    congestion: CongestionArg,
    #[command(flatten)]
    liveness: LivenessArgs,
}

/// As on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum CongestionArg {
    /// As the rest of the Internet does: each lost packet slows it down
    Cubic,
    /// For paths that lose packets without being full; it keeps more packets on the way
    Bbr,
}

/// How an endpoint joins that opens flows.
#[derive(Clone, Debug, Args)]
pub struct OpenArgs {
    /// Relays on the chain
    #[arg(long, env = "HOPLINE_HOPS", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=8))]
    hops: u8,
    #[command(flatten)]
    plane: PlaneArgs,
    /// How it joins.
    #[command(flatten)]
    pub join: JoinArgs,
    /// Keep no journal of this node's flows for `hopline explain`
    #[arg(long, env = "HOPLINE_NO_JOURNAL", value_parser = clap::builder::FalseyValueParser::new())]
    no_journal: bool,
}

/// How an endpoint joins that serves a name.
#[derive(Clone, Debug, Args)]
pub struct ServeArgs {
    /// How it joins.
    #[command(flatten)]
    pub join: JoinArgs,
    #[command(flatten)]
    retry: RetryArgs,
}

impl NetworkArgs {
    /// The ticket in question: the flag, the environment, or what the last join left.
    pub fn ticket(&self) -> Result<Ticket, Failure> {
        find_ticket(self.ticket.as_deref())
    }

    /// Joins for as long as it takes to look or to tell somebody something. Whose directory the environment names is of no
    /// concern to that: it may be that of a bootstrap, or of an endpoint that runs, on this machine.
    pub fn visitor(&self) -> LocalBoxFuture<'_, Result<Endpoint, Failure>> {
        Box::pin(async move {
            let is_told =
                |data: &&PathBuf| std::env::var_os(DATA).is_none_or(|told| told != data.as_os_str());
            let is_ours = |data: &Path| {
                Role::of(data) == Some(Role::Endpoint)
                    && DataDir::open(data, Role::Endpoint, Duration::ZERO).is_ok()
            };
            let data = self.data.as_ref().filter(|data| is_told(data) || is_ours(data));
            self.join(Options { data: data.cloned(), ..Options::default() }).await
        })
    }

    /// Joins once a bootstrap answers.
    async fn join(&self, options: Options) -> Result<Endpoint, Failure> {
        let ticket = self.ticket()?;
        let join = async || Ok(Endpoint::join(ticket.clone(), options.clone()).await?);
        let endpoint = self.wait.until(join).await?;
        remember(&ticket);
        Ok(endpoint)
    }
}

impl JoinArgs {
    async fn join(&self, options: Options) -> Result<Endpoint, Failure> {
        let (data, name) = (self.network.data.clone(), self.node_name.clone());
        let (liveness, flow_timeout) = (self.liveness.config(), self.flow_timeout);
        let mut transport = options.transport;
        transport.session_congestion = match self.congestion {
            CongestionArg::Cubic => Congestion::Cubic,
            CongestionArg::Bbr => Congestion::Bbr,
        };
        self.network.join(Options { data, name, liveness, flow_timeout, transport, ..options }).await
    }
}

impl OpenArgs {
    /// Joins once a bootstrap answers.
    pub fn endpoint(&self) -> LocalBoxFuture<'_, Result<Endpoint, Failure>> {
        Box::pin(async move {
            let options = self.plane.options(Options { hops: self.hops, ..Options::default() })?;
            let endpoint = self.join.join(options).await?;
            if !self.no_journal {
                journal::keep(&endpoint);
            }
            Ok(endpoint)
        })
    }
}

impl ServeArgs {
    /// Joins once a bootstrap answers.
    pub fn endpoint(&self) -> LocalBoxFuture<'_, Result<Endpoint, Failure>> {
        Box::pin(self.join.join(Options { enrolment: self.retry.config(), ..Options::default() }))
    }
}

/// Does this work with the endpoint, and leaves, whatever came of it: the bootstrap is told, and so are the other ends of flows
/// that are still open. Ends early if `stop` resolves.
pub async fn with_endpoint(
    endpoint: Endpoint,
    stop: impl Future<Output = Result<(), Failure>>,
    work: impl AsyncFnOnce(&Endpoint) -> Result<(), Failure>,
) -> Result<(), Failure> {
    // Work that was stopped is dropped only when all is told: a flow that is dropped says less.
    let (stop, work) = (pin!(stop), pin!(work(&endpoint)));
    until_done(&endpoint, stop, work).await
}

/// The same for any work, so that it is compiled once.
fn until_done<'a>(
    endpoint: &'a Endpoint,
    stop: Pin<&'a mut dyn Future<Output = Result<(), Failure>>>,
    mut work: Pin<&'a mut dyn Future<Output = Result<(), Failure>>>,
) -> LocalBoxFuture<'a, Result<(), Failure>> {
    Box::pin(async move {
        let lost = name_lost(endpoint.enrolment());
        let result = tokio::select! {
            biased;
            result = &mut work => result,
            stopped = stop => stopped,
            failure = lost => Err(failure),
        };
        let cause = result.as_ref().err().map_or("its process ended", Failure::message);
        endpoint.shutdown_because(cause).await;
        result
    })
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
