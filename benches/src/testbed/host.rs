//! A host: a network namespace, and how to do something there.

use super::{TestbedError, netlink};
use hopline_proto::families::Families;
use nix::sched::{CloneFlags, setns, unshare};
use std::fmt;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use tun_rs::{DeviceBuilder, SyncDevice};

/// All hosts are in 10.77.0.0/16 and fd77::/64.
const PREFIX_BITS: u8 = 16;
const PREFIX_BITS_V6: u8 = 64;
/// What the second addresses of a host have beyond the first ones.
const SECOND: u16 = 1 << 15;
const MTU_BYTES: u16 = 1500;
/// Packets that may wait for the router in a host's device, beyond which the host drops them: 10 ms at 150 MB/s.
const QUEUED_PACKETS: u32 = 1000;

/// See the module's documentation.
pub struct Host {
    number: usize,
    families: Families,
    /// Whether it has its second addresses in place of its first ones.
    is_renumbered: AtomicBool,
    /// Keeps it, and leads into it.
    namespace: File,
    device: Arc<SyncDevice>,
    runtime: OnceLock<Runtime>,
}

impl Host {
    /// Makes one.
    pub(super) fn new(number: usize, families: Families) -> Result<Self, TestbedError> {
        // Only the thread moves into the new namespace, and it ends.
        let (namespace, device) = on_a_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).map_err(|error| TestbedError::Namespace(error.into()))?;
            let namespace = File::open("/proc/thread-self/ns/net").map_err(TestbedError::Namespace)?;
            netlink::bring_up_loopback().map_err(TestbedError::Loopback)?;
            let device = tun(number, families).map_err(TestbedError::Tun)?;
            Ok((namespace, Arc::new(device)))
        })?;
        let (is_renumbered, runtime) = (AtomicBool::new(false), OnceLock::new());
        Ok(Self { number, families, is_renumbered, namespace, device, runtime })
    }

    /// The device by which the router gets and gives its packets.
    pub(super) fn device(&self) -> Arc<SyncDevice> {
        self.device.clone()
    }

    /// Its IPv4 address, beside that of its loopback interface, if it has any.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        address(self.number, self.is_renumbered.load(Ordering::Relaxed))
    }

    /// Its IPv6 address, if it has any.
    #[must_use]
    pub fn address_v6(&self) -> Ipv6Addr {
        address_v6(self.number, self.is_renumbered.load(Ordering::Relaxed))
    }

    /// Gives it other addresses in place of those that it has, as a new lease of DHCP would; the second time the first ones
    /// again.
    ///
    /// # Errors
    /// Whatever the system has against it.
    pub fn renumber(&self) -> std::io::Result<()> {
        let was = self.is_renumbered.fetch_xor(true, Ordering::Relaxed);
        self.enter(|| {
            let (number, interface) = (self.number, self.device.if_index()?);
            let replace =
                |old: IpAddr, new: IpAddr, bits| netlink::replace_address(interface, old, new, bits);
            if self.families.v4 {
                replace(address(number, was).into(), address(number, !was).into(), PREFIX_BITS)?;
            }
            if self.families.v6 {
                replace(address_v6(number, was).into(), address_v6(number, !was).into(), PREFIX_BITS_V6)?;
            }
            Ok(())
        })
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

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").field("number", &self.number).finish_non_exhaustive()
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

/// The first or second address of a host.
fn address(number: usize, is_second: bool) -> Ipv4Addr {
    let [high, low] = suffix(number, is_second).to_be_bytes();
    Ipv4Addr::new(10, 77, high, low)
}

fn address_v6(number: usize, is_second: bool) -> Ipv6Addr {
    Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, suffix(number, is_second))
}

fn suffix(number: usize, is_second: bool) -> u16 {
    let [.., high, low] = (number + 1).to_be_bytes();
    u16::from_be_bytes([high, low]) | if is_second { SECOND } else { 0 }
}

/// The number of the host that has, or may come to have, an address.
pub(super) fn number(address: IpAddr) -> Option<usize> {
    let suffix = match address {
        IpAddr::V4(v4) => match v4.octets() {
            [10, 77, suffix @ ..] => u16::from_be_bytes(suffix),
            _ => return None,
        },
        IpAddr::V6(v6) => match v6.segments() {
            [0xfd77, 0, 0, 0, 0, 0, 0, suffix] => suffix,
            _ => return None,
        },
    };
    usize::from(suffix & !SECOND).checked_sub(1)
}

fn tun(number: usize, families: Families) -> std::io::Result<SyncDevice> {
    let mut builder = DeviceBuilder::new().mtu(MTU_BYTES);
    if families.v4 {
        builder = builder.ipv4(address(number, false), PREFIX_BITS, None);
    }
    if families.v6 {
        builder = builder.ipv6(address_v6(number, false), PREFIX_BITS_V6);
    }
    let device = builder.build_sync()?;
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
        assert_eq!(address(0, false), Ipv4Addr::new(10, 77, 0, 1));
        assert_eq!(address_v6(1, true), "fd77::8002".parse::<Ipv6Addr>().unwrap());
        for host in [0, 1, 254, 255, 256, 32_765] {
            for second in [false, true] {
                assert_eq!(number(address(host, second).into()), Some(host));
                assert_eq!(number(address_v6(host, second).into()), Some(host));
            }
        }
        for nobody in ["10.77.0.0", "10.78.0.1", "fd77::", "fd78::1", "fe80::1"] {
            assert_eq!(number(nobody.parse().unwrap()), None, "{nobody}");
        }
    }
}
