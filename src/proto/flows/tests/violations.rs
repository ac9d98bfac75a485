//! What a node makes of neighbours that lie, repeat themselves for ever, or ask too much, tried on real machines' flows.

use super::*;
use crate::epoch::MAX_HOPS;
use crate::frame::{AttachOk, BackupRequest, MAX_ACKS, Progress, Waypoint};
use crate::lane::{FlowViolation, MAX_OFFSET, MAX_REPLAY_BYTES};
use crate::links::Standing;
use crate::splice::Direction;
use bytes::Bytes;

impl Node {
    fn violations(&self) -> Vec<(Option<NodeId>, Violation)> {
        let violation = |action: &Action| match action {
            Action::Notify(Notice::Violation { peer, what, .. }) => Some((*peer, *what)),
            _ => None,
        };
        self.said.iter().filter_map(violation).collect()
    }

    fn is_cut_off(&self, from: u32) -> bool {
        let cut = |action: &Action| {
            let malformed = DisconnectReason::Malformed;
            matches!(action, Action::Disconnect { link, reason } if *link == LinkId(from) && *reason == malformed)
        };
        self.said.iter().any(cut)
    }

    fn receive(&mut self, leg: LegId, bytes: &[u8]) {
        self.said.clear();
        self.flows.receive(leg, [Bytes::copy_from_slice(bytes)], NOW, &mut self.said);
    }
}

/// A first relay that the origin is attached to, and the leg.
fn attached_relay() -> (Node, LegId, Attach) {
    let (_, attach) = Node::origin(ORIGIN, route(ORIGIN, Time::MAX)).opened();
    let mut first = relay(FIRST);
    first.attach(1, &attach);
    assert!(first.has_answered());
    (first, LegId::new(LinkId(1), attach.leg), attach)
}

#[test]
fn an_ack_beyond_what_was_sent_costs_the_leg_and_the_chain() {
    let (mut origin, leg) = attached_origin();
    let key = *origin.flows.flows.keys().next().unwrap();
    origin.flows.send(key, Bytes::from_static(b"hello"), NOW, &mut origin.said).unwrap();
    origin.control(1, Control::Acks(vec![(leg.number(), 5)]));
    assert_eq!(origin.violations(), [], "as much as was sent");
    origin.control(1, Control::Acks(vec![(leg.number(), 6)]));
    let lie = Violation::Flow(FlowViolation::AckBeyondSent { offset: 6, sent: 5 });
    assert_eq!(origin.violations(), [(Some(node(FIRST)), lie)]);
    assert_eq!(origin.closed_with(), Some(CloseCode::Malformed));
    assert!(
        origin.flows.take_events().contains(&FlowsEvent::WantsRoute(key)),
        "anybody on the chain may have lied"
    );
    assert!(!origin.flows.reaches_next(&key));
    assert_ne!(origin.opened().0, leg, "meanwhile it goes on over the backup");
    assert_eq!(origin.flows.splice(&key).unwrap().lane(Direction::Forward).acked(), 5);
}

#[test]
fn a_relay_forgets_what_its_prev_can_not_believe_and_so_does_everybody_after_it() {
    let (mut first, leg, _) = attached_relay();
    first.link(2, SECOND, true);
    let (next, _) = first.opened();
    first.answer(next);
    first.said.clear();
    first.control(2, Control::Acks(vec![(next.number(), MAX_OFFSET)]));
    assert_eq!(first.violations(), [], "only the source can judge");
    first.said.clear();
    first.tell(Event::LegClosed { leg, code: CloseCode::Malformed });
    assert!(first.flows.is_empty());
    let told = |a: &Action| matches!(a, Action::CloseLeg { leg, code } if *leg == next && *code == CloseCode::Malformed);
    assert!(first.said.iter().any(told));
}

#[test]
fn bytes_past_the_end_and_another_end_cost_the_leg() {
    let (mut first, leg, _) = attached_relay();
    first.receive(leg, b"abc");
    first.control(1, Control::Fin { leg: leg.number(), offset: 2 });
    let lie = Violation::Flow(FlowViolation::ContradictoryFin { offset: 2 });
    assert_eq!(
        (first.violations(), first.closed_with()),
        (vec![(Some(node(ORIGIN)), lie)], Some(CloseCode::Malformed))
    );
    for (end, then) in [(4, Some(7)), (3, None)] {
        let (mut first, leg, _) = attached_relay();
        first.receive(leg, b"abc");
        first.control(1, Control::Fin { leg: leg.number(), offset: end });
        assert_eq!(first.violations(), []);
        let lie = match then {
            Some(offset) => {
                first.control(1, Control::Fin { leg: leg.number(), offset });
                FlowViolation::ContradictoryFin { offset }
            }
            None => {
                first.receive(leg, b"x");
                FlowViolation::PastFin { end: 4, fin: 3 }
            }
        };
        assert_eq!(first.violations(), [(Some(node(ORIGIN)), Violation::Flow(lie))]);
        assert_eq!(first.closed_with(), Some(CloseCode::Malformed));
    }
}

/// The attach that the origin would send to the first relay at its dial of that number.
fn attach_number(dial: u32) -> Attach {
    let route = route(ORIGIN, Time::MAX);
    let tag = Tag::start(&route.secret.candidate_key(1, &node(FIRST)), FLOW, 1, dial);
    let (_, first) = Node::origin(ORIGIN, route).opened();
    Attach { epoch: Epoch::ORIGIN.child(dial), tag, leg: first.leg + 2 * dial, ..first }
}

#[test]
fn a_replay_that_never_ends_costs_the_leg() {
    let mut first = relay(FIRST);
    let (once, again) = (attach_number(1), attach_number(2));
    first.attach(1, &once);
    let block = Bytes::from(vec![7; 1 << 20]);
    let blocks = MAX_REPLAY_BYTES / block.len() as u64;
    let receive = |first: &mut Node, attach: &Attach, times: u64| {
        let leg = LegId::new(LinkId(1), attach.leg);
        for _ in 0..times {
            first.flows.receive(leg, [block.clone()], NOW, &mut first.said);
        }
    };
    receive(&mut first, &once, blocks + 8);
    first.attach(1, &again);
    assert!(first.has_answered());
    receive(&mut first, &again, blocks);
    assert_eq!(first.violations(), [], "whatever a sender may hold is no offence");
    first.said.clear();
    receive(&mut first, &again, 1);
    let lie = Violation::Flow(FlowViolation::EndlessReplay { bytes: MAX_REPLAY_BYTES + (1 << 20) });
    assert_eq!(first.violations(), [(Some(node(ORIGIN)), lie)]);
    assert_eq!(first.closed_with(), Some(CloseCode::Malformed));
}

#[test]
fn a_storm_of_stale_attaches_costs_the_link_and_its_peer_is_turned_away_for_a_while() {
    let (mut first, _, attach) = attached_relay();
    let mut sent = 0;
    while !first.is_cut_off(1) {
        sent += 1;
        assert!(sent < 20_000, "it goes on for ever");
        first.attach(1, &Attach { leg: attach.leg + 2 * sent, ..attach.clone() });
        assert_eq!(first.closed_with(), Some(CloseCode::Stale), "each is answered");
    }
    assert!(sent > 10_000, "what is left of ten thousand flows is no storm: {sent}");
    assert_eq!(first.violations(), [(Some(node(ORIGIN)), Violation::TooManyAttaches)]);
    first.tell(Event::LinkDown { link: LinkId(1) });
    first.said.clear();
    first.link(3, ORIGIN, false);
    assert!(first.is_cut_off(3) && first.flows.links().active(node(ORIGIN)).is_none());
    let (boot, rtt, later) = (BootId::from_bytes([1; 16]), Duration::ZERO, NOW + Duration::from_secs(2));
    let back = Event::LinkUp { link: LinkId(4), peer: node(ORIGIN), boot, dialed: false, rtt };
    first.flows.handle(back, later, &mut first.said);
    assert_eq!(first.flows.links().standing(node(ORIGIN)), Standing::Up);
}

#[test]
fn whoever_is_refused_for_want_of_keys_or_room_has_done_nothing_wrong() {
    let (_, _, attach) = attached_relay();
    let mut without_keys =
        Node { flows: Flows::new(node(FIRST), false, FlowsConfig::default()), said: Vec::new(), now: NOW };
    without_keys.link(1, ORIGIN, false);
    let mut full = relay(FIRST);
    full.flows.drain(&mut Vec::new());
    for (refuser, code) in [(&mut without_keys, CloseCode::Lost), (&mut full, CloseCode::Overloaded)] {
        for n in 1..20_000 {
            refuser.attach(1, &Attach { leg: attach.leg + 2 * n, ..attach.clone() });
            assert_eq!((refuser.closed_with(), refuser.is_cut_off(1)), (Some(code), false));
        }
    }
}

#[test]
fn a_flow_that_is_attached_anew_again_and_again_is_refused() {
    let mut first = relay(FIRST);
    let refused = (1..=1000).find(|dial| {
        first.attach(1, &attach_number(*dial));
        !first.has_answered()
    });
    assert_eq!(refused, Some(ATTACHES.burst + 1), "far more often than an honest dialer tries at once");
    assert_eq!(first.violations(), [(Some(node(ORIGIN)), Violation::TooManyAttaches)]);
}

#[test]
fn a_dialer_whose_candidates_come_and_go_stays_within_what_they_allow() {
    let (mut origin, mut leg) = attached_origin();
    let (mut now, mut tick, mut dials) = (NOW, NOW, 1);
    let end = NOW + Duration::from_secs(20);
    while now < end {
        if now >= tick {
            // Whoever does not serve is heard, and nobody else.
            let link = LinkId(3 - leg.link().0);
            origin.flows.handle(
                Event::Control { link, control: Control::Acks(Vec::new()) },
                now,
                &mut origin.said,
            );
            tick = now + Duration::from_millis(10);
        }
        origin.flows.handle_timeout(now, &mut origin.said);
        let opened = origin.said.drain(..).find_map(|action| match action {
            Action::OpenLeg { leg, .. } => Some(leg),
            _ => None,
        });
        if let Some(opened) = opened {
            (leg, dials) = (opened, dials + 1);
            let answer = AttachOk { backward_start: 0, backward_fin: None, forward_ack: 0 };
            origin.flows.handle(Event::Answered { leg, answer }, now, &mut origin.said);
        }
        now =
            origin.flows.poll_timeout().map_or(tick, |due| due.min(tick)).max(now + Duration::from_micros(1));
    }
    assert!((DIALS.burst..=DIALS.burst + DIALS.per_second * 20).contains(&dials), "{dials} dials");
}

#[test]
fn an_epoch_longer_than_any_path_costs_the_link() {
    let (_, _, attach) = attached_relay();
    let long = (0..=MAX_HOPS + 1).fold(Epoch::ORIGIN, |epoch, _| epoch.child(u32::MAX));
    for epoch in [Epoch::ORIGIN, long.clone()] {
        let mut first = relay(FIRST);
        first.attach(1, &Attach { epoch, ..attach.clone() });
        assert!(first.is_cut_off(1));
    }
    // The greatest counter there is needs the right to it like any other.
    relay(FIRST)
        .assert_forbids(&Attach { epoch: Epoch::ORIGIN.child(u32::MAX), ..attach }, Forbidden::WrongTag);
    let (mut origin, leg) = attached_origin();
    origin.control(1, Control::Close { leg: leg.number(), code: CloseCode::Stale, why: Why::won(long) });
    assert_eq!(origin.violations(), [(Some(node(FIRST)), Violation::OutOfBounds)]);
    assert!(origin.is_cut_off(1));
}

#[test]
fn lists_beyond_their_bounds_cost_the_link() {
    let target = Waypoint::default();
    let relays = vec![target; MAX_HOPS + 1];
    let progress = Progress { probe: 0, reader_blocked: false, target, relays };
    let (_, leg) = attached_origin();
    for bad in [
        Control::Acks(vec![(leg.number(), 0); MAX_ACKS + 1]),
        Control::Progress { leg: leg.number(), progress },
    ] {
        let (mut origin, _) = attached_origin();
        origin.control(1, bad);
        assert_eq!(origin.violations(), [(Some(node(FIRST)), Violation::OutOfBounds)]);
        assert!(origin.is_cut_off(1));
    }
}

#[test]
fn a_storm_of_questions_costs_the_leg() {
    let (mut origin, leg) = attached_origin();
    let request = BackupRequest { hop: 2, version: 1, active: None, unusable: 0 };
    let target = Waypoint::default();
    let progress = Progress { probe: 0, reader_blocked: false, target, relays: Vec::new() };
    let storm = [
        Control::BackupWanted { leg: leg.number(), request },
        Control::Progress { leg: leg.number(), progress },
    ];
    let mut taken = 0;
    while origin.violations().is_empty() {
        origin.control(1, storm[taken % 2].clone());
        taken += 1;
        assert!(taken < 20_000, "it goes on for ever");
    }
    assert_eq!((taken, origin.violations()), (8193, vec![(Some(node(FIRST)), Violation::TooManyQuestions)]));
    assert_eq!(origin.closed_with(), Some(CloseCode::Malformed));
    let (mut first, leg, _) = attached_relay();
    let mut taken = 0;
    while first.violations().is_empty() && taken < 20_000 {
        first.control(1, Control::Probe { leg: leg.number(), number: taken });
        taken += 1;
    }
    assert_eq!((taken, first.violations()), (8193, vec![(Some(node(ORIGIN)), Violation::TooManyQuestions)]));
}

#[test]
fn what_can_not_be_read_costs_the_link() {
    let (mut first, ..) = attached_relay();
    first.said.clear();
    first.tell(Event::LinkGarbled { link: LinkId(1) });
    assert_eq!(first.violations(), [(Some(node(ORIGIN)), Violation::Garbled)]);
    assert!(first.is_cut_off(1));
}
