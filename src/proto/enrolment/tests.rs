//! Event scripts and the exact actions that follow, for the whole recovery matrix.

use super::*;
use crate::crypto::Key;
use crate::rpc::{Counts, DenyReason};
use proptest::prelude::*;
use rand::SeedableRng;

const SECOND: Duration = Duration::from_secs(1);

fn at(ms: u64) -> Time {
    Time::ZERO + SECOND * 1000 + Duration::from_millis(ms)
}

fn offer(zone: &str) -> Offer {
    Offer::relay(([127, 0, 0, 1], 4433).into(), zone, 100)
}

fn lease() -> Lease {
    lease_of(3)
}

/// A lease that tells of so many relays.
fn lease_of(online: u32) -> Lease {
    Lease {
        duration: SECOND * 30,
        next_heartbeat: SECOND * 10,
        keys: Vec::new(),
        counts: Counts { registered: online, online, expired: 0 },
        drain: false,
        now: Time::ZERO,
        restored: false,
    }
}

/// An enrolment under test: what it does is compared line by line.
struct Script {
    enrolment: Enrolment,
}

impl Script {
    fn new(bootstraps: usize) -> Self {
        let config = Config { jitter_percent: 0, ..Config::default() };
        Self::with(config, bootstraps)
    }

    fn with(config: Config, bootstraps: usize) -> Self {
        let rng = StdRng::seed_from_u64(1);
        Self { enrolment: Enrolment::new(config, "r1".to_owned(), offer("a"), bootstraps, rng) }
    }

    /// One that registered at 0 with question 1, of so many bootstraps.
    fn registered(bootstraps: usize) -> Self {
        let mut script = Self::new(bootstraps);
        script.event(0, Event::Start, &[ask(1, register("a"))]);
        script.answer(0, 1, Response::Lease(lease()), &[Action::Notify(Notice::Registered(lease()))]);
        assert!(script.enrolment.is_registered());
        script
    }

    fn event(&mut self, ms: u64, event: Event, expected: &[Action]) {
        let mut actions = Vec::new();
        self.enrolment.handle(event, at(ms), &mut actions);
        assert_eq!(actions, expected, "at {ms} ms");
    }

    fn answer(&mut self, ms: u64, attempt: u64, response: Response, expected: &[Action]) {
        self.event(ms, Event::Answered { attempt: Attempt(attempt), response }, expected);
    }

    fn refuse(&mut self, ms: u64, attempt: u64, refusal: Refusal, expected: &[Action]) {
        self.answer(ms, attempt, Response::Refused(refusal), expected);
    }

    fn fail(&mut self, ms: u64, attempt: u64, failure: Failure, expected: &[Action]) {
        self.event(ms, Event::Failed { attempt: Attempt(attempt), failure }, expected);
    }

    /// Lets time pass until something is due, which must be at `ms`.
    fn due(&mut self, ms: u64, expected: &[Action]) {
        assert_eq!(self.enrolment.poll_timeout(), Some(at(ms)));
        let mut actions = Vec::new();
        self.enrolment.handle_timeout(at(ms) - Duration::from_micros(1), &mut actions);
        assert_eq!(actions, [], "not before {ms} ms");
        self.enrolment.handle_timeout(at(ms), &mut actions);
        assert_eq!(plain(&actions, ms), expected, "at {ms} ms");
        assert!(self.enrolment.poll_timeout().is_none_or(|next| next > at(ms)));
    }

    fn set_offer(&mut self, ms: u64, zone: &str, expected: &[Action]) {
        let mut actions = Vec::new();
        self.enrolment.set_offer(offer(zone), at(ms), &mut actions);
        assert_eq!(actions, expected, "at {ms} ms");
    }

    fn idle(&self) {
        assert_eq!(self.enrolment.poll_timeout(), None);
    }
}

/// What an enrolment of a [`Script`] calls its process.
fn boot() -> BootId {
    BootId::random(&mut StdRng::seed_from_u64(1))
}

fn register(zone: &str) -> Request {
    Request::Register { name: "r1".to_owned(), offer: offer(zone), boot: boot() }
}

const HEARTBEAT: Request = heartbeat(0, None);

const fn heartbeat(flows: u32, key_epoch: Option<u32>) -> Request {
    let load = Load { flows, bytes_per_second: 0, resources: None };
    Request::Heartbeat(Heartbeat { sequence: 0, sent_at: Time::ZERO, load, key_epoch })
}

/// Without the numbers and times of heartbeats, which are checked.
fn plain(actions: &[Action], ms: u64) -> Vec<Action> {
    let mut actions = actions.to_vec();
    for action in &mut actions {
        if let Action::Ask { attempt, request: Request::Heartbeat(heartbeat), .. } = action {
            assert_eq!((heartbeat.sequence, heartbeat.sent_at), (attempt.0, at(ms)));
            (heartbeat.sequence, heartbeat.sent_at) = (0, Time::ZERO);
        }
    }
    actions
}

fn ask(attempt: u64, request: Request) -> Action {
    ask_of(0, attempt, request)
}

fn ask_of(bootstrap: usize, attempt: u64, request: Request) -> Action {
    Action::Ask { attempt: Attempt(attempt), request, bootstrap, fresh_link: false }
}

fn ask_afresh(bootstrap: usize, attempt: u64, request: Request) -> Action {
    Action::Ask { attempt: Attempt(attempt), request, bootstrap, fresh_link: true }
}

fn trouble(trouble: Trouble) -> Action {
    Action::Notify(Notice::Trouble(trouble))
}

fn lost(setback: Setback) -> Action {
    trouble(Trouble::Lost { setback })
}

fn failed(setback: Setback, retry_ms: u64) -> Action {
    trouble(Trouble::Failed { setback, retry_after: Duration::from_millis(retry_ms) })
}

fn registered() -> Action {
    Action::Notify(Notice::Registered(lease()))
}

fn renewed() -> Action {
    Action::Notify(Notice::Renewed(lease()))
}

#[test]
fn heartbeats_keep_the_lease_and_report_flows() {
    let mut script = Script::registered(1);
    script.due(10_000, &[ask(2, HEARTBEAT)]);
    script.idle();
    let keys = [4, 5].map(|epoch| (epoch, Key::from_bytes([1; 32]))).to_vec();
    let with_keys = Lease { keys, ..lease() };
    let renewed = Action::Notify(Notice::Renewed(with_keys.clone()));
    script.answer(10_100, 2, Response::Lease(with_keys), &[renewed]);
    script.enrolment.set_load(Load { flows: 7, ..Load::default() });
    script.due(20_100, &[ask(3, heartbeat(7, Some(5)))]);
    let counters = script.enrolment.counters();
    assert_eq!((counters.registrations, counters.heartbeats), (1, 2));
}

#[test]
fn an_unknown_node_registers_again_at_once() {
    let mut script = Script::registered(2);
    script.due(10_000, &[ask(2, HEARTBEAT)]);
    script.refuse(10_100, 2, Refusal::UnknownNode, &[lost(Setback::Unknown), ask(3, register("a"))]);
    script.answer(10_200, 3, Response::Lease(lease()), &[registered()]);
    script.due(20_200, &[ask(4, HEARTBEAT)]);
    assert_eq!(script.enrolment.counters().unknown, 1);
}

#[test]
fn an_internal_error_or_nonsense_makes_it_register_again_at_once() {
    for response in [Response::Refused(Refusal::Internal), Response::Done] {
        let mut script = Script::registered(2);
        script.due(10_000, &[ask(2, HEARTBEAT)]);
        script.answer(10_100, 2, response, &[lost(Setback::Internal), ask(3, register("a"))]);
        assert_eq!(script.enrolment.counters().internal, 1);
    }
}

#[test]
fn silence_makes_it_register_with_the_next_bootstrap_at_once() {
    let cases = [(Failure::Timeout, Setback::Timeout), (Failure::Network, Setback::Network)];
    for (failure, setback) in cases {
        let mut script = Script::registered(3);
        script.due(10_000, &[ask(2, HEARTBEAT)]);
        script.fail(11_000, 2, failure, &[lost(setback), ask_of(1, 3, register("a"))]);
        script.answer(11_100, 3, Response::Lease(lease()), &[registered()]);
        script.due(21_100, &[ask_of(1, 4, HEARTBEAT)]);
    }
}

#[test]
fn when_throttled_it_waits_and_counts_no_failure() {
    let mut script = Script::registered(1);
    let throttled = |ms| Refusal::Throttled { retry_after: Duration::from_millis(ms) };
    let told = |ms| trouble(Trouble::Throttled { retry_after: Duration::from_millis(ms) });
    script.due(10_000, &[ask(2, HEARTBEAT)]);
    script.refuse(10_000, 2, throttled(3_000), &[told(3_000)]);
    assert!(script.enrolment.is_registered());
    for attempt in 3..8 {
        let now = 13_000 + (attempt - 3) * 250;
        script.due(now, &[ask(attempt, HEARTBEAT)]);
        script.refuse(now, attempt, throttled(0), &[told(250)]);
    }
    script.due(14_250, &[ask(8, HEARTBEAT)]);
    script.refuse(14_250, 8, Refusal::UnknownNode, &[lost(Setback::Unknown), ask(9, register("a"))]);
    script.refuse(14_250, 9, throttled(1_000), &[told(1_000)]);
    script.set_offer(14_300, "b", &[]);
    script.due(15_250, &[ask(10, register("b"))]);
    assert_eq!(script.enrolment.counters().throttled, 7);
    assert_eq!(script.enrolment.counters().full, 0);
}

#[test]
fn registration_backs_off_says_so_and_goes_on_at_the_ceiling() {
    let mut script = Script::new(1);
    script.event(0, Event::Start, &[ask(1, register("a"))]);
    let waits = [250, 5_000, 10_000, 20_000, 40_000, 80_000, 80_000, 80_000];
    let mut now = 0;
    for (attempt, wait) in (1..).zip(waits) {
        let mut expected = vec![failed(Setback::Timeout, wait)];
        if attempt == 5 {
            expected.push(trouble(Trouble::Timeout { attempts: 5 }));
        }
        script.fail(now, attempt, Failure::Timeout, &expected);
        now += wait;
        let again = register("a");
        let fresh = attempt >= 3;
        script.due(now, &[if fresh { ask_afresh(0, attempt + 1, again) } else { ask(attempt + 1, again) }]);
    }
    assert_eq!(script.enrolment.counters().timeouts, 8);
    script.answer(now, 9, Response::Lease(lease()), &[registered()]);
    script.due(now + 10_000, &[ask(10, HEARTBEAT)]);
    script.fail(now + 10_000, 10, Failure::Timeout, &[lost(Setback::Timeout), ask(11, register("a"))]);
    script.fail(now + 10_000, 11, Failure::Timeout, &[failed(Setback::Timeout, 250)]);
}

#[test]
fn each_bootstrap_is_tried_before_it_waits_for_long() {
    let mut script = Script::new(3);
    script.event(0, Event::Start, &[ask(1, register("a"))]);
    script.fail(0, 1, Failure::Network, &[failed(Setback::Network, 250)]);
    script.due(250, &[ask_of(1, 2, register("a"))]);
    script.refuse(250, 2, Refusal::Internal, &[failed(Setback::Internal, 250)]);
    script.due(500, &[ask_of(1, 3, register("a"))]);
    script.fail(500, 3, Failure::Timeout, &[failed(Setback::Timeout, 250)]);
    script.due(750, &[ask_afresh(2, 4, register("a"))]);
    script.fail(750, 4, Failure::Timeout, &[failed(Setback::Timeout, 5_000)]);
    script.due(5_750, &[ask_afresh(0, 5, register("a"))]);
    let fifth = [failed(Setback::Unknown, 10_000), trouble(Trouble::Timeout { attempts: 5 })];
    script.refuse(5_750, 5, Refusal::UnknownNode, &fifth);
}

#[test]
fn three_failures_in_a_row_begin_everything_afresh_and_a_lease_forgives() {
    let mut script = Script::registered(2);
    script.due(10_000, &[ask(2, HEARTBEAT)]);
    script.fail(11_000, 2, Failure::Timeout, &[lost(Setback::Timeout), ask_of(1, 3, register("a"))]);
    script.fail(12_000, 3, Failure::Network, &[failed(Setback::Network, 250)]);
    script.due(12_250, &[ask(4, register("a"))]);
    script.fail(13_250, 4, Failure::Timeout, &[failed(Setback::Timeout, 250)]);
    script.due(13_500, &[ask_afresh(1, 5, register("a"))]);
    script.answer(13_500, 5, Response::Lease(lease()), &[registered()]);
    assert_eq!(script.enrolment.counters().full, 1);
    script.due(23_500, &[ask_of(1, 6, HEARTBEAT)]);
    script.refuse(23_500, 6, Refusal::UnknownNode, &[lost(Setback::Unknown), ask_of(1, 7, register("a"))]);
}

#[test]
fn a_refusal_is_told_and_tried_again_at_the_ceiling_or_with_another_offer() {
    let mut script = Script::new(1);
    let reason = Refusal::NameTaken { name: "echo".to_owned() };
    let rejected = |reason: &Refusal| trouble(Trouble::Rejected { reason: reason.clone() });
    script.event(0, Event::Start, &[ask(1, register("a"))]);
    script.refuse(0, 1, reason.clone(), &[rejected(&reason)]);
    script.due(80_000, &[ask(2, register("a"))]);
    script.refuse(80_000, 2, reason.clone(), &[rejected(&reason)]);
    script.set_offer(88_000, "a", &[ask(3, register("a"))]);
    script.set_offer(88_000, "a", &[]);
    script.refuse(88_000, 3, reason.clone(), &[rejected(&reason)]);
    script.set_offer(95_000, "b", &[ask(4, register("b"))]);
    script.answer(95_000, 4, Response::Lease(lease()), &[registered()]);
    script.due(105_000, &[ask(5, HEARTBEAT)]);
    let denied = Refusal::Denied { reason: DenyReason::Revoked };
    script.refuse(105_000, 5, denied.clone(), &[lost(Setback::Refused), ask(6, register("b"))]);
    script.refuse(105_000, 6, denied.clone(), &[rejected(&denied)]);
    assert_eq!(script.enrolment.counters().rejected, 5);
}

#[test]
fn another_offer_is_registered_at_once() {
    let mut script = Script::registered(1);
    script.set_offer(5_000, "a", &[]);
    script.set_offer(5_000, "b", &[ask(2, register("b"))]);
    script.set_offer(5_050, "c", &[]);
    script.answer(5_100, 2, Response::Lease(lease()), &[registered()]);
    script.due(5_250, &[ask(3, register("c"))]);
    script.answer(5_300, 3, Response::Lease(lease()), &[registered()]);
    script.due(15_300, &[ask(4, HEARTBEAT)]);
    script.set_offer(15_400, "d", &[ask(5, register("d"))]);
    script.refuse(15_500, 4, Refusal::UnknownNode, &[]);
    script.answer(15_500, 5, Response::Lease(lease()), &[registered()]);
    let counters = script.enrolment.counters();
    assert_eq!((counters.registrations, counters.registered, counters.offers), (4, 4, 3));
}

#[test]
fn an_offer_changed_while_it_waits_or_before_it_starts_is_not_lost() {
    let mut script = Script::new(1);
    script.set_offer(0, "b", &[]);
    script.event(0, Event::Start, &[ask(1, register("b"))]);
    script.event(0, Event::Start, &[]);
    script.fail(0, 1, Failure::Timeout, &[failed(Setback::Timeout, 250)]);
    script.due(250, &[ask(2, register("b"))]);
    script.fail(250, 2, Failure::Timeout, &[failed(Setback::Timeout, 5_000)]);
    script.set_offer(2_000, "c", &[ask(3, register("c"))]);
}

/// Heartbeats that are answered with leases that tell of so many relays, and how often the node registered for that.
fn few_peers(script: &mut Script, online: &[u32]) -> u64 {
    let registered = |script: &Script| script.enrolment.counters().few_peers;
    let before = registered(script);
    for online in online {
        let mut actions = Vec::new();
        let now = script.enrolment.poll_timeout().expect("a heartbeat is due");
        script.enrolment.handle_timeout(now, &mut actions);
        // Also that a registration is answered as the heartbeat was.
        while let Some(Action::Ask { attempt, .. }) = actions.pop() {
            let response = Response::Lease(lease_of(*online));
            actions.clear();
            script.enrolment.handle(Event::Answered { attempt, response }, now, &mut actions);
        }
    }
    registered(script) - before
}

#[test]
fn a_bootstrap_with_too_few_peers_makes_it_try_the_next_one() {
    let mut script = Script::registered(2);
    script.due(10_000, &[ask(2, HEARTBEAT)]);
    let renewed = Action::Notify(Notice::Renewed(lease_of(2)));
    script.answer(10_000, 2, Response::Lease(lease_of(2)), &[renewed, ask_of(1, 3, register("a"))]);
    let registered = Action::Notify(Notice::Registered(lease_of(3)));
    script.answer(10_100, 3, Response::Lease(lease_of(3)), &[registered]);
    script.due(20_100, &[ask_of(1, 4, HEARTBEAT)]);
    let counters = script.enrolment.counters();
    assert_eq!((counters.few_peers, counters.moved, counters.registered), (1, 1, 2));
}

#[test]
fn where_no_bootstrap_knows_more_peers_it_comes_back() {
    let mut script = Script::registered(3);
    script.due(10_000, &[ask(2, HEARTBEAT)]);
    let renewed = Action::Notify(Notice::Renewed(lease_of(2)));
    script.answer(10_000, 2, Response::Lease(lease_of(2)), &[renewed, ask_of(1, 3, register("a"))]);
    let registered = |online| Action::Notify(Notice::Registered(lease_of(online)));
    script.answer(10_250, 3, Response::Lease(lease_of(1)), &[registered(1), ask_of(2, 4, register("a"))]);
    script.answer(10_500, 4, Response::Lease(lease_of(2)), &[registered(2), ask(5, register("a"))]);
    script.answer(10_750, 5, Response::Lease(lease_of(2)), &[registered(2)]);
    script.due(20_750, &[ask(6, HEARTBEAT)]);
    let counters = script.enrolment.counters();
    assert_eq!((counters.few_peers, counters.moved), (1, 3));
}

#[test]
fn who_is_told_to_wait_waits_also_when_it_is_thought_dead() {
    let mut script = Script::registered(1);
    script.due(10_000, &[ask(2, HEARTBEAT)]);
    let throttled = Refusal::Throttled { retry_after: SECOND * 5 };
    script.refuse(10_000, 2, throttled, &[trouble(Trouble::Throttled { retry_after: SECOND * 5 })]);
    script.enrolment.revive(at(11_000));
    assert!(script.enrolment.poll_timeout() >= Some(at(15_000)));
}

#[test]
fn in_a_small_network_it_registers_once_more_and_then_only_if_the_network_shrinks() {
    let mut script = Script::registered(1);
    assert_eq!(few_peers(&mut script, &[1, 1, 1, 1, 1, 1, 1, 1]), 1, "of a new node more is expected");
    assert_eq!(few_peers(&mut script, &[2, 2, 3, 9, 3, 3]), 0, "it grows, or is large enough");
    assert_eq!(few_peers(&mut script, &[2, 2, 2, 2]), 1);
    assert_eq!(few_peers(&mut script, &[1, 1, 0, 0]), 2);
    assert_eq!(
        few_peers(&mut script, &[0, 1, 0, 1, 0, 1]),
        2,
        "a count that goes up and down: each time that it falls"
    );
    let none = few_peers(&mut script, &[5, 3, 4, 3, 5]);
    assert_eq!(none, 0);
    assert_eq!(script.enrolment.counters().moved, 6);
}

#[test]
fn for_want_of_peers_it_registers_at_most_once_in_a_backoff() {
    let config = Config { jitter_percent: 0, ..Config::default() };
    let mut script = Script::with(config, 1);
    let often = |online| Response::Lease(Lease { next_heartbeat: SECOND / 10, ..lease_of(online) });
    let mut actions = Vec::new();
    script.enrolment.handle(Event::Start, at(0), &mut actions);
    let (mut registered_at, mut online) = (Vec::new(), 0);
    while script.enrolment.poll_timeout().is_none_or(|due| due < at(60_000)) {
        let now = script.enrolment.poll_timeout().unwrap_or(at(0));
        script.enrolment.handle_timeout(now, &mut actions);
        while let Some(action) = actions.pop() {
            let Action::Ask { attempt, request, .. } = action else { continue };
            registered_at.extend(matches!(request, Request::Register { .. }).then_some(now));
            // The worst that a bootstrap could say: one more, and one fewer, in turn.
            online = 1 - online;
            script.enrolment.handle(Event::Answered { attempt, response: often(online) }, now, &mut actions);
        }
    }
    let waits = registered_at.windows(2).map(|pair| pair[1].since(pair[0]));
    assert!(waits.clone().all(|wait| wait >= Config::default().backoff), "{registered_at:?}");
    assert!((8..=13).contains(&registered_at.len()), "{registered_at:?}");
}

#[test]
fn draining_is_told_once_and_again_after_each_registration() {
    let mut script = Script::registered(1);
    script.event(1_000, Event::Drain, &[ask(2, Request::Drain)]);
    script.event(1_000, Event::Drain, &[]);
    script.answer(1_100, 2, Response::Done, &[]);
    script.event(1_200, Event::Drain, &[]);
    script.due(10_000, &[ask(3, HEARTBEAT)]);
    script.refuse(10_000, 3, Refusal::UnknownNode, &[lost(Setback::Unknown), ask(4, register("a"))]);
    script.answer(10_000, 4, Response::Lease(lease()), &[registered(), ask(5, Request::Drain)]);
    script.fail(11_000, 5, Failure::Timeout, &[]);
    script.due(20_000, &[ask(6, HEARTBEAT)]);
    script.answer(20_000, 6, Response::Lease(lease()), &[renewed(), ask(7, Request::Drain)]);
    script.answer(20_000, 7, Response::Done, &[]);
    script.due(30_000, &[ask(8, HEARTBEAT)]);
}

#[test]
fn draining_interrupts_a_heartbeat_and_it_is_sent_again() {
    let mut script = Script::registered(1);
    script.due(10_000, &[ask(2, HEARTBEAT)]);
    script.event(10_100, Event::Drain, &[ask(3, Request::Drain)]);
    script.answer(10_200, 2, Response::Lease(lease()), &[]);
    script.answer(10_300, 3, Response::Done, &[]);
    let mut actions = Vec::new();
    script.enrolment.handle_timeout(at(10_300), &mut actions);
    assert_eq!(plain(&actions, 10_300), [ask(4, HEARTBEAT)]);
}

fn deregister() -> Request {
    Request::Deregister { boot: boot() }
}

#[test]
fn leaving_is_told_and_then_nothing_happens_any_more() {
    for ends in [Response::Done, Response::Refused(Refusal::UnknownNode)] {
        let mut script = Script::registered(1);
        script.event(1_000, Event::Shutdown, &[ask(2, deregister())]);
        script.event(1_000, Event::Shutdown, &[]);
        script.set_offer(1_000, "b", &[]);
        script.answer(1_100, 2, ends, &[Action::Notify(Notice::Left)]);
        script.event(1_200, Event::Start, &[]);
        script.event(1_200, Event::Drain, &[]);
        script.idle();
    }
    let mut waiting = Script::new(1);
    waiting.event(0, Event::Start, &[ask(1, register("a"))]);
    waiting.event(10, Event::Shutdown, &[ask(2, deregister())]);
    waiting.answer(20, 1, Response::Lease(lease()), &[]);
    waiting.answer(30, 2, Response::Done, &[Action::Notify(Notice::Left)]);
    waiting.idle();
    let mut idle = Script::new(1);
    idle.event(0, Event::Shutdown, &[Action::Notify(Notice::Left)]);
}

/// The flows that it told of last: whoever had it drain sees with how many it left.
#[test]
fn who_drains_tells_of_its_flows_before_its_goodbye() {
    let drained = |flows| {
        let mut script = Script::registered(1);
        script.event(1_000, Event::Drain, &[ask(2, Request::Drain)]);
        script.answer(1_000, 2, Response::Done, &[]);
        script.enrolment.set_load(Load { flows, ..Load::default() });
        script
    };
    drained(0).event(2_000, Event::Shutdown, &[ask(3, deregister())]);
    let answers = [
        Event::Answered { attempt: Attempt(3), response: Response::Lease(lease()) },
        Event::Answered { attempt: Attempt(3), response: Response::Refused(Refusal::Internal) },
        Event::Failed { attempt: Attempt(3), failure: Failure::Timeout },
    ];
    for answer in answers {
        let mut script = drained(2);
        let mut actions = Vec::new();
        script.enrolment.handle(Event::Shutdown, at(2_000), &mut actions);
        assert_eq!(plain(&actions, 2_000), [ask(3, heartbeat(2, None))]);
        assert!(script.enrolment.is_leaving());
        script.event(2_500, answer, &[ask(4, deregister())]);
        script.answer(2_600, 4, Response::Done, &[Action::Notify(Notice::Left)]);
        script.idle();
    }
    let mut hurried = drained(2);
    hurried.enrolment.handle(Event::Shutdown, at(2_000), &mut Vec::new());
    hurried.event(2_000, Event::Shutdown, &[ask(4, deregister())]);
    hurried.event(2_000, Event::Shutdown, &[]);
}

#[test]
fn a_goodbye_is_said_until_it_is_heard_or_in_vain_for_long() {
    let mut script = Script::registered(2);
    script.event(1_000, Event::Shutdown, &[ask(2, deregister())]);
    script.fail(1_100, 2, Failure::Network, &[]);
    script.due(1_350, &[ask(3, deregister())]);
    script.refuse(1_400, 3, Refusal::Internal, &[]);
    script.due(1_650, &[ask(4, deregister())]);
    let throttled = Refusal::Throttled { retry_after: SECOND };
    script.refuse(1_700, 4, throttled, &[trouble(Trouble::Throttled { retry_after: SECOND })]);
    script.due(2_700, &[ask(5, deregister())]);
    script.answer(2_800, 5, Response::Done, &[Action::Notify(Notice::Left)]);
    script.idle();

    let mut unheard = Script::registered(1);
    unheard.event(0, Event::Shutdown, &[ask(2, deregister())]);
    for n in 0..4 {
        unheard.fail(n * 250, n + 2, Failure::Timeout, &[]);
        unheard.due((n + 1) * 250, &[ask(n + 3, deregister())]);
    }
    unheard.fail(1_100, 6, Failure::Timeout, &[Action::Notify(Notice::Left)]);
    unheard.idle();
}

#[test]
fn who_is_told_to_drain_looks_for_no_other_bootstrap() {
    let mut script = Script::registered(2);
    script.due(10_000, &[ask(2, HEARTBEAT)]);
    let ordered = Lease { drain: true, ..lease_of(1) };
    script.answer(10_100, 2, Response::Lease(ordered.clone()), &[Action::Notify(Notice::Renewed(ordered))]);
    script.event(10_100, Event::Drain, &[ask(3, Request::Drain)]);
}

#[test]
fn who_was_restored_registers_again_as_what_it_is_now() {
    let mut script = Script::registered(1);
    script.due(10_000, &[ask(2, HEARTBEAT)]);
    let restored = Lease { restored: true, ..lease() };
    let renewed = Action::Notify(Notice::Renewed(restored.clone()));
    script.answer(10_100, 2, Response::Lease(restored), &[renewed, ask(3, register("a"))]);
    script.answer(10_200, 3, Response::Lease(lease()), &[Action::Notify(Notice::Registered(lease()))]);
    script.due(20_200, &[ask(4, HEARTBEAT)]);
}

#[test]
fn without_a_bootstrap_it_says_so() {
    let mut script = Script::new(0);
    script.event(0, Event::Start, &[trouble(Trouble::NoBootstrap)]);
    script.idle();
}

#[test]
fn monitoring_can_be_switched_off_at_either_end() {
    let mut script = Script::with(Config { monitor: false, ..Config::default() }, 1);
    script.event(0, Event::Start, &[ask(1, register("a"))]);
    script.answer(0, 1, Response::Lease(lease()), &[registered()]);
    script.idle();
    let mut script = Script::new(1);
    let unmonitored = Lease { next_heartbeat: Duration::ZERO, ..lease() };
    script.event(0, Event::Start, &[ask(1, register("a"))]);
    let told = Action::Notify(Notice::Registered(unmonitored.clone()));
    script.answer(0, 1, Response::Lease(unmonitored), &[told]);
    script.idle();
}

#[test]
fn waits_vary_as_configured() {
    let mut seen = Vec::new();
    for seed in 0..50 {
        let rng = StdRng::seed_from_u64(seed);
        let mut enrolment = Enrolment::new(Config::dev(), "r1".to_owned(), offer("a"), 1, rng);
        let mut actions = Vec::new();
        enrolment.handle(Event::Start, at(0), &mut actions);
        let timeout = Event::Failed { attempt: Attempt(1), failure: Failure::Timeout };
        enrolment.handle(timeout, at(0), &mut actions);
        seen.push(enrolment.poll_timeout().unwrap().since(at(0)).as_millis());
    }
    assert!(seen.iter().all(|wait| (40..=60).contains(wait)), "{seen:?}");
    assert!(seen.iter().min() < Some(&45) && seen.iter().max() > Some(&55), "{seen:?}");
}

fn response() -> impl Strategy<Value = Response> {
    prop_oneof![
        (0..5u32).prop_map(|online| Response::Lease(lease_of(online))),
        Just(Response::Done),
        Just(Response::Refused(Refusal::UnknownNode)),
        Just(Response::Refused(Refusal::Internal)),
        Just(Response::Refused(Refusal::NoSpare)),
        (0..5_000u64).prop_map(|ms| {
            Response::Refused(Refusal::Throttled { retry_after: Duration::from_millis(ms) })
        }),
    ]
}

#[derive(Clone, Debug)]
enum Step {
    Answer(Response),
    Fail(Failure),
    Stale,
    Wait,
    Offer(u8),
    Drain,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => response().prop_map(Step::Answer),
        2 => prop_oneof![Just(Failure::Timeout), Just(Failure::Network)].prop_map(Step::Fail),
        1 => Just(Step::Stale),
        4 => Just(Step::Wait),
        1 => (0..3u8).prop_map(Step::Offer),
        1 => Just(Step::Drain),
    ]
}

proptest! {
    /// One question at a time, always either a question on its way or a time to go on, and never a burst.
    #[test]
    fn it_never_stops_and_never_storms(script in prop::collection::vec((step(), 0..2_000u64), 1..200)) {
        let mut enrolment = Script::new(2).enrolment;
        let (mut now, mut asked, mut asks) = (at(0), None, 0u32);
        let mut actions = Vec::new();
        enrolment.handle(Event::Start, now, &mut actions);
        for (step, ms) in script {
            now = now + Duration::from_millis(ms);
            let attempt = asked.unwrap_or(Attempt(0));
            match step {
                Step::Answer(response) => enrolment.handle(Event::Answered { attempt, response }, now, &mut actions),
                Step::Fail(failure) => enrolment.handle(Event::Failed { attempt, failure }, now, &mut actions),
                Step::Stale => {
                    let stale = Event::Failed { attempt: Attempt(u64::MAX), failure: Failure::Timeout };
                    let before = actions.len();
                    enrolment.handle(stale, now, &mut actions);
                    prop_assert_eq!(actions.len(), before);
                }
                Step::Wait => now = enrolment.poll_timeout().unwrap_or(now).max(now),
                Step::Offer(n) => enrolment.set_offer(offer(&n.to_string()), now, &mut actions),
                Step::Drain => enrolment.handle(Event::Drain, now, &mut actions),
            }
            enrolment.handle_timeout(now, &mut actions);
            prop_assert!(enrolment.poll_timeout().is_none_or(|next| next > now));
            for action in actions.drain(..) {
                if let Action::Ask { attempt, bootstrap, .. } = action {
                    prop_assert!(Some(attempt) > asked && bootstrap < 2);
                    asked = Some(attempt);
                    asks += 1;
                }
            }
            prop_assert!(enrolment.asking.is_some() || enrolment.poll_timeout().is_some());
            prop_assert!(enrolment.asking.is_none_or(|(attempt, _)| Some(attempt) == asked));
        }
        prop_assert!(asks <= 2 * 201);
    }
}

fn busy(flows: u32) -> Load {
    Load { flows, ..Load::default() }
}

fn heartbeat_of(attempt: u64, flows: u32) -> Action {
    ask(attempt, heartbeat(flows, None))
}

#[test]
fn a_change_of_load_is_told_soon_and_not_often() {
    let mut script = Script::registered(1);
    script.enrolment.tell_load(busy(1), at(5_000));
    script.enrolment.tell_load(busy(2), at(5_100));
    script.due(5_300, &[heartbeat_of(2, 2)]);
    script.enrolment.tell_load(busy(3), at(5_310));
    let renewed = || [Action::Notify(Notice::Renewed(lease()))];
    script.answer(5_320, 2, Response::Lease(lease()), &renewed());
    script.enrolment.tell_load(busy(3), at(5_330));
    script.due(6_300, &[heartbeat_of(3, 3)]);
    script.answer(6_320, 3, Response::Lease(lease()), &renewed());
    script.enrolment.tell_load(busy(4), at(8_000));
    script.enrolment.tell_load(busy(3), at(8_100));
    assert_eq!(script.enrolment.poll_timeout(), Some(at(16_320)), "it is as it was told");
}

#[test]
fn of_many_flows_a_few_more_are_no_news_and_slow_heartbeats_stay_slow() {
    let mut script = Script::registered(1);
    script.enrolment.tell_load(busy(1_600), at(5_000));
    script.due(5_300, &[heartbeat_of(2, 1_600)]);
    let slow = || Lease { next_heartbeat: SECOND * 100, ..lease() };
    script.answer(5_300, 2, Response::Lease(slow()), &[Action::Notify(Notice::Renewed(slow()))]);
    script.enrolment.tell_load(busy(1_700), at(6_000));
    assert_eq!(script.enrolment.poll_timeout(), Some(at(105_300)));
    script.enrolment.tell_load(busy(1_701), at(6_000));
    assert_eq!(script.enrolment.poll_timeout(), Some(at(15_300)), "a tenth of the time between heartbeats");
}

/// Registered at 0 with the only bootstrap, which can't be reached from 10 s on; the machine's questions until `ms`, whose
/// dials take 3 s each.
fn cut_off_until(ms: u64) -> (Enrolment, Vec<(u64, Attempt)>) {
    let mut script = Script::registered(1);
    let (mut now, mut asked) = (10_000, Vec::new());
    while now < ms {
        let mut actions = Vec::new();
        script.enrolment.handle_timeout(at(now), &mut actions);
        while let Some(attempt) = actions.iter().find_map(question) {
            asked.push((now, attempt));
            now += 3000;
            actions.clear();
            script.enrolment.handle(
                Event::Failed { attempt, failure: Failure::Network },
                at(now),
                &mut actions,
            );
        }
        let next = script.enrolment.poll_timeout().unwrap();
        now = u64::try_from(next.since(at(0)).as_millis()).unwrap();
    }
    (script.enrolment, asked)
}

fn question(action: &Action) -> Option<Attempt> {
    if let Action::Ask { attempt, .. } = action { Some(*attempt) } else { None }
}

#[test]
fn a_node_registers_as_soon_as_a_bootstrap_is_reached_after_a_minute_without_one() {
    let (mut enrolment, asked) = cut_off_until(70_000);
    assert!(asked.len() <= 8, "the back-off holds meanwhile: {asked:?}");
    assert!(enrolment.poll_timeout().unwrap() > at(72_000), "and would last");
    let mut actions = Vec::new();
    enrolment.handle(Event::Reached, at(70_500), &mut actions);
    let last = asked.last().unwrap().1.0;
    assert_eq!(actions, [ask(last + 1, register("a"))], "at once, over the connection that there is");
    actions.clear();
    enrolment.handle(
        Event::Answered { attempt: Attempt(last + 1), response: Response::Lease(lease()) },
        at(70_600),
        &mut actions,
    );
    assert_eq!(actions, [registered()]);
}

#[test]
fn a_bootstrap_that_is_reached_but_does_not_answer_is_asked_no_more_often_for_it() {
    for failure in [Failure::Network, Failure::Timeout] {
        let (mut enrolment, _) = cut_off_until(70_000);
        let (mut now, mut asked, mut actions) = (70_000, 0, Vec::new());
        while now < 190_000 {
            enrolment.handle(Event::Reached, at(now), &mut actions);
            enrolment.handle_timeout(at(now), &mut actions);
            let question = actions.iter().find_map(question);
            actions.clear();
            if let Some(attempt) = question {
                asked += 1;
                enrolment.handle(Event::Failed { attempt, failure }, at(now), &mut actions);
                actions.clear();
            }
            now += 100;
        }
        assert!(asked <= 12, "{asked} registrations in two minutes after {failure:?}");
    }
}

#[test]
fn who_refuses_is_not_asked_sooner_because_it_can_be_reached() {
    let mut script = Script::registered(1);
    script.due(10_000, &[ask(2, HEARTBEAT)]);
    script.refuse(10_100, 2, Refusal::UnknownNode, &[lost(Setback::Unknown), ask(3, register("a"))]);
    let reason = Refusal::Denied { reason: DenyReason::Revoked };
    script.refuse(10_200, 3, reason.clone(), &[trouble(Trouble::Rejected { reason })]);
    script.event(11_000, Event::Reached, &[]);
    assert_eq!(script.enrolment.poll_timeout(), Some(at(90_200)));
}

#[test]
fn a_heartbeat_under_way_to_a_bootstrap_that_is_gone_is_sent_again_to_the_one_that_was_reached() {
    let mut script = Script::registered(1);
    script.event(3_000, Event::Reached, &[]);
    script.due(3_000, &[ask(2, HEARTBEAT)]);
    script.event(3_100, Event::Reached, &[]);
    let mut actions = Vec::new();
    script.enrolment.handle(Event::Reached, at(4_000), &mut actions);
    assert_eq!(plain(&actions, 4_000), [ask(3, HEARTBEAT)]);
    script.fail(8_000, 2, Failure::Timeout, &[]);
    script.answer(8_000, 3, Response::Lease(lease()), &[renewed()]);
}
