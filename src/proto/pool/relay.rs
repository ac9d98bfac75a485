//! A relay as the pool knows it.

use crate::proto::id::NodeId;
use crate::proto::planted::{self, Law};
use crate::proto::rpc::{Capabilities, Heartbeat, Load, Status};
use crate::proto::time::Time;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// What a relay says of itself when it registers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayOffer {
    /// What people call it.
    pub name: String,
    /// Where others dial it.
    pub address: SocketAddr,
    /// Its failure domain; may be empty.
    pub zone: String,
    /// How many flows it is willing to carry.
    pub capacity: u32,
    /// The version of the software that it runs.
    pub version: String,
    /// How it may be used.
    pub capabilities: Capabilities,
}

/// One relay of the pool.
#[derive(Clone, Debug)]
pub struct Relay {
    /// Who it is.
    pub node: NodeId,
    /// What people call it.
    pub name: String,
    /// Where to dial it.
    pub address: SocketAddr,
    /// Its failure domain; empty if its operator named none.
    pub zone: String,
    /// How many flows it is willing to carry.
    pub capacity: u32,
    /// The version of the software that it runs.
    pub version: String,
    /// How it may be used.
    pub capabilities: Capabilities,
    /// How busy it was when it was heard last.
    pub load: Load,
    /// How many flows were assigned to it since that report.
    pub assigned: u32,
    /// What is believed of it.
    pub status: Status,
    /// When it took its place.
    pub registered_at: Time,
    /// When its lease ends unless it is renewed.
    pub lease_ends: Time,
    /// When it is forgotten, if it is gone.
    forget_at: Time,
    /// Under which time the pool's index has it: never later than [`Relay::due`].
    pub(super) queued_at: Time,
    /// The number of its last heartbeat.
    sequence: u64,
    /// By how much its clock was ahead when it was heard last, in microseconds; a journey's time is part of it.
    pub clock_ahead_us: i64,
    /// Whether its connection to the bootstrap broke since it was last heard.
    pub(super) cut_off: bool,
    /// The last report that it is down since it was last heard.
    pub(super) report: Option<Report>,
}

/// Somebody found a relay dead.
#[derive(Clone, Copy, Debug)]
pub(super) struct Report {
    pub(super) reporter: NodeId,
    pub(super) at: Time,
}

/// The part of a network in which machines tend to fail together: /24 of an IPv4 address, /48 of an IPv6 one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subnet {
    /// The first three bytes of an IPv4 address.
    V4([u8; 3]),
    /// The first six bytes of an IPv6 address.
    V6([u8; 6]),
}

impl Subnet {
    /// The subnet that an address lies in.
    #[must_use]
    pub const fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => {
                let [a, b, c, _] = v4.octets();
                Self::V4([a, b, c])
            }
            IpAddr::V6(v6) => {
                let [a, b, c, d, e, f, ..] = v6.octets();
                Self::V6([a, b, c, d, e, f])
            }
        }
    }
}

impl Relay {
    pub(super) fn new(node: NodeId, offer: RelayOffer, now: Time, lease_ends: Time) -> Self {
        Self {
            node,
            name: offer.name,
            address: offer.address,
            zone: offer.zone,
            capacity: offer.capacity,
            version: offer.version,
            capabilities: offer.capabilities,
            load: Load::default(),
            assigned: 0,
            status: Status::Registered,
            registered_at: now,
            lease_ends,
            forget_at: Time::MAX,
            queued_at: Time::ZERO,
            sequence: 0,
            clock_ahead_us: 0,
            cut_off: false,
            report: None,
        }
    }

    /// The machine that it runs on, as far as its address tells.
    #[must_use]
    pub const fn host(&self) -> IpAddr {
        self.address.ip().to_canonical()
    }

    /// The subnet that it is in.
    #[must_use]
    pub const fn subnet(&self) -> Subnet {
        Subnet::of(self.address.ip())
    }

    /// Whether chains may be led over it.
    #[must_use]
    pub const fn is_assignable(&self) -> bool {
        matches!(self.status, Status::Registered | Status::Online) && self.capabilities.reachable
    }

    /// Whether it is no longer in the pool, though still listed.
    #[must_use]
    pub const fn is_gone(&self) -> bool {
        matches!(self.status, Status::Offline | Status::Left)
    }

    /// Flows that it carries or soon will.
    #[must_use]
    pub const fn flows(&self) -> u32 {
        self.load.flows.saturating_add(self.assigned)
    }

    /// Whether it would take another flow.
    #[must_use]
    pub const fn has_room(&self) -> bool {
        self.flows() < self.capacity
    }

    /// How much of its lease is left.
    #[must_use]
    pub const fn lease_left(&self, now: Time) -> Duration {
        if self.is_gone() { Duration::ZERO } else { self.lease_ends.since(now) }
    }

    /// When time next changes its status: an assignable relay becomes suspect when a sixth of its lease is left.
    pub(super) fn due(&self, lease: Duration) -> Time {
        match self.status {
            Status::Registered | Status::Online => self.lease_ends - lease / 6,
            Status::Suspect | Status::Draining => self.lease_ends,
            Status::Offline | Status::Left => self.forget_at,
        }
    }

    /// Whether a report by `reporter` proves what is already suspected: somebody else reported it lately, or it is
    /// overdue with its own heartbeat, or its connection to the bootstrap broke.
    pub(super) fn is_confirmed_by(&self, reporter: NodeId, now: Time, window: Duration) -> bool {
        match self.report {
            _ if self.cut_off => true,
            Some(report) => report.reporter != reporter && now.since(report.at) <= window,
            None => self.status == Status::Suspect,
        }
    }

    /// Whether somebody reported it down lately.
    pub(super) fn is_reported(&self, now: Time, window: Duration) -> bool {
        self.report.is_some_and(|report| now.since(report.at) <= window)
    }

    /// Whether a heartbeat says something newer than the last one did.
    pub(super) const fn is_news(&self, heartbeat: &Heartbeat) -> bool {
        heartbeat.sequence > self.sequence
    }

    pub(super) fn set_status(&mut self, status: Status, forget_at: Time) {
        self.status = status;
        self.forget_at = forget_at;
    }

    pub(super) fn register_again(&mut self, offer: RelayOffer, now: Time, lease_ends: Time) {
        let registered_at = if self.is_gone() { now } else { self.registered_at };
        let (status, load, assigned) = match self.status {
            Status::Online => (Status::Online, self.load, self.assigned),
            Status::Registered | Status::Suspect | Status::Draining => {
                (Status::Registered, self.load, self.assigned)
            }
            Status::Offline | Status::Left => (Status::Registered, Load::default(), 0),
        };
        let fresh = Self::new(self.node, offer, registered_at, lease_ends);
        *self = Self { status, load, assigned, queued_at: self.queued_at, ..fresh };
    }

    pub(super) fn renew(&mut self, heartbeat: &Heartbeat, now: Time, lease_ends: Time) {
        if !matches!(self.status, Status::Draining) {
            self.status = Status::Online;
        }
        self.load = heartbeat.load;
        self.assigned = 0;
        self.sequence = heartbeat.sequence;
        self.clock_ahead_us = micros_between(heartbeat.sent_at, now);
        self.cut_off = false;
        if !planted::broken(Law::RenewedLease) {
            self.lease_ends = lease_ends;
        }
        self.report = None;
    }
}

/// From `b` to `a`, in microseconds.
fn micros_between(a: Time, b: Time) -> i64 {
    let micros = |duration: Duration| i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
    if a >= b { micros(a.since(b)) } else { -micros(b.since(a)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subnets_are_24_and_48_bits() {
        let of = |text: &str| Subnet::of(text.parse().unwrap());
        assert_eq!(of("10.1.2.3"), of("10.1.2.200"));
        assert_ne!(of("10.1.2.3"), of("10.1.3.3"));
        assert_eq!(of("10.1.2.3"), of("::ffff:10.1.2.9"), "an IPv4 address in IPv6 clothes");
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:9::1"));
        assert_ne!(of("2001:db8:1::1"), of("2001:db8:2::1"));
    }
}
