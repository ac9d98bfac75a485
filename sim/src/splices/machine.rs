//! What a node does with its splice: the least that the relay's, the origin's and the target's machine have to do.

use super::actions::{Action, Job, legs};
use super::leg::{ACCEPTOR, DIALER, Leg, Message, Packet, id, index};
use super::world::{ORIGIN, World};
use bytes::Bytes;
use hopline_proto::Epoch;
use hopline_proto::frame::{AttachOk, CloseCode, Opening};
use hopline_proto::lane::FlowViolation;
use hopline_proto::planted::{self, Law};
use hopline_proto::splice::{Attached, Direction, Ending, Freed, Position, Splice};

impl World {
    /// Takes one step.
    pub(super) fn perform(&mut self, (node, job): Action) {
        self.note(format_args!("{}: {job:?}", self.name(node)));
        match job {
            Job::Read(leg) => self.read(node, leg),
            Job::Reset(leg) => self.notice_reset(node, leg),
            Job::Hear(leg) => self.hear(node, leg),
            Job::LoseLink(leg) => {
                self.count("legs lost with their link");
                self.on_close(node, leg, CloseCode::Lost, None);
            }
            Job::Write(direction) => self.write(node, direction),
            Job::Take(direction) => self.take(node, direction),
            Job::Feed => self.feed(node),
            Job::Ack(direction) => self.tell_ack(node, direction),
            Job::Dial => self.dial_or_give_up(node),
            Job::Suspect => {
                let left = self.splice(node).leave_next();
                left.into_iter().for_each(|leg| self.close(index(leg), node, CloseCode::Moved, None));
            }
            Job::Complete => self.complete(),
            Job::Leave => {
                self.count("origins that lingered in vain");
                self.origin_left = true;
                self.free(ORIGIN, CloseCode::Done, CloseCode::Done);
            }
            Job::FreeEarly => {
                let code = if node == ORIGIN { CloseCode::Done } else { CloseCode::Lost };
                self.free(node, code, CloseCode::Lost);
            }
        }
        self.tell_ends(node);
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
            self.count("relays that gave up: no path");
            self.check_gave_up_early(node);
            return self.free(node, CloseCode::NoPath, CloseCode::Lost);
        }
        let to = self.candidate(node);
        let linked = self.is_linked(node, to);
        self.count("dials");
        if !linked && self.habits.fails_at_once {
            self.count("dials that failed at once");
            self.nodes[node].tries.push(None);
            return self.splice(node).dial_failed();
        }
        let number = self.legs.len();
        let opening = self.splice(node).dial(id(number));
        self.note(format_args!("  dials {} over leg {number}: {opening:?}", self.name(to)));
        self.nodes[node].tries.push(Some(number));
        let dead = !self.nodes[to].alive;
        self.open([node, to], opening).dropped[ACCEPTOR] = dead;
        if !linked {
            let leg = &mut self.legs[number];
            leg.cut(&mut self.dice);
            leg.ways[DIALER].data.clear();
        }
    }

    /// A leg begins.
    pub(super) fn open(&mut self, ends: [usize; 2], opening: Opening) -> &mut Leg {
        let mut late = [[self.now; 2]; 2];
        for time in late.iter_mut().flatten() {
            if self.habits.late && self.dice.one_in(3) {
                *time = self.soon();
            }
        }
        self.live.push(self.legs.len());
        self.legs.push(Leg::new(ends, opening, self.now, late));
        self.legs.last_mut().expect("it is there now")
    }

    /// Whom to dial.
    fn candidate(&mut self, node: usize) -> usize {
        let state = &self.nodes[node];
        let candidates = &self.hops[state.name.hop + 1];
        let place = if self.habits.in_turn { state.tries.len() } else { self.dice.place(candidates.len()) };
        candidates[place % candidates.len()]
    }

    fn on_answer(&mut self, at: usize, leg: usize, answer: &AttachOk) {
        let splice = self.splice(at);
        let gap = answer.backward_start > splice.lane(Direction::Backward).received();
        match splice.answered(id(leg), answer) {
            Ok(()) => self.legs[leg].useful = true,
            Err(_) if gap && at != ORIGIN => {
                self.count("relays freed because next's answer left a gap");
                self.free(at, CloseCode::Lost, CloseCode::Lost);
            }
            Err(violation) => self.accuse(at, leg, violation),
        }
    }

    // ---- prev ----

    fn on_attach(&mut self, at: usize, leg: usize, opening: &Opening) {
        if self.nodes[at].tombstone {
            self.count("attaches answered by the tombstone");
            return self.close(leg, at, done(), None);
        }
        if self.nodes[at].splice.is_none() && self.now < self.nodes[at].full_until {
            self.count("attaches refused for want of room");
            return self.close(leg, at, CloseCode::Overloaded, None);
        }
        let Some(splice) = self.holding(at, opening) else {
            return self.close(leg, at, CloseCode::Unknown, None);
        };
        let before = splice.epoch().clone();
        match splice.attach(id(leg), opening) {
            Attached::Accepted { answer, replaced, forgotten } => {
                self.check_epoch(at, &before, &opening.epoch);
                if let Some(old) = replaced {
                    self.count("legs replaced by a greater epoch");
                    self.close(index(old), at, CloseCode::Replaced, Some(opening.epoch.clone()));
                }
                if !forgotten.is_empty() {
                    self.count("relays that forgot what they held, to fit their prev");
                }
                for leg in forgotten {
                    self.close(index(leg), at, CloseCode::Lost, None);
                }
                self.legs[leg].send(at, Packet::Answer(answer));
            }
            Attached::Stale { winner } => {
                self.count("attaches refused as stale");
                self.close(leg, at, CloseCode::Stale, Some(winner));
            }
            Attached::Impossible => {
                self.fail_at(at, "violation", format_args!("an impossible attach: {opening:?}"));
                self.close(leg, at, CloseCode::Malformed, None);
            }
        }
    }

    /// The splice that an attach is for, made if need be; nothing if the target doesn't know the flow.
    fn holding(&mut self, at: usize, opening: &Opening) -> Option<&mut Splice> {
        let is_target = at == self.target();
        let node = &mut self.nodes[at];
        if node.splice.is_none() {
            node.tries.clear();
            node.splice = if is_target { Splice::target(opening) } else { Some(Splice::relay(opening)) };
        }
        node.splice.as_mut()
    }

    // ---- what comes over legs ----

    fn read(&mut self, at: usize, leg: usize) {
        let packet = self.legs[leg].inward(at).data.pop_front();
        self.note(format_args!("  {packet:?}"));
        match packet {
            Some(Packet::Attach(opening)) => self.on_attach(at, leg, &opening),
            Some(Packet::Answer(answer)) => self.on_answer(at, leg, &answer),
            Some(Packet::Bytes(bytes)) => self.on_bytes(at, leg, bytes),
            Some(Packet::End) => {
                self.count("streams that ended without a code");
                self.legs[leg].drop_by(at);
                let ending = self.attached(at, leg).map(|splice| splice.stream_ended(id(leg)));
                self.follow(at, ending);
            }
            None => {}
        }
    }

    /// Reads some of a packet's bytes.
    fn on_bytes(&mut self, at: usize, leg: usize, mut bytes: Bytes) {
        self.check_room(at, leg);
        let rest = bytes.split_off(self.portion(bytes.len()));
        if !rest.is_empty() {
            self.legs[leg].inward(at).data.push_front(Packet::Bytes(rest));
        }
        if let Err(violation) = self.splice(at).receive(id(leg), bytes) {
            self.accuse(at, leg, violation);
        }
    }

    fn hear(&mut self, at: usize, leg: usize) {
        let Some(message) = self.legs[leg].inward(at).control.pop_front() else { return };
        self.note(format_args!("  {message:?}"));
        let Some(splice) = self.attached(at, leg) else {
            // Law 3: no control message comes before its leg is known.
            return self.fail_at(at, "acks", format_args!("leg {leg} is unknown, {message:?} is lost"));
        };
        let result = match message {
            Message::Ack(offset) => splice.ack(id(leg), offset).map(drop),
            Message::Fin(offset) => splice.fin(id(leg), offset),
            Message::Close(code, winner) => return self.on_close(at, leg, code, Some(&winner)),
        };
        if let Err(violation) = result {
            self.accuse(at, leg, violation);
        }
    }

    /// A reset that says somebody else won waits for the control message that says who: without it an outranked node
    /// would not know that it is, and would go on dialling.
    fn notice_reset(&mut self, at: usize, leg: usize) {
        let way = self.legs[leg].inward(at);
        way.data.clear();
        if let Some(code) = way.reset.take()
            && !names_winner(code)
        {
            self.on_close(at, leg, code, None);
        }
    }

    fn on_close(&mut self, at: usize, leg: usize, code: CloseCode, winner: Option<&Epoch>) {
        self.legs[leg].drop_by(at);
        self.note(format_args!("  loses leg {leg}: {code:?}, winner {winner:?}"));
        self.legs[leg].useful &= code != CloseCode::NoPath;
        let Some(splice) = self.attached(at, leg) else { return };
        let dialled = splice.epoch().child(splice.dials());
        let ending = splice.closed(id(leg), code, winner);
        let frees = matches!(ending, Ending::Free(_));
        if let Some(winner) = winner {
            self.check_yielding(at, &dialled, winner, frees);
        }
        if code == CloseCode::Moved && frees {
            self.count("relays freed because prev moved on");
        }
        self.follow(at, Some(ending));
    }

    /// What the other end of `leg` said can't be true: where all are honest nobody is accused.
    fn accuse(&mut self, at: usize, leg: usize, violation: FlowViolation) {
        self.fail_at(at, "violation", format_args!("over leg {leg}: {violation}"));
        if self.splice(at).position() == Position::Relay {
            self.free(at, CloseCode::Lost, CloseCode::Lost);
        } else {
            self.splice(at).closed(id(leg), CloseCode::Malformed, None);
            self.close(leg, at, CloseCode::Malformed, None);
        }
    }

    fn follow(&mut self, at: usize, ending: Option<Ending>) {
        if let Some(Ending::Free(freed)) = ending {
            self.freed(at, freed);
        }
    }

    // ---- what goes out ----

    fn write(&mut self, node: usize, direction: Direction) {
        let splice = self.splice(node);
        let front = splice.lane(direction).front().next();
        let Some((leg, mut bytes)) = legs(splice, direction).1.zip(front) else { return };
        let in_flight = self.legs[leg].ways[self.legs[leg].end_of(node)].in_flight();
        let room = self.habits.stream_window - in_flight;
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

    // ---- the end ----

    /// `node` resets a leg.
    pub(super) fn close(&mut self, leg: usize, node: usize, code: CloseCode, winner: Option<Epoch>) {
        assert_eq!(names_winner(code), winner.is_some(), "{code:?} names its winner, others don't");
        self.note(format_args!("  {} closes leg {leg}: {code:?}, winner {winner:?}", self.name(node)));
        if let Some(winner) = winner {
            self.legs[leg].tell(node, Message::Close(code, winner));
        }
        self.legs[leg].end(node, Some(code), &mut self.dice);
    }

    /// The flow is over at this node.
    pub(super) fn free(&mut self, node: usize, code: CloseCode, down: CloseCode) {
        let freed = self.splice(node).free(code, down);
        self.freed(node, freed);
    }

    fn freed(&mut self, node: usize, freed: Freed) {
        let Freed { code, winner, prev, next, fading, down } = freed;
        for (leg, code, winner) in
            [(prev, code, winner), (next, down, None), (fading, CloseCode::Moved, None)]
        {
            leg.into_iter().for_each(|leg| self.close(index(leg), node, code, winner.clone()));
        }
        self.nodes[node].splice = None;
        if code == CloseCode::Replaced {
            self.count("relays freed because their path was outranked");
        }
        if node == ORIGIN {
            if code != CloseCode::Done {
                self.fail("completion: lost", format_args!("the origin is told {code:?}"));
            } else if !self.is_delivered() {
                self.fail("completion: short", format_args!("done, but not everything was delivered"));
            }
        }
    }

    fn complete(&mut self) {
        let target = self.target();
        self.free(target, done(), done());
        self.nodes[target].tombstone = true;
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
