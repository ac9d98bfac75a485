//! Which relays an origin's flows avoid, and why.

use super::key::FlowKey;
use super::table::Flows;
use crate::failure_memory::Failure;
use crate::time::Time;

impl Flows {
    /// The relays that no plan for an origin's flow should name, as they failed it; whoever failed last at the end.
    pub fn avoided_by(&self, key: FlowKey, now: Time) -> impl Iterator<Item = Failure> {
        let flow = self.flows.get(&key).into_iter();
        flow.flat_map(move |flow| flow.view.avoided(now))
    }

    /// The same of all flows, one flow after the other.
    pub fn avoided(&self, now: Time) -> impl Iterator<Item = (FlowKey, Failure)> {
        let mut keys: Vec<FlowKey> = self.flows.keys().copied().collect();
        keys.sort_unstable();
        keys.into_iter().flat_map(move |key| self.avoided_by(key, now).map(move |failure| (key, failure)))
    }
}
