//! How a route stays usable: new records travel along the flow, links to candidates are kept warm, and a backup that was
//! used up is replaced.
//!
//! The node before a hop is the first to know that it needs another candidate; the origin alone knows everybody who is on
//! the chain already, may ask the bootstrap, and can compute tags. So a wish travels up to the origin, and a new record
//! comes down with a tag for each of its candidates, folded on its way by every dialer.

use super::{Flow, FlowKey, Flows, News};
use crate::failure_memory::Ground;
use crate::frame::{BackupWish, Cause, Control, Reroute, tags_fit};
use crate::id::NodeId;
use crate::links::Standing;
use crate::machine::{Action, ChainChange, LinkId, Misdeed, Notice};
use crate::record::{Candidate, MAX_RECORDS, Record, Tag};
use crate::splice::LegId;
use crate::time::Time;
use std::collections::BTreeSet;
use std::time::Duration;

/// Candidates that a hop should have: one that serves and one that stands by.
const PROTECTED: usize = 2;
/// The first pause before another backup is asked for again; doubled each time.
const FIRST_BACKUP_PAUSE: Duration = Duration::from_millis(100);
/// The pause doubles so often at most.
pub(super) const MAX_PAUSE_DOUBLINGS: u32 = 6;
/// Failed relays that an origin remembers for a flow, and for how long: by then the bootstrap has heard of it too.
pub(super) const MAX_FAILED: usize = 32;
/// See [`MAX_FAILED`].
pub const FAILED_LIFETIME: Duration = Duration::from_secs(5);
/// Backups that a node remembers having prepared.
const MAX_PREPARED: usize = 4096;

impl Flows {
    // ---- warm links ----

    /// Wishes for links to the candidates of a flow's next hop, and has the backups do the same for the hop after.
    pub(super) fn keep_warm(&mut self, key: FlowKey, now: Time, actions: &mut Vec<Action>) {
        let upkeep = self.config.upkeep;
        let Some(flow) = self.flows.get_mut(&key) else { return };
        if flow.next_hop.len() == 0 {
            return;
        }
        flow.upkeep_due = Some(now + upkeep);
        if flow.splice.is_next_answered() && flow.repair.is_none() {
            flow.next_hop.forgive_current();
        }
        for candidate in flow.next_hop.candidates() {
            if !candidate.is_target() {
                self.links.want(candidate.node, &candidate.addresses, now + upkeep * 2, now, actions);
            }
        }
        let [own, next, ..] = flow.rights.records() else { return };
        for backup in flow.next_hop.others() {
            let Some(link) = self.links.active(backup.node) else { continue };
            let known = (link, own.scope, next.scope.version);
            if self.prepared.get(&known).is_none_or(|at| now.since(*at) >= upkeep) {
                self.prepared.insert(known, now);
                let (own, next) = (Box::new(own.clone()), Box::new(next.clone()));
                actions.push(Action::Control { link, control: Control::Prepare { own, next } });
            }
        }
        if self.prepared.len() > MAX_PREPARED {
            self.prepared.retain(|_, at| now.since(*at) < upkeep);
        }
    }

    /// A link to `peer` is up: if it stands by for a flow, it is told what it has to know for that.
    pub(super) fn prepare_peer(&mut self, peer: NodeId, now: Time, actions: &mut Vec<Action>) {
        for key in self.flows_with(peer) {
            self.keep_warm(key, now, actions);
        }
    }

    /// This node may be needed as a backup: it wishes for links to the hop after its own.
    pub(super) fn prepare(
        &mut self,
        link: LinkId,
        own: &Record,
        next: &Record,
        now: Time,
        actions: &mut Vec<Action>,
    ) {
        if !own.is_bounded() || !next.is_bounded() {
            self.disconnect(link, Misdeed::OutOfBounds, now, actions);
            return;
        }
        if !self.links.may_prepare(link, now) {
            return self.disconnect(link, Misdeed::TooManyQuestions, now, actions);
        }
        let reach = self.ring.entry(own).and_then(|entry| entry.reach_next);
        let candidates = reach.and_then(|reach| next.candidates(&reach)).unwrap_or_default();
        for candidate in candidates {
            if !candidate.is_target() {
                let until = now + self.config.upkeep * 2;
                self.links.welcome(candidate.node, &candidate.addresses, until, now, actions);
            }
        }
    }

    // ---- another backup ----

    /// Asks for another candidate if one serves the next hop and none stands by.
    pub(super) fn want_backup(&mut self, key: FlowKey, now: Time, actions: &mut Vec<Action>) {
        let Some(flow) = self.flows.get(&key).filter(|flow| flow.backup_due <= now) else { return };
        if flow.is_next_unnamed() {
            return self.move_on(key, now, actions);
        }
        let current = flow.next_hop.current().filter(|_| flow.splice.is_next_answered());
        let Some(active) = current.map(|candidate| candidate.node) else { return };
        let usable = self.usable(flow);
        if usable.contains(&active) && (flow.unprotected || usable.len() < PROTECTED) {
            self.ask_for_candidates(key, Some(active), &usable, now, actions);
        }
    }

    /// Asks for other candidates as none of the present ones can be reached. The first time that can't wait.
    pub(super) fn want_candidates(&mut self, key: FlowKey, now: Time, actions: &mut Vec<Action>) {
        let Some(flow) = self.flows.get_mut(&key) else { return };
        if !flow.is_stuck {
            (flow.is_stuck, flow.backup_due, flow.backup_attempts) = (true, now, 0);
        }
        let Some(flow) = self.flows.get(&key).filter(|flow| flow.backup_due <= now) else { return };
        let mut usable = self.usable(flow);
        usable.retain(|node| self.standing(*node) == Standing::Up);
        self.ask_for_candidates(key, None, &usable, now, actions);
    }

    /// The origin asks its owner, a relay the origin.
    fn ask_for_candidates(
        &mut self,
        key: FlowKey,
        active: Option<NodeId>,
        usable: &[NodeId],
        now: Time,
        actions: &mut Vec<Action>,
    ) {
        let Some(flow) = self.flows.get_mut(&key) else { return };
        let leads_to_target = flow.next_hop.candidates().any(Candidate::is_target);
        let Some(scope) = flow.rights.records().first().map(|record| record.scope) else { return };
        if leads_to_target {
            return;
        }
        let pause = FIRST_BACKUP_PAUSE.saturating_mul(1 << flow.backup_attempts.min(MAX_PAUSE_DOUBLINGS));
        flow.backup_due = now + pause;
        flow.backup_attempts += 1;
        if flow.is_origin() {
            self.news.push(News::WantsBackup { flow: key, hop: scope.hop, active });
        } else if let Some(prev) = flow.splice.prev() {
            let unusable = flow.next_hop.candidates().zip(0..8).filter(|(c, _)| !usable.contains(&c.node));
            let wish = BackupWish {
                hop: scope.hop,
                version: scope.version,
                active: active.and_then(|node| flow.next_hop.place(node)).and_then(|n| u8::try_from(n).ok()),
                unusable: unusable.fold(0, |bits, (_, place)| bits | 1 << place),
            };
            actions.push(control(prev, |leg| Control::BackupWanted { leg, wish }));
        }
        self.schedule(key);
    }

    /// A relay further down needs another candidate for the hop after it: passes that on to the origin.
    pub(super) fn backup_wanted(
        &mut self,
        leg: LegId,
        wish: BackupWish,
        now: Time,
        actions: &mut Vec<Action>,
    ) {
        if !self.may_ask(leg, now, actions) {
            return;
        }
        let Some((key, flow)) = self.by_leg(leg).filter(|(_, flow)| flow.splice.next() == Some(leg)) else {
            return;
        };
        if let Some(prev) = flow.splice.prev() {
            actions.push(control(prev, |leg| Control::BackupWanted { leg, wish }));
        }
        let Some(chain) = flow.rights.chain() else { return };
        let is_meant = |record: &&Record| record.scope.hop == wish.hop;
        let Some(scope) = flow.rights.records().iter().find(is_meant).map(|record| record.scope) else {
            return;
        };
        let candidates = chain.named(scope.hop, scope.version);
        if scope.version > wish.version && chain.named(scope.hop, wish.version) != candidates {
            // It was answered already, and the answer lost with a leg.
            tracing::debug!(flow = %key.flow, hop = wish.hop, wish = wish.version, version = scope.version, "repeats its records");
            return self.send_down(key, &[wish.hop], actions);
        }
        let unusable = candidates.iter().zip(0..8u8).filter(|(_, place)| wish.unusable >> place & 1 == 1);
        // Who serves another hop lives, though it can't serve that one too.
        let serves =
            |node: &NodeId| flow.serving.iter().any(|(hop, serves)| *hop != wish.hop && serves == node);
        let unusable: Vec<NodeId> =
            unusable.map(|(candidate, _)| candidate.node).filter(|node| !serves(node)).collect();
        let active = wish.active.and_then(|place| candidates.get(usize::from(place))).map(|c| c.node);
        for node in unusable {
            flow.note_failed(node, Ground::Hearsay, now);
        }
        if active.is_none() {
            flow.serving.remove(&wish.hop);
            flow.lose_sight(now);
        }
        self.schedule(key);
        self.news.push(News::WantsBackup { flow: key, hop: wish.hop, active });
    }

    /// This target is attached to other relays than before: the origin of each flow is told, as its record of the last hop
    /// may name relays that can't serve it any more.
    pub fn tell_reattached(&self, actions: &mut Vec<Action>) {
        let mut targets: Vec<&FlowKey> = self.flows.keys().filter(|key| key.hop > 0).collect();
        targets.sort_unstable();
        let prevs = targets.into_iter().filter_map(|key| self.flows.get(key)?.splice.prev());
        actions.extend(prevs.map(|prev| control(prev, |leg| Control::Reattached { leg })));
    }

    /// The target is attached to other relays: passes that on to the origin, which asks for the last hop's record anew.
    pub(super) fn reattached(&mut self, leg: LegId, actions: &mut Vec<Action>) {
        let Some((key, flow)) = self.by_leg(leg).filter(|(_, flow)| flow.splice.next() == Some(leg)) else {
            return;
        };
        if let Some(prev) = flow.splice.prev() {
            actions.push(control(prev, |leg| Control::Reattached { leg }));
        }
        // The record before the target's is that of the last relay.
        let last = flow.rights.chain().and_then(|_| flow.rights.records().iter().rev().nth(1));
        if let Some(hop) = last.map(|record| record.scope.hop) {
            let active = flow.known_to_serve(hop).map(|candidate| candidate.node);
            self.news.push(News::WantsBackup { flow: key, hop, active });
        }
    }

    /// The candidates of a flow's next hop that look alive and have not failed it, the current one included.
    fn usable(&self, flow: &Flow) -> Vec<NodeId> {
        let is_usable = |(place, candidate): &(usize, &Candidate)| {
            let is_current = flow.next_hop.current_place() == Some(*place);
            let alive = self.links.standing(candidate.node) < Standing::Draining && candidate.node != self.me;
            alive && (is_current || !flow.next_hop.has_failed(*place))
        };
        let usable = flow.next_hop.candidates().enumerate().filter(is_usable);
        usable.map(|(_, candidate)| candidate.node).collect()
    }

    /// The records of an origin's flow, and the relays that no plan for it should name.
    #[must_use]
    pub fn chain(&self, key: &FlowKey, now: Time) -> Option<(&[Record], Vec<NodeId>)> {
        self.chain_lately(key, FAILED_LIFETIME, now)
    }

    /// The same, where it does not count who failed longer ago.
    #[must_use]
    pub fn chain_lately(
        &self,
        key: &FlowKey,
        memory: Duration,
        now: Time,
    ) -> Option<(&[Record], Vec<NodeId>)> {
        let flow = self.flows.get(key).filter(|flow| flow.is_origin())?;
        let usable = self.usable(flow);
        let next = flow.next_hop.candidates().map(|candidate| candidate.node);
        let mut exclude: Vec<NodeId> = next.filter(|node| !usable.contains(node)).collect();
        let lately = flow.failed.iter(now).filter(|failure| now.since(failure.since) < memory);
        exclude.extend(lately.map(|failure| failure.node).filter(|node| !usable.contains(node)));
        let suspects = flow.distrust.suspects(now).filter(|node| !exclude.contains(node));
        exclude.extend(suspects.collect::<Vec<NodeId>>());
        Some((flow.rights.records(), exclude))
    }

    /// The bootstrap gave a hop of an origin's flow another candidate.
    pub fn backup_found(&mut self, key: FlowKey, record: &Record, now: Time, actions: &mut Vec<Action>) {
        let Some(flow) = self.flows.get_mut(&key).filter(|flow| flow.is_origin()) else { return };
        let hop = record.scope.hop;
        if let Some(active) = flow.unnamed_in(record) {
            return self.news.push(News::WantsBackup { flow: key, hop, active: Some(active) });
        }
        let version =
            |flow: &Flow| flow.rights.records().iter().find(|r| r.scope.hop == hop).map(|r| r.scope.version);
        let before = version(flow);
        flow.rights.adopt(std::slice::from_ref(record), &[]);
        if version(flow) == before {
            // The records were renewed meanwhile, or the flow goes over another chain.
            let chain = flow.rights.chain().filter(|chain| chain.open(record).is_some());
            let active = chain.and_then(|chain| chain.named(hop, before?).first().map(|first| first.node));
            let active = flow.serving.get(&hop).copied().filter(|_| active.is_some()).or(active);
            self.news.extend(active.map(|node| News::WantsBackup { flow: key, hop, active: Some(node) }));
        } else {
            self.candidates_changed(key, now, actions);
            self.tell_chain(key, ChainChange::BackupReplaced { hop }, actions);
            self.send_down(key, &[hop], actions);
            self.keep_warm(key, now, actions);
        }
    }

    /// When the first record of an origin's flow expires.
    #[must_use]
    pub fn expires(&self, key: &FlowKey) -> Option<Time> {
        let flow = self.flows.get(key).filter(|flow| flow.is_origin())?;
        flow.rights.records().iter().map(|record| record.scope.expires).min()
    }

    /// The bootstrap renewed the records of an origin's flow: everybody on the chain is told.
    pub fn renewed(&mut self, key: FlowKey, records: &[Record], now: Time, actions: &mut Vec<Action>) {
        let Some(flow) = self.flows.get_mut(&key).filter(|flow| flow.is_origin()) else { return };
        flow.rights.adopt(records, &[]);
        let hops: Vec<u8> = records.iter().map(|record| record.scope.hop).collect();
        self.candidates_changed(key, now, actions);
        self.send_down(key, &hops, actions);
        self.keep_warm(key, now, actions);
    }

    // ---- records on their way ----

    /// Newer records came down along a flow: a relay keeps them, and passes on what lies beyond its next hop.
    pub(super) fn update(
        &mut self,
        leg: LegId,
        records: &[Record],
        tags: &[Vec<Tag>],
        now: Time,
        actions: &mut Vec<Action>,
    ) {
        let bounded = records.len() <= MAX_RECORDS && records.iter().all(Record::is_bounded);
        if !bounded || !tags_fit(records, tags) {
            return self.disconnect(leg.link(), Misdeed::OutOfBounds, now, actions);
        }
        if !self.may_ask(leg, now, actions) {
            return;
        }
        let Some((key, flow)) = self.by_leg(leg).filter(|(_, flow)| flow.splice.prev() == Some(leg)) else {
            return;
        };
        flow.rights.adopt(records, tags);
        let nearest = flow.rights.records().first().map_or(u8::MAX, |record| record.scope.hop);
        let beyond: Vec<u8> =
            records.iter().map(|record| record.scope.hop).filter(|hop| *hop > nearest).collect();
        self.candidates_changed(key, now, actions);
        self.send_down(key, &beyond, actions);
        self.keep_warm(key, now, actions);
    }

    /// The record of the next hop may be another: looks at its candidates anew.
    fn candidates_changed(&mut self, key: FlowKey, now: Time, actions: &mut Vec<Action>) {
        let Some(flow) = self.flows.get_mut(&key) else { return };
        let Some(candidates) = flow.rights.next_candidates() else { return };
        if flow.next_hop.candidates().eq(&candidates) {
            return;
        }
        self.new_candidates(key, candidates, now);
        self.keep_warm(key, now, actions);
        self.reconsider(key, now, actions);
        self.want_backup(key, now, actions);
        self.settle(key, now, actions);
    }

    /// The next hop may be served by these from now on. Whoever waits for others has to dial again.
    pub(super) fn new_candidates(&mut self, key: FlowKey, candidates: Vec<Candidate>, now: Time) {
        self.stop_waiting(key);
        let before = self.set_candidates(key, candidates);
        let Some(flow) = self.flows.get_mut(&key) else { return };
        flow.unprotected = false;
        // They have all the time that the former ones had: whoever has no link yet is not to be called unusable.
        (flow.stuck_since, flow.is_stuck) = (None, false);
        flow.backup_attempts = 0;
        flow.backup_due = now;
        for node in before {
            if !self.served_by.contains_key(&node) {
                self.links.release(node);
            }
        }
    }

    /// Sends this node's records of `hops` to next, with their tags, as soon as it knows the leg, and the path that the
    /// tags are for: if that has changed since next was dialled, they wait for the next dial. Those of the next hop itself
    /// stay here.
    pub(super) fn send_down(&mut self, key: FlowKey, hops: &[u8], actions: &mut Vec<Action>) {
        let Some(flow) = self.flows.get_mut(&key) else { return };
        let nearest = flow.rights.records().first().map_or(u8::MAX, |record| record.scope.hop);
        let hops: BTreeSet<u8> = hops.iter().copied().filter(|hop| *hop > nearest).collect();
        if !flow.splice.is_next_current() {
            flow.late_update.extend(hops);
            return;
        }
        let Some(next) = flow.splice.next().filter(|_| !hops.is_empty()) else { return };
        let Some(all) = flow.rights.tags(key.flow, flow.splice.dials()) else { return };
        let named =
            flow.rights.records().iter().zip(all).filter(|(record, _)| hops.contains(&record.scope.hop));
        let (records, tags) = named.map(|(record, tags)| (record.clone(), tags)).unzip();
        actions.push(control(next, |leg| Control::Update { leg, records, tags }));
    }

    /// A relay further down repaired its next hop: passes that on to the origin.
    pub(super) fn rerouted(&mut self, leg: LegId, reroute: Reroute, now: Time, actions: &mut Vec<Action>) {
        if !self.may_ask(leg, now, actions) {
            return;
        }
        let Some((key, flow)) = self.by_leg(leg).filter(|(_, flow)| flow.splice.next() == Some(leg)) else {
            return;
        };
        if flow.reroutes.insert(reroute.hop, reroute) == Some(reroute) {
            return;
        }
        if let Some(prev) = flow.splice.prev() {
            actions.push(control(prev, |leg| Control::Rerouted { leg, reroute }));
        }
        flow.watch_anew(now);
        let Some(chain) = flow.rights.chain() else { return };
        let candidates = chain.named(reroute.hop, reroute.version);
        let at = |place: u8| candidates.get(usize::from(place)).cloned();
        let (mut from, to) = (at(reroute.from), at(reroute.to));
        if reroute.cause == Cause::Followed {
            from = flow.known_to_serve(reroute.hop);
            if from.as_ref().map(|from| from.node) == to.as_ref().map(|to| to.node) {
                return;
            }
        } else if let Some(from) = from.as_ref().filter(|_| reroute.cause.is_failure()) {
            flow.note_failed(from.node, Ground::Seen(reroute.reason.evidence), now);
        }
        flow.serving.extend(to.as_ref().map(|to| (reroute.hop, to.node)));
        let by = flow.noticed_by(reroute.hop);
        let record = flow.rights.records().iter().find(|record| record.scope.hop == reroute.hop);
        if let Some(active) = record.and_then(|record| flow.unnamed_in(record)) {
            let active = Some(active);
            self.news.push(News::WantsBackup { flow: key, hop: reroute.hop, active });
        }
        actions.push(Action::Notify(Notice::Rerouted {
            flow: key,
            reroute: Box::new(reroute),
            by,
            from,
            to,
        }));
    }

    /// prev is another: what the one before was told of repairs may have died with it, and the wish for another backup, too.
    pub(super) fn repeat_reroutes(&mut self, key: FlowKey, actions: &mut Vec<Action>) {
        let Some(flow) = self.flows.get_mut(&key) else { return };
        let records = flow.rights.records();
        let is_news = |reroute: &Reroute| {
            let record = records.iter().find(|record| record.scope.hop == reroute.hop);
            record.is_some_and(|record| record.scope.version <= reroute.version)
        };
        flow.reroutes.retain(|_, reroute| is_news(reroute));
        let own = records.first().and_then(|record| flow.reroutes.get(&record.scope.hop));
        flow.unprotected = own.is_some_and(|reroute| reroute.cause.is_failure());
        let Some(prev) = flow.splice.prev() else { return };
        for reroute in flow.reroutes.values().copied() {
            actions.push(control(prev, |leg| Control::Rerouted { leg, reroute }));
        }
    }
}

/// A control message about `leg`, to whoever is at its other end.
fn control(leg: LegId, message: impl FnOnce(u32) -> Control) -> Action {
    Action::Control { link: leg.link(), control: message(leg.number()) }
}

impl Flow {
    /// Who serves the hop of `record`, if that does not name it: a relay moved on to another candidate while the bootstrap
    /// made this record around the last one. Then another record is needed.
    fn unnamed_in(&self, record: &Record) -> Option<NodeId> {
        let serves = *self.serving.get(&record.scope.hop)?;
        let candidates = self.rights.chain()?.open(record)?;
        candidates.iter().all(|candidate| candidate.node != serves).then_some(serves)
    }

    /// Who watches over `hop`, as this origin knows it: whoever serves the hop before.
    pub(super) fn noticed_by(&self, hop: u8) -> Option<Box<Candidate>> {
        self.known_to_serve(hop.checked_sub(1)?).map(Box::new)
    }

    /// Who serves a relay's hop, as this origin knows it.
    fn known_to_serve(&self, hop: u8) -> Option<Candidate> {
        let candidates = self.rights.chain()?.hops().nth(usize::from(hop).checked_sub(1)?)?;
        let serves =
            |candidate: &Candidate| self.serving.get(&hop).is_none_or(|node| *node == candidate.node);
        candidates.into_iter().find(serves)
    }

    /// A relay failed this origin's flow: it serves no hop, and no record has to name it.
    pub(super) fn note_failed(&mut self, node: NodeId, ground: Ground, now: Time) {
        self.serving.retain(|_, serves| *serves != node);
        self.failed.note(node, ground, now);
    }
}
