//! Handshakes, both ways: neighbours that dial this node, and those that it dials.

use super::Node;
use crate::net::address::canonical;
use crate::net::eyeballs::first_of;
use crate::net::gate::{Place, Turned};
use crate::net::local::Obstacle;
use crate::net::tasks::spawn_local;
use crate::net::tls::{self, Untimely};

use hopline_proto::id::NodeId;
use hopline_proto::machine::{DialFailure, Event, Machine};
use hopline_proto::version::Mismatch;
use quinn::Incoming;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

/// How long a dial may take, in all.
const DIAL_TIMEOUT: Duration = Duration::from_secs(3);

impl<M: Machine + 'static> Node<M> {
    pub(super) async fn accept(self: Rc<Self>) {
        while let Some(incoming) = self.endpoint.accept().await {
            let Some((incoming, place)) = self.gate.admit(incoming) else { continue };
            let node = self.clone();
            spawn_local(async move {
                let from = canonical(incoming.remote_address());
                if let Err(error) = node.receive(incoming, place).await {
                    let error = tls::explain(error.as_ref());
                    node.gate.remark(|unsaid| tracing::info!(%from, error, unsaid, "a peer was turned away"));
                }
            });
        }
    }

    /// Makes a link of an attempt that was let in.
    async fn receive(self: &Rc<Self>, incoming: Incoming, mut place: Place) -> Result<(), Turned> {
        let connection = place.shake_hands(incoming).await?;
        // Only members can.
        self.gate.met(connection.remote_address());
        // A stranger had room for few legs, as each costs memory. A member has room for all of its own.
        connection.set_max_concurrent_bi_streams(self.legs_of_link.into());
        let mut place = place.entertain().ok_or("too many links at once")?;
        place.hold(self.establish(connection, None)).await??;
        place.succeed();
        Ok(())
    }

    pub(super) async fn connect(self: Rc<Self>, peer: NodeId, addresses: Vec<SocketAddr>) {
        self.counters.reach().dials();
        let failure = self.try_connect(peer, &addresses).await.err();
        self.counters.reach().has_dialled(peer, failure.is_none());
        if let Some(failure) = failure {
            self.tell(Event::ConnectFailed { peer, failure });
        }
    }

    async fn try_connect(self: &Rc<Self>, peer: NodeId, addresses: &[SocketAddr]) -> Result<(), DialFailure> {
        let (open, obstacle) = self.ways(addresses);
        if let Some(obstacle) = obstacle.filter(|_| open.is_empty()) {
            if self.dials.is_barred_anew(peer) {
                tracing::warn!(relay = %peer.short(), ?addresses, "can't dial a relay: {obstacle}");
            }
            return Err(DialFailure::NoWay);
        }
        let dialled = async {
            let mut failure = Turned::from("there is no address to dial");
            let dials = open.iter().map(|address| self.dial(peer, *address));
            let connection = first_of(dials, |error| failure = error).await.ok_or(failure)?;
            self.gate.met(connection.remote_address());
            self.establish(connection, Some(peer)).await
        };
        let dialled = tokio::time::timeout(DIAL_TIMEOUT, dialled).await;
        let error = match dialled.unwrap_or_else(|elapsed| Err(elapsed.into())) {
            Ok(()) => {
                self.certificate_failures.clear();
                return Ok(());
            }
            Err(error) => error,
        };
        if let Some(mismatch) = error.downcast_ref::<Mismatch>() {
            if self.dials.is_barred_anew(peer) {
                tracing::warn!(relay = %peer.short(), ?addresses, "no link to a relay: {}", mismatch.told("the relay"));
            }
            // A relay of other versions lives, and is not to be reported.
            return Err(DialFailure::NoWay);
        }
        let untimely = Untimely::of(error.as_ref());
        if let Some(untimely) = untimely {
            self.certificate_failures.note(peer, untimely, &self.bootstrap_client);
        }
        let error = tls::explain(error.as_ref());
        tracing::debug!(?peer, ?addresses, ?untimely, error, "could not dial a neighbour");
        let is_judged_here = matches!(untimely, Some(Untimely::Theirs(_)));
        Err(if is_judged_here { DialFailure::NoWay } else { DialFailure::NoAnswer })
    }

    /// Those of a peer's addresses that can be dialled from here, and what is in the way of the others.
    fn ways(&self, addresses: &[SocketAddr]) -> (Vec<SocketAddr>, Option<Obstacle>) {
        let (mut open, mut obstacle) = (Vec::new(), None);
        for address in addresses.iter().copied().map(canonical) {
            match self.local.obstacle(address) {
                None => open.push(address),
                found => obstacle = found,
            }
        }
        (open, obstacle)
    }

    async fn dial(&self, peer: NodeId, address: SocketAddr) -> Result<quinn::Connection, Turned> {
        let client = self.client.borrow().clone();
        let connecting = self.endpoint.connect_with(client, address, &tls::node_name(peer).to_str())?;
        tokio::select! {
            connection = connecting => Ok(connection?),
            () = self.dials.refusal(address) => Err("the network says that it is not there".into()),
        }
    }
}
