//! Who lives on which host of a testbed.

use crate::testbed::{Host, Testbed, Wire};
use hopline_command::{Exit, Failure};
use std::net::Ipv4Addr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::task::JoinHandle;

/// A testbed, and who lives where. Each name gets a host of its own when it is first heard; when there are no more, the next
/// ones share those that there are, in turn.
#[derive(Debug)]
pub(super) struct Places {
    bed: Testbed,
    names: Mutex<Vec<String>>,
}

impl Places {
    pub(super) fn new(hosts: usize, seed: u64) -> Result<Self, Failure> {
        let bed = Testbed::new(hosts, seed).map_err(|error| {
            Failure::new(Exit::Failed, format!("there can be no network for this benchmark: {error}"))
        })?;
        Ok(Self { bed, names: Mutex::default() })
    }

    pub(super) fn address(&self, name: &str) -> Ipv4Addr {
        self.host(name).address()
    }

    /// Does something where `name` lives.
    pub(super) fn enter<T: Send>(&self, name: &str, f: impl FnOnce() -> T + Send) -> T {
        self.host(name).enter(f)
    }

    /// Runs a task where `name` lives.
    pub(super) fn spawn<T: Send + 'static>(
        &self,
        name: &str,
        task: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        self.host(name).spawn(task)
    }

    pub(super) fn lose(&self, share: f64) {
        self.bed.set_all(Wire { loss: share, ..Wire::default() });
    }

    pub(super) fn link(&self, a: &str, b: &str, delay: Duration, loss: f64) {
        let (a, b) = (self.number(a), self.number(b));
        let wire = Wire { delay, loss, ..Wire::default() };
        self.bed.set(a, b, wire);
        self.bed.set(b, a, wire);
    }

    pub(super) fn cut_one_way(&self, from: &str, to: &str) {
        self.bed.cut_one_way(self.number(from), self.number(to));
    }

    pub(super) fn isolate(&self, name: &str) {
        self.bed.isolate(self.number(name));
    }

    pub(super) fn heal(&self) {
        self.bed.heal_all();
    }

    fn host(&self, name: &str) -> &Host {
        self.bed.host(self.number(name))
    }

    fn number(&self, name: &str) -> usize {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let known = names.iter().position(|known| known == name);
        let place = known.unwrap_or_else(|| {
            names.push(name.to_owned());
            names.len() - 1
        });
        place % self.bed.len()
    }
}
