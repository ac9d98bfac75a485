//! Two nodes with machines that want nothing of each other.

use super::*;
use crate::bootstrap::{Options, Server};
use crate::net::frames;
use crate::net::testing::{self, LOOPBACK};
use crate::net::tls;
use crate::net::transport::TransportSettings;
use hopline_proto::flows::FlowsConfig;
use hopline_proto::frame::{Control, Datagram, Heartbeat, Hello};
use hopline_proto::id::NodeId;
use std::net::SocketAddr;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::{Instant, timeout};

const TIMEOUT: Duration = Duration::from_secs(20);
/// How many links one after the other: what comes first when both ends are through with one is chance.
const LINKS: usize = 100;

/// Needs none of its links, if it is not told to keep them, and tells what becomes of them: that one is up or that something
/// came over it, or that it is down.
struct Idler {
    flows: Flows,
    keeps: bool,
    links: Sender<bool>,
}

impl Machine for Idler {
    fn handle(&mut self, event: Event, _: Time, actions: &mut Vec<Action>) {
        if matches!(event, Event::Control { .. } | Event::Heartbeat { .. }) {
            let _ = self.links.try_send(true);
        } else if let Event::LinkGarbled { link } = event {
            actions.push(Action::Disconnect { link, reason: DisconnectReason::Malformed });
        } else if let Event::LinkUp { link, .. } = event {
            let _ = self.links.try_send(true);
            let idle = Action::Disconnect { link, reason: DisconnectReason::Idle };
            actions.extend((!self.keeps).then_some(idle));
        } else if let Event::LinkDown { .. } = event {
            let _ = self.links.try_send(false);
        }
    }

    fn handle_timeout(&mut self, _: Time, _: &mut Vec<Action>) {}

    fn poll_timeout(&self) -> Option<Time> {
        None
    }

    fn flows(&mut self) -> &mut Flows {
        &mut self.flows
    }

    fn act_on_flows(&mut self, _: Time, _: &mut Vec<Action>) {}
}

/// A node that dials `peer`, if any, again and again, and runs for as long as the test: who it is, where, and what becomes of its links.
async fn node(
    server: &Server,
    keeps: bool,
    peer: Option<(NodeId, SocketAddr)>,
) -> (NodeId, SocketAddr, Receiver<bool>) {
    let bootstrap_client = BootstrapClient::join(server.ticket().clone(), None).await.unwrap();
    let id = bootstrap_client.node_id();
    let (links, told) = channel(LINKS * 2);
    let build = move || {
        let membership = bootstrap_client.membership();
        let socket = open_socket(&membership, LOOPBACK, &TransportSettings::default())?;
        let address = socket.endpoint.local_addr()?;
        let machine = Idler { flows: Flows::new(id, false, FlowsConfig::default()), keeps, links };
        let parts = Parts::new(machine, socket, bootstrap_client, Box::new(|_: &_, _| {}));
        let main = async move |node: Rc<Node<Idler>>| {
            if let Some((peer, address)) = peer {
                for _ in 0..LINKS {
                    node.clone().connect(peer, vec![address]).await;
                }
            }
            std::future::pending::<()>().await;
        };
        Ok((parts, address, main))
    };
    let address = start("idler", build).await.unwrap();
    (id, address, told)
}

#[tokio::test]
async fn a_link_that_one_end_or_both_need_no_more_is_gone_at_both() {
    let options = Options { listen: LOOPBACK, ..Options::default() };
    let server = Server::start(options).await.unwrap();
    for keeps in [[true, false], [false, true], [false, false]] {
        let (id, address, mut accepted) = node(&server, keeps[0], None).await;
        let (.., mut dialled) = node(&server, keeps[1], Some((id, address))).await;
        let since = Instant::now();
        for told in [&mut accepted, &mut dialled] {
            let mut gone = 0;
            while gone < LINKS {
                let is_up =
                    timeout(TIMEOUT, told.recv()).await.unwrap_or_else(|_| panic!("{keeps:?}: {gone} gone"));
                gone += usize::from(is_up == Some(false));
            }
        }
        assert!(since.elapsed() < TIMEOUT, "they are closed, not forgotten after a while");
    }
    server.shutdown().await;
}

#[tokio::test]
async fn what_only_newer_nodes_say_is_skipped_and_no_breach() {
    let server = Server::start(Options { listen: LOOPBACK, ..Options::default() }).await.unwrap();
    let (id, address, mut told) = node(&server, true, None).await;
    let newer = BootstrapClient::join(server.ticket().clone(), None).await.unwrap().membership();
    let settings = TransportSettings::default();
    let endpoint = testing::endpoint(&newer, LOOPBACK, &settings);
    let client = tls::link_client(&newer).unwrap();
    let connecting = endpoint.connect_with(client, address, &tls::node_name(id).to_str()).unwrap();
    let connection = connecting.await.unwrap();
    let mut controls = connection.open_uni().await.unwrap();
    let mut hears = async || timeout(TIMEOUT, told.recv()).await.unwrap().unwrap();

    frames::write_frame(&mut controls, &Hello { boot: BootId::from_bytes([2; 16]), link: 1 }).await.unwrap();
    assert!(hears().await, "the link is up");
    let later = "what a later version says";
    frames::write_frame(&mut controls, &(200u32, later)).await.unwrap();
    frames::write_frame(&mut controls, &Control::Draining).await.unwrap();
    assert!(hears().await, "the next message is understood");
    connection.send_datagram(vec![200; 40].into()).unwrap();
    let beat = Heartbeat { sequence: 1, heard: 0, heard_ago_us: 0, wanted_us: 10_000, probe: false };
    connection.send_datagram(Datagram::of_heartbeat(&beat).into()).unwrap();
    assert!(hears().await, "and the next datagram");
    frames::write_frame(&mut controls, &(1u32, 4u32)).await.unwrap();
    let closed = timeout(TIMEOUT, connection.closed()).await.unwrap();
    assert!(!hears().await, "half a known message is a breach: {closed}");
    server.shutdown().await;
}
