//! `hopline bootstrap`

use super::{Exit, Failure, ready, signals};
use crate::bootstrap::{Options, Server};
use serde_json::json;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Start a network's coordinator. Its ticket, which relays and endpoints join with, goes to DIR/ticket and stdout.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  hopline bootstrap --data ./boot
  hopline bootstrap --listen 0.0.0.0:4400 --advertise boot.example.net:4400 --data /var/lib/hopline")]
pub(super) struct Args {
    /// The local UDP address; port 0 takes any free one
    #[arg(long, env = "HOPLINE_LISTEN", default_value = "127.0.0.1:0", value_name = "ADDR")]
    listen: SocketAddr,
    /// The address that the ticket names, if that is not the local one; give several for several bootstraps
    #[arg(long, env = "HOPLINE_ADVERTISE", value_name = "HOST:PORT", value_delimiter = ',')]
    advertise: Vec<String>,
    /// Keep the network's keys here; without it the network ends with the process
    #[arg(long, env = "HOPLINE_DATA", value_name = "DIR")]
    data: Option<PathBuf>,
}

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let options =
        Options { listen: args.listen, data: args.data, advertise: args.advertise, ..Options::default() };
    let server =
        Server::start(options).await.map_err(|error| Failure::new(Exit::Failed, error.to_string()))?;
    ready::print(&json!({
        "role": "bootstrap",
        "name": "bootstrap",
        "id": server.id().to_string(),
        "addr": server.local_addr().to_string(),
        "ticket": server.ticket().to_string(),
    }));
    signals::shutdown().await;
    server.shutdown().await;
    Ok(())
}
