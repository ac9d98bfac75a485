//! Whether others can reach a relay, as far as it shows.
//!
//! A relay that nobody can dial (the address that it offers is wrong, or behind a NAT) heartbeats like any other and carries
//! nothing, so by its load it would be the best of all. So it is remembered who could not dial a relay: while that lasts it is
//! *doubted*, and planned only where nobody else will do. A newcomer is doubted once somebody could not dial it; a relay that was
//! reached before, once [`ENOUGH`] failure domains say so. The relays of a subnet have one voice, and so have all endpoints
//! together, as identities cost nothing. A voice lasts for [`MEMORY`]; doubt ends with the last one, or as soon as somebody has
//! dialled the relay (whoever said that it could not, or a target that is attached to it), or it registers anew.
//!
//! What liars can do: each is believed until relays have refuted it too often (see `pool/reports.rs`), which is over five. So N
//! identities, in several domains, keep new flows from 5N/2 relays that were reached before, or 5N newcomers: for as long as
//! others can take those flows, and nobody dials them all the same.

use super::subnet::Subnet;
use crate::time::Time;
use std::time::Duration;

/// Failure domains whose members could not dial a relay that others did reach.
const ENOUGH: usize = 2;
/// How long it is remembered that somebody could not dial a relay.
const MEMORY: Duration = Duration::from_secs(300);

/// Somebody could not dial a relay.
#[derive(Clone, Copy, Debug)]
struct Voice {
    /// From where; `None` for all endpoints.
    domain: Option<Subnet>,
    at: Time,
}

/// Who could not dial a relay: the last of each domain, of as many as count.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Voices([Option<Voice>; ENOUGH]);

impl Voices {
    fn add(&mut self, domain: Option<Subnet>, now: Time) {
        let is_same = |voice: &Option<Voice>| voice.is_some_and(|voice| voice.domain == domain);
        let place = self.0.iter().position(is_same);
        let oldest = self.0.iter().enumerate().min_by_key(|(_, voice)| voice.map(|voice| voice.at));
        let place = place.or(oldest.map(|(place, _)| place));
        if let Some(voice) = place.and_then(|place| self.0.get_mut(place)) {
            *voice = Some(Voice { domain, at: now });
        }
    }

    fn count(&self, now: Time) -> usize {
        self.0.iter().flatten().filter(|voice| now.since(voice.at) < MEMORY).count()
    }
}

/// What is known of whether a relay can be reached. Kept by the relay beside what it is weighed by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Reach {
    /// Nothing.
    #[default]
    Untried,
    /// Somebody did reach it.
    Proven,
    /// Others could not, lately.
    Doubted,
}

impl Reach {
    /// The relay says that it carries so many flows.
    pub(super) fn heard(&mut self, flows: u32, voices: &Voices, now: Time) {
        if *self != Self::Doubted || voices.count(now) == 0 {
            *self = match (*self, flows) {
                (Self::Proven, _) | (_, 1..) => Self::Proven,
                (Self::Untried | Self::Doubted, 0) => Self::Untried,
            };
        }
    }

    /// Somebody could not dial it. Returns whether it is doubted from now on.
    pub(super) fn failed(&mut self, voices: &mut Voices, domain: Option<Subnet>, now: Time) -> bool {
        voices.add(domain, now);
        let needed = if *self == Self::Proven { ENOUGH } else { 1 };
        let is_new = *self != Self::Doubted && voices.count(now) >= needed;
        if is_new {
            *self = Self::Doubted;
        }
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDPOINTS: Option<Subnet> = None;
    const SUBNETS: [Option<Subnet>; 3] =
        [Some(Subnet::V4([10, 0, 1])), Some(Subnet::V4([10, 0, 2])), Some(Subnet::V4([10, 0, 3]))];

    fn at(s: u64) -> Time {
        Time::ZERO + Duration::from_secs(s)
    }

    #[test]
    fn one_voice_is_enough_for_a_newcomer_and_two_domains_for_who_was_reached() {
        let (mut reach, mut voices) = <(Reach, Voices)>::default();
        assert!(reach.failed(&mut voices, ENDPOINTS, at(0)), "a newcomer");
        assert!(!reach.failed(&mut voices, SUBNETS[0], at(1)), "that is no news");
        reach.heard(7, &voices, at(2));
        assert_eq!(reach, Reach::Doubted, "its own word is not enough");

        let (mut reach, mut voices) = <(Reach, Voices)>::default();
        reach.heard(1, &voices, at(0));
        for n in 0..100 {
            assert!(!reach.failed(&mut voices, ENDPOINTS, at(n)), "however many, and however often");
        }
        assert!(reach.failed(&mut voices, SUBNETS[0], at(100)));
        assert_eq!(reach, Reach::Doubted);
    }

    #[test]
    fn doubt_ends_with_the_last_voice_and_voices_that_are_too_far_apart_do_not_add_up() {
        let (mut reach, mut voices) = <(Reach, Voices)>::default();
        reach.failed(&mut voices, SUBNETS[0], at(0));
        reach.failed(&mut voices, SUBNETS[1], at(100));
        reach.failed(&mut voices, SUBNETS[2], at(200));
        reach.heard(0, &voices, at(499));
        assert_eq!(reach, Reach::Doubted);
        reach.heard(1, &voices, at(500));
        assert_eq!(reach, Reach::Proven);
        assert!(!reach.failed(&mut voices, SUBNETS[0], at(500)), "the others said so too long ago");
    }
}
