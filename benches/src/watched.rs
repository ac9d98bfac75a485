//! One flow under observation: what happens to it, and its present chain.

use hopline::endpoint::{Chain, ChainHop, Flow, FlowEvent};
use hopline_command::{Exit, Failure};
use hopline_proto::id::FlowId;
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

/// See the module's documentation.
#[derive(Debug)]
pub struct Watched {
    flow: FlowId,
    events: Receiver<FlowEvent>,
    chain: watch::Receiver<Chain>,
}

impl Watched {
    /// Observes a flow; `events` are those of its origin since before it was opened.
    pub fn new(flow: &Flow, events: Receiver<FlowEvent>) -> Self {
        Self { flow: flow.id(), events, chain: flow.watch_chain() }
    }

    /// The chain at this moment.
    pub fn chain(&self) -> Chain {
        self.chain.borrow().clone()
    }

    /// The flow's next event; `None` if none comes until the deadline.
    pub async fn event(&mut self, deadline: Instant) -> Result<Option<FlowEvent>, Failure> {
        loop {
            let event = match timeout_at(deadline, self.events.recv()).await {
                Err(_) => return Ok(None),
                Ok(Ok(event)) => event,
                Ok(Err(RecvError::Lagged(missed))) => {
                    return Err(lost(&format!("{missed} events were missed")));
                }
                Ok(Err(RecvError::Closed)) => return Err(lost("the origin's node ended")),
            };
            if event.flow() != self.flow {
                continue;
            }
            tracing::debug!(?event, "told");
            if let FlowEvent::Closed { complete: false, .. } = event {
                return Err(lost("the flow broke"));
            }
            return Ok(Some(event));
        }
    }

    /// Waits until the chain is so, and hands over each event up to then; `false` if it is not before the deadline.
    pub async fn until(
        &mut self,
        deadline: Instant,
        so: impl Fn(&Chain) -> bool,
        mut heard: impl FnMut(&FlowEvent),
    ) -> Result<bool, Failure> {
        let mut chain = self.chain.clone();
        loop {
            let is_so = so(&chain.borrow_and_update());
            // An event is told before the chain shows it, so by now there is every one that made it so.
            let deadline = if is_so { Instant::now() } else { deadline };
            tokio::select! {
                biased;
                event = self.event(deadline) => match event? {
                    Some(event) => heard(&event),
                    None => return Ok(is_so),
                },
                changed = chain.changed(), if !is_so => changed.map_err(|_| lost("the flow ended"))?,
            }
        }
    }
}

/// The first hop without a primary and a backup that run. Who serves the hop before is no backup: it can't dial itself.
pub fn unprotected(chain: &Chain, runs: impl Fn(&str) -> bool) -> Option<u8> {
    let protected = |at: u8, hop: &ChainHop| {
        let may_serve = |backup: &String| runs(backup) && chain.primary(at - 1) != Some(backup);
        runs(&hop.primary) && hop.backup.as_ref().is_some_and(may_serve)
    };
    (1..).zip(chain.hops()).find(|(at, hop)| !protected(*at, hop)).map(|(at, _)| at)
}

/// Whether the chain is known, and every hop has a primary and a backup that run.
pub fn is_protected(chain: &Chain, runs: impl Fn(&str) -> bool) -> bool {
    !chain.hops().is_empty() && unprotected(chain, runs).is_none()
}

pub(crate) fn lost(what: &str) -> Failure {
    Failure::new(
        Exit::FlowLost,
        format!("{what}; this is a bug: run it again with --logs DIR, and report it"),
    )
}
