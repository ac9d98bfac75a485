//! Admission of connection attempts: which get a handshake, which have to prove their address first, and which have to come again.
//!
//! A handshake costs a place and some CPU time before it is known who comes. So there are several kinds of places, and no attempt can
//! take a place of another kind:
//!
//! | places | for | when all are taken |
//! |---|---|---|
//! | unproven | addresses that are not proven | the attempt has to prove its address first (QUIC's Retry, RFC 9000, 8.1.2), which takes no memory |
//! | proven | proven addresses | the attempt has to come again |
//! | known | proven addresses where a member was seen lately | the attempt has to come again |
//! | guests | peers that have finished the handshake and not sent their first request | the connection is closed |
//!
//! Before that, room is made. If one subnet (/24, /48) holds more places than the attempt's subnet would, its oldest place is given up.
//! Otherwise the oldest place is given up that has had a fair time, of subnets that hold no fewer than the attempt's. So a source
//! takes from others only what they do not use, each attempt in a flood from one subnet has its fair time, and honest peers do not lose
//! a handshake that is about to succeed. Each subnet also has an allowance of proven handshakes, as each costs a signature.
//! Unproven addresses are charged to no subnet, as they can be forged.
//!
//! An attempt that has to come again gets no answer: its QUIC sends the same packet again soon, and then less and less often.
//!
//! Bounds: places of each kind; [`MAX_KNOWN`] addresses, of which the oldest is dropped first; [`MAX_SUBNETS`] allowances, beyond which
//! subnets share one.

use super::allowance::{Allowance, Spent};
use super::pool::Subnet;
use super::time::Time;
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::time::Duration;

/// Addresses of members that are remembered.
pub const MAX_KNOWN: usize = 16_384;
/// How long after a member was seen there.
const KNOWN_FOR: Duration = Duration::from_secs(3600);
/// Subnets whose allowances are not whole.
pub const MAX_SUBNETS: usize = 4096;

/// How many places there are of a kind, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Places {
    /// The number.
    pub most: usize,
    /// Nobody loses one sooner than this to another of the same subnet.
    pub fair: Duration,
    /// Nobody has one for longer.
    pub limit: Duration,
}

/// How much is let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Handshakes with addresses that are not proven.
    pub unproven: Places,
    /// Handshakes with addresses that are.
    pub proven: Places,
    /// Handshakes with proven addresses of members.
    pub known: Places,
    /// Whoever has shaken hands and has yet to say what it wants.
    pub guests: Places,
    /// Proven handshakes of a subnet, those with members' addresses apart.
    pub of_subnet: Allowance,
}

impl Default for Config {
    /// A handshake of an address that is not proven is given up after less than a second if others wait: a round trip by
    /// satellite takes 600 ms. The places of proven ones last for as long as a subnet's allowance needs to fill them.
    fn default() -> Self {
        let places = |most, fair, limit| Places {
            most,
            fair: Duration::from_millis(fair),
            limit: Duration::from_millis(limit),
        };
        Self {
            unproven: places(32, 900, 3000),
            proven: places(256, 500, 3000),
            known: places(128, 500, 3000),
            guests: places(256, 500, 2000),
            of_subnet: Allowance { burst: 1000, per_second: 500 },
        }
    }
}

/// A place that somebody has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PlaceId {
    kind: Kind,
    number: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Kind {
    Unproven,
    Proven,
    Known,
    Guest,
}

/// What becomes of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is let in.
    Admit(Granted),
    /// It has to prove its address first.
    Prove,
    /// It is not answered.
    Ignore,
}

/// A place that was just given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granted {
    /// The place.
    pub place: PlaceId,
    /// For how long.
    pub limit: Duration,
    /// Who has lost theirs for it.
    pub displaced: Option<PlaceId>,
}

/// Why somebody has a place no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// All is well: it needs none any more.
    Done,
    /// Its handshake failed, or what it said made no sense.
    Failed,
    /// It took too long.
    TimedOut,
    /// Others waited.
    Displaced,
}

/// How often what was decided, and what came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Let in without proof.
    pub unproven: u64,
    /// Let in with a proven address.
    pub proven: u64,
    /// Let in with the proven address of a member.
    pub known: u64,
    /// Made a guest.
    pub guests: u64,
    /// Told to prove their address.
    pub to_prove: u64,
    /// Not answered, as all places were taken.
    pub crowded: u64,
    /// Not answered, as their subnet's allowance was used up.
    pub over_allowance: u64,
    /// Lost their place to others.
    pub displaced: u64,
    /// Took too long.
    pub timed_out: u64,
    /// Failed.
    pub failed: u64,
}

/// The part. See the module's documentation.
#[derive(Debug)]
pub struct Admission {
    unproven: Hall,
    proven: Hall,
    known: Hall,
    guests: Hall,
    of_subnet: Allowance,
    spent: HashMap<Subnet, Spent>,
    /// By those subnets for which there is no room in `spent`.
    spent_by_others: Spent,
    members: BTreeMap<SocketAddr, Time>,
    taken: u64,
    counters: Counters,
}

impl Admission {
    /// With nobody in it.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let hall = |kind, places| Hall { kind, places, taken: BTreeMap::new() };
        Self {
            unproven: hall(Kind::Unproven, config.unproven),
            proven: hall(Kind::Proven, config.proven),
            known: hall(Kind::Known, config.known),
            guests: hall(Kind::Guest, config.guests),
            of_subnet: config.of_subnet,
            spent: HashMap::new(),
            spent_by_others: Spent::default(),
            members: BTreeMap::new(),
            taken: 0,
            counters: Counters::default(),
        }
    }

    /// Somebody wants to shake hands, from an address that it has proven to be its own, or not.
    pub fn arrive(&mut self, from: SocketAddr, is_proven: bool, now: Time) -> Verdict {
        let subnet = Subnet::of(from.ip());
        self.taken += 1;
        let number = self.taken;
        if !is_proven {
            let granted = self.unproven.take(number, subnet, now);
            self.counters.unproven += u64::from(granted.is_some());
            self.counters.to_prove += u64::from(granted.is_none());
            return granted.map_or(Verdict::Prove, |granted| self.admit(granted));
        }
        // A subnet that strangers use up must not keep out the members in it.
        let is_known = self.is_known(from, now);
        if !is_known && !self.spend(subnet, now) {
            self.counters.over_allowance += 1;
            return Verdict::Ignore;
        }
        let hall = if is_known { &mut self.known } else { &mut self.proven };
        let Some(granted) = hall.take(number, subnet, now) else {
            self.counters.crowded += 1;
            return Verdict::Ignore;
        };
        let count = if is_known { &mut self.counters.known } else { &mut self.counters.proven };
        *count += 1;
        self.admit(granted)
    }

    /// Somebody has shaken hands, and has yet to say what it wants: it has a guest's place from now on. `None` if there is none
    /// for it.
    pub fn entertain(&mut self, place: PlaceId, from: SocketAddr, now: Time) -> Option<Granted> {
        self.hall(place.kind).taken.remove(&place.number);
        self.taken += 1;
        let granted = self.guests.take(self.taken, Subnet::of(from.ip()), now);
        match granted {
            Some(Granted { displaced, .. }) => {
                self.counters.guests += 1;
                self.counters.displaced += u64::from(displaced.is_some());
            }
            None => self.counters.crowded += 1,
        }
        granted
    }

    /// Somebody needs a place no more. One that was displaced is counted already.
    pub fn end(&mut self, place: PlaceId, outcome: Outcome) {
        self.hall(place.kind).taken.remove(&place.number);
        match outcome {
            Outcome::Failed => self.counters.failed += 1,
            Outcome::TimedOut => self.counters.timed_out += 1,
            Outcome::Done | Outcome::Displaced => {}
        }
    }

    /// A member is at this address.
    pub fn met(&mut self, at: SocketAddr, now: Time) {
        let at = canonical(at);
        if self.members.len() >= MAX_KNOWN && !self.members.contains_key(&at) {
            let oldest = self.members.iter().min_by_key(|(_, met)| **met).map(|(at, _)| *at);
            oldest.and_then(|oldest| self.members.remove(&oldest));
        }
        self.members.insert(at, now);
    }

    /// What has happened so far.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    fn admit(&mut self, granted: Granted) -> Verdict {
        self.counters.displaced += u64::from(granted.displaced.is_some());
        Verdict::Admit(granted)
    }

    fn is_known(&self, from: SocketAddr, now: Time) -> bool {
        self.members.get(&canonical(from)).is_some_and(|met| now.since(*met) < KNOWN_FOR)
    }

    /// Whether the subnet may have another handshake.
    fn spend(&mut self, subnet: Subnet, now: Time) -> bool {
        if self.spent.len() >= MAX_SUBNETS && !self.spent.contains_key(&subnet) {
            // An allowance of which nothing is used up need not be remembered.
            self.spent.retain(|_, spent| !spent.is_whole(now));
        }
        let is_room = self.spent.len() < MAX_SUBNETS || self.spent.contains_key(&subnet);
        let spent = if is_room { self.spent.entry(subnet).or_default() } else { &mut self.spent_by_others };
        spent.spend(self.of_subnet, now)
    }

    const fn hall(&mut self, kind: Kind) -> &mut Hall {
        match kind {
            Kind::Unproven => &mut self.unproven,
            Kind::Proven => &mut self.proven,
            Kind::Known => &mut self.known,
            Kind::Guest => &mut self.guests,
        }
    }
}

/// As the peer would write its address: a dual-stack socket shows IPv4 ones in IPv6 form.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// The places of a kind.
#[derive(Debug)]
struct Hall {
    kind: Kind,
    places: Places,
    /// By whom, and since when, in the order in which they were taken.
    taken: BTreeMap<u64, (Subnet, Time)>,
}

impl Hall {
    fn take(&mut self, number: u64, subnet: Subnet, now: Time) -> Option<Granted> {
        let displaced =
            if self.taken.len() < self.places.most { None } else { Some(self.least_entitled(subnet, now)?) };
        displaced.map(|displaced| self.taken.remove(&displaced));
        self.taken.insert(number, (subnet, now));
        let place = |number| PlaceId { kind: self.kind, number };
        Some(Granted { place: place(number), limit: self.places.limit, displaced: displaced.map(place) })
    }

    /// Who has to make room for somebody of this subnet.
    fn least_entitled(&self, subnet: Subnet, now: Time) -> Option<u64> {
        let mut counts: BTreeMap<Subnet, (usize, Reverse<u64>)> = BTreeMap::new();
        for (number, (of, _)) in &self.taken {
            counts.entry(*of).or_insert((0, Reverse(*number))).0 += 1;
        }
        let own = counts.get(&subnet).map_or(0, |(count, _)| *count);
        let (most, Reverse(its_oldest)) = counts.values().max().copied()?;
        if most > own + 1 {
            return Some(its_oldest);
        }
        let may_lose = |of: &Subnet, since: Time| {
            counts.get(of).is_some_and(|(count, _)| *count >= own) && now.since(since) >= self.places.fair
        };
        self.taken.iter().find(|(_, (of, since))| may_lose(of, *since)).map(|(number, _)| *number)
    }
}

#[cfg(test)]
mod tests;
