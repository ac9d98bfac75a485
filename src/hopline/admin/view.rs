//! A network as its bootstrap sees it, as JSON: what the admin server's `/peers` answers, what `hopline status` prints and what
//! `hopline top` draws. What a source does not tell is `null`. The names of the fields are part of the contract with scripts.

use hopline_proto::rpc::{Listing, RelayInfo, Status, TargetInfo};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// A network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NetworkView {
    /// The network's key.
    pub network: String,
    /// The bootstrap that was asked.
    pub bootstrap: BootstrapView,
    /// How many relays may be assigned to chains.
    pub total: u64,
    /// How many are known, also those that are gone and not forgotten.
    #[serde(rename = "totalRegistered")]
    pub total_registered: u64,
    /// Relays, as many as the source tells.
    #[serde(alias = "peers")]
    pub relays: Vec<RelayView>,
    /// Targets.
    #[serde(default)]
    pub targets: Vec<TargetView>,
    /// The bootstrap's time, in seconds since the Unix epoch.
    pub timestamp: f64,
}

/// The bootstrap that was asked.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BootstrapView {
    /// Who it is.
    pub id: Option<String>,
    /// For how long it has run.
    pub uptime_seconds: f64,
    /// For how long self-preservation has kept silent relays in the pool, if it does.
    pub preserving_seconds: Option<f64>,
    /// "ok", or what is wrong with it.
    pub store: Option<Value>,
}

/// A relay.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RelayView {
    /// What people call it.
    pub name: String,
    /// Who it is.
    pub id: String,
    /// Its address in the overlay, an IPv6 address.
    pub overlay: String,
    /// What the bootstrap believes of it.
    pub status: String,
    /// Its failure domain.
    pub zone: String,
    /// Flows that it carries.
    pub flows: u64,
    /// Flows that it is willing to carry.
    pub capacity: u64,
    /// Payload that it moves.
    pub bytes_per_second: u64,
    /// Its machine's processors.
    pub cpu_percent: Option<u8>,
    /// Its machine's memory.
    pub memory_percent: Option<u8>,
    /// The disk of its directory.
    pub disk_percent: Option<u8>,
    /// The version of its software.
    pub version: String,
    /// Whether others can dial it.
    pub reachable: bool,
    /// Whether it is a bridge.
    pub bridge: bool,
    /// Since its registration.
    pub age_seconds: f64,
    /// What is left of its lease.
    pub lease_seconds: f64,
    /// How far its clock is ahead of the bootstrap's.
    pub clock_ahead_ms: Option<f64>,
}

/// A target.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TargetView {
    /// The names that it serves.
    pub names: Vec<String>,
    /// Who it is.
    pub id: String,
    /// The names of its attachment relays.
    pub attachments: Vec<String>,
    /// What is left of its lease.
    pub lease_seconds: f64,
}

/// Every status that a relay can have, in the order in which they are told.
pub(super) const STATUSES: [Status; 6] =
    [Status::Online, Status::Registered, Status::Suspect, Status::Draining, Status::Offline, Status::Left];

/// Where a status stands among the others; last if it is none that we know.
pub fn rank(status: &str) -> usize {
    STATUSES.iter().position(|known| known.as_str() == status).unwrap_or(STATUSES.len())
}

impl NetworkView {
    /// From a listing over QUIC.
    pub fn from_listing(network: String, listing: &Listing) -> Self {
        Self {
            network,
            bootstrap: BootstrapView {
                id: None,
                uptime_seconds: listing.uptime.as_secs_f64(),
                preserving_seconds: listing.preserving.map(|time| time.as_secs_f64()),
                store: None,
            },
            total: listing.counts.online.into(),
            total_registered: listing.counts.registered.into(),
            relays: listing.relays.iter().map(RelayView::from).collect(),
            targets: listing.targets.iter().map(TargetView::from).collect(),
            timestamp: std::time::Duration::from_micros(listing.now.as_micros()).as_secs_f64(),
        }
    }

    /// How many relays of each status there are, among those that are told.
    pub fn statuses(&self) -> Vec<(&str, usize)> {
        let mut counts = BTreeMap::new();
        for relay in &self.relays {
            *counts.entry((rank(&relay.status), relay.status.as_str())).or_default() += 1;
        }
        counts.into_iter().map(|((_, status), count)| (status, count)).collect()
    }

    /// The same in words: "7 online, 1 suspect".
    pub fn pool(&self) -> String {
        let counts: Vec<String> =
            self.statuses().into_iter().map(|(status, count)| format!("{count} {status}")).collect();
        if counts.is_empty() { "no relays".to_owned() } else { counts.join(", ") }
    }

    /// Whether all relays are told.
    pub fn is_complete(&self) -> bool {
        u64::try_from(self.relays.len()).is_ok_and(|told| told >= self.total_registered)
    }

    /// What whoever runs the network should know at once, a line each.
    pub fn warnings(&self) -> Vec<String> {
        let preserving = self.bootstrap.preserving_seconds.map(|seconds| {
            format!(
                "self-preservation for {seconds:.0} s: so many relays fell silent at once that no lease ends; look at the \
                 bootstrap's own network"
            )
        });
        let store = self.bootstrap.store.as_ref().filter(|store| *store != "ok").map(|store| {
            let what: String = store.to_string().chars().take(200).collect();
            format!("the bootstrap can't store registrations, and would forget them in a restart: {what}")
        });
        preserving.into_iter().chain(store).collect()
    }
}

impl RelayView {
    /// Its share of the flows that it is willing to carry, in percent.
    pub fn load_percent(&self) -> f64 {
        if self.capacity == 0 {
            return if self.flows == 0 { 0.0 } else { 100.0 };
        }
        self.flows as f64 * 100.0 / self.capacity as f64
    }
}

impl From<&RelayInfo> for RelayView {
    fn from(relay: &RelayInfo) -> Self {
        let resources = relay.load.resources;
        Self {
            name: relay.name.clone(),
            id: relay.node.to_string(),
            overlay: relay.node.overlay().to_string(),
            status: relay.status.as_str().to_owned(),
            zone: relay.zone.clone(),
            flows: relay.load.flows.into(),
            capacity: relay.capacity.into(),
            bytes_per_second: relay.load.bytes_per_second,
            cpu_percent: resources.map(|used| used.cpu_percent),
            memory_percent: resources.map(|used| used.memory_percent),
            disk_percent: resources.map(|used| used.disk_percent),
            version: relay.version.clone(),
            reachable: relay.capabilities.reachable,
            bridge: relay.capabilities.bridge,
            age_seconds: relay.age.as_secs_f64(),
            lease_seconds: relay.lease_left.as_secs_f64(),
            clock_ahead_ms: None,
        }
    }
}

impl From<&TargetInfo> for TargetView {
    fn from(target: &TargetInfo) -> Self {
        Self {
            names: target.names.clone(),
            id: target.node.to_string(),
            attachments: target.attachments.clone(),
            lease_seconds: target.lease_left.as_secs_f64(),
        }
    }
}
