//! What can happen next in a world without faults: chance picks one thing at a time.

use super::leg::{ACCEPTOR, DIALER, Packet, id, index};
use super::world::{ORIGIN, World};
use hopline_proto::planted::{self, Law};
use hopline_proto::splice::{Direction, Position, Splice};

/// For how long a dialer waits for a frozen node before it suspects it.
const SUSPECT_AFTER: usize = 30;

/// One step of one node.
pub(super) type Action = (usize, Job);

/// What a node may do; a number is a leg's.
#[derive(Clone, Copy, Debug)]
pub(super) enum Job {
    /// Reads the next packet.
    Read(usize),
    /// Notices a reset.
    Reset(usize),
    /// Deals with the next control message.
    Hear(usize),
    /// Is told that the link is gone.
    LoseLink(usize),
    /// Writes bytes of a lane to its out-leg.
    Write(Direction),
    /// The application takes bytes, or the end.
    Take(Direction),
    /// The application sends bytes, or the end.
    Feed,
    /// Tells an ack, if the splice thinks that it can be told.
    Ack(Direction),
    /// Dials next, or gives up.
    Dial,
    /// Next has not answered for long (it is frozen): another one is tried.
    Suspect,
    /// The target has everything.
    Complete,
    /// The origin has everything and waited long enough for `Done`.
    Leave,
    /// Only with the law broken: frees the flow on its own idea of completion.
    FreeEarly,
}

impl World {
    /// Everything that can happen now.
    pub(super) fn actions(&mut self, out: &mut Vec<Action>) {
        out.clear();
        let legs = &self.legs;
        self.live.retain(|leg| legs[*leg].dropped != [true; 2]);
        for &leg in &self.live {
            for end in [ACCEPTOR, DIALER] {
                self.leg_actions(leg, end, out);
            }
        }
        for (node, state) in self.nodes.iter().enumerate() {
            if let Some(splice) = state.splice.as_ref().filter(|_| !state.frozen) {
                let mut can = |job| out.push((node, job));
                self.lane_actions(node, splice, &mut can);
                self.flow_actions(node, splice, &mut can);
            }
        }
    }

    fn leg_actions(&self, leg: usize, end: usize, out: &mut Vec<Action>) {
        let state = &self.legs[leg];
        let node = state.ends[end];
        if state.dropped[end] || self.nodes[node].frozen {
            return;
        }
        let mut can = |job: Job| out.push((node, job));
        let way = &state.ways[1 - end];
        if way.data_late <= self.now {
            if way.data.front().is_some_and(|packet| self.has_room(node, leg, packet)) {
                can(Job::Read(leg));
            }
            if way.reset.is_some() {
                can(Job::Reset(leg));
            }
        }
        if way.control_late <= self.now && !way.control.is_empty() {
            can(Job::Hear(leg));
        }
        if state.cut {
            can(Job::LoseLink(leg));
        }
    }

    /// Whether `node` goes on reading: bytes need room in their lane, and the stream's end comes after the bytes.
    fn has_room(&self, node: usize, leg: usize, packet: &Packet) -> bool {
        let splice = self.nodes[node].splice.as_ref().filter(|_| matches!(packet, Packet::Bytes(_)));
        splice.is_none_or(|splice| {
            splice.fed_by(id(leg)).is_none_or(|direction| splice.has_room(direction, &self.habits.limits))
        })
    }

    fn lane_actions(&self, node: usize, splice: &Splice, can: &mut impl FnMut(Job)) {
        for direction in Direction::BOTH {
            let (from, to) = legs(splice, direction);
            if splice.is_sink(direction) {
                if self.can_take(splice, direction) {
                    can(Job::Take(direction));
                }
            } else if to.is_some_and(|to| splice.lane(direction).unsent() > 0 && self.can_write(node, to)) {
                can(Job::Write(direction));
            }
            if from.is_some() && splice.untold(direction) > 0 {
                can(Job::Ack(direction));
            }
        }
    }

    fn can_write(&self, node: usize, leg: usize) -> bool {
        let leg = &self.legs[leg];
        leg.ways[leg.end_of(node)].in_flight() < self.habits.stream_window
    }

    fn flow_actions(&self, node: usize, splice: &Splice, can: &mut impl FnMut(Job)) {
        if splice.wants_dial() {
            can(Job::Dial);
        }
        if splice.next().is_some_and(|leg| self.is_overdue(index(leg))) {
            can(Job::Suspect);
        }
        if splice.position() != Position::Relay && self.can_feed(splice) {
            can(Job::Feed);
        }
        if planted::broken(Law::FreeOnDone) && splice.is_complete() && has_told_acks(splice) {
            can(Job::FreeEarly);
        }
        if splice.is_complete() && node == self.target() {
            can(Job::Complete);
        }
        let lingered = self.habits.linger.zip(self.complete_since);
        if node == ORIGIN && lingered.is_some_and(|(linger, since)| self.now >= since + linger) {
            can(Job::Leave);
        }
    }

    fn is_overdue(&self, leg: usize) -> bool {
        let leg = &self.legs[leg];
        self.nodes[leg.ends[ACCEPTOR]].frozen && self.now >= leg.since + SUSPECT_AFTER
    }
}

/// The in-leg of a direction, to which its acks are told, and its out-leg.
pub(super) fn legs(splice: &Splice, direction: Direction) -> (Option<usize>, Option<usize>) {
    let (prev, next) = (splice.prev().map(index), splice.next().map(index));
    if direction == Direction::Forward { (prev, next) } else { (next, prev) }
}

/// Whether a relay or an origin has said all it knows, if one may judge that by oneself.
fn has_told_acks(splice: &Splice) -> bool {
    let told = |direction| legs(splice, direction).0.is_some() && splice.untold(direction) == 0;
    match splice.position() {
        Position::Origin => told(Direction::Backward),
        Position::Relay => told(Direction::Forward) && told(Direction::Backward),
        Position::Target => false,
    }
}
