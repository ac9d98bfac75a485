//! What goes wrong: relays crash and freeze, links break, neighbours are suspected wrongly, networks part for good.

use super::coverage::Event;
use super::fault::Fault;
use super::leg::{ACCEPTOR, DIALER, Leg, index};
use super::world::{ORIGIN, World};
use crate::frame::CloseCode;
use crate::splice::Direction;

/// Pairs that are parted for good, at most.
const MAX_PARTITIONS: usize = 8;

impl World {
    /// One fault, if chance has one for the node that it picks.
    pub(super) fn fault(&mut self) {
        let relay = self.some_relay();
        match self.dice.pick(&self.faults) {
            Fault::Crash => self.some_crash(relay),
            Fault::Freeze => self.freeze_or_thaw(relay),
            Fault::Suspect => {
                let dialer = if self.dice.one_in(4) { ORIGIN } else { relay };
                self.suspect_wrongly(dialer);
            }
            Fault::Flap => self.flap(),
            Fault::Part => self.part_from_some(relay),
            Fault::DeadEnd => self.dead_end(relay),
            Fault::Delay => self.delay(),
            Fault::Rest => self.rest(),
            Fault::Doubt => self.doubt(relay),
            Fault::Fill => self.nodes[relay].full_until = self.dice.soon(self.now),
            Fault::Replay => self.replay(),
        }
    }

    /// A relay, most often one that holds the flow.
    fn some_relay(&mut self) -> usize {
        let holding: Vec<usize> = self.relays().filter(|node| self.nodes[*node].splice.is_some()).collect();
        if holding.is_empty() || self.dice.one_in(5) {
            self.dice.within(1, self.target() - 1)
        } else {
            self.dice.pick(&holding)
        }
    }

    fn some_crash(&mut self, relay: usize) {
        let restarts = self.dice.one_in(3);
        self.crash(relay, restarts);
        if self.dice.one_in(3) {
            let other = self.dice.within(1, self.target() - 1);
            self.crash(other, false);
        }
    }

    /// Everything that the relay held is gone; its streams break, or end as if nothing were wrong.
    fn crash(&mut self, relay: usize, restarts: bool) {
        if !self.nodes[relay].alive || (self.nodes[relay].safe && !restarts) {
            return;
        }
        let how = if restarts { "crashes and restarts empty" } else { "crashes for good" };
        self.note(format_args!("** {} {how}", self.name(relay)));
        for leg in self.legs_of(relay) {
            self.legs[leg].crash(relay, &mut self.dice);
        }
        let node = &mut self.nodes[relay];
        (node.splice, node.frozen, node.alive) = (None, false, restarts);
    }

    fn freeze_or_thaw(&mut self, relay: usize) {
        if self.nodes[relay].frozen {
            self.thaw(relay);
        } else if self.nodes[relay].alive {
            self.note(format_args!("** {} freezes", self.name(relay)));
            self.nodes[relay].frozen = true;
            for leg in self.legs_of(relay) {
                if self.dice.one_in(2) {
                    self.legs[leg].cut(&mut self.dice);
                }
            }
        }
    }

    /// The relay goes on as if nothing had happened.
    pub(super) fn thaw(&mut self, relay: usize) {
        if self.nodes[relay].frozen {
            self.note(format_args!("** {} thaws", self.name(relay)));
            self.nodes[relay].frozen = false;
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
        let next = self.legs[leg].ends[ACCEPTOR];
        self.note(format_args!("** {} wrongly suspects {} on leg {leg}", self.name(dialer), self.name(next)));
        match self.dice.below(8) {
            0 => {
                self.legs[leg].drop_by(dialer);
                self.legs[leg].cut(&mut self.dice);
            }
            1 => self.legs[leg].end_cleanly(dialer, &mut self.dice),
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
        let whole: Vec<usize> = self
            .live
            .iter()
            .copied()
            .filter(|leg| !self.legs[*leg].cut && !self.legs[*leg].is_over())
            .collect();
        if whole.is_empty() {
            return;
        }
        let leg = self.dice.pick(&whole);
        let [dialer, acceptor] = self.legs[leg].ends;
        self.note(format_args!("** the link {}-{} flaps", self.name(dialer), self.name(acceptor)));
        self.legs[leg].cut(&mut self.dice);
        if self.dice.one_in(2) {
            self.cut_between(dialer, acceptor);
        }
    }

    /// A relay and one of its prevs or nexts will never reach each other again.
    fn part_from_some(&mut self, relay: usize) {
        let hop = self.nodes[relay].hop;
        if self.dice.one_in(4) {
            let prev = self.dice.pick(&self.hops[hop - 1]);
            self.part(prev, relay);
        } else {
            let next = self.dice.pick(&self.hops[hop + 1]);
            self.part(relay, next);
        }
    }

    /// A relay reaches one next and no other, and that one reaches nobody.
    fn dead_end(&mut self, relay: usize) {
        let hop = self.nodes[relay].hop;
        let nexts = self.hops[hop + 1].clone();
        let end = self.dice.pick(&nexts);
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
            self.cut_between(from, to);
        }
    }

    /// What is under way on some leg takes long.
    fn delay(&mut self) {
        if self.live.is_empty() {
            return;
        }
        let leg = self.dice.pick(&self.live);
        let way = self.dice.below(2);
        let late = self.dice.soon(self.now);
        let queue = &mut self.legs[leg].ways[way];
        if self.dice.one_in(2) {
            queue.data_late = late;
        } else {
            queue.control_late = late;
        }
    }

    /// An application sends, or takes, nothing for a while.
    fn rest(&mut self) {
        let until = self.dice.soon(self.now);
        let direction = self.dice.pick(&Direction::BOTH);
        let stream = &mut self.streams[direction as usize];
        if self.dice.one_in(2) {
            stream.sender_rests = until;
        } else {
            stream.taker_rests = until;
        }
    }

    /// A relay forgets the flow for some reason of its own (Law 5).
    fn doubt(&mut self, relay: usize) {
        if self.nodes[relay].splice.is_some() && !self.nodes[relay].frozen {
            self.note(format_args!("** {} is in doubt", self.name(relay)));
            self.count(Event::Doubt);
            self.free(relay, CloseCode::Lost, CloseCode::Lost);
        }
    }

    /// Somebody sends a copy of an earlier attach, and nothing more.
    fn replay(&mut self) {
        if self.legs.is_empty() {
            return;
        }
        let copied = self.dice.below(self.legs.len());
        let Leg { ends: [dialer, acceptor], opening, .. } = &self.legs[copied];
        let (dialer, acceptor, opening) = (*dialer, *acceptor, opening.clone());
        if self.nodes[acceptor].alive {
            self.note(format_args!(
                "** leg {}: somebody replays leg {copied}'s attach to {}",
                self.legs.len(),
                self.name(acceptor)
            ));
            self.count(Event::Replay);
            let mut leg = Leg::new(dialer, acceptor, opening, self.now, &mut self.dice);
            leg.dropped[DIALER] = true;
            leg.cut = true;
            self.open(leg);
        }
    }

    fn legs_of(&self, node: usize) -> Vec<usize> {
        self.live.iter().copied().filter(|leg| self.legs[*leg].ends.contains(&node)).collect()
    }

    fn cut_between(&mut self, from: usize, to: usize) {
        for leg in self.legs_of(from) {
            if self.legs[leg].ends == [from, to] {
                self.legs[leg].cut(&mut self.dice);
            }
        }
    }
}
