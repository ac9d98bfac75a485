//! A network for tests and benchmarks: hosts that real processes run on, and between them wires that delay, lose, throttle
//! and cut as they are told, while everything runs.
//!
//! Each [`Host`] is a network namespace of its own with a TUN device in it. One thread, the router, reads what the hosts
//! send, and hands it on as the [`Wire`] from the one to the other says. So sockets, processes and kernels are real, ICMP
//! included; only the way between is made up, and nothing of it touches the machine's own network.
//!
//! Linux, as root (network namespaces and TUN devices can't be had otherwise); no command such as `ip` is needed. All of it
//! goes with the [`Testbed`]: namespaces end with the last process or socket in them. Hosts have IPv4 addresses, IPv6 ones,
//! or both ([`Testbed::of`]); there is no route to anywhere else.
//!
//! ```no_run
//! use hopline_lab::testbed::{Testbed, Wire};
//! use std::{net::UdpSocket, time::Duration};
//!
//! # fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let bed = Testbed::new(2, 1)?;
//! let [a, b] = [bed.host(0), bed.host(1)];
//! bed.set_all(Wire { delay: Duration::from_millis(5), loss: 0.01, ..Wire::default() });
//! let socket = a.enter(|| UdpSocket::bind((a.address(), 0)))?;
//! let server = b.enter(|| std::process::Command::new("server").spawn())?;
//! bed.cut(0, 1);
//! # Ok(())
//! # }
//! ```

mod host;
mod netlink;
mod router;
mod wires;

pub use host::Host;
pub use wires::{Bandwidth, Wire};

use hopline_proto::families::Families;
use router::Router;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use wires::Wires;

/// Most hosts of a testbed: each takes a few descriptors of the process.
pub const MAX_HOSTS: usize = 250;

/// Why there is no testbed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TestbedError {
    /// No host was asked for, or too many.
    #[error("a testbed has 1 to {MAX_HOSTS} hosts, not {hosts}")]
    Hosts {
        /// What was asked for.
        hosts: usize,
    },
    /// No network namespace could be made.
    #[error("cannot make a network namespace: {0}; only root can")]
    Namespace(#[source] std::io::Error),
    /// A namespace's loopback interface could not be brought up.
    #[error("cannot bring up the loopback interface of a new network namespace: {0}")]
    Loopback(#[source] std::io::Error),
    /// No TUN device could be had.
    #[error("cannot make a TUN device: {0}; see whether there is /dev/net/tun, and whether this is root")]
    Tun(#[source] std::io::Error),
    /// The router's thread could not be started.
    #[error("cannot start the router: {0}")]
    Router(#[source] std::io::Error),
}

/// See the module's documentation. Hosts are told by their numbers, from 0 on.
#[derive(Debug)]
pub struct Testbed {
    hosts: Vec<Host>,
    wires: Arc<Mutex<Wires>>,
    _router: Router,
}

impl Testbed {
    /// So many hosts, and [`Wire::default`] between any two of them. Losses and jitter follow from `seed`.
    ///
    /// # Errors
    /// [`TestbedError`], above all if this process is not root.
    pub fn new(hosts: usize, seed: u64) -> Result<Self, TestbedError> {
        if hosts > MAX_HOSTS {
            return Err(TestbedError::Hosts { hosts });
        }
        Self::of(&vec![Families::V4; hosts], seed)
    }

    /// The same, with a host for each of these, which has addresses of those families.
    ///
    /// # Errors
    /// As [`Testbed::new`].
    pub fn of(families: &[Families], seed: u64) -> Result<Self, TestbedError> {
        let hosts = families.len();
        if !(1..=MAX_HOSTS).contains(&hosts) {
            return Err(TestbedError::Hosts { hosts });
        }
        let hosts = (0..).zip(families).map(|(number, families)| Host::new(number, *families));
        let hosts = hosts.collect::<Result<Vec<_>, _>>()?;
        let devices = hosts.iter().map(Host::device).collect();
        let wires = Arc::new(Mutex::new(Wires::new(hosts.len(), seed)));
        let router = Router::start(devices, wires.clone()).map_err(TestbedError::Router)?;
        Ok(Self { hosts, wires, _router: router })
    }

    /// One of the hosts.
    ///
    /// # Panics
    /// If there is none of that number.
    #[must_use]
    #[expect(clippy::indexing_slicing, reason = "said above")]
    pub fn host(&self, host: usize) -> &Host {
        &self.hosts[host]
    }

    /// How many hosts there are.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "there is always one")]
    pub fn len(&self) -> usize {
        self.hosts.len()
    }

    /// Makes all wires like this, from now on.
    pub fn set_all(&self, wire: Wire) {
        self.lock().change(|_, _| true, |each| *each = wire);
    }

    /// Makes the wire from one host to another like this, from now on. The wire back is another.
    pub fn set(&self, from: usize, to: usize, wire: Wire) {
        self.lock().change(|f, t| (f, t) == (from, to), |each| *each = wire);
    }

    /// The wire from one host to another.
    #[must_use]
    pub fn wire(&self, from: usize, to: usize) -> Wire {
        self.lock().wire(from, to)
    }

    /// From now on no packet gets from one host to the other, nor back. Those under way are lost.
    pub fn cut(&self, a: usize, b: usize) {
        self.lock().change(|f, t| (f, t) == (a, b) || (f, t) == (b, a), |wire| wire.cut = true);
    }

    /// From now on no packet gets from one host to the other; those back do.
    pub fn cut_one_way(&self, from: usize, to: usize) {
        self.lock().change(|f, t| (f, t) == (from, to), |wire| wire.cut = true);
    }

    /// From now on no packet gets from the host to any other, nor back.
    pub fn isolate(&self, host: usize) {
        self.lock().change(|f, t| f == host || t == host, |wire| wire.cut = true);
    }

    /// Undoes cuts between two hosts, whichever way they were.
    pub fn heal(&self, a: usize, b: usize) {
        self.lock().change(|f, t| (f, t) == (a, b) || (f, t) == (b, a), |wire| wire.cut = false);
    }

    /// Undoes all cuts.
    pub fn heal_all(&self) {
        self.lock().change(|_, _| true, |wire| wire.cut = false);
    }

    fn lock(&self) -> MutexGuard<'_, Wires> {
        // No statement under this lock can leave the wires half-changed.
        self.wires.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
