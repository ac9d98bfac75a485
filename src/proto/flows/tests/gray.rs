//! How questions whether bytes arrive travel, and their answers, and what an origin makes of these.

use super::*;
use crate::frame::{Progress, Waypoint};

fn progress(leg: LegId, relays: usize) -> Control {
    let target = Waypoint::default();
    let progress = Progress { probe: 1, reader_blocked: false, target, relays: vec![target; relays] };
    Control::Progress { leg: leg.number(), progress }
}

#[test]
fn a_relay_passes_a_question_down_and_an_answer_up_with_how_far_it_is_itself() {
    let (mut relay, _, prev, next) = carrying(1 << 20);
    relay.flows.receive(prev, [Bytes::from_static(b"abc")], NOW, &mut relay.said);
    relay.control(1, Control::Probe { leg: prev.number(), number: 1 });
    assert_eq!(relay.controls(), [Control::Probe { leg: next.number(), number: 1 }]);
    relay.control(2, progress(next, 1));
    let [Control::Progress { leg, progress }] = &relay.controls()[..] else { panic!("{:?}", relay.said) };
    let far: Vec<u64> = progress.relays.iter().map(|relay| relay.forward.received).collect();
    assert_eq!((*leg, far), (prev.number(), vec![0, 3]));
}

#[test]
fn questions_come_from_prev_and_answers_from_next() {
    let (mut relay, _, prev, next) = carrying(1 << 20);
    relay.control(2, Control::Probe { leg: next.number(), number: 1 });
    assert_eq!(relay.controls(), []);
    relay.control(1, progress(prev, 0));
    assert_eq!(relay.controls(), []);
}

#[test]
fn a_relay_whose_next_has_not_answered_asks_nobody() {
    let mut first = relay(FIRST);
    let (_, attach) = Node::origin(ORIGIN, route(ORIGIN, Time::MAX)).opened();
    first.attach(1, &attach);
    first.link(2, SECOND, true);
    first.control(1, Control::Probe { leg: attach.leg, number: 1 });
    assert_eq!(first.controls(), []);
}

#[test]
fn an_origin_asks_until_its_target_is_heard_and_leaves_a_chain_that_stays_silent() {
    for is_heard in [true, false] {
        let (mut origin, leg) = attached_origin();
        origin.said.clear();
        origin.pass(NOW + MS * 1000, &[1, 2]);
        let asked = |control: &Control| matches!(control, Control::Probe { number: 1, .. });
        assert!(origin.controls().iter().any(asked));
        if is_heard {
            origin.at(origin.now, Event::Control { link: LinkId(1), control: progress(leg, 2) });
        }
        origin.pass(NOW + MS * 20_000, &[1, 2]);
        assert_eq!(origin.wants_route(), !is_heard);
        assert_eq!(origin.flows.reaches_next(&origin.key()), is_heard, "the relay answers in any case");
        // Until there is another route the flow stays.
        assert_eq!(origin.closed(leg), None);
    }
}

#[test]
fn a_chain_that_is_distrusted_is_left_for_good_and_its_suspect_avoided() {
    let (mut origin, leg) = attached_origin();
    let key = origin.key();
    origin.flows.abandon_chain(key, Cause::Gray, Some(node(SECOND)), NOW);
    assert!(origin.wants_route() && !origin.flows.reaches_next(&key));
    assert_eq!(origin.flows.suspects(&key, NOW), [node(SECOND)]);
    assert!(origin.flows.chain(&key, NOW).expect("a chain").1.contains(&node(SECOND)));
    origin.flows.reroute(
        key,
        route_over([&[BACKUP], &[THIRD], &[TARGET]], ORIGIN, Time::MAX),
        NOW,
        &mut origin.said,
    );
    assert_eq!(origin.closed(leg), Some(CloseCode::Moved));
    origin.answer(origin.opened().0);
    assert!(origin.flows.reaches_next(&key));
    assert_eq!(origin.flows.suspects(&key, NOW), [node(SECOND)]);
}
