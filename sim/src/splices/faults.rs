//! What goes wrong: relays crash and freeze, links break, neighbours are suspected wrongly, networks part for good.

use super::leg::{ACCEPTOR, DIALER, index};
use super::world::{ORIGIN, World};
use crate::dice::Dice;
use hopline_proto::frame::CloseCode;
use hopline_proto::splice::Direction;

/// Pairs that are parted for good, at most.
const MAX_PARTITIONS: usize = 8;

/// A kind of fault.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Crash,
    Freeze,
    Suspect,
    Flap,
    Part,
    DeadEnd,
    Delay,
    Rest,
    Doubt,
    Fill,
    Replay,
}

/// All kinds, the usual ones more often.
const KINDS: [Kind; 16] = {
    use Kind::{Crash, DeadEnd, Delay, Doubt, Fill, Flap, Freeze, Part, Replay, Rest, Suspect};
    [
        Crash, Crash, Freeze, Suspect, Suspect, Suspect, Flap, Flap, Part, DeadEnd, Delay, Delay, Rest,
        Doubt, Fill, Replay,
    ]
};

/// The faults of one world: all kinds, or only a few, which then meet each other more often (swarm testing: Groce
/// et al., ISSTA 2012).
pub(super) fn kinds(dice: &mut Dice) -> Vec<Kind> {
    if dice.one_in(2) {
        return KINDS.to_vec();
    }
    (0..dice.size(1, 4)).map(|_| dice.one_of(&KINDS)).collect()
}

impl World {
    /// One fault, if chance has one for the node that it picks.
    pub(super) fn fault(&mut self, kind: Kind) {
        let relay = self.some_relay();
        self.count("faults");
        self.note(format_args!("** {kind:?}, perhaps of {}", self.name(relay)));
        match kind {
            Kind::Crash => self.some_crash(relay),
            Kind::Freeze => self.freeze_or_thaw(relay),
            Kind::Suspect => {
                let dialer = if self.dice.one_in(4) { ORIGIN } else { relay };
                self.suspect_wrongly(dialer);
            }
            Kind::Flap => self.flap(),
            Kind::Part => self.part_from_some(relay),
            Kind::DeadEnd => self.dead_end(relay),
            Kind::Delay => self.delay(),
            Kind::Rest => self.rest(),
            Kind::Doubt => self.doubt(relay),
            Kind::Fill => self.nodes[relay].full_until = self.soon(),
            Kind::Replay => self.replay(),
        }
    }

    /// A relay, most often one that holds the flow.
    fn some_relay(&mut self) -> usize {
        let holding: Vec<usize> = self.relays().filter(|node| self.nodes[*node].splice.is_some()).collect();
        if holding.is_empty() || self.dice.one_in(5) { self.any_relay() } else { self.dice.one_of(&holding) }
    }

    fn any_relay(&mut self) -> usize {
        self.dice.size(1, self.nodes.len() - 2)
    }

    fn some_crash(&mut self, relay: usize) {
        let restarts = self.dice.one_in(3);
        self.crash(relay, restarts);
        if self.dice.one_in(3) {
            let other = self.any_relay();
            self.crash(other, false);
        }
    }

    /// Everything that the relay held is gone. Its streams may look as if they had ended well, before the links are seen to
    /// be lost.
    fn crash(&mut self, relay: usize, restarts: bool) {
        if !self.nodes[relay].alive || (self.nodes[relay].safe && !restarts) {
            return;
        }
        self.note(format_args!("** {} crashes, restarts: {restarts}", self.name(relay)));
        for leg in self.legs_of(relay) {
            let (leg, dice) = (&mut self.legs[leg], &mut self.dice);
            if dice.one_in(3) {
                leg.end(relay, None, dice);
            } else {
                leg.drop_by(relay);
            }
            leg.cut(dice);
        }
        let node = &mut self.nodes[relay];
        (node.splice, node.frozen, node.alive) = (None, false, restarts);
    }

    /// A relay freezes, or goes on as if nothing had happened.
    fn freeze_or_thaw(&mut self, relay: usize) {
        let node = &mut self.nodes[relay];
        node.frozen = node.alive && !node.frozen;
        if node.frozen {
            for leg in self.legs_of(relay) {
                if self.dice.one_in(2) {
                    self.legs[leg].cut(&mut self.dice);
                }
            }
        }
    }

    /// A dialer gives up on a next that is well. That next may never be told, or late and wrongly.
    fn suspect_wrongly(&mut self, dialer: usize) {
        if self.nodes[dialer].frozen {
            return;
        }
        if self.dice.one_in(3) {
            return self.part_in_peace(dialer);
        }
        let left = self.nodes[dialer].splice.as_mut().and_then(|splice| splice.leave_next());
        let Some(leg) = left.map(index) else { return };
        self.note(format_args!("** {} wrongly suspects what is behind leg {leg}", self.name(dialer)));
        match self.dice.place(8) {
            0 => {
                self.legs[leg].drop_by(dialer);
                self.legs[leg].cut(&mut self.dice);
            }
            1 => self.legs[leg].end(dialer, None, &mut self.dice),
            2 | 3 => {
                self.close(leg, dialer, CloseCode::Lost, None);
                self.legs[leg].ways[DIALER].data_late = self.now + 60;
            }
            _ => self.close(leg, dialer, CloseCode::Moved, None),
        }
    }

    /// A dialer's next will leave: another is dialled before it does. It may also leave too early.
    fn part_in_peace(&mut self, dialer: usize) {
        let Some(splice) = self.nodes[dialer].splice.as_mut() else { return };
        let next = splice.next();
        let older = splice.part_from_next();
        self.note(format_args!("** {} parts from {next:?}, and drops {older:?}", self.name(dialer)));
        if let Some(leg) = older {
            self.close(index(leg), dialer, CloseCode::Moved, None);
        }
        if let Some(leg) = next.filter(|leg| older != Some(*leg) && self.dice.one_in(4)) {
            self.legs[index(leg)].cut(&mut self.dice);
        }
    }

    /// A link breaks, with one leg or all that it carries, and is up again at once.
    fn flap(&mut self) {
        let is_whole = |leg: &usize| !self.legs[*leg].cut && self.legs[*leg].dropped != [true; 2];
        let whole: Vec<usize> = self.live.iter().copied().filter(is_whole).collect();
        let Some(leg) = self.dice.pick(&whole) else { return };
        self.note(format_args!("** the link of leg {leg} flaps"));
        self.legs[leg].cut(&mut self.dice);
        if self.dice.one_in(2) {
            self.cut_between(self.legs[leg].ends);
        }
    }

    /// A relay and one of its prevs or nexts will never reach each other again.
    fn part_from_some(&mut self, relay: usize) {
        let hop = self.nodes[relay].name.hop;
        let other = if self.dice.one_in(4) { hop - 1 } else { hop + 1 };
        let other = self.dice.one_of(&self.hops[other]);
        self.part(relay.min(other), relay.max(other));
    }

    /// A relay reaches one next and no other, and that one reaches nobody.
    fn dead_end(&mut self, relay: usize) {
        let hop = self.nodes[relay].name.hop;
        let nexts = self.hops[hop + 1].clone();
        let end = self.dice.one_of(&nexts);
        for next in nexts.into_iter().filter(|next| *next != end) {
            self.part(relay, next);
        }
        for beyond in self.hops.get(hop + 2).cloned().unwrap_or_default() {
            self.part(end, beyond);
        }
    }

    fn part(&mut self, from: usize, to: usize) {
        let possible = !(self.nodes[from].safe && self.nodes[to].safe);
        if possible && self.partitions.len() < MAX_PARTITIONS {
            self.note(format_args!("** {} and {} are parted for good", self.name(from), self.name(to)));
            self.partitions.push((from, to));
            self.cut_between([from, to]);
        }
    }

    /// What is under way on some leg takes long.
    fn delay(&mut self) {
        let Some(leg) = self.dice.pick(&self.live) else { return };
        let (way, late) = (self.dice.place(2), self.soon());
        let way = &mut self.legs[leg].ways[way];
        *(if self.dice.one_in(2) { &mut way.data_late } else { &mut way.control_late }) = late;
    }

    /// An application sends, or takes, nothing for a while.
    fn rest(&mut self) {
        let (until, direction) = (self.soon(), self.dice.one_of(&Direction::BOTH));
        let stream = &mut self.streams[direction as usize];
        *(if self.dice.one_in(2) { &mut stream.sender_rests } else { &mut stream.taker_rests }) = until;
    }

    /// A relay forgets the flow for some reason of its own (Law 5).
    fn doubt(&mut self, relay: usize) {
        if self.nodes[relay].splice.is_some() && !self.nodes[relay].frozen {
            self.count("relays that freed the flow in doubt");
            self.free(relay, CloseCode::Lost, CloseCode::Lost);
        }
    }

    /// Somebody sends a copy of an earlier attach, and nothing more.
    fn replay(&mut self) {
        if self.legs.is_empty() {
            return;
        }
        let copied = &self.legs[self.dice.place(self.legs.len())];
        let (ends, opening) = (copied.ends, copied.opening.clone());
        if self.nodes[ends[ACCEPTOR]].alive {
            self.note(format_args!("** somebody replays to {}: {opening:?}", self.name(ends[ACCEPTOR])));
            self.count("attaches replayed by somebody");
            let leg = self.open(ends, opening);
            (leg.dropped[DIALER], leg.cut) = (true, true);
        }
    }

    fn legs_of(&self, node: usize) -> Vec<usize> {
        self.live.iter().copied().filter(|leg| self.legs[*leg].ends.contains(&node)).collect()
    }

    fn cut_between(&mut self, ends: [usize; 2]) {
        for leg in self.legs_of(ends[DIALER]) {
            if self.legs[leg].ends == ends {
                self.legs[leg].cut(&mut self.dice);
            }
        }
    }
}
