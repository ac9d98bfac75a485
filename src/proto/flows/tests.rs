//! What an attach has to prove, tried on real machines' flows: an origin, two relays that may serve hop 1, one for hop 2.

mod attach;
mod dial;
mod drain;
mod ends;
mod gray;
mod opening;
mod records;
mod repair;
mod routes;
mod violations;

use super::flow::allowances::ATTACHES;
use super::flow::dials::DIALS;
use super::flow::next::Next;
use super::*;
use crate::crypto::Key;
use crate::epoch::Epoch;
use crate::frame::{Attach, AttachOk, Cause, CloseCode, Control, Why};
use crate::id::{BootId, ChainId, FlowId, NodeId};
use crate::links::Standing;
use crate::machine::{Action, DisconnectReason, Event, Forbidden, LinkId, Notice, Violation};
use crate::record::{Candidate, ChainSecret, Record, Route, Scope, Tag, pseudonym, relay_key};
use crate::splice::LegId;
use crate::time::Time;
use bytes::Bytes;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::time::Duration;

const NOW: Time = Time::from_micros(1_000_000_000);
const FLOW: FlowId = FlowId::from_bytes([7; 16]);
const ORIGIN: u8 = 1;
const OTHER_ORIGIN: u8 = 2;
const FIRST: u8 = 11;
const BACKUP: u8 = 12;
const SECOND: u8 = 21;
const THIRD: u8 = 22;
const TARGET: u8 = 31;

const MS: Duration = Duration::from_millis(1);
const OK: AttachOk = AttachOk { backward_start: 0, backward_fin: None, forward_ack: 0 };

fn node(n: u8) -> NodeId {
    NodeId::from_bytes([n; 32])
}

fn network() -> Key {
    Key::from_bytes([9; 32])
}

/// A route over (first or backup) and second to the target.
fn route(origin: u8, expires: Time) -> Route {
    route_over([&[FIRST, BACKUP], &[SECOND], &[TARGET]], origin, expires)
}

fn route_over(hops: [&[u8]; 3], origin: u8, expires: Time) -> Route {
    let records = (1u8..).zip(hops).map(|(hop, nodes)| issue(origin, (hop, 1), nodes, expires));
    Route { target: node(TARGET), records: records.collect(), secret: secret(origin) }
}

fn secret(origin: u8) -> ChainSecret {
    let (chain, origin) = (ChainId::from_bytes([origin; 16]), pseudonym(&network(), &node(origin)));
    ChainSecret::derive(&network(), chain, origin)
}

/// A record of that hop and version that names `nodes`.
fn issue(origin: u8, (hop, version): (u8, u32), nodes: &[u8], expires: Time) -> Record {
    let chain = ChainId::from_bytes([origin; 16]);
    let origin = pseudonym(&network(), &node(origin));
    sign(Scope { chain, origin, hop, version, key_epoch: 0, expires }, nodes)
}

fn sign(scope: Scope, nodes: &[u8]) -> Record {
    let keyed: Vec<(Candidate, Key)> = nodes
        .iter()
        .map(|n| {
            let address = (*n != TARGET).then(|| ([127, 0, 0, 1], u16::from(*n)).into());
            let addresses = address.into_iter().collect();
            let candidate = Candidate { node: node(*n), name: format!("r{n}"), addresses };
            (candidate, relay_key(&network(), &node(*n), 0))
        })
        .collect();
    let secret = ChainSecret::derive(&network(), scope.chain, scope.origin);
    secret.issue(scope, &keyed, scope.hop == 3, &mut StdRng::seed_from_u64(scope.hop.into()))
}

/// What the origin sends to the first relay over `leg`: records of that version for hops, with who serves each.
fn update(leg: LegId, hops: &[(u8, &[u8])], version: u32) -> Control {
    let tags = |(hop, nodes): &(u8, &[u8])| {
        let start = |n: &u8| Tag::start(&secret(ORIGIN).candidate_key(*hop, &node(*n)), FLOW, *hop, 1);
        nodes.iter().map(start).collect()
    };
    let record = |(hop, nodes): &(u8, &[u8])| issue(ORIGIN, (*hop, version), nodes, Time::MAX);
    Control::Update {
        leg: leg.number(),
        records: hops.iter().map(record).collect(),
        tags: hops.iter().map(tags).collect(),
    }
}

/// One node's flows, and what they said.
struct Node {
    flows: Flows,
    said: Vec<Action>,
    /// Up to when time has passed.
    now: Time,
}

impl Node {
    fn new(n: u8) -> Self {
        let mut flows = Flows::new(node(n), n < FIRST || n == TARGET, FlowsConfig::default());
        flows.ring_mut().extend([(0, relay_key(&network(), &node(n), 0))]);
        Self { flows, said: Vec::new(), now: NOW }
    }

    /// An origin with a flow over `route` and a link to each relay of the first hop.
    fn origin(n: u8, route: Route) -> Self {
        let mut origin = Self::new(n);
        origin.flows.open(FLOW, route, NOW, &mut origin.said).expect("a usable route");
        origin.link(1, FIRST, true);
        origin.link(2, BACKUP, true);
        origin
    }

    fn tell(&mut self, event: Event) {
        self.at(NOW, event);
    }

    fn at(&mut self, now: Time, event: Event) {
        self.flows.handle(event, now, &mut self.said);
    }

    /// What `link`'s peer says.
    fn control(&mut self, link: u32, control: Control) {
        self.said.clear();
        self.tell(Event::Control { link: LinkId(link), control });
    }

    fn answer(&mut self, leg: LegId) {
        self.tell(Event::Answered { leg, answer: OK });
    }

    /// Lets time pass until then, while these links are heard all the time.
    fn pass(&mut self, until: Time, heard: &[u32]) {
        while self.now < until {
            self.now = (self.now + Duration::from_millis(1)).min(until);
            for link in heard {
                self.flows.links_mut().heard(LinkId(*link), self.now);
            }
            self.flows.handle_timeout(self.now, &mut self.said);
        }
    }

    /// Lets time pass until the peer of `link`, of which nothing is heard, is suspect; those of the other links are heard.
    fn suspects(&mut self, link: u32, heard: &[u32]) {
        let peer = self.flows.links().peer(LinkId(link)).expect("a link");
        let now = self.now;
        self.at(now, Event::LinkRefused { link: LinkId(link) });
        while self.flows.links().standing(peer) < Standing::Suspect {
            assert!(self.now < now + Duration::from_secs(1), "it is still trusted");
            self.pass(self.now + Duration::from_millis(1), heard);
        }
    }

    /// The one flow there is.
    fn key(&self) -> FlowKey {
        *self.flows.flows.keys().next().expect("a flow")
    }

    fn next(&self) -> Next {
        self.flows.flows[&self.key()].next
    }

    fn controls(&self) -> Vec<Control> {
        let control = |action: &Action| match action {
            Action::Control { control, .. } => Some(control.clone()),
            _ => None,
        };
        self.said.iter().filter_map(control).collect()
    }

    /// With which code it closed `leg`.
    fn closed(&self, leg: LegId) -> Option<CloseCode> {
        self.said.iter().find_map(|action| match action {
            Action::CloseLeg { leg: of, code } if *of == leg => Some(*code),
            _ => None,
        })
    }

    /// What it told of the last repair: of which hop, why, and who is the next now.
    fn rerouted(&self) -> Option<(u8, Cause, Option<NodeId>)> {
        self.said.iter().rev().find_map(|action| match action {
            Action::Notify(Notice::Rerouted { reroute, to, .. }) => {
                Some((reroute.hop, reroute.cause, to.as_ref().map(|to| to.node)))
            }
            _ => None,
        })
    }

    fn wants_route(&mut self) -> bool {
        self.flows.take_events().iter().any(|event| matches!(event, FlowsEvent::WantsRoute(_)))
    }

    /// The backups that it wants of its owner: for which hop, and who serves it.
    fn wants_backups(&mut self) -> Vec<(u8, Option<NodeId>)> {
        let wanted = |event| match event {
            FlowsEvent::WantsBackup { hop, active, .. } => Some((hop, active)),
            _ => None,
        };
        self.flows.take_events().into_iter().filter_map(wanted).collect()
    }

    fn link(&mut self, link: u32, peer: u8, dialed: bool) {
        let boot = BootId::from_bytes([peer; 16]);
        let rtt = Duration::from_millis(1);
        self.tell(Event::LinkUp { link: LinkId(link), peer: node(peer), boot, dialed, rtt });
    }

    fn attach(&mut self, link: u32, attach: &Attach) {
        self.said.clear();
        self.tell(Event::Attach { link: LinkId(link), attach: Box::new(attach.clone()) });
    }

    /// The last leg that it opened.
    fn opened(&self) -> (LegId, Attach) {
        let open = |action: &Action| match action {
            Action::OpenLeg { leg, attach, .. } => Some((*leg, (**attach).clone())),
            _ => None,
        };
        self.said.iter().rev().find_map(open).expect("a leg was opened")
    }

    fn has_answered(&self) -> bool {
        self.said.iter().any(|action| matches!(action, Action::AnswerLeg { .. }))
    }

    fn closed_with(&self) -> Option<CloseCode> {
        self.said.iter().find_map(|a| if let Action::CloseLeg { code, .. } = a { Some(*code) } else { None })
    }

    fn forbidden(&self) -> Option<Forbidden> {
        self.said.iter().find_map(|action| match action {
            Action::Notify(Notice::Violation { what: Violation::Forbidden(what), .. }) => Some(*what),
            _ => None,
        })
    }

    fn assert_forbids(&mut self, attach: &Attach, lacking: Forbidden) {
        self.attach(1, attach);
        assert_eq!((self.closed_with(), self.forbidden()), (Some(CloseCode::Forbidden), Some(lacking)));
        assert!(!self.has_answered() && self.flows.is_empty());
    }
}

/// An origin with a flow and no links yet.
fn unlinked() -> Node {
    let mut origin = Node::new(ORIGIN);
    let opened = origin.flows.open(FLOW, route(ORIGIN, Time::MAX), NOW, &mut origin.said);
    opened.expect("a usable route");
    origin
}

/// An origin whose flow the first relay carries, with a link to the backup, and the leg.
fn attached_origin() -> (Node, LegId) {
    let mut origin = Node::origin(ORIGIN, route(ORIGIN, Time::MAX));
    let (leg, _) = origin.opened();
    origin.answer(leg);
    (origin, leg)
}

/// A relay that its prev has dialled a link to.
fn relay(n: u8) -> Node {
    let mut relay = Node::new(n);
    relay.link(1, ORIGIN, false);
    relay
}

#[test]
fn an_attach_from_the_origin_is_accepted_and_passed_on() {
    let (_, attach) = Node::origin(ORIGIN, route(ORIGIN, Time::MAX)).opened();
    let mut first = relay(FIRST);
    first.attach(1, &attach);
    assert!(first.has_answered());
    first.link(2, SECOND, true);
    let (_, next) = first.opened();
    assert_eq!(next.epoch.counters(), [1, 1]);
    let mut second = relay(SECOND);
    second.attach(1, &next);
    assert!(second.has_answered(), "the folded tag proves the path");
}

#[test]
fn a_copied_attach_is_stale() {
    let (_, attach) = Node::origin(ORIGIN, route(ORIGIN, Time::MAX)).opened();
    let mut first = relay(FIRST);
    first.attach(1, &attach);
    first.link(2, OTHER_ORIGIN, false);
    first.attach(2, &attach);
    assert_eq!((first.closed_with(), first.has_answered()), (Some(CloseCode::Stale), false));
}

#[test]
fn a_copied_route_proves_nothing_without_its_tag() {
    let (_, attach) = Node::origin(ORIGIN, route(ORIGIN, Time::MAX)).opened();
    let raised = Attach { epoch: Epoch::ORIGIN.child(2), ..attach.clone() };
    relay(FIRST).assert_forbids(&raised, Forbidden::WrongTag);
    let guess = Tag::start(&Key::from_bytes([1; 32]), FLOW, 1, 1);
    relay(FIRST).assert_forbids(&Attach { tag: guess, ..attach.clone() }, Forbidden::WrongTag);
    let other_flow = Attach { flow: FlowId::from_bytes([8; 16]), ..attach.clone() };
    relay(FIRST).assert_forbids(&other_flow, Forbidden::WrongTag);
    // The backup's entry stands in the same record, but its tag is another.
    relay(BACKUP).assert_forbids(&attach, Forbidden::WrongTag);
    relay(SECOND).assert_forbids(&attach, Forbidden::NoEntry);
}

#[test]
fn an_altered_or_expired_record_and_another_role_are_refused() {
    let (_, attach) = Node::origin(ORIGIN, route(ORIGIN, Time::MAX)).opened();
    let mut altered = attach.clone();
    altered.records[0].scope.version += 1;
    relay(FIRST).assert_forbids(&altered, Forbidden::NoEntry);
    let (_, expired) = Node::origin(ORIGIN, route(ORIGIN, Time::from_micros(1))).opened();
    relay(FIRST).assert_forbids(&expired, Forbidden::Expired);
    let mut no_relay = relay(FIRST);
    no_relay.flows.is_target = true;
    no_relay.assert_forbids(&attach, Forbidden::WrongRole);
}

#[test]
fn another_origins_flow_of_the_same_name_is_another_flow() {
    let (_, mine) = Node::origin(ORIGIN, route(ORIGIN, Time::MAX)).opened();
    let (_, theirs) = Node::origin(OTHER_ORIGIN, route(OTHER_ORIGIN, Time::MAX)).opened();
    let mut first = relay(FIRST);
    first.attach(1, &mine);
    first.link(2, OTHER_ORIGIN, false);
    first.attach(2, &theirs);
    assert!(first.has_answered() && first.closed_with().is_none());
    assert_eq!(first.flows.len(), 2);
    // Records and tags of the one with the other's identity prove nothing.
    let mixed = Attach { records: mine.records.clone(), ..theirs };
    relay(FIRST).assert_forbids(&mixed, Forbidden::WrongTag);
}

#[test]
fn a_former_hop_cannot_outrank_its_own_prefix() {
    let mut origin = Node::origin(ORIGIN, route(ORIGIN, Time::MAX));
    let (leg, to_first) = origin.opened();
    let (mut first, mut backup, mut second) = (relay(FIRST), relay(BACKUP), relay(SECOND));
    second.link(9, TARGET, false);
    first.attach(1, &to_first);
    first.link(2, SECOND, true);
    second.attach(1, &first.opened().1);
    // The origin moves on to the backup, which attaches to the same second hop.
    origin.tell(Event::LegEnded { leg });
    let (_, to_backup) = origin.opened();
    backup.attach(1, &to_backup);
    backup.link(2, SECOND, true);
    second.link(2, BACKUP, false);
    second.attach(2, &backup.opened().1);
    assert!(second.has_answered());
    // The former first hop raises its own counter: its tag is right, its prefix is not.
    let old = first.opened().0;
    first.tell(Event::LegEnded { leg: old });
    first.flows.handle_timeout(NOW + Duration::from_millis(500), &mut first.said);
    let (_, again) = first.opened();
    assert_eq!(again.epoch.counters(), [1, 2]);
    second.attach(1, &again);
    assert_eq!((second.closed_with(), second.has_answered()), (Some(CloseCode::Stale), false));
    let winner = Epoch::ORIGIN.child(2).child(1);
    let explained = |action: &Action| matches!(action, Action::Control { control: Control::Close { why, .. }, .. } if why.winner.as_ref() == Some(&winner));
    assert!(second.said.iter().any(explained), "it is told who won");
    // With the backup's epoch, which it may have overheard, its tag is wrong.
    let forged = Attach { epoch: Epoch::ORIGIN.child(2).child(2), ..again };
    second.attach(1, &Attach { leg: forged.leg + 2, ..forged });
    assert_eq!(second.forbidden(), Some(Forbidden::WrongTag));
}

#[test]
fn what_is_out_of_bounds_costs_the_link() {
    let (_, attach) = Node::origin(ORIGIN, route(ORIGIN, Time::MAX)).opened();
    let wrong_parity = Attach { leg: attach.leg + 1, ..attach.clone() };
    let no_records = Attach { records: Vec::new(), ..attach.clone() };
    let tags_missing = Attach { tags: Vec::new(), ..attach.clone() };
    let too_far = Attach { forward_start: 1 << 63, ..attach };
    for bad in [wrong_parity, no_records, tags_missing, too_far] {
        let mut first = relay(FIRST);
        first.attach(1, &bad);
        assert_eq!(first.closed_with(), Some(CloseCode::Malformed));
        let malformed = DisconnectReason::Malformed;
        let cut = |a: &Action| matches!(a, Action::Disconnect { reason, .. } if *reason == malformed);
        assert!(first.said.iter().any(cut));
    }
}

/// A relay that carries a flow, both legs answered; they are its key, and the legs from prev and to next.
fn carrying(replay_bytes: u64) -> (Node, FlowKey, LegId, LegId) {
    let (_, attach) = Node::origin(ORIGIN, route(ORIGIN, Time::MAX)).opened();
    let mut first = Node::new(FIRST);
    let config = FlowsConfig { replay_bytes, ..FlowsConfig::default() };
    first.flows = Flows::new(node(FIRST), false, config);
    first.flows.ring_mut().extend([(0, relay_key(&network(), &node(FIRST), 0))]);
    first.link(1, ORIGIN, false);
    first.link(2, SECOND, true);
    first.attach(1, &attach);
    let (next, _) = first.opened();
    let answer = AttachOk { backward_start: 0, backward_fin: None, forward_ack: 0 };
    first.tell(Event::Answered { leg: next, answer });
    let key = *first.flows.flows.keys().next().expect("a flow");
    (first, key, LegId::new(LinkId(1), attach.leg), next)
}

#[test]
fn a_flow_on_a_silent_link_goes_on_over_another_one_to_the_same_peer() {
    let (_, attach) = Node::origin(ORIGIN, route(ORIGIN, Time::MAX)).opened();
    let mut first = relay(FIRST);
    first.link(2, SECOND, false);
    first.attach(1, &attach);
    let (next, _) = first.opened();
    let answer = AttachOk { backward_start: 0, backward_fin: None, forward_ack: 0 };
    first.tell(Event::Answered { leg: next, answer });
    // Both dialled each other: what the smaller of them dialled is the active link, and the other keeps its legs.
    first.link(3, SECOND, true);
    assert_eq!((next.link(), first.flows.links.active(node(SECOND))), (LinkId(2), Some(LinkId(3))));
    first.said.clear();
    first.tell(Event::LinkRefused { link: LinkId(2) });
    first.flows.handle_timeout(NOW + Duration::from_millis(10), &mut first.said);
    first.flows.handle_timeout(NOW + Duration::from_millis(20), &mut first.said);
    assert_eq!(first.opened().0.link(), LinkId(3));
}

#[test]
fn a_wish_for_a_backup_is_repeated_to_a_new_prev() {
    let hops: [&[u8]; 3] = [&[FIRST], &[SECOND, THIRD], &[TARGET]];
    let mut origin = Node::new(ORIGIN);
    origin
        .flows
        .open(FLOW, route_over(hops, ORIGIN, Time::MAX), NOW, &mut origin.said)
        .expect("a usable route");
    origin.link(1, FIRST, true);
    let (leg, attach) = origin.opened();
    let mut first = relay(FIRST);
    first.link(2, SECOND, true);
    first.link(3, THIRD, true);
    first.attach(1, &attach);
    let answer = AttachOk { backward_start: 0, backward_fin: None, forward_ack: 0 };
    first.tell(Event::Answered { leg: first.opened().0, answer });
    let requests = |node: &Node| {
        let is_request = |action: &&Action| {
            matches!(action, Action::Control { control: Control::BackupWanted { .. }, .. })
        };
        node.said.iter().filter(is_request).count()
    };
    assert_eq!(requests(&first), 0, "both candidates are up");
    // The next hop closes its leg, and the other candidate takes over: the origin has to know of one more.
    first.said.clear();
    first.tell(Event::LegEnded { leg: LegId::new(LinkId(2), 0) });
    let (next, _) = first.opened();
    assert_eq!(next.link(), LinkId(3));
    first.tell(Event::Answered { leg: next, answer });
    assert_eq!(requests(&first), 1);
    // That was lost with the origin's leg. It attaches anew, with the records that it knows.
    origin.said.clear();
    origin.tell(Event::LegEnded { leg });
    origin.flows.handle_timeout(NOW + Duration::from_millis(500), &mut origin.said);
    first.attach(1, &origin.opened().1);
    assert!(first.has_answered());
    assert_eq!(requests(&first), 1, "as before");
}

#[test]
fn who_took_over_a_hop_has_not_failed_for_being_no_backup_of_the_next() {
    use crate::frame::BackupRequest;
    for (place, has_failed) in [(0, true), (1, false)] {
        let hops: [&[u8]; 3] = [&[FIRST, BACKUP], &[SECOND, BACKUP], &[TARGET]];
        let mut origin = Node::origin(ORIGIN, route_over(hops, ORIGIN, Time::MAX));
        let answer = AttachOk { backward_start: 0, backward_fin: None, forward_ack: 0 };
        let (leg, _) = origin.opened();
        origin.tell(Event::Answered { leg, answer });
        origin.tell(Event::LegEnded { leg });
        let (leg, _) = origin.opened();
        assert_eq!(leg.link(), LinkId(2));
        origin.tell(Event::Answered { leg, answer });
        // It can't dial itself, and says which of the candidates is of no use.
        let request = BackupRequest { hop: 2, version: 1, active: None, unusable: 1 << place };
        origin.tell(Event::Control {
            link: LinkId(2),
            control: Control::BackupWanted { leg: leg.number(), request },
        });
        let (_, flow) = origin.flows.by_leg(leg).expect("the flow goes on");
        assert_eq!(flow.view.serves(1), Some(node(BACKUP)));
        let named = node(if place == 0 { SECOND } else { BACKUP });
        assert_eq!(flow.view.failed_lately(FAILED_LIFETIME, NOW).any(|failed| failed == named), has_failed);
    }
}

fn kib(count: usize) -> [Bytes; 1] {
    [Bytes::from(vec![0; count << 10])]
}

#[test]
fn a_spent_budget_stops_reading_and_room_wakes_the_reader() {
    let (mut relay, key, prev, next) = carrying(64 << 10);
    assert!(relay.flows.may_receive(prev));
    relay.flows.receive(prev, kib(128), NOW, &mut relay.said);
    assert_eq!(relay.flows.replay_used(), 64 << 10, "the reserve does not count");
    assert!(!relay.flows.may_receive(prev));
    relay.flows.wrote(next, 128 << 10, NOW);
    assert_eq!(relay.flows.take_woken(), None, "what was written may have to be sent again");
    relay.tell(Event::Control { link: LinkId(2), control: Control::Acks(vec![(next.number(), 32 << 10)]) });
    assert_eq!(relay.flows.replay_used(), 32 << 10);
    assert_eq!(relay.flows.take_woken(), Some(key));
    assert!(relay.flows.may_receive(prev));
}

#[test]
fn an_orphan_is_kept_for_a_while_and_gives_its_room_back() {
    let (mut relay, key, prev, _) = carrying(1 << 20);
    relay.flows.receive(prev, kib(200), NOW, &mut relay.said);
    relay.tell(Event::LinkDown { link: LinkId(1) });
    relay.flows.handle_timeout(NOW + Duration::from_secs(29), &mut relay.said);
    assert!(relay.flows.splice(&key).is_some() && relay.flows.replay_used() > 0);
    relay.flows.handle_timeout(NOW + Duration::from_secs(30), &mut relay.said);
    assert!(relay.flows.is_empty());
    assert_eq!(relay.flows.replay_used(), 0);
}

#[test]
fn a_tombstone_answers_for_a_while_and_is_forgotten() {
    let mut target = Node::new(TARGET);
    let key = FlowKey { origin: pseudonym(&network(), &node(ORIGIN)), flow: FLOW, hop: 3 };
    target.flows.entomb(key, CloseCode::Done, None, NOW);
    target.flows.handle_timeout(NOW + Duration::from_secs(89), &mut target.said);
    assert_eq!(target.flows.tombstones.get(&key), Some(&(CloseCode::Done, None)));
    target.flows.handle_timeout(NOW + Duration::from_secs(90), &mut target.said);
    assert!(target.flows.tombstones.is_empty() && target.flows.tombstone_ends.is_empty());
}

#[test]
fn many_flows_attach_in_portions() {
    let mut origin = Node::new(ORIGIN);
    origin.link(1, FIRST, true);
    for n in 0..100 {
        let flow = FlowId::from_bytes([n; 16]);
        origin.flows.open(flow, route(ORIGIN, Time::MAX), NOW, &mut origin.said).expect("a usable route");
    }
    let dialled =
        |origin: &Node| origin.said.iter().filter(|action| matches!(action, Action::OpenLeg { .. })).count();
    assert_eq!(dialled(&origin), 32);
    let (leg, _) = origin.opened();
    let answer = AttachOk { backward_start: 0, backward_fin: None, forward_ack: 0 };
    origin.tell(Event::Answered { leg, answer });
    assert_eq!(dialled(&origin), 33);
    origin.flows.handle_timeout(NOW + Duration::from_millis(5), &mut origin.said);
    assert_eq!(dialled(&origin), 65);
}
