//! Why a next hop is given up, and what is told of it.

use super::*;

#[test]
fn a_silent_next_is_left_at_once_if_there_is_somebody_better() {
    let (mut origin, leg) = attached_origin();
    origin.said.clear();
    origin.suspects(1, &[2]);
    assert_eq!(origin.closed(leg), Some(CloseCode::Moved));
    let (leg, _) = origin.opened();
    assert_eq!(leg.link(), LinkId(2));
    origin.answer(leg);
    assert_eq!(origin.rerouted(), Some((1, Cause::Silence, Some(node(BACKUP)))));
    assert_eq!(origin.wants_backups(), [(1, Some(node(BACKUP)))], "nobody stands by");
}

#[test]
fn a_silent_next_that_nobody_can_replace_is_kept_for_a_while() {
    for is_heard_again in [true, false] {
        let (mut relay, _, _, leg) = carrying(1 << 20);
        relay.said.clear();
        relay.suspects(2, &[1]);
        let until = relay.now + MS * 100;
        assert_eq!(relay.next(), Next::Serving { doubted_until: Some(until) });
        let is_request = |control: &Control| matches!(control, Control::BackupWanted { .. });
        assert!(relay.controls().iter().any(is_request), "meanwhile others are asked for");
        if is_heard_again {
            let alive = Control::Acks(Vec::new());
            relay.at(relay.now, Event::Control { link: LinkId(2), control: alive });
        }
        relay.pass(until, if is_heard_again { &[1, 2] } else { &[1] });
        if is_heard_again {
            assert_eq!((relay.closed(leg), relay.next()), (None, Next::Serving { doubted_until: None }));
        } else {
            assert_eq!(relay.closed(leg), Some(CloseCode::Moved));
            assert_eq!(relay.next(), Next::BackingOff { until: until + MS * 5 });
        }
    }
}

#[test]
fn a_doubt_is_of_one_leg_and_not_of_the_one_after() {
    let (mut relay, _, prev, leg) = carrying(1 << 20);
    relay.suspects(2, &[1]);
    assert!(relay.next().doubted_until().is_some());
    relay.at(
        relay.now,
        Event::Control { link: LinkId(1), control: update(prev, &[(2, &[SECOND, THIRD])], 2) },
    );
    let boot = BootId::from_bytes([THIRD; 16]);
    let up = Event::LinkUp { link: LinkId(3), peer: node(THIRD), boot, dialed: true, rtt: MS };
    relay.at(relay.now, up);
    assert_ne!(relay.opened().0, leg, "there is somebody better now");
    assert!(relay.next().has_leg() && relay.next().doubted_until().is_none());
}

#[test]
fn what_is_told_of_a_repair_says_why() {
    let causes = [
        (None, Cause::LinkLost),
        (Some(CloseCode::NoPath), Cause::NoPath),
        (Some(CloseCode::Overloaded), Cause::Closed),
    ];
    for (code, cause) in causes {
        let (mut relay, _, prev, leg) = carrying(1 << 20);
        relay.control(1, update(prev, &[(2, &[SECOND, THIRD])], 2));
        relay.link(3, THIRD, true);
        relay.said.clear();
        relay.tell(code.map_or(Event::LegEnded { leg }, |code| Event::LegClosed { leg, code }));
        let (leg, _) = relay.opened();
        assert_eq!(leg.link(), LinkId(3));
        relay.answer(leg);
        assert_eq!(relay.rerouted(), Some((2, cause, Some(node(THIRD)))));
        let told = relay.controls().into_iter().find_map(|control| match control {
            Control::Rerouted { leg, reroute } => Some((leg, reroute.from, reroute.to, reroute.version)),
            _ => None,
        });
        assert_eq!(told, Some((prev.number(), 0, 1, 2)), "the origin learns who by its record");
    }
}

#[test]
fn who_is_lost_before_it_ever_answered_was_not_reached() {
    let mut origin = Node::origin(ORIGIN, route(ORIGIN, Time::MAX));
    origin.pass(NOW + MS * 1000, &[1, 2]);
    let (leg, _) = origin.opened();
    origin.at(origin.now, Event::Answered { leg, answer: OK });
    assert_eq!(origin.rerouted(), Some((1, Cause::Unreachable, Some(node(BACKUP)))));
}
