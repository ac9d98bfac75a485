//! How many requests a bootstrap answers, and which kinds first.
//!
//! Each member has a quota, and a separate one for renewals. So no member can use another's quota, nor its plans those of its
//! heartbeats. All members together have a quota too, in which the classes are nested: listings may use a quarter of it, plans and
//! listings half, these and registrations three quarters, and renewals all. So under overload listings are refused first and renewals
//! last: members keep their places, and flows are served by the present relays.
//!
//! Quotas use the generic cell rate algorithm (`governor`). The memory is bounded: a member that was quiet is forgotten after
//! [`TEND_EVERY`] requests at the latest.

use super::Limits;
use governor::clock::{Clock, DefaultClock};
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::HashMapStateStore;
use governor::state::{InMemoryState, NotKeyed};
use governor::{NotUntil, Quota, RateLimiter};
use hopline_proto::NodeId;
use hopline_proto::rpc::{Refusal, Request};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Nobody is told to come back sooner.
const MIN_WAIT: Duration = Duration::from_millis(100);
/// A member may save up so many seconds of its quota.
const BURST_SECONDS: u32 = 2;
/// After so many requests the members that have their whole quota again are forgotten.
const TEND_EVERY: u32 = 1 << 16;

/// What a request is for; the earlier, the sooner it is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Class {
    /// To keep a place, and to give it up.
    Renewal,
    /// To take a place, and to tell who lost theirs.
    Registration,
    /// Routes, and what keeps them whole.
    Plan,
    /// What there is.
    Listing,
}

impl Class {
    /// Those whose limits are the narrowest come first: what they refuse takes nothing of the others' part.
    const NARROWEST_FIRST: [Self; 4] = [Self::Listing, Self::Plan, Self::Registration, Self::Renewal];

    pub(super) const fn of(request: &Request) -> Self {
        match request {
            Request::Heartbeat(_) | Request::Deregister { .. } | Request::Drain => Self::Renewal,
            Request::Register { .. }
            | Request::ReportDown { .. }
            | Request::ReportUp { .. }
            | Request::ReportUnreached { .. }
            | Request::ReportReached { .. } => Self::Registration,
            Request::Plan { .. }
            | Request::Spare { .. }
            | Request::Replace { .. }
            | Request::Renew { .. }
            | Request::Attachments { .. } => Self::Plan,
            Request::List | Request::Unknown => Self::Listing,
        }
    }

    /// How much of all requests this class and the later ones may be.
    const fn percent(self) -> u32 {
        match self {
            Self::Renewal => 100,
            Self::Registration => 75,
            Self::Plan => 50,
            Self::Listing => 25,
        }
    }
}

type Limiter<C> = RateLimiter<NotKeyed, InMemoryState, C, NoOpMiddleware<<C as Clock>::Instant>>;
type MemberLimiter<C> =
    RateLimiter<NodeId, HashMapStateStore<NodeId>, C, NoOpMiddleware<<C as Clock>::Instant>>;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Throttle<C: Clock = DefaultClock> {
    classes: [(Class, Limiter<C>); 4],
    members: MemberLimiter<C>,
    renewals: MemberLimiter<C>,
    clock: C,
    asked: AtomicU32,
}

impl Throttle {
    pub(super) fn new(limits: &Limits) -> Self {
        Self::with_clock(limits.requests, limits.requests_of_member, DefaultClock::default())
    }
}

impl<C: Clock + Clone> Throttle<C> {
    /// With so many requests a second in all, and of one member.
    fn with_clock(total: u32, member: u32, clock: C) -> Self {
        let limiter = |class: Class| {
            let quota = Quota::per_second(at_least_one(share(total, class.percent())));
            (class, RateLimiter::direct_with_clock(quota, clock.clone()))
        };
        let burst = at_least_one(member.saturating_mul(BURST_SECONDS));
        let quota = Quota::per_second(at_least_one(member)).allow_burst(burst);
        Self {
            classes: Class::NARROWEST_FIRST.map(limiter),
            members: RateLimiter::hashmap_with_clock(quota, clock.clone()),
            renewals: RateLimiter::hashmap_with_clock(quota, clock.clone()),
            clock,
            asked: AtomicU32::new(0),
        }
    }

    /// Whether a request of this class is taken now; if not, when to ask again.
    pub(super) fn admit(&self, from: &NodeId, class: Class) -> Result<(), Refusal> {
        if self.asked.fetch_add(1, Ordering::Relaxed) % TEND_EVERY == TEND_EVERY - 1 {
            self.members.retain_recent();
            self.renewals.retain_recent();
        }
        let own = if class == Class::Renewal { &self.renewals } else { &self.members };
        // First, so that a member beyond its own quota takes nothing of what all share.
        own.check_key(from).map_err(|until| self.throttled(&until))?;
        for (_, limiter) in self.classes.iter().filter(|(limited, _)| *limited <= class) {
            limiter.check().map_err(|until| self.throttled(&until))?;
        }
        Ok(())
    }

    fn throttled(&self, until: &NotUntil<C::Instant>) -> Refusal {
        Refusal::Throttled { retry_after: until.wait_time_from(self.clock.now()).max(MIN_WAIT) }
    }
}

fn share(of: u32, percent: u32) -> u32 {
    u32::try_from(u64::from(of) * u64::from(percent) / 100).unwrap_or(u32::MAX)
}

fn at_least_one(count: u32) -> NonZeroU32 {
    NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use governor::clock::FakeRelativeClock;

    const MANY: u32 = 10_000;

    fn node(n: u32) -> NodeId {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&n.to_be_bytes());
        NodeId::from_bytes(bytes)
    }

    fn throttle(total: u32, member: u32) -> (Throttle<FakeRelativeClock>, FakeRelativeClock) {
        let clock = FakeRelativeClock::default();
        (Throttle::with_clock(total, member, clock.clone()), clock)
    }

    /// How many of as many as come are taken, of members that ask once each.
    fn taken(throttle: &Throttle<FakeRelativeClock>, class: Class) -> usize {
        (0..MANY).filter(|n| throttle.admit(&node(*n), class).is_ok()).count()
    }

    fn wait(refused: Result<(), Refusal>) -> Duration {
        let Err(Refusal::Throttled { retry_after }) = refused else { panic!("{refused:?}") };
        retry_after
    }

    #[test]
    fn under_overload_listings_go_first_and_renewals_last() {
        let (throttle, clock) = throttle(1000, MANY);
        let order = [Class::Listing, Class::Plan, Class::Registration, Class::Renewal];
        assert_eq!(order.map(|class| taken(&throttle, class)), [250, 250, 250, 250], "what is left for each");
        assert_eq!(order.map(|class| taken(&throttle, class)), [0; 4]);
        clock.advance(Duration::from_secs(1));
        assert_eq!(taken(&throttle, Class::Renewal), 1000, "renewals may take all");
        assert_eq!(taken(&throttle, Class::Listing), 0);
    }

    #[test]
    fn a_member_takes_its_own_part_only() {
        let (throttle, clock) = throttle(MANY, 100);
        let ask = |n| throttle.admit(&node(n), Class::Plan);
        assert_eq!((0..MANY).filter(|_| ask(1).is_ok()).count(), 200);
        assert_eq!(wait(ask(1)), MIN_WAIT);
        ask(2).unwrap();
        clock.advance(MIN_WAIT);
        assert_eq!((0..MANY).filter(|_| ask(1).is_ok()).count(), 10);
    }

    #[test]
    fn whoever_comes_when_told_is_taken() {
        let (throttle, clock) = throttle(1, MANY);
        throttle.admit(&node(1), Class::Listing).unwrap();
        let retry_after = wait(throttle.admit(&node(1), Class::Listing));
        assert_eq!(retry_after, Duration::from_secs(1));
        clock.advance(retry_after);
        throttle.admit(&node(1), Class::Listing).unwrap();
    }

    #[test]
    fn who_has_gone_is_forgotten() {
        let (throttle, clock) = throttle(1_000_000, 100);
        let turns = TEND_EVERY - 1;
        (0..turns).for_each(|n| throttle.admit(&node(n), Class::Renewal).unwrap());
        assert_eq!(throttle.renewals.len(), turns as usize);
        clock.advance(Duration::from_secs(BURST_SECONDS.into()));
        throttle.admit(&node(0), Class::Renewal).unwrap();
        assert_eq!(throttle.renewals.len(), 1);
    }
}
