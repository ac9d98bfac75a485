//! Where a network's view comes from.

use super::NetworkView;
use super::admin::{Admin, Events};
use hopline::endpoint::Endpoint;
use hopline_command::Failure;
use hopline_command::join::NetworkArgs;

/// Whom to ask.
#[derive(Debug, clap::Args)]
pub(crate) struct SourceArgs {
    /// Ask the bootstrap's admin server at this address instead of joining with a ticket; it shows more
    #[arg(long, env = "HOPLINE_ADMIN", value_name = "ADDR|URL")]
    admin: Option<Admin>,
    #[command(flatten)]
    network: NetworkArgs,
}

impl SourceArgs {
    /// Gets ready to ask.
    pub(crate) async fn open(&self) -> Result<Source, Failure> {
        if let Some(admin) = &self.admin {
            return Ok(Source::Admin(admin.clone()));
        }
        let network = self.network.ticket()?.network().to_string();
        Ok(Source::Member { network, endpoint: self.network.visitor().await? })
    }
}

/// Who is asked. Clones ask the same.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// The bootstrap's admin server, over HTTP.
    Admin(Admin),
    /// The bootstrap itself, over QUIC, by a member of the network.
    Member {
        /// The network's key.
        network: String,
        /// The member.
        endpoint: Endpoint,
    },
}

impl Source {
    /// The network as it is now.
    pub(crate) async fn view(&self) -> Result<NetworkView, Failure> {
        match self {
            Self::Admin(admin) => admin.view().await,
            Self::Member { network, endpoint } => {
                let listing = endpoint.list().await.map_err(|_| {
                    Failure::no_bootstrap(
                        "the bootstrap admitted this node, but did not answer; see whether it runs, and try again",
                    )
                })?;
                Ok(NetworkView::from_listing(network.clone(), &listing))
            }
        }
    }

    /// What happens from now on, if this source tells.
    pub(crate) async fn events(&self) -> Option<Events> {
        match self {
            Self::Admin(admin) => admin.events().await.ok(),
            Self::Member { .. } => None,
        }
    }

    /// Leaves the network again.
    pub(crate) async fn close(self) {
        match self {
            Self::Admin(_) => {}
            Self::Member { endpoint, .. } => endpoint.shutdown().await,
        }
    }
}
