//! What all flows' events tell of their chains.

use super::super::Where;
use crate::watched::{lost, unprotected};
use hopline::endpoint::{Chain, ChainHop, Flow, FlowEvent};
use hopline_command::Failure;
use hopline_proto::id::FlowId;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout_at};

/// Kept by a task for each origin, read by the benchmark.
#[derive(Debug, Default)]
pub(super) struct Book {
    known: Mutex<Known>,
    changed: Notify,
}

#[derive(Debug, Default)]
pub(super) struct Known {
    chains: HashMap<FlowId, Chain>,
    /// Relays that serve no more.
    dead: HashSet<String>,
    /// Flows with a hop that has no primary or no backup that lives.
    unprotected: HashSet<FlowId>,
    protected_since: Option<Instant>,
    broken: HashSet<FlowId>,
    repairs: Vec<Repair>,
    missed: u64,
}

/// A relay of a flow's chain that was replaced.
#[derive(Clone, Copy, Debug)]
pub(super) struct Repair {
    /// What showed its failure; `None` if the origin took another chain.
    pub(super) noticed_by: Option<&'static str>,
    /// From its last sign of life to the next relay's answer.
    pub(super) gap: Option<Duration>,
}

impl Book {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes down what happens to an origin's flows, as long as it lives.
    pub(super) async fn keep(self: Arc<Self>, mut events: Receiver<FlowEvent>) {
        loop {
            match events.recv().await {
                Ok(event) => self.lock().apply(&event),
                Err(RecvError::Lagged(missed)) => self.lock().missed += missed,
                Err(RecvError::Closed) => return,
            }
            self.changed.notify_waiters();
        }
    }

    /// Writes down the chain of a flow, as long as it is open.
    pub(super) fn follow(self: &Arc<Self>, flow: &Flow) {
        let (book, id, chain) = (self.clone(), flow.id(), flow.watch_chain());
        tokio::spawn(book.keep_chain(id, chain));
    }

    async fn keep_chain(self: Arc<Self>, flow: FlowId, mut chain: watch::Receiver<Chain>) {
        loop {
            let now = chain.borrow_and_update().clone();
            self.lock().goes_over(flow, Some(now));
            self.changed.notify_waiters();
            if chain.changed().await.is_err() {
                break;
            }
        }
        self.lock().goes_over(flow, None);
        self.changed.notify_waiters();
    }

    pub(super) fn look<T>(&self, at: impl FnOnce(&mut Known) -> T) -> T {
        at(&mut self.lock())
    }

    /// Waits until it is so: when that was, or `None` if it took too long.
    pub(super) async fn until(
        &self,
        limit: Duration,
        so: impl Fn(&Known) -> bool,
    ) -> Result<Option<Instant>, Failure> {
        let deadline = Instant::now() + limit;
        loop {
            let changed = self.changed.notified();
            {
                let known = self.lock();
                if known.missed > 0 {
                    return Err(lost(&format!("{} events were missed", known.missed)));
                }
                if so(&known) {
                    return Ok(Some(Instant::now()));
                }
            }
            if timeout_at(deadline, changed).await.is_err() {
                return Ok(None);
            }
        }
    }
}

impl Known {
    fn apply(&mut self, event: &FlowEvent) {
        let gap = |ms: f64| Some(Duration::from_secs_f64(ms.max(0.0) / 1000.0));
        self.repairs.push(match event {
            FlowEvent::Rerouted { cause, gap_ms, .. } => {
                Repair { noticed_by: Some(cause.as_str()), gap: gap(*gap_ms) }
            }
            FlowEvent::Drained { gap_ms, .. } => Repair { noticed_by: Some("drain"), gap: gap(*gap_ms) },
            FlowEvent::Rebuilt { .. } => Repair { noticed_by: None, gap: None },
            FlowEvent::Closed { flow, complete: false } => {
                self.broken.insert(*flow);
                return;
            }
            _ => return,
        });
    }

    /// A flow goes over this chain now, or is over.
    fn goes_over(&mut self, flow: FlowId, chain: Option<Chain>) {
        if let Some(chain) = chain {
            self.chains.insert(flow, chain);
            self.judge(flow);
        } else {
            self.chains.remove(&flow);
            self.unprotected.remove(&flow);
        }
        self.note_protection();
    }

    fn note_protection(&mut self) {
        let before = self.protected_since.take().filter(|_| self.unprotected.is_empty());
        self.protected_since = before.or_else(|| self.unprotected.is_empty().then(Instant::now));
    }

    fn judge(&mut self, flow: FlowId) {
        let Some(chain) = self.chains.get(&flow) else { return };
        if unprotected(chain, |relay| !self.dead.contains(relay)).is_some() {
            self.unprotected.insert(flow);
        } else {
            self.unprotected.remove(&flow);
        }
    }

    fn judge_all(&mut self) {
        for flow in self.chains.keys().copied().collect::<Vec<_>>() {
            self.judge(flow);
        }
        self.note_protection();
    }

    /// These relays serve no more.
    pub(super) fn died(&mut self, relays: &[String]) {
        self.dead.extend(relays.iter().cloned());
        self.judge_all();
    }

    /// These relays serve again.
    pub(super) fn revived(&mut self, relays: &[String]) {
        self.dead.retain(|relay| !relays.contains(relay));
        self.judge_all();
    }

    pub(super) const fn unprotected(&self) -> &HashSet<FlowId> {
        &self.unprotected
    }

    /// What is wrong with the first flow that has a hop without a primary or a backup that lives.
    pub(super) fn tell_unprotected(&self) -> String {
        let Some(flow) = self.unprotected.iter().min() else { return "every hop has a backup".to_owned() };
        let count = self.unprotected.len();
        let chain = self.chains.get(flow).map(Chain::hops).unwrap_or_default();
        let hop = |hop: &ChainHop| format!("{}/{}", hop.primary, hop.backup.as_deref().unwrap_or("none"));
        let hops: Vec<String> = chain.iter().map(hop).collect();
        format!(
            "{count} flows have had a hop without a backup for too long; flow {flow} has {} (primary/backup)",
            hops.join(" ")
        )
    }

    /// Flows that ended before everything had arrived.
    pub(super) const fn broken(&self) -> &HashSet<FlowId> {
        &self.broken
    }

    pub(super) fn repairs(&self) -> &[Repair] {
        &self.repairs
    }

    /// The flows that go over any of these relays.
    pub(super) fn over(&self, relays: &[String]) -> HashSet<FlowId> {
        let goes = |chain: &Chain| relays.iter().any(|relay| chain.carries(relay));
        self.chains.iter().filter(|(_, chain)| goes(chain)).map(|(flow, _)| *flow).collect()
    }

    /// Since when every hop of every flow has had a primary and a backup that live.
    pub(super) const fn protected_since(&self) -> Option<Instant> {
        self.protected_since
    }

    /// The relay that serves that hop of the most flows.
    pub(super) fn busiest(&self, place: Where) -> Option<String> {
        let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
        for chain in self.chains.values() {
            for (hop, number) in chain.hops().iter().zip(1u8..) {
                if place == Where::Any || place == Where::Hop(number) {
                    *counts.entry(&hop.primary).or_default() += 1;
                }
            }
        }
        counts.into_iter().max_by_key(|(_, count)| *count).map(|(name, _)| name.to_owned())
    }
}
