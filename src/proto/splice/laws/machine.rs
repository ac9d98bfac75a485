//! What a node does with its splice: the least that the relay's, the origin's and the target's machine have to do.

use super::actions::Action;
use super::coverage::Event;
use super::finding::Check;
use super::leg::{ACCEPTOR, DIALER, Leg, Message, Packet, id, index};
use super::world::{ORIGIN, World};
use crate::Epoch;
use crate::frame::{AttachOk, CloseCode, Opening};
use crate::lane::FlowViolation;
use crate::planted::{self, Law};
use crate::splice::{Attached, Direction, Ending, Freed, Position, Splice};
use bytes::Bytes;

impl World {
    /// Takes one step; returns the node that took it.
    pub(super) fn perform(&mut self, action: Action) -> usize {
        let actor = self.actor(action);
        match action {
            Action::Read { leg, way } => self.read(actor, leg, way),
            Action::Reset { leg, way } => self.notice_reset(actor, leg, way),
            Action::Hear { leg, way } => self.hear(actor, leg, way),
            Action::LoseLink { leg, .. } => self.lose_link(actor, leg),
            Action::Write { node, direction } => self.write(node, direction),
            Action::Take { node, direction } => self.take(node, direction),
            Action::Feed { node } => self.feed(node),
            Action::Ack { node, direction } => self.tell_ack(node, direction),
            Action::Dial { node } => self.dial_or_give_up(node),
            Action::Suspect { node } => self.suspect(node),
            Action::Complete => self.complete(),
            Action::Leave => self.leave(),
            Action::FreeEarly { node } => self.free_early(node),
        }
        self.tell_ends(actor);
        actor
    }

    fn actor(&self, action: Action) -> usize {
        match action {
            Action::Read { leg, way } | Action::Reset { leg, way } | Action::Hear { leg, way } => {
                self.legs[leg].ends[1 - way]
            }
            Action::LoseLink { leg, end } => self.legs[leg].ends[end],
            Action::Write { node, .. }
            | Action::Take { node, .. }
            | Action::Feed { node }
            | Action::Ack { node, .. }
            | Action::Dial { node }
            | Action::Suspect { node }
            | Action::FreeEarly { node } => node,
            Action::Complete => self.target(),
            Action::Leave => ORIGIN,
        }
    }

    /// The splice of a node that has one.
    pub(super) fn splice(&mut self, node: usize) -> &mut Splice {
        self.nodes[node].splice.as_mut().expect("this node holds the flow")
    }

    /// The splice of `node`, if `leg` is one of its legs.
    fn attached(&mut self, node: usize, leg: usize) -> Option<&mut Splice> {
        self.nodes[node].splice.as_mut().filter(|splice| splice.fed_by(id(leg)).is_some())
    }

    // ---- next ----

    fn dial_or_give_up(&mut self, node: usize) {
        if self.splice(node).is_exhausted() {
            self.note(format_args!("{} finds no path", self.name(node)));
            self.count(Event::NoPath);
            self.check_gave_up_early(node);
            self.free(node, CloseCode::NoPath, CloseCode::Lost);
            return;
        }
        let to = self.candidate(node);
        let linked = self.is_linked(node, to);
        self.count(Event::Dial);
        if !linked && self.habits.fails_at_once {
            self.note(format_args!("{} can't dial {}", self.name(node), self.name(to)));
            self.count(Event::DialFailed);
            self.nodes[node].tries.push(None);
            self.splice(node).dial_failed();
            return;
        }
        let leg = self.legs.len();
        let opening = self.splice(node).dial(id(leg));
        let Opening { epoch, forward_start, backward_ack, .. } = &opening;
        self.note(format_args!(
            "{} dials {} over leg {leg}: epoch {epoch:?}, forward from {forward_start}, backward acked to {backward_ack}",
            self.name(node),
            self.name(to),
        ));
        self.nodes[node].tries.push(Some(leg));
        let mut state = Leg::new(node, to, opening, self.now, &mut self.dice);
        if !linked {
            state.cut(&mut self.dice);
            state.ways[DIALER].data.clear();
        }
        state.dropped[ACCEPTOR] = !self.nodes[to].alive;
        self.open(state);
    }

    /// A leg begins.
    pub(super) fn open(&mut self, leg: Leg) {
        self.live.push(self.legs.len());
        self.legs.push(leg);
    }

    /// Whom to dial.
    fn candidate(&mut self, node: usize) -> usize {
        let candidates = &self.hops[self.nodes[node].hop + 1];
        if self.habits.in_turn {
            candidates[self.nodes[node].tries.len() % candidates.len()]
        } else {
            self.dice.pick(candidates)
        }
    }

    fn suspect(&mut self, node: usize) {
        if let Some(leg) = self.splice(node).leave_next() {
            self.note(format_args!("{} suspects what is behind leg {}", self.name(node), leg.0));
            self.close(index(leg), node, CloseCode::Moved, None);
        }
    }

    fn on_answer(&mut self, at: usize, leg: usize, answer: &AttachOk) {
        self.note(format_args!(
            "{} is answered on leg {leg}: backward from {}, forward acked to {}",
            self.name(at),
            answer.backward_start,
            answer.forward_ack
        ));
        let splice = self.splice(at);
        let gap = answer.backward_start > splice.lane(Direction::Backward).received();
        match splice.answered(id(leg), answer) {
            Ok(()) => self.legs[leg].answered = true,
            Err(_) if gap && at != ORIGIN => {
                self.count(Event::GapInAnswer);
                self.free(at, CloseCode::Lost, CloseCode::Lost);
            }
            Err(violation) => self.accuse(at, leg, violation),
        }
    }

    // ---- prev ----

    fn on_attach(&mut self, at: usize, leg: usize, opening: &Opening) {
        if self.nodes[at].tombstone {
            self.count(Event::Tombstone);
            return self.close(leg, at, done(), None);
        }
        if self.nodes[at].splice.is_none() && self.now < self.nodes[at].full_until {
            self.count(Event::Overloaded);
            return self.close(leg, at, CloseCode::Overloaded, None);
        }
        let Some(splice) = self.holding(at, opening) else {
            return self.close(leg, at, CloseCode::Unknown, None);
        };
        let before = splice.epoch().clone();
        match splice.attach(id(leg), opening) {
            Attached::Accepted { answer, replaced, forgotten } => {
                self.check_epoch(at, &before, &opening.epoch);
                self.note(format_args!("{} accepts leg {leg}, epoch {:?}", self.name(at), opening.epoch));
                if let Some(old) = replaced {
                    self.count(Event::Replaced);
                    self.close(index(old), at, CloseCode::Replaced, Some(opening.epoch.clone()));
                }
                if !forgotten.is_empty() {
                    self.note(format_args!("{} forgets what it held", self.name(at)));
                    self.count(Event::Forgotten);
                }
                for leg in forgotten {
                    self.close(index(leg), at, CloseCode::Lost, None);
                }
                self.legs[leg].send(at, Packet::Answer(answer));
            }
            Attached::Stale { winner } => {
                self.count(Event::Stale);
                self.close(leg, at, CloseCode::Stale, Some(winner));
            }
            Attached::Impossible => {
                self.find(Check::Honest, format_args!("an impossible attach: {opening:?}"));
                self.close(leg, at, CloseCode::Malformed, None);
            }
        }
    }

    /// The splice that an attach is for, made if need be; nothing if the target doesn't know the flow.
    fn holding(&mut self, at: usize, opening: &Opening) -> Option<&mut Splice> {
        if self.nodes[at].splice.is_none() {
            let is_target = at == self.target();
            self.nodes[at].tries.clear();
            self.nodes[at].splice =
                if is_target { Splice::target(opening) } else { Some(Splice::relay(opening)) };
        }
        self.nodes[at].splice.as_mut()
    }

    // ---- what comes over legs ----

    fn read(&mut self, at: usize, leg: usize, way: usize) {
        match self.legs[leg].ways[way].data.pop_front() {
            Some(Packet::Attach(opening)) => self.on_attach(at, leg, &opening),
            Some(Packet::Answer(answer)) => self.on_answer(at, leg, &answer),
            Some(Packet::Bytes(bytes)) => self.on_bytes(at, leg, way, bytes),
            Some(Packet::End) => {
                self.note(format_args!("{} sees the end of leg {leg}'s stream", self.name(at)));
                self.count(Event::StreamEnded);
                self.legs[leg].drop_by(at);
                if let Some(splice) = self.attached(at, leg) {
                    let ending = splice.stream_ended(id(leg));
                    self.follow(at, ending);
                }
            }
            None => {}
        }
    }

    /// Reads some of a packet's bytes.
    fn on_bytes(&mut self, at: usize, leg: usize, way: usize, mut bytes: Bytes) {
        self.check_room(at, leg);
        let count = self.portion(bytes.len());
        let rest = bytes.split_off(count);
        if !rest.is_empty() {
            self.legs[leg].ways[way].data.push_front(Packet::Bytes(rest));
        }
        let splice = self.splice(at);
        let direction = splice.fed_by(id(leg));
        let result = splice.receive(id(leg), bytes);
        let received = direction.map_or(0, |direction| splice.lane(direction).received());
        self.note(format_args!("{} reads {count} bytes from leg {leg}, has {received}", self.name(at)));
        if let Err(violation) = result {
            self.accuse(at, leg, violation);
        }
    }

    fn hear(&mut self, at: usize, leg: usize, way: usize) {
        let Some(message) = self.legs[leg].ways[way].control.pop_front() else { return };
        let name = self.name(at);
        let Some(splice) = self.attached(at, leg) else {
            let lost = format_args!("{name} does not know leg {leg}: {message:?} is lost");
            return self.find(Check::TooEarly, lost);
        };
        let result = match &message {
            Message::Ack(offset) => splice.ack(id(leg), *offset),
            Message::Fin(offset) => splice.fin(id(leg), *offset),
            Message::Close { code, winner } => return self.on_close(at, leg, *code, Some(winner)),
        };
        self.note(format_args!("{name} hears {message:?} on leg {leg}"));
        if let Err(violation) = result {
            self.accuse(at, leg, violation);
        }
    }

    /// A reset that says somebody else won waits for the control message that says who: without it an outranked node
    /// would not know that it is, and would go on dialling.
    fn notice_reset(&mut self, at: usize, leg: usize, way: usize) {
        let queue = &mut self.legs[leg].ways[way];
        queue.data.clear();
        if let Some(code) = queue.reset.take()
            && !names_winner(code)
        {
            self.on_close(at, leg, code, None);
        }
    }

    fn lose_link(&mut self, at: usize, leg: usize) {
        self.count(Event::LinkLost);
        self.on_close(at, leg, CloseCode::Lost, None);
    }

    fn on_close(&mut self, at: usize, leg: usize, code: CloseCode, winner: Option<&Epoch>) {
        self.legs[leg].drop_by(at);
        let name = self.name(at);
        match winner {
            Some(winner) => self.note(format_args!("{name} loses leg {leg}: {code:?}, {winner:?} won")),
            None => self.note(format_args!("{name} loses leg {leg}: {code:?}")),
        }
        self.legs[leg].no_path |= code == CloseCode::NoPath;
        if let Some(splice) = self.attached(at, leg) {
            let dialled = splice.epoch().child(splice.dials());
            let ending = splice.closed(id(leg), code, winner);
            if let Some(winner) = winner {
                self.check_yielding(at, &dialled, winner, matches!(ending, Ending::Free(_)));
            }
            if code == CloseCode::Moved && matches!(ending, Ending::Free(_)) {
                self.count(Event::Moved);
            }
            self.follow(at, ending);
        }
    }

    /// What the other end of `leg` said can't be true.
    fn accuse(&mut self, at: usize, leg: usize, violation: FlowViolation) {
        self.find(Check::Honest, format_args!("{} over leg {leg}: {violation}", self.name(at)));
        if self.splice(at).position() == Position::Relay {
            self.free(at, CloseCode::Lost, CloseCode::Lost);
        } else {
            self.splice(at).closed(id(leg), CloseCode::Malformed, None);
            self.close(leg, at, CloseCode::Malformed, None);
        }
    }

    fn follow(&mut self, at: usize, ending: Ending) {
        match ending {
            Ending::Free(freed) => self.freed(at, freed),
            Ending::Ignored | Ending::Orphaned | Ending::Dial => {}
        }
    }

    // ---- what goes out ----

    fn write(&mut self, node: usize, direction: Direction) {
        let window = self.habits.stream_window;
        let splice = self.splice(node);
        let leg = match direction {
            Direction::Forward => splice.next(),
            Direction::Backward => splice.prev(),
        };
        let Some((leg, mut bytes)) = leg.zip(splice.lane(direction).front().next()) else { return };
        let leg = index(leg);
        let room = window - self.legs[leg].ways[self.legs[leg].end_of(node)].in_flight();
        let count = self.portion(room.min(bytes.len()));
        bytes.truncate(count);
        self.splice(node).wrote(direction, count);
        self.legs[leg].send(node, Packet::Bytes(bytes));
    }

    fn tell_ack(&mut self, node: usize, direction: Direction) {
        if let Some((leg, offset)) = self.splice(node).take_ack(direction) {
            self.legs[index(leg)].tell(node, Message::Ack(offset));
        }
    }

    /// Where a direction ends is told as soon as it can be.
    fn tell_ends(&mut self, node: usize) {
        for direction in Direction::BOTH {
            let fin = self.nodes[node].splice.as_mut().and_then(|splice| splice.take_fin(direction));
            if let Some((leg, offset)) = fin {
                self.legs[index(leg)].tell(node, Message::Fin(offset));
            }
        }
    }

    /// `node` resets a leg.
    pub(super) fn close(&mut self, leg: usize, node: usize, code: CloseCode, winner: Option<Epoch>) {
        assert_eq!(names_winner(code), winner.is_some(), "{code:?} names its winner, others don't");
        self.note(format_args!("{} closes leg {leg}: {code:?}", self.name(node)));
        if let Some(winner) = winner {
            self.legs[leg].tell(node, Message::Close { code, winner });
        }
        self.legs[leg].reset(node, code, &mut self.dice);
    }

    // ---- the end of the flow ----

    pub(super) fn free(&mut self, node: usize, code: CloseCode, down: CloseCode) {
        let freed = self.splice(node).free(code, down);
        self.freed(node, freed);
    }

    fn freed(&mut self, node: usize, freed: Freed) {
        self.note(format_args!("{} frees the flow: {:?}", self.name(node), freed.code));
        if freed.code == CloseCode::Replaced {
            self.count(Event::Outranked);
        }
        if let Some(prev) = freed.prev {
            self.close(index(prev), node, freed.code, freed.winner);
        }
        if let Some(next) = freed.next {
            self.close(index(next), node, freed.down, None);
        }
        if let Some(fading) = freed.fading {
            self.close(index(fading), node, CloseCode::Moved, None);
        }
        self.nodes[node].splice = None;
        if node == ORIGIN {
            self.origin_done = true;
            if freed.code != CloseCode::Done {
                self.find(Check::Kept, format_args!("the origin is told {:?}", freed.code));
            } else if !self.is_delivered() {
                self.find(Check::Kept, format_args!("done, but not everything was delivered"));
            }
        }
    }

    fn complete(&mut self) {
        let target = self.target();
        self.free(target, done(), done());
        self.nodes[target].tombstone = true;
    }

    fn leave(&mut self) {
        self.count(Event::Left);
        self.origin_left = true;
        self.free(ORIGIN, CloseCode::Done, CloseCode::Done);
    }

    /// What relays, and the origin, do where nobody says `Done`.
    fn free_early(&mut self, node: usize) {
        let code = if node == ORIGIN { CloseCode::Done } else { CloseCode::Lost };
        self.free(node, code, CloseCode::Lost);
    }
}

/// What the target says when everything is done: with the law broken nobody says `Done`, and all judge for themselves.
fn done() -> CloseCode {
    if planted::broken(Law::FreeOnDone) { CloseCode::Lost } else { CloseCode::Done }
}

/// Whether a close with this code says which epoch won.
const fn names_winner(code: CloseCode) -> bool {
    matches!(code, CloseCode::Stale | CloseCode::Replaced)
}
