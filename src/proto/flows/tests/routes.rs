//! How an origin gets and takes another route.

use super::*;
use crate::machine::ChainChange;
use crate::splice::Splice;

fn elsewhere() -> Route {
    route_over([&[THIRD], &[SECOND], &[TARGET]], ORIGIN, Time::MAX)
}

/// The chain that it told its application of last, and why.
fn told_chain(node: &Node) -> Option<(Vec<Vec<NodeId>>, ChainChange)> {
    node.said.iter().rev().find_map(|action| match action {
        Action::Notify(Notice::Chain { hops, change, .. }) => {
            let nodes = |hop: &Vec<Candidate>| hop.iter().map(|candidate| candidate.node).collect();
            Some((hops.iter().map(nodes).collect(), *change))
        }
        _ => None,
    })
}

#[test]
fn another_route_is_taken_at_once_and_the_application_told() {
    let (mut origin, leg) = attached_origin();
    origin.link(3, THIRD, true);
    origin.said.clear();
    origin.flows.reroute(origin.key(), elsewhere(), NOW, &mut origin.said);
    assert_eq!(origin.closed(leg), Some(CloseCode::Moved));
    let hops = vec![vec![node(THIRD)], vec![node(SECOND)]];
    assert_eq!(told_chain(&origin), Some((hops, ChainChange::Rebuilt { cause: None })));
    let (leg, attach) = origin.opened();
    assert_eq!((leg.link(), attach.epoch.counters()), (LinkId(3), &[2][..]));
    origin.answer(leg);
    assert_eq!(origin.rerouted(), None, "that was no repair");
    assert!(matches!(origin.next(), Next::Serving { .. }));
}

#[test]
fn a_chain_that_was_left_broken_is_said_to_be() {
    let (mut origin, leg) = attached_origin();
    origin.tell(Event::LegEnded { leg });
    origin.flows.reroute(origin.key(), elsewhere(), NOW, &mut origin.said);
    let cause = Some(Cause::LinkLost);
    assert_eq!(told_chain(&origin).map(|(_, change)| change), Some(ChainChange::Rebuilt { cause }));
}

#[test]
fn a_route_for_somebody_else_is_not_taken() {
    let (mut origin, leg) = attached_origin();
    origin.said.clear();
    origin.flows.reroute(origin.key(), route(OTHER_ORIGIN, Time::MAX), NOW, &mut origin.said);
    assert!(origin.said.is_empty());
    let (mut relay, key, ..) = carrying(1 << 20);
    relay.said.clear();
    relay.flows.reroute(key, elsewhere(), NOW, &mut relay.said);
    assert!(relay.said.is_empty(), "only an origin chooses");
    assert_eq!(origin.flows.splice(&origin.key()).and_then(Splice::next), Some(leg));
}

#[test]
fn a_route_is_asked_for_once_and_again_later_if_there_was_none() {
    let mut origin = unlinked();
    let key = origin.key();
    origin.flows.want_route(key, NOW);
    assert!(origin.wants_route());
    origin.flows.want_route(key, NOW);
    assert!(!origin.wants_route(), "the owner has not answered yet");
    origin.flows.route_not_found(key, NOW);
    assert_eq!(origin.flows.next_timeout(&key), Some((NOW + MS * 25, Timer::Route)));
    origin.pass(NOW + MS * 24, &[]);
    assert!(!origin.wants_route());
    origin.pass(NOW + MS * 25, &[]);
    assert!(origin.wants_route());
}

#[test]
fn no_other_route_is_asked_for_once_the_next_hop_has_answered() {
    let mut origin = Node::origin(ORIGIN, route(ORIGIN, Time::MAX));
    let key = origin.key();
    origin.flows.want_route(key, NOW);
    origin.flows.route_not_found(key, NOW);
    origin.flows.take_events();
    origin.answer(origin.opened().0);
    origin.pass(NOW + MS * 500, &[1, 2]);
    assert!(!origin.wants_route());
}

#[test]
fn a_chain_in_use_names_those_first_who_serve_it() {
    let (mut origin, leg) = attached_origin();
    let key = origin.key();
    let first = |origin: &Node| -> Vec<NodeId> {
        let (_, hops) = origin.flows.in_use(&key).expect("a chain");
        hops[0].iter().map(|candidate| candidate.node).collect()
    };
    assert_eq!(first(&origin), [node(FIRST), node(BACKUP)]);
    assert_eq!(origin.flows.around_backup(&key, 1), [ORIGIN, BACKUP, SECOND].map(node));
    assert_eq!(origin.flows.around_backup(&key, 2), [], "that hop has none");
    origin.tell(Event::LegEnded { leg });
    origin.answer(origin.opened().0);
    assert_eq!(first(&origin), [node(BACKUP), node(FIRST)]);
    assert!(origin.flows.is_served(&key, 1) && !origin.flows.is_served(&key, 2));
    assert!(
        origin.flows.chain(&key, NOW).expect("a chain").1.contains(&node(FIRST)),
        "who failed is avoided"
    );
}
