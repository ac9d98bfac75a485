//! What an endpoint does as a target: it keeps links to a few attachment relays, and the bootstrap up to date on which.

use super::{Asked, Endpoint};
use crate::failure_memory::{FailureMemory, Ground};
use crate::flows::Flows;
use crate::frame::Evidence;
use crate::id::NodeId;
use crate::links::{Links, Standing};
use crate::machine::{Action, Notice};
use crate::record::Candidate;
use crate::rpc::{Offer, Request};
use crate::time::Time;
use std::time::Duration;

/// How many attachment relays a target keeps: two for the last hop of each flow that leads to it, and one that may take the
/// place of either at once.
pub const ATTACHMENTS: usize = 3;
/// How many former ones it stays linked to.
const FORMER: usize = 3;
/// How long a target waits for the last of its attachment relays before it registers with what it has.
const ATTACHMENTS_TIMEOUT: Duration = Duration::from_millis(500);
/// The same when nobody can reach it through those that it registered with.
const UNREACHABLE_TIMEOUT: Duration = Duration::from_millis(20);
/// The pause before more attachment relays are asked for again.
const ATTACH_PAUSE: Duration = Duration::from_millis(300);
/// Attachment relays that a target lost, and asks for no more for as long as there are others.
const MAX_LOST: usize = 16;
/// How many relays a target tries at once, while it has too few links; those that it hopes to hear again come on top.
const MAX_TRIED: usize = 5;
const MAX_CHOSEN: usize = 16;
/// The pause after there were no more.
pub(super) const NO_MORE_PAUSE: Duration = Duration::from_secs(2);

/// What an endpoint that serves names keeps in mind.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) names: Vec<String>,
    pub(super) chosen: Vec<Candidate>,
    pub(super) lost: FailureMemory,
    pub(super) offered: Vec<NodeId>,
    /// Whether the flows' origins are to hear of the last offer once the bootstrap knows it.
    pub(super) reattached: bool,
    pub(super) ask_due: Option<Time>,
    /// Until when the bootstrap has no time.
    pub(super) ask_not_before: Time,
    pub(super) offer_due: Option<Time>,
}

impl Endpoint {
    /// Serves these names from now on. With none it keeps its lease, and what it needs to be reached soon again.
    pub fn serve(&mut self, names: Vec<String>, now: Time, actions: &mut Vec<Action>) {
        if self.target.is_none() && names.is_empty() {
            return;
        }
        let target = self.target.get_or_insert_with(|| Target::new(now));
        target.names = names;
        // The offer holds the names, so it has to be made anew.
        target.offered.clear();
        self.attach(now, actions);
    }

    /// Whether the bootstrap has taken the names that are served now.
    #[must_use]
    pub fn is_registered(&self) -> bool {
        self.target.as_ref().is_some_and(|target| !target.offered.is_empty()) && self.agent.is_up_to_date()
    }

    /// Sees to it that there are enough attachment relays, and that the bootstrap knows them.
    pub(super) fn attach(&mut self, now: Time, actions: &mut Vec<Action>) {
        let Some(target) = &mut self.target else { return };
        target.offer_due = target.offer_due.filter(|due| *due > now);
        let attached = target.attached(self.flows.links());
        let missing = ATTACHMENTS - attached.len();
        if missing > 0 && target.room(&self.flows) > 0 && target.ask_due.is_none_or(|due| due <= now) {
            target.ask_due = Some(now + ATTACH_PAUSE);
            let exclude = target.chosen.iter().map(|c| c.node).chain(target.lost.nodes(now)).collect();
            let count = u8::try_from(missing).unwrap_or(1);
            let request = Request::Attachments { count, exclude, dials: self.dials };
            self.agent.ask(Asked::Attachments, request, false, actions);
        }
        if missing == 0 {
            target.ask_due = None;
            target.offer_due = None;
            for node in target.drop_spare(&attached, self.flows.links()) {
                self.flows.links_mut().unwant(node, actions);
            }
        }
        if attached.is_empty() || attached == target.offered || target.offer_due.is_some() {
            return;
        }
        // No flow has come over others before the first offer.
        target.reattached = !target.offered.is_empty();
        target.offered.clone_from(&attached);
        let offer = Offer::Target { names: target.names.clone(), attachments: attached.clone() };
        self.agent.offer(offer, &mut self.flows, now, actions);
        actions.push(Action::Notify(Notice::Attachments { relays: attached }));
    }

    pub(super) fn attachments_found(&mut self, found: Vec<Candidate>, now: Time, actions: &mut Vec<Action>) {
        let Some(target) = &mut self.target else { return };
        for relay in found.into_iter().take(target.room(&self.flows)) {
            let is_new = target.chosen.iter().all(|chosen| chosen.node != relay.node);
            // Who has no address can't be dialled.
            if is_new && !relay.is_target() {
                self.flows.links_mut().want(relay.node, &relay.addresses, Time::MAX, now, actions);
                target.chosen.push(relay);
            }
        }
        self.attach(now, actions);
    }

    /// There is no further relay for this target: those that failed may be tried again.
    pub(super) fn no_attachments(&mut self, now: Time, actions: &mut Vec<Action>) {
        if let Some(target) = &mut self.target {
            target.lost.forgive_all();
            target.ask_due = Some(now + NO_MORE_PAUSE);
            let links = self.flows.links();
            if target.chosen.iter().all(|relay| links.standing(relay.node) == Standing::Up) {
                // Nobody else is to come, so there is nobody to wait for.
                target.offer_due = None;
            }
            self.attach(now, actions);
        }
    }

    /// An attachment relay is silent. It stays chosen for as long as its link does, as it may be heard again; meanwhile
    /// another one is looked for. Flows will come over the others at once: they are probed, as one that died on an idle link
    /// may not have been missed yet.
    pub(super) fn attachment_doubtful(&mut self, node: NodeId, now: Time, actions: &mut Vec<Action>) {
        let Some(target) = self.target.as_mut().filter(|t| t.chosen.iter().any(|c| c.node == node)) else {
            return;
        };
        for other in target.chosen.iter().filter(|other| other.node != node) {
            if let Some(link) = self.flows.links().active(other.node) {
                self.flows.links_mut().doubt(link, now, actions);
            }
        }
        let links = self.flows.links();
        let is_good =
            |c: &Candidate| links.standing(c.node) == Standing::Up && target.offered.contains(&c.node);
        let reachable = target.chosen.iter().any(is_good);
        target.look_again(reachable, now);
        self.attach(now, actions);
    }

    /// An attachment relay is lost: another one is looked for at once.
    pub(super) fn attachment_lost(
        &mut self,
        node: NodeId,
        evidence: Evidence,
        now: Time,
        actions: &mut Vec<Action>,
    ) {
        let Some(target) = &mut self.target else { return };
        if !target.chosen.iter().any(|c| c.node == node) {
            return;
        }
        target.chosen.retain(|c| c.node != node);
        target.lost.note(node, Ground::Seen(evidence), now);
        let reachable = target.chosen.iter().any(|c| target.offered.contains(&c.node));
        target.look_again(reachable, now);
        self.flows.links_mut().unwant(node, actions);
        self.attach(now, actions);
    }
}

impl Target {
    pub(super) fn new(now: Time) -> Self {
        Self {
            names: Vec::new(),
            chosen: Vec::new(),
            lost: FailureMemory::new(MAX_LOST, Duration::MAX),
            offered: Vec::new(),
            reattached: false,
            ask_due: None,
            ask_not_before: Time::ZERO,
            offer_due: Some(now + ATTACHMENTS_TIMEOUT),
        }
    }

    /// The relays to offer: those that were offered before first, so that one that was silent for a moment is not taken back
    /// for the one that took its place.
    pub(super) fn attached(&self, links: &Links) -> Vec<NodeId> {
        let up = self.chosen.iter().map(|c| c.node).filter(|node| links.standing(*node) == Standing::Up);
        let (known, new): (Vec<NodeId>, Vec<NodeId>) = up.partition(|node| self.offered.contains(node));
        known.into_iter().chain(new).take(ATTACHMENTS).collect()
    }

    /// Lets go of relays that are not needed beside the attached ones. The last of those that a link is up to stay: records
    /// of flows may name them as backups for a while.
    pub(super) fn drop_spare(&mut self, attached: &[NodeId], links: &Links) -> Vec<NodeId> {
        let spare = |c: &&Candidate| !attached.contains(&c.node);
        let mut dropped: Vec<NodeId> = self.chosen.iter().filter(spare).map(|c| c.node).collect();
        let linked: Vec<NodeId> =
            dropped.iter().rev().copied().filter(|node| links.active(*node).is_some()).take(FORMER).collect();
        dropped.retain(|node| !linked.contains(node));
        self.chosen.retain(|c| !dropped.contains(&c.node));
        dropped
    }

    /// How many more relays may be tried.
    pub(super) fn room(&self, flows: &Flows) -> usize {
        // Those that are only hoped for do not count: five dead ones kept a target from asking for others.
        let tried = self.chosen.iter().filter(|relay| flows.links().standing(relay.node) < Standing::Suspect);
        MAX_TRIED.saturating_sub(tried.count()).min(MAX_CHOSEN.saturating_sub(self.chosen.len()))
    }

    /// Whether no relay was ever named to it but such as it is attached to no more.
    pub(super) fn knows_nobody(&self, now: Time) -> bool {
        self.chosen.is_empty() && self.lost.is_empty(now) && self.offered.is_empty()
    }

    pub(super) const fn take_reattached(&mut self) -> bool {
        std::mem::replace(&mut self.reattached, false)
    }

    /// Another attachment relay is needed, the more urgently if nobody can reach this target now.
    pub(super) fn look_again(&mut self, reachable: bool, now: Time) {
        self.ask_due = Some(self.ask_not_before).filter(|at| *at > now);
        self.offer_due = Some(now + if reachable { ATTACHMENTS_TIMEOUT } else { UNREACHABLE_TIMEOUT });
    }
}
