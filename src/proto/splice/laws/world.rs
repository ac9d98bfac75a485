//! The world of one run: a chain of relays between an origin and a target, the legs between them, two applications.

use super::coverage::{Coverage, Event};
use super::dice::Dice;
use super::fault::Fault;
use super::finding::{Check, Finding, Scope};
use super::leg::Leg;
use super::trace::{Name, Trace};
use crate::splice::{Direction, Limits, Splice};

/// The first node.
pub(super) const ORIGIN: usize = 0;

/// A node, and what it would lose in a crash.
pub(super) struct Node {
    pub(super) name: Name,
    /// The origin's is 0; those of hop h are dialled from hop h - 1.
    pub(super) hop: usize,
    /// Whether a path over it must remain possible: it is never dead or partitioned for good.
    pub(super) safe: bool,
    pub(super) alive: bool,
    pub(super) frozen: bool,
    pub(super) splice: Option<Splice>,
    /// Until when a relay takes no flows that it does not hold.
    pub(super) full_until: u32,
    /// The legs over which it has dialled for this flow; nothing where a dial failed before there was one.
    pub(super) tries: Vec<Option<usize>>,
    /// The target's memory of a flow that is over: nobody shall open it anew.
    pub(super) tombstone: bool,
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
    pub(super) sender_rests: u32,
    pub(super) taker_rests: u32,
}

impl Stream {
    /// How far acks may go: what was taken, the end counting as a byte.
    pub(super) fn taken_offset(&self) -> u64 {
        self.taken + u64::from(self.ended)
    }

    /// How far a node may have received.
    pub(super) fn sent_offset(&self) -> u64 {
        self.sent + u64::from(self.finished)
    }
}

/// How the machines around the splices are set up.
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
    pub(super) linger: Option<u32>,
}

/// See the module's documentation.
pub(super) struct World {
    pub(super) dice: Dice,
    /// Counts steps.
    pub(super) now: u32,
    pub(super) nodes: Vec<Node>,
    /// The candidates of each hop: the origin alone, the relays, the target alone.
    pub(super) hops: Vec<Vec<usize>>,
    pub(super) legs: Vec<Leg>,
    /// Those that are not over.
    pub(super) live: Vec<usize>,
    /// What goes wrong here.
    pub(super) faults: Vec<Fault>,
    /// Pairs that will never reach each other again.
    pub(super) partitions: Vec<(usize, usize)>,
    /// Of the forward and the backward direction.
    pub(super) streams: [Stream; 2],
    pub(super) habits: Habits,
    /// Applications send nothing: only repairs go on.
    pub(super) hush: bool,
    /// The origin was told `Done`, or has lingered long enough.
    pub(super) origin_done: bool,
    /// It left without being told.
    pub(super) origin_left: bool,
    /// When everything was acked at the origin.
    pub(super) complete_since: Option<u32>,
    pub(super) scope: Scope,
    pub(super) finding: Option<Finding>,
    pub(super) coverage: Coverage,
    pub(super) trace: Trace,
}

impl World {
    /// The world that belongs to `seed`.
    pub(super) fn new(seed: u64, scope: Scope, trace: Trace) -> Self {
        let mut dice = Dice::new(seed);
        let relays = dice.within(1, 5);
        let mut nodes = Vec::new();
        let mut hops = Vec::new();
        for hop in 0..=relays + 1 {
            let endpoint = hop == 0 || hop > relays;
            let candidates = if endpoint { 1 } else { dice.within(2, 3) };
            hops.push((nodes.len()..nodes.len() + candidates).collect());
            for place in 0..candidates {
                let name = Name::of(hop, place, relays);
                nodes.push(Node {
                    name,
                    hop,
                    safe: place + 1 == candidates,
                    alive: true,
                    frozen: false,
                    splice: None,
                    full_until: 0,
                    tries: Vec::new(),
                    tombstone: false,
                });
            }
        }
        nodes[ORIGIN].splice = Some(Splice::origin());
        let (habits, sizes) = Self::habits(&mut dice);
        let faults = Fault::some(&mut dice);
        let world = Self {
            dice,
            now: 0,
            nodes,
            hops,
            legs: Vec::new(),
            live: Vec::new(),
            faults,
            partitions: Vec::new(),
            streams: sizes.map(|size| Stream { size, ..Stream::default() }),
            habits,
            hush: false,
            origin_done: false,
            origin_left: false,
            complete_since: None,
            scope,
            finding: None,
            coverage: Coverage::default(),
            trace,
        };
        world.describe();
        world
    }

    /// How the machines are set up, and how much either application sends. In some worlds everything is larger, so that
    /// lanes also slice chunks instead of merging them.
    fn habits(dice: &mut Dice) -> (Habits, [u64; 2]) {
        let grain = if dice.one_in(16) { 400 } else { 1 };
        let most = if dice.one_in(2) { 6 } else { 40 };
        let window = dice.within(2, 12) * grain;
        let habits = Habits {
            limits: Limits { window_bytes: window as u64, backlog_bytes: dice.within(grain, window) as u64 },
            grain,
            stream_window: dice.within(2, 12) * grain,
            fails_at_once: dice.one_in(2),
            in_turn: dice.one_in(2),
            piece: dice.within(1, 10) * grain,
            half_close: dice.one_in(3),
            linger: dice.one_in(8).then(|| dice.soon(0)),
        };
        let sizes = [0, 0].map(|_: u8| (dice.below(most + 1) * grain) as u64);
        (habits, sizes)
    }

    fn describe(&self) {
        let [forward, backward] = &self.streams;
        let Habits { limits, stream_window, half_close, .. } = &self.habits;
        self.note(format_args!(
            "{} hops; {} bytes forward, {} backward{}; windows: lane {}, backlog {}, stream {stream_window}",
            self.hops.len() - 2,
            forward.size,
            backward.size,
            if *half_close { " (after the forward end)" } else { "" },
            limits.window_bytes,
            limits.backlog_bytes,
        ));
    }

    /// Some of `most` bytes.
    pub(super) fn portion(&mut self, most: usize) -> usize {
        let grain = self.habits.grain;
        if most <= grain { most } else { grain * self.dice.within(1, most / grain) }
    }

    /// The last node.
    pub(super) fn target(&self) -> usize {
        self.nodes.len() - 1
    }

    pub(super) fn relays(&self) -> std::ops::Range<usize> {
        1..self.target()
    }

    pub(super) fn name(&self, node: usize) -> Name {
        self.nodes[node].name
    }

    pub(super) fn stream(&self, direction: Direction) -> &Stream {
        &self.streams[direction as usize]
    }

    pub(super) fn stream_mut(&mut self, direction: Direction) -> &mut Stream {
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

    /// A line of the trace.
    pub(super) fn note(&self, line: std::fmt::Arguments<'_>) {
        self.trace.line(self.now, line);
    }

    /// Something worth counting happened.
    pub(super) fn count(&mut self, event: Event) {
        self.coverage.add(event);
    }

    /// A law is broken. Only the first finding of a run counts.
    pub(super) fn find(&mut self, check: Check, detail: std::fmt::Arguments<'_>) {
        self.note(format_args!("!! {}: {detail}", check.failure()));
        if self.finding.is_none() && self.scope.includes(check) {
            self.finding = Some(Finding { check, detail: detail.to_string() });
        }
    }
}
