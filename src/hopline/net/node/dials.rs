//! Dials that are under way, and what the network says of the addresses that they go to.
//!
//! Without its word a dial to a relay that has just died would end only when the handshake takes too long, and whoever
//! was given that relay as a backup would have none until then.

use crate::net::address::is_same;
use hopline_proto::id::NodeId;
use std::cell::RefCell;
use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

/// A dial that the network refuses is given as long again as it has lasted, and this: whoever lives there would answer about
/// as soon as the network did, and anybody can forge its word.
const GRACE: Duration = Duration::from_millis(10);

/// Peers of which it is remembered that they were said to be out of reach.
const MAX_BARRED: usize = 1024;

/// See the module's documentation. There are as many as the machine has demands.
#[derive(Debug, Default)]
pub(super) struct Dials {
    under_way: RefCell<Vec<(SocketAddr, oneshot::Sender<()>)>>,
    /// Who was said to be out of reach.
    barred: RefCell<HashSet<NodeId>>,
}

impl Dials {
    /// Ends when the network has said that nobody is at this address, which is dialled from now on, and the grace is over.
    pub(super) async fn refusal(&self, address: SocketAddr) {
        let since = Instant::now();
        let told = self.add(address);
        match told.await {
            Ok(()) => sleep(since.elapsed() + GRACE).await,
            Err(_) => std::future::pending().await,
        }
    }

    /// There is no way to `peer` from here. Returns whether that was not said before, as far as this is remembered.
    pub(super) fn is_barred_anew(&self, peer: NodeId) -> bool {
        let mut barred = self.barred.borrow_mut();
        if barred.len() >= MAX_BARRED {
            barred.clear();
        }
        barred.insert(peer)
    }

    fn add(&self, address: SocketAddr) -> oneshot::Receiver<()> {
        let (tell, told) = oneshot::channel();
        let mut under_way = self.under_way.borrow_mut();
        under_way.retain(|(_, dial)| !dial.is_closed());
        under_way.push((address, tell));
        told
    }

    /// The network says that nobody is at this address.
    pub(super) fn refused(&self, address: SocketAddr) {
        let refused = |(dialled, _): &mut (SocketAddr, _)| is_same(*dialled, address);
        for (_, dial) in self.under_way.borrow_mut().extract_if(.., refused) {
            let _ = dial.send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::authority::Authority;
    use crate::net::socket::HintingSocket;
    use crate::net::testing::{LOOPBACK, member};
    use crate::net::tls;
    use crate::net::transport::{self, TransportSettings};
    use std::net::UdpSocket;

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_dial_to_a_port_that_nobody_has_fails_long_before_its_handshake_would() {
        let (authority, settings) = (Authority::generate(), TransportSettings::default());
        let (near, far) = (member(&authority), member(&authority));
        let hints = HintingSocket::new(transport::open_socket(LOOPBACK, 0).unwrap()).unwrap();
        let secret = near.identity.reset_secret();
        let endpoint = transport::bind_socket(hints.clone(), None, &settings, &secret).unwrap();
        let nobody = UdpSocket::bind(LOOPBACK).unwrap().local_addr().unwrap();
        let dials = Dials::default();
        let client = tls::link_client(&near).unwrap();
        let name = tls::node_name(far.node_id());
        let mut connecting = endpoint.connect_with(client, nobody, &name.to_str()).unwrap();
        let hear = async {
            while let Ok(address) = hints.refused().await {
                dials.refused(address);
            }
        };
        let refused = tokio::select! {
            () = dials.refusal(nobody) => true,
            _ = &mut connecting => false,
            () = hear => false,
        };
        assert!(refused, "the handshake alone says nothing for seconds");
        assert_eq!(dials.under_way.borrow().len(), 0);
    }
}
