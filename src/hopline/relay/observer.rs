//! An operator's view of a relay: its counters, and what its thread reports when it is asked.

use super::{Machine, State};
use crate::net::counters::{Neighbours, NodeCounters, Packets};
use crate::net::node::Node;
use futures_util::future::BoxFuture;
use hopline_proto::frame::Cause;
use hopline_proto::id::NodeId;
use hopline_proto::machine::Notice;
use hopline_proto::{admission, enrolment};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

/// How long the node's thread may take to say how it is.
const TIMEOUT: Duration = Duration::from_secs(1);
/// Questions that may wait for it.
const QUEUED: usize = 64;
/// In seconds.
const GAP_BUCKETS: [f64; 13] = [1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// What a relay's thread says of itself.
#[derive(Clone, Copy, Debug)]
pub struct Vitals {
    /// Flows that it carries.
    pub flows: usize,
    /// What its lanes hold beyond their reserves, in bytes.
    pub replay_bytes: u64,
    /// Whether it has a lease, as far as it knows.
    pub is_enrolled: bool,
    /// How often what has happened to its lease.
    pub enrolment: enrolment::Counters,
    /// What became of those who wanted to shake hands.
    pub admission: admission::Counters,
}

/// The failovers that a relay made.
#[derive(Clone, Debug)]
pub(crate) struct Failovers {
    /// How many, by cause.
    pub(crate) causes: Family<[(&'static str, &'static str); 1], Counter>,
    /// How long each kept bytes from flowing, in seconds.
    pub(crate) gaps: Histogram,
}

impl Failovers {
    pub(super) fn new() -> Self {
        Self { causes: Family::default(), gaps: Histogram::new(GAP_BUCKETS) }
    }

    pub(super) fn note(&self, notice: &Notice) {
        // Where another candidate was chosen nobody failed.
        if let Notice::Rerouted { reroute, .. } = notice
            && reroute.cause != Cause::Chosen
        {
            self.causes.get_or_create(&[("cause", reroute.cause.as_str())]).inc();
            self.gaps.observe(Duration::from_micros(reroute.gap_us.into()).as_secs_f64());
        }
    }
}

/// A question of an [`Observer`].
pub(super) type Question = oneshot::Sender<Vitals>;

/// A view of a relay. Copies look at the same one.
#[derive(Clone, Debug)]
pub struct Observer {
    pub(super) id: NodeId,
    pub(super) counters: Arc<NodeCounters>,
    pub(super) failovers: Failovers,
    pub(super) state: watch::Receiver<State>,
    pub(super) questions: mpsc::Sender<Question>,
}

impl Observer {
    /// Who it is.
    #[must_use]
    pub const fn id(&self) -> NodeId {
        self.id
    }

    /// What it thought of its neighbours so far.
    #[must_use]
    pub fn neighbours(&self) -> Neighbours {
        self.counters.read()
    }

    /// How much payload it received, in bytes.
    #[must_use]
    pub fn received_bytes(&self) -> u64 {
        self.counters.received_bytes()
    }

    /// What became of sessions' packets.
    #[must_use]
    pub fn packets(&self) -> Packets {
        self.counters.packets()
    }

    /// How it is; `None` if its thread has ended or is too busy to say.
    pub fn vitals(&self) -> BoxFuture<'_, Option<Vitals>> {
        Box::pin(async move {
            let (question, answer) = oneshot::channel();
            self.questions.try_send(question).ok()?;
            timeout(TIMEOUT, answer).await.ok()?.ok()
        })
    }

    /// Whether it takes no new flows, as it is about to leave.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        match *self.state.borrow() {
            State::Draining | State::Drained | State::Ended => true,
            State::Starting | State::Enrolled | State::Refused(_) => false,
        }
    }

    pub(crate) const fn failovers(&self) -> &Failovers {
        &self.failovers
    }
}

/// For questions to a node's thread.
pub(super) fn questions() -> (mpsc::Sender<Question>, mpsc::Receiver<Question>) {
    mpsc::channel(QUEUED)
}

/// Answers them, on the node's thread. Never ends.
pub(super) async fn answer(node: Rc<Node<Machine>>, mut questions: mpsc::Receiver<Question>) {
    while let Some(question) = questions.recv().await {
        let (flows, replay_bytes) = node.flows(|flows| (flows.len(), flows.replay_used()));
        let vitals = node.with(|machine, _, _| Vitals {
            flows,
            replay_bytes,
            is_enrolled: machine.is_enrolled(),
            enrolment: machine.enrolment_counters(),
            admission: node.admission(),
        });
        let _ = question.send(vitals); // whoever asked may have gone
    }
}
