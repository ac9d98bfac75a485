//! What a request may look like at all.

use crate::dialable::{Undialable, undialable};
use crate::epoch::MAX_HOPS;
use crate::record::{MAX_ADDRESSES, MAX_RECORDS, Record};
use crate::rpc::{
    DenyReason, MAX_LISTED_NODES, MAX_NAMES, MAX_VERSION_BYTES, Offer, Request, Resources, is_name,
};
use std::net::SocketAddr;

/// Whether all its names, numbers and lists are within bounds.
pub(super) fn check(request: &Request) -> Result<(), DenyReason> {
    let good = match request {
        Request::Register { name, boot: _, offer } => is_name(name) && is_offer(offer),
        Request::Heartbeat(heartbeat) => heartbeat.load.resources.is_none_or(are_shares),
        Request::Deregister { boot: _ }
        | Request::Drain
        | Request::ReportDown { .. }
        | Request::ReportUp { .. }
        | Request::ReportUnreached { .. }
        | Request::ReportReached { .. }
        | Request::List
        | Request::Unknown => true,
        Request::Attachments { count, exclude, dials: _ } => {
            (1..=MAX_LISTED_NODES).contains(&usize::from(*count)) && is_list(exclude)
        }
        Request::Plan { target, hops, exclude, dials: _ }
        | Request::Spare { target, hops, exclude, dials: _ } => {
            is_name(target) && (1..=MAX_HOPS).contains(&usize::from(*hops)) && is_list(exclude)
        }
        Request::Replace { hop, records, active: _, exclude, dials: _ } => {
            // The last record is the target's, in whose place nobody can be put.
            is_chain(records) && (1..records.len()).contains(&usize::from(*hop)) && is_list(exclude)
        }
        Request::Renew { records } => is_chain(records),
    };
    if good { Ok(()) } else { Err(DenyReason::OutOfBounds) }
}

fn is_chain(records: &[Record]) -> bool {
    (2..=MAX_RECORDS).contains(&records.len()) && records.iter().all(Record::is_bounded)
}

fn is_offer(offer: &Offer) -> bool {
    match offer {
        Offer::Relay { addresses, zone, capacity: _, version, capabilities: _ } => {
            are_dialable(addresses) && (zone.is_empty() || is_name(zone)) && is_version(version)
        }
        Offer::Target { names, attachments } => {
            names.len() <= MAX_NAMES && names.iter().all(|name| is_name(name)) && is_list(attachments)
        }
        Offer::Unknown => true,
    }
}

const fn are_shares(resources: Resources) -> bool {
    resources.cpu_percent <= 100 && resources.memory_percent <= 100 && resources.disk_percent <= 100
}

/// As Semantic Versioning writes them, a little abbreviated.
fn is_version(version: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'+');
    version.len() <= MAX_VERSION_BYTES && version.bytes().all(allowed)
}

const fn is_list<T>(list: &[T]) -> bool {
    list.len() <= MAX_LISTED_NODES
}

fn are_dialable(addresses: &[SocketAddr]) -> bool {
    (1..=MAX_ADDRESSES).contains(&addresses.len()) && addresses.iter().copied().all(is_dialable)
}

/// One that leads nowhere without the interface is left to those who dial it: they report it.
fn is_dialable(address: SocketAddr) -> bool {
    undialable(address).is_none_or(|why| why == Undialable::LinkLocal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::families::Families;
    use crate::rpc::{Capabilities, Heartbeat, Load};
    use crate::{BootId, NodeId, Time};

    fn relay(address: &str, zone: &str) -> Request {
        versioned(address, zone, "0.1.0")
    }

    fn versioned(address: &str, zone: &str, version: &str) -> Request {
        let offer = Offer::Relay {
            addresses: address.split_whitespace().map(|one| one.parse().unwrap()).collect(),
            zone: zone.to_owned(),
            capacity: 1,
            version: version.to_owned(),
            capabilities: Capabilities::default(),
        };
        Request::Register { name: "r1".to_owned(), offer, boot: BootId::from_bytes([1; 16]) }
    }

    fn heartbeat(cpu_percent: u8) -> Request {
        let load =
            Load { resources: Some(Resources { cpu_percent, ..Resources::default() }), ..Load::default() };
        Request::Heartbeat(Heartbeat { sequence: 1, sent_at: Time::MAX, load, key_epoch: None })
    }

    fn target(name: &str, names: &[&str], attachments: usize) -> Request {
        let offer = Offer::Target {
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            attachments: vec![NodeId::from_bytes([1; 32]); attachments],
        };
        Request::Register { name: name.to_owned(), offer, boot: BootId::from_bytes([1; 16]) }
    }

    fn plan(target: &str, hops: u8, exclude: usize) -> Request {
        Request::Plan {
            target: target.to_owned(),
            hops,
            exclude: vec![NodeId::from_bytes([1; 32]); exclude],
            dials: Families::BOTH,
        }
    }

    #[test]
    fn what_is_within_bounds_passes() {
        let long = "x".repeat(64);
        let good = [
            relay("127.0.0.1:1", ""),
            relay("[2001:db8::1]:4433", "eu-west.1_a"),
            relay("[2001:db8::1]:4433 192.0.2.1:4433 192.0.2.2:1 127.0.0.1:1", ""),
            versioned("127.0.0.1:1", "", "1.2.3-rc.1+5"),
            versioned("127.0.0.1:1", "", ""),
            heartbeat(100),
            target("A.b-c_9", &["echo"], 0),
            target(&long, &["x"; 16], 64),
            target("x", &[], 0), // it serves none any more
            plan("echo", 1, 0),
            plan(&long, 8, 64),
            Request::Attachments { count: 64, exclude: Vec::new(), dials: Families::BOTH },
        ];
        for request in good {
            assert_eq!(check(&request), Ok(()), "{request:?}");
        }
    }

    #[test]
    fn what_is_out_of_bounds_does_not() {
        let long = "x".repeat(65);
        let bad = [
            relay("127.0.0.1:0", ""),
            relay("", ""),
            relay("127.0.0.1:1 127.0.0.1:0", ""),
            relay("127.0.0.1:1 127.0.0.1:2 127.0.0.1:3 127.0.0.1:4 127.0.0.1:5", ""),
            relay("0.0.0.0:1", ""),
            relay("[::]:1", ""),
            relay("[::ffff:0.0.0.0]:1", ""),
            relay("224.0.0.1:1", ""),
            relay("255.255.255.255:1", ""),
            relay("127.0.0.1:1", "a b"),
            versioned("127.0.0.1:1", "", "1 0"),
            versioned("127.0.0.1:1", "", &"1".repeat(33)),
            heartbeat(101),
            target("", &["x"], 0),
            target("naïve", &["x"], 0),
            target(&long, &["x"], 0),
            target("x", &["y\n"], 0),
            target("x", &["x"; 17], 0),
            target("x", &["x"], 65),
            plan("a/b", 1, 0),
            plan("a", 0, 0),
            plan("a", 9, 0),
            plan("a", 1, 65),
            Request::Attachments { count: 0, exclude: Vec::new(), dials: Families::BOTH },
            Request::Attachments { count: 65, exclude: Vec::new(), dials: Families::BOTH },
            Request::Replace {
                hop: 1,
                records: Vec::new(),
                active: None,
                exclude: Vec::new(),
                dials: Families::BOTH,
            },
            Request::Renew { records: Vec::new() },
        ];
        for request in bad {
            assert_eq!(check(&request), Err(DenyReason::OutOfBounds), "{request:?}");
        }
    }
}
