//! Facts come in, and what is due is done.

use super::flows_event::FlowsEvent;
use super::key::FlowKey;
use super::table::Flows;
use super::tasks::Task;
use crate::frame::{CloseCode, Control, Evidence, MAX_ACKS, Why};
use crate::links::{Arrival, LinkEvent};
use crate::machine::{Action, DialFailure, Event, LinkId, Violation};
use crate::splice::LegId;
use crate::time::Time;

impl Flows {
    /// Takes a fact about links and legs.
    pub fn handle(&mut self, event: Event, now: Time, actions: &mut Vec<Action>) {
        match event {
            Event::LinkUp { link, peer, boot, dialed, rtt } => {
                let arrival = Arrival { link, peer, boot, dialed, rtt };
                // The peer's new process knows nothing of the legs on that link.
                if let Some(old) = self.links.up(arrival, now, actions) {
                    self.link_down(old, now, actions);
                }
                // It was turned away: its peer is banned, or there are too many.
                if self.links.peer(link).is_none() {
                    return;
                }
                self.events.push(FlowsEvent::PeerUp(peer));
                // Whoever links later has to hear it, too.
                if self.draining {
                    actions.push(Action::Control { link, control: Control::Draining });
                }
                // First, as whoever is dialled now need not be told to stand by.
                self.dial_waiting(peer, now);
                self.prepare_peer(peer);
                self.move_to(peer, now, actions);
            }
            Event::LinkDown { link } => self.link_down(link, now, actions),
            Event::LinkRefused { link } => self.links.refused(link, now, actions),
            Event::LinkLossy { link, counted } => self.links.lossy(link, counted, now, actions),
            Event::LinkGarbled { link } => self.disconnect(link, Violation::Garbled, now, actions),
            Event::ConnectFailed { peer, failure } => {
                // That there is no way from here says nothing of the peer.
                let is_new = self.links.connect_failed(peer, now) && failure != DialFailure::NoWay;
                self.events.push(FlowsEvent::PeerUnreachable { node: peer, is_new });
                self.waiting_failed(peer);
                self.want_backups(peer, now, actions);
            }
            Event::Heartbeat { link, heartbeat } => self.links.heartbeat(link, &heartbeat, now, actions),
            Event::Control { link, control } => {
                // Any packet is a sign of life.
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
        self.run_tasks(now, actions);
        self.audit();
    }

    fn control(&mut self, link: LinkId, control: Control, now: Time, actions: &mut Vec<Action>) {
        match control {
            Control::Acks(acks) => self.acks(link, &acks, now, actions),
            Control::Fin { leg, offset } => self.fin(LegId::new(link, leg), offset, now, actions),
            Control::Close { why, .. } if !why.is_bounded() => {
                self.disconnect(link, Violation::OutOfBounds, now, actions);
            }
            Control::Close { leg, code, why } => {
                self.leg_over(LegId::new(link, leg), code, why, now, actions);
            }
            Control::Update { leg, records, tags } => {
                self.update(LegId::new(link, leg), &records, &tags, now, actions);
            }
            Control::Rerouted { leg, reroute } => self.rerouted(LegId::new(link, leg), reroute, now, actions),
            Control::BackupWanted { leg, request } => {
                self.backup_wanted(LegId::new(link, leg), request, now, actions)
            }
            Control::Prepare { own, next } => self.prepare(link, &own, &next, now, actions),
            Control::Draining => self.links.draining(link),
            Control::Reattached { leg } => self.reattached(LegId::new(link, leg), now, actions),
            Control::Probe { leg, number } => self.probe(LegId::new(link, leg), number, now, actions),
            Control::Progress { leg, progress } => {
                self.progress(LegId::new(link, leg), progress, now, actions);
            }
            Control::Orphaned { leg, orphaned } => {
                self.orphaned(LegId::new(link, leg), orphaned, now, actions);
            }
            // What only a newer node says.
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
        // Whose turn was to come on this link has to look for another.
        for key in self.paces.remove(link) {
            self.tasks.push(key, Task::Dial);
        }
        self.events.extend(peer.filter(|peer| self.links.active(*peer).is_none()).map(FlowsEvent::PeerGone));
    }

    fn acks(&mut self, link: LinkId, acks: &[(u32, u64)], now: Time, actions: &mut Vec<Action>) {
        if acks.len() > MAX_ACKS {
            return self.disconnect(link, Violation::OutOfBounds, now, actions);
        }
        let limits = self.config.limits;
        for (number, offset) in acks {
            let leg = LegId::new(link, *number);
            // The leg may have been closed while the ack was on its way.
            let Some((key, flow)) = self.by_leg(leg) else { continue };
            match flow.splice.ack(leg, *offset) {
                Ok(direction) => {
                    flow.room.acked(direction, flow.splice.lane(direction).acked(), &limits, now);
                    self.tasks.push(key, Task::Settle);
                }
                Err(violation) => self.leg_violation(leg, violation, now, actions),
            }
        }
    }

    fn fin(&mut self, leg: LegId, offset: u64, now: Time, actions: &mut Vec<Action>) {
        let Some((key, flow)) = self.by_leg(leg) else { return };
        match flow.splice.fin(leg, offset) {
            Ok(()) => self.tasks.push(key, Task::Settle),
            Err(violation) => self.leg_violation(leg, violation, now, actions),
        }
    }

    pub(super) fn act_on_links(&mut self, now: Time, actions: &mut Vec<Action>) {
        for event in self.links.take_events(now, actions) {
            let (LinkEvent::Suspect(link) | LinkEvent::Recovered(link) | LinkEvent::Draining(link)) = event;
            let Some(peer) = self.links.peer(link) else { continue };
            let event = match event {
                LinkEvent::Suspect(link) => {
                    let evidence = self.links.reason(link).map(|reason| reason.evidence);
                    FlowsEvent::PeerSuspect { node: peer, refused: evidence == Some(Evidence::Refusal) }
                }
                LinkEvent::Recovered(_) => FlowsEvent::PeerRecovered(peer),
                LinkEvent::Draining(_) => FlowsEvent::PeerDraining(peer),
            };
            if event == FlowsEvent::PeerRecovered(peer) {
                self.dial_recovered(peer);
                self.move_to(peer, now, actions);
            } else {
                self.leave_link(link, now, actions);
            }
            // Also when it is heard again: while nobody good served a hop, no backup was asked for.
            self.want_backups(peer, now, actions);
            self.events.push(event);
        }
    }

    // ---- tasks ----

    /// Does everything that has come up, and what comes up by that. Those whose turn it is to attach do so, too.
    pub(super) fn run_tasks(&mut self, now: Time, actions: &mut Vec<Action>) {
        loop {
            while let Some((key, task)) = self.tasks.pop() {
                self.run_task(key, task, now, actions);
            }
            let Some(key) = self.paces.next(now) else { return };
            self.tasks.dial_and_settle(key);
        }
    }

    fn run_task(&mut self, key: FlowKey, task: Task, now: Time, actions: &mut Vec<Action>) {
        match task {
            Task::Dial => self.dial(key, now, actions),
            Task::MoveOn => self.move_on(key, now, actions),
            Task::KeepWarm => self.keep_warm(key, now, actions),
            // This node's own rights do not prove the attach: for the flow that is as if next had refused it.
            Task::LegFailed(leg) => self.leg_over(leg, CloseCode::Forbidden, Why::default(), now, actions),
            Task::Settle => {
                let mut keys = vec![key];
                keys.extend(std::iter::from_fn(|| self.tasks.pop_settled()));
                self.settle(&keys, now, actions);
            }
        }
    }
}
