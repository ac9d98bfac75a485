//! The relays of a run: processes that are started and ended as the schedule says.
//!
//! All of them belong to the [`Pool`] itself, never to a task of their own, so that they end with it at once. A relay's
//! session begins when its process is started. Where a departure is due before the relay was ready, it happens all the
//! same: the schedule is the model's, not the machine's.

use crate::stage::{Process, Stage};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use hdrhistogram::Histogram;
use hopline_churn::{Change, Event, Leave, Member};
use hopline_command::Failure;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// How long a relay that was asked to leave may take before it is killed.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Relays that start at once; more wait in the pool's list of those to come.
const STARTS_AT_ONCE: usize = 64;

/// A relay went.
#[derive(Clone, Copy, Debug)]
pub(super) struct Departure {
    /// Since the start of the phase.
    pub(super) at: Duration,
    pub(super) how: Leave,
}

/// What the pool went through.
#[derive(Debug, Default)]
pub(super) struct History {
    pub(super) departures: Vec<Departure>,
    /// Relays that joined after the start.
    pub(super) joins: u32,
    /// Relays that were asked to leave, and had to be killed.
    pub(super) overdue: u32,
    /// How many relays were ready, from which moment on.
    pub(super) sizes: Vec<(Duration, usize)>,
}

impl History {
    pub(super) fn count(&self, how: Leave) -> usize {
        self.departures.iter().filter(|departure| departure.how == how).count()
    }

    pub(super) fn smallest(&self) -> usize {
        self.sizes.iter().map(|(_, size)| *size).min().unwrap_or(0)
    }

    /// For how long fewer than `least` relays were ready.
    pub(super) fn below(&self, least: usize, end: Duration) -> Duration {
        self.spans(end).filter(|(_, size)| *size < least).map(|(span, _)| span).sum()
    }

    /// The mean number of relays that were ready.
    pub(super) fn mean(&self, end: Duration) -> f64 {
        let area: f64 = self.spans(end).map(|(span, size)| span.as_secs_f64() * size as f64).sum();
        area / end.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    fn spans(&self, end: Duration) -> impl Iterator<Item = (Duration, usize)> + '_ {
        let ends = self.sizes.iter().skip(1).map(|(at, _)| *at).chain([end]);
        self.sizes.iter().zip(ends).map(|((at, size), end)| (end.saturating_sub(*at), *size))
    }
}

/// What others may see of the pool while it changes.
#[derive(Debug, Default)]
pub(super) struct Gauges {
    pub(super) ready: AtomicU64,
    pub(super) departures: AtomicU64,
    /// When which relay died, by name.
    dead: Mutex<HashMap<String, Instant>>,
}

impl Gauges {
    /// For how long a relay has been dead; `None` if it lives.
    pub(super) fn dead_for(&self, relay: &str) -> Option<Duration> {
        let dead = self.dead.lock().unwrap_or_else(PoisonError::into_inner);
        dead.get(relay).map(Instant::elapsed)
    }

    fn died(&self, relay: &Process) {
        let mut dead = self.dead.lock().unwrap_or_else(PoisonError::into_inner);
        dead.insert(relay.name().to_owned(), Instant::now());
    }
}

/// A process that is on its way: up or out.
type Transit = BoxFuture<'static, (Member, Process, Result<Duration, Failure>)>;

/// The relays.
pub(super) struct Pool<'a> {
    stage: &'a Stage,
    ticket: &'a str,
    ready: HashMap<Member, Process>,
    starting: FuturesUnordered<Transit>,
    /// Those of the starting whose departure came first.
    doomed: HashSet<Member>,
    waiting: Vec<(Member, u16)>,
    leaving: FuturesUnordered<BoxFuture<'static, bool>>,
    start: Instant,
    pub(super) history: History,
    pub(super) gauges: Arc<Gauges>,
    /// From the start of a process until it is in the pool, in microseconds.
    pub(super) starts: Histogram<u64>,
}

impl<'a> Pool<'a> {
    /// Starts the relays that join at the schedule's start, and waits until they are in the pool.
    pub(super) async fn start(
        stage: &'a Stage,
        ticket: &'a str,
        first: &[Event],
        starts: Histogram<u64>,
    ) -> Result<Self, Failure> {
        let mut pool = Self {
            stage,
            ticket,
            ready: HashMap::new(),
            starting: FuturesUnordered::new(),
            doomed: HashSet::new(),
            waiting: Vec::new(),
            leaving: FuturesUnordered::new(),
            start: Instant::now(),
            history: History::default(),
            gauges: Arc::default(),
            starts,
        };
        for event in first {
            pool.carry_out(*event)?;
        }
        while let Some(started) = pool.starting.next().await {
            pool.started(started)?;
        }
        Ok(pool)
    }

    /// The start of a phase, from which times count.
    pub(super) fn begin(&mut self, now: Instant) {
        self.start = now;
        self.history = History { sizes: vec![(Duration::ZERO, self.ready.len())], ..History::default() };
        self.gauges.departures.store(0, Ordering::Relaxed);
    }

    /// Follows the schedule until `end`.
    pub(super) async fn run(
        &mut self,
        schedule: impl Iterator<Item = Event>,
        end: Duration,
    ) -> Result<(), Failure> {
        for event in schedule.take_while(|event| event.at < end) {
            self.wait_until(event.at).await?;
            self.carry_out(event)?;
        }
        self.wait_until(end).await
    }

    /// Attends to those who come and go; resolves only if something goes wrong.
    pub(super) async fn attend(&mut self) -> Result<(), Failure> {
        self.wait_until(self.start.elapsed() + Duration::from_secs(3600)).await
    }

    /// Fails if a relay ended that nobody had ended.
    pub(super) async fn check(&mut self) -> Result<(), Failure> {
        match self.ready.values_mut().find_map(|relay| relay.has_ended().then_some(relay)) {
            Some(relay) => Err(relay.died("though nobody had ended it").await),
            None => Ok(()),
        }
    }

    /// Attends to those who come and go until `at`.
    async fn wait_until(&mut self, at: Duration) -> Result<(), Failure> {
        let due = self.start + at;
        loop {
            tokio::select! {
                biased;
                Some(started) = self.starting.next() => self.started(started)?,
                Some(in_time) = self.leaving.next() => self.history.overdue += u32::from(!in_time),
                () = sleep_until(due) => return Ok(()),
            }
        }
    }

    fn carry_out(&mut self, event: Event) -> Result<(), Failure> {
        match event.change {
            Change::Join { member, zone } => {
                self.history.joins += 1;
                self.join(member, zone)
            }
            Change::Leave { member, how } => {
                self.history.departures.push(Departure { at: event.at, how });
                self.gauges.departures.fetch_add(1, Ordering::Relaxed);
                self.leave(member, how)
            }
        }
    }

    fn join(&mut self, member: Member, zone: u16) -> Result<(), Failure> {
        if self.starting.len() >= STARTS_AT_ONCE {
            self.waiting.push((member, zone));
            return Ok(());
        }
        let (name, zone) = (format!("r{}", member.0 + 1), format!("z{zone}"));
        let arguments = ["relay", "--name", &name, "--zone", &zone, "--listen", "127.0.0.1:0"];
        let mut relay = self.stage.start(&name, Some(self.ticket), &arguments)?;
        let start = Instant::now();
        self.starting.push(Box::pin(async move {
            let ready = relay.ready().await.map(|_| start.elapsed());
            (member, relay, ready)
        }));
        Ok(())
    }

    fn started(&mut self, started: (Member, Process, Result<Duration, Failure>)) -> Result<(), Failure> {
        let (member, mut relay, took) = started;
        let took = took?;
        let _ = self.starts.record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        if self.doomed.remove(&member) {
            tracing::debug!(relay = relay.name(), "leaves, as it should have before it was ready");
            self.gauges.died(&relay);
            relay.kill()?;
        } else {
            self.ready.insert(member, relay);
            self.note_size();
        }
        match self.waiting.pop() {
            Some((member, zone)) => self.join(member, zone),
            None => Ok(()),
        }
    }

    fn leave(&mut self, member: Member, how: Leave) -> Result<(), Failure> {
        let Some(mut relay) = self.ready.remove(&member) else {
            let waited = self.waiting.len();
            self.waiting.retain(|(waiting, _)| *waiting != member);
            if self.waiting.len() == waited {
                self.doomed.insert(member);
            }
            return Ok(());
        };
        self.note_size();
        if relay.has_ended() {
            return Err(relay.failure("ended before anybody ended it"));
        }
        tracing::debug!(relay = relay.name(), ?how, "leaves");
        match how {
            Leave::Crash | Leave::ZoneFailure => {
                self.gauges.died(&relay);
                relay.kill()?;
                self.leaving.push(Box::pin(async move {
                    let _ = relay.ended().await;
                    true
                }));
            }
            Leave::Graceful => {
                relay.terminate()?;
                self.leaving.push(Box::pin(async move { relay.success(LEAVE_TIMEOUT).await.is_ok() }));
            }
        }
        Ok(())
    }

    fn note_size(&mut self) {
        self.gauges.ready.store(self.ready.len() as u64, Ordering::Relaxed);
        self.history.sizes.push((self.start.elapsed(), self.ready.len()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_with_too_few_relays_is_told() {
        let seconds = Duration::from_secs;
        let sizes = vec![(seconds(0), 6), (seconds(2), 3), (seconds(3), 4), (seconds(9), 3)];
        let history = History { sizes, ..History::default() };
        assert_eq!(history.below(4, seconds(10)), seconds(2));
        assert_eq!(history.smallest(), 3);
        assert!((history.mean(seconds(10)) - 4.2).abs() < 1e-9);
    }
}
