//! The relay's machine: flows pass through it, and the bootstrap knows it as a member of the pool.

use super::agent::{AgentConfig, BootstrapAgent};
use super::enrolment;
use super::flows::{Flows, FlowsConfig, FlowsEvent};
use super::id::NodeId;
use super::machine::{Action, Event, Machine, Notice};
use super::rpc::{Load, Offer};
use super::time::Time;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

/// A process that was stopped for so long may have been found silent by a neighbour.
const STOPPED: Duration = Duration::from_millis(25);

/// A relay. Its part in each flow is [`Flows`]' business, its lease and its questions the bootstrap agent's.
#[derive(Debug)]
pub struct Relay {
    flows: Flows,
    agent: BootstrapAgent<Infallible>,
    offer: Offer,
    stage: Stage,
}

/// How far a relay has got with its leaving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Serving,
    Draining,
    Drained,
}

impl Relay {
    /// A relay that will offer this to the bootstrap.
    #[must_use]
    pub fn new(me: NodeId, flows: FlowsConfig, agent: AgentConfig, offer: Offer) -> Self {
        let (flows, agent) = (Flows::new(me, false, flows), BootstrapAgent::new(agent));
        Self { flows, agent, offer, stage: Stage::Serving }
    }

    /// Starts to ask for a lease.
    pub fn start(&mut self, now: Time, actions: &mut Vec<Action>) {
        self.agent.offer(self.offer.clone(), &mut self.flows, now, actions);
    }

    /// It is dialled at these addresses from now on, the preferred one first: the bootstrap hears of it at once.
    pub fn set_addresses(&mut self, new: Vec<SocketAddr>, now: Time, actions: &mut Vec<Action>) {
        if let Offer::Relay { addresses, .. } = &mut self.offer {
            *addresses = new;
            self.agent.offer(self.offer.clone(), &mut self.flows, now, actions);
        }
    }

    /// How busy its machine is, for the next heartbeat. Its flows it counts itself.
    pub const fn set_load(&mut self, load: Load) {
        self.agent.set_load(load);
    }

    /// How often what has happened to its lease.
    #[must_use]
    pub fn enrolment_counters(&self) -> enrolment::Counters {
        self.agent.enrolment_counters()
    }

    /// Whether it has a lease, as far as it knows.
    #[must_use]
    pub fn is_enrolled(&self) -> bool {
        self.agent.is_enrolled()
    }

    /// Takes no new flows, and has those that it carries moved elsewhere: [`Notice::Drained`] says when that is done.
    pub fn drain(&mut self, now: Time, actions: &mut Vec<Action>) {
        if self.stage == Stage::Serving {
            self.stage = Stage::Draining;
            self.agent.drain(&mut self.flows, now, actions);
            self.flows.drain(actions);
            actions.push(Action::Notify(Notice::Draining));
            self.catch_up(now, actions);
        }
    }

    /// Leaves: the bootstrap is told, and every flow's prev goes on over its backup at once.
    pub fn leave(&mut self, now: Time, actions: &mut Vec<Action>) {
        self.agent.leave(&mut self.flows, now, actions);
        self.flows.leave_all(now, actions);
        self.act_on_flows(now, actions);
    }

    /// Whether the bootstrap has yet to answer that.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        self.agent.is_leaving()
    }

    /// A neighbour may have reported this relay down while it was stopped or cut off: it shows that it lives.
    fn note_stop(&mut self, now: Time) {
        if self.poll_timeout().is_some_and(|due| now.since(due) >= STOPPED) {
            self.agent.revive(now);
        }
    }

    fn catch_up(&mut self, now: Time, actions: &mut Vec<Action>) {
        for event in self.flows.take_events() {
            match event {
                // Silence alone is reported only if it lasts, as most of it ends soon on a busy machine.
                FlowsEvent::PeerSuspect { node, refused: false } => self.agent.doubt(node, now),
                FlowsEvent::PeerSuspect { node, refused: true } => self.agent.report(node, actions),
                FlowsEvent::PeerUnreachable { node, is_new: true } => {
                    self.agent.report_unreached(node, actions)
                }
                FlowsEvent::PeerUp(node) => {
                    self.agent.take_back(node, self.flows.links().has_dialled(node), actions)
                }
                FlowsEvent::PeerRecovered(node) => {
                    self.agent.take_back(node, self.flows.links().has_dialled(node), actions);
                    // It may be this node that was stopped or cut off, and was reported.
                    self.agent.revive(now);
                }
                FlowsEvent::PeerGone(_)
                | FlowsEvent::PeerDraining(_)
                | FlowsEvent::PeerUnreachable { is_new: false, .. }
                | FlowsEvent::Ended(_)
                | FlowsEvent::WantsBackup { .. }
                | FlowsEvent::WantsRoute(_) => {}
            }
        }
        self.agent.tell_load(&self.flows, now);
        if self.stage == Stage::Serving && self.agent.is_drain_ordered() {
            return self.drain(now, actions);
        }
        if self.stage == Stage::Draining && self.flows.is_empty() {
            self.stage = Stage::Drained;
            actions.push(Action::Notify(Notice::Drained));
        }
    }
}

impl Machine for Relay {
    fn handle(&mut self, event: Event, now: Time, actions: &mut Vec<Action>) {
        // Before what is due is done, as the stop shows only by that.
        self.note_stop(now);
        if let Event::Asked { ask, result } = event {
            let _ = self.agent.answered(ask, result, &mut self.flows, now, actions);
        } else if matches!(event, Event::BootstrapReached) {
            self.agent.reached(&mut self.flows, now, actions);
        } else {
            self.flows.handle(event, now, actions);
        }
        self.catch_up(now, actions);
    }

    fn handle_timeout(&mut self, now: Time, actions: &mut Vec<Action>) {
        self.note_stop(now);
        self.flows.handle_timeout(now, actions);
        self.agent.handle_timeout(&mut self.flows, now, actions);
        self.catch_up(now, actions);
    }

    fn poll_timeout(&self) -> Option<Time> {
        [self.flows.poll_timeout(), self.agent.poll_timeout()].into_iter().flatten().min()
    }

    fn flows(&mut self) -> &mut Flows {
        &mut self.flows
    }

    fn act_on_flows(&mut self, now: Time, actions: &mut Vec<Action>) {
        if self.flows.has_events() {
            self.catch_up(now, actions);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::DialFailure;
    use crate::rpc::Request;

    const PEER: NodeId = NodeId::from_bytes([2; 32]);

    #[test]
    fn who_can_not_be_dialled_for_want_of_a_way_is_not_reported() {
        for (failure, is_reported) in [(DialFailure::NoWay, false), (DialFailure::NoAnswer, true)] {
            let address = SocketAddr::from(([10, 0, 0, 1], 1));
            let (flows, agent) = (FlowsConfig::default(), AgentConfig::default());
            let offer = Offer::relay(address, "", 1);
            let mut relay = Relay::new(NodeId::from_bytes([1; 32]), flows, agent, offer);
            let (now, mut actions) = (Time::ZERO, Vec::new());
            relay.flows.links_mut().want(PEER, &[address], Time::MAX, now, &mut actions);
            relay.handle(Event::ConnectFailed { peer: PEER, failure }, now, &mut actions);
            let report = actions.iter().find_map(|action| {
                if let Action::Ask { request, .. } = action { Some(request) } else { None }
            });
            let expected = Request::ReportUnreached { node: PEER };
            assert_eq!(report, is_reported.then_some(&expected), "{failure:?}");
            assert!(relay.poll_timeout().is_some(), "it is dialled again");
        }
    }

    #[test]
    fn other_addresses_are_registered_at_once() {
        let [old, new] = [1, 2].map(|n| SocketAddr::from(([10, 0, 0, n], 1)));
        let (flows, agent) = (FlowsConfig::default(), AgentConfig::default());
        let mut relay = Relay::new(NodeId::from_bytes([1; 32]), flows, agent, Offer::relay(old, "", 1));
        let (mut now, mut actions) = (Time::ZERO, Vec::new());
        relay.start(now, &mut actions);
        relay.set_addresses(vec![new], now, &mut actions);
        let mut offered = Vec::new();
        // The first question is answered, so that the next may be asked.
        for _ in 0..2 {
            for action in std::mem::take(&mut actions) {
                let Action::Ask { ask, request: Request::Register { offer, .. }, .. } = action else {
                    continue;
                };
                let Offer::Relay { addresses, .. } = offer else { panic!() };
                offered.extend(addresses.into_iter().map(|address| (address, now)));
                let lease = crate::rpc::Lease {
                    duration: Duration::from_secs(30),
                    next_heartbeat: Duration::from_secs(10),
                    keys: Vec::new(),
                    counts: crate::rpc::Counts::default(),
                    drain: false,
                    now,
                    restored: false,
                };
                let result = Ok(crate::rpc::Response::Lease(lease));
                relay.handle(Event::Asked { ask, result }, now, &mut actions);
            }
            now = relay.poll_timeout().unwrap_or(now);
            relay.handle_timeout(now, &mut actions);
        }
        assert_eq!(offered.iter().map(|(address, _)| *address).collect::<Vec<_>>(), [old, new]);
        assert!(offered.iter().all(|(_, at)| *at < Time::ZERO + Duration::from_secs(2)), "{offered:?}");
    }
}
