//! What is still to be done for flows, in the order in which it came up.
//!
//! Whoever finds that a flow has to be dialled or settled says so, and does not do it: so nothing is done while something
//! else is half done, and no method is called by what it calls. Every event ends with all tasks done.
//!
//! A task is judged when its turn comes: for a flow that is no more, or has what it was for, it does nothing.

use super::key::FlowKey;
use crate::splice::LegId;
use std::collections::VecDeque;

/// What is to be done for a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Task {
    /// Its next hop is to be dialled, if nobody serves it.
    Dial,
    /// Whoever serves it is to be left in peace, if there is somebody else.
    MoveOn,
    /// Links to its candidates are to be wished for, and the backups told what they have to know.
    KeepWarm,
    /// A leg could not be opened.
    LegFailed(LegId),
    /// It changed: neighbours are to be told, and its end may have come.
    Settle,
}

/// The tasks of all flows.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    queue: VecDeque<(FlowKey, Task)>,
}

impl Tasks {
    pub(super) fn push(&mut self, key: FlowKey, task: Task) {
        self.queue.push_back((key, task));
    }

    /// A flow's next hop is to be dialled, and whoever moves its bytes to look again.
    pub(super) fn dial_and_settle(&mut self, key: FlowKey) {
        self.push(key, Task::Dial);
        self.push(key, Task::Settle);
    }

    pub(super) fn pop(&mut self) -> Option<(FlowKey, Task)> {
        self.queue.pop_front()
    }

    /// The flows that are to be settled before anything else is done: their acks travel together.
    pub(super) fn pop_settled(&mut self) -> Option<FlowKey> {
        let (key, _) = *self.queue.front().filter(|(_, task)| *task == Task::Settle)?;
        self.queue.pop_front();
        Some(key)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{FlowId, Pseudonym};

    fn flow(n: u8) -> FlowKey {
        FlowKey { origin: Pseudonym::from_bytes([0; 16]), flow: FlowId::from_bytes([n; 16]), hop: 1 }
    }

    #[test]
    fn first_come_first_served_and_what_is_settled_in_a_row_together() {
        let mut tasks = Tasks::default();
        for (n, task) in
            [(1, Task::Dial), (1, Task::Settle), (2, Task::Settle), (3, Task::Dial), (4, Task::Settle)]
        {
            tasks.push(flow(n), task);
        }
        assert_eq!((tasks.pop_settled(), tasks.pop()), (None, Some((flow(1), Task::Dial))));
        let settled: Vec<FlowKey> = std::iter::from_fn(|| tasks.pop_settled()).collect();
        assert_eq!(settled, [flow(1), flow(2)]);
        assert_eq!(tasks.pop(), Some((flow(3), Task::Dial)));
        assert_eq!(tasks.pop(), Some((flow(4), Task::Settle)));
        assert!(tasks.is_empty());
    }
}
