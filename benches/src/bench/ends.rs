//! The endpoints of a run: origins, targets, and the messages between them.
//!
//! They run on threads of this very process, not as processes of their own: their death is not what is measured, and one
//! clock times both ends.

use crate::pattern::{Faults, SequenceCounts};
use crate::stage::Stage;
use hdrhistogram::Histogram;
use hopline::endpoint::{Endpoint, Flow, Inbox, Listener, Options, Receipt};
use hopline::net::ticket::Ticket;
use hopline_command::{Exit, Failure};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// How long a flow may take to get from one end to the other.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);
/// Receipts that may be outstanding.
const MAX_OUTSTANDING: usize = 4096;
/// What a message is filled up to.
const MESSAGE_BYTES: usize = 200;

/// A flow's number, never used twice in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Number(pub(super) u32);

/// What comes to a target.
#[derive(Debug, Default)]
struct Arrivals(Mutex<Arrived>);

#[derive(Debug, Default)]
struct Arrived {
    flows: HashMap<Number, oneshot::Sender<Flow>>,
    messages: SequenceCounts,
    /// Messages of an earlier phase, or from nobody.
    strays: u64,
    phase: u32,
}

impl Arrivals {
    fn lock(&self) -> MutexGuard<'_, Arrived> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn flow_came(&self, number: u32, flow: Flow) {
        if let Some(expected) = self.lock().flows.remove(&Number(number)) {
            let _ = expected.send(flow);
        }
    }

    fn message_came(&self, payload: &[u8]) {
        let mut arrived = self.lock();
        let text = std::str::from_utf8(payload).unwrap_or_default();
        let mut words = text.split_whitespace();
        let (phase, number) = (words.next(), words.next().and_then(|number| number.parse().ok()));
        match number {
            Some(number) if phase == Some(&arrived.phase.to_string()) => arrived.messages.came(number, 1),
            _ => arrived.strays += 1,
        }
    }
}

/// Takes in what comes to a target.
async fn route(mut listener: Listener, mut inbox: Inbox, arrivals: Arc<Arrivals>) {
    let flows = async {
        while let Some(mut flow) = listener.accept().await {
            let arrivals = arrivals.clone();
            tokio::spawn(async move {
                match timeout(OPEN_TIMEOUT, flow.read_u32()).await {
                    Ok(Ok(number)) => arrivals.flow_came(number, flow),
                    _ => tracing::warn!("a flow came to a target, and nothing over it"),
                }
            });
        }
    };
    let messages = async {
        while let Some(message) = inbox.recv().await {
            arrivals.message_came(&message.take());
        }
    };
    tokio::join!(flows, messages);
}

/// An origin, and the target of all that it sends.
pub(super) struct Pair {
    pub(super) origin: Endpoint,
    pub(super) target: Endpoint,
    name: String,
    arrivals: Arc<Arrivals>,
    _route: AbortOnDropHandle<()>,
}

impl Pair {
    pub(super) async fn join(stage: &Stage, ticket: &Ticket, number: u32, hops: u8) -> Result<Self, Failure> {
        let name = format!("target-{number}");
        let options = Options { hops, ..Options::default() };
        let target = stage.join(&name, ticket.clone(), options.clone()).await?;
        let (listener, inbox) = tokio::try_join!(target.listen(&name), target.receive(&name))?;
        let origin = stage.join(&format!("origin-{number}"), ticket.clone(), options).await?;
        let arrivals = Arc::<Arrivals>::default();
        let route = AbortOnDropHandle::new(tokio::spawn(route(listener, inbox, arrivals.clone())));
        Ok(Self { origin, target, name, arrivals, _route: route })
    }

    /// Opens a flow; both of its ends.
    pub(super) async fn open(&self, number: Number) -> Result<(Flow, Flow), Failure> {
        let (expected, came) = oneshot::channel();
        self.arrivals.lock().flows.insert(number, expected);
        let mut flow = self.origin.open(&self.name).await?;
        flow.write_all(&number.0.to_be_bytes()).await?;
        flow.flush().await?;
        tracing::debug!(number = number.0, flow = %flow.id(), "opened");
        match timeout(OPEN_TIMEOUT, came).await {
            Ok(Ok(at_target)) => Ok((flow, at_target)),
            _ => Err(Failure::new(
                Exit::FlowLost,
                format!("flow {} was opened, and did not come to {}", number.0, self.name),
            )),
        }
    }

    /// Forgets the messages of the last phase.
    pub(super) fn begin(&self, phase: u32) {
        let mut arrived = self.arrivals.lock();
        arrived.phase = phase;
        arrived.messages = SequenceCounts::default();
        arrived.strays = 0;
    }

    /// Sends messages at a steady pace until `end`, and waits for their receipts until it is told to give up.
    pub(super) async fn send_messages(
        &self,
        phase: u32,
        pause: Duration,
        end: Instant,
        give_up: &CancellationToken,
    ) -> Result<Messages, Failure> {
        let (outstanding, receipts) = mpsc::channel(MAX_OUTSTANDING);
        let mut sent = Sent::default();
        let mut got = Receipts { latency: crate::report::histogram()?, count: 0, cause: None };
        {
            let work = async {
                tokio::join!(self.send_paced(phase, pause, end, outstanding, &mut sent), got.gather(receipts))
            };
            tokio::select! {
                _ = work => {}
                () = give_up.cancelled() => {}
            }
        }
        let (faults, delivered) = self.messages(sent.count);
        let cause = sent.cause.or(got.cause);
        Ok(Messages { sent: sent.count, delivered, receipts: got.count, latency: got.latency, faults, cause })
    }

    async fn send_paced(
        &self,
        phase: u32,
        pause: Duration,
        end: Instant,
        outstanding: mpsc::Sender<(Instant, Receipt)>,
        sent: &mut Sent,
    ) {
        let mut ticks = interval_at(Instant::now(), pause);
        // What could not be sent in time is sent later, and its latency counts from when it should have been: otherwise a
        // stall would hide the messages that it held up.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        loop {
            let due = ticks.tick().await;
            if due >= end {
                return;
            }
            let mut payload = format!("{phase} {} ", sent.count).into_bytes();
            payload.resize(MESSAGE_BYTES.max(payload.len()), b' ');
            sent.count += 1;
            match self.origin.send(&self.name, payload).await {
                Ok(receipt) => {
                    if outstanding.send((due, receipt)).await.is_err() {
                        return;
                    }
                }
                Err(error) => sent.cause = sent.cause.take().or_else(|| Some(error.to_string())),
            }
        }
    }

    fn messages(&self, sent: u64) -> (Faults, u64) {
        let arrived = self.arrivals.lock();
        let mut faults = arrived.messages.faults(sent);
        faults.duplicated += arrived.strays;
        (faults, arrived.messages.distinct())
    }

    pub(super) async fn shutdown(&self) {
        self.origin.shutdown().await;
        self.target.shutdown().await;
    }
}

#[derive(Debug, Default)]
struct Sent {
    count: u64,
    cause: Option<String>,
}

/// What became of the messages of one origin.
#[derive(Debug)]
pub(super) struct Messages {
    pub(super) sent: u64,
    pub(super) delivered: u64,
    pub(super) receipts: u64,
    /// From when a message should leave to its receipt, in microseconds.
    pub(super) latency: Histogram<u64>,
    pub(super) faults: Faults,
    /// The first error.
    pub(super) cause: Option<String>,
}

struct Receipts {
    latency: Histogram<u64>,
    count: u64,
    cause: Option<String>,
}

impl Receipts {
    async fn gather(&mut self, mut receipts: mpsc::Receiver<(Instant, Receipt)>) {
        while let Some((due, receipt)) = receipts.recv().await {
            match receipt.await {
                Ok(()) => {
                    self.count += 1;
                    let us = u64::try_from(due.elapsed().as_micros()).unwrap_or(u64::MAX);
                    self.latency.saturating_record(us);
                }
                Err(error) => {
                    self.cause = self.cause.take().or_else(|| Some(error.to_string()));
                }
            }
        }
    }
}
