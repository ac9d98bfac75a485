//! The flows of a node, and the indices over them.

use super::budget::Budget;
use super::config::FlowsConfig;
use super::flow::Flow;
use super::flow::next::Event;
use super::flows_event::FlowsEvent;
use super::key::FlowKey;
use super::pace::Paces;
use super::rights::KeyRing;
use super::tasks::Tasks;
use crate::crypto::Sealed;
use crate::frame::CloseCode;
use crate::id::NodeId;
use crate::links::{Links, Standing};
use crate::machine::LinkId;
use crate::record::{Candidate, Scope};
use crate::splice::{LegId, Splice};
use crate::time::{NetworkTime, Time};
use crate::timers::Timers;
use foldhash::{HashMap, HashMapExt};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Flows up to which the budget's books are checked in debug builds.
const MAX_AUDITED: usize = 32;

/// All flows at one node, whatever its part in each, and the links that carry them.
#[derive(Debug)]
pub struct Flows {
    pub(super) me: NodeId,
    pub(super) is_target: bool,
    /// Whether this node will leave: it takes no new flows.
    pub(super) draining: bool,
    pub(super) config: FlowsConfig,
    pub(super) time: NetworkTime,
    pub(super) ring: KeyRing,
    pub(super) links: Links,
    pub(super) flows: HashMap<FlowKey, Flow>,
    pub(super) legs: BTreeMap<LegId, FlowKey>,
    /// Flows that wait for a link to a candidate.
    pub(super) waiting: HashMap<NodeId, BTreeSet<FlowKey>>,
    /// The flows whose next hop a node may serve.
    pub(super) served_by: HashMap<NodeId, BTreeSet<FlowKey>>,
    pub(super) budget: Budget,
    pub(super) paces: Paces,
    pub(super) timers: Timers<FlowKey>,
    pub(super) tasks: Tasks,
    pub(super) tombstones: HashMap<FlowKey, (CloseCode, Option<Sealed>)>,
    pub(super) tombstone_ends: VecDeque<(Time, FlowKey)>,
    /// When which backup was told of which records.
    pub(super) prepared: HashMap<(LinkId, Scope, u32), Time>,
    pub(super) events: Vec<FlowsEvent>,
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
            tasks: Tasks::default(),
            tombstones: HashMap::new(),
            tombstone_ends: VecDeque::new(),
            prepared: HashMap::new(),
            events: Vec::new(),
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

    /// The node's neighbours, to ask for links.
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
    pub const fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// What happened that the owner has to act on; to be asked until there is nothing.
    pub fn take_events(&mut self) -> Vec<FlowsEvent> {
        std::mem::take(&mut self.events)
    }

    /// A flow's splice, to look at.
    #[must_use]
    pub fn splice(&self, key: &FlowKey) -> Option<&Splice> {
        self.flows.get(key).map(|flow| &flow.splice)
    }

    pub(super) fn by_leg(&mut self, leg: LegId) -> Option<(FlowKey, &mut Flow)> {
        let key = *self.legs.get(&leg)?;
        self.flows.get_mut(&key).map(|flow| (key, flow))
    }

    pub(super) fn standing(&self, node: NodeId) -> Standing {
        // A small pool may put this relay on the next hop as well. It can't dial itself.
        if node == self.me { Standing::Failed } else { self.links.standing(node) }
    }

    /// The flows whose next hop `peer` may serve, in the order of their keys, so that runs repeat.
    pub(super) fn flows_with(&self, peer: NodeId) -> Vec<FlowKey> {
        self.served_by.get(&peer).into_iter().flatten().copied().collect()
    }

    /// A flow's next hop may be served by these from now on; returns who could before.
    pub(super) fn set_candidates(&mut self, key: FlowKey, candidates: Vec<Candidate>) -> Vec<NodeId> {
        let Some(flow) = self.flows.get_mut(&key) else { return Vec::new() };
        let before: Vec<NodeId> = flow.candidates.iter().map(|candidate| candidate.node).collect();
        for node in &before {
            if let Some(keys) = self.served_by.get_mut(node) {
                keys.remove(&key);
            }
        }
        for candidate in &candidates {
            self.served_by.entry(candidate.node).or_default().insert(key);
        }
        flow.candidates.replace(candidates);
        for node in &before {
            if self.served_by.get(node).is_some_and(BTreeSet::is_empty) {
                self.served_by.remove(node);
            }
        }
        before
    }

    pub(super) fn stop_waiting(&mut self, key: FlowKey) {
        let Some(flow) = self.flows.get_mut(&key).filter(|flow| flow.next.waits_for_link()) else { return };
        flow.on_next(Event::NewCandidates);
        for candidate in flow.candidates.iter() {
            if let Some(keys) = self.waiting.get_mut(&candidate.node) {
                keys.remove(&key);
            }
        }
        self.waiting.retain(|_, keys| !keys.is_empty());
    }

    // ---- the replay budget ----

    /// A flow's lanes may hold more or less than before.
    pub(super) fn recount(&mut self, key: FlowKey) {
        let Some(flow) = self.flows.get_mut(&key) else { return };
        let charge = flow.charge();
        self.budget.moved(std::mem::replace(&mut flow.room.charged, charge), charge);
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
    pub(super) fn audit(&self) {
        if cfg!(debug_assertions) && self.flows.len() <= MAX_AUDITED {
            let sum: u64 = self.flows.values().map(Flow::charge).sum();
            assert_eq!(self.budget.used(), sum, "the replay budget's account is wrong");
            assert!(self.tasks.is_empty(), "something was left undone");
            assert!(self.flows.values().all(Flow::is_sound), "a next hop's books are wrong");
        }
    }
}
