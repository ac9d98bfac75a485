//! How often nodes are heard, and how long they keep their places in silence, on networks of a kind. All figures that a
//! preset stands for are here.

use super::Config;
use std::time::Duration;

/// How often a node sends a heartbeat, and how long its lease lasts without one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cadence {
    /// Zero for no monitoring: see [`Config::heartbeat`].
    pub heartbeat: Duration,
    /// Several heartbeats long, as one may be lost.
    pub lease: Duration,
}

/// A cadence, in a word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CadencePreset {
    /// A dead relay is out of the pool within half a minute, and 1,000 relays cost 100 heartbeats a second.
    #[default]
    Default,
    /// For whoever tries things out: who is killed is missed at once.
    Dev,
    /// Machines in one room.
    Local,
    /// Between continents, where the path to the bootstrap fails for seconds now and then.
    CrossRegion,
    /// Satellites and mobile networks, where it fails for longer.
    HighLatency,
    /// As most service registries do it.
    Classic,
    /// Very many relays, or ones that rarely go.
    Relaxed,
}

impl CadencePreset {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Default,
        Self::Dev,
        Self::Local,
        Self::CrossRegion,
        Self::HighLatency,
        Self::Classic,
        Self::Relaxed,
    ];

    /// The figures that it stands for.
    #[must_use]
    pub const fn cadence(self) -> Cadence {
        match self {
            Self::Default => seconds(10, 30),
            Self::Dev => seconds(1, 3),
            Self::Local => seconds(2, 8),
            Self::CrossRegion => seconds(20, 75),
            Self::HighLatency => seconds(30, 120),
            Self::Classic => seconds(60, 180),
            Self::Relaxed => seconds(120, 600),
        }
    }
}

const fn seconds(heartbeat: u64, lease: u64) -> Cadence {
    Cadence { heartbeat: Duration::from_secs(heartbeat), lease: Duration::from_secs(lease) }
}

impl Cadence {
    /// A heartbeat with the lease that goes with it if nobody says otherwise: two heartbeats may be lost.
    #[must_use]
    pub const fn of(heartbeat: Duration) -> Self {
        Self { heartbeat, lease: heartbeat.saturating_mul(3) }
    }
}

impl Config {
    /// The same policies with another cadence.
    #[must_use]
    pub const fn with_cadence(mut self, cadence: Cadence) -> Self {
        self.heartbeat = cadence.heartbeat;
        self.pool.lease = cadence.lease;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::super::Bootstrap;
    use super::*;
    use crate::BootId;
    use crate::crypto::Key;
    use crate::rpc::{Heartbeat, Lease, Load, Offer, Request, Response, Status};
    use crate::{NodeId, Time};
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    const NODE: NodeId = NodeId::from_bytes([1; 32]);
    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn start() -> Time {
        Time::ZERO + DAY * 20_000
    }

    fn ask(bootstrap: &mut Bootstrap, request: Request, now: Time) -> Lease {
        let response = bootstrap.answer(NODE, request, now);
        let Response::Lease(lease) = response else { panic!("{response:?}") };
        lease
    }

    /// A bootstrap of this cadence, and the lease of the relay that registered there.
    fn registered(cadence: Cadence) -> (Bootstrap, Lease) {
        let config = Config::default().with_cadence(cadence);
        config.validate().unwrap();
        let key = Key::from_bytes([7; 32]);
        let mut bootstrap = Bootstrap::new(config, key, StdRng::seed_from_u64(1), start());
        let offer = Offer::relay(([127, 0, 0, 1], 4000).into(), "", 100);
        let lease = ask(
            &mut bootstrap,
            Request::Register { name: "r1".to_owned(), offer, boot: BootId::from_bytes([1; 16]) },
            start(),
        );
        (bootstrap, lease)
    }

    fn status(bootstrap: &Bootstrap) -> Status {
        bootstrap.pool().get(&NODE).unwrap().status
    }

    #[test]
    fn the_default_is_that_of_the_policies() {
        let policies = Config::default();
        assert_eq!(policies.with_cadence(CadencePreset::Default.cadence()), policies);
    }

    #[test]
    fn a_relay_is_heard_and_lost_as_the_preset_says() {
        for preset in CadencePreset::ALL {
            let cadence = preset.cadence();
            let (mut bootstrap, lease) = registered(cadence);
            assert_eq!(lease.duration, cadence.lease, "{preset:?}");
            assert!(lease.next_heartbeat <= cadence.heartbeat, "{preset:?}");
            let end = start() + cadence.lease;
            bootstrap.handle_timeout(end - Duration::from_millis(1));
            assert_ne!(status(&bootstrap), Status::Offline, "{preset:?}");
            bootstrap.handle_timeout(end);
            assert_eq!(status(&bootstrap), Status::Offline, "{preset:?}");
        }
    }

    #[test]
    fn without_monitoring_nobody_expires_and_keys_are_renewed() {
        let (mut bootstrap, lease) = registered(Cadence::of(Duration::ZERO));
        assert!(lease.next_heartbeat > DAY / 2, "it need not say that it lives: {:?}", lease.next_heartbeat);
        let mut held: Vec<u32> = lease.keys.iter().map(|(epoch, _)| *epoch).collect();
        let (mut now, mut wait) = (start(), lease.next_heartbeat);
        for sequence in 1..=20 {
            now = now + wait;
            bootstrap.handle_timeout(now);
            let key_epoch = held.last().copied();
            let heartbeat = Heartbeat { sequence, sent_at: now, load: Load::default(), key_epoch };
            let lease = ask(&mut bootstrap, Request::Heartbeat(heartbeat), now);
            let days = u32::try_from(now.since(Time::ZERO).as_secs() / DAY.as_secs()).unwrap();
            assert!(held.contains(&days), "it has today's key before it asks for the next");
            held.extend(lease.keys.iter().map(|(epoch, _)| *epoch));
            wait = lease.next_heartbeat;
            assert!(wait > DAY, "{wait:?}");
        }
        bootstrap.handle_timeout(now + DAY * 3650);
        assert_eq!(status(&bootstrap), Status::Online, "silent for ten years");
    }

    proptest! {
        #[test]
        fn presets_and_heartbeats_make_sense_whatever_the_routes(
            preset in proptest::sample::select(CadencePreset::ALL.to_vec()),
            heartbeat_ms in 0u64..=24 * 3600 * 1000,
            route_days in 1u32..=30,
        ) {
            let policies = Config { record_lifetime: DAY * route_days, ..Config::default() };
            prop_assert_eq!(policies.with_cadence(preset.cadence()).validate(), Ok(()));
            let own = Cadence::of(Duration::from_millis(heartbeat_ms));
            prop_assert_eq!(policies.with_cadence(own).validate(), Ok(()));
        }
    }
}
