use super::*;
use crate::codec::{self, CodecError};
use crate::crypto::Key;
use proptest::collection::vec;
use proptest::prelude::*;

#[test]
fn close_codes_keep_their_numbers() {
    for (number, code) in CloseCode::ALL.into_iter().enumerate() {
        assert_eq!(code.number() as usize, number);
        assert_eq!(CloseCode::from_number(number as u64), code);
    }
    assert_eq!(CloseCode::from_number(1 << 40), CloseCode::Lost);
    assert_eq!((CloseCode::Moved.number(), CloseCode::Overloaded.number()), (1, 10));
}

#[test]
fn golden_vectors() {
    let hello = Hello { boot: BootId::from_bytes([5; 16]), link: 3 };
    assert_eq!(codec::to_bytes(&hello), [[5; 16].as_slice(), &[3]].concat());
    let acks = Control::Acks(vec![(4, 70_000), (8, 0)]);
    assert_eq!(codec::to_bytes(&acks), [0, 2, 4, 252, 0x70, 0x11, 1, 0, 8, 0]);
    assert_eq!(codec::to_bytes(&Control::Fin { leg: 4, offset: 9 }), [1, 4, 9]);
    let why = Why::won(Epoch::ORIGIN.child(1).child(2));
    let close = Control::Close { leg: 4, code: CloseCode::Replaced, why };
    assert_eq!(codec::to_bytes(&close), [2, 4, 3, 1, 2, 1, 2, 0]);
    let ok = AttachOk { backward_start: 1, backward_fin: Some(2), forward_ack: 3 };
    assert_eq!(codec::to_bytes(&ok), [1, 1, 2, 3]);
    let orphaned = Control::Orphaned { leg: 4, orphaned: true };
    assert_eq!(codec::to_bytes(&orphaned), [11, 4, 1]);
    let cause = Some(Key::from_bytes([3; 32]).seal_once(b"", b""));
    let close = Control::Close { leg: 4, code: CloseCode::Aborted, why: Why { winner: None, cause } };
    assert_eq!(codec::to_bytes(&close)[..5], [2, 4, 6, 0, 1]);
    let beat = Heartbeat { sequence: 1, heard: 2, heard_ago_us: 3, wanted_us: 10_000, probe: true };
    assert_eq!(Datagram::of_heartbeat(&beat), [0, 1, 2, 3, 251, 0x10, 0x27, 1]);
    assert_eq!(Datagram::from_bytes(&Datagram::of_heartbeat(&beat)), Ok(Datagram::Heartbeat(beat)));
    let watch = Watch { silence_us: 1, deadline_us: 2, interval_us: 3, rtt_us: 4, doubt: 5 };
    let reason = Reason { evidence: Evidence::Refusal, watch: Some(watch) };
    let mut reroute = Reroute {
        hop: 2,
        version: 7,
        from: 0,
        to: 1,
        cause: Cause::Silence,
        gap_us: 9,
        detected_us: 8,
        replayed: 6,
        reason,
    };
    let told = codec::to_bytes(&Control::Rerouted { leg: 4, reroute });
    assert_eq!(told, [5, 4, 2, 7, 0, 1, 0, 9, 8, 6, 2, 1, 1, 2, 3, 4, 5]);
    let way = |quiet_ms| Way { quiet_ms, repair_ms: 6 };
    let passage = |received| Passage { received, written: 4, inward: way(5), outward: way(7) };
    let waypoint = Waypoint { forward: passage(3), backward: passage(8) };
    let progress = Progress { probe: 2, reader_blocked: true, target: waypoint, relays: vec![waypoint] };
    let passages = [3, 4, 5, 6, 7, 6, 8, 4, 5, 6, 7, 6];
    let told = codec::to_bytes(&Control::Progress { leg: 4, progress });
    assert_eq!(told, [&[10, 4, 2, 1][..], &passages, &[1], &passages].concat());
    reroute.reason = Reason::of(Evidence::NoAnswer);
    let told = codec::to_bytes(&Control::Rerouted { leg: 4, reroute });
    assert_eq!(told, [5, 4, 2, 7, 0, 1, 0, 9, 8, 6, 7, 0]);
}

/// A number that no member of any enum has.
const UNKNOWN: u8 = 200;

#[test]
fn what_only_newer_nodes_know_is_read_as_unknown() {
    let read = |bytes: &[u8]| codec::from_growing_bytes::<Control>(bytes);
    let of_later_kind = [12u8, UNKNOWN].map(|kind| [&[kind][..], &[255; 40]].concat());
    for bytes in of_later_kind.iter().chain([&vec![UNKNOWN], &vec![251, 255, 255, 7]]) {
        assert_eq!(read(bytes), Ok(Control::Unknown), "{bytes:?}");
    }
    let close = Control::Close { leg: 4, code: CloseCode::Lost, why: Why::default() };
    assert_eq!(read(&[2, 4, UNKNOWN, 0, 0]), Ok(close), "an unknown code is the plain one");
    let told = [5, 4, 2, 7, 0, 1, UNKNOWN, 9, 8, 6, 9, 0];
    let Ok(Control::Rerouted { leg: 4, reroute }) = read(&told) else { panic!("{:?}", read(&told)) };
    assert_eq!((reroute.cause, reroute.reason.evidence), (Cause::Unknown(200), Evidence::Unknown(9)));
    assert_eq!(
        codec::to_bytes(&Control::Rerouted { leg: 4, reroute }),
        told,
        "relays pass it on as they heard it"
    );
}

#[test]
fn a_datagram_is_of_a_kind() {
    for kind in 1..=255 {
        assert_eq!(Datagram::from_bytes(&[kind, 255, 255]), Ok(Datagram::Unknown));
    }
    assert_eq!(Datagram::from_bytes(&[]), Err(CodecError::Malformed));
    assert_eq!(Datagram::from_bytes(&[0, 1, 2]), Err(CodecError::Malformed), "half a heartbeat");
}

#[test]
fn a_known_kind_that_does_not_decode_is_no_unknown_one() {
    let read = |bytes: &[u8]| codec::from_growing_bytes::<Control>(bytes);
    assert_eq!(read(&[1, 4]), Err(CodecError::Malformed));
    assert_eq!(read(&[1, 4, 9, 9]), Err(CodecError::Trailing { bytes: 1 }));
    assert_eq!(read(&[]), Err(CodecError::Malformed));
    assert_eq!(read(&[255, 0]), Err(CodecError::Malformed), "no number at all");
}

proptest! {
    /// Also what begins as a good frame does, and goes on as nobody expects.
    #[test]
    fn no_bytes_panic(kind in any::<u8>(), bytes in vec(prop_oneof![any::<u8>(), 0u8..16], 0..200)) {
        let bytes = [&[kind % 16][..], &bytes].concat();
        let _ = codec::from_growing_bytes::<Control>(&bytes);
        let _ = codec::from_bytes::<Attach>(&bytes);
        let _ = codec::from_bytes::<AttachOk>(&bytes);
        let _ = codec::from_bytes::<Hello>(&bytes);
        let _ = Datagram::from_bytes(&bytes);
    }
}
