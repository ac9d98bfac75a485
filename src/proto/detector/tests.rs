//! Two detectors at the ends of a link that can lose, delay and cut, and whose processes can stall.

use super::*;
use crate::frame::{Evidence, Watch};
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
/// The round trip that a handshake took, where no other end is simulated.
const HANDSHAKE: Duration = Duration::from_millis(50);

fn at(ms: u32) -> Time {
    Time::ZERO + SECOND * 1000 + MS * ms
}

/// What comes first when a process wakes from a stall.
#[derive(Clone, Copy, Debug)]
enum Waking {
    TimersFirst,
    PacketsFirst,
}

struct World {
    now: Time,
    ends: [Detector; 2],
    latency: Duration,
    /// Whether what end `i` sends arrives.
    carries: [bool; 2],
    /// By what chance anything is lost.
    loss: f64,
    rng: StdRng,
    /// Until when end `i` does nothing.
    asleep_until: [Time; 2],
    waking: Waking,
    wire: Vec<(Time, usize, Heartbeat)>,
    sent: [u32; 2],
    log: Vec<(Time, usize, Outcome)>,
}

impl World {
    fn new(pace: Pace, latency: Duration) -> Self {
        let config = Config { pace, ..Config::default() };
        Self {
            now: at(0),
            ends: [(); 2].map(|()| Detector::new(config, latency * 2, at(0))),
            latency,
            carries: [true; 2],
            loss: 0.0,
            rng: StdRng::seed_from_u64(1),
            asleep_until: [Time::ZERO; 2],
            waking: Waking::TimersFirst,
            wire: Vec::new(),
            sent: [0; 2],
            log: Vec::new(),
        }
    }

    fn busy(pace: Pace, latency: Duration) -> Self {
        let mut world = Self::new(pace, latency);
        world.ends.iter_mut().for_each(|end| end.set_busy(true, at(0)));
        world
    }

    /// The next moment at which end `i` has something to do.
    fn due(&self, i: usize) -> Option<Time> {
        let packets = self.wire.iter().filter(|(_, to, _)| *to == i).map(|(at, ..)| *at);
        let next = packets.chain(self.ends[i].poll_timeout()).min()?;
        Some(next.max(self.asleep_until[i]))
    }

    fn run_until(&mut self, end: Time) {
        while let Some((due, i)) = [0, 1].into_iter().filter_map(|i| Some((self.due(i)?, i))).min() {
            if due > end {
                break;
            }
            self.now = due;
            if matches!(self.waking, Waking::TimersFirst) {
                self.poll(i);
            }
            self.receive(i);
            self.poll(i);
        }
        self.now = end;
    }

    fn run(&mut self, duration: Duration) {
        self.run_until(self.now + duration);
    }

    fn receive(&mut self, i: usize) {
        let now = self.now;
        let (mine, rest): (Vec<_>, Vec<_>) =
            self.wire.drain(..).partition(|(at, to, _)| *to == i && *at <= now);
        self.wire = rest;
        for (.., heartbeat) in mine {
            self.ends[i].on_heartbeat(&heartbeat, now);
            if matches!(self.waking, Waking::PacketsFirst) {
                self.poll(i);
            }
        }
    }

    fn poll(&mut self, i: usize) {
        let now = self.now;
        while let Some(outcome) = self.ends[i].poll(now) {
            match outcome {
                Outcome::SendHeartbeat(heartbeat) => {
                    self.sent[i] += 1;
                    if self.carries[i] && !self.rng.random_bool(self.loss) {
                        self.wire.push((now + self.latency, 1 - i, heartbeat));
                    }
                }
                Outcome::Suspect | Outcome::Down | Outcome::Recovered => self.log.push((now, i, outcome)),
            }
        }
        assert!(self.ends[i].poll_timeout().is_none_or(|at| at > now));
    }

    /// End `i` does nothing for that long.
    fn stall(&mut self, i: usize, duration: Duration) {
        self.asleep_until[i] = self.now + duration;
    }

    fn kill(&mut self, i: usize) {
        self.asleep_until[i] = Time::MAX;
    }

    /// When end `i` first found `outcome`.
    fn first(&self, i: usize, outcome: Outcome) -> Option<Time> {
        self.log.iter().find(|(_, end, what)| *end == i && *what == outcome).map(|(at, ..)| *at)
    }
}

#[test]
fn the_first_exchange_yields_the_round_trip() {
    let mut world = World::new(Pace::Auto, MS * 20);
    world.run(MS * 45);
    for end in &world.ends {
        assert_eq!(end.rtt(), Some(MS * 40));
    }
    assert_eq!(world.sent, [2, 2]);
}

#[test]
fn a_busy_link_beats_once_per_interval_and_an_idle_one_rarely() {
    for (latency, interval) in [(MS / 2, MS * 10), (MS * 20, MS * 80), (MS * 600, SECOND)] {
        let mut world = World::busy(Pace::Auto, latency);
        world.run(SECOND * 20);
        world.sent = [0; 2];
        world.run(SECOND * 40);
        let beats = u32::try_from((SECOND * 40).as_micros() / interval.as_micros()).unwrap();
        for sent in world.sent {
            assert!((beats - 1..=beats + 1).contains(&sent), "{sent} at an interval of {interval:?}");
        }
        assert_eq!(world.log, []);
        world.ends.iter_mut().for_each(|end| end.set_busy(false, world.now));
        world.run(SECOND * 5);
        world.sent = [0; 2];
        world.run(SECOND * 50);
        assert_eq!(world.sent, [10, 10]);
        assert_eq!(world.log, []);
    }
}

#[test]
fn heartbeats_answer_each_other_so_that_each_end_wakes_once_for_both() {
    let mut world = World::busy(Pace::Auto, MS / 2);
    // They begin out of step.
    world.stall(1, MS * 5);
    world.run(SECOND * 2);
    let mut answered = 0;
    for _ in 0..200 {
        let before = world.sent;
        world.run(MS * 10);
        answered += u32::from(world.sent[0] == before[0] + 1 && world.sent[1] == before[1] + 1);
        let (one, other) = (world.ends[0].outbound.sent_at.unwrap(), world.ends[1].outbound.sent_at.unwrap());
        let apart = one.since(other).max(other.since(one));
        assert!(apart <= MS / 2 || apart >= MS * 19 / 2, "{apart:?}");
    }
    assert!(answered >= 198, "{answered}");
}

#[test]
fn on_a_quiet_machine_a_death_shows_within_the_floor() {
    let mut world = World::busy(Pace::Auto, MS / 2);
    world.run(SECOND);
    world.kill(1);
    let heard = world.ends[0].last_heard();
    world.run(SECOND * 3);
    let suspect = world.first(0, Outcome::Suspect).unwrap();
    assert_eq!(suspect.since(heard), MS * 30);
    assert_eq!(world.first(0, Outcome::Down).unwrap().since(suspect), SECOND);
    assert_eq!(world.log.len(), 2);
}

#[test]
fn an_idle_link_is_judged_by_its_own_interval() {
    let mut world = World::new(Pace::Auto, MS / 2);
    world.run(SECOND * 60);
    world.kill(1);
    let heard = world.ends[0].last_heard();
    world.run(SECOND * 400);
    let suspect = world.first(0, Outcome::Suspect).unwrap();
    assert_eq!(suspect.since(heard), SECOND * 15);
    assert_eq!(world.first(0, Outcome::Down).unwrap().since(suspect), SECOND * 150, "ten deadlines");
}

#[test]
fn turning_busy_shows_that_an_idle_peer_is_dead() {
    let mut world = World::new(Pace::Auto, MS / 2);
    world.run(SECOND * 12);
    world.kill(1);
    world.run(SECOND);
    let busy_at = world.now;
    world.ends[0].set_busy(true, busy_at);
    world.poll(0);
    world.run(SECOND);
    let suspect = world.first(0, Outcome::Suspect).unwrap();
    assert!(suspect.since(busy_at) <= MS * 35, "{:?}", suspect.since(busy_at));
}

#[test]
fn turning_busy_and_idle_again_and_again_alarms_nobody() {
    let mut world = World::new(Pace::Auto, MS * 3);
    for round in 0..400 {
        for i in [0, 1] {
            world.ends[i].set_busy(round % 3 == 0, world.now);
            world.poll(i);
        }
        world.run(MS * (round * 7 % 40));
    }
    assert_eq!(world.log, []);
}

#[test]
fn our_own_stall_makes_nobody_suspect() {
    for waking in [Waking::TimersFirst, Waking::PacketsFirst] {
        for pace in [Pace::Auto, Pace::Fixed(MS * 10)] {
            for latency in [MS / 2, MS * 60] {
                let mut world = World::busy(pace, latency);
                world.waking = waking;
                world.run(SECOND * 2);
                for stall in [20, 40, 100, 500, 3_000, 60_000] {
                    world.stall(0, MS * stall);
                    world.run(MS * stall + SECOND * 2);
                }
                let by_sleeper = world.log.iter().filter(|(_, end, _)| *end == 0).count();
                assert_eq!(by_sleeper, 0, "{waking:?} {pace:?} {latency:?}");
                assert!(world.ends[1].is_alive());
            }
        }
    }
}

#[test]
fn a_peer_that_dies_while_we_stall_is_still_found() {
    let mut world = World::busy(Pace::Auto, MS / 2);
    world.run(SECOND);
    world.kill(1);
    world.stall(0, MS * 500);
    let woken = world.now + MS * 500;
    world.run(SECOND);
    let suspect = world.first(0, Outcome::Suspect).unwrap();
    assert!((MS * 10..MS * 100).contains(&suspect.since(woken)), "{:?}", suspect.since(woken));
}

#[test]
fn a_peer_that_stalls_is_suspect_until_it_wakes_and_less_easily_from_then_on() {
    let mut world = World::busy(Pace::Auto, MS / 2);
    for _ in 0..30 {
        world.run(MS * 900);
        world.stall(1, MS * 35);
        world.run(MS * 35);
    }
    let by_awake: Vec<Outcome> =
        world.log.iter().filter(|(_, end, _)| *end == 0).map(|(.., what)| *what).collect();
    assert_eq!(by_awake, [Outcome::Suspect, Outcome::Recovered], "only the first stall surprises");
}

#[test]
fn a_loaded_machine_alarms_rarely() {
    let mut world = World::busy(Pace::Auto, MS / 5);
    let mut rng = StdRng::seed_from_u64(1);
    while world.now < at(600_000) {
        world.run(MS * rng.random_range(1..30));
        let end = rng.random_range(0..2);
        // Ten processes on two cores: mostly a few slices of others, now and then many.
        let stall = if rng.random_ratio(1, 20) { rng.random_range(10..50) } else { rng.random_range(0..10) };
        world.stall(end, MS * stall);
    }
    let alarms = world.log.iter().filter(|(.., what)| *what == Outcome::Suspect).count();
    assert!(alarms <= 20, "{alarms} in ten minutes");
}

/// How long end 0 took each time that `fault` befell it and its peer, and that `mend` ended it 200 ms later.
fn detections(fault: fn(&mut World), mend: fn(&mut World)) -> Vec<Duration> {
    let mut world = World::busy(Pace::Auto, MS / 5);
    let mut taken = Vec::new();
    for _ in 0..60 {
        world.run(SECOND);
        world.log.clear();
        let since = world.now;
        fault(&mut world);
        world.run(MS * 200);
        mend(&mut world);
        taken.extend(world.first(0, Outcome::Suspect).map(|at| at.since(since)));
    }
    taken
}

#[test]
fn faults_again_and_again_do_not_blunt_it() {
    let cuts = detections(|world| world.carries = [false; 2], |world| world.carries = [true; 2]);
    assert_eq!(cuts.len(), 60);
    assert!(cuts.iter().all(|taken| *taken <= MS * 40), "{cuts:?}");
    let freezes = detections(|world| world.stall(1, MS * 200), |_| ());
    assert_eq!(freezes.len(), 60);
    assert!(freezes.iter().all(|taken| *taken <= MS * 80), "{freezes:?}");
}

#[test]
fn our_own_stalls_do_not_blunt_us() {
    for waking in [Waking::TimersFirst, Waking::PacketsFirst] {
        let mut world = World::busy(Pace::Auto, MS / 10);
        world.waking = waking;
        for _ in 0..20 {
            world.run(SECOND / 2);
            world.stall(0, SECOND / 4);
            world.run(SECOND / 2);
        }
        world.log.clear();
        let killed = world.now;
        world.kill(1);
        world.run(SECOND);
        let missed = world.first(0, Outcome::Suspect).expect("it is missed").since(killed);
        assert!(missed <= MS * 45, "{waking:?}: {missed:?}");
    }
}

#[test]
fn random_loss_alarms_rarely_and_hides_no_death() {
    for loss in [0.1, 0.5] {
        let mut world = World::busy(Pace::Auto, MS / 2);
        world.loss = loss;
        world.run(SECOND * 600);
        let alarms = world.log.iter().filter(|(.., what)| *what == Outcome::Suspect).count();
        assert!(alarms <= 60, "{alarms} in ten minutes at {loss}");
        assert!(world.log.iter().all(|(.., what)| *what != Outcome::Down));
        world.log.clear();
        world.kill(1);
        let died = world.now;
        world.run(SECOND * 5);
        let suspect = world.first(0, Outcome::Suspect).unwrap();
        assert!(suspect.since(died) <= MS * 250, "{:?} at {loss}", suspect.since(died));
        assert!(world.first(0, Outcome::Down).is_some());
    }
}

#[test]
fn loss_of_our_own_packets_shows_in_what_the_peer_echoes() {
    for latency in [MS / 2, MS * 20] {
        let mut world = World::busy(Pace::Auto, latency);
        world.run(SECOND * 2);
        world.carries[0] = false;
        let cut = world.now;
        world.run(SECOND);
        let deaf = world.first(0, Outcome::Suspect).unwrap().since(cut);
        let silent = world.first(1, Outcome::Suspect).unwrap().since(cut);
        assert!(deaf <= latency * 20 + MS * 50, "{deaf:?}");
        assert!(silent <= latency * 20 + MS * 40, "{silent:?}");
        world.log.clear();
        world.carries[0] = true;
        world.run(SECOND);
        for i in [0, 1] {
            assert!(world.first(i, Outcome::Recovered).is_some());
        }
    }
}

#[test]
fn traffic_is_a_sign_of_life_but_does_not_hide_deafness() {
    let mut world = World::busy(Pace::Fixed(MS * 10), MS / 2);
    world.run(SECOND);
    let mut lone = Detector::new(Config::default(), HANDSHAKE, at(0));
    lone.set_busy(true, at(0));
    for ms in 0..5_000 {
        lone.on_traffic(at(ms));
        while let Some(outcome) = lone.poll(at(ms)) {
            assert!(matches!(outcome, Outcome::SendHeartbeat(_)), "{outcome:?}");
        }
    }
    world.carries[0] = false;
    for _ in 0..100 {
        world.run(MS);
        world.ends[0].on_traffic(world.now);
        world.poll(0);
    }
    assert!(world.first(0, Outcome::Suspect).is_some());
}

#[test]
fn a_short_stall_surprises_once_though_data_comes_before_the_next_heartbeat() {
    let mut world = World::busy(Pace::Fixed(MS * 10), MS / 2);
    let mut suspicions = Vec::new();
    for _ in 0..5 {
        world.run(SECOND);
        world.log.clear();
        world.stall(1, MS * 40);
        world.run(MS * 40);
        world.ends[0].on_traffic(world.now);
        world.run(MS * 100);
        suspicions.push(world.first(0, Outcome::Suspect).is_some());
    }
    assert_eq!(suspicions, [true, false, false, false, false]);
}

#[test]
fn other_traffic_stands_in_for_every_second_heartbeat() {
    let sent = |spoken: bool, loss: f64| {
        let mut world = World::busy(Pace::Fixed(MS * 10), MS / 2);
        world.loss = loss;
        world.run(SECOND * 10);
        let before = world.sent;
        for _ in 0..1000 {
            world.run(MS);
            if spoken {
                let now = world.now;
                world.ends.iter_mut().for_each(|end| end.on_sent(now));
                world.ends.iter_mut().for_each(|end| end.on_traffic(now));
            }
        }
        assert!(world.log.is_empty(), "{:?}", world.log);
        [world.sent[0] - before[0], world.sent[1] - before[1]]
    };
    assert!(sent(false, 0.0).iter().all(|sent| (85..=105).contains(sent)), "{:?}", sent(false, 0.0));
    assert!(sent(true, 0.0).iter().all(|sent| (40..=55).contains(sent)), "{:?}", sent(true, 0.0));
    assert!(sent(true, 0.2).iter().all(|sent| (75..=105).contains(sent)), "{:?}", sent(true, 0.2));
}

#[test]
fn wishes_of_the_peer_are_served_within_bounds() {
    let mut detector = Detector::new(Config::default(), HANDSHAKE, at(0));
    let wanted =
        |sequence, wanted_us| Heartbeat { sequence, heard: 0, heard_ago_us: 0, wanted_us, probe: false };
    while detector.poll(at(0)).is_some() {}
    detector.on_heartbeat(&wanted(1, 20_000), at(1));
    while detector.poll(at(1)).is_some() {}
    assert_eq!(
        detector.poll_timeout(),
        Some(at(26)),
        "a quarter later than the peer's next, which it answers"
    );
    detector.on_heartbeat(&wanted(2, 1), at(2));
    assert_eq!(detector.poll_timeout(), Some(at(11)), "not faster than every 10 ms");
    detector.on_heartbeat(&wanted(1, 1_000_000), at(3));
    assert_eq!(detector.poll_timeout(), Some(at(11)), "one that was overtaken is no news");
}

#[test]
fn switched_off_it_judges_nothing_and_serves_the_peer() {
    let mut detector = Detector::new(Config { pace: Pace::Off, ..Config::default() }, HANDSHAKE, at(0));
    assert_eq!((detector.poll(at(0)), detector.poll_timeout()), (None, None));
    detector.on_hint(at(0));
    assert_eq!(detector.poll(at(9_000_000)), None);
    let wanted = Heartbeat { sequence: 1, heard: 0, heard_ago_us: 0, wanted_us: 20_000, probe: false };
    detector.on_heartbeat(&wanted, at(9_000_000));
    let answer = Heartbeat { sequence: 1, heard: 1, heard_ago_us: 0, wanted_us: 0, probe: false };
    assert_eq!(detector.poll(at(9_000_000)), Some(Outcome::SendHeartbeat(answer)));
    assert_eq!(detector.poll_timeout(), Some(at(9_000_025)), "or it answers the peer's next");
}

#[test]
fn an_echo_of_what_was_never_sent_is_no_evidence() {
    let mut detector = Detector::new(Config::default(), HANDSHAKE, at(0));
    detector.set_busy(true, at(0));
    for n in 1..400 {
        let now = at(n * 10);
        detector.on_heartbeat(
            &Heartbeat { sequence: n, heard: n + 100, heard_ago_us: 0, wanted_us: 0, probe: false },
            now,
        );
        while detector.poll(now).is_some() {}
    }
    assert_eq!(detector.rtt(), None);
    assert!(!detector.is_alive(), "deaf");
}

#[test]
fn a_hint_makes_it_probe_and_decide_soon() {
    type Hint = fn(&mut Detector, Time);
    let (hint, refusal): (Hint, Hint) = (Detector::on_hint, Detector::on_refusal);
    for (hint, within) in [(hint, MS * 30), (refusal, MS * 5)] {
        for (dead, busy) in [(false, false), (true, false), (false, true), (true, true)] {
            let mut world =
                if busy { World::busy(Pace::Auto, MS / 2) } else { World::new(Pace::Auto, MS / 2) };
            world.run(SECOND * 12);
            if dead {
                world.kill(1);
            }
            let hinted = world.now;
            hint(&mut world.ends[0], hinted);
            world.poll(0);
            world.run(SECOND);
            let suspect = world.first(0, Outcome::Suspect);
            assert_eq!(suspect.is_some(), dead, "a living peer answers a probe at once");
            assert!(suspect.is_none_or(|at| at.since(hinted) <= within), "{suspect:?} {hinted:?}");
        }
    }
}

#[test]
fn a_hint_after_one_that_was_answered_gives_as_much_time() {
    let mut world = World::new(Pace::Auto, MS / 2);
    world.run(SECOND / 10);
    for _ in 0..5 {
        // The answer comes sooner than a cautious estimate of the round trip, and then nothing for most of a second.
        let hinted = world.now;
        world.ends[0].on_hint(hinted);
        world.poll(0);
        world.run(SECOND / 5);
    }
    assert_eq!(world.first(0, Outcome::Suspect), None);
}

#[test]
fn when_others_die_a_link_with_flows_is_asked_after_at_once_and_one_without_a_second_later() {
    for (busy, after) in [(true, Duration::ZERO), (false, IDLE_ASKED)] {
        let mut world =
            if busy { World::busy(Pace::Fixed(SECOND * 2), MS) } else { World::new(Pace::Auto, MS) };
        world.run_until(at(13_200));
        let (asked, before) = (world.now, world.sent[0]);
        // Many die, one after the other.
        for number in 0..20 {
            let sooner = world.ends[0].ask(0, world.now);
            assert_eq!(sooner, number == 0);
            world.poll(0);
            world.run(MS);
        }
        let early = after.saturating_sub(MS * 50);
        world.run_until(asked + early);
        assert_eq!(world.sent[0] - before, u32::from(busy), "{early:?}");
        world.run_until(asked + after + MS * 50);
        assert_eq!(world.sent[0] - before, 1, "one heartbeat, however many died");
    }
}

#[derive(Clone, Debug)]
enum Input {
    Heartbeat(Heartbeat),
    Traffic,
    Hint,
    Refusal,
    Busy(bool),
    Nothing,
}

fn input() -> impl Strategy<Value = Input> {
    let heartbeat =
        (0..20u32, 0..20u32, any::<u32>(), prop_oneof![Just(0), Just(10_000), any::<u32>()], any::<bool>());
    prop_oneof![
        heartbeat.prop_map(|(sequence, heard, heard_ago_us, wanted_us, probe)| {
            Input::Heartbeat(Heartbeat { sequence, heard, heard_ago_us, wanted_us, probe })
        }),
        Just(Input::Traffic),
        Just(Input::Hint),
        Just(Input::Refusal),
        any::<bool>().prop_map(Input::Busy),
        Just(Input::Nothing),
    ]
}

proptest! {
    #[test]
    fn whatever_comes_polling_ends_and_lies_ahead(
        script in prop::collection::vec((input(), 0..200_000u32), 1..200),
        pace in prop_oneof![Just(Pace::Auto), Just(Pace::Fixed(Duration::ZERO)), Just(Pace::Off)],
    ) {
        let mut now = at(0);
        let mut detector = Detector::new(Config { pace, ..Config::default() }, HANDSHAKE, now);
        for (input, micros) in script {
            now = now + Duration::from_micros(micros.into());
            match input {
                Input::Heartbeat(heartbeat) => detector.on_heartbeat(&heartbeat, now),
                Input::Traffic => detector.on_traffic(now),
                Input::Hint => detector.on_hint(now),
                Input::Refusal => detector.on_refusal(now),
                Input::Busy(busy) => detector.set_busy(busy, now),
                Input::Nothing => {}
            }
            let outcomes = std::iter::from_fn(|| detector.poll(now)).take(10).count();
            prop_assert!(outcomes <= 4);
            prop_assert!(detector.poll_timeout().is_none_or(|at| at > now));
        }
    }

    #[test]
    fn a_dead_peer_is_found_however_irregular_it_was(
        stalls in prop::collection::vec((1..400u32, 0..200u32), 0..40),
        latency in 0..30_000u64,
    ) {
        let mut world = World::busy(Pace::Auto, Duration::from_micros(latency));
        for (gap, stall) in stalls {
            world.run(MS * gap);
            world.stall(1, MS * stall);
        }
        world.kill(1);
        world.run(SECOND * 30);
        prop_assert!(!world.ends[0].is_alive());
        prop_assert!(world.first(0, Outcome::Down).is_some());
    }
}

/// What end 0 knew when it first found its peer suspect.
fn reason(world: &World) -> (Evidence, Watch) {
    assert!(world.first(0, Outcome::Suspect).is_some());
    let reason = world.ends[0].reason().unwrap();
    (reason.evidence, reason.watch.unwrap())
}

#[test]
fn suspicion_gives_its_reason() {
    let settled = || {
        let mut world = World::busy(Pace::Auto, MS / 2);
        world.run(SECOND * 2);
        assert_eq!(world.ends[0].reason(), None);
        world
    };
    let mut world = settled();
    world.kill(1);
    world.run(MS * 100);
    let (evidence, watch) = reason(&world);
    assert_eq!((evidence, watch.doubt), (Evidence::Silence, 0));
    assert_eq!((watch.interval_us, watch.rtt_us), (10_000, 1_000));
    assert_eq!(watch.silence_us, watch.deadline_us, "it waited for the deadline, and no longer");

    let mut world = settled();
    world.carries[0] = false;
    world.run(MS * 200);
    let (evidence, watch) = reason(&world);
    assert_eq!(evidence, Evidence::Deafness);
    assert!(watch.silence_us <= watch.interval_us, "its heartbeats came all the while");

    for (refused, evidence) in [(true, Evidence::Refusal), (false, Evidence::Hint)] {
        let mut world = settled();
        world.kill(1);
        let now = world.now;
        if refused {
            world.ends[0].on_refusal(now)
        } else {
            world.ends[0].on_hint(now)
        }
        world.run(MS * 100);
        let (found, watch) = reason(&world);
        assert_eq!(found, evidence);
        assert!(watch.silence_us <= watch.deadline_us, "no later than by silence alone");
    }
}

#[test]
fn a_reason_tells_of_doubt() {
    let mut world = World::busy(Pace::Auto, MS / 2);
    world.run(SECOND * 2);
    world.stall(0, MS * 100);
    world.kill(1);
    world.run(MS * 400);
    let (evidence, watch) = reason(&world);
    assert_eq!(evidence, Evidence::Silence);
    assert!(watch.silence_us > watch.deadline_us, "the time that this end slept was excused");
}

/// Sends `packets` of such sizes each ten milliseconds over a link on which heartbeats go to and fro, and loses those that
/// `is_lost` says. Why the peer was suspected, if it was, and when.
fn with_losses(
    sizes: &[u64],
    seconds: u32,
    mut is_lost: impl FnMut(u64) -> bool,
) -> Option<(Evidence, Time)> {
    let mut world = World::busy(Pace::Auto, MS / 2);
    world.run(SECOND);
    let began = world.now;
    let mut counted = Transfer::default();
    for _ in 0..seconds * 100 {
        world.run(MS * 10);
        let before = counted.lost_packets;
        for size in sizes {
            counted.sent_bytes += size;
            if is_lost(*size) {
                counted.lost_bytes += size;
                counted.lost_packets += 1;
            }
        }
        if counted.lost_packets > before {
            let now = world.now;
            world.ends[0].on_losses(counted, now);
            world.poll(0);
        }
        if world.first(0, Outcome::Suspect).is_some() {
            return Some((reason(&world).0, Time::ZERO + world.now.since(began)));
        }
    }
    None
}

#[test]
fn a_path_that_swallows_large_packets_is_found_though_heartbeats_come() {
    let (evidence, after) = with_losses(&[1200, 1200, 60, 40], 10, |size| size > 600).unwrap();
    assert_eq!(evidence, Evidence::Stall);
    assert!(after <= Time::ZERO + MS * 1000, "{after:?}");
    let mut world = World::busy(Pace::Auto, MS / 2);
    world.run(SECOND);
    let (mut counted, start) = (Transfer::default(), world.now);
    while world.now.since(start) < SECOND * 5 && world.first(0, Outcome::Down).is_none() {
        world.run(MS * 10);
        counted.sent_bytes += 2500;
        counted.lost_bytes += 2400;
        counted.lost_packets += 2;
        let now = world.now;
        world.ends[0].on_losses(counted, now);
        world.poll(0);
    }
    assert!(
        world.first(0, Outcome::Down).is_some(),
        "no heartbeat makes up for it: the link is to be dialled anew"
    );
}
