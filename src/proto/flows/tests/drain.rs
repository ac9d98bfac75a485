//! How a node leaves in peace, and what its neighbours do.

use super::*;
use crate::frame::BackupRequest;

fn draining(node: &Node) -> usize {
    node.controls().iter().filter(|control| **control == Control::Draining).count()
}

#[test]
fn a_node_that_leaves_says_so_once_to_everybody_and_takes_no_new_flow() {
    let (mut first, ..) = carrying(1 << 20);
    first.said.clear();
    first.flows.drain(&mut first.said);
    first.flows.drain(&mut first.said);
    assert_eq!(draining(&first), 2, "to prev and next");
    first.said.clear();
    first.link(3, OTHER_ORIGIN, false);
    assert_eq!(draining(&first), 1, "and to whoever comes");
    let (_, attach) = Node::origin(OTHER_ORIGIN, route(OTHER_ORIGIN, Time::MAX)).opened();
    first.attach(3, &attach);
    assert_eq!((first.closed_with(), first.flows.len()), (Some(CloseCode::Overloaded), 1));
}

#[test]
fn a_next_that_leaves_is_replaced_before_its_leg_is_closed() {
    let (mut origin, old) = attached_origin();
    origin.control(1, Control::Draining);
    let (new, _) = origin.opened();
    assert_eq!((new.link(), origin.closed(old)), (LinkId(2), None));
    assert!(matches!(origin.next(), Next::Attaching { .. }));
    origin.answer(new);
    assert_eq!(origin.rerouted(), Some((1, Cause::Drain, Some(node(BACKUP)))));
    assert_eq!(origin.closed(old), None, "what it still brings is taken");
    origin.said.clear();
    origin.tell(Event::LegClosed { leg: old, code: CloseCode::Moved });
    assert!(matches!(origin.next(), Next::Serving { .. }), "nothing was lost with it");
}

#[test]
fn a_next_that_leaves_and_that_nobody_can_replace_is_kept_and_others_are_asked_for() {
    let (mut first, _, prev, next) = carrying(1 << 20);
    first.control(2, Control::Draining);
    assert!(matches!(first.next(), Next::Serving { .. }));
    assert_eq!(first.closed(next), None);
    let request = BackupRequest { hop: 2, version: 1, active: None, unusable: 1 };
    assert_eq!(first.controls(), [Control::BackupWanted { leg: prev.number(), request }]);
}

#[test]
fn a_flow_moves_on_when_the_link_to_another_candidate_is_up() {
    let mut origin = unlinked();
    origin.link(1, FIRST, true);
    let (old, _) = origin.opened();
    origin.answer(old);
    origin.control(1, Control::Draining);
    assert_eq!(origin.next(), Next::Serving { doubted_until: None }, "the other is on its way");
    origin.link(2, BACKUP, true);
    assert_eq!((origin.opened().0.link(), origin.closed(old)), (LinkId(2), None));
}

#[test]
fn a_next_that_the_newest_record_does_not_name_is_replaced() {
    let (mut origin, old) = attached_origin();
    origin.link(3, THIRD, true);
    let record = issue(ORIGIN, (1, 2), &[THIRD, BACKUP], Time::MAX);
    origin.said.clear();
    origin.flows.backup_found(origin.key(), &record, NOW, &mut origin.said);
    let (new, _) = origin.opened();
    assert_eq!((new.link(), origin.closed(old)), (LinkId(3), None));
    origin.answer(new);
    assert_eq!(origin.rerouted(), Some((1, Cause::Followed, Some(node(THIRD)))));
}
