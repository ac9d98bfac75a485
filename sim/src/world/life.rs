//! Nodes come, go, stop and start again.

use super::World;
use crate::conn::{Packet, Stage};
use crate::happening::Happening;
use crate::network::NodeIndex;
use crate::node::{Blueprint, Gray, Lie, Node, Role, Skew};
use crate::settings::START;
use hopline_proto::agent::AgentConfig;
use hopline_proto::endpoint::Endpoint;
use hopline_proto::machine::Machine;
use hopline_proto::relay::Relay;
use hopline_proto::rpc::Offer;
use hopline_proto::{BootId, NodeId, Time};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

impl World {
    /// Adds a node, dead for now.
    pub(crate) fn add(&mut self, blueprint: Blueprint, skew: Skew) -> NodeIndex {
        let id = NodeId::from_bytes(self.dice.bytes());
        let index = self.nodes.push(Node {
            id,
            blueprint,
            role: None,
            boot: BootId::from_bytes([0; 16]),
            life: 0,
            frozen: false,
            gray: None,
            lie: None,
            slow: Duration::ZERO,
            busy_until: Time::ZERO,
            inbox: VecDeque::new(),
            conns: Vec::new(),
            armed: None,
            skew,
            since: self.now,
        });
        self.index.insert(id, index);
        if self.trace.is_on() {
            self.trace.name(id, &name(index, blueprint));
        }
        index
    }

    /// Starts a node that is dead, with nothing left of its former life but its identity.
    pub(crate) fn start(&mut self, index: NodeIndex) {
        if self.nodes.at(index).is_alive() {
            return;
        }
        let role = self.role(index);
        let boot = BootId::from_bytes(self.dice.bytes());
        let node = self.nodes.at_mut(index);
        (node.role, node.boot, node.since) = (Some(role), boot, self.now);
        (node.frozen, node.slow, node.busy_until, node.armed) = (false, Duration::ZERO, Time::ZERO, None);
        (node.gray, node.lie) = (None, None);
        self.trace.say(self.now, node.id, |_| "STARTED".to_owned());
        self.with(index, |role, now, actions| {
            if let Role::Relay(relay) = role {
                relay.start(now, actions);
            }
        });
    }

    fn role(&mut self, index: NodeIndex) -> Role {
        let node = self.nodes.at(index);
        let (id, blueprint, flows) = (node.id, node.blueprint, self.settings.flows.clone());
        let name = name(index, blueprint);
        let agent = AgentConfig { name, seed: self.dice.next(), ..AgentConfig::default() };
        match blueprint {
            Blueprint::Endpoint => Role::Endpoint(Box::new(Endpoint::new(id, flows, agent))),
            Blueprint::Relay { zone, capacity } => {
                let offer = Offer::relay(address(index), &format!("z{zone}"), capacity);
                Role::Relay(Box::new(Relay::new(id, flows, agent, offer)))
            }
        }
    }

    /// Kills a node; nobody is told.
    pub(crate) fn crash(&mut self, index: NodeIndex) {
        if !self.nodes.at(index).is_alive() {
            return;
        }
        self.trace.say(self.now, self.nodes.at(index).id, |_| "KILLED".to_owned());
        let conns = self.nodes.at(index).conns.clone();
        for conn in conns {
            let Some(this) = self.conn(conn) else { continue };
            let side = this.side_of(index);
            let other = this.end(1 - side).stage;
            self.detach(conn, side);
            if !self.is_full() && other == Stage::Up {
                self.notice_later(conn, 1 - side);
            }
        }
        let node = self.nodes.at_mut(index);
        (node.role, node.since, node.frozen) = (None, self.now, false);
        node.life += 1;
        node.inbox.clear();
        self.checks.died(index);
    }

    /// Stops a node, which notices nothing of it.
    pub(crate) fn freeze(&mut self, index: NodeIndex) {
        let node = self.nodes.at_mut(index);
        if node.is_alive() && !node.frozen {
            node.frozen = true;
            self.trace.say(self.now, node.id, |_| "FROZEN".to_owned());
        }
    }

    /// Lets a frozen node go on: whatever came meanwhile is there, and its timers are late. Which it sees first is chance.
    pub(crate) fn thaw(&mut self, index: NodeIndex) {
        let timers_first = self.dice.percent(50);
        let (now, node) = (self.now, self.nodes.at_mut(index));
        if !node.is_alive() || !std::mem::take(&mut node.frozen) {
            return;
        }
        if timers_first {
            let is_timer = |happening: &Happening| matches!(happening, Happening::Timer { .. });
            let (mut first, rest): (VecDeque<_>, VecDeque<_>) = node.inbox.drain(..).partition(is_timer);
            first.extend(rest);
            node.inbox = first;
        }
        let life = node.life;
        self.trace.say(now, node.id, |_| format!("THAWED, {} things waited", node.inbox.len()));
        self.schedule(now, Happening::Work { node: index, life });
    }

    /// Whatever a node does takes it that long from now on.
    pub(crate) fn slow_down(&mut self, index: NodeIndex, each: Duration) {
        let (now, node) = (self.now, self.nodes.at_mut(index));
        if node.is_alive() {
            node.slow = each;
            self.trace.say(now, node.id, |_| format!("each step takes {each:?}"));
        }
    }

    /// A node begins to lie, or tells the truth again. From then on nobody is blamed for what he makes of it.
    pub(crate) fn set_lie(&mut self, index: NodeIndex, lie: Option<Lie>) {
        let (now, node) = (self.now, self.nodes.at_mut(index));
        if node.lie != lie {
            node.lie = lie;
            self.checks.liars = true;
            self.trace.say(now, node.id, |_| format!("lies: {lie:?}"));
        }
    }

    /// A node no longer moves payload in some way, or does again.
    pub(crate) fn turn_gray(&mut self, index: NodeIndex, gray: Option<Gray>) {
        let (now, node) = (self.now, self.nodes.at_mut(index));
        if !node.is_alive() || node.gray == gray {
            return;
        }
        node.gray = gray;
        self.trace.say(now, node.id, |_| format!("is gray: {gray:?}"));
        if gray.is_none() {
            self.wake_legs(index);
        }
    }

    /// A node begins to leave in good order: a relay has its flows moved away.
    pub(crate) fn leave(&mut self, index: NodeIndex) {
        self.trace.say(self.now, self.nodes.at(index).id, |_| "DRAINS".to_owned());
        self.with(index, |role, now, actions| match role {
            Role::Relay(relay) => relay.drain(now, actions),
            Role::Endpoint(endpoint) => endpoint.leave("it leaves", now, actions),
        });
    }

    /// It ends: it says goodbye, and its connections are closed.
    pub(crate) fn finish(&mut self, index: NodeIndex) {
        self.trace.say(self.now, self.nodes.at(index).id, |_| "LEAVES".to_owned());
        self.with(index, |role, now, actions| {
            if let Role::Relay(relay) = role {
                relay.leave(now, actions);
                relay.leave(now, actions); // it ends now, and waits for no answer to its last heartbeat
            }
        });
        let conns = self.nodes.at(index).conns.clone();
        for conn in conns {
            let Some(this) = self.conn(conn) else { continue };
            let side = this.side_of(index);
            self.transmit(conn, side, Packet::Shut, Duration::ZERO);
        }
        self.crash(index);
    }

    /// Everything that a check at the end wants to know of a living node: flows and links.
    pub(crate) fn holdings(&mut self, index: NodeIndex) -> (usize, usize) {
        let legs = {
            let conns = self.nodes.at(index).conns.clone();
            conns.iter().filter_map(|conn| self.conn(*conn)).map(|conn| conn.legs.len()).sum()
        };
        let flows = self.nodes.at_mut(index).role.as_mut().map_or(0, |role| role.flows().len());
        (flows, legs)
    }

    /// How long a node has been what it is now.
    pub(crate) fn since(&self, index: NodeIndex) -> Duration {
        self.now.since(self.nodes.at(index).since.max(START))
    }
}

/// What listings and timelines call a node.
pub(crate) fn name(index: NodeIndex, blueprint: Blueprint) -> String {
    match blueprint {
        Blueprint::Relay { .. } => format!("r{index}"),
        Blueprint::Endpoint => format!("e{index}"),
    }
}

/// Each relay is on a machine and in a subnet of its own: zones are what they share.
fn address(index: NodeIndex) -> SocketAddr {
    let [_, a, b, c] = u32::try_from(index).unwrap_or(u32::MAX).to_be_bytes();
    ([10 + a, b, c, 1], 4433).into()
}
