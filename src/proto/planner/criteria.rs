//! What is asked of a relay, and how well one fits.

use crate::families::Families;
use crate::id::NodeId;
use crate::planted::{self, Law};
use crate::pool::{Apart, Relay};
use crate::time::Time;
use std::cmp::Reverse;

/// What a relay must have one in common with each of: the families of who dials it, and of whom it dials.
pub type Between = [Families; 2];

/// What is asked of a relay.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Criteria<'w> {
    /// These will not do.
    pub(super) exclude: &'w [NodeId],
    /// These only if there is no other.
    pub(super) avoid: &'w [NodeId],
    /// These are needed elsewhere.
    pub(super) reserved: &'w [NodeId],
    /// It should fail independently of this one most of all,
    pub(super) partner: Option<&'w Relay>,
    /// and of these.
    pub(super) others: &'w [&'w Relay],
    /// It should be there for long.
    pub(super) lasting: bool,
    /// It must have a family in common with these,
    pub(super) between: Between,
    /// and should have both.
    pub(super) wide: bool,
}

/// How well a relay fits; the lowest is the best.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Score {
    pub(super) avoided: bool,
    pub(super) doubted: bool,
    pub(super) shared: (Shared, Shared),
    pub(super) reserved: bool,
    pub(super) narrow: bool,
    pub(super) age: Reverse<u32>,
    pub(super) on_trial: bool,
    pub(super) load: u64,
    pub(super) tie: u64,
}

/// The smallest failure domain that two relays have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Shared {
    Nothing,
    Zone,
    Subnet,
    Host,
}

impl Shared {
    /// A zone without a name is unknown, so nobody shares it.
    pub(super) fn between(a: &Relay, b: &Relay) -> Self {
        if a.host() == b.host() {
            Self::Host
        } else if a.subnet() == b.subnet() {
            Self::Subnet
        } else if a.shares_zone(b) {
            Self::Zone
        } else {
            Self::Nothing
        }
    }
}

impl Criteria<'_> {
    pub(super) fn allows(&self, relay: &Relay) -> bool {
        let excluded = self.exclude.contains(&relay.node) && !planted::broken(Law::ExcludeHeeded);
        relay.has_room() && !excluded && fits(relay, self.between)
    }

    /// What a relay should have nothing of, the most demanding preference first.
    pub(super) fn preferences(&self) -> [Apart<'_>; 5] {
        let none = Vec::new();
        let partner: Vec<&Relay> = self.partner.into_iter().collect();
        let all: Vec<&Relay> = partner.iter().chain(self.others).copied().collect();
        [(&all, &all), (&partner, &all), (&partner, &partner), (&none, &all), (&none, &partner)].map(
            |(zones, subnets)| Apart {
                zones: zones.iter().map(|relay| relay.offer().zone.as_str()).collect(),
                subnets: subnets.iter().map(|relay| relay.subnet()).collect(),
            },
        )
    }

    pub(super) fn score(&self, relay: &Relay, now: Time, tie: u64) -> Score {
        let shared = |other: &Relay| Shared::between(relay, other);
        let with_partner = self.partner.map_or(Shared::Nothing, shared);
        let with_others = self.others.iter().map(|other| shared(other)).max().unwrap_or(Shared::Nothing);
        let age = if self.lasting { age_class(relay, now) } else { 0 };
        Score {
            avoided: false,
            doubted: relay.is_doubted(),
            shared: (with_partner, with_others),
            reserved: false,
            narrow: self.wide && relay.families() != Families::BOTH,
            age: Reverse(age),
            on_trial: relay.is_on_trial(),
            load: (u64::from(relay.flows()) << 24) / u64::from(relay.capacity.max(1)),
            tie,
        }
    }
}

impl Score {
    pub(super) fn is_independent(&self) -> bool {
        !self.avoided && !self.doubted && self.shared == (Shared::Nothing, Shared::Nothing)
    }
}

/// Whether a relay has a family in common with both its neighbours.
#[must_use]
pub fn fits(relay: &Relay, between: Between) -> bool {
    between.iter().all(|families| relay.families().meets(*families))
}

/// Relays of about the same age count as equal: the binary logarithm of the age in minutes.
fn age_class(relay: &Relay, now: Time) -> u32 {
    (now.since(relay.registered_at).as_secs() / 60 + 1).ilog2()
}
