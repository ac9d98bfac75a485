//! The addresses at which other nodes dial a relay: those that its operator gives, or else those that lead to its socket. The latter may
//! change while the relay runs (a DHCP lease ends, an interface comes or goes); then the new addresses are offered.

use super::Machine;
use crate::net::address::canonical;
use crate::net::bootstrap_client::BootstrapClient;
use crate::net::local::Local;
use crate::net::node::Node;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

/// How often a relay looks where it is. That costs a few system calls.
const LOOK: Duration = Duration::from_secs(1);

/// See the module's documentation.
pub(super) struct OwnAddresses {
    local: Local,
    /// What the operator says.
    advertised: Vec<SocketAddr>,
    bootstrap_client: BootstrapClient,
}

/// Others can't dial the socket, as far as this machine can tell.
#[derive(Debug, thiserror::Error)]
#[error(
    "other machines cannot reach {bound}: this machine has no address or no route of that IP family; choose another with \
     --listen ([::]:0 takes both families), or give the addresses at which others reach it with --advertise"
)]
pub(super) struct Nowhere {
    bound: SocketAddr,
}

impl OwnAddresses {
    pub(super) fn new(local: Local, advertised: &[SocketAddr], bootstrap_client: BootstrapClient) -> Self {
        let advertised = advertised.iter().copied().map(canonical).collect();
        Self { local, advertised, bootstrap_client }
    }

    /// The addresses to offer now.
    ///
    /// # Errors
    /// [`Nowhere`] if there are none.
    pub(super) fn look(&self) -> Result<Vec<SocketAddr>, Nowhere> {
        if !self.advertised.is_empty() {
            return Ok(self.advertised.clone());
        }
        let found = self.local.addresses(&self.bootstrap_client.addresses());
        if found.is_empty() { Err(Nowhere { bound: self.local.bound() }) } else { Ok(found) }
    }

    /// Offers other addresses than those in `told` whenever there are some. While this machine has none at all, the old
    /// ones stay: it may have none for a moment only, between two. Never ends.
    pub(super) async fn watch(self, node: Rc<Node<Machine>>, told: watch::Sender<Vec<SocketAddr>>) {
        // What the operator says, or what the socket is bound to, does not change.
        if !self.advertised.is_empty() || !self.local.is_anywhere() {
            return;
        }
        let mut ticks = interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let Ok(found) = self.look() else { continue };
            // In which order they are found says nothing: the bootstrap was reached over the other family.
            let is_same = |known: &Vec<SocketAddr>| {
                known.len() == found.len() && found.iter().all(|address| known.contains(address))
            };
            if !is_same(&told.borrow()) {
                tracing::warn!(from = ?*told.borrow(), to = ?found, "this relay's addresses have changed");
                node.with(|machine, now, actions| machine.set_addresses(found.clone(), now, actions));
                told.send_replace(found);
            }
        }
    }
}
