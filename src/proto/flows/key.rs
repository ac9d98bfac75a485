//! How a node tells its flows apart.

use crate::id::{FlowId, Pseudonym};

/// A flow at a node: a small pool may put one relay on two hops of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowKey {
    /// Whose flow, as relays know the origin.
    pub origin: Pseudonym,
    /// Which of the origin's.
    pub flow: FlowId,
    /// 0 at the origin, then counted up to the target.
    pub hop: u8,
}
