//! How busy a relay's machine is. A thread of its own asks the operating system from time to time, as that may block and the
//! node's thread must not.

use super::Machine;
use crate::net::clock::Clock;
use crate::net::counters::NodeCounters;
use crate::net::node::Node;
use hopline_proto::Time;
use hopline_proto::rpc::{Load, Resources};
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use sysinfo::System;
use tokio::sync::watch;

/// How soon the first look is, so that the first heartbeats can tell of it.
const FIRST: Duration = Duration::from_secs(1);
/// How often it looks.
const EVERY: Duration = Duration::from_secs(5);

/// Looks from now on, as long as somebody wants to know. `directory` is on the disk that matters.
///
/// # Errors
/// If there is no thread to be had.
pub(super) fn watch(
    directory: PathBuf,
    counters: Arc<NodeCounters>,
    clock: Clock,
) -> io::Result<watch::Receiver<Load>> {
    let (told, loads) = watch::channel(Load::default());
    thread::Builder::new().name("hopline-load".to_owned()).spawn(move || {
        let mut sampler = Sampler::new(directory, counters, clock);
        thread::sleep(FIRST);
        while !told.is_closed() {
            told.send_replace(sampler.sample());
            thread::sleep(EVERY);
        }
    })?;
    Ok(loads)
}

/// Tells the machine. Never ends.
pub(super) async fn tell(node: Rc<Node<Machine>>, mut loads: watch::Receiver<Load>) {
    while loads.changed().await.is_ok() {
        let load = *loads.borrow_and_update();
        node.with(|machine, _, _| machine.set_load(load));
    }
}

struct Sampler {
    directory: PathBuf,
    counters: Arc<NodeCounters>,
    clock: Clock,
    system: System,
    /// When it looked last, and how many bytes there were.
    last: (Time, u64),
}

impl Sampler {
    fn new(directory: PathBuf, counters: Arc<NodeCounters>, clock: Clock) -> Self {
        let mut system = System::new();
        // What the processors did is told by the difference between two looks.
        system.refresh_cpu_usage();
        let last = (clock.now(), counters.received_bytes());
        Self { directory, counters, clock, system, last }
    }

    fn sample(&mut self) -> Load {
        let (at, bytes) = (self.clock.now(), self.counters.received_bytes());
        let (last_at, last_bytes) = std::mem::replace(&mut self.last, (at, bytes));
        let bytes_per_second = rate(bytes.saturating_sub(last_bytes), at.since(last_at));
        // The machine counts its flows itself.
        Load { flows: 0, bytes_per_second, resources: Some(self.resources()) }
    }

    fn resources(&mut self) -> Resources {
        self.system.refresh_cpu_usage();
        self.system.refresh_memory();
        Resources {
            cpu_percent: whole(self.system.global_cpu_usage()),
            memory_percent: percent(self.system.used_memory(), self.system.total_memory()),
            disk_percent: rustix::fs::statvfs(&self.directory).map_or(0, |disk| {
                // What is kept for root is neither used nor to be had: so df(1) counts.
                let used = disk.f_blocks.saturating_sub(disk.f_bfree);
                percent(used, used.saturating_add(disk.f_bavail))
            }),
        }
    }
}

/// Bytes in a second.
fn rate(bytes: u64, time: Duration) -> u64 {
    let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1);
    bytes.saturating_mul(1_000_000) / micros
}

fn percent(part: u64, whole: u64) -> u8 {
    let percent = part.saturating_mul(100) / whole.max(1);
    u8::try_from(percent.min(100)).unwrap_or(100)
}

#[expect(clippy::cast_possible_truncation, reason = "it is within 0 and 100")]
const fn whole(percent: f32) -> u8 {
    percent.clamp(0.0, 100.0) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_shares_are_told_in_whole_numbers() {
        assert_eq!(rate(3_000_000, Duration::from_secs(2)), 1_500_000);
        assert_eq!(rate(5, Duration::ZERO), 5_000_000);
        assert_eq!((percent(1, 3), percent(5, 3), percent(1, 0)), (33, 100, 100));
        assert_eq!((whole(-1.0), whole(49.9), whole(250.0), whole(f32::NAN)), (0, 49, 100, 0));
    }

    #[test]
    fn a_machine_has_memory_and_a_disk_in_use() {
        let clock = Clock::start();
        let counters = NodeCounters::new(clock);
        let mut sampler = Sampler::new(std::env::temp_dir(), counters.clone(), clock);
        counters.received(1 << 20);
        let load = sampler.sample();
        let resources = load.resources.unwrap();
        assert!(load.bytes_per_second > 0, "{load:?}");
        assert!((1..=100).contains(&resources.memory_percent), "{resources:?}");
        assert_eq!(sampler.sample().bytes_per_second, 0, "counted once");
    }
}
