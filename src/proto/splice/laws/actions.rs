//! What can happen next in a world without faults: the scheduler picks any of it.

use super::leg::{ACCEPTOR, DIALER, Packet, id, index};
use super::world::{ORIGIN, World};
use crate::planted::{self, Law};
use crate::splice::{Direction, Position, Splice};

/// For how long a dialer waits for a frozen node before it suspects it.
const SUSPECT_AFTER: u32 = 30;

/// One step of one node. A way is named by the end that it comes from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Action {
    /// The next packet of a leg is read.
    Read { leg: usize, way: usize },
    /// A reset is noticed.
    Reset { leg: usize, way: usize },
    /// The next control message is handled.
    Hear { leg: usize, way: usize },
    /// A node is told that the link of one of its legs is gone.
    LoseLink { leg: usize, end: usize },
    /// Bytes of a lane are written to its out-leg.
    Write { node: usize, direction: Direction },
    /// The application takes bytes, or the end.
    Take { node: usize, direction: Direction },
    /// The application sends bytes, or the end.
    Feed { node: usize },
    /// An ack is told, if the splice thinks that it can be.
    Ack { node: usize, direction: Direction },
    /// Next is dialled, or the relay gives up.
    Dial { node: usize },
    /// Next has not answered for long (it is frozen): another one is tried.
    Suspect { node: usize },
    /// The target has everything.
    Complete,
    /// The origin has everything and waited long enough for `Done`.
    Leave,
    /// Only with the law broken: a node frees the flow on its own idea of completion.
    FreeEarly { node: usize },
}

impl World {
    /// Everything that can happen now.
    pub(super) fn actions(&mut self, out: &mut Vec<Action>) {
        out.clear();
        let legs = &self.legs;
        self.live.retain(|leg| !legs[*leg].is_over());
        for &leg in &self.live {
            for way in [DIALER, ACCEPTOR] {
                self.leg_actions(leg, way, out);
            }
        }
        for (node, state) in self.nodes.iter().enumerate() {
            if let Some(splice) = state.splice.as_ref().filter(|_| !state.frozen) {
                self.lane_actions(node, splice, out);
                self.flow_actions(node, splice, out);
            }
        }
    }

    /// Whether something is held up that will happen now or later.
    pub(super) fn is_waiting(&self) -> bool {
        let lingers = self.habits.linger.is_some() && self.complete_since.is_some() && !self.origin_done;
        lingers
            || self.streams.iter().any(|s| s.sender_rests.max(s.taker_rests) >= self.now)
            || self.live.iter().flat_map(|leg| &self.legs[*leg].ways).any(|way| {
                let data = way.data_late >= self.now && (!way.data.is_empty() || way.reset.is_some());
                data || (way.control_late >= self.now && !way.control.is_empty())
            })
    }

    fn leg_actions(&self, leg: usize, way: usize, out: &mut Vec<Action>) {
        let state = &self.legs[leg];
        let end = 1 - way;
        let node = state.ends[end];
        if state.dropped[end] || self.nodes[node].frozen {
            return;
        }
        let queue = &state.ways[way];
        if queue.data_late <= self.now {
            if queue.data.front().is_some_and(|packet| self.has_room(node, leg, packet)) {
                out.push(Action::Read { leg, way });
            }
            if queue.reset.is_some() {
                out.push(Action::Reset { leg, way });
            }
        }
        if queue.control_late <= self.now && !queue.control.is_empty() {
            out.push(Action::Hear { leg, way });
        }
        if state.cut {
            out.push(Action::LoseLink { leg, end });
        }
    }

    /// Whether `node` goes on reading: bytes need room in their lane, and the stream's end comes after the bytes.
    fn has_room(&self, node: usize, leg: usize, packet: &Packet) -> bool {
        let Packet::Bytes(_) = packet else { return true };
        let splice = self.nodes[node].splice.as_ref();
        splice.is_none_or(|splice| {
            splice.fed_by(id(leg)).is_none_or(|direction| splice.has_room(direction, &self.habits.limits))
        })
    }

    fn lane_actions(&self, node: usize, splice: &Splice, out: &mut Vec<Action>) {
        for direction in Direction::BOTH {
            if splice.is_sink(direction) {
                if self.can_take(splice, direction) {
                    out.push(Action::Take { node, direction });
                }
            } else if self.can_write(node, splice, direction) {
                out.push(Action::Write { node, direction });
            }
            let listener = match direction {
                Direction::Forward => splice.prev(),
                Direction::Backward => splice.next(),
            };
            if listener.is_some() && splice.untold(direction) > 0 {
                out.push(Action::Ack { node, direction });
            }
        }
    }

    fn can_write(&self, node: usize, splice: &Splice, direction: Direction) -> bool {
        let leg = match direction {
            Direction::Forward => splice.next(),
            Direction::Backward => splice.prev(),
        };
        leg.is_some_and(|leg| {
            let leg = &self.legs[index(leg)];
            splice.lane(direction).unsent() > 0
                && leg.ways[leg.end_of(node)].in_flight() < self.habits.stream_window
        })
    }

    fn flow_actions(&self, node: usize, splice: &Splice, out: &mut Vec<Action>) {
        if splice.wants_dial() {
            out.push(Action::Dial { node });
        }
        if splice.next().is_some_and(|leg| self.is_overdue(index(leg))) {
            out.push(Action::Suspect { node });
        }
        match splice.position() {
            Position::Origin | Position::Target if self.can_feed(splice) => out.push(Action::Feed { node }),
            Position::Origin | Position::Target | Position::Relay => {}
        }
        if planted::broken(Law::FreeOnDone) && splice.is_complete() && has_told_acks(splice) {
            out.push(Action::FreeEarly { node });
        }
        if splice.is_complete() && node == self.target() {
            out.push(Action::Complete);
        }
        let lingered = self.habits.linger.zip(self.complete_since);
        if node == ORIGIN && lingered.is_some_and(|(linger, since)| self.now >= since + linger) {
            out.push(Action::Leave);
        }
    }

    fn is_overdue(&self, leg: usize) -> bool {
        let leg = &self.legs[leg];
        self.nodes[leg.ends[ACCEPTOR]].frozen && self.now >= leg.since + SUSPECT_AFTER
    }
}

/// Whether a relay or an origin has said all it knows, if one may judge that by oneself.
fn has_told_acks(splice: &Splice) -> bool {
    let told = |direction| splice.untold(direction) == 0;
    match splice.position() {
        Position::Origin => splice.next().is_some() && told(Direction::Backward),
        Position::Relay => {
            let attached = splice.prev().is_some() && splice.next().is_some();
            attached && told(Direction::Forward) && told(Direction::Backward)
        }
        Position::Target => false,
    }
}
