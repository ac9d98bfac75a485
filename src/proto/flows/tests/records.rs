//! How records travel down a flow, and what is told of repairs up.

use super::*;
use crate::frame::{BackupRequest, Evidence, Reason, Reroute};
use crate::machine::ChainChange;

/// The hops whose records were sent on, with how many tags each, and over which leg.
fn updates(node: &Node) -> Vec<(u32, Vec<(u8, usize)>)> {
    let update = |control| match control {
        Control::Update { leg, records, tags } => {
            let hops = records.iter().map(|record| record.scope.hop);
            Some((leg, hops.zip(tags.iter().map(Vec::len)).collect()))
        }
        _ => None,
    };
    node.controls().into_iter().filter_map(update).collect()
}

fn renewed() -> Vec<Record> {
    let hops: [&[u8]; 3] = [&[FIRST, BACKUP], &[SECOND, THIRD], &[TARGET]];
    (1u8..).zip(hops).map(|(hop, nodes)| issue(ORIGIN, (hop, 2), nodes, Time::MAX)).collect()
}

fn reroute(cause: Cause) -> Reroute {
    Reroute {
        hop: 2,
        version: 2,
        from: 0,
        to: 1,
        cause,
        gap_us: 0,
        detected_us: 0,
        replayed: 0,
        reason: Reason::of(Evidence::None),
    }
}

#[test]
fn renewed_records_go_down_with_a_tag_for_each_candidate_except_the_next_hops_own() {
    let (mut origin, leg) = attached_origin();
    origin.said.clear();
    origin.flows.renewed(origin.key(), &renewed(), NOW, &mut origin.said);
    assert_eq!(updates(&origin), [(leg.number(), vec![(2, 2), (3, 1)])]);
}

#[test]
fn records_wait_for_a_next_that_has_not_answered() {
    let mut origin = Node::origin(ORIGIN, route(ORIGIN, Time::MAX));
    let (leg, _) = origin.opened();
    origin.flows.renewed(origin.key(), &renewed(), NOW, &mut origin.said);
    assert_eq!(updates(&origin), []);
    origin.answer(leg);
    assert_eq!(updates(&origin), [(leg.number(), vec![(2, 2), (3, 1)])]);
    origin.said.clear();
    origin.tell(Event::LegEnded { leg });
    origin.answer(origin.opened().0);
    assert_eq!(updates(&origin), [], "whoever was attached since then has them");
}

#[test]
fn a_relay_keeps_what_concerns_it_and_passes_on_what_lies_beyond() {
    let (mut relay, key, prev, next) = carrying(1 << 20);
    relay.control(1, update(prev, &[(2, &[SECOND, THIRD]), (3, &[TARGET])], 2));
    assert_eq!(updates(&relay), [(next.number(), vec![(3, 1)])]);
    let candidates = |relay: &Node| -> Vec<NodeId> {
        relay.flows.flows[&key].candidates.iter().map(|candidate| candidate.node).collect()
    };
    assert_eq!(candidates(&relay), [node(SECOND), node(THIRD)]);
    relay.control(1, update(prev, &[(2, &[SECOND])], 1));
    assert_eq!(candidates(&relay), [node(SECOND), node(THIRD)], "an older one changes nothing");
    relay.control(2, update(next, &[(2, &[THIRD])], 3));
    assert_eq!(candidates(&relay), [node(SECOND), node(THIRD)], "they come from prev");
}

#[test]
fn a_repair_further_down_is_told_up_once_and_named_by_the_origin() {
    let (mut relay, _, prev, next) = carrying(1 << 20);
    relay.control(2, Control::Rerouted { leg: next.number(), reroute: reroute(Cause::Silence) });
    let told = Control::Rerouted { leg: prev.number(), reroute: reroute(Cause::Silence) };
    assert_eq!(relay.controls(), [told]);
    relay.control(2, Control::Rerouted { leg: next.number(), reroute: reroute(Cause::Silence) });
    assert_eq!(relay.controls(), [], "it knows");

    for (cause, has_failed) in [(Cause::Silence, true), (Cause::Followed, false)] {
        let (mut origin, leg) = attached_origin();
        origin.flows.renewed(origin.key(), &renewed(), NOW, &mut origin.said);
        origin.control(1, Control::Rerouted { leg: leg.number(), reroute: reroute(cause) });
        assert_eq!(origin.rerouted(), Some((2, cause, Some(node(THIRD)))));
        let avoided = origin.flows.chain(&origin.key(), NOW).expect("a chain").1;
        assert_eq!(avoided.contains(&node(SECOND)), has_failed, "{cause:?}");
        assert!(origin.flows.is_served(&origin.key(), 2));
    }
}

#[test]
fn another_backup_goes_down_and_the_application_hears_of_it() {
    let (mut origin, leg) = attached_origin();
    let key = origin.key();
    origin.said.clear();
    origin.flows.backup_found(key, &renewed()[1], NOW, &mut origin.said);
    assert_eq!(updates(&origin), [(leg.number(), vec![(2, 2)])]);
    let is_told = |action: &Action| {
        let change = ChainChange::BackupReplaced { hop: 2 };
        matches!(action, Action::Notify(Notice::Chain { change: of, .. }) if *of == change)
    };
    assert!(origin.said.iter().any(is_told));
    // One that was made before that is of no use: it is asked for another.
    origin.flows.take_events();
    origin.flows.backup_found(key, &issue(ORIGIN, (2, 1), &[SECOND], Time::MAX), NOW, &mut origin.said);
    assert_eq!(origin.wants_backups(), [(2, Some(node(SECOND)))]);
}

#[test]
fn a_backup_that_does_not_stand_beside_who_serves_is_asked_for_anew() {
    let (mut origin, leg) = attached_origin();
    let key = origin.key();
    origin.flows.renewed(key, &renewed(), NOW, &mut origin.said);
    origin.control(1, Control::Rerouted { leg: leg.number(), reroute: reroute(Cause::Silence) });
    origin.flows.take_events();
    origin.said.clear();
    // Made while the second relay still served.
    origin.flows.backup_found(
        key,
        &issue(ORIGIN, (2, 3), &[SECOND, BACKUP], Time::MAX),
        NOW,
        &mut origin.said,
    );
    assert_eq!(updates(&origin), []);
    assert_eq!(origin.wants_backups(), [(2, Some(node(THIRD)))]);
}

#[test]
fn a_wish_for_a_backup_goes_up_and_a_lost_answer_is_repeated() {
    let request = BackupRequest { hop: 2, version: 1, active: Some(0), unusable: 0 };
    let (mut relay, _, prev, next) = carrying(1 << 20);
    relay.control(2, Control::BackupWanted { leg: next.number(), request });
    assert_eq!(relay.controls(), [Control::BackupWanted { leg: prev.number(), request }]);

    let (mut origin, leg) = attached_origin();
    origin.flows.take_events();
    origin.control(1, Control::BackupWanted { leg: leg.number(), request });
    assert_eq!(origin.wants_backups(), [(2, Some(node(SECOND)))]);
    origin.flows.renewed(origin.key(), &renewed(), NOW, &mut origin.said);
    origin.control(1, Control::BackupWanted { leg: leg.number(), request });
    assert_eq!(origin.wants_backups(), [], "there is a newer record than the request knows");
    assert_eq!(updates(&origin), [(leg.number(), vec![(2, 2)])]);
}

#[test]
fn a_target_that_is_attached_elsewhere_says_so_up_the_flow() {
    let (mut relay, _, prev, next) = carrying(1 << 20);
    relay.control(2, Control::Reattached { leg: next.number() });
    assert_eq!(relay.controls(), [Control::Reattached { leg: prev.number() }]);
    let (mut origin, leg) = attached_origin();
    origin.flows.take_events();
    origin.control(1, Control::Reattached { leg: leg.number() });
    assert_eq!(origin.wants_backups(), [(2, Some(node(SECOND)))], "for the hop before the target");
}

#[test]
fn who_stands_by_is_told_the_hop_after_and_keeps_links_there() {
    let (origin, _) = attached_origin();
    let prepared: Vec<Control> = origin.controls();
    let Some(Control::Prepare { own, next }) =
        prepared.iter().find(|control| matches!(control, Control::Prepare { .. }))
    else {
        panic!("{prepared:?}")
    };
    assert_eq!((own.scope.hop, next.scope.hop), (1, 2));
    let mut backup = relay(BACKUP);
    backup.control(1, Control::Prepare { own: own.clone(), next: next.clone() });
    let dialled = |action: &Action| matches!(action, Action::Connect { peer, .. } if *peer == node(SECOND));
    assert!(backup.said.iter().any(dialled));
}
