//! How a route stays usable: new records travel along the flow, links to candidates are kept warm, and a backup that was
//! used up is replaced.
//!
//! Only the node before a hop asks for another candidate, and only the origin can compute the tags that go with it. So a
//! new record travels up to the origin, and comes down again with a tag for each candidate, folded on its way by every
//! dialer. Whoever holds it with its tags uses it.

use super::{BackupWish, Flow, FlowKey, Flows, News, Rights};
use crate::proto::frame::{CloseCode, Control, Reroute, tags_fit};
use crate::proto::id::{ChainId, NodeId};
use crate::proto::links::Standing;
use crate::proto::machine::{Action, ChainChange, LinkId, Misdeed, Notice};
use crate::proto::record::{Candidate, MAX_RECORDS, Record, Route, Tag};
use crate::proto::splice::LegId;
use crate::proto::time::Time;
use std::time::Duration;

/// Candidates that a hop should have: one that serves and one that stands by.
const PROTECTED: usize = 2;
/// The first pause before another backup is asked for again; doubled each time.
const FIRST_BACKUP_PAUSE: Duration = Duration::from_millis(100);
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
        let prepare = flow.rights.prepare().zip(flow.rights.records().first().map(|record| record.scope));
        let current = flow.next_hop.current().map(|candidate| candidate.node);
        let candidates: Vec<Candidate> = flow.next_hop.candidates().cloned().collect();
        for candidate in candidates {
            if let Some(address) = candidate.address {
                self.links.want(candidate.node, address, now + upkeep * 3, now, actions);
            }
            let Some((control, scope)) = prepare.clone() else { continue };
            let Some(link) = self.links.active(candidate.node) else { continue };
            let known = (candidate.node, scope);
            let is_due = self.prepared.get(&known).is_none_or(|at| now.since(*at) >= upkeep);
            if Some(candidate.node) != current && is_due {
                self.prepared.insert(known, now);
                actions.push(Action::Control { link, control });
            }
        }
        if self.prepared.len() > MAX_PREPARED {
            self.prepared.retain(|_, at| now.since(*at) < upkeep);
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
            self.disconnect(link, Misdeed::OutOfBounds, actions);
            return;
        }
        let reach = self.ring.entry(own).and_then(|entry| entry.reach_next);
        let candidates = reach.and_then(|reach| next.candidates(&reach)).unwrap_or_default();
        for candidate in candidates {
            if let Some(address) = candidate.address {
                self.links.want(candidate.node, address, now + self.config.upkeep * 3, now, actions);
            }
        }
    }

    // ---- another backup ----

    /// Asks the owner for another candidate if the next hop has none standing by.
    pub(super) fn want_backup(&mut self, key: FlowKey, now: Time) {
        let Some(flow) = self.flows.get(&key) else { return };
        let is_target = flow.next_hop.candidates().any(|candidate| candidate.address.is_none());
        if is_target || flow.backup_due > now || self.usable(flow).len() >= PROTECTED {
            return;
        }
        let Some(flow) = self.flows.get_mut(&key) else { return };
        flow.backup_due = now + FIRST_BACKUP_PAUSE.saturating_mul(1 << flow.backup_attempts.min(10));
        flow.backup_attempts += 1;
        self.news.push(News::WantsBackup(key));
        self.schedule(key);
    }

    /// The candidates of a flow's next hop that look alive and have not failed it, the current one included.
    fn usable(&self, flow: &Flow) -> Vec<NodeId> {
        let is_usable = |(place, candidate): &(usize, &Candidate)| {
            let is_current = flow.next_hop.current_place() == Some(*place);
            let alive = self.links.standing(candidate.node) < Standing::Suspect;
            alive && (is_current || !flow.next_hop.has_failed(*place))
        };
        let usable = flow.next_hop.candidates().enumerate().filter(is_usable);
        usable.map(|(_, candidate)| candidate.node).collect()
    }

    /// What to ask the bootstrap on [`News::WantsBackup`].
    #[must_use]
    pub fn backup_wish(&self, key: &FlowKey) -> Option<BackupWish> {
        let flow = self.flows.get(key)?;
        let usable = self.usable(flow);
        let active =
            flow.next_hop.current().map(|candidate| candidate.node).filter(|node| usable.contains(node));
        let is_unusable = |candidate: &&Candidate| !usable.contains(&candidate.node);
        let mut exclude: Vec<NodeId> =
            flow.next_hop.candidates().filter(is_unusable).map(|candidate| candidate.node).collect();
        exclude.push(self.me);
        exclude.extend(flow.splice.prev().and_then(|leg| self.links.peer(leg.link())));
        let records = flow.rights.records().to_vec();
        Some(BackupWish { own: flow.rights.own_record(), records, active, exclude })
    }

    /// The chain whose flows a wish speaks for.
    #[must_use]
    pub fn chain(&self, key: &FlowKey) -> Option<ChainId> {
        self.flows.get(key)?.rights.records().first().map(|record| record.scope.chain)
    }

    /// The bootstrap replaced a candidate: every flow on that chain whose next hop it is sends the record up to its
    /// origin, or, at the origin, uses it.
    pub fn backup_found(&mut self, record: &Record, now: Time, actions: &mut Vec<Action>) {
        let is_concerned = |flow: &Flow| {
            let next = flow.rights.records().first().map(|next| next.scope);
            next.is_some_and(|next| next.chain == record.scope.chain && next.hop == record.scope.hop)
        };
        let concerned = self.flows.iter().filter(|(_, flow)| is_concerned(flow));
        let keys: Vec<FlowKey> = concerned.map(|(key, _)| *key).collect();
        for key in keys {
            let Some(flow) = self.flows.get(&key) else { continue };
            if flow.is_origin() {
                self.adopt_at_origin(key, std::slice::from_ref(record), now, actions);
            } else if let Some(prev) = flow.splice.prev() {
                send_up(prev, vec![record.clone()], actions);
            }
        }
    }

    // ---- records on their way ----

    /// Newer records came along a flow.
    pub(super) fn update(
        &mut self,
        leg: LegId,
        records: Vec<Record>,
        tags: Vec<Vec<Tag>>,
        now: Time,
        actions: &mut Vec<Action>,
    ) {
        let bounded = records.len() <= MAX_RECORDS && records.iter().all(Record::is_bounded);
        if !bounded || !(tags.is_empty() || tags_fit(&records, &tags)) {
            self.disconnect(leg.link(), Misdeed::OutOfBounds, actions);
            return;
        }
        let Some((key, flow)) = self.by_leg(leg) else { return };
        let (prev, next) = (flow.splice.prev(), flow.splice.next());
        if next == Some(leg) && flow.is_origin() {
            self.adopt_at_origin(key, &records, now, actions);
        } else if next == Some(leg) {
            if let Some(prev) = prev {
                send_up(prev, records, actions);
            }
        } else if prev == Some(leg) {
            self.adopt_at_relay(key, &records, &tags, now, actions);
        }
    }

    /// The origin judges a record, keeps it if it is newer, and sends what it keeps down with tags.
    fn adopt_at_origin(&mut self, key: FlowKey, records: &[Record], now: Time, actions: &mut Vec<Action>) {
        let Some(flow) = self.flows.get_mut(&key) else { return };
        let versions = |flow: &Flow| -> Vec<u32> {
            flow.rights.records().iter().map(|record| record.scope.version).collect()
        };
        let before = versions(flow);
        flow.rights.adopt(records, &[]);
        let changed: Vec<u8> = before
            .into_iter()
            .zip(versions(flow))
            .zip(1..)
            .filter(|((a, b), _)| a != b)
            .map(|(_, hop)| hop)
            .collect();
        self.candidates_changed(key, now, actions);
        for hop in changed {
            self.tell_chain(key, ChainChange::BackupReplaced { hop }, actions);
        }
        let hops: Vec<u8> = records.iter().map(|record| record.scope.hop).filter(|hop| *hop > 1).collect();
        self.send_down(key, &hops, actions);
    }

    fn adopt_at_relay(
        &mut self,
        key: FlowKey,
        records: &[Record],
        tags: &[Vec<Tag>],
        now: Time,
        actions: &mut Vec<Action>,
    ) {
        let Some(flow) = self.flows.get_mut(&key) else { return };
        flow.rights.adopt(records, tags);
        let nearest = flow.rights.records().first().map_or(u8::MAX, |record| record.scope.hop);
        self.candidates_changed(key, now, actions);
        let beyond: Vec<u8> =
            records.iter().map(|record| record.scope.hop).filter(|hop| *hop > nearest).collect();
        self.send_down(key, &beyond, actions);
    }

    /// The record of the next hop may be another: looks at its candidates anew.
    fn candidates_changed(&mut self, key: FlowKey, now: Time, actions: &mut Vec<Action>) {
        let Some(flow) = self.flows.get_mut(&key) else { return };
        let Some(candidates) = flow.rights.next_candidates() else { return };
        if flow.next_hop.candidates().eq(&candidates) {
            return;
        }
        flow.next_hop.replace(candidates);
        flow.backup_attempts = 0;
        flow.backup_due = now;
        self.keep_warm(key, now, actions);
        self.settle(key, now, actions);
    }

    /// Sends this node's records of `hops` to next, with their tags.
    fn send_down(&self, key: FlowKey, hops: &[u8], actions: &mut Vec<Action>) {
        let Some(flow) = self.flows.get(&key).filter(|_| !hops.is_empty()) else { return };
        let Some(next) = flow.splice.next() else { return };
        let Some(all) = flow.rights.tags(key.flow, flow.splice.dials()) else { return };
        let named =
            flow.rights.records().iter().zip(all).filter(|(record, _)| hops.contains(&record.scope.hop));
        let (records, tags) = named.map(|(record, tags)| (record.clone(), tags)).unzip();
        let control = Control::Update { leg: next.number(), records, tags };
        actions.push(Action::Control { link: next.link(), control });
    }

    /// A relay further down repaired its next hop: passes that on to the origin.
    pub(super) fn rerouted(&mut self, leg: LegId, reroute: Reroute, actions: &mut Vec<Action>) {
        let Some((key, flow)) = self.by_leg(leg) else { return };
        if flow.splice.next() != Some(leg) {
            return;
        }
        if let Some(prev) = flow.splice.prev() {
            let control = Control::Rerouted { leg: prev.number(), reroute };
            actions.push(Action::Control { link: prev.link(), control });
        }
        if let Rights::Origin { route } = &flow.rights {
            let hop = route.records.iter().find(|record| record.scope.hop == reroute.hop);
            let named = hop.filter(|record| record.scope.version == reroute.version);
            let candidates = named.and_then(|record| route.secret.open(record)).unwrap_or_default();
            let at = |place: u8| candidates.get(usize::from(place)).cloned();
            let (from, to) = (at(reroute.from), at(reroute.to));
            actions.push(Action::Notify(Notice::Rerouted { flow: key, reroute, from, to }));
        }
    }

    // ---- the origin's routes ----

    /// The origin has another route for a flow: it goes on over that one.
    pub fn reroute(&mut self, key: FlowKey, route: Route, now: Time, actions: &mut Vec<Action>) {
        let same_origin = route.scope().is_some_and(|scope| scope.origin == key.origin);
        let Some(flow) = self.flows.get_mut(&key).filter(|flow| flow.is_origin() && same_origin) else {
            return;
        };
        let rights = Rights::Origin { route };
        let Some(candidates) = rights.next_candidates() else { return };
        flow.rights = rights;
        flow.next_hop.replace(candidates);
        flow.route_wanted = false;
        self.tell_chain(key, ChainChange::Rebuilt, actions);
        self.keep_warm(key, now, actions);
        if let Some(leg) = self.flows.get_mut(&key).and_then(|flow| flow.splice.leave_next()) {
            self.drop_leg(leg, CloseCode::Moved, now, actions);
        }
        self.stop_waiting(key);
        self.dial(key, now, actions);
        self.settle(key, now, actions);
    }

    /// Neighbours that a flow's next hop may not be replaced by.
    #[must_use]
    pub fn doubtful(&self, key: &FlowKey) -> Vec<NodeId> {
        let Some(flow) = self.flows.get(key) else { return Vec::new() };
        let usable = self.usable(flow);
        flow.next_hop
            .candidates()
            .map(|candidate| candidate.node)
            .filter(|node| !usable.contains(node))
            .collect()
    }

    /// No other route was to be had: the origin's flow may ask again later.
    pub fn route_not_found(&mut self, key: FlowKey) {
        if let Some(flow) = self.flows.get_mut(&key) {
            flow.route_wanted = false;
        }
    }

    /// Tells the application what the chain of its flow looks like.
    pub fn tell_chain(&self, key: FlowKey, change: ChainChange, actions: &mut Vec<Action>) {
        let Some(flow) = self.flows.get(&key) else { return };
        let Rights::Origin { route } = &flow.rights else { return };
        let mut hops = route.open().unwrap_or_default();
        hops.pop();
        actions.push(Action::Notify(Notice::Chain { flow: key, hops, change }));
    }
}

fn send_up(prev: LegId, records: Vec<Record>, actions: &mut Vec<Action>) {
    let control = Control::Update { leg: prev.number(), records, tags: Vec::new() };
    actions.push(Action::Control { link: prev.link(), control });
}
