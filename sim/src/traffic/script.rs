//! What the two ends of a flow do.

use crate::network::NodeIndex;
use std::time::Duration;

/// When a step begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// So long after the last.
    After(Duration),
    /// Once so many bytes have come from the other end.
    Taken(u64),
}

/// So many bytes are sent, as fast as they go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) when: When,
    pub(crate) bytes: u64,
}

/// How an end reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reader {
    Eager,
    /// So many bytes, then a pause.
    Slow {
        bytes: usize,
        pause: Duration,
    },
}

/// What one end does: its steps, then its end.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    pub(crate) steps: Vec<Step>,
    /// How often the steps are gone through.
    pub(crate) rounds: u64,
    pub(crate) reader: Reader,
}

/// An end drops the flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Abort {
    pub(crate) end: usize,
    pub(crate) after: Duration,
}

/// A flow.
#[derive(Clone, Debug)]
pub(crate) struct FlowPlan {
    pub(crate) origin: NodeIndex,
    pub(crate) target: NodeIndex,
    /// What the target serves.
    pub(crate) name: String,
    pub(crate) hops: u8,
    pub(crate) opens: Duration,
    pub(crate) scripts: [Script; 2],
    pub(crate) abort: Option<Abort>,
    pub(crate) kind: &'static str,
}

impl Script {
    pub(crate) const fn once(steps: Vec<Step>, reader: Reader) -> Self {
        Self { steps, rounds: 1, reader }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.steps.iter().map(|step| step.bytes).sum::<u64>() * self.rounds
    }

    /// The step after so many.
    pub(super) fn step(&self, done: u64) -> Option<Step> {
        let length = self.steps.len() as u64;
        if length == 0 || done >= length * self.rounds {
            return None;
        }
        self.steps.get(usize::try_from(done % length).ok()?).copied()
    }

    /// Sends nothing.
    pub(crate) const fn silent(reader: Reader) -> Self {
        Self::once(Vec::new(), reader)
    }
}

impl FlowPlan {
    pub(crate) fn bytes(&self) -> u64 {
        self.scripts.iter().map(Script::bytes).sum()
    }
}
