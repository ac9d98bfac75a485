//! Elsewhere than on Linux there is no testbed to live on.

use hopline_command::{Exit, Failure};
use std::net::Ipv4Addr;
use std::time::Duration;
use tokio::task::JoinHandle;

/// There is none.
#[derive(Debug)]
pub(super) enum Places {}

impl Places {
    pub(super) fn new(_hosts: usize, _seed: u64) -> Result<Self, Failure> {
        Err(Failure::new(Exit::Failed, "there can be no network for this benchmark: that needs Linux"))
    }

    pub(super) fn address(&self, _name: &str) -> Ipv4Addr {
        match *self {}
    }

    pub(super) fn enter<T>(&self, _name: &str, _f: impl FnOnce() -> T) -> T {
        match *self {}
    }

    pub(super) fn spawn<T>(&self, _name: &str, _task: impl Future<Output = T>) -> JoinHandle<T> {
        match *self {}
    }

    pub(super) fn lose(&self, _share: f64) {
        match *self {}
    }

    pub(super) fn link(&self, _a: &str, _b: &str, _delay: Duration, _loss: f64) {
        match *self {}
    }

    pub(super) fn cut_one_way(&self, _from: &str, _to: &str) {
        match *self {}
    }

    pub(super) fn isolate(&self, _name: &str) {
        match *self {}
    }

    pub(super) fn heal(&self) {
        match *self {}
    }
}
