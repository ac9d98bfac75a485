//! A host: a network namespace, and how to do something there.

use super::{TestbedError, loopback};
use nix::sched::{CloneFlags, setns, unshare};
use std::fs::File;
use std::net::Ipv4Addr;
use std::panic::resume_unwind;
use std::sync::OnceLock;
use std::thread;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use tun_rs::{DeviceBuilder, SyncDevice};

/// All hosts are in 10.77.0.0/16.
const PREFIX_BITS: u8 = 16;
const MTU_BYTES: u16 = 1500;
/// Packets that may wait for the router in a host's device, beyond which the host drops them: 10 ms at 150 MB/s.
const QUEUED_PACKETS: u32 = 1000;

/// See the module's documentation.
#[derive(Debug)]
pub struct Host {
    address: Ipv4Addr,
    /// Keeps it, and leads into it.
    namespace: File,
    runtime: OnceLock<Runtime>,
}

impl Host {
    /// Makes one, and the device by which the router gets and gives its packets.
    pub(super) fn new(number: usize) -> Result<(Self, SyncDevice), TestbedError> {
        let address = address(number);
        // Only the thread moves into the new namespace, and it ends.
        let (namespace, device) = on_a_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).map_err(|error| TestbedError::Namespace(error.into()))?;
            let namespace = File::open("/proc/thread-self/ns/net").map_err(TestbedError::Namespace)?;
            loopback::bring_up().map_err(TestbedError::Loopback)?;
            let device = tun(address).map_err(TestbedError::Tun)?;
            Ok((namespace, device))
        })?;
        Ok((Self { address, namespace, runtime: OnceLock::new() }, device))
    }

    /// Its address, beside those of its loopback interface.
    #[must_use]
    pub const fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Does something in the host, on a thread that is made for it. Sockets that are opened, processes and threads that are
    /// started there belong to the host; a socket may be used from anywhere later.
    ///
    /// # Panics
    /// If `f` does, or this process has lost the right to enter what it made.
    pub fn enter<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        on_a_thread(|| {
            setns(&self.namespace, CloneFlags::CLONE_NEWNET).expect("who made a namespace may enter it");
            f()
        })
    }

    /// Runs a task in the host, on a runtime of its own there: for asynchronous code that opens sockets as it goes.
    ///
    /// # Panics
    /// If no thread can be had.
    pub fn spawn<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        let start = || self.enter(|| Builder::new_multi_thread().worker_threads(1).enable_all().build());
        self.runtime.get_or_init(|| start().expect("a thread for the host's runtime")).spawn(task)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // The last handle may go in an asynchronous context, where nothing may wait.
            runtime.shutdown_background();
        }
    }
}

/// The address of a host.
pub(super) fn address(number: usize) -> Ipv4Addr {
    let [.., high, low] = (number + 1).to_be_bytes();
    Ipv4Addr::new(10, 77, high, low)
}

/// The number of the host that has an address.
pub(super) fn number(address: Ipv4Addr) -> Option<usize> {
    let [10, 77, high, low] = address.octets() else { return None };
    usize::from(u16::from_be_bytes([high, low])).checked_sub(1)
}

fn tun(address: Ipv4Addr) -> std::io::Result<SyncDevice> {
    let device = DeviceBuilder::new().ipv4(address, PREFIX_BITS, None).mtu(MTU_BYTES).build_sync()?;
    device.set_tx_queue_len(QUEUED_PACKETS)?;
    device.set_nonblocking(true)?;
    Ok(device)
}

fn on_a_thread<T: Send>(f: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| scope.spawn(f).join()).unwrap_or_else(|panic| resume_unwind(panic))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_numbers_agree() {
        assert_eq!(address(0), Ipv4Addr::new(10, 77, 0, 1));
        for host in [0, 1, 254, 255, 256, 65_534] {
            assert_eq!(number(address(host)), Some(host));
        }
        assert_eq!(number(Ipv4Addr::new(10, 77, 0, 0)), None);
        assert_eq!(number(Ipv4Addr::new(10, 78, 0, 1)), None);
    }
}
