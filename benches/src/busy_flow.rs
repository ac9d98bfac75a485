//! A flow that carries data both ways and is watched, and its two ends, which are threads of this process.

use crate::pattern::Faults;
use crate::stage::Stage;
use crate::traffic::{Carried, Stream, carry};
use crate::watched::{Watched, is_protected, lost};
use hopline::endpoint::{Chain, Endpoint, Listener, Options};
use hopline::net::ticket::Ticket;
use hopline_command::Failure;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// How long a new backup, the next data, or the flow's last words may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// An origin and its target.
#[derive(Debug)]
pub struct Ends {
    /// From where flows are opened,
    pub origin: Endpoint,
    /// and to where.
    pub target: Endpoint,
    listener: Listener,
}

impl Ends {
    /// The name that the target serves.
    pub const TARGET: &str = "sink";

    /// Joins them, as `origin` and `target`. How flows between them travel, these options of the origin say.
    ///
    /// # Errors
    /// If one can't join.
    pub async fn join(stage: &Stage, ticket: &Ticket, options: Options) -> Result<Self, Failure> {
        let target = stage.join("target", ticket.clone(), Options::default()).await?;
        let listener = target.listen(Self::TARGET).await?;
        let origin = stage.join("origin", ticket.clone(), options).await?;
        Ok(Self { origin, target, listener })
    }

    /// Opens a flow over so many relays that carries these, forward and backward.
    ///
    /// # Errors
    /// If there is no flow.
    pub async fn open(&mut self, hops: u8, streams: [Stream; 2]) -> Result<BusyFlow, Failure> {
        let events = self.origin.events();
        let flow = self.origin.open_over(Self::TARGET, hops).await?;
        let watched = Watched::new(&flow, events);
        let [forward, backward] = streams.map(Arc::new);
        let stop = CancellationToken::new();
        let end = |flow, sends: &Arc<Stream>, takes: &Arc<Stream>| {
            AbortOnDropHandle::new(tokio::spawn(carry(flow, sends.clone(), takes.clone(), stop.clone())))
        };
        let at_origin = end(flow, &forward, &backward);
        // A flow reaches its target with the first byte.
        let Some(flow) = timeout(TIMEOUT, self.listener.accept()).await.ok().flatten() else {
            return Err(lost("the flow was opened, and did not come to its target"));
        };
        let ends = [at_origin, end(flow, &backward, &forward)];
        Ok(BusyFlow { watched, forward, backward, ends, stop })
    }

    /// Ends them.
    pub async fn shutdown(&self) {
        tokio::join!(self.origin.shutdown(), self.target.shutdown());
    }
}

/// A flow under load. See the module's documentation.
#[derive(Debug)]
pub struct BusyFlow {
    /// What happens to it.
    pub watched: Watched,
    /// What goes to the target,
    pub forward: Arc<Stream>,
    /// and what comes back.
    pub backward: Arc<Stream>,
    ends: [AbortOnDropHandle<std::io::Result<Carried>>; 2],
    stop: CancellationToken,
}

impl BusyFlow {
    /// Minds the flow's events until then.
    ///
    /// # Errors
    /// If it breaks.
    pub async fn run_until(&mut self, then: Instant) -> Result<(), Failure> {
        while self.watched.event(then).await?.is_some() {}
        Ok(())
    }

    /// Waits until every hop has a primary and a backup that run.
    ///
    /// # Errors
    /// If that takes too long, or it breaks.
    pub async fn protected(&mut self, runs: impl Fn(&str) -> bool) -> Result<(), Failure> {
        let so = |chain: &Chain| is_protected(chain, &runs);
        match self.watched.until(Instant::now() + TIMEOUT, so, |_| ()).await? {
            true => Ok(()),
            false => Err(lost("a hop has had no backup that runs for too long")),
        }
    }

    /// Waits until all that was sent by now has come, both ways, and so many bytes more.
    ///
    /// # Errors
    /// If that takes too long, or it breaks.
    pub async fn flows(&mut self, more: u64) -> Result<(), Failure> {
        let (forward, backward) = (self.forward.clone(), self.backward.clone());
        let [there, back] = [&forward, &backward].map(|way| way.has_received(way.sent() + more));
        let mut arrived = pin!(async { tokio::join!(there, back) });
        let deadline = Instant::now() + TIMEOUT;
        loop {
            tokio::select! {
                _ = &mut arrived => return Ok(()),
                event = self.watched.event(deadline) => {
                    event?.ok_or_else(|| lost("no data came any more"))?;
                }
            }
        }
    }

    /// The longest pauses since this was asked last, forward and backward.
    pub fn longest(&self) -> [Duration; 2] {
        [self.forward.take_longest(), self.backward.take_longest()]
    }

    /// Ends the flow: what was wrong with what arrived, and whether both ends hashed the same, forward and backward.
    ///
    /// # Errors
    /// If it does not end well.
    pub async fn finish(&mut self) -> Result<(Faults, [bool; 2]), Failure> {
        self.stop.cancel();
        let [at_origin, at_target] = &mut self.ends;
        let ended = timeout(TIMEOUT, async { tokio::join!(at_origin, at_target) }).await;
        let (at_origin, at_target) = ended.map_err(|_| lost("the flow did not end"))?;
        let joined = |end: Result<_, tokio::task::JoinError>| end.map_err(std::io::Error::other);
        let (at_origin, at_target) = (joined(at_origin)??, joined(at_target)??);
        let equal = [at_origin.is_whole_at(&at_target), at_target.is_whole_at(&at_origin)];
        Ok((at_origin.faults + at_target.faults, equal))
    }
}
