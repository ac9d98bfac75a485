//! A network as its bootstrap sees it: what `hopline status` prints and `hopline top` draws.
//!
//! It comes from one of two [sources](source): the admin server's `/peers`, or a listing over QUIC, which has fewer relays and fewer
//! fields.

mod admin;
mod column;
mod events;
mod source;

pub(super) use column::Column;
pub(super) use events::{NetworkEvent, changes};
pub(super) use source::{Source, SourceArgs};

pub(super) use hopline::admin::view::{NetworkView, RelayView, TargetView};

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use hopline::admin::view::BootstrapView;
    use hopline_proto::rpc::{Capabilities, Counts, Listing, Load, RelayInfo, Resources, Status, TargetInfo};
    use hopline_proto::{NodeId, Time};
    use serde_json::{Value, json};
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
