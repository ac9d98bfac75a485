//! How a leg takes the place of another.

use super::*;

/// An attach by the origin at its dial of that number, over the leg after so many.
fn attach_again(dial: u32) -> Attach {
    let (_, attach) = Node::origin(ORIGIN, route(ORIGIN, Time::MAX)).opened();
    let tag = Tag::start(&secret(ORIGIN).candidate_key(1, &node(FIRST)), FLOW, 1, dial);
    Attach { epoch: Epoch::ORIGIN.child(dial), tag, leg: attach.leg + 2 * dial, ..attach }
}

#[test]
fn a_greater_epoch_replaces_prev_which_is_told_who_won() {
    let (mut relay, _, prev, next) = carrying(1 << 20);
    relay.link(3, ORIGIN, false);
    relay.attach(3, &attach_again(2));
    assert!(relay.has_answered());
    assert_eq!((relay.closed(prev), relay.closed(next)), (Some(CloseCode::Replaced), None));
    let why = Why::won(Epoch::ORIGIN.child(2));
    let told = Control::Close { leg: prev.number(), code: CloseCode::Replaced, why };
    assert!(relay.controls().contains(&told));
    assert!(matches!(relay.next(), Next::Serving { .. }), "whoever comes next is not concerned");
}

#[test]
fn who_comes_with_another_chain_has_the_hop_after_dialled_anew() {
    let (mut relay, _, _, old) = carrying(1 << 20);
    let mut again = attach_again(2);
    // Another chain of the same origin: its records carry another name.
    let chain = ChainId::from_bytes([99; 16]);
    let origin = pseudonym(&network(), &node(ORIGIN));
    let hops: [&[u8]; 3] = [&[FIRST], &[SECOND], &[TARGET]];
    let scope = |hop| Scope { chain, origin, hop, version: 1, key_epoch: 0, expires: Time::MAX };
    again.records = (1u8..).zip(hops).map(|(hop, nodes)| sign(scope(hop), nodes)).collect();
    let secret = ChainSecret::derive(&network(), chain, origin);
    again.tag = Tag::start(&secret.candidate_key(1, &node(FIRST)), FLOW, 1, 2);
    relay.attach(1, &again);
    assert!(relay.has_answered());
    let (new, attach) = relay.opened();
    assert_eq!((new.link(), attach.epoch.counters()), (LinkId(2), &[2, 2][..]));
    assert_eq!(relay.closed(old), None, "it is left in peace");
    relay.answer(new);
    assert_eq!(relay.rerouted().map(|(_, cause, _)| cause), Some(Cause::Followed));
}

#[test]
fn a_relay_that_holds_less_than_its_prev_says_forgets_what_it_holds_and_dials_again() {
    let (mut relay, _, _, old) = carrying(1 << 20);
    relay.attach(1, &Attach { forward_start: 1000, ..attach_again(2) });
    assert!(relay.has_answered());
    assert_eq!(relay.closed(old), Some(CloseCode::Lost));
    let (new, attach) = relay.opened();
    assert_eq!((attach.epoch.counters(), attach.forward_start), (&[2, 2][..], 1000));
    assert!(matches!(relay.next(), Next::Attaching { .. }) && new != old);
}

#[test]
fn a_leg_whose_link_is_gone_or_whose_name_is_taken_is_closed() {
    let (mut relay, _, prev, _) = carrying(1 << 20);
    relay.attach(9, &attach_again(2));
    assert_eq!(relay.closed_with(), Some(CloseCode::Lost));
    relay.attach(1, &Attach { leg: prev.number(), ..attach_again(2) });
    assert_eq!(relay.closed_with(), Some(CloseCode::Malformed));
}

#[test]
fn an_answer_to_a_leg_that_is_no_more_changes_nothing() {
    let mut origin = Node::origin(ORIGIN, route(ORIGIN, Time::MAX));
    let (leg, _) = origin.opened();
    origin.tell(Event::LegEnded { leg });
    let before = origin.next();
    origin.answer(leg);
    assert_eq!(origin.next(), before);
}

#[test]
fn a_terminal_code_from_a_relay_is_believed_the_third_time() {
    let (mut origin, mut leg) = attached_origin();
    let mut times = 0;
    while !origin.flows.is_empty() {
        times += 1;
        origin.said.clear();
        origin.at(origin.now, Event::LegClosed { leg, code: CloseCode::Unknown });
        if let Some(Next::BackingOff { until }) = origin.flows.flows.values().next().map(|flow| flow.next) {
            origin.pass(until, &[1, 2]);
        }
        let opened =
            |action: &Action| if let Action::OpenLeg { leg, .. } = action { Some(*leg) } else { None };
        leg = origin.said.iter().find_map(opened).unwrap_or(leg);
        origin.at(origin.now, Event::Answered { leg, answer: OK });
    }
    assert_eq!(times, 3);
}
