//! The states of the next hop, as events bring them about, and why the node wakes in each.

use super::*;

/// Why the node will wake for its flow, and how long after the beginning.
fn wakes(node: &Node) -> (Duration, Timer) {
    let (at, timer) = node.flows.next_timeout(&node.key()).expect("it waits for something");
    (at.since(NOW), timer)
}

#[test]
fn without_links_it_waits_for_the_first_that_comes_up() {
    let mut origin = unlinked();
    assert_eq!(origin.next(), Next::WaitingForLink { until: NOW + MS * 1000 });
    assert_eq!(wakes(&origin), (MS * 1000, Timer::Next));
    origin.link(2, BACKUP, true);
    assert_eq!(
        origin.next(),
        Next::WaitingForLink { until: NOW + MS * 250 },
        "the planned one has a head start"
    );
    assert_eq!(wakes(&origin), (MS * 250, Timer::Next));
    origin.link(1, FIRST, true);
    assert_eq!(origin.next(), Next::Attaching { until: NOW + MS * 1000, doubted_until: None });
    assert_eq!(origin.opened().0.link(), LinkId(1));
}

#[test]
fn an_answer_makes_it_serve_and_the_origin_looks_for_its_target() {
    let (origin, _) = attached_origin();
    assert_eq!(origin.next(), Next::Serving { doubted_until: None });
    assert_eq!(wakes(&origin), (MS * 1000, Timer::Look));
}

#[test]
fn who_does_not_answer_in_time_is_left_for_the_other() {
    let mut origin = Node::origin(ORIGIN, route(ORIGIN, Time::MAX));
    let (leg, _) = origin.opened();
    origin.pass(NOW + MS * 1000, &[1, 2]);
    assert_eq!(origin.closed(leg), Some(CloseCode::Moved));
    assert_eq!(origin.next(), Next::Attaching { until: NOW + MS * 2000, doubted_until: None });
    assert_eq!(origin.opened().0.link(), LinkId(2));
}

#[test]
fn candidates_that_all_fail_are_dialled_after_ever_longer_pauses() {
    let mut origin = Node::origin(ORIGIN, route(ORIGIN, Time::MAX));
    let (leg, _) = origin.opened();
    origin.tell(Event::LegEnded { leg });
    let (leg, _) = origin.opened();
    assert_eq!(leg.link(), LinkId(2), "the other has not failed yet");
    let (mut failed, mut pauses) = (leg, Vec::new());
    for _ in 0..8 {
        origin.said.clear();
        origin.at(origin.now, Event::LegEnded { leg: failed });
        let Next::BackingOff { until } = origin.next() else { panic!("{:?}", origin.next()) };
        pauses.push(until.since(origin.now).as_millis());
        origin.pass(until, &[1, 2]);
        failed = origin.opened().0;
    }
    assert_eq!(pauses, [5, 5, 10, 10, 20, 20, 40, 40]);
}

#[test]
fn a_leg_that_is_closed_unexplained_is_left_when_no_explanation_comes() {
    for explained in [true, false] {
        let (mut origin, leg) = attached_origin();
        origin.tell(Event::LegClosed { leg, code: CloseCode::Stale });
        assert_eq!(origin.next(), Next::Closing { until: NOW + MS * 1000, doubted_until: None });
        if explained {
            let why = Why::won(Epoch::ORIGIN.child(7));
            origin.control(1, Control::Close { leg: leg.number(), code: CloseCode::Stale, why });
        } else {
            origin.pass(NOW + MS * 1000, &[1, 2]);
        }
        assert_eq!(origin.opened().0.link(), LinkId(2));
    }
}

#[test]
fn over_a_busy_link_it_waits_for_its_turn() {
    let mut origin = Node::new(ORIGIN);
    origin.link(1, FIRST, true);
    let open = |origin: &mut Node, n| {
        let flow = FlowId::from_bytes([n; 16]);
        origin.flows.open(flow, route(ORIGIN, Time::MAX), NOW, &mut origin.said).expect("a usable route")
    };
    let first = open(&mut origin, 0);
    let (leg, _) = origin.opened();
    let last = (1..=32).map(|n| open(&mut origin, n)).last().expect("some");
    let next = |origin: &Node, key| origin.flows.flows[&key].next;
    assert_eq!(next(&origin, last), Next::WaitingForTurn { until: NOW + MS * 1000 });
    assert!(matches!(next(&origin, first), Next::Attaching { .. }));
    origin.answer(leg);
    assert!(matches!(next(&origin, first), Next::Serving { .. }));
    assert!(matches!(next(&origin, last), Next::Attaching { .. }));
}

#[test]
fn whose_turn_is_lost_with_the_link_waits_for_another() {
    let mut origin = Node::new(ORIGIN);
    origin.link(1, FIRST, true);
    for n in 0..=32 {
        let flow = FlowId::from_bytes([n; 16]);
        origin.flows.open(flow, route(ORIGIN, Time::MAX), NOW, &mut origin.said).expect("a usable route");
    }
    origin.tell(Event::LinkDown { link: LinkId(1) });
    assert!(origin.flows.flows.values().all(|flow| flow.next.waits_for_link()));
}

#[test]
fn who_was_dialled_too_often_lately_is_given_a_rest() {
    let (mut origin, leg) = attached_origin();
    let key = origin.key();
    let dials = &mut origin.flows.flows.get_mut(&key).expect("a flow").dials;
    (1..DIALS.burst).for_each(|_| dials.dialled(NOW));
    origin.tell(Event::LegEnded { leg });
    assert_eq!(origin.next(), Next::BackingOff { until: NOW + MS * 250 });
    origin.pass(NOW + MS * 250, &[1, 2]);
    assert!(matches!(origin.next(), Next::Attaching { .. }));
}

#[test]
fn other_candidates_end_the_wait_for_the_former_ones() {
    let mut origin = unlinked();
    let key = origin.key();
    let elsewhere = route_over([&[THIRD], &[SECOND], &[TARGET]], ORIGIN, Time::MAX);
    origin.flows.reroute(key, elsewhere, NOW, &mut origin.said);
    assert!(origin.next().waits_for_link());
    assert_eq!(origin.flows.waiting.keys().collect::<Vec<_>>(), [&node(THIRD)]);
    origin.link(1, FIRST, true);
    assert!(origin.next().waits_for_link(), "that one is of no use any more");
    origin.link(2, THIRD, true);
    assert!(!origin.next().waits_for_link() && origin.flows.waiting.is_empty());
}

#[test]
fn a_relay_that_finds_no_way_on_says_so_after_a_while() {
    // A link may still come up, or the candidate is known to be bad: then it asks for others as long as a handshake takes.
    for (is_bad, ask_after) in [(false, 3000), (true, 1000)] {
        let mut first = relay(FIRST);
        first.attach(1, &Node::origin(ORIGIN, route(ORIGIN, Time::MAX)).opened().1);
        assert!(first.next().waits_for_link());
        if is_bad {
            let failure = crate::machine::DialFailure::NoAnswer;
            first.tell(Event::ConnectFailed { peer: node(SECOND), failure });
        }
        first.pass(NOW + MS * (ask_after - 1), &[1]);
        assert_eq!((first.closed_with(), first.flows.len()), (None, 1));
        first.pass(NOW + MS * ask_after, &[1]);
        assert_eq!((first.closed_with(), first.flows.len()), (Some(CloseCode::NoPath), 0));
    }
}

#[test]
fn the_relay_before_the_target_says_at_once_that_it_is_gone() {
    let mut second = relay(SECOND);
    second.link(2, TARGET, false);
    let mut first = relay(FIRST);
    first.attach(1, &Node::origin(ORIGIN, route(ORIGIN, Time::MAX)).opened().1);
    first.link(2, SECOND, true);
    let (_, attach) = first.opened();
    let prev = LegId::new(LinkId(1), attach.leg);
    second.attach(1, &attach);
    let (leg, _) = second.opened();
    second.tell(Event::LegEnded { leg });
    assert_eq!(second.next(), Next::BackingOff { until: NOW + MS * 5 }, "it may have been the leg");
    second.pass(NOW + MS * 5, &[1, 2]);
    let (leg, _) = second.opened();
    second.at(second.now, Event::LegEnded { leg });
    assert_eq!((second.closed(prev), second.flows.len()), (Some(CloseCode::NoPath), 0));
}
