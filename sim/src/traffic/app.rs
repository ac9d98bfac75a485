//! The application at both ends of one flow.

use super::script::{FlowPlan, Reader, When};
use crate::dice::mix;
use crate::network::NodeIndex;
use bytes::Bytes;
use hdrhistogram::Histogram;
use hopline_proto::crypto::{self, Key};
use hopline_proto::endpoint::Destination;
use hopline_proto::flows::{FlowKey, Flows};
use hopline_proto::frame::CloseCode;
use hopline_proto::machine::Action;
use hopline_proto::{FlowId, Time};
use std::collections::VecDeque;
use std::sync::LazyLock;
use std::time::Duration;

/// Largest piece that an application sends at once.
const PIECE_BYTES: u64 = 32 << 10;
/// Length of the pattern: a prime, so that no power of two goes unnoticed.
const PATTERN_BYTES: usize = 65_521;
/// Pieces under way whose time of sending is remembered for each direction.
const MAX_MARKS: usize = 64;

static PATTERN: LazyLock<Bytes> = LazyLock::new(|| {
    let byte = |n: usize| mix(n as u64).to_le_bytes()[0];
    (0..PATTERN_BYTES).map(byte).cycle().take(PATTERN_BYTES * 2).collect()
});

/// What all applications have seen.
pub(crate) struct Delivery {
    pub(crate) bytes: u64,
    /// From sending to taking, in microseconds.
    pub(crate) latency: Histogram<u64>,
    pub(crate) over: u64,
    pub(crate) lost: u64,
    /// The first byte that was not what it should be.
    pub(crate) corrupt: Option<String>,
}

impl Default for Delivery {
    fn default() -> Self {
        let latency = Histogram::new_with_bounds(1, 3_600_000_000, 3).expect("these bounds are sound");
        Self { bytes: 0, latency, over: 0, lost: 0, corrupt: None }
    }
}

impl Delivery {
    pub(super) const fn flow_over(&mut self, well: bool) {
        self.over += 1;
        self.lost += (!well) as u64;
    }
}

/// One end's progress.
#[derive(Debug, Default)]
pub(crate) struct Half {
    pub(crate) key: Option<FlowKey>,
    pub(crate) sent: u64,
    pub(crate) finished: bool,
    pub(crate) taken: u64,
    pub(crate) took_end: bool,
    said_taken: bool,
    has_key: bool,
    pub(crate) ended: Option<CloseCode>,
    pub(crate) ended_at: Time,
    pub(super) wake_at: Option<Time>,
    step: u64,
    step_sent: u64,
    step_began: Time,
    reads_again: Time,
    began: Time,
    /// Pieces under way: where they end, and when they were sent.
    marks: VecDeque<(u64, Time)>,
}

impl Half {
    /// Whether so many bytes were taken, and the end: a flow that is done may be gone before the application looks again.
    fn has_all(&self, bytes: u64) -> bool {
        self.taken == bytes && (self.took_end || self.ended == Some(CloseCode::Done))
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) plan: FlowPlan,
    pub(super) opening: bool,
    seed: u64,
    tries: u64,
    halves: [Half; 2],
    aborted: bool,
    left_out: bool,
}

impl App {
    pub(crate) fn new(plan: FlowPlan, seed: u64) -> Self {
        Self {
            plan,
            opening: false,
            seed,
            tries: 0,
            halves: Default::default(),
            aborted: false,
            left_out: false,
        }
    }

    /// A flow that is never opened.
    pub(crate) fn left_out(self) -> Self {
        Self { left_out: true, ..self }
    }

    pub(crate) fn half(&self, end: usize) -> &Half {
        self.halves.get(end).expect("a flow has two ends")
    }

    pub(super) fn half_mut(&mut self, end: usize) -> &mut Half {
        self.halves.get_mut(end).expect("a flow has two ends")
    }

    pub(super) fn end_at(&self, node: NodeIndex) -> usize {
        usize::from(self.plan.origin != node)
    }

    /// Whether an application gave it up, or never began it.
    pub(crate) const fn was_aborted(&self) -> bool {
        self.aborted || self.left_out
    }

    /// Whether the origin's end is over.
    pub(crate) fn is_over(&self) -> bool {
        self.left_out || self.half(0).ended.is_some()
    }

    /// Whether every byte of both directions, and both ends, arrived.
    pub(crate) fn is_complete(&self) -> bool {
        let [origin, target] = &self.halves;
        let [there, back] = &self.plan.scripts;
        target.has_all(there.bytes()) && origin.has_all(back.bytes())
    }

    pub(super) fn open(&mut self) -> (FlowId, Destination) {
        self.opening = true;
        self.tries += 1;
        let half = |n| mix(self.seed ^ mix(self.tries << 1 | n)).to_be_bytes();
        let mut id = [0; 16];
        id.iter_mut().zip(half(0).into_iter().chain(half(1))).for_each(|(to, from)| *to = from);
        let to = Destination { name: self.plan.name.clone(), hops: self.plan.hops };
        (FlowId::from_bytes(id), to)
    }

    pub(super) const fn not_opened(&mut self) {
        self.opening = false;
    }

    /// The node has the flow now; a second time it must not be given to its application.
    pub(super) fn begin(&mut self, end: usize, key: FlowKey, now: Time, delivery: &mut Delivery) {
        let half = self.half_mut(end);
        if half.key == Some(key) {
            delivery.corrupt.get_or_insert(format!("end {end} was given the same flow twice"));
        }
        (half.key, half.began, half.step_began) = (Some(key), now, now);
    }

    /// Takes and sends; returns when to be looked at again.
    pub(super) fn run(
        &mut self,
        end: usize,
        flows: &mut Flows,
        (now, local): (Time, Time),
        delivery: &mut Delivery,
        actions: &mut Vec<Action>,
    ) -> Option<Time> {
        let key = self.half(end).key?;
        if !std::mem::replace(&mut self.half_mut(end).has_key, true) {
            flows.share_key(key, &shared_key(key.flow), local, actions);
        }
        let abort = self.plan.abort.filter(|abort| abort.end == end && !self.aborted);
        let abort_at = abort.map(|abort| self.half(end).began + abort.after);
        if abort_at.is_some_and(|at| at <= now) && self.half(end).ended.is_none() {
            self.aborted = true;
            flows.abort(key, "the application gave it up", local, actions);
            return None;
        }
        let reads_at = self.take(end, key, flows, (now, local), delivery, actions);
        let sends_at = self.feed(end, key, flows, (now, local), actions);
        let half = self.half_mut(end);
        if half.took_end && half.finished && !std::mem::replace(&mut half.said_taken, true) {
            flows.taken(key, local, actions);
        }
        [abort_at, reads_at, sends_at].into_iter().flatten().min()
    }

    fn take(
        &mut self,
        end: usize,
        key: FlowKey,
        flows: &mut Flows,
        (now, local): (Time, Time),
        delivery: &mut Delivery,
        actions: &mut Vec<Action>,
    ) -> Option<Time> {
        let salt = self.salt(1 - end);
        let reader = self.plan.scripts.get(end).map_or(Reader::Eager, |script| script.reader);
        loop {
            let half = self.half_mut(end);
            let (_, chunks, ended) = flows.to_take(&key)?;
            if half.took_end || (chunks.is_empty() && !ended) {
                return None;
            }
            if half.reads_again > now {
                return Some(half.reads_again);
            }
            let mut room = match reader {
                Reader::Eager => usize::MAX,
                Reader::Slow { bytes, pause } => {
                    half.reads_again = now + pause;
                    bytes.max(1)
                }
            };
            let mut count = 0;
            for chunk in &chunks {
                let part = chunk.slice(..chunk.len().min(room));
                if part != pattern(salt, half.taken, part.len()) {
                    let what = format!("bytes from {} on, at end {end}", half.taken);
                    delivery.corrupt.get_or_insert(what);
                }
                half.taken += part.len() as u64;
                room -= part.len();
                count += part.len();
            }
            half.took_end = chunks.is_empty();
            delivery.bytes += count as u64;
            let taken = half.taken;
            self.note_latency(1 - end, taken, now, delivery);
            flows.took(key, count, local, actions);
        }
    }

    fn note_latency(&mut self, sender: usize, taken: u64, now: Time, delivery: &mut Delivery) {
        let half = self.half_mut(sender);
        while let Some((_, at)) = half.marks.front().copied().filter(|(offset, _)| *offset <= taken) {
            half.marks.pop_front();
            delivery.latency.saturating_record(u64::try_from(now.since(at).as_micros()).unwrap_or(u64::MAX));
        }
    }

    fn feed(
        &mut self,
        end: usize,
        key: FlowKey,
        flows: &mut Flows,
        (now, local): (Time, Time),
        actions: &mut Vec<Action>,
    ) -> Option<Time> {
        let salt = self.salt(end);
        loop {
            let step = self.plan.scripts.get(end)?.step(self.half(end).step);
            let half = self.half_mut(end);
            let Some(step) = step else {
                if !std::mem::replace(&mut half.finished, true) {
                    flows.finish(key, local, actions);
                }
                return None;
            };
            match step.when {
                When::After(pause) if half.step_sent == 0 && half.step_began + pause > now => {
                    return Some(half.step_began + pause);
                }
                When::Taken(bytes) if half.taken < bytes => return None,
                When::After(_) | When::Taken(_) => {}
            }
            if half.step_sent >= step.bytes {
                half.step += 1;
                (half.step_sent, half.step_began) = (0, now);
                continue;
            }
            if !flows.may_send(&key)?.0 {
                return None;
            }
            let count = (step.bytes - half.step_sent).min(PIECE_BYTES);
            let bytes = pattern(salt, half.sent, usize::try_from(count).unwrap_or(0));
            flows.send(key, bytes, local, actions).ok()?;
            half.sent += count;
            half.step_sent += count;
            if half.marks.len() < MAX_MARKS {
                half.marks.push_back((half.sent, now));
            }
        }
    }

    const fn salt(&self, end: usize) -> u64 {
        mix(self.seed ^ end as u64)
    }
}

/// What both ends of a flow would have from their TLS session.
fn shared_key(flow: FlowId) -> Key {
    Key::from_bytes(crypto::hash(&[flow.as_bytes()]))
}

/// The bytes of a direction from `offset` on.
pub(crate) fn pattern(salt: u64, offset: u64, count: usize) -> Bytes {
    let start = usize::try_from((offset.wrapping_add(salt >> 8)) % PATTERN_BYTES as u64).unwrap_or(0);
    PATTERN.slice(start..start + count.min(PATTERN_BYTES))
}

/// For a summary.
pub(crate) fn quantile(histogram: &Histogram<u64>, quantile: f64) -> Duration {
    Duration::from_micros(histogram.value_at_quantile(quantile))
}
