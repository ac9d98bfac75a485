//! A network as its bootstrap sees it: what `hopline status` prints and `hopline top` draws.
//!
//! It comes from one of two [sources](source): the admin server's `/peers`, or a listing over QUIC, which has fewer relays and fewer
//! fields. A field that the source does not have is `null`. The fields' names are part of the contract with scripts.

mod admin;
mod column;
mod events;
mod source;

pub(super) use column::Column;
pub(super) use events::{NetworkEvent, changes};
pub(super) use source::{Source, SourceArgs};

use hopline_proto::rpc::{Listing, RelayInfo, Status, TargetInfo};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// A network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct NetworkView {
    /// The network's key.
    pub(super) network: String,
    pub(super) bootstrap: BootstrapView,
    /// How many relays may be assigned to chains.
    pub(super) total: u64,
    /// How many are known, also those that are gone and not forgotten.
    #[serde(rename = "totalRegistered")]
    pub(super) total_registered: u64,
    #[serde(alias = "peers")]
    pub(super) relays: Vec<RelayView>,
    #[serde(default)]
    pub(super) targets: Vec<TargetView>,
    /// The bootstrap's time, in seconds since the Unix epoch.
    pub(super) timestamp: f64,
}

/// The bootstrap that was asked.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct BootstrapView {
    pub(super) id: Option<String>,
    pub(super) uptime_seconds: f64,
    /// For how long self-preservation has kept silent relays in the pool, if it does.
    pub(super) preserving_seconds: Option<f64>,
    /// "ok", or what is wrong with it.
    pub(super) store: Option<Value>,
}

/// A relay.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct RelayView {
    pub(super) name: String,
    pub(super) id: String,
    pub(super) overlay: String,
    pub(super) status: String,
    pub(super) zone: String,
    pub(super) flows: u64,
    pub(super) capacity: u64,
    pub(super) bytes_per_second: u64,
    pub(super) cpu_percent: Option<u8>,
    pub(super) memory_percent: Option<u8>,
    pub(super) disk_percent: Option<u8>,
    pub(super) version: String,
    pub(super) reachable: bool,
    pub(super) bridge: bool,
    pub(super) age_seconds: f64,
    pub(super) lease_seconds: f64,
    pub(super) clock_ahead_ms: Option<f64>,
}

/// A target.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct TargetView {
    pub(super) names: Vec<String>,
    pub(super) id: String,
    /// The names of its attachment relays.
    pub(super) attachments: Vec<String>,
    pub(super) lease_seconds: f64,
}

/// Statuses in the order in which they are told.
const STATUSES: [Status; 6] =
    [Status::Online, Status::Registered, Status::Suspect, Status::Draining, Status::Offline, Status::Left];

/// Where a status stands among the others; last if it is none that we know.
fn rank(status: &str) -> usize {
    STATUSES.iter().position(|known| known.as_str() == status).unwrap_or(STATUSES.len())
}

impl NetworkView {
    /// From a listing over QUIC.
    pub(super) fn from_listing(network: String, listing: &Listing) -> Self {
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
    pub(super) fn statuses(&self) -> Vec<(&str, usize)> {
        let mut counts = BTreeMap::new();
        for relay in &self.relays {
            *counts.entry((rank(&relay.status), relay.status.as_str())).or_default() += 1;
        }
        counts.into_iter().map(|((_, status), count)| (status, count)).collect()
    }

    /// The same in words: "7 online, 1 suspect".
    pub(super) fn pool(&self) -> String {
        let counts: Vec<String> =
            self.statuses().into_iter().map(|(status, count)| format!("{count} {status}")).collect();
        if counts.is_empty() { "no relays".to_owned() } else { counts.join(", ") }
    }

    /// Whether all relays are told.
    pub(super) fn is_complete(&self) -> bool {
        u64::try_from(self.relays.len()).is_ok_and(|told| told >= self.total_registered)
    }

    /// What whoever runs the network should know at once, a line each.
    pub(super) fn warnings(&self) -> Vec<String> {
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
    pub(super) fn load_percent(&self) -> f64 {
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

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use hopline_proto::rpc::{Capabilities, Counts, Load, Resources};
    use hopline_proto::{NodeId, Time};
    use serde_json::json;
    use std::time::Duration;

    /// A relay of this name and status, with so many of 100 flows.
    pub(crate) fn relay(name: &str, status: &str, flows: u64) -> RelayView {
        RelayView {
            name: name.to_owned(),
            id: format!("id-of-{name}"),
            status: status.to_owned(),
            flows,
            capacity: 100,
            ..RelayView::default()
        }
    }

    /// A network of these relays.
    pub(crate) fn network(relays: Vec<RelayView>) -> NetworkView {
        let count = u64::try_from(relays.len()).unwrap();
        NetworkView {
            network: "net1".to_owned(),
            bootstrap: BootstrapView { uptime_seconds: 60.0, ..BootstrapView::default() },
            total: count,
            total_registered: count,
            relays,
            targets: Vec::new(),
            timestamp: 1_800_000_000.0,
        }
    }

    /// What an admin server answers.
    pub(crate) fn peers() -> Value {
        json!({
            "network": "net1",
            "bootstrap": {"id": "boot", "uptime_seconds": 12.5, "preserving_seconds": null, "store": "ok"},
            "peers": [{
                "name": "r1", "id": "abc", "overlay": "fd00::1", "status": "online", "zone": "eu", "flows": 3, "capacity": 12,
                "bytes_per_second": 2_500_000, "cpu_percent": 40, "memory_percent": null, "disk_percent": null,
                "version": "0.1.0", "reachable": true, "bridge": false, "age_seconds": 90.2, "lease_seconds": 29.0,
                "clock_ahead_ms": -3.5,
            }],
            "targets": [{"names": ["echo"], "id": "def", "attachments": ["r1"], "lease_seconds": 20.0}],
            "total": 1,
            "totalRegistered": 1,
            "timestamp": 1_800_000_000.25,
        })
    }

    #[test]
    fn what_an_admin_server_tells_is_told_again_as_relays() {
        let view: NetworkView = serde_json::from_value(peers()).unwrap();
        assert_eq!(view.relays[0].load_percent(), 25.0);
        assert_eq!((view.pool(), view.warnings()), ("1 online".to_owned(), Vec::new()));
        let mut expected = peers();
        let relays = expected["peers"].take();
        expected.as_object_mut().unwrap().remove("peers");
        expected["relays"] = relays;
        assert_eq!(serde_json::to_value(&view).unwrap(), expected);
    }

    #[test]
    fn a_listing_has_the_same_keys() {
        let info = RelayInfo {
            node: NodeId::from_bytes([1; 32]),
            name: "r1".to_owned(),
            status: Status::Suspect,
            zone: "eu".to_owned(),
            load: Load {
                flows: 3,
                bytes_per_second: 7,
                resources: Some(Resources { cpu_percent: 9, ..Resources::default() }),
            },
            capacity: 0,
            version: "1.0".to_owned(),
            capabilities: Capabilities::default(),
            age: Duration::from_secs(5),
            lease_left: Duration::from_secs(1),
        };
        let target = TargetInfo {
            node: NodeId::from_bytes([2; 32]),
            names: vec!["echo".to_owned()],
            attachments: vec!["r1".to_owned()],
            lease_left: Duration::ZERO,
        };
        let listing = Listing {
            now: Time::from_micros(1_500_000),
            relays: vec![info],
            targets: vec![target],
            counts: Counts { registered: 9, online: 1, expired: 0 },
            preserving: Some(Duration::from_secs(4)),
            ..Listing::default()
        };
        let view = NetworkView::from_listing("net1".to_owned(), &listing);
        assert!(!view.is_complete());
        assert_eq!((view.timestamp, view.relays[0].load_percent()), (1.5, 100.0));
        assert!(view.warnings()[0].contains("self-preservation for 4 s"), "{:?}", view.warnings());
        let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        let (ours, theirs) = (serde_json::to_value(&view).unwrap(), peers());
        assert_eq!(keys(&ours["relays"][0]), keys(&theirs["peers"][0]));
        assert_eq!(keys(&ours["targets"][0]), keys(&theirs["targets"][0]));
        assert_eq!(keys(&ours["bootstrap"]), keys(&theirs["bootstrap"]));
    }

    #[test]
    fn a_store_that_fails_is_told() {
        let mut view = network(Vec::new());
        assert_eq!(view.pool(), "no relays");
        view.bootstrap.store = Some(json!({"error": "No space left on device", "since_seconds": 3}));
        assert!(view.warnings()[0].contains("No space left on device"), "{:?}", view.warnings());
    }

    #[test]
    fn statuses_are_told_in_their_order() {
        let relays = [("a", "offline"), ("b", "online"), ("c", "weird"), ("d", "online")];
        let view = network(relays.map(|(name, status)| relay(name, status, 0)).into());
        assert_eq!(view.pool(), "2 online, 1 offline, 1 weird");
    }
}
