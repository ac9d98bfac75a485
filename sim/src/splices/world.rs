//! The world of one run: a chain of relays between an origin and a target, the legs between them, two applications.

use super::leg::Leg;
use crate::check::Failure;
use crate::dice::Dice;
use crate::settings::START;
use crate::swarm::Trim;
use crate::trace::Trace;
use hopline_proto::Time;
use hopline_proto::splice::{Direction, Limits, Splice};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// Nothing is held up for so many steps.
pub(super) const LONGEST_WAIT: usize = 80;
/// The first node.
pub(super) const ORIGIN: usize = 0;

/// A node, and what it would lose in a crash.
pub(super) struct Node {
    pub(super) name: Name,
    /// Whether a path over it must remain possible: it is never dead or partitioned for good.
    pub(super) safe: bool,
    pub(super) alive: bool,
    pub(super) frozen: bool,
    pub(super) splice: Option<Splice>,
    /// Until when a relay takes no flows that it does not hold.
    pub(super) full_until: usize,
    /// The legs over which it has dialled for this flow; nothing where a dial failed before there was one.
    pub(super) tries: Vec<Option<usize>>,
    /// The target's memory of a flow that is over: nobody shall open it anew.
    pub(super) tombstone: bool,
}

/// A node's hop (those of hop h are dialled from hop h - 1) and its place among the candidates there: `0a` is the origin.
#[derive(Clone, Copy)]
pub(super) struct Name {
    pub(super) hop: usize,
    place: u8,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.hop, char::from(b'a' + self.place))
    }
}

/// What the applications know of one direction.
#[derive(Clone, Copy, Default)]
pub(super) struct Stream {
    /// How much will be sent.
    pub(super) size: u64,
    pub(super) sent: u64,
    pub(super) finished: bool,
    pub(super) taken: u64,
    pub(super) ended: bool,
    /// Until when the application that sends, and the one that takes, do nothing.
    pub(super) sender_rests: usize,
    pub(super) taker_rests: usize,
}

/// How the machines around the splices are set up.
#[derive(Debug)]
pub(super) struct Habits {
    pub(super) limits: Limits,
    /// Bytes come in multiples of this.
    pub(super) grain: usize,
    /// Bytes that a QUIC stream takes before they are read.
    pub(super) stream_window: usize,
    /// Whether a dial to who can't be reached fails before there is a leg.
    pub(super) fails_at_once: bool,
    /// Whether candidates are dialled in turn, not at random.
    pub(super) in_turn: bool,
    /// Size of the largest piece that an application sends.
    pub(super) piece: usize,
    /// The target sends its end only when it has received the origin's.
    pub(super) half_close: bool,
    /// How long the origin lingers for `Done` after everything was acked.
    pub(super) linger: Option<usize>,
    /// Whether what travels is late now and then even where no fault hits it.
    pub(super) late: bool,
}

/// See the module's documentation.
pub(super) struct World {
    pub(super) dice: Dice,
    /// Counts steps.
    pub(super) now: usize,
    pub(super) nodes: Vec<Node>,
    /// The candidates of each hop: the origin alone, the relays, the target alone.
    pub(super) hops: Vec<Vec<usize>>,
    pub(super) legs: Vec<Leg>,
    /// Those that are not over.
    pub(super) live: Vec<usize>,
    /// Pairs that will never reach each other again.
    pub(super) partitions: Vec<(usize, usize)>,
    /// Of the forward and the backward direction.
    pub(super) streams: [Stream; 2],
    pub(super) habits: Habits,
    /// How many faults there will be, at most.
    pub(super) faults: usize,
    /// Applications send nothing: only repairs go on.
    pub(super) hush: bool,
    /// The origin left without being told that all is done.
    pub(super) origin_left: bool,
    /// When everything was acked at the origin.
    pub(super) complete_since: Option<usize>,
    /// Whether only what applications would feel is checked.
    pub(super) only_felt: bool,
    pub(super) failure: Option<Failure>,
    /// How often the rare things happened: a world in which they don't would prove nothing about them.
    pub(super) counts: BTreeMap<&'static str, u64>,
    pub(super) trace: Trace,
}

impl World {
    /// The world that belongs to `seed`, without what is left out.
    pub(super) fn new(seed: u64, trim: &Trim) -> Self {
        let mut dice = Dice::new(seed, 201);
        let relays = dice.size(1, 5);
        let (mut nodes, mut hops) = (Vec::new(), Vec::new());
        for hop in 0..=relays + 1 {
            let candidates = if hop == 0 || hop > relays { 1 } else { 2 + u8::from(dice.one_in(2)) };
            hops.push((nodes.len()..nodes.len() + usize::from(candidates)).collect());
            nodes.extend((0..candidates).map(|place| Node {
                name: Name { hop, place },
                safe: place + 1 == candidates,
                alive: true,
                frozen: false,
                splice: (hop == 0).then(Splice::origin),
                full_until: 0,
                tries: Vec::new(),
                tombstone: false,
            }));
        }
        let habits = Habits::draw(&mut dice, !trim.fair_weather);
        let most = if dice.one_in(2) { 6 } else { 40 };
        let size = |dice: &mut Dice| (dice.place(most + 1) * habits.grain) as u64 >> trim.halvings;
        let most_faults = dice.one_of(&[0, 3, 3, 6, 6, 20]);
        Self {
            now: 0,
            nodes,
            hops,
            legs: Vec::new(),
            live: Vec::new(),
            partitions: Vec::new(),
            streams: [0; 2].map(|_| Stream { size: size(&mut dice), ..Stream::default() }),
            habits,
            faults: dice.size(0, most_faults),
            hush: false,
            origin_left: false,
            complete_since: None,
            only_felt: false,
            failure: None,
            counts: BTreeMap::new(),
            trace: Trace::default(),
            dice,
        }
    }

    /// Some of `most` bytes.
    pub(super) fn portion(&mut self, most: usize) -> usize {
        let grain = self.habits.grain;
        if most <= grain { most } else { grain * self.dice.size(1, most / grain) }
    }

    /// A time in the next few dozen steps.
    pub(super) fn soon(&mut self) -> usize {
        self.now + self.dice.place(LONGEST_WAIT)
    }

    /// The last node.
    pub(super) const fn target(&self) -> usize {
        self.nodes.len() - 1
    }

    pub(super) const fn relays(&self) -> std::ops::Range<usize> {
        1..self.target()
    }

    pub(super) fn name(&self, node: usize) -> Name {
        self.nodes[node].name
    }

    pub(super) const fn stream(&mut self, direction: Direction) -> &mut Stream {
        &mut self.streams[direction as usize]
    }

    /// Whether both applications have everything.
    pub(super) fn is_delivered(&self) -> bool {
        self.streams.iter().all(|stream| stream.ended)
    }

    /// Whether two nodes can reach each other at all.
    pub(super) fn is_linked(&self, from: usize, to: usize) -> bool {
        self.nodes[from].alive && self.nodes[to].alive && !self.partitions.contains(&(from, to))
    }

    /// The moment of a step: in timelines and sums each takes a millisecond.
    pub(super) const fn elapsed(&self) -> Duration {
        Duration::from_millis(self.now as u64)
    }

    /// A line of the timeline.
    pub(super) fn note(&mut self, line: fmt::Arguments<'_>) {
        if self.trace.is_on() {
            let now = Time::from_micros(START.as_micros() + self.now as u64 * 1000);
            self.trace.remark(now, line);
        }
    }

    /// Something worth counting happened.
    pub(super) fn count(&mut self, event: &'static str) {
        *self.counts.entry(event).or_default() += 1;
    }

    pub(super) fn counted(&self, event: &'static str) -> u64 {
        self.counts.get(event).copied().unwrap_or_default()
    }

    /// An application feels that a law is broken, or the flow does not come to its end. Only the first failure of a run
    /// counts.
    pub(super) fn fail(&mut self, checker: &'static str, what: fmt::Arguments<'_>) {
        self.note(format_args!("!! {checker}: {what}"));
        let at = self.elapsed();
        self.failure.get_or_insert_with(|| Failure { checker, what: what.to_string(), at });
    }

    /// A law is broken at a node, whether or not anybody will feel it.
    pub(super) fn fail_at(&mut self, node: usize, checker: &'static str, what: fmt::Arguments<'_>) {
        if !self.only_felt {
            self.fail(checker, format_args!("{}: {what}", self.name(node)));
        }
    }
}

impl Habits {
    /// In some worlds everything is larger, so that lanes also slice chunks instead of merging them.
    fn draw(dice: &mut Dice, late: bool) -> Self {
        let grain = if dice.one_in(16) { 400 } else { 1 };
        let window = dice.size(2, 12) * grain;
        let backlog = dice.size(grain, window);
        Self {
            limits: Limits {
                window_bytes: window as u64,
                max_window_bytes: window as u64,
                backlog_bytes: backlog as u64,
            },
            grain,
            stream_window: dice.size(2, 12) * grain,
            fails_at_once: dice.one_in(2),
            in_turn: dice.one_in(2),
            piece: dice.size(1, 10) * grain,
            half_close: dice.one_in(3),
            linger: dice.one_in(8).then(|| dice.place(LONGEST_WAIT)),
            late,
        }
    }
}
