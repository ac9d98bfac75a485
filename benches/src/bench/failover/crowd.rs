//! Many flows over the same pool, and one relay or many of them that fail together.
//!
//! Each flow carries little, in small portions, as most flows of most networks do. What counts is how long each of them
//! stands still when they all have to go elsewhere at once, and how long it takes until the next fault would find
//! every hop with a backup again.

mod book;
mod report;

use super::{Args, Cause, TARGET, TIMEOUT, Way};
use crate::pattern::Faults;
use crate::stage::{Process, Relays, Stage};
use crate::traffic::{Carried, Pace, Stream, carry};
use crate::watched::lost;
use book::Book;
use hopline::endpoint::{Endpoint, Flow, Listener, Options};
use hopline_command::Failure;
use hopline_proto::id::FlowId;
use indicatif::{ProgressBar, ProgressStyle};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
pub(super) use report::Outcome;
use report::Run;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

/// Portions that all flows together send a second, unless told otherwise: so many leave two cores most of their time.
const PORTIONS_PER_SECOND: u32 = 400;
const SHORTEST_TICK: Duration = Duration::from_millis(10);
const LONGEST_TICK: Duration = Duration::from_secs(1);
const BLOCK_BYTES: usize = 4 << 10;
/// How many portions each flow sends before a fault.
const CALM_TICKS: u32 = 8;
/// How many flows are opened together.
const OPENED_AT_ONCE: usize = 16;
/// Pairs of endpoints when many relays fail at once: with one, every flow would end at the same relay.
const PAIRS_AT_ONCE: u32 = 4;

/// One flow, both ways.
#[derive(Clone, Debug)]
struct Measured {
    id: FlowId,
    forward: Arc<Stream>,
    backward: Arc<Stream>,
}

impl Measured {
    fn streams(&self, way: Way) -> impl Iterator<Item = &Stream> {
        let forward = (way != Way::Backward).then_some(self.forward.as_ref());
        let backward = (way != Way::Forward).then_some(self.backward.as_ref());
        forward.into_iter().chain(backward)
    }

    /// Whether what was sent before, and something more, has arrived, both ways.
    async fn goes_on(&self) {
        let (forward, backward) = (self.forward.sent() + 1, self.backward.sent() + 1);
        tokio::join!(self.forward.has_received(forward), self.backward.has_received(backward));
    }
}

/// What a person sees while it runs, on stderr if that is a terminal.
struct Progress(ProgressBar);

impl Progress {
    fn new() -> Self {
        let style = ProgressStyle::with_template("{prefix:9} {bar:24} {pos}/{len} {msg}");
        Self(ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())))
    }

    fn phase(&self, what: &'static str, length: u32) {
        self.0.reset();
        self.0.set_prefix(what);
        self.0.set_length(length.into());
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

pub(super) async fn perform(args: &Args, seed: u64, stage: &Stage) -> Result<Outcome, Failure> {
    let (mut bootstrap, ours) = stage.bootstrap(&[]).await?;
    let progress = Progress::new();
    progress.phase("relays", args.relays);
    let mut relays = Relays::none(stage, &ours.to_string());
    relays.grow(args.relays, |ready| progress.0.set_position(ready.into())).await?;
    let mut ends = Vec::new();
    let book = Arc::new(Book::default());
    for number in 1..=args.pairs() {
        let options = |role: &str| {
            args.plane.options(Options {
                name: Some(format!("{role}{number}")),
                hops: args.hops,
                ..Options::default()
            })
        };
        let target = Endpoint::join(ours.clone(), options("target")?).await?;
        let listener = target.listen(&format!("{TARGET}{number}")).await?;
        let origin = Endpoint::join(ours.clone(), options("origin")?).await?;
        tokio::spawn(book.clone().keep(origin.events()));
        ends.push(Pair { name: format!("{TARGET}{number}"), origin, target, listener });
    }
    let crowd = Crowd {
        args,
        rng: StdRng::seed_from_u64(seed),
        pace: args.pace(),
        relays,
        book,
        flows: Vec::new(),
        at_ends: JoinSet::new(),
        stop: CancellationToken::new(),
        progress,
    };
    let outcome = tokio::select! {
        outcome = crowd.run(seed, &mut ends) => outcome,
        failure = bootstrap.death() => Err(failure),
    };
    for pair in &ends {
        tokio::join!(pair.origin.shutdown(), pair.target.shutdown());
    }
    outcome
}

impl Args {
    fn pairs(&self) -> u32 {
        let pairs = self.pairs.unwrap_or(if self.at_once > 1 { PAIRS_AT_ONCE } else { 1 });
        pairs.min(self.flows)
    }

    fn pace(&self) -> Pace {
        let usual = Duration::from_secs(1) * self.flows * 2 / PORTIONS_PER_SECOND;
        let tick = self.every.unwrap_or(usual.clamp(SHORTEST_TICK, LONGEST_TICK));
        Pace { rate: Some(self.rate()), tick, block: BLOCK_BYTES }
    }
}

/// An origin and the target of its flows.
struct Pair {
    name: String,
    origin: Endpoint,
    target: Endpoint,
    listener: Listener,
}

struct Crowd<'a> {
    args: &'a Args,
    rng: StdRng,
    pace: Pace,
    relays: Relays<'a>,
    book: Arc<Book>,
    flows: Vec<Measured>,
    at_ends: JoinSet<std::io::Result<Carried>>,
    stop: CancellationToken,
    progress: Progress,
}

impl Crowd<'_> {
    async fn run(mut self, seed: u64, ends: &mut [Pair]) -> Result<Outcome, Failure> {
        self.progress.phase("flows", self.args.flows);
        while self.flows.len() < self.args.flows as usize {
            for pair in &mut *ends {
                self.open(seed, pair).await?;
            }
        }
        let mut runs = Vec::new();
        self.progress.phase("faults", self.args.runs);
        for number in 1..=self.args.runs {
            let run = self.one().await?;
            tracing::debug!(number, ?run, "one more");
            runs.push(run);
            self.progress.0.set_position(number.into());
        }
        self.stop.cancel();
        let (mut faults, mut broken) = (Faults::default(), 0);
        while let Some(ended) =
            timeout(TIMEOUT, self.at_ends.join_next()).await.map_err(|_| lost("a flow did not end"))?
        {
            match ended.map_err(std::io::Error::other)? {
                Ok(carried) => faults = faults + carried.faults,
                Err(error) => {
                    tracing::warn!(%error, "a flow broke");
                    broken += 1;
                }
            }
        }
        let bytes = self.flows.iter().map(|flow| flow.forward.sent() + flow.backward.sent()).sum();
        Ok(Outcome { seed, tick: self.pace.tick, runs, faults, broken_ends: broken, bytes })
    }

    /// Opens a few flows of one pair.
    async fn open(&mut self, seed: u64, pair: &mut Pair) -> Result<(), Failure> {
        let left = (self.args.flows as usize).saturating_sub(self.flows.len());
        let mut opening = JoinSet::new();
        for _ in 0..left.min(OPENED_AT_ONCE) {
            let (origin, name) = (pair.origin.clone(), pair.name.clone());
            opening.spawn(async move { origin.open(&name).await });
        }
        let mut opened = HashMap::new();
        while let Some(flow) = opening.join_next().await {
            let flow = flow.map_err(std::io::Error::other)??;
            let seed = seed.wrapping_add(self.flows.len() as u64 * 2);
            let measured = Measured {
                id: flow.id(),
                forward: Arc::new(Stream::new("forward", seed, self.pace)),
                backward: Arc::new(Stream::new("backward", seed ^ 1, self.pace)),
            };
            self.book.follow(&flow);
            self.feed(flow, &measured.forward, &measured.backward);
            opened.insert(measured.id, measured.clone());
            self.flows.push(measured);
        }
        while !opened.is_empty() {
            let Some(flow) = timeout(TIMEOUT, pair.listener.accept()).await.ok().flatten() else {
                return Err(lost("a flow was opened, and did not come to its target"));
            };
            let Some(measured) = opened.remove(&flow.id()) else { continue };
            self.feed(flow, &measured.backward, &measured.forward);
        }
        self.progress.0.set_position(self.flows.len() as u64);
        Ok(())
    }

    fn feed(&mut self, flow: Flow, sends: &Arc<Stream>, takes: &Arc<Stream>) {
        self.at_ends.spawn(carry(flow, sends.clone(), takes.clone(), self.stop.clone()));
    }

    /// Lets it happen once.
    async fn one(&mut self) -> Result<Run, Failure> {
        let protected = self.book.until(TIMEOUT, |known| known.unprotected().is_empty()).await?;
        protected.ok_or_else(|| lost(&self.book.look(|known| known.tell_unprotected())))?;
        self.longest();
        let within: u32 = self.rng.random_range(0..100);
        tokio::time::sleep(self.pace.tick * CALM_TICKS + Duration::from_millis(within.into())).await;
        let calm = self.longest().into_values().collect();
        let victims = self.victims()?;
        let names: Vec<String> = victims.iter().map(|relay| relay.name().to_owned()).collect();
        let repairs_before = self.book.look(|known| known.repairs().len());
        let struck: HashSet<FlowId> = self.book.look(|known| known.over(&names));
        let since = Instant::now();
        let victims = self.strike(victims)?;
        let within = since.elapsed();
        self.flows.iter().flat_map(|flow| flow.streams(Way::Both)).for_each(Stream::hurry);
        self.book.look(|known| known.died(&names));
        let resumed = self.resumed(&struck, &names).await?;
        let pauses = self.longest();
        if let Some((flow, pause)) = pauses.iter().max_by_key(|(_, pause)| pause.delay) {
            tracing::debug!(%flow, ?pause, relays = ?names, "the slowest");
        }
        let left = TIMEOUT.saturating_sub(since.elapsed());
        let protected = self.book.until(left, |known| known.unprotected().is_empty()).await?;
        let protected_at = protected.and_then(|_| self.book.look(|known| known.protected_since()));
        let (repairs, broken) = self.book.look(|known| {
            let (_, new) = known.repairs().split_at(repairs_before);
            (new.to_vec(), known.broken().len())
        });
        self.restore(victims, &names).await?;
        let of = |is_struck: bool| {
            let of = pauses.iter().filter(|(id, _)| struck.contains(id) == is_struck);
            of.map(|(_, pause)| *pause).collect()
        };
        Ok(Run {
            relays: names,
            within,
            struck: struck.len(),
            resumed,
            broken,
            pauses: of(true),
            others: of(false),
            calm,
            repairs,
            protected: protected_at.map(|at| at.saturating_duration_since(since)),
        })
    }

    /// Whom it shall happen to: any relays, or the one that most flows go over.
    fn victims(&mut self) -> Result<Vec<Process>, Failure> {
        let names = if self.args.at_once > 1 {
            self.relays.names().sample(&mut self.rng, self.args.at_once as usize).cloned().collect()
        } else {
            let busiest = self.book.look(|known| known.busiest(self.args.hop));
            vec![busiest.ok_or_else(|| lost("no flow goes over any relay"))?]
        };
        let take =
            |name: &String| self.relays.take(name).ok_or_else(|| lost("no relay runs where one should"));
        names.iter().map(take).collect()
    }

    fn strike(&self, mut victims: Vec<Process>) -> Result<Vec<Process>, Failure> {
        for relay in &mut victims {
            self.args.cause.strike(relay)?;
        }
        Ok(victims)
    }

    /// Waits until what is written from now on arrives, and every flow has left these relays, and data still arrives: how
    /// many did go on at first, of those that went over them.
    async fn resumed(&self, struck: &HashSet<FlowId>, relays: &[String]) -> Result<usize, Failure> {
        let deadline = Instant::now() + TIMEOUT;
        let resumed = self.going_on(deadline).await;
        let left = deadline.saturating_duration_since(Instant::now());
        self.book.until(left, |known| known.over(relays).is_empty()).await?;
        self.going_on(deadline).await;
        Ok(resumed.intersection(struck).count())
    }

    /// The flows over which something more arrives in time.
    async fn going_on(&self, deadline: Instant) -> HashSet<FlowId> {
        let mut waiting = JoinSet::new();
        for flow in self.flows.iter().cloned() {
            waiting.spawn(async move { timeout_at(deadline, flow.goes_on()).await.ok().map(|()| flow.id) });
        }
        waiting.join_all().await.into_iter().flatten().collect()
    }

    /// Each flow's longest pause, and its slowest portion, since this was called last, in the directions that count.
    fn longest(&self) -> HashMap<FlowId, report::Pause> {
        let of = |flow: &Measured| {
            let streams = || flow.streams(self.args.direction);
            let silence = streams().map(Stream::take_longest).max().unwrap_or_default();
            let delay = streams().map(Stream::take_latest).max().unwrap_or_default();
            (flow.id, report::Pause { silence, delay })
        };
        self.flows.iter().map(of).collect()
    }

    async fn restore(&mut self, victims: Vec<Process>, names: &[String]) -> Result<(), Failure> {
        match self.args.cause {
            Cause::Kill | Cause::Cut | Cause::Gray => {}
            Cause::Freeze => {
                for relay in victims {
                    relay.signal(rustix::process::Signal::CONT)?;
                    self.relays.put_back(relay);
                }
                self.book.look(|known| known.revived(names));
                return Ok(());
            }
            Cause::Drain => {
                for mut relay in victims {
                    relay.success(TIMEOUT).await?;
                }
            }
        }
        self.relays.grow(self.args.at_once, |_| ()).await
    }
}
