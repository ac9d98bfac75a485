//! Kills the relays that carry the flow, hop by hop, and sees to it that the pool does not run dry.

use super::load::Progress;
use super::report::Screen;
use crate::chain::Chain;
use crate::stage::Relays;
use hopline::endpoint::FlowEvent;
use hopline_command::{Exit, Failure};
use hopline_proto::id::FlowId;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::pin::pin;
use std::time::Duration;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::time::{Instant, timeout_at};

/// How long a repair may take.
const REPAIR_TIMEOUT: Duration = Duration::from_secs(30);
/// How long hops may be without a backup.
const BACKUP_TIMEOUT: Duration = Duration::from_secs(30);
/// Kills come at random moments, up to so long after everything is well.
const MAX_DELAY_MS: u64 = 250;

/// A relay's death, and what came of it.
#[derive(Clone, Debug)]
pub(super) struct Kill {
    pub(super) relay: String,
    pub(super) hop: u8,
    pub(super) repair: Repair,
    /// The longest pause between two reads at the receiver, around the kill.
    pub(super) gap: Duration,
    /// The relay that was started in its place.
    pub(super) replacement: String,
}

/// How the flow went on.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Repair {
    /// Another relay took over the hop.
    Rerouted { to: String, cause: &'static str, gap_ms: f64 },
    /// The flow went on over another chain.
    Rebuilt,
}

/// Kills relays of one flow. See the module's documentation.
pub(super) struct Killer<'a> {
    flow: FlowId,
    events: broadcast::Receiver<FlowEvent>,
    chain: Chain,
    relays: Relays<'a>,
    progress: &'a Progress,
    screen: &'a Screen,
    rng: StdRng,
}

impl<'a> Killer<'a> {
    pub(super) fn new(
        flow: FlowId,
        events: broadcast::Receiver<FlowEvent>,
        relays: Relays<'a>,
        progress: &'a Progress,
        screen: &'a Screen,
        seed: u64,
    ) -> Self {
        let rng = StdRng::seed_from_u64(seed);
        Self { flow, events, chain: Chain::default(), relays, progress, screen, rng }
    }

    /// Waits until the flow's chain is known.
    pub(super) async fn chain(&mut self) -> Result<&Chain, Failure> {
        let deadline = Instant::now() + REPAIR_TIMEOUT;
        while self.chain.hops().is_empty() {
            if self.event(deadline).await?.is_none() {
                return Err(Failure::new(Exit::Failed, "the flow was opened, but no event tells its chain"));
            }
        }
        Ok(&self.chain)
    }

    /// Kills `kills` relays, each while it carries the flow, the hops of the chain in turn.
    pub(super) async fn run(&mut self, kills: u32) -> Result<Vec<Kill>, Failure> {
        let mut done = Vec::new();
        self.protected().await?;
        for number in 1..=kills {
            let start = Instant::now();
            let delay = Duration::from_millis(self.rng.random_range(0..=MAX_DELAY_MS));
            while self.event(start + delay).await?.is_some() {}
            let hops = u32::try_from(self.chain.hops().len()).unwrap_or(1).max(1);
            let hop = u8::try_from((number - 1) % hops + 1).unwrap_or(1);
            let kill = self.kill(hop).await?;
            self.screen.killed(number, kills, &kill);
            done.push(kill);
            if number < kills {
                self.protected().await?;
            }
            self.progress.killed(Instant::now());
        }
        Ok(done)
    }

    /// How often the flow was rerouted or rebuilt, up to now.
    pub(super) fn failovers(&mut self) -> u32 {
        while let Ok(event) = self.events.try_recv() {
            if event.flow() == self.flow {
                self.chain.apply(&event);
            }
        }
        self.chain.failovers()
    }

    async fn kill(&mut self, hop: u8) -> Result<Kill, Failure> {
        let relay = self.chain.primary(hop).unwrap_or_default().to_owned();
        tracing::debug!(relay, hop, "kill");
        self.progress.killing();
        if !self.relays.kill(&relay)? {
            return Err(Failure::new(
                Exit::Failed,
                format!("{relay:?} is said to carry the flow at hop {hop}, but no relay of that name runs"),
            ));
        }
        let repair = self.repaired(&relay, hop).await?;
        let gap = self.flows_again().await?;
        let replacement = self.relays.add().await?;
        Ok(Kill { relay, hop, repair, gap, replacement })
    }

    /// Waits until data flows again, minding what happens to the flow until then.
    async fn flows_again(&mut self) -> Result<Duration, Failure> {
        let mut flows = pin!(self.progress.flows_again());
        let never = Instant::now() + REPAIR_TIMEOUT * 2;
        loop {
            tokio::select! {
                gap = &mut flows => return gap,
                event = self.event(never) => drop(event?),
            }
        }
    }

    async fn repaired(&mut self, dead: &str, at: u8) -> Result<Repair, Failure> {
        let deadline = Instant::now() + REPAIR_TIMEOUT;
        let mut repair = Repair::Rebuilt;
        while self.chain.carries(dead) {
            match self.event(deadline).await? {
                Some(FlowEvent::Rerouted { hop, to, cause, gap_ms, .. }) if hop == at => {
                    repair = Repair::Rerouted { to, cause, gap_ms };
                }
                Some(_) => {}
                None => {
                    return Err(Failure::new(
                        Exit::FlowLost,
                        format!(
                            "{dead} was killed at hop {at}, and nobody took over within {} s; this is a bug: run it \
                             again with --logs DIR, and report it",
                            REPAIR_TIMEOUT.as_secs()
                        ),
                    ));
                }
            }
        }
        Ok(repair)
    }

    /// Waits until every hop has a primary and a backup that run.
    async fn protected(&mut self) -> Result<(), Failure> {
        let deadline = Instant::now() + BACKUP_TIMEOUT;
        self.relays.check().await?;
        while let Some(hop) = self.chain.unprotected(|relay| self.relays.runs(relay)) {
            if self.event(deadline).await?.is_none() {
                return Err(Failure::new(
                    Exit::Failed,
                    format!(
                        "hop {hop} has had no backup that runs for {} s ({}); this is a bug: run it again with --logs \
                         DIR, and report it",
                        BACKUP_TIMEOUT.as_secs(),
                        self.screen.chain(&self.chain)
                    ),
                ));
            }
        }
        Ok(())
    }

    /// The next event of the flow; `None` if none comes until the deadline.
    async fn event(&mut self, deadline: Instant) -> Result<Option<FlowEvent>, Failure> {
        loop {
            let event = match timeout_at(deadline, self.events.recv()).await {
                Err(_) => return Ok(None),
                Ok(Ok(event)) => event,
                Ok(Err(RecvError::Lagged(missed))) => {
                    return Err(Failure::new(
                        Exit::Failed,
                        format!("{missed} events of the flow were missed"),
                    ));
                }
                Ok(Err(RecvError::Closed)) => {
                    return Err(Failure::new(Exit::Failed, "the demo's own node ended"));
                }
            };
            if event.flow() != self.flow {
                continue;
            }
            if let FlowEvent::Closed { complete: false, .. } = event {
                return Err(Failure::new(Exit::FlowLost, "the flow broke; this is a bug: report it"));
            }
            tracing::debug!(?event, "of the data flow");
            if let FlowEvent::Rerouted { hop, from, to, cause, .. } = &event
                && self.relays.runs(from)
            {
                self.screen.say(&format!(
                    "hop {hop} went from {from} to {to} ({cause}), though nobody had killed {from}"
                ));
            }
            self.chain.apply(&event);
            return Ok(Some(event));
        }
    }
}
