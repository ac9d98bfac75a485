//! A relay as the pool knows it.

use super::reach::{Reach, Voices};
use super::subnet::Subnet;
use crate::families::Families;
use crate::id::{BootId, NodeId};
use crate::planted::{self, Law};
use crate::rpc::{Capabilities, Heartbeat, Load, Status};
use crate::time::Time;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

/// What a relay says of itself when it registers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayOffer {
    /// What people call it.
    pub name: String,
    /// Where others dial it, the preferred address first: at least one, and [`MAX_ADDRESSES`](crate::record::MAX_ADDRESSES)
    /// at most.
    pub addresses: Vec<SocketAddr>,
    /// Its failure domain; may be empty.
    pub zone: String,
    /// How many flows it is willing to carry.
    pub capacity: u32,
    /// The version of the software that it runs.
    pub version: String,
    /// How it may be used.
    pub capabilities: Capabilities,
}

impl RelayOffer {
    /// The machine that it counts as being on: that of its first address.
    fn host(&self) -> IpAddr {
        let first = self.addresses.first().map(SocketAddr::ip);
        first.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED)).to_canonical()
    }
}

/// One relay of the pool.
///
/// What heartbeats and the planner touch fits two lines of a processor's cache, as in a large pool nothing else takes their
/// time; the rest is elsewhere. What a relay is weighed by is all in the first line, whatever the compiler would like better:
/// for one relay that the planner takes it looks at many.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub struct Relay {
    host: IpAddr,
    /// What is believed of it.
    pub status: Status,
    /// Whether others can dial it.
    is_reachable: bool,
    /// Whether its connection to the bootstrap broke since it was last heard.
    pub(super) cut_off: bool,
    /// Whether somebody reported it down since it was last heard.
    is_reported: bool,
    families: Families,
    reach: Reach,
    zone: ZoneTag,
    /// How many flows it is willing to carry.
    pub capacity: u32,
    /// How many it reported.
    reported_flows: u32,
    /// How many were assigned to it since that report.
    pub assigned: u32,
    /// When it took its place.
    pub registered_at: Time,
    /// When its lease ends unless it is renewed.
    pub lease_ends: Time,
    /// Who it is.
    pub node: NodeId,
    /// Under which time the pool's index has it: never later than [`Relay::due`].
    pub(super) queued_at: Time,
    /// The number of its last heartbeat.
    sequence: u64,
    rest: Box<Rest>,
}

#[derive(Clone, Debug)]
struct Rest {
    offer: RelayOffer,
    load: Load,
    clock_ahead_us: i64,
    /// When it is forgotten, if it is gone.
    forget_at: Time,
    /// The last report that it is down since it was last heard.
    report: Option<Report>,
    /// The one that confirmed it.
    confirmed: Option<Report>,
    /// Which of its processes registered.
    boot: Option<BootId>,
    /// Whether it leaves, whatever else is believed of it.
    drains: bool,
    /// Who could not dial it.
    voices: Voices,
}

/// Stands for the name of a zone. Two names with the same tag would count as one zone, which costs a choice and no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ZoneTag(u64);

impl ZoneTag {
    const UNKNOWN: Self = Self(0);

    /// By FNV-1a.
    fn of(name: &str) -> Self {
        let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        if name.is_empty() {
            Self::UNKNOWN
        } else {
            // Zero is for no name.
            Self(name.bytes().fold(0xcbf2_9ce4_8422_2325, mix).max(1))
        }
    }
}

/// Somebody found a relay dead.
#[derive(Clone, Copy, Debug)]
pub(super) struct Report {
    pub(super) reporter: NodeId,
    pub(super) at: Time,
}

impl Relay {
    pub(super) fn new(node: NodeId, offer: RelayOffer, now: Time, lease_ends: Time) -> Self {
        Self {
            node,
            capacity: offer.capacity,
            reported_flows: 0,
            assigned: 0,
            status: Status::Registered,
            host: offer.host(),
            zone: ZoneTag::of(&offer.zone),
            is_reachable: offer.capabilities.reachable,
            cut_off: false,
            is_reported: false,
            families: Families::of_all(&offer.addresses),
            reach: Reach::Untried,
            registered_at: now,
            lease_ends,
            queued_at: Time::ZERO,
            sequence: 0,
            rest: Box::new(Rest {
                offer,
                load: Load::default(),
                clock_ahead_us: 0,
                forget_at: Time::MAX,
                report: None,
                confirmed: None,
                boot: None,
                drains: false,
                voices: Voices::default(),
            }),
        }
    }

    /// What it said of itself when it registered.
    #[must_use]
    pub const fn offer(&self) -> &RelayOffer {
        &self.rest.offer
    }

    /// How busy it was when it was heard last.
    #[must_use]
    pub const fn load(&self) -> Load {
        self.rest.load
    }

    /// By how much its clock was ahead when it was heard last, in microseconds; a journey's time is part of it.
    #[must_use]
    pub const fn clock_ahead_us(&self) -> i64 {
        self.rest.clock_ahead_us
    }

    /// The machine that it runs on, as far as its address tells.
    #[must_use]
    pub const fn host(&self) -> IpAddr {
        self.host
    }

    /// The IP families that it is dialled in, and dials.
    #[must_use]
    pub const fn families(&self) -> Families {
        self.families
    }

    /// Whether another relay is in the same zone. One without a name is unknown, so nobody shares it.
    #[must_use]
    pub fn shares_zone(&self, other: &Self) -> bool {
        self.zone == other.zone && self.zone != ZoneTag::UNKNOWN
    }

    /// The subnet that it is in.
    #[must_use]
    pub const fn subnet(&self) -> Subnet {
        Subnet::of(self.host)
    }

    /// Whether nothing speaks against it.
    pub(super) const fn is_well(&self) -> bool {
        matches!(self.status, Status::Registered | Status::Online)
    }

    /// Whether chains may be led over it.
    #[must_use]
    pub const fn is_assignable(&self) -> bool {
        self.is_well() && self.is_reachable
    }

    /// Whether others could not dial it, lately: another is better.
    #[must_use]
    pub const fn is_doubted(&self) -> bool {
        matches!(self.reach, Reach::Doubted)
    }

    /// Whether it is not known that anybody ever reached it, and a flow is on its way to find out: others are better until
    /// then.
    #[must_use]
    pub const fn is_on_trial(&self) -> bool {
        self.assigned > 0 && !matches!(self.reach, Reach::Proven)
    }

    pub(super) fn reach_mut(&mut self) -> (&mut Reach, &mut Voices) {
        (&mut self.reach, &mut self.rest.voices)
    }

    /// Whether it is no longer in the pool, though still listed.
    #[must_use]
    pub const fn is_gone(&self) -> bool {
        matches!(self.status, Status::Offline | Status::Left)
    }

    /// Flows that it carries or soon will.
    #[must_use]
    pub const fn flows(&self) -> u32 {
        self.reported_flows.saturating_add(self.assigned)
    }

    /// Whether it would take another flow.
    #[must_use]
    pub const fn has_room(&self) -> bool {
        self.flows() < self.capacity
    }

    /// What it takes of memory, in bytes, beside its places in the indices.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        let offer = self.offer();
        size_of::<Self>() + size_of::<Rest>() + offer.name.len() + offer.zone.len() + offer.version.len()
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
            Status::Offline | Status::Left | Status::Unknown => self.rest.forget_at,
        }
    }

    /// Whether a report by `reporter` proves what is already suspected: somebody else reported it lately, or it is
    /// overdue with its own heartbeat, or its connection to the bootstrap broke.
    pub(super) fn is_confirmed_by(&self, reporter: NodeId, now: Time, window: Duration) -> bool {
        match self.report() {
            _ if self.cut_off => true,
            Some(report) => report.reporter != reporter && now.since(report.at) <= window,
            None => self.status == Status::Suspect,
        }
    }

    /// Whether somebody reported it down lately.
    pub(super) fn is_reported(&self, now: Time, window: Duration) -> bool {
        self.report().is_some_and(|report| now.since(report.at) <= window)
    }

    /// The last report that it is down since it was last heard.
    pub(super) fn report(&self) -> Option<Report> {
        self.rest.report.filter(|_| self.is_reported)
    }

    /// All that say that it is down, since it was last heard.
    pub(super) fn reports(&self) -> [Option<Report>; 2] {
        if self.is_reported { [self.rest.report, self.rest.confirmed] } else { [None, None] }
    }

    pub(super) fn set_report(&mut self, report: Option<Report>) {
        self.is_reported = report.is_some();
        (self.rest.report, self.rest.confirmed) = (report, None);
    }

    /// Takes the report that proves what was suspected.
    pub(super) fn confirm(&mut self, by: Report) {
        let first = self.report();
        self.is_reported = true;
        (self.rest.report, self.rest.confirmed) = (first, Some(by));
    }

    /// Which of its processes registered, if that is known.
    pub(super) const fn boot(&self) -> Option<BootId> {
        self.rest.boot
    }

    /// Whether it leaves, though it may be suspect, or be held for gone.
    pub(super) const fn is_draining(&self) -> bool {
        self.rest.drains
    }

    /// Whether a heartbeat says something newer than the last one did.
    pub(super) const fn is_new(&self, heartbeat: &Heartbeat) -> bool {
        heartbeat.sequence > self.sequence
    }

    pub(super) fn set_status(&mut self, status: Status, forget_at: Time) {
        self.status = status;
        self.rest.drains |= status == Status::Draining;
        self.rest.forget_at = forget_at;
    }

    pub(super) fn register_again(&mut self, offer: RelayOffer, now: Time, lease_ends: Time) {
        // By this it is known how long a relay has stayed, so it begins anew for one that was gone.
        let registered_at = if self.is_gone() { now } else { self.registered_at };
        let status = if self.status == Status::Online { Status::Online } else { Status::Registered };
        let (load, assigned) =
            if self.is_gone() { (Load::default(), 0) } else { (self.load(), self.assigned) };
        // The index still has it under that time.
        let queued_at = self.queued_at;
        *self =
            Self { status, assigned, queued_at, ..Self::new(self.node, offer, registered_at, lease_ends) };
        self.set_load(load);
    }

    pub(super) fn renew(&mut self, heartbeat: &Heartbeat, now: Time, lease_ends: Time) {
        self.status = if self.rest.drains { Status::Draining } else { Status::Online };
        self.set_load(heartbeat.load);
        self.reach.heard(heartbeat.load.flows, &self.rest.voices, now);
        self.assigned = 0;
        self.sequence = heartbeat.sequence;
        self.rest.clock_ahead_us = micros_between(heartbeat.sent_at, now);
        self.cut_off = false;
        if !planted::broken(Law::RenewedLease) {
            self.lease_ends = lease_ends;
        }
        self.is_reported = false;
    }

    pub(super) fn set_boot(&mut self, boot: BootId) {
        self.rest.boot = Some(boot);
    }

    fn set_load(&mut self, load: Load) {
        self.reported_flows = load.flows;
        self.rest.load = load;
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
    use std::mem::offset_of;

    #[test]
    fn what_is_touched_often_is_two_cache_lines() {
        assert_eq!((size_of::<Relay>(), offset_of!(Relay, node)), (128, 64));
    }
}
