//! Flows that are being opened, whose links take their time.

use super::*;
use crate::machine::DialFailure;

fn no_answer(from: u8) -> Event {
    Event::ConnectFailed { peer: node(from), failure: DialFailure::NoAnswer }
}

impl Node {
    /// Answers the leg that was opened last; why it was not the one that was planned, if it was not.
    fn is_answered(&mut self) -> Option<Cause> {
        let answer = AttachOk { backward_start: 0, backward_fin: None, forward_ack: 0 };
        let (leg, _) = self.opened();
        self.said.clear();
        self.tell(Event::Answered { leg, answer });
        self.said.iter().find_map(|action| match action {
            Action::Notify(Notice::Rerouted { reroute, .. }) => Some(reroute.cause),
            _ => None,
        })
    }

    fn excludes(&self, n: u8) -> bool {
        let key = self.flows.flows.keys().next().expect("a flow");
        self.flows.chain(key, NOW).expect("a chain").1.contains(&node(n))
    }
}

#[test]
fn a_handshake_has_its_time_before_another_route_is_asked_for() {
    let mut origin = unlinked();
    for time in [100 * MS, 500 * MS, 999 * MS] {
        origin.pass(NOW + time, &[]);
        assert!(!origin.wants_route(), "after {time:?}");
    }
    origin.link(1, FIRST, true);
    assert_eq!((origin.opened().0.link(), origin.is_answered()), (LinkId(1), None), "as planned");

    let mut origin = unlinked();
    origin.pass(NOW + 1000 * MS, &[]);
    assert!(origin.wants_route());
    let mut origin = unlinked();
    origin.tell(no_answer(FIRST));
    assert!(origin.wants_route(), "one of the two is known to be bad");
}

#[test]
fn whose_link_is_up_first_is_chosen_and_the_other_has_not_failed() {
    let mut origin = unlinked();
    origin.link(2, BACKUP, true);
    origin.pass(NOW + 250 * MS, &[]);
    assert_eq!((origin.opened().0.link(), origin.is_answered()), (LinkId(2), Some(Cause::Chosen)));
    assert!(!origin.excludes(FIRST));
    let wants_backup = |event: &FlowsEvent| matches!(event, FlowsEvent::WantsBackup { .. });
    assert!(!origin.flows.take_events().iter().any(wants_backup), "the other stands by");
    origin.tell(no_answer(FIRST));
    assert!(origin.flows.take_events().iter().any(wants_backup) && origin.excludes(FIRST), "now it has");

    let mut origin = unlinked();
    origin.tell(no_answer(FIRST));
    origin.link(2, BACKUP, true);
    origin.pass(NOW + 250 * MS, &[]);
    assert_eq!(origin.is_answered(), Some(Cause::Unreachable));
    assert!(origin.excludes(FIRST));
}
