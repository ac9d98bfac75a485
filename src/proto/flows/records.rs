//! How new records, and what is told of repairs, travel along a flow.
//!
//! Records come down from the origin with a tag for each of their candidates, folded on their way by every dialer. What a
//! relay did, or needs, travels up.

use super::flow::view::FAILED_LIFETIME;
use super::flows_event::FlowsEvent;
use super::key::FlowKey;
use super::table::Flows;
use super::tasks::Task;
use super::tell::control;
use crate::failure_memory::Ground;
use crate::frame::{BackupRequest, Cause, Control, Reroute, tags_fit};
use crate::id::NodeId;
use crate::machine::{Action, ChainChange, Notice, Violation};
use crate::record::{Candidate, MAX_RECORDS, Record, Scope, Tag};
use crate::splice::LegId;
use crate::time::Time;
use std::collections::BTreeSet;
use std::time::Duration;

impl Flows {
    // ---- warm links ----

    // ---- another backup ----

    /// A relay further down needs another candidate for the hop after it: passes that on to the origin.
    pub(super) fn backup_wanted(
        &mut self,
        leg: LegId,
        request: BackupRequest,
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
            actions.push(control(prev, |leg| Control::BackupWanted { leg, request }));
        }
        // From here on it is the origin's business.
        let Some(chain) = flow.rights.chain() else { return };
        let is_meant = |record: &&Record| record.scope.hop == request.hop;
        let Some(scope) = flow.rights.records().iter().find(is_meant).map(|record| record.scope) else {
            return;
        };
        // A record that was only renewed names the same, and is no answer.
        let candidates = chain.named(scope.hop, scope.version);
        if scope.version > request.version && chain.named(scope.hop, request.version) != candidates {
            // It was answered already, and the answer lost with a leg.
            tracing::debug!(flow = %key.flow, hop = request.hop, request = request.version, version = scope.version, "repeats its records");
            return self.send_down(key, &[request.hop], actions);
        }
        let unusable = candidates.iter().zip(0..8u8).filter(|(_, place)| request.unusable >> place & 1 == 1);
        // Who serves another hop lives, though it can't serve that one too.
        let unusable = unusable.map(|(candidate, _)| candidate.node);
        let unusable: Vec<NodeId> =
            unusable.filter(|node| !flow.view.serves_another(request.hop, *node)).collect();
        let active = request.active.and_then(|place| candidates.get(usize::from(place))).map(|c| c.node);
        for node in unusable {
            flow.view.note_failed(node, Ground::Hearsay, now);
        }
        if active.is_none() {
            // Nobody serves the hop, so the target may be out of reach: it is asked until it answers.
            flow.view.unserved(request.hop);
            flow.lose_sight(now);
        }
        self.schedule(key);
        self.events.push(FlowsEvent::WantsBackup { flow: key, hop: request.hop, active });
    }

    /// This target is attached to other relays than before: the origin of each flow is told, as its record of the last hop
    /// may name relays that can't serve it any more.
    pub fn tell_reattached(&self, actions: &mut Vec<Action>) {
        let mut targets: Vec<&FlowKey> = self.flows.keys().filter(|key| key.hop > 0).collect();
        // A hash map's order would make runs of the simulator differ.
        targets.sort_unstable();
        let prevs = targets.into_iter().filter_map(|key| self.flows.get(key)?.splice.prev());
        actions.extend(prevs.map(|prev| control(prev, |leg| Control::Reattached { leg })));
    }

    /// The target is attached to other relays: passes that on to the origin, which asks for the last hop's record anew.
    pub(super) fn reattached(&mut self, leg: LegId, now: Time, actions: &mut Vec<Action>) {
        if !self.may_ask(leg, now, actions) {
            return;
        }
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
            self.events.push(FlowsEvent::WantsBackup { flow: key, hop, active });
        }
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
        let next = flow.candidates.iter().map(|candidate| candidate.node);
        let mut exclude: Vec<NodeId> = next.filter(|node| !usable.contains(node)).collect();
        let lately = flow.view.failed_lately(memory, now);
        // Whoever is of use to this flow now is not excluded for what it did before.
        exclude.extend(lately.filter(|node| !usable.contains(node)));
        // A gray relay looks alive, so that it seems usable does not clear it.
        let suspects = flow.view.avoided.suspects(now).filter(|node| !exclude.contains(node));
        exclude.extend(suspects.collect::<Vec<NodeId>>());
        Some((flow.rights.records(), exclude))
    }

    /// The bootstrap gave a hop of an origin's flow another candidate.
    pub fn backup_found(&mut self, key: FlowKey, record: &Record, now: Time, actions: &mut Vec<Action>) {
        let Some(flow) = self.flows.get_mut(&key).filter(|flow| flow.is_origin()) else { return };
        let hop = record.scope.hop;
        if let Some(active) = flow.unnamed_in(record) {
            return self.events.push(FlowsEvent::WantsBackup { flow: key, hop, active: Some(active) });
        }
        let before = flow.version(hop);
        flow.rights.adopt(std::slice::from_ref(record), &[]);
        if flow.version(hop) == before {
            // The records were renewed meanwhile, or the flow goes over another chain.
            let chain = flow.rights.chain().filter(|chain| chain.open(record).is_some());
            let active = chain.and_then(|chain| chain.named(hop, before?).first().map(|first| first.node));
            let active = flow.view.serves(hop).filter(|_| active.is_some()).or(active);
            self.events.extend(active.map(|node| FlowsEvent::WantsBackup {
                flow: key,
                hop,
                active: Some(node),
            }));
        } else {
            self.candidates_changed(key, now, actions);
            self.tell_chain(key, ChainChange::BackupReplaced { hop }, actions);
            self.send_down(key, &[hop], actions);
            self.keep_warm(key, now, actions);
        }
        self.run_tasks(now, actions);
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
        self.run_tasks(now, actions);
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
            return self.disconnect(leg.link(), Violation::OutOfBounds, now, actions);
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
        // Renewed records mostly name the same: nothing is to begin anew for that.
        if flow.candidates.iter().eq(&candidates) {
            return;
        }
        self.new_candidates(key, candidates);
        self.keep_warm(key, now, actions);
        self.reconsider(key, now, actions);
        self.want_backup(key, now, actions);
        self.tasks.push(key, Task::Settle);
    }

    /// The next hop may be served by these from now on. Whoever waits for others has to dial again.
    pub(super) fn new_candidates(&mut self, key: FlowKey, candidates: Vec<Candidate>) {
        self.stop_waiting(key);
        let before = self.set_candidates(key, candidates);
        let Some(flow) = self.flows.get_mut(&key) else { return };
        // They have all the time that the former ones had: whoever has no link yet is not to be called unusable.
        flow.outage.unstuck();
        flow.backup.new_candidates();
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
        // It is told again when a relay gets a new prev. The origin knows it by then.
        if !flow.view.rerouted(reroute) {
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
            // A relay that took another's place chose whom the origin thought to serve: no news.
            if from.as_ref().map(|from| from.node) == to.as_ref().map(|to| to.node) {
                return;
            }
        } else if let Some(from) = from.as_ref().filter(|_| reroute.cause.is_failure()) {
            flow.view.note_failed(from.node, Ground::Seen(reroute.reason.evidence), now);
        }
        if let Some(to) = &to {
            flow.view.now_serves(reroute.hop, to.node);
        }
        let by = flow.noticed_by(reroute.hop);
        let record = flow.rights.records().iter().find(|record| record.scope.hop == reroute.hop);
        if let Some(active) = record.and_then(|record| flow.unnamed_in(record)) {
            let active = Some(active);
            self.events.push(FlowsEvent::WantsBackup { flow: key, hop: reroute.hop, active });
        }
        actions.push(Action::Notify(Notice::Rerouted {
            flow: key,
            reroute: Box::new(reroute),
            by,
            from,
            to,
        }));
    }

    /// prev is another: what the one before was told of repairs may have died with it, and the request for another backup, too.
    pub(super) fn repeat_reroutes(&mut self, key: FlowKey, actions: &mut Vec<Action>) {
        let Some(flow) = self.flows.get_mut(&key) else { return };
        let scopes: Vec<Scope> = flow.rights.records().iter().map(|record| record.scope).collect();
        let version = |hop| scopes.iter().find(|scope| scope.hop == hop).map(|scope| scope.version);
        let untold = flow.view.untold(version);
        let is_own = |reroute: &&Reroute| scopes.first().is_some_and(|own| own.hop == reroute.hop);
        flow.backup.set_unprotected(untold.iter().find(is_own).is_some_and(|own| own.cause.is_failure()));
        let Some(prev) = flow.splice.prev() else { return };
        for reroute in untold {
            actions.push(control(prev, |leg| Control::Rerouted { leg, reroute }));
        }
    }
}
