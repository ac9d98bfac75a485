//! All flows at one node, whatever its part in each, and the links that carry them.
//!
//! This is where the laws meet the neighbours: an attach is checked and accepted (`flows/attach.rs`), the next hop is
//! dialled and dialled again over another candidate (`flows/dial.rs`), new records travel (`flows/records.rs`), and after
//! every change a flow is settled: acks, FINs and completion follow (`flows/settle.rs`). The relay's and the endpoint's
//! machines own one `Flows` each and act on its [`News`].
//!
//! Bounds: flows (`max_flows`: more are refused as overloaded), links ([`Links`]), bytes of each lane ([`Limits`]) and of
//! all together (`replay_bytes`, and [`RESERVE_BYTES`] for each lane): reading stops; tombstones (as many as flows; the oldest goes first).

mod attach;
mod avoided;
mod budget;
mod config;
mod dial;
mod drain;
mod front;
mod gray;
mod next_hop;
mod pace;
mod probe;
mod reach;
mod records;
mod rights;
mod routes;
mod settle;
mod traffic;

use super::allowance::{Allowance, Spent};
use super::cause::CauseKey;
use super::crypto::Sealed;
use super::epoch::MAX_HOPS;
use super::failure_memory::FailureMemory;
use super::frame::{Cause, CloseCode, Control, Evidence, MAX_ACKS, Reroute, Why};
use super::id::{FlowId, NodeId, Pseudonym};
use super::links::{Arrival, LinkNews, Links};
use super::machine::{Action, DialFailure, DisconnectReason, Event, LinkId, Misdeed, Notice};
use super::record::{Candidate, Scope};
use super::splice::{Direction, LegId, Position, Splice};
use super::time::{NetworkTime, Time};
use super::timers::Timers;
use budget::Budget;
use foldhash::{HashMap, HashMapExt};
use next_hop::NextHop;
use pace::Paces;
use probe::Vigil;
use rights::Rights;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

pub use budget::RESERVE_BYTES;
pub use config::FlowsConfig;
pub use records::FAILED_LIFETIME;
pub use rights::KeyRing;

/// Flows up to which the budget's books are checked in debug builds.
const MAX_AUDITED: usize = 32;

/// A flow at a node: a small pool may put one relay on two hops of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowKey {
    /// Whose flow, as relays know the origin.
    pub origin: Pseudonym,
    /// Which of the origin's.
    pub flow: FlowId,
    /// 0 at the origin, then counted up to the target.
    pub hop: u8,
}

/// How often one neighbour may ask for something that costs work (records, repairs, probes) on behalf of one flow: far more
/// than anybody does whose relays all fail.
const QUESTIONS: Allowance = Allowance { burst: 8192, per_second: 512 };
/// How often a node dials one flow's next hop, whatever its links look like,
const DIALS: Allowance = Allowance { burst: 32, per_second: 4 };
/// and how often one flow may be attached anew at one node: as often as everybody before it may dial, for whoever is dialled
/// anew dials anew.
const ATTACHES: Allowance =
    Allowance { burst: DIALS.burst * DIALERS, per_second: DIALS.per_second * DIALERS };
/// Nodes before the last of the longest chain.
const DIALERS: u32 = 9;
const _: () = assert!(DIALERS as usize == MAX_HOPS + 1, "the origin and the relays");

/// What the owner of [`Flows`] has to act on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// The last link to a neighbour went away.
    PeerGone(NodeId),
    /// A link to a neighbour is up.
    PeerUp(NodeId),
    /// A neighbour that is wanted could not be dialled; each time.
    PeerUnreachable {
        /// Which.
        node: NodeId,
        /// Whether others should know: it seemed fine before, and there is a way to it from here.
        is_news: bool,
    },
    /// A flow is over.
    Ended(FlowKey),
    /// A neighbour has been silent for too long.
    PeerSuspect {
        /// Which.
        node: NodeId,
        /// Whether the network says as well that it can't be reached.
        refused: bool,
    },
    /// A neighbour that was suspect is heard again.
    PeerRecovered(NodeId),
    /// A neighbour will leave.
    PeerDraining(NodeId),
    /// A hop of an origin's flow has no backup left.
    WantsBackup {
        /// The flow.
        flow: FlowKey,
        /// The hop.
        hop: u8,
        /// Who serves it now.
        active: Option<NodeId>,
    },
    /// An origin reaches nobody on its flow's chain.
    WantsRoute(FlowKey),
}

#[derive(Debug)]
struct Flow {
    splice: Splice,
    /// What of its lanes counts against the node's budget.
    charged: u64,
    rights: Rights,
    next_hop: NextHop,
    /// A repair under way: reported once the new leg is answered.
    repair: Option<dial::Repair>,
    /// When the next hop was dialled last: nothing of the flow waited for it before.
    dialled_at: Time,
    /// How often it was dialled over former chains.
    former_dials: u32,
    /// Whether a link to any candidate is awaited.
    waits: bool,
    /// When next has to have answered, a link be up, or a candidate be dialled again.
    dial_due: Option<Time>,
    /// Since when no candidate could be had.
    stuck_since: Option<Time>,
    /// Since when next is not reached.
    unserved_since: Option<Time>,
    /// When a suspect next is left although there is nobody better.
    doubt_due: Option<Time>,
    /// Hops whose new records next is told once it has answered.
    late_update: BTreeSet<u8>,
    /// Since when the way to the origin is lost, or an origin does not know whether it reaches its target.
    alone_since: Option<Time>,
    /// Whether next knows that the way to the origin is lost.
    orphan_told: bool,
    /// When a sink's ack is due.
    ack_due: Option<Time>,
    /// When links to the next hop's candidates are wished for again.
    upkeep_due: Option<Time>,
    /// When another candidate may be asked for again, and after how many attempts.
    backup_due: Time,
    backup_attempts: u32,
    /// Whether the candidate that stood by has taken over, or failed, and the origin knows of no other yet. One that
    /// recovers meanwhile stands by again, but only a new record tells the origin so.
    unprotected: bool,
    /// Whether other candidates were asked for because these are of no use.
    is_stuck: bool,
    /// When an origin that has everything leaves.
    leave_due: Option<Time>,
    /// Terminal codes that an origin was told and has not believed yet.
    doubted: u32,
    /// How this end tells the other why it gives the flow up; `None` at relays, and until both have agreed on TLS.
    cause_key: Option<CauseKey>,
    /// Why the target may have given the flow up, which came before the key.
    early_cause: Option<Sealed>,
    /// Whether the origin's owner knows that it reaches nobody.
    route_wanted: bool,
    /// When another route may be asked for again, and after how many attempts.
    route_due: Option<Time>,
    route_attempts: u32,
    /// Routes that have led an origin nowhere lately.
    fruitless: Option<dial::Fruitless>,
    /// Who was last said to serve each hop of this origin's flow.
    serving: BTreeMap<u8, NodeId>,
    /// What was last said of each hop's repair, until a newer record shows that the origin knows: told again to a new prev, as
    /// the one before may have died with it.
    reroutes: BTreeMap<u8, Reroute>,
    /// Relays that failed this origin's flow: no plan shall name them again soon.
    failed: FailureMemory,
    /// At an end of the flow: whether its bytes arrive.
    vigil: Option<Vigil>,
    /// Relays that an origin avoids, as their chains swallowed bytes.
    distrust: gray::Distrust,
    /// What neighbours may yet ask for, and how often attach.
    questions: Spent,
    attaches: Spent,
    /// How often this node may yet dial.
    dials: Spent,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Flows {
    me: NodeId,
    is_target: bool,
    /// Whether this node will leave: it takes no new flows.
    draining: bool,
    config: FlowsConfig,
    time: NetworkTime,
    ring: KeyRing,
    links: Links,
    flows: HashMap<FlowKey, Flow>,
    legs: BTreeMap<LegId, FlowKey>,
    /// Flows that wait for a link to a candidate.
    waiting: HashMap<NodeId, BTreeSet<FlowKey>>,
    /// The flows whose next hop a node may serve.
    served_by: HashMap<NodeId, BTreeSet<FlowKey>>,
    budget: Budget,
    paces: Paces,
    timers: Timers<FlowKey>,
    tombstones: HashMap<FlowKey, (CloseCode, Option<Sealed>)>,
    tombstone_ends: VecDeque<(Time, FlowKey)>,
    /// When which backup was told of which records.
    prepared: HashMap<(LinkId, Scope, u32), Time>,
    news: Vec<News>,
}

impl Flows {
    /// None yet, at a node that is a target for flows (an endpoint) or carries them (a relay).
    #[must_use]
    pub fn new(me: NodeId, is_target: bool, config: FlowsConfig) -> Self {
        Self {
            me,
            is_target,
            draining: false,
            links: Links::new(me, config.links.clone()),
            budget: Budget::new(config.replay_bytes),
            paces: Paces::default(),
            config,
            time: NetworkTime::default(),
            ring: KeyRing::default(),
            flows: HashMap::new(),
            legs: BTreeMap::new(),
            waiting: HashMap::new(),
            served_by: HashMap::new(),
            timers: Timers::default(),
            tombstones: HashMap::new(),
            tombstone_ends: VecDeque::new(),
            prepared: HashMap::new(),
            news: Vec::new(),
        }
    }

    /// The node's own keys.
    pub const fn ring_mut(&mut self) -> &mut KeyRing {
        &mut self.ring
    }

    /// What the bootstrap's clock says, by which records expire.
    #[must_use]
    pub const fn time(&self) -> NetworkTime {
        self.time
    }

    /// For whoever hears what it says.
    pub const fn time_mut(&mut self) -> &mut NetworkTime {
        &mut self.time
    }

    /// The node's neighbours.
    #[must_use]
    pub const fn links(&self) -> &Links {
        &self.links
    }

    /// The node's neighbours, for wishes.
    pub const fn links_mut(&mut self) -> &mut Links {
        &mut self.links
    }

    /// How many flows there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.flows.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.flows.is_empty()
    }

    /// Whether something happened that the owner has to act on.
    #[must_use]
    pub const fn has_news(&self) -> bool {
        !self.news.is_empty()
    }

    /// What happened that the owner has to act on; to be asked until there is nothing.
    pub fn take_news(&mut self) -> Vec<News> {
        std::mem::take(&mut self.news)
    }

    /// A flow's splice, to look at.
    #[must_use]
    pub fn splice(&self, key: &FlowKey) -> Option<&Splice> {
        self.flows.get(key).map(|flow| &flow.splice)
    }

    // ---- events ----

    /// Takes a fact about links and legs.
    pub fn handle(&mut self, event: Event, now: Time, actions: &mut Vec<Action>) {
        match event {
            Event::LinkUp { link, peer, boot, dialed, rtt } => {
                let arrival = Arrival { link, peer, boot, dialed, rtt };
                if let Some(old) = self.links.up(arrival, now, actions) {
                    self.link_down(old, now, actions);
                }
                if self.links.peer(link).is_none() {
                    return;
                }
                self.news.push(News::PeerUp(peer));
                if self.draining {
                    actions.push(Action::Control { link, control: Control::Draining });
                }
                self.dial_waiting(peer, now, actions);
                self.prepare_peer(peer, now, actions);
                self.move_to(peer, now, actions);
            }
            Event::LinkDown { link } => self.link_down(link, now, actions),
            Event::LinkRefused { link } => self.links.refused(link, now, actions),
            Event::LinkLossy { link, counted } => self.links.lossy(link, counted, now, actions),
            Event::LinkGarbled { link } => self.disconnect(link, Misdeed::Garbled, now, actions),
            Event::ConnectFailed { peer, failure } => {
                let is_news = self.links.connect_failed(peer, now) && failure != DialFailure::NoWay;
                self.news.push(News::PeerUnreachable { node: peer, is_news });
                self.waiting_failed(peer, now, actions);
                self.want_backups(peer, now, actions);
            }
            Event::Heartbeat { link, heartbeat } => self.links.heartbeat(link, &heartbeat, now, actions),
            Event::Control { link, control } => {
                self.links.heard(link, now);
                self.control(link, control, now, actions);
            }
            Event::Attach { link, attach } => {
                self.links.heard(link, now);
                self.attach(link, &attach, now, actions);
            }
            Event::Answered { leg, answer } => {
                self.links.heard(leg.link(), now);
                self.answered(leg, &answer, now, actions);
            }
            Event::LegClosed { leg, code } => self.leg_closed(leg, code, now, actions),
            Event::LegEnded { leg } => self.leg_ended(leg, now, actions),
            Event::Asked { .. } | Event::BootstrapReached => {}
        }
        self.act_on_links(now, actions);
        self.dial_paced(now, actions);
        self.audit();
    }

    fn control(&mut self, link: LinkId, control: Control, now: Time, actions: &mut Vec<Action>) {
        match control {
            Control::Acks(acks) => self.acks(link, &acks, now, actions),
            Control::Fin { leg, offset } => self.fin(LegId::new(link, leg), offset, now, actions),
            Control::Close { why, .. } if !why.is_bounded() => {
                self.disconnect(link, Misdeed::OutOfBounds, now, actions);
            }
            Control::Close { leg, code, why } => {
                self.leg_over(LegId::new(link, leg), code, why, now, actions);
            }
            Control::Update { leg, records, tags } => {
                self.update(LegId::new(link, leg), &records, &tags, now, actions);
            }
            Control::Rerouted { leg, reroute } => self.rerouted(LegId::new(link, leg), reroute, now, actions),
            Control::BackupWanted { leg, wish } => {
                self.backup_wanted(LegId::new(link, leg), wish, now, actions)
            }
            Control::Prepare { own, next } => self.prepare(link, &own, &next, now, actions),
            Control::Draining => self.links.draining(link),
            Control::Reattached { leg } => self.reattached(LegId::new(link, leg), actions),
            Control::Probe { leg, number } => self.probe(LegId::new(link, leg), number, now, actions),
            Control::Progress { leg, progress } => {
                self.progress(LegId::new(link, leg), progress, now, actions);
            }
            Control::Orphaned { leg, orphaned } => {
                self.orphaned(LegId::new(link, leg), orphaned, now, actions);
            }
            Control::Unknown => {}
        }
    }

    /// Every leg of a link that is no more is lost.
    fn link_down(&mut self, link: LinkId, now: Time, actions: &mut Vec<Action>) {
        let peer = self.links.down(link, now);
        let range = LegId::new(link, 0)..=LegId::new(link, u32::MAX);
        let mut legs: Vec<(LegId, FlowKey)> = self.legs.range(range).map(|(leg, key)| (*leg, *key)).collect();
        self.small_first(&mut legs);
        for (leg, _) in legs {
            self.leg_over(leg, CloseCode::Lost, Why::default(), now, actions);
        }
        for key in self.paces.remove(link) {
            self.dial(key, now, actions);
        }
        self.news.extend(peer.filter(|peer| self.links.active(*peer).is_none()).map(News::PeerGone));
    }

    fn acks(&mut self, link: LinkId, acks: &[(u32, u64)], now: Time, actions: &mut Vec<Action>) {
        if acks.len() > MAX_ACKS {
            return self.disconnect(link, Misdeed::OutOfBounds, now, actions);
        }
        let mut touched = Vec::with_capacity(acks.len());
        for (number, offset) in acks {
            let leg = LegId::new(link, *number);
            let Some((key, flow)) = self.by_leg(leg) else { continue };
            match flow.splice.ack(leg, *offset) {
                Ok(()) => touched.push(key),
                Err(violation) => self.misbehaved(leg, violation, now, actions),
            }
        }
        self.settle_all(&touched, now, actions);
    }

    fn fin(&mut self, leg: LegId, offset: u64, now: Time, actions: &mut Vec<Action>) {
        let Some((key, flow)) = self.by_leg(leg) else { return };
        match flow.splice.fin(leg, offset) {
            Ok(()) => self.settle(key, now, actions),
            Err(violation) => self.misbehaved(leg, violation, now, actions),
        }
    }

    /// What came over a leg can't be true, or is too much: the leg is lost, and whoever is behind it told why. An origin can't
    /// tell who on its chain lies, and leaves all of it.
    fn misbehaved(&mut self, leg: LegId, what: impl Into<Misdeed>, now: Time, actions: &mut Vec<Action>) {
        self.violation(leg.link(), what.into(), actions);
        if let Some(key) = self.legs.get(&leg).copied() {
            self.distrust(key, Cause::Closed, None, now);
        }
        actions.push(Action::CloseLeg { leg, code: CloseCode::Malformed });
        self.leg_over(leg, CloseCode::Malformed, Why::default(), now, actions);
    }

    fn violation(&self, link: LinkId, what: Misdeed, actions: &mut Vec<Action>) {
        actions.push(Action::Notify(Notice::Violation { link, peer: self.links.peer(link), what }));
    }

    /// Whether whoever is behind `leg` may ask for something more for its flow. If not, the leg is lost.
    fn may_ask(&mut self, leg: LegId, now: Time, actions: &mut Vec<Action>) -> bool {
        let Some((_, flow)) = self.by_leg(leg) else { return false };
        let may = flow.questions.spend(QUESTIONS, now);
        if !may {
            self.misbehaved(leg, Misdeed::TooManyQuestions, now, actions);
        }
        may
    }

    /// The whole link is worth nothing: its peer does not speak the protocol, and is turned away for a while.
    fn disconnect(&mut self, link: LinkId, what: Misdeed, now: Time, actions: &mut Vec<Action>) {
        self.violation(link, what, actions);
        self.links.ban(link, now);
        actions.push(Action::Disconnect { link, reason: DisconnectReason::Malformed });
    }

    fn by_leg(&mut self, leg: LegId) -> Option<(FlowKey, &mut Flow)> {
        let key = *self.legs.get(&leg)?;
        self.flows.get_mut(&key).map(|flow| (key, flow))
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Time, actions: &mut Vec<Action>) {
        self.links.handle_timeout(now, actions);
        self.act_on_links(now, actions);
        while let Some(key) = self.timers.pop_due(now) {
            self.flow_due(key, now, actions);
        }
        self.dial_paced(now, actions);
        self.bury(now);
        self.audit();
    }

    fn act_on_links(&mut self, now: Time, actions: &mut Vec<Action>) {
        for news in self.links.take_news(now, actions) {
            let (LinkNews::Suspect(link) | LinkNews::Recovered(link) | LinkNews::Draining(link)) = news;
            let Some(peer) = self.links.peer(link) else { continue };
            let news = match news {
                LinkNews::Suspect(link) => {
                    let evidence = self.links.reason(link).map(|reason| reason.evidence);
                    News::PeerSuspect { node: peer, refused: evidence == Some(Evidence::Refusal) }
                }
                LinkNews::Recovered(_) => News::PeerRecovered(peer),
                LinkNews::Draining(_) => News::PeerDraining(peer),
            };
            if news == News::PeerRecovered(peer) {
                self.dial_recovered(peer, now, actions);
                self.move_to(peer, now, actions);
            } else {
                self.leave_link(link, now, actions);
            }
            // Also when it is heard again: while nobody good served a hop, no backup was asked for.
            self.want_backups(peer, now, actions);
            self.news.push(news);
        }
    }

    /// When something will be due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        let tombstone = self.tombstone_ends.front().map(|(time, _)| *time);
        let paced = self.paces.poll_timeout();
        [self.links.poll_timeout(), self.timers.next(), tombstone, paced].into_iter().flatten().min()
    }

    /// The flows whose next hop `peer` may serve, in the order of their keys, so that runs repeat.
    fn flows_with(&self, peer: NodeId) -> Vec<FlowKey> {
        self.served_by.get(&peer).into_iter().flatten().copied().collect()
    }

    /// A flow's next hop may be served by these from now on; returns who could before.
    fn set_candidates(&mut self, key: FlowKey, candidates: Vec<Candidate>) -> Vec<NodeId> {
        let Some(flow) = self.flows.get_mut(&key) else { return Vec::new() };
        let before: Vec<NodeId> = flow.next_hop.candidates().map(|candidate| candidate.node).collect();
        for node in &before {
            if let Some(keys) = self.served_by.get_mut(node) {
                keys.remove(&key);
            }
        }
        for candidate in &candidates {
            self.served_by.entry(candidate.node).or_default().insert(key);
        }
        flow.next_hop.replace(candidates);
        for node in &before {
            if self.served_by.get(node).is_some_and(BTreeSet::is_empty) {
                self.served_by.remove(node);
            }
        }
        before
    }

    // ---- the replay budget ----

    /// A flow's lanes may hold more or less than before.
    fn recount(&mut self, key: FlowKey) {
        let Some(flow) = self.flows.get_mut(&key) else { return };
        let charge = flow.charge();
        self.budget.moved(std::mem::replace(&mut flow.charged, charge), charge);
    }

    /// Whose readers are to be woken, as there is room for them again; to be asked whenever flows were touched.
    pub fn take_woken(&mut self) -> Option<FlowKey> {
        self.budget.take_woken()
    }

    /// What all lanes hold beyond their reserves.
    #[must_use]
    pub const fn replay_used(&self) -> u64 {
        self.budget.used()
    }

    /// Looks whether the books are right; in a small world only, as it looks at all flows.
    fn audit(&self) {
        if cfg!(debug_assertions) && self.flows.len() <= MAX_AUDITED {
            let sum: u64 = self.flows.values().map(Flow::charge).sum();
            assert_eq!(self.budget.used(), sum, "the replay budget's account is wrong");
        }
    }

    /// `peer` looks bad: flows that counted on it need somebody else.
    fn want_backups(&mut self, peer: NodeId, now: Time, actions: &mut Vec<Action>) {
        for key in self.flows_with(peer) {
            self.want_backup(key, now, actions);
        }
    }
}

impl Flow {
    fn new(splice: Splice, rights: Rights, now: Time) -> Self {
        let is_end = splice.position() != Position::Relay;
        let decides = splice.position() == Position::Origin;
        Self {
            vigil: is_end.then(|| Vigil::new(decides)),
            distrust: gray::Distrust::default(),
            questions: Spent::default(),
            attaches: Spent::default(),
            dials: Spent::default(),
            splice,
            charged: 0,
            rights,
            next_hop: NextHop::default(),
            repair: None,
            dialled_at: now,
            former_dials: 0,
            waits: false,
            dial_due: None,
            stuck_since: None,
            unserved_since: None,
            doubt_due: None,
            late_update: BTreeSet::new(),
            alone_since: None,
            orphan_told: false,
            ack_due: None,
            upkeep_due: None,
            backup_due: now,
            backup_attempts: 0,
            unprotected: false,
            is_stuck: false,
            leave_due: None,
            doubted: 0,
            cause_key: None,
            early_cause: None,
            route_wanted: false,
            route_due: None,
            route_attempts: 0,
            fruitless: None,
            serving: BTreeMap::new(),
            reroutes: BTreeMap::new(),
            failed: FailureMemory::new(records::MAX_FAILED, FAILED_LIFETIME),
        }
    }

    /// Whether nobody has carried the flow beyond this node yet, and nothing was ever repaired before it.
    fn is_opening(&self) -> bool {
        self.splice.dials() == 0 && self.is_first_path()
    }

    /// Whether nothing was ever repaired before this node.
    fn is_first_path(&self) -> bool {
        self.splice.epoch().counters().iter().all(|counter| *counter == 1)
    }

    /// What of its lanes counts against the node's budget.
    fn charge(&self) -> u64 {
        Direction::BOTH.iter().map(|direction| Budget::share(self.splice.lane(*direction).held())).sum()
    }

    /// Whether much would have to be sent again.
    fn is_bulky(&self) -> bool {
        Direction::BOTH.iter().any(|direction| self.splice.lane(*direction).held() > RESERVE_BYTES)
    }

    fn is_origin(&self) -> bool {
        self.splice.position() == Position::Origin
    }
}

#[cfg(test)]
#[expect(clippy::wildcard_enum_match_arm, reason = "tests look for what they look for")]
mod tests;
