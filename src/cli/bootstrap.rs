//! `hopline bootstrap`

use crate::admin::{Place, tell};
use crate::cadence::CadenceArgs;
use clap::builder::RangedI64ValueParser;
use hopline::admin::{self, Listener, webhook};
use hopline::bootstrap::{Limits, Options, Server};
use hopline::store::StoreKind;
use hopline::store::redb::RedbFile;
use hopline_command::duration::parse_positive;
use hopline_command::{Failure, ready, signals};
use hopline_proto::bootstrap::Config;
use serde_json::json;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Start a network's bootstrap. Relays and endpoints join with its ticket, which is in DIR/ticket and in the ready line.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  hopline bootstrap --data ./boot
  hopline bootstrap --cadence relaxed           for very many relays
  hopline bootstrap --certificate-lifetime 1d --route-lifetime 1d --key-epoch 1h
  hopline bootstrap --admin 127.0.0.1:9090 --webhook http://127.0.0.1:8080/hopline
  hopline bootstrap --listen '[::]:4400' --advertise boot.example.net:4400 --data /var/lib/hopline")]
pub(super) struct Args {
    /// The local UDP address; port 0 takes any free one, [::] all addresses of both IP families
    #[arg(long, env = "HOPLINE_LISTEN", default_value = "127.0.0.1:0", value_name = "ADDR")]
    listen: SocketAddr,
    /// The address in the ticket, if not the local one: several for several bootstraps, or a name with SRV records, such as
    /// _hopline._udp.example.net
    #[arg(long, env = "HOPLINE_ADVERTISE", value_name = "HOST:PORT", value_delimiter = ',')]
    advertise: Vec<String>,
    /// Directory for the network's keys; without it, the network ends with the process
    #[arg(long, env = "HOPLINE_DATA", value_name = "DIR")]
    data: Option<PathBuf>,
    /// How long a route can open new flows; routes of open flows are renewed in time
    #[arg(long, env = "HOPLINE_ROUTE_LIFETIME", default_value = "7d", value_name = "TIME", value_parser = parse_positive)]
    route_lifetime: Duration,
    /// How long a membership certificate is valid; nodes renew it at two thirds
    #[arg(long, env = "HOPLINE_CERTIFICATE_LIFETIME", default_value = "7d", value_name = "TIME", value_parser = parse_positive)]
    certificate_lifetime: Duration,
    /// How long a relay's key is in use; at least a sixtieth of the route lifetime plus a lease
    #[arg(long, env = "HOPLINE_KEY_EPOCH", default_value = "1d", value_name = "TIME", value_parser = parse_positive)]
    key_epoch: Duration,
    /// Where to store registrations, so that a restart does not lose them: redb is a file in DIR
    #[arg(long, env = "HOPLINE_STORE", default_value = "redb", value_name = "KIND", value_parser = store)]
    store: Arc<dyn StoreKind>,
    /// Most requests answered each second; beyond that, listings are refused first and heartbeats last
    #[arg(long, env = "HOPLINE_MAX_REQUESTS", default_value_t = Limits::default().requests, value_name = "N", value_parser = rate())]
    max_requests: u32,
    /// Most requests of one member answered each second; twice as many at once after a pause
    #[arg(long, env = "HOPLINE_MAX_REQUESTS_PER_MEMBER", default_value_t = Limits::default().requests_of_member, value_name = "N", value_parser = rate())]
    max_requests_per_member: u32,
    /// Where to serve the admin pages over HTTP (/peers, /healthz, /readyz, /metrics, /events); port 0 takes any free one
    #[arg(long, env = "HOPLINE_ADMIN_LISTEN", default_value = "127.0.0.1:0", value_name = "ADDR|off")]
    admin: Place,
    /// POST a JSON object to this URL when relays go offline or come back, and when self-preservation begins or ends
    #[arg(long, env = "HOPLINE_WEBHOOK", value_name = "URL")]
    webhook: Option<webhook::Url>,
    #[command(flatten)]
    cadence: CadenceArgs,
}

/// Where registrations are kept.
fn store(kind: &str) -> Result<Arc<dyn StoreKind>, &'static str> {
    match kind {
        "redb" => Ok(Arc::new(RedbFile)),
        _ => Err("the only kind is redb"),
    }
}

/// So many that one takes no less than a microsecond.
fn rate() -> RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=1_000_000)
}

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let policies =
        Config { record_lifetime: args.route_lifetime, key_epoch: args.key_epoch, ..Config::default() };
    let policies = args.cadence.apply(policies);
    let limits = Limits {
        requests: args.max_requests,
        requests_of_member: args.max_requests_per_member,
        ..Limits::default()
    };
    let options = Options {
        listen: args.listen,
        data: args.data,
        store: args.store,
        advertise: args.advertise,
        validity: args.certificate_lifetime,
        policies,
        limits,
        ..Options::default()
    };
    let listener = args.admin.listen().await?;
    let server = Server::start(options).await?;
    let mut fields = json!({
        "role": "bootstrap",
        "name": "bootstrap",
        "id": server.id().to_string(),
        "addr": server.local_addr().to_string(),
        "ticket": server.ticket().to_string(),
    });
    tell(listener.as_ref().map(Listener::url), &mut fields);
    let _admin = listener.map(|listener| listener.serve(admin::bootstrap::pages(server.observe())));
    if let Some(url) = args.webhook {
        tokio::spawn(webhook::run(url, server.observe()));
    }
    ready::print(&fields);
    signals::shutdown().await;
    server.shutdown().await;
    Ok(())
}
