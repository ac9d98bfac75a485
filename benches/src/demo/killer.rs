//! Kills the relays that carry the flow, hop by hop, and sees to it that the pool does not run dry.

use super::kill::{Kill, Repair};
use super::load::Progress;
use super::report::Screen;
use crate::stage::Relays;
use crate::watched::{Watched, is_protected, unprotected};
use hopline::endpoint::{Chain, FlowEvent};
use hopline_command::{Exit, Failure};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::pin::pin;
use std::time::Duration;
use tokio::time::Instant;

/// How long a repair may take.
const REPAIR_TIMEOUT: Duration = Duration::from_secs(30);
/// How long hops may be without a backup.
const BACKUP_TIMEOUT: Duration = Duration::from_secs(30);
/// Kills come at random moments, up to so long after everything is well.
const MAX_DELAY_MS: u64 = 250;

/// Kills relays of one flow. See the module's documentation.
pub(super) struct Killer<'a> {
    watched: Watched,
    relays: Relays<'a>,
    progress: &'a Progress,
    screen: &'a Screen,
    rng: StdRng,
}

impl<'a> Killer<'a> {
    pub(super) fn new(
        watched: Watched,
        relays: Relays<'a>,
        progress: &'a Progress,
        screen: &'a Screen,
        seed: u64,
    ) -> Self {
        let rng = StdRng::seed_from_u64(seed);
        Self { watched, relays, progress, screen, rng }
    }

    /// Kills `kills` relays, each while it carries the flow, the hops of the chain in turn.
    pub(super) async fn run(&mut self, kills: u32) -> Result<Vec<Kill>, Failure> {
        let mut done = Vec::new();
        self.protected().await?;
        for number in 1..=kills {
            let start = Instant::now();
            let delay = Duration::from_millis(self.rng.random_range(0..=MAX_DELAY_MS));
            self.mind_until(start + delay).await?;
            let hops = u32::try_from(self.watched.chain().hops().len()).unwrap_or(1).max(1);
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
    pub(super) fn failovers(&self) -> u32 {
        self.watched.chain().failovers()
    }

    async fn kill(&mut self, hop: u8) -> Result<Kill, Failure> {
        let relay = self.watched.chain().primary(hop).unwrap_or_default().to_owned();
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
        tokio::select! {
            gap = &mut flows => gap,
            Err(failure) = self.mind_until(never) => Err(failure),
        }
    }

    /// Minds what happens to the flow until then.
    async fn mind_until(&mut self, then: Instant) -> Result<(), Failure> {
        self.until(then, |_, _| false, |_| ()).await.map(drop)
    }

    async fn repaired(&mut self, dead: &str, at: u8) -> Result<Repair, Failure> {
        let deadline = Instant::now() + REPAIR_TIMEOUT;
        let mut repair = Repair::Rebuilt;
        let heard = |event: &FlowEvent| {
            if let FlowEvent::Rerouted { hop, to, cause, gap_ms, .. } = event
                && *hop == at
            {
                repair = Repair::Rerouted { to: to.clone(), cause: *cause, gap_ms: *gap_ms };
            }
        };
        if !self.until(deadline, |chain, _| !chain.carries(dead), heard).await? {
            return Err(Failure::new(
                Exit::FlowLost,
                format!(
                    "{dead} was killed at hop {at}, and nobody took over within {} s; this is a bug: run it again with \
                     --logs DIR, and report it",
                    REPAIR_TIMEOUT.as_secs()
                ),
            ));
        }
        Ok(repair)
    }

    /// Waits until every hop has a primary and a backup that run.
    async fn protected(&mut self) -> Result<(), Failure> {
        let deadline = Instant::now() + BACKUP_TIMEOUT;
        self.relays.check().await?;
        let so = |chain: &Chain, relays: &Relays<'_>| is_protected(chain, |relay| relays.runs(relay));
        if self.until(deadline, so, |_| ()).await? {
            return Ok(());
        }
        let chain = self.watched.chain();
        let hop = unprotected(&chain, |relay| self.relays.runs(relay)).unwrap_or_default();
        Err(Failure::new(
            Exit::Failed,
            format!(
                "hop {hop} has had no backup that runs for {} s ({}); this is a bug: run it again with --logs DIR, and \
                 report it",
                BACKUP_TIMEOUT.as_secs(),
                self.screen.chain(&chain)
            ),
        ))
    }

    /// Waits until the chain is so, and tells of what nobody here caused; `false` if it is not before the deadline.
    async fn until(
        &mut self,
        deadline: Instant,
        so: impl Fn(&Chain, &Relays<'_>) -> bool,
        mut heard: impl FnMut(&FlowEvent),
    ) -> Result<bool, Failure> {
        let Self { watched, relays, screen, .. } = self;
        let heard = |event: &FlowEvent| {
            if let FlowEvent::Rerouted { hop, from, to, cause, .. } = event
                && relays.runs(from)
            {
                screen.say(&format!(
                    "hop {hop} went from {from} to {to} ({cause}), though nobody had killed {from}"
                ));
            }
            heard(event);
        };
        watched.until(deadline, |chain| so(chain, relays), heard).await
    }
}
