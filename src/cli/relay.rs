//! `hopline relay`

use crate::admin::{Place, tell};
use bytesize::ByteSize;
use hopline::admin::{self, Listener};
use hopline::relay::{Options, Relay};
use hopline_command::join::{find_ticket, remember};
use hopline_command::liveness::LivenessArgs;
use hopline_command::retry::RetryArgs;
use hopline_command::{Exit, Failure, ready, say, signals};
use hopline_proto::dialable::undialable;
use hopline_proto::record::MAX_ADDRESSES;
use hopline_proto::rpc::Capabilities;
use serde_json::json;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};

/// Join a network's pool and carry flows.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  hopline relay \"$(cat boot/ticket)\"
  hopline relay --zone eu-1 --name r1 --data ./r1
  hopline relay --listen '[::]:4433' --advertise 203.0.113.7:4433
  hopline relay --listen '[::]:4433' --advertise '203.0.113.7:4433,[2001:db8::7]:4433'
  hopline relay --admin 127.0.0.1:9091      serve its metrics
  hopline relay --liveness satellite        for round trips of half a second and more
  hopline relay --heartbeat 25ms            40 heartbeats a second on busy links, whatever the round trip")]
pub(super) struct Args {
    /// The network's ticket; by default that of the network joined last
    #[arg(env = "HOPLINE_TICKET", hide_env_values = true)]
    ticket: Option<String>,
    /// The network's ticket, as a flag
    #[arg(long = "ticket", value_name = "TICKET", conflicts_with = "ticket")]
    ticket_flag: Option<String>,
    /// The local UDP address; port 0 takes any free one, [::] all addresses of both IP families, 0.0.0.0 those of IPv4
    #[arg(long, env = "HOPLINE_LISTEN", default_value = "[::]:0", value_name = "ADDR")]
    listen: SocketAddr,
    /// The addresses at which other nodes dial this relay, if not the local ones: up to four, the preferred one first
    #[arg(long, env = "HOPLINE_ADVERTISE", value_name = "ADDR,...", value_delimiter = ',', num_args = 1, value_parser = dialable)]
    advertise: Vec<SocketAddr>,
    /// Directory for this relay's identity; without it, the identity ends with the process
    #[arg(long, env = "HOPLINE_DATA", value_name = "DIR")]
    data: Option<PathBuf>,
    /// This relay's name, as listings show it
    #[arg(long, alias = "node-name", env = "HOPLINE_NAME", value_name = "NAME", value_parser = hopline_command::name::parse)]
    name: Option<String>,
    /// The relay's failure domain: a rack, a data centre, a provider
    #[arg(long, env = "HOPLINE_ZONE", default_value = "", value_name = "ZONE", value_parser = hopline_command::name::parse_zone)]
    zone: String,
    /// Most flows that it carries
    #[arg(long, env = "HOPLINE_CAPACITY", default_value_t = 1000, value_name = "FLOWS")]
    capacity: u32,
    /// The relay is behind a NAT that blocks incoming dials: it is assigned to no chain
    #[arg(long, env = "HOPLINE_BEHIND_NAT")]
    behind_nat: bool,
    /// Show this relay in listings as willing to bridge relays that cannot be dialled; nothing uses that yet
    #[arg(long, env = "HOPLINE_BRIDGE")]
    bridge: bool,
    /// Where to serve the admin pages over HTTP (/healthz, /readyz, /metrics); port 0 takes any free one
    #[arg(long, env = "HOPLINE_ADMIN_LISTEN", default_value = "off", value_name = "ADDR|off")]
    admin: Place,
    /// How long to wait at SIGTERM or Ctrl-C until all flows have moved to other relays
    #[arg(long, env = "HOPLINE_DRAIN_TIMEOUT", default_value = "30s", value_name = "TIME", value_parser = hopline_command::duration::parse)]
    drain_timeout: Duration,
    /// Answer each line of stdin with a line of counters: for benchmarks
    #[arg(long, hide = true)]
    counters: bool,
    #[command(flatten)]
    liveness: LivenessArgs,
    #[command(flatten)]
    retry: RetryArgs,
    /// Most bytes kept for replay, over all flows; by default a quarter of the machine's memory
    #[arg(long, env = "HOPLINE_REPLAY_BUDGET", value_name = "SIZE", value_parser = hopline_command::size::parse)]
    replay_budget: Option<ByteSize>,
}

/// An address for others to dial.
fn dialable(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr =
        text.parse().map_err(|_| "an address is IP:PORT, as in 192.0.2.7:4433 or [2001:db8::7]:4433")?;
    undialable(address).map_or(Ok(address), |why| Err(why.to_string()))
}

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    if args.advertise.len() > MAX_ADDRESSES {
        let message = format!("--advertise takes {MAX_ADDRESSES} addresses at most");
        return Err(Failure::new(Exit::Usage, message));
    }
    let ticket = find_ticket(args.ticket_flag.or(args.ticket).as_deref())?;
    let defaults = Options::default();
    let options = Options {
        listen: args.listen,
        advertise: args.advertise,
        data: args.data,
        name: args.name,
        zone: args.zone,
        capacity: args.capacity,
        capabilities: Capabilities { reachable: !args.behind_nat, bridge: args.bridge },
        drain_timeout: args.drain_timeout,
        liveness: args.liveness.config(),
        enrolment: args.retry.config(),
        replay_bytes: args.replay_budget.map_or(defaults.replay_bytes, |size| size.0),
        ..defaults
    };
    let listener = args.admin.listen().await?;
    let mut relay = Relay::start(ticket.clone(), options).await?;
    remember(&ticket);
    let url = listener.as_ref().map(Listener::url);
    let _admin = listener.map(|listener| listener.serve(admin::relay::pages(relay.observe())));
    tokio::select! {
        refused = relay.enrolled() => {
            if let Err(refusal) = refused {
                relay.drain().await;
                return Err(refusal.into());
            }
        }
        () = signals::shutdown() => {
            relay.drain().await;
            return Ok(());
        }
    }
    let mut fields = json!({
        "role": "relay",
        "name": relay.name(),
        "id": relay.id().to_string(),
        "addr": relay.addresses().first().map(ToString::to_string),
    });
    tell(url, &mut fields);
    ready::print(&fields);
    tokio::select! {
        () = signals::shutdown() => {}
        () = relay.ended() => return Ok(()),
        failed = answer(&relay), if args.counters => failed?,
    }
    relay.drain().await;
    Ok(())
}

/// Tells what the relay thought of its neighbours, whenever a line comes.
async fn answer(relay: &Relay) -> Result<(), Failure> {
    let mut questions = BufReader::new(tokio::io::stdin()).lines();
    while questions.next_line().await?.is_some() {
        let mut out = say::output();
        writeln!(out, "{}", json!(relay.neighbours()))?;
        out.flush()?;
    }
    std::future::pending().await
}
