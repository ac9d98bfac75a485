//! Whether the peers at the ends of links are alive: what each link's detector hears of, and what follows from its judgement.

use super::{LinkEvent, Links};
use crate::detector::{Outcome, Transfer};
use crate::frame::Heartbeat;
use crate::id::NodeId;
use crate::machine::{Action, DisconnectReason, LinkId, NeighbourChange, Notice};
use crate::time::Time;
use std::time::Duration;

impl Links {
    /// Some packet came over `link`.
    pub fn heard(&mut self, id: LinkId, now: Time) {
        if let Some(link) = self.links.get_mut(&id) {
            link.detector.on_traffic(now);
            // A suspect that is heard is judged at once. For all others the timer is soon enough.
            if link.suspect {
                self.judged.set(id, Some(now));
            }
        }
    }

    /// Something else than a heartbeat is sent over `link`.
    pub fn spoke(&mut self, id: LinkId, now: Time) {
        if let Some(link) = self.links.get_mut(&id) {
            link.detector.on_sent(now);
        }
    }

    /// Somebody found the peer at the end of `link` wanting: it is probed at once.
    pub fn doubt(&mut self, id: LinkId, now: Time, actions: &mut Vec<Action>) {
        if let Some(link) = self.links.get_mut(&id) {
            link.detector.on_hint(now);
            self.judge(id, now, actions);
        }
    }

    /// The network says that the peer at the end of `link` can't be reached.
    pub fn refused(&mut self, id: LinkId, now: Time, actions: &mut Vec<Action>) {
        if let Some(link) = self.links.get_mut(&id) {
            link.detector.on_refusal(now);
            self.judge(id, now, actions);
        }
    }

    /// Packets of `link` were lost.
    pub fn lossy(&mut self, id: LinkId, counted: Transfer, now: Time, actions: &mut Vec<Action>) {
        if let Some(link) = self.links.get_mut(&id) {
            link.detector.on_losses(counted, now);
            self.judge(id, now, actions);
        }
    }

    /// A heartbeat came over `link`.
    pub fn heartbeat(&mut self, id: LinkId, heartbeat: &Heartbeat, now: Time, actions: &mut Vec<Action>) {
        if let Some(link) = self.links.get_mut(&id) {
            link.detector.on_heartbeat(heartbeat, now);
            self.judge(id, now, actions);
        }
    }

    /// Who dies seldom dies alone (a host, a rack, a zone): the peers of all links are asked whether they live.
    pub(super) fn ask_all(&mut self, now: Time, actions: &mut Vec<Action>) {
        for id in self.ids() {
            let turn = id.0.to_le_bytes()[0];
            if self.links.get_mut(&id).is_some_and(|link| link.detector.ask(turn, now)) {
                self.judge(id, now, actions);
            }
        }
    }

    /// Judges the links that are due, and those that are about due: then this node wakes once for many.
    pub(super) fn judge_due(&mut self, now: Time, actions: &mut Vec<Action>) {
        let soon = now + self.min_interval.slack(self.busy);
        let due: Vec<LinkId> = std::iter::from_fn(|| self.judged.pop_due(soon)).collect();
        for id in due {
            if let Some(link) = self.links.get_mut(&id) {
                link.detector.go_along(now);
            }
            self.judge(id, now, actions);
        }
    }

    pub(super) fn judge(&mut self, id: LinkId, now: Time, actions: &mut Vec<Action>) {
        let min_interval = self.min_interval.interval(self.busy);
        let Some(link) = self.links.get_mut(&id) else { return };
        // It may be another than the last time, as links come and go.
        link.detector.set_min_interval(min_interval, now);
        while let Some(outcome) = link.detector.poll(now) {
            let silence = now.since(link.detector.last_heard());
            let change = match outcome {
                Outcome::SendHeartbeat(heartbeat) => {
                    actions.push(Action::Heartbeat { link: id, heartbeat });
                    continue;
                }
                Outcome::Suspect => {
                    link.suspect = true;
                    self.ask_others = true;
                    self.events.push(LinkEvent::Suspect(id));
                    NeighbourChange::Suspect
                }
                Outcome::Recovered => {
                    link.suspect = false;
                    self.events.push(LinkEvent::Recovered(id));
                    NeighbourChange::Recovered
                }
                Outcome::Down => {
                    actions.push(Action::Disconnect { link: id, reason: DisconnectReason::Down });
                    NeighbourChange::Down
                }
            };
            actions.push(Action::Notify(neighbour(link.peer, change, silence)));
        }
        self.judged.set(id, link.detector.poll_timeout());
    }
}

pub(super) fn neighbour(node: NodeId, change: NeighbourChange, silence: Duration) -> Notice {
    Notice::Neighbour { node, change, silence }
}
