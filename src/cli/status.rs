//! `hopline status`

use super::join::JoinArgs;
use super::{Exit, Failure};
use crate::proto::rpc::{Listing, RelayInfo};
use serde_json::{Value, json};
use std::io::Write;

/// Show the relays and names of a network, as its bootstrap sees them.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  hopline status
  hopline status --json | jq '.relays[] | select(.status != \"online\")'")]
pub(super) struct Args {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    join: JoinArgs,
}

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let network = args.join.ticket()?.network().to_string();
    let endpoint = args.join.endpoint(1).await?;
    let listing = endpoint.list().await;
    endpoint.shutdown().await;
    let listing = listing.map_err(|_| {
        Failure::new(Exit::NoBootstrap, "the bootstrap let this node in, but did not answer; try again")
    })?;
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", to_json(&network, &listing))?;
    } else {
        print_table(&mut out, &network, &listing)?;
    }
    Ok(())
}

fn to_json(network: &str, listing: &Listing) -> Value {
    let relay = |relay: &RelayInfo| {
        json!({
            "name": relay.name,
            "id": relay.node.to_string(),
            "overlay": relay.node.overlay().to_string(),
            "status": relay.status.as_str(),
            "zone": relay.zone,
            "flows": relay.load.flows,
            "capacity": relay.capacity,
            "age_seconds": relay.age.as_secs(),
            "lease_seconds": relay.lease_left.as_secs_f64(),
        })
    };
    let targets: Vec<Value> = listing
        .targets
        .iter()
        .map(|target| {
            json!({
                "names": target.names,
                "id": target.node.to_string(),
                "attachments": target.attachments,
                "lease_seconds": target.lease_left.as_secs_f64(),
            })
        })
        .collect();
    json!({
        "network": network,
        "bootstrap": {"uptime_seconds": listing.uptime.as_secs()},
        "total": listing.counts.online,
        "totalRegistered": listing.counts.registered,
        "relays": listing.relays.iter().map(relay).collect::<Vec<_>>(),
        "targets": targets,
    })
}

fn print_table(out: &mut impl Write, network: &str, listing: &Listing) -> std::io::Result<()> {
    writeln!(out, "network {network}, bootstrap up {} s", listing.uptime.as_secs())?;
    writeln!(
        out,
        "{} relays may be assigned, {} registered\n",
        listing.counts.online, listing.counts.registered
    )?;
    writeln!(
        out,
        "{:<16} {:<11} {:<40} {:<10} {:>11} {:>8} {:>7}",
        "RELAY", "STATUS", "OVERLAY", "ZONE", "FLOWS", "AGE s", "LEASE s"
    )?;
    for relay in &listing.relays {
        writeln!(
            out,
            "{:<16} {:<11} {:<40} {:<10} {:>11} {:>8} {:>7.0}",
            relay.name,
            relay.status.as_str(),
            relay.node.overlay().to_string(),
            relay.zone,
            format!("{}/{}", relay.load.flows, relay.capacity),
            relay.age.as_secs(),
            relay.lease_left.as_secs_f64(),
        )?;
    }
    if !listing.targets.is_empty() {
        writeln!(out, "\n{:<24} {:<11} {:<28} {:>7}", "NAME", "NODE", "ATTACHED TO", "LEASE s")?;
    }
    for target in &listing.targets {
        for name in &target.names {
            writeln!(
                out,
                "{:<24} {:<11} {:<28} {:>7.0}",
                name,
                target.node.short(),
                target.attachments.join(", "),
                target.lease_left.as_secs_f64(),
            )?;
        }
    }
    Ok(())
}
