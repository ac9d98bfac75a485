//! How flows end: when everything was taken, when an end gives one up, and when one of the ends is gone.

use super::*;
use crate::cause::CauseKey;
use crate::frame::{Progress, Waypoint, Why};
use crate::splice::{Direction, Position};

const SECOND_LONG: Duration = Duration::from_secs(1);
const SHARED: Key = Key::from_bytes([5; 32]);

/// Which of the ends has ended its direction: in every state of half-close.
const HALF_CLOSES: [(bool, bool); 4] = [(false, false), (true, false), (false, true), (true, true)];

impl Node {
    /// The last ack that it told.
    fn acked(&self) -> Option<u64> {
        let acks = |control: Control| if let Control::Acks(acks) = control { acks } else { Vec::new() };
        self.controls().into_iter().flat_map(acks).map(|(_, offset)| offset).next_back()
    }

    fn ended(&self) -> Option<(CloseCode, Option<String>)> {
        self.said.iter().find_map(|action| match action {
            Action::Notify(Notice::Ended { code, cause, .. }) => Some((*code, cause.clone())),
            _ => None,
        })
    }

    /// Why it told a neighbour that the flow was given up.
    fn gave_up(&self) -> Option<Why> {
        self.controls().into_iter().find_map(|control| match control {
            Control::Close { code: CloseCode::Aborted, why, .. } => Some(why),
            _ => None,
        })
    }

    fn orphaned(&self) -> Vec<bool> {
        let told =
            |control| if let Control::Orphaned { orphaned, .. } = control { Some(orphaned) } else { None };
        self.controls().into_iter().filter_map(told).collect()
    }

    /// The application at this end ends its direction, and takes the end of the other as it comes over `leg`.
    fn close_halves(&mut self, leg: LegId, ours: bool, theirs: bool) {
        let key = self.key();
        if ours {
            self.flows.finish(key, NOW, &mut self.said);
        }
        if theirs {
            let fin = Control::Fin { leg: leg.number(), offset: 0 };
            self.tell(Event::Control { link: leg.link(), control: fin });
            self.flows.took(key, 0, NOW, &mut self.said);
        }
        if ours && theirs {
            self.flows.taken(key, NOW, &mut self.said);
        }
    }
}

/// An origin whose flow the first relay carries, and the leg to it.
fn origin() -> (Node, LegId) {
    let mut origin = Node::origin(ORIGIN, route(ORIGIN, Time::MAX));
    let (leg, _) = origin.opened();
    origin.tell(Event::Answered { leg, answer: OK });
    origin.flows.share_key(origin.key(), &SHARED, NOW, &mut origin.said);
    (origin, leg)
}

/// A target that the second relay is attached to for the flow, that attach, and the leg.
fn target() -> (Node, Attach, LegId) {
    let (_, attach) = Node::origin(ORIGIN, route(ORIGIN, Time::MAX)).opened();
    let mut first = relay(FIRST);
    first.attach(1, &attach);
    first.link(2, SECOND, true);
    let mut second = relay(SECOND);
    second.link(2, TARGET, false);
    second.attach(1, &first.opened().1);
    let (_, attach) = second.opened();
    let mut target = Node::new(TARGET);
    target.link(1, SECOND, true);
    target.attach(1, &attach);
    assert!(target.has_answered());
    target.flows.share_key(target.key(), &SHARED, NOW, &mut target.said);
    let leg = LegId::new(LinkId(1), attach.leg);
    (target, attach, leg)
}

fn after(seconds: u64) -> Time {
    NOW + SECOND_LONG * u32::try_from(seconds).unwrap()
}

#[test]
fn the_end_is_acked_when_the_application_says_that_it_took_everything() {
    let (mut target, _, leg) = target();
    let key = target.key();
    target.flows.receive(leg, [Bytes::from_static(b"abc")], NOW, &mut target.said);
    target.tell(Event::Control { link: leg.link(), control: Control::Fin { leg: leg.number(), offset: 3 } });
    target.flows.took(key, 3, NOW, &mut target.said);
    target.flows.took(key, 0, NOW, &mut target.said);
    target.flows.handle_timeout(NOW + SECOND_LONG, &mut target.said);
    assert_eq!(target.acked(), Some(3), "the bytes, and not the end");
    target.flows.taken(key, NOW + SECOND_LONG, &mut target.said);
    assert_eq!(target.acked(), Some(4));
    // The same at the origin, where the application speaks before the end is known.
    let (mut origin, leg) = origin();
    let key = origin.key();
    origin.flows.taken(key, NOW, &mut origin.said);
    origin.flows.receive(leg, [Bytes::from_static(b"ab")], NOW, &mut origin.said);
    origin.flows.took(key, 2, NOW, &mut origin.said);
    origin.tell(Event::Control { link: leg.link(), control: Control::Fin { leg: leg.number(), offset: 2 } });
    assert_eq!(origin.acked(), Some(3));
}

#[test]
fn an_origin_whose_target_is_gone_gives_up_in_every_state_of_half_close_though_relays_answer() {
    for (ours, theirs) in HALF_CLOSES {
        let (mut origin, leg) = origin();
        let key = origin.key();
        origin.close_halves(leg, ours, theirs);
        let mut now = NOW;
        let mut open = vec![leg];
        while origin.ended().is_none() {
            assert!(now < after(30), "ours ended: {ours}, theirs: {theirs}");
            for leg in open.drain(..) {
                origin.at(now, Event::Answered { leg, answer: OK });
                origin.at(now, Event::LegClosed { leg, code: CloseCode::NoPath });
            }
            origin.flows.take_events();
            origin.flows.route_not_found(key, now);
            now = now + Duration::from_millis(50);
            origin.flows.handle_timeout(now, &mut origin.said);
            open.extend(origin.said.iter().filter_map(|action| match action {
                Action::OpenLeg { leg, .. } => Some(*leg),
                _ => None,
            }));
            origin.said.retain(|action| matches!(action, Action::Notify(_)));
        }
        assert_eq!(origin.ended(), Some((CloseCode::NoPath, None)));
        assert!(now >= after(24), "it was patient until {now:?}");
    }
}

#[test]
fn an_origin_that_is_repaired_goes_on_once_the_target_has_answered() {
    for (ours, theirs) in HALF_CLOSES {
        let (mut origin, leg) = origin();
        origin.close_halves(leg, ours, theirs);
        origin.said.clear();
        origin.tell(Event::LegClosed { leg, code: CloseCode::NoPath });
        let (leg, _) = origin.opened();
        origin.tell(Event::Answered { leg, answer: OK });
        let mut probes = 0;
        for tenth in 1..600 {
            let now = NOW + Duration::from_millis(100) * tenth;
            origin.said.clear();
            [1, 2].into_iter().for_each(|link| origin.flows.links_mut().heard(LinkId(link), now));
            origin.flows.handle_timeout(now, &mut origin.said);
            for control in origin.controls() {
                let Control::Probe { leg: of, number } = control else { continue };
                probes += 1;
                let target = Waypoint::default();
                let progress = Progress { probe: number, reader_blocked: true, target, relays: Vec::new() };
                let control = Control::Progress { leg: of, progress };
                origin.at(now, Event::Control { link: leg.link(), control });
            }
            assert_eq!(origin.ended(), None, "at {now:?}, ours ended: {ours}, theirs: {theirs}");
        }
        // An end that was not taken yet is asked after for as long as that is so.
        assert!(if ours { probes < 30 } else { probes == 1 }, "{probes} probes");
    }
}

#[test]
fn a_relay_that_lost_the_way_to_the_origin_says_so_down_the_flow_and_takes_it_back() {
    let (mut relay, key, _, next) = carrying(1 << 20);
    relay.said.clear();
    relay.tell(Event::LinkDown { link: LinkId(1) });
    assert_eq!(relay.orphaned(), [true]);
    // Whoever takes the place of the one after it has to hear it, too.
    relay.said.clear();
    relay.tell(Event::LegEnded { leg: next });
    relay.flows.handle_timeout(NOW + SECOND_LONG, &mut relay.said);
    let (again, attach) = relay.opened();
    assert!(attach.orphaned);
    relay.tell(Event::Answered { leg: again, answer: OK });
    assert!(relay.orphaned().is_empty(), "it knows");
    // It hears the same from the one before: nothing new.
    let route = route(ORIGIN, Time::MAX);
    let tag = Tag::start(&route.secret.candidate_key(1, &node(FIRST)), FLOW, 1, 2);
    let (_, attach) = Node::origin(ORIGIN, route).opened();
    let attach = Attach { epoch: Epoch::ORIGIN.child(2), tag, leg: attach.leg + 2, ..attach };
    relay.link(3, ORIGIN, false);
    relay.attach(3, &attach);
    assert!(relay.has_answered());
    assert_eq!(relay.orphaned(), [false]);
    relay.said.clear();
    for (orphaned, told) in [(true, &[true][..]), (true, &[]), (false, &[false])] {
        relay.said.clear();
        let control = Control::Orphaned { leg: attach.leg, orphaned };
        relay.tell(Event::Control { link: LinkId(3), control });
        assert_eq!(relay.orphaned(), told);
    }
    assert!(relay.flows.splice(&key).is_some());
}

#[test]
fn a_target_whose_origin_is_gone_ends_in_every_state_of_half_close_and_not_if_it_is_back() {
    for ((ours, theirs), is_back) in HALF_CLOSES.into_iter().flat_map(|state| [(state, false), (state, true)])
    {
        let (mut target, attach, leg) = target();
        let key = target.key();
        if ours {
            target.flows.finish(key, NOW, &mut target.said);
        }
        if theirs {
            target.close_halves(leg, false, true);
            target.flows.taken(key, NOW, &mut target.said);
        }
        let orphaned = |orphaned| Event::Control {
            link: leg.link(),
            control: Control::Orphaned { leg: leg.number(), orphaned },
        };
        target.tell(orphaned(true));
        target.flows.handle_timeout(after(24), &mut target.said);
        assert_eq!(target.ended(), None);
        if is_back {
            target.at(after(24), orphaned(false));
        }
        target.said.clear();
        target.flows.handle_timeout(after(25), &mut target.said);
        assert_eq!(target.ended(), (!is_back).then_some((CloseCode::Lost, None)), "{ours}, {theirs}");
        if !is_back {
            // Whoever comes too late is told why.
            let origin = CauseKey::new(&SHARED, FLOW, Position::Origin);
            target.attach(1, &Attach { leg: attach.leg + 2, ..attach });
            let cause = target.gave_up().and_then(|why| origin.open(&why.cause?));
            assert!(cause.is_some_and(|cause| cause.contains("25 s")));
        }
    }
}

#[test]
fn a_target_waits_no_longer_for_an_origin_because_the_flow_was_repaired_beyond_where_that_was_lost() {
    for is_orphan in [true, false] {
        let (mut target, attach, leg) = target();
        let control = Control::Orphaned { leg: leg.number(), orphaned: true };
        target.tell(Event::Control { link: leg.link(), control });
        let key = route(ORIGIN, Time::MAX).secret.candidate_key(3, &node(TARGET));
        let epoch = Epoch::ORIGIN.child(1).child(1).child(2);
        let tag = Tag::expected(&key, FLOW, 3, &epoch).unwrap();
        let again = Attach { leg: attach.leg + 2, orphaned: is_orphan, epoch, tag, ..attach };
        target.at(after(20), Event::Attach { link: leg.link(), attach: Box::new(again) });
        assert!(target.has_answered());
        target.flows.handle_timeout(after(25), &mut target.said);
        assert_eq!(target.ended(), is_orphan.then_some((CloseCode::Lost, None)));
    }
}

#[test]
fn why_an_end_gives_up_goes_through_relays_and_is_believed_at_once() {
    for from_origin in [true, false] {
        let (mut origin, there) = origin();
        let (mut target, _, back) = target();
        let (mut relay, _, prev, next) = carrying(1 << 20);
        relay.said.clear();
        let (giver, from, to) =
            if from_origin { (&mut origin, prev, next) } else { (&mut target, next, prev) };
        giver.said.clear();
        giver.flows.abort(giver.key(), "the disk is full", NOW, &mut giver.said);
        let why = giver.gave_up().expect("it says why");
        let close = |leg: LegId, why: &Why| Event::Control {
            link: leg.link(),
            control: Control::Close { leg: leg.number(), code: CloseCode::Aborted, why: why.clone() },
        };
        // The reset of the leg's stream may come first, and must not hide why.
        relay.tell(Event::LegClosed { leg: from, code: CloseCode::Aborted });
        relay.tell(close(from, &why));
        assert!(relay.flows.is_empty());
        assert_eq!(relay.gave_up(), Some(why.clone()));
        let closed =
            |a: &Action| matches!(a, Action::CloseLeg { leg, code: CloseCode::Aborted } if *leg == to);
        assert!(relay.said.iter().any(closed));
        let (hearer, leg) = if from_origin { (&mut target, back) } else { (&mut origin, there) };
        hearer.said.clear();
        hearer.tell(close(leg, &why));
        assert_eq!(hearer.ended(), Some((CloseCode::Aborted, Some("the disk is full".to_owned()))));
    }
}

#[test]
fn a_cause_that_comes_before_the_key_is_believed_once_the_key_is_there() {
    let mut origin = Node::origin(ORIGIN, route(ORIGIN, Time::MAX));
    let (leg, _) = origin.opened();
    origin.tell(Event::Answered { leg, answer: OK });
    let cause = Some(CauseKey::new(&SHARED, FLOW, Position::Target).seal("busy"));
    let why = Why { winner: None, cause };
    let control = Control::Close { leg: leg.number(), code: CloseCode::Aborted, why };
    origin.tell(Event::Control { link: leg.link(), control });
    assert_eq!(origin.ended(), None, "anybody may have said that");
    origin.flows.share_key(origin.key(), &SHARED, NOW, &mut origin.said);
    assert_eq!(origin.ended(), Some((CloseCode::Aborted, Some("busy".to_owned()))));
}

#[test]
fn a_relay_can_not_give_a_flow_up_in_the_name_of_an_end() {
    let forged = [None, Some(Key::from_bytes([1; 32]).seal_once(b"", &[0; 256]))];
    for cause in forged {
        let (mut origin, there) = origin();
        let (mut target, attach, back) = target();
        for (node, leg) in [(&mut origin, there), (&mut target, back)] {
            let why = Why { winner: None, cause: cause.clone() };
            let control = Control::Close { leg: leg.number(), code: CloseCode::Aborted, why };
            node.tell(Event::Control { link: leg.link(), control });
            assert_eq!((node.ended(), node.flows.len()), (None, 1), "it is a lost leg");
        }
        assert_ne!(origin.opened().0, there, "the origin looks for another way");
        // And the target takes whoever comes over one.
        target.flows.handle_timeout(after(20), &mut target.said);
        assert_eq!(target.ended(), None);
        assert!(attach.is_bounded());
    }
}

#[test]
fn what_an_endpoint_that_leaves_has_not_finished_is_given_up() {
    let (mut origin, leg) = origin();
    let key = origin.key();
    origin.close_halves(leg, true, true);
    origin.flows.abort_all("it ended", false, NOW, &mut origin.said);
    assert_eq!(origin.ended(), None, "its application has said all, and only the target has not yet");
    origin.flows.abort_all("it ended", true, NOW, &mut origin.said);
    assert_eq!(origin.ended().map(|(code, _)| code), Some(CloseCode::Aborted));
    let (mut open, _) = self::origin();
    open.flows.abort_all("it ended", false, NOW, &mut open.said);
    let target = CauseKey::new(&SHARED, FLOW, Position::Target);
    let cause = open.gave_up().and_then(|why| target.open(&why.cause?));
    assert_eq!(cause.as_deref(), Some("it ended"));
    assert!(origin.flows.splice(&key).is_none_or(|splice| splice.lane(Direction::Forward).held() == 0));
}
