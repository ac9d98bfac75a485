//! A node and what its driver would hold.

use crate::happening::Happening;
use crate::network::NodeIndex;
use hopline_proto::endpoint::Endpoint;
use hopline_proto::flows::Flows;
use hopline_proto::frame::Control;
use hopline_proto::machine::{Action, Event, Machine};
use hopline_proto::relay::Relay;
use hopline_proto::splice::Direction;
use hopline_proto::{BootId, NodeId, Time};
use std::collections::VecDeque;
use std::time::Duration;

/// A relay's or an endpoint's machine.
pub(crate) enum Role {
    Relay(Box<Relay>),
    Endpoint(Box<Endpoint>),
}

impl Role {
    fn machine(&self) -> &dyn Machine {
        match self {
            Self::Relay(relay) => &**relay,
            Self::Endpoint(endpoint) => &**endpoint,
        }
    }

    fn machine_mut(&mut self) -> &mut dyn Machine {
        match self {
            Self::Relay(relay) => &mut **relay,
            Self::Endpoint(endpoint) => &mut **endpoint,
        }
    }
}

impl Machine for Role {
    fn handle(&mut self, event: Event, now: Time, actions: &mut Vec<Action>) {
        self.machine_mut().handle(event, now, actions);
    }

    fn handle_timeout(&mut self, now: Time, actions: &mut Vec<Action>) {
        self.machine_mut().handle_timeout(now, actions);
    }

    fn poll_timeout(&self) -> Option<Time> {
        self.machine().poll_timeout()
    }

    fn flows(&mut self) -> &mut Flows {
        self.machine_mut().flows()
    }

    fn act_on_flows(&mut self, now: Time, actions: &mut Vec<Action>) {
        self.machine_mut().act_on_flows(now, actions);
    }
}

/// How a node's clock differs from the world's.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Skew {
    /// By how much it is ahead, in microseconds.
    pub(crate) offset: i64,
    /// How much faster it runs, in millionths.
    pub(crate) drift_ppm: i64,
}

impl Skew {
    /// What the node's clock shows.
    pub(crate) const fn local(self, now: Time, start: Time) -> Time {
        if self.offset == 0 && self.drift_ppm == 0 {
            return now;
        }
        let elapsed = now.as_micros().cast_signed() - start.as_micros().cast_signed();
        let ahead = self.offset + elapsed * self.drift_ppm / 1_000_000;
        Time::from_micros(now.as_micros().saturating_add_signed(ahead))
    }

    /// The first moment at which the node's clock shows `local` or later.
    pub(crate) fn world(self, local: Time, start: Time) -> Time {
        if self.offset == 0 && self.drift_ppm == 0 {
            return local;
        }
        let base = local.as_micros().saturating_add_signed(-self.offset);
        let elapsed = base.cast_signed().saturating_sub(start.as_micros().cast_signed());
        let back =
            (i128::from(elapsed) * i128::from(self.drift_ppm)) / i128::from(1_000_000 + self.drift_ppm);
        let guess = base.saturating_add_signed(-i64::try_from(back).unwrap_or(0)).saturating_sub(2);
        let reached = |at: &u64| self.local(Time::from_micros(*at), start) >= local;
        Time::from_micros((guess..guess.saturating_add(8)).find(reached).unwrap_or(guess.saturating_add(8)))
    }
}

/// What a relay is, whichever life it is in.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Blueprint {
    Relay { zone: u16, capacity: u32 },
    Endpoint,
}

/// What a gray relay does not do with the payload of the flows on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gray {
    /// The directions: forward, backward.
    pub(crate) ways: [bool; 2],
    /// Whether it takes nothing in; else it writes nothing out.
    pub(crate) deaf: bool,
}

/// What a lying relay says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lie {
    /// Acks of what was never sent.
    Acks,
    /// Every end twice, the second time elsewhere.
    Ends,
}

impl Lie {
    /// What is sent instead of an honest message.
    pub(crate) fn told(self, honest: Control) -> Vec<Control> {
        match (self, honest) {
            (Self::Acks, Control::Acks(acks)) => {
                vec![Control::Acks(acks.into_iter().map(|(leg, offset)| (leg, offset + FAR)).collect())]
            }
            (Self::Ends, Control::Fin { leg, offset }) => {
                vec![Control::Fin { leg, offset }, Control::Fin { leg, offset: offset + FAR }]
            }
            (Self::Ends, Control::Acks(acks)) => {
                // An end that nobody has sent yet.
                let leg = acks.first().map_or(0, |(leg, _)| *leg);
                vec![Control::Acks(acks), Control::Fin { leg, offset: 1 }]
            }
            (_, honest) => vec![honest],
        }
    }
}

/// Further than any flow gets.
const FAR: u64 = 1 << 40;

impl Gray {
    /// Whether it moves bytes of this direction, in (or out).
    pub(crate) const fn moves(self, direction: Direction, inward: bool) -> bool {
        let [forward, backward] = self.ways;
        let hit = if matches!(direction, Direction::Forward) { forward } else { backward };
        !hit || inward != self.deaf
    }
}

/// See the module's documentation.
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) blueprint: Blueprint,
    /// Its machine; none while it is dead.
    pub(crate) role: Option<Role>,
    pub(crate) boot: BootId,
    /// Counts its lives: what was meant for a former one is for nobody.
    pub(crate) life: u32,
    pub(crate) frozen: bool,
    /// What it does not do, if it is gray.
    pub(crate) gray: Option<Gray>,
    /// What it says that can't be true.
    pub(crate) lie: Option<Lie>,
    /// How long it takes to deal with one thing.
    pub(crate) slow: Duration,
    pub(crate) busy_until: Time,
    /// What waits while it is frozen or slow.
    pub(crate) inbox: VecDeque<Happening>,
    /// The connections that it has an end of.
    pub(crate) conns: Vec<u32>,
    /// For when its timer is set.
    pub(crate) armed: Option<Time>,
    pub(crate) skew: Skew,
    /// Since when it is what it is now, dead or alive.
    pub(crate) since: Time,
}

impl Node {
    pub(crate) const fn is_alive(&self) -> bool {
        self.role.is_some()
    }

    pub(crate) const fn is_relay(&self) -> bool {
        matches!(self.blueprint, Blueprint::Relay { .. })
    }

    pub(crate) const fn zone(&self) -> Option<u16> {
        match self.blueprint {
            Blueprint::Relay { zone, .. } => Some(zone),
            Blueprint::Endpoint => None,
        }
    }

    /// Whether what comes now has to wait.
    pub(crate) fn is_busy(&self, now: Time) -> bool {
        self.frozen || now < self.busy_until || !self.inbox.is_empty()
    }
}

/// All nodes, by their places.
#[derive(Default)]
pub(crate) struct Nodes(Vec<Node>);

impl Nodes {
    pub(crate) fn push(&mut self, node: Node) -> NodeIndex {
        self.0.push(node);
        self.0.len() - 1
    }

    pub(crate) const fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn at(&self, index: NodeIndex) -> &Node {
        self.0.get(index).expect("a node's place leads to it")
    }

    pub(crate) fn at_mut(&mut self, index: NodeIndex) -> &mut Node {
        self.0.get_mut(index).expect("a node's place leads to it")
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (NodeIndex, &Node)> {
        self.0.iter().enumerate()
    }

    /// The relays that live.
    pub(crate) fn living_relays(&self) -> Vec<NodeIndex> {
        let living = |(_, node): &(NodeIndex, &Node)| node.is_relay() && node.is_alive();
        self.iter().filter(living).map(|(index, _)| index).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skewed_clock_is_read_both_ways() {
        let start = Time::from_micros(1_000_000_000);
        for (offset, drift_ppm) in [(0, 0), (-50_000, 200), (70_000, -300), (5, 100_000)] {
            let skew = Skew { offset, drift_ppm };
            for elapsed in [0u64, 1, 999, 12_345_678, 3_600_000_000] {
                let now = Time::from_micros(start.as_micros() + elapsed);
                let back = skew.world(skew.local(now, start), start);
                assert!(skew.local(back, start) >= skew.local(now, start), "{skew:?} {elapsed}");
                assert!(back.as_micros().abs_diff(now.as_micros()) <= 2, "{skew:?} {elapsed}");
            }
        }
    }
}
