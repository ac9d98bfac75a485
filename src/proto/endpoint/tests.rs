use super::target::NO_MORE_PAUSE;
use super::*;
use crate::bootstrap::{self, Bootstrap};
use crate::crypto::Key;
use crate::detector::Pace;
use crate::failure_memory::Failure;
use crate::frame::{AttachOk, Control, Progress, Waypoint};
use crate::id::BootId;
use crate::links::{Arrival, Links};
use crate::machine::{AskId, ChainChange, DialFailure, LinkId};
use crate::planted::{self, Law};
use crate::record::Candidate;
use crate::rpc::Offer;
use crate::splice::Splice;
use bytes::Bytes;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::collections::{BTreeSet, VecDeque};

/// The process that nodes say they are.
const BOOT: BootId = BootId::from_bytes([1; 16]);
const ORIGIN: NodeId = NodeId::from_bytes([0xaa; 32]);
const TARGET: NodeId = NodeId::from_bytes([0xbb; 32]);
const RELAYS: u8 = 16;
const MS: Duration = Duration::from_millis(1);

fn relay(n: u8) -> NodeId {
    NodeId::from_bytes([n; 32])
}

/// An origin, a bootstrap with relays and a target, and a first hop that takes every leg.
struct World {
    origin: Endpoint,
    bootstrap: Bootstrap,
    now: Time,
    said: Vec<Action>,
    asked: Vec<(AskId, Request)>,
    events: VecDeque<Event>,
    links: Vec<(LinkId, NodeId)>,
    made: u32,
    dead: Vec<NodeId>,
}

impl World {
    fn new(config: bootstrap::Config) -> Self {
        let now = Time::from_micros(1_800_000_000_000_000);
        let mut bootstrap = Bootstrap::new(config, Key::from_bytes([7; 32]), StdRng::seed_from_u64(1), now);
        for n in 0..RELAYS {
            let address = ([127, 0, 0, 1], 4000 + u16::from(n)).into();
            let offer = Offer::relay(address, "", 100);
            let register = Request::Register { name: format!("r{n}"), offer, boot: BOOT };
            assert!(matches!(bootstrap.answer(relay(n), register, now), Response::Lease(_)));
        }
        let offer = Offer::Target { names: vec!["x".to_owned()], attachments: (0..6).map(relay).collect() };
        let register = Request::Register { name: "t".to_owned(), offer, boot: BOOT };
        assert!(matches!(bootstrap.answer(TARGET, register, now), Response::Lease(_)));
        let mut flows = FlowsConfig::default();
        flows.links.detector.pace = Pace::Off;
        let origin = Endpoint::new(ORIGIN, flows, AgentConfig::default());
        let (said, asked, events) = (Vec::new(), Vec::new(), VecDeque::new());
        Self { origin, bootstrap, now, said, asked, events, links: Vec::new(), made: 0, dead: Vec::new() }
    }

    fn open(&mut self, flow: u8) {
        let to = Destination { name: "x".to_owned(), hops: 2 };
        let mut actions = Vec::new();
        self.origin.open(FlowId::from_bytes([flow; 16]), to, self.now, &mut actions);
        self.note(actions);
    }

    fn open_apart(&mut self, flow: u8, from: FlowKey) {
        let to = Destination { name: "x".to_owned(), hops: 2 };
        let mut actions = Vec::new();
        self.origin.open_apart(FlowId::from_bytes([flow; 16]), to, from, self.now, &mut actions);
        self.note(actions);
    }

    /// The flow that is open.
    fn opened(&self) -> FlowKey {
        *self.origin.open.keys().next().expect("a flow")
    }

    fn note(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Ask { ask, request, .. } => self.asked.push((ask, request)),
                Action::Connect { peer, .. } if self.dead.contains(&peer) => {
                    self.events.push_back(Event::ConnectFailed { peer, failure: DialFailure::NoAnswer });
                }
                Action::Connect { peer, .. } => {
                    self.made += 1;
                    let link = LinkId(self.made);
                    self.links.push((link, peer));
                    let boot = BOOT;
                    self.events.push_back(Event::LinkUp { link, peer, boot, dialed: true, rtt: MS });
                }
                Action::OpenLeg { leg, .. } => {
                    let answer = AttachOk { backward_start: 0, backward_fin: None, forward_ack: 0 };
                    self.events.push_back(Event::Answered { leg, answer });
                }
                // The target is there.
                Action::Control { link, control: Control::Probe { leg, number } } => {
                    let (target, relays) = (Waypoint::default(), Vec::new());
                    let progress = Progress { probe: number, reader_blocked: false, target, relays };
                    self.events
                        .push_back(Event::Control { link, control: Control::Progress { leg, progress } });
                }
                other => self.said.push(other),
            }
        }
        if let Some(event) = self.events.pop_front() {
            self.tell(event);
        }
    }

    fn tell(&mut self, event: Event) {
        let mut actions = Vec::new();
        self.origin.handle(event, self.now, &mut actions);
        self.note(actions);
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        let mut actions = Vec::new();
        self.origin.handle_timeout(self.now, &mut actions);
        self.note(actions);
    }

    /// The bootstrap answers all that it was asked; returns that.
    fn answer(&mut self) -> Vec<Request> {
        let asked = std::mem::take(&mut self.asked);
        for (ask, request) in asked.clone() {
            let response = self.bootstrap.answer(ORIGIN, request, self.now);
            self.tell(Event::Asked { ask, result: Ok(response) });
        }
        asked.into_iter().map(|(_, request)| request).collect()
    }

    /// It has no time for what it was asked; returns that.
    fn throttle(&mut self, retry_after: Duration) -> Vec<Request> {
        let asked = std::mem::take(&mut self.asked);
        for (ask, _) in &asked {
            let refusal = Refusal::Throttled { retry_after };
            self.tell(Event::Asked { ask: *ask, result: Ok(Response::Refused(refusal)) });
        }
        asked.into_iter().map(|(_, request)| request).collect()
    }

    /// It answers nothing.
    fn fail(&mut self) {
        for (ask, _) in std::mem::take(&mut self.asked) {
            self.tell(Event::Asked { ask, result: Err(AskFailure::Timeout) });
        }
    }

    /// The chain that was told last, why, and all its relays.
    fn chain(&self) -> (ChainChange, Vec<Vec<NodeId>>) {
        let chain = |action: &Action| match action {
            Action::Notify(Notice::Chain { hops, change, .. }) => {
                let hops = hops.iter().map(|hop| hop.iter().map(|c| c.node).collect());
                Some((*change, hops.collect()))
            }
            _ => None,
        };
        self.said.iter().rev().find_map(chain).expect("a chain")
    }

    fn opened_over_kept(&self) -> Vec<bool> {
        let opened = |action: &Action| match action {
            Action::Notify(Notice::Opened { kept, .. }) => Some(*kept),
            _ => None,
        };
        self.said.iter().filter_map(opened).collect()
    }

    /// Nobody of the first hop can be reached.
    fn lose_first_hop(&mut self) {
        self.dead.extend(self.chain().1.first().cloned().unwrap_or_default());
        let (gone, links) = self.links.iter().partition(|(_, peer)| self.dead.contains(peer));
        self.links = links;
        let gone: Vec<(LinkId, NodeId)> = gone;
        for (link, _) in gone {
            self.tell(Event::LinkDown { link });
        }
        // The request for another backup, from between the two, would be another way.
        self.asked.retain(|(_, asked)| !matches!(asked, Request::Replace { .. }));
    }
}

fn flat(hops: &[Vec<NodeId>]) -> BTreeSet<NodeId> {
    hops.iter().flatten().copied().collect()
}

#[test]
fn a_rebuild_goes_over_relays_that_were_not_on_the_old_chain() {
    let mut world = World::new(bootstrap::Config::default());
    world.open(1);
    world.answer();
    let (change, old) = world.chain();
    assert_eq!(change, ChainChange::Opened);
    world.lose_first_hop();
    let asked = world.asked.iter().map(|(_, request)| request);
    let excluded: BTreeSet<NodeId> = asked
        .filter_map(|request| match request {
            Request::Plan { exclude, .. } => Some(exclude.iter().copied()),
            _ => None,
        })
        .flatten()
        .collect();
    assert!(excluded.is_superset(&flat(&old)), "{excluded:?} {old:?}");
    world.answer();
    let (change, new) = world.chain();
    assert!(matches!(change, ChainChange::Rebuilt { .. }));
    assert!(flat(&new).is_disjoint(&flat(&old)));
}

#[test]
fn a_pool_too_small_for_that_gives_what_it_has() {
    let mut world = World::new(bootstrap::Config::default());
    for n in 5..RELAYS {
        world.bootstrap.answer(relay(n), Request::Deregister { boot: BOOT }, world.now);
    }
    world.open(1);
    world.answer();
    let (_, old) = world.chain();
    world.lose_first_hop();
    // By the time of the answer it has dialled them in vain.
    world.pass(MS * 50);
    while !world.asked.is_empty() {
        world.answer();
    }
    let (change, new) = world.chain();
    assert!(matches!(change, ChainChange::Rebuilt { .. }));
    assert!(!old[0].contains(&new[0][0]), "not over those that failed");
}

#[test]
fn a_second_chain_shares_no_serving_relay_with_the_first_if_the_pool_has_others() {
    for (relays, shares) in [(RELAYS, false), (3, true)] {
        let mut world = World::new(bootstrap::Config::default());
        for n in relays..RELAYS {
            world.bootstrap.answer(relay(n), Request::Deregister { boot: BOOT }, world.now);
        }
        world.open(1);
        world.answer();
        let (_, first) = world.chain();
        let from = world.opened();
        world.open_apart(2, from);
        while !world.asked.is_empty() {
            world.answer();
        }
        let (_, second) = world.chain();
        let serving = |chain: &[Vec<NodeId>]| chain.iter().map(|hop| hop[0]).collect::<BTreeSet<_>>();
        assert_ne!(serving(&second).is_disjoint(&serving(&first)), shares, "{relays} relays");
        assert!(world.origin.apart.is_empty());
        // Nor when it is repaired.
        let key = FlowKey { flow: FlowId::from_bytes([2; 16]), ..from };
        let apart = world.origin.kept_apart_from(key);
        assert_eq!(apart.into_iter().collect::<BTreeSet<_>>(), serving(&first));
        assert_eq!(world.origin.kept_apart_from(from).len(), first.len());
    }
}

#[test]
fn a_spare_is_asked_for_in_the_background_and_taken_at_once() {
    let mut world = World::new(bootstrap::Config::default());
    world.open(1);
    world.answer();
    let (_, old) = world.chain();
    world.pass(MS * 499);
    assert!(world.asked.is_empty(), "a flow that ends soon needs none");
    world.pass(MS);
    world.answer();
    assert_eq!(world.chain().0, ChainChange::Opened, "it stands by");
    world.lose_first_hop();
    let (change, new) = world.chain();
    assert!(matches!(change, ChainChange::Rebuilt { .. }), "without an answer from the bootstrap");
    assert!(flat(&new).is_disjoint(&flat(&old)));
    // Now that one is in use, and another is asked for.
    world.pass(MS);
    let plans: Vec<Request> =
        world.answer().into_iter().filter(|asked| matches!(asked, Request::Spare { .. })).collect();
    let [Request::Spare { exclude, .. }] = &plans[..] else { panic!("{plans:?}") };
    assert!(flat(&new).iter().all(|node| exclude.contains(node)));
    world.lose_first_hop();
    assert!(flat(&world.chain().1).is_disjoint(&flat(&new)));
}

#[test]
fn a_new_flow_takes_a_kept_route_when_no_bootstrap_answers() {
    let mut world = World::new(bootstrap::Config::default());
    world.open(1);
    world.pass(Duration::from_secs(2));
    assert_eq!(world.opened_over_kept(), [] as [bool; 0], "there is none");
    world.answer();
    assert_eq!(world.opened_over_kept(), [false]);
    world.asked.clear();
    world.open(2);
    world.pass(MS * 999);
    assert_eq!(world.opened_over_kept(), [false], "the bootstrap has a second");
    world.pass(MS);
    assert_eq!(world.opened_over_kept(), [false, true]);
    world.answer();
    assert_eq!(world.opened_over_kept(), [false, true], "what came late is kept for later");
    world.open(3);
    world.fail();
    assert_eq!(world.opened_over_kept(), [false, true, true], "at once when the bootstrap can't be reached");
    world.open(4);
    world.answer();
    assert_eq!(world.opened_over_kept(), [false, true, true, false], "the fresh one wins");
}

#[test]
fn an_earlier_life_s_routes_open_flows_until_they_expire() {
    let mut before = World::new(bootstrap::Config::default());
    before.open(1);
    before.answer();
    assert!(before.said.iter().any(|action| matches!(action, Action::Notify(Notice::RoutesChanged))));
    let kept = before.origin.take_routes(before.now).expect("new routes");
    assert_eq!((kept.len(), before.origin.take_routes(before.now)), (1, None));
    for (pause, opens) in [(Duration::from_secs(3600), true), (Duration::from_secs(8 * 24 * 3600), false)] {
        let mut after = World::new(bootstrap::Config::default());
        after.now = after.now + pause;
        after.origin.remember(kept.clone(), after.now);
        after.open(2);
        after.fail();
        assert_eq!(after.opened_over_kept(), if opens { vec![true] } else { vec![] });
    }
}

#[test]
fn without_a_bootstrap_a_rebuild_goes_over_what_is_kept() {
    let mut world = World::new(bootstrap::Config::default());
    world.open(1);
    world.answer();
    let (_, first) = world.chain();
    world.pass(MS * 500);
    world.answer();
    world.lose_first_hop();
    let (_, spare) = world.chain();
    assert!(flat(&first).is_disjoint(&flat(&spare)));
    // The bootstrap falls silent, the first chain is up again, and the spare dies.
    world.dead.clear();
    world.lose_first_hop();
    world.pass(MS * 299);
    assert_eq!(world.chain().1, spare, "the bootstrap has a moment to answer");
    world.pass(MS);
    assert!(matches!(world.chain(), (ChainChange::Rebuilt { .. }, hops) if hops == first));
    // What it answers at last is not needed now.
    world.answer();
    assert_ne!(world.chain().1, spare);
    assert!(world.origin.open.len() == 1 && world.origin.asking_route.is_empty());
}

#[test]
fn records_are_renewed_before_they_expire_again_and_again() {
    let lifetime = Duration::from_secs(30);
    let config = bootstrap::Config {
        record_lifetime: lifetime,
        key_epoch: Duration::from_secs(2),
        ..bootstrap::Config::default()
    };
    let mut world = World::new(config);
    world.open(1);
    world.answer();
    let (key, mut expires) = {
        let key = *world.origin.open.keys().next().unwrap();
        (key, world.origin.flows.expires(&key).unwrap())
    };
    let began = world.now;
    let mut renewals = 0;
    while world.now < began + lifetime * 3 {
        world.pass(MS * 500);
        renewals += world.answer().iter().filter(|asked| matches!(asked, Request::Renew { .. })).count();
        let now = world.origin.flows.expires(&key).expect("the flow lives");
        assert!(now >= expires && now > world.now, "never expired");
        expires = now;
    }
    assert!((5..=12).contains(&renewals), "{renewals}");
    assert!(
        world.origin.routes.for_new_flow(&world.origin.open[&key], world.now).is_some(),
        "nor is what is kept"
    );
    // While no bootstrap answers it goes on asking, ever more slowly.
    let mut asks = 0;
    for _ in 0..120 {
        world.pass(MS * 500);
        asks += world.asked.iter().filter(|(_, asked)| matches!(asked, Request::Renew { .. })).count();
        world.fail();
    }
    assert!((3..=8).contains(&asks), "{asks}");
}

/// A target that chose these relays, and links to those that are up.
fn target(chosen: &[u8], up: &[u8]) -> (Target, Links) {
    let now = Time::from_micros(1_000_000);
    let mut links = Links::new(TARGET, FlowsConfig::default().links);
    for n in up {
        let boot = BOOT;
        let arrival = Arrival { link: LinkId((*n).into()), peer: relay(*n), boot, dialed: true, rtt: MS };
        links.up(arrival, now, &mut Vec::new());
    }
    let candidate = |n: &u8| Candidate { node: relay(*n), name: String::new(), addresses: Vec::new() };
    (Target { chosen: chosen.iter().map(candidate).collect(), ..Target::new(now) }, links)
}

#[test]
fn a_relay_that_was_silent_for_a_moment_does_not_take_its_place_back() {
    let (mut target, links) = target(&[1, 2, 3, 4], &[1, 2, 3, 4]);
    assert_eq!(target.attached(&links), [relay(1), relay(2), relay(3)]);
    target.offered = vec![relay(2), relay(3), relay(4)];
    assert_eq!(target.attached(&links), [relay(2), relay(3), relay(4)]);
}

#[test]
fn former_attachment_relays_stay_linked_for_a_while() {
    let (mut target, links) = target(&[1, 2, 3, 4, 5, 6, 7, 8], &[1, 2, 4, 5, 6, 7, 8]);
    let attached = [relay(6), relay(7), relay(8)];
    assert_eq!(
        target.drop_spare(&attached, &links),
        [relay(1), relay(3)],
        "the oldest, and one without a link"
    );
    assert_eq!(target.chosen.len(), 6);
    assert!(target.drop_spare(&attached, &links).is_empty());
}

/// How often a bootstrap has no time in these tests: more often than anything else may fail.
const BUSY: u32 = 20;

#[test]
fn a_flow_is_opened_however_often_the_bootstrap_is_busy() {
    let mut world = World::new(bootstrap::Config::default());
    world.open(1);
    for _ in 0..BUSY {
        assert!(matches!(world.throttle(MS * 200)[..], [Request::Plan { .. }]));
        world.pass(MS * 199);
        assert!(world.asked.is_empty(), "it waits for as long as it was told");
        assert_eq!(world.origin.poll_timeout(), Some(world.now + MS));
        world.pass(MS);
    }
    world.answer();
    assert_eq!(world.opened_over_kept(), [false]);
    assert_eq!(world.chain().0, ChainChange::Opened);
}

#[test]
fn who_gives_up_asks_no_more() {
    let mut world = World::new(bootstrap::Config::default());
    world.open(1);
    world.throttle(MS * 200);
    world.origin.cancel(FlowId::from_bytes([1; 16]));
    world.pass(MS * 200);
    assert!(world.asked.is_empty());
}

#[test]
fn a_kept_route_spares_a_busy_bootstrap() {
    let mut world = World::new(bootstrap::Config::default());
    world.open(1);
    world.answer();
    world.open(2);
    world.throttle(MS * 200);
    assert_eq!(world.opened_over_kept(), [false, true]);
}

#[test]
fn a_rebuild_waits_for_a_busy_bootstrap() {
    let mut world = World::new(bootstrap::Config::default());
    world.open(1);
    world.answer();
    world.lose_first_hop();
    let is_plan = |request: &Request| matches!(request, Request::Plan { .. });
    for _ in 0..BUSY {
        assert_eq!(world.throttle(MS * 200).into_iter().filter(is_plan).count(), 1);
        world.pass(MS * 199);
        assert!(
            !world.asked.iter().any(|(_, request)| is_plan(request)),
            "it waits for as long as it was told"
        );
        world.pass(MS);
    }
    world.answer();
    assert!(matches!(world.chain().0, ChainChange::Rebuilt { .. }));
}

#[test]
fn a_target_waits_for_a_busy_bootstrap() {
    let mut world = World::new(bootstrap::Config::default());
    let mut actions = Vec::new();
    world.origin.serve(vec!["y".to_owned()], world.now, &mut actions);
    world.note(actions);
    for _ in 0..BUSY {
        assert!(matches!(world.throttle(NO_MORE_PAUSE * 2)[..], [Request::Attachments { .. }]));
        world.pass(NO_MORE_PAUSE * 2 - MS);
        assert!(world.asked.is_empty(), "{:?}", world.asked);
        world.pass(MS);
    }
    world.answer();
    let offered = |(_, request): &(AskId, Request)| matches!(request, Request::Register { .. });
    assert!(world.asked.iter().any(offered), "{:?}", world.asked);
}

#[test]
fn what_arises_from_payload_is_acted_on_at_once() {
    for broken in [None, Some(Law::PayloadHeeded)] {
        let mut world = World::new(bootstrap::Config::default());
        world.open(1);
        world.answer();
        let opened = |action: &Action| match action {
            Action::Notify(Notice::Opened { flow, .. }) => Some(*flow),
            _ => None,
        };
        let flow = world.said.iter().find_map(opened).expect("the flow is open");
        let leg = world.origin.flows.splice(&flow).and_then(Splice::next).expect("it has a leg");
        let end = Control::Fin { leg: leg.number(), offset: 1 };
        world.tell(Event::Control { link: leg.link(), control: end });
        planted::break_law(broken);
        let mut actions = Vec::new();
        let past_the_end = Bytes::from_static(b"more than there is");
        world.origin.receive(leg, [past_the_end], world.now, &mut actions);
        planted::break_law(None);
        let closed =
            |action: &Action| matches!(action, Action::CloseLeg { leg: closed, .. } if *closed == leg);
        assert!(actions.iter().any(closed), "{actions:?}");
        assert_eq!(world.origin.flows.has_events(), broken.is_some());
    }
}

#[test]
fn it_tells_which_relays_it_avoids_by_which_evidence_and_until_when() {
    let mut world = World::new(bootstrap::Config::default());
    world.open(1);
    world.answer();
    assert_eq!(world.origin.avoided(world.now), []);
    let mut lost = world.chain().1.first().cloned().unwrap_or_default();
    let opened = world.now;
    world.lose_first_hop();
    world.pass(MS);
    let kept = |avoided: Vec<Avoided>| {
        let kept = avoided.into_iter().filter(|avoided| avoided.by == Avoider::KeptRoutes);
        kept.map(|avoided| avoided.failure).collect::<Vec<_>>()
    };
    let avoided = kept(world.origin.avoided(world.now));
    let mut nodes: Vec<NodeId> = avoided.iter().map(|failure| failure.node).collect();
    nodes.sort_unstable();
    lost.sort_unstable();
    assert_eq!(nodes, lost);
    let minute = Duration::from_secs(60);
    for failure in avoided {
        assert_eq!(failure.until, failure.since + minute);
        assert!(failure.since >= opened && failure.since <= world.now);
        assert_eq!(failure.ground, Ground::Seen(Evidence::NoAnswer), "they could not be dialled again");
    }
    assert_eq!(kept(world.origin.avoided(world.now + minute)), []);
}

#[test]
fn whom_a_flow_avoids_is_told_once_when_it_was_failed() {
    let mut world = World::new(bootstrap::Config::default());
    world.open(1);
    world.answer();
    let primary = world.chain().1[0][0];
    world.dead.push(primary);
    let lost = world.links.iter().find(|(_, peer)| *peer == primary).expect("it was dialled").0;
    world.tell(Event::LinkDown { link: lost });
    world.answer();
    world.pass(MS * 10);
    world.answer();
    let avoided = |action: &Action| match action {
        Action::Notify(Notice::Avoided { relay, failure, .. }) => Some((relay.as_ref()?.node, *failure)),
        _ => None,
    };
    let told: Vec<(NodeId, Failure)> = world.said.iter().filter_map(avoided).collect();
    let [(relay, failure)] = told[..] else { panic!("{told:?}") };
    assert_eq!((relay, failure.node), (primary, primary));
    assert_eq!(failure.ground, Ground::Seen(Evidence::Transport));
    assert_eq!(failure.until, failure.since + FAILED_LIFETIME);
    let by = Avoider::Flow(FlowId::from_bytes([1; 16]));
    assert!(world.origin.avoided(world.now).contains(&Avoided { by, failure }));
}
