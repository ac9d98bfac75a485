//! Single steps of a splice; the simulator (`splices`) tries them in whole worlds.

use super::*;
use crate::frame::CloseCode;

const PREV: LegId = LegId(0);

/// A relay that was attached with `epoch`, with nothing received yet.
fn relay(epoch: &Epoch) -> Splice {
    let opening = Opening { epoch: epoch.clone(), forward_start: 0, forward_fin: None, backward_ack: 0 };
    let mut splice = Splice::relay(&opening);
    assert!(matches!(splice.attach(PREV, &opening), Attached::Accepted { .. }));
    splice
}

fn answered(splice: &mut Splice, leg: LegId) {
    let answer = AttachOk { backward_start: 0, backward_fin: None, forward_ack: 0 };
    splice.answered(leg, &answer).unwrap();
}

/// Found by the simulator: the answers of a next that reaches nobody counted as success, so this never ended.
#[test]
fn a_next_that_answers_and_finds_no_path_is_a_failed_dial() {
    let mut splice = relay(&Epoch::ORIGIN.child(1));
    for leg in (1..).map(LegId).take(MAX_FAILED_DIALS as usize) {
        assert!(!splice.is_exhausted());
        splice.dial(leg);
        answered(&mut splice, leg);
        assert_eq!(splice.closed(leg, CloseCode::NoPath, None), Ending::Dial);
    }
    assert!(splice.is_exhausted());
}

#[test]
fn a_next_that_was_of_use_makes_up_for_failed_dials() {
    let mut splice = relay(&Epoch::ORIGIN.child(1));
    for leg in (1..).map(LegId).take(3 * MAX_FAILED_DIALS as usize) {
        splice.dial(leg);
        if leg.0 % 2 == 0 {
            answered(&mut splice, leg);
        }
        assert_eq!(splice.closed(leg, CloseCode::Lost, None), Ending::Dial);
        assert!(!splice.is_exhausted());
    }
}

/// Found by the simulator: of two relays with the same epoch each took the other's dials for its own earlier ones, and
/// they outbid each other for ever.
#[test]
fn a_relay_yields_to_a_twin_that_has_dialled_more_often() {
    let mut splice = relay(&Epoch::ORIGIN.child(1));
    let own = |counter| Epoch::ORIGIN.child(1).child(counter);
    for (leg, winner) in [(1, 1), (2, 1)] {
        splice.dial(LegId(leg));
        let ending = splice.closed(LegId(leg), CloseCode::Stale, Some(&own(winner)));
        assert_eq!(ending, Ending::Dial, "{winner} is a dial of its own");
    }
    splice.dial(LegId(3));
    let Ending::Free(freed) = splice.closed(LegId(3), CloseCode::Replaced, Some(&own(4))) else {
        panic!("it has dialled only three times")
    };
    assert_eq!((freed.code, freed.prev), (CloseCode::Replaced, Some(PREV)));
    assert_eq!(freed.winner, Some(own(4)));
}

#[test]
fn the_origin_never_yields() {
    let mut splice = Splice::origin();
    splice.dial(LegId(1));
    let ending = splice.closed(LegId(1), CloseCode::Stale, Some(&Epoch::ORIGIN.child(9)));
    assert_eq!(ending, Ending::Dial);
}

#[test]
fn what_is_sent_again_is_counted_both_ways() {
    let mut splice = relay(&Epoch::ORIGIN.child(1));
    splice.dial(LegId(1));
    answered(&mut splice, LegId(1));
    splice.receive(PREV, Bytes::from_static(b"sixteen, forward")).unwrap();
    splice.receive(LegId(1), Bytes::from_static(b"backward")).unwrap();
    splice.wrote(Direction::Forward, 10);
    splice.ack(LegId(1), 4).unwrap();
    assert_eq!(splice.replayed(), 0);
    assert_eq!(splice.closed(LegId(1), CloseCode::Lost, None), Ending::Dial);
    splice.dial(LegId(2));
    splice.answered(LegId(2), &AttachOk { backward_start: 3, backward_fin: None, forward_ack: 4 }).unwrap();
    assert_eq!(splice.replayed(), (10 - 4) + (8 - 3), "six of those written, five of those received");
}
