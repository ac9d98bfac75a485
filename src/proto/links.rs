//! A node's neighbours: which links exist, which neighbours are wanted, and which are alive.
//!
//! Between two nodes one link is *active* and takes new legs. Of two simultaneous links the one dialled by the smaller
//! NodeId stays active. The other is *retired*: its legs go on, it takes no new ones, and it is closed when it has none. Both ends
//! make the same choice without a message. A link from a new process of the peer replaces the old one.
//!
//! The node that dialled a link keeps it up as long as it is wanted or carries legs. The other end never closes an idle one.
//!
//! Links do not know flows.

mod bans;
mod liveness;
mod min_interval;
mod moves;
mod wanted;

use super::allowance::{Allowance, Spent};
use super::backoff::Pauses;
use super::detector::{Config as DetectorConfig, Detector};
use super::frame::Reason;
use super::id::{BootId, NodeId};
use super::machine::{Action, DisconnectReason, LinkId, NeighbourChange};
use super::splice::LegId;
use super::time::Time;
use super::timers::Timers;
use bans::Bans;
use foldhash::{HashMap, HashMapExt};
use liveness::neighbour;
use min_interval::MinInterval;
use moves::Moves;
use std::net::SocketAddr;
use std::time::Duration;
use wanted::{Demand, WantedPeers};

pub use moves::Move;

/// Settings of [`Links`].
#[derive(Clone, Debug)]
pub struct LinksConfig {
    /// How liveness is judged.
    pub detector: DetectorConfig,
    /// Most neighbours that may be wanted, and most links; beyond, demands are ignored and peers turned away.
    pub max_links: usize,
    /// The pauses between attempts to dial a neighbour.
    pub redial: Pauses,
}

impl Default for LinksConfig {
    fn default() -> Self {
        Self {
            detector: DetectorConfig::default(),
            max_links: 4096,
            redial: Pauses::doubling(Duration::from_millis(100), Duration::from_secs(1)),
        }
    }
}

/// How good a neighbour looks, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// A link is up and the peer alive.
    Up,
    /// There is no link yet.
    Absent,
    /// A link is up, but the peer will leave.
    Draining,
    /// The peer has been silent for too long.
    Suspect,
    /// It could not be dialled the last time, or was found dead.
    Failed,
}

/// What the owner of [`Links`] has to act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// Move what goes over this link.
    Suspect(LinkId),
    /// It is as good as before.
    Recovered(LinkId),
    /// Its peer will leave: move what goes over this link in peace.
    Draining(LinkId),
}

/// A connection that has just come up.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// The link.
    pub link: LinkId,
    /// Who is at its other end.
    pub peer: NodeId,
    /// The life of the peer's process.
    pub boot: BootId,
    /// Whether this node dialled it.
    pub dialed: bool,
    /// The round trip that its handshake took.
    pub rtt: Duration,
}

#[derive(Debug)]
struct Link {
    peer: NodeId,
    boot: BootId,
    dialed: bool,
    detector: Detector,
    legs: u32,
    next_leg: u32,
    retired: bool,
    suspect: bool,
    draining: bool,
    moves: Moves,
    /// Attaches of no use, and requests for preparation, that the peer may yet send.
    errors: Spent,
    preparations: Spent,
}

/// Attaches that are refused for what they are: a node that fails leaves its neighbours with stale ones for all their flows,
/// of which there are 10,000 at most.
const ERRORS: Allowance = Allowance { burst: 10_000, per_second: 256 };
/// Preparations: one for each flow and backup in twenty seconds.
const PREPARATIONS: Allowance = Allowance { burst: 20_000, per_second: 1000 };

/// See the module's documentation.
#[derive(Debug)]
pub struct Links {
    me: NodeId,
    config: LinksConfig,
    links: HashMap<LinkId, Link>,
    /// Links that carry legs.
    busy: u32,
    min_interval: MinInterval,
    active: HashMap<NodeId, LinkId>,
    wanted_peers: WantedPeers,
    judged: Timers<LinkId>,
    bans: Bans,
    events: Vec<LinkEvent>,
    /// Whether a peer was found suspect, and the others were not asked yet.
    ask_others: bool,
}

impl Links {
    /// No links yet.
    #[must_use]
    pub fn new(me: NodeId, config: LinksConfig) -> Self {
        Self {
            me,
            links: HashMap::new(),
            busy: 0,
            min_interval: MinInterval::default(),
            active: HashMap::new(),
            wanted_peers: WantedPeers::new(config.redial),
            judged: Timers::default(),
            bans: Bans::new(config.max_links),
            config,
            events: Vec::new(),
            ask_others: false,
        }
    }

    /// Who is at the other end of a link.
    #[must_use]
    pub fn peer(&self, link: LinkId) -> Option<NodeId> {
        self.links.get(&link).map(|link| link.peer)
    }

    /// The link that takes new legs to `peer`.
    #[must_use]
    pub fn active(&self, peer: NodeId) -> Option<LinkId> {
        self.active.get(&peer).copied()
    }

    /// Whether this node dialled `link`.
    #[must_use]
    pub fn is_dialed(&self, link: LinkId) -> Option<bool> {
        self.links.get(&link).map(|link| link.dialed)
    }

    /// Whether there is a link to `peer` that this node dialled.
    #[must_use]
    pub fn has_dialled(&self, peer: NodeId) -> bool {
        self.active(peer).and_then(|link| self.is_dialed(link)) == Some(true)
    }

    /// How good a neighbour `peer` looks.
    #[must_use]
    pub fn standing(&self, peer: NodeId) -> Standing {
        match self.active(peer) {
            Some(link) => self.standing_over(link),
            None if self.wanted_peers.has_failed(peer) => Standing::Failed,
            None => Standing::Absent,
        }
    }

    /// The same over one link to it, which may not be the active one.
    #[must_use]
    pub fn standing_over(&self, link: LinkId) -> Standing {
        match self.links.get(&link) {
            Some(link) if link.suspect => Standing::Suspect,
            Some(link) if link.draining => Standing::Draining,
            Some(_) => Standing::Up,
            None => Standing::Failed,
        }
    }

    /// When the peer at the other end of `link` was last heard.
    #[must_use]
    pub fn last_heard(&self, link: LinkId) -> Option<Time> {
        self.links.get(&link).map(|link| link.detector.last_heard())
    }

    /// Why the peer at the other end of `link` was found suspect, the last time.
    #[must_use]
    pub fn reason(&self, link: LinkId) -> Option<Reason> {
        self.links.get(&link).and_then(|link| link.detector.reason())
    }

    /// How many links there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.links.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.links.is_empty()
    }

    // ---- links come and go ----

    /// A connection is up. Returns the link to the peer's former life, which is to be counted as down.
    pub fn up(&mut self, arrival: Arrival, now: Time, actions: &mut Vec<Action>) -> Option<LinkId> {
        let Arrival { link: id, peer, boot, dialed, rtt } = arrival;
        if let Some(until) = self.bans.until(peer, now) {
            self.wanted_peers.banned(peer, until);
            actions.push(Action::Disconnect { link: id, reason: DisconnectReason::Malformed });
            return None;
        }
        self.wanted_peers.up(peer);
        if self.links.len() >= self.config.max_links {
            actions.push(Action::Disconnect { link: id, reason: DisconnectReason::Overloaded });
            return None;
        }
        let detector = Detector::new(self.config.detector, rtt, now);
        // The dialer's numbers are even, so that both ends can open legs without asking each other.
        let next_leg = u32::from(!dialed);
        let (retired, suspect, draining) = (false, false, false);
        let (errors, preparations) = (Spent::default(), Spent::default());
        let link = Link {
            peer,
            boot,
            dialed,
            detector,
            legs: 0,
            next_leg,
            retired,
            suspect,
            draining,
            moves: Moves::default(),
            errors,
            preparations,
        };
        self.links.insert(id, link);
        let superseded = self.choose_active(id, peer, actions);
        self.judge(id, now, actions);
        actions.push(Action::Notify(neighbour(peer, NeighbourChange::Up, Duration::ZERO)));
        superseded
    }

    /// Which of two links to a peer is active from now on.
    fn choose_active(&mut self, new: LinkId, peer: NodeId, actions: &mut Vec<Action>) -> Option<LinkId> {
        let old = self.active.insert(peer, new)?;
        let (boots, dialed) = match (self.links.get(&old), self.links.get(&new)) {
            (Some(old), Some(new)) => ((old.boot, new.boot), (old.dialed, new.dialed)),
            _ => return None,
        };
        // A new process of the peer knows nothing of the legs on the old link.
        if boots.0 != boots.1 {
            actions.push(Action::Disconnect { link: old, reason: DisconnectReason::Superseded });
            return Some(old);
        }
        let old_stays = dialed.0 != dialed.1 && dialed.0 == (self.me < peer);
        let (stays, retired) = if old_stays { (old, new) } else { (new, old) };
        self.active.insert(peer, stays);
        if let Some(link) = self.links.get_mut(&retired) {
            link.retired = true;
        }
        self.close_if_unneeded(retired, actions);
        None
    }

    /// A connection is no more. Returns who was at its end.
    pub fn down(&mut self, id: LinkId, now: Time) -> Option<NodeId> {
        let link = self.links.remove(&id)?;
        self.busy -= u32::from(link.legs > 0);
        self.judged.set(id, None);
        // The end of a retired link says nothing of the peer, which has another.
        if self.active.get(&link.peer) == Some(&id) {
            self.active.remove(&link.peer);
            let again = self.bans.until(link.peer, now).unwrap_or(now);
            self.wanted_peers.lost(link.peer, link.suspect, again);
        }
        Some(link.peer)
    }

    /// A leg is to be opened on `link`: its number there.
    pub fn open_leg(&mut self, id: LinkId, now: Time) -> Option<LegId> {
        let link = self.links.get_mut(&id)?;
        let number = link.next_leg;
        link.next_leg = number.checked_add(2)?;
        self.leg_added(id, now);
        Some(LegId::new(id, number))
    }

    /// Whether the peer may call a new leg on `link` by this number.
    #[must_use]
    pub fn may_name(&self, leg: LegId) -> bool {
        self.links.get(&leg.link()).is_some_and(|link| leg.number() % 2 == u32::from(link.dialed))
    }

    // ---- violations ----

    /// The peer at the end of `link` broke the protocol: it is turned away for a while, the longer the more often.
    pub fn ban(&mut self, id: LinkId, now: Time) {
        let Some(peer) = self.peer(id) else { return };
        self.bans.add(peer, now);
        self.wanted_peers.blame(peer, true);
    }

    /// Whether the peer at the end of `link` may have sent another attach that is of no use.
    pub fn may_err(&mut self, id: LinkId, now: Time) -> bool {
        self.links.get_mut(&id).is_none_or(|link| link.errors.spend(ERRORS, now))
    }

    /// Whether it may have this node prepare for another flow.
    pub fn may_prepare(&mut self, id: LinkId, now: Time) -> bool {
        self.links.get_mut(&id).is_none_or(|link| link.preparations.spend(PREPARATIONS, now))
    }

    /// `link` carries one leg more.
    pub fn leg_added(&mut self, id: LinkId, now: Time) {
        if let Some(link) = self.links.get_mut(&id) {
            self.busy += u32::from(link.legs == 0);
            link.legs += 1;
            link.detector.set_busy(true, now);
            self.judged.set(id, link.detector.poll_timeout());
        }
    }

    /// `link` carries one leg less.
    pub fn leg_removed(&mut self, id: LinkId, now: Time, actions: &mut Vec<Action>) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let was_busy = link.legs > 0;
        link.legs = link.legs.saturating_sub(1);
        if link.legs == 0 {
            self.busy -= u32::from(was_busy);
            link.detector.set_busy(false, now);
            self.judged.set(id, link.detector.poll_timeout());
            self.close_if_unneeded(id, actions);
        }
    }

    /// Closes a link without legs that is retired, or that this node dialled and no longer wants.
    fn close_if_unneeded(&mut self, id: LinkId, actions: &mut Vec<Action>) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let unwanted = link.dialed && !self.wanted_peers.contains(link.peer);
        if link.legs == 0 && (link.retired || unwanted) {
            // It takes a moment to close, in which no new leg may use it.
            link.retired = true;
            if self.active.get(&link.peer) == Some(&id) {
                self.active.remove(&link.peer);
            }
            actions.push(Action::Disconnect { link: id, reason: DisconnectReason::Idle });
        }
    }

    // ---- who is wanted ----

    /// `peer` is wanted as a neighbour until `until`, at least: if it can't be dialled, that is tried again and again.
    pub fn want(
        &mut self,
        peer: NodeId,
        addresses: &[SocketAddr],
        until: Time,
        now: Time,
        actions: &mut Vec<Action>,
    ) {
        self.demand(peer, Demand { addresses: addresses.to_vec(), until, needed: true }, now, actions);
    }

    /// `peer` may be wanted before `until`: a link to it is welcome, but worth one attempt only.
    pub fn welcome(
        &mut self,
        peer: NodeId,
        addresses: &[SocketAddr],
        until: Time,
        now: Time,
        actions: &mut Vec<Action>,
    ) {
        self.demand(peer, Demand { addresses: addresses.to_vec(), until, needed: false }, now, actions);
    }

    /// Nobody here counts on `peer` any more: a link to it stays for as long as it was wanted.
    pub fn release(&mut self, peer: NodeId) {
        self.wanted_peers.release(peer);
    }

    fn demand(&mut self, peer: NodeId, demand: Demand, now: Time, actions: &mut Vec<Action>) {
        let room = self.wanted_peers.len() < self.config.max_links || self.wanted_peers.contains(peer);
        // A small pool may name this very node as a candidate.
        if peer != self.me && room && self.wanted_peers.add(peer, demand) {
            self.connect(peer, now, actions);
        }
    }

    /// `peer` is wanted no more.
    pub fn unwant(&mut self, peer: NodeId, actions: &mut Vec<Action>) {
        self.wanted_peers.remove(peer);
        if let Some(link) = self.active(peer) {
            self.close_if_unneeded(link, actions);
        }
    }

    fn connect(&mut self, peer: NodeId, now: Time, actions: &mut Vec<Action>) {
        if self.active.contains_key(&peer) {
            self.wanted_peers.rest(peer, now);
        } else if let Some(addresses) = self.wanted_peers.dial(peer) {
            actions.push(Action::Connect { peer, addresses });
        }
    }

    /// Dialling `peer` came to nothing. Returns whether it looked good until now.
    pub fn connect_failed(&mut self, peer: NodeId, now: Time) -> bool {
        self.wanted_peers.failed(peer, now)
    }

    // ---- what is due, and what follows ----

    /// The peer at the end of `link` says that it will leave.
    pub fn draining(&mut self, id: LinkId) {
        if let Some(link) = self.links.get_mut(&id).filter(|link| !link.draining) {
            link.draining = true;
            self.events.push(LinkEvent::Draining(id));
        }
    }

    /// All links, in the order in which they came up.
    pub fn ids(&self) -> Vec<LinkId> {
        let mut ids: Vec<LinkId> = self.links.keys().copied().collect();
        ids.sort_unstable();
        ids
    }

    /// What the owner has to act on; to be asked after every input until there is nothing.
    pub fn take_events(&mut self, now: Time, actions: &mut Vec<Action>) -> Vec<LinkEvent> {
        if std::mem::take(&mut self.ask_others) {
            self.ask_all(now, actions);
        }
        std::mem::take(&mut self.events)
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Time, actions: &mut Vec<Action>) {
        if let Some(due) = self.judged.next().filter(|due| *due <= now) {
            self.min_interval.note(due, now);
            self.judge_due(now, actions);
        }
        while let Some((peer, has_ended)) = self.wanted_peers.pop_due(now) {
            if has_ended {
                self.unwant(peer, actions);
            } else {
                self.connect(peer, now, actions);
            }
        }
    }

    /// When something will be due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        [self.judged.next(), self.wanted_peers.next_due()].into_iter().flatten().min()
    }
}
