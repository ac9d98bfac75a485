//! How an endpoint joins, said step by step.

use super::{Endpoint, Options, Plane, StartError};
use crate::net::state;
use crate::net::ticket::Ticket;
use futures_util::future::BoxFuture;
use hopline_proto::detector::Liveness;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// The variable in which commands, too, look for a ticket.
const TICKET: &str = "HOPLINE_TICKET";

/// How an endpoint joins; from [`Endpoint::builder`]. What is not said is as the commands have it.
#[derive(Clone, Debug, Default)]
#[must_use = "an endpoint joins with `join`"]
pub struct Builder {
    ticket: Option<Ticket>,
    options: Options,
}

impl Builder {
    /// The ticket of the network to join. Default: the one in the environment variable `HOPLINE_TICKET`, or else that of the network
    /// that a command of this user joined last.
    pub fn ticket(mut self, ticket: Ticket) -> Self {
        self.ticket = Some(ticket);
        self
    }

    /// Where to keep the node's identity, and the routes that lead it on while no bootstrap answers. The directory is made if need be,
    /// and is this process's alone while the endpoint lives. Default: both are forgotten with the process.
    pub fn data_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.options.data = Some(directory.into());
        self
    }

    /// What listings call this node. It is not a name to be reached under: those are [`Endpoint::listen`]'s. Default: the first digits
    /// of its id.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.options.name = Some(name.into());
        self
    }

    /// The local UDP address. Nobody ever connects to an endpoint, so it needs no open port. Default: any port, IPv4 and IPv6.
    pub fn bind(mut self, address: SocketAddr) -> Self {
        self.options.bind = address;
        self
    }

    /// The number of relays on the chain of each flow that it opens: 1 to 8. Default: 3.
    pub fn hops(mut self, hops: u8) -> Self {
        self.options.hops = hops;
        self
    }

    /// How soon a silent relay is given up: a preset for the network between the nodes. Default: [`Liveness::Auto`].
    pub fn liveness(mut self, preset: Liveness) -> Self {
        self.options.liveness = preset.config();
        self
    }

    /// How the flows that it opens travel. Default: [`Plane::Stored`]. What others open to it comes either way.
    pub fn plane(mut self, plane: Plane) -> Self {
        self.options.plane = plane;
        self
    }

    /// Sends each packet over two chains, which share no relay if the pool has enough, so that nothing that happens to the relays of one
    /// interrupts a flow. That takes twice the bandwidth, and [`Plane::Session`], which it chooses. Default: off.
    pub fn redundant(mut self) -> Self {
        (self.options.plane, self.options.redundant) = (Plane::Session, true);
        self
    }

    /// How long this end keeps a flow that does not reach its other end, as while a machine sleeps or the network is away. After that
    /// the flow is lost. Each end keeps its flows for as long as it was told itself, so both need the longer time. A killed process at the
    /// other end is noticed as late. Default: 25 seconds.
    pub fn flow_timeout(mut self, timeout: Duration) -> Self {
        self.options.flow_timeout = timeout;
        self
    }

    /// Joins the network. Resolves when a bootstrap has let this node in, within about 10 seconds for each bootstrap of the ticket.
    /// It does not try again: commands do so for 10 seconds (`--wait`).
    ///
    /// The future may be dropped at any point; then the node does not join.
    ///
    /// # Errors
    /// [`StartError`]: no tokio runtime, no ticket, a data directory that is in use, or a bootstrap that does not answer or refuses.
    pub fn join(self) -> BoxFuture<'static, Result<Endpoint, StartError>> {
        Box::pin(async move {
            let ticket = match self.ticket {
                Some(ticket) => ticket,
                None => ticket_at_hand()?,
            };
            Endpoint::join(ticket, self.options).await
        })
    }
}

/// The ticket that commands take where none is given.
fn ticket_at_hand() -> Result<Ticket, StartError> {
    let given = std::env::var(TICKET).ok().filter(|text| !text.is_empty());
    let last = || std::fs::read_to_string(state::last_ticket()?).ok();
    let text = given.or_else(last).ok_or(StartError::NoTicket)?;
    text.trim().parse().map_err(StartError::Ticket)
}
