//! One QUIC connection to a neighbour: its control streams, its heartbeats, and the legs that the peer opens.

use super::{MAX_QUEUED_CONTROLS, Node, Turned};
use crate::net::frames::{self, FrameError};
use crate::net::tasks::spawn_local;
use crate::net::tls;
use crate::net::version;
use futures_util::FutureExt;
use hopline_proto::codec;
use hopline_proto::crypto::Key;
use hopline_proto::detector::Transfer;
use hopline_proto::forward::{Address, LinkKeys};
use hopline_proto::frame::{
    Attach, Control, Datagram, Heartbeat, Hello, MAX_CONTROL_BYTES, MAX_HEADER_BYTES,
};
use hopline_proto::id::NodeId;
use hopline_proto::machine::{DisconnectReason, Event, LinkId, Machine};
use hopline_proto::splice::LegId;
use hopline_proto::version::Versions;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// Largest [`Hello`], in bytes.
const MAX_SMALL_BYTES: usize = 64;
/// How long the header of a leg may take from the opening of its stream.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a link that is no longer needed waits until the peer has what was said last.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// What both ends take from the link's TLS session, for forwarded packets (RFC 8446, section 7.5).
const EXPORTER_LABEL: &[u8] = b"EXPORTER-hopline forwarded packets";
/// Control streams go before data.
const CONTROL_PRIORITY: i32 = 1;

/// A link, as the actions of the machine see it.
pub(super) struct LinkPort {
    pub(super) connection: quinn::Connection,
    controls: RefCell<VecDeque<Control>>,
    queued: Notify,
    closing: Cell<bool>,
    lost_packets: Cell<u64>,
    /// For forwarded packets.
    pub(super) keys: RefCell<LinkKeys>,
    /// What the peer calls the link.
    peers_number: u32,
    /// Where the peer is, as QUIC knows it: it may move.
    address: Cell<SocketAddr>,
}

impl LinkPort {
    fn new(connection: quinn::Connection, peers_number: u32, dialed: bool) -> Result<Self, Turned> {
        let mut secret = [0; 32];
        connection
            .export_keying_material(&mut secret, EXPORTER_LABEL, &[])
            .map_err(|_| "the connection yields no keys")?;
        Ok(Self {
            controls: RefCell::default(),
            queued: Notify::new(),
            closing: Cell::new(false),
            lost_packets: Cell::new(0),
            keys: RefCell::new(LinkKeys::new(&Key::from_bytes(secret), dialed)),
            peers_number,
            address: Cell::new(connection.remote_address()),
            connection,
        })
    }

    /// Where forwarded packets for a leg go, and how they are addressed there.
    pub(super) fn way(&self, leg: LegId) -> (SocketAddr, Address) {
        (self.address.get(), Address { link: self.peers_number, leg: leg.number() })
    }

    pub(super) fn send_heartbeat(&self, heartbeat: &Heartbeat) {
        // Often enough to follow a peer that moves, and no lock for each packet.
        self.address.set(self.connection.remote_address());
        let _ = self.connection.send_datagram(Datagram::of_heartbeat(heartbeat).into());
    }

    /// What the transport has counted, if it has found packets lost since this was asked last.
    pub(super) fn new_losses(&self) -> Option<Transfer> {
        let stats = self.connection.stats();
        let lost_packets = stats.path.lost_packets;
        let (sent_bytes, lost_bytes) = (stats.udp_tx.bytes, stats.path.lost_bytes);
        let is_new = self.lost_packets.replace(lost_packets) != lost_packets;
        is_new.then_some(Transfer { sent_bytes, lost_bytes, lost_packets })
    }

    /// Queues a control message; `false` if too many are waiting.
    fn queue(&self, control: Control) -> bool {
        let mut controls = self.controls.borrow_mut();
        controls.push_back(control);
        self.queued.notify_one();
        controls.len() <= MAX_QUEUED_CONTROLS
    }

    /// Closes the connection: at once, or, if it is only not needed any more, when the peer has every control message.
    pub(super) fn close(&self, reason: DisconnectReason) {
        if !self.closing.replace(true) {
            let (code, text) = match reason {
                DisconnectReason::Idle => return self.queued.notify_one(),
                DisconnectReason::Superseded => (1u32, "superseded"),
                DisconnectReason::Down => (2, "no sign of life"),
                DisconnectReason::Malformed => (3, "protocol broken"),
                DisconnectReason::Overloaded => (4, "overloaded"),
            };
            self.connection.close(code.into(), text.as_bytes());
        }
    }
}

impl<M: Machine + 'static> Node<M> {
    /// Makes a link of a connection: both ends say hello, and both NodeIds are known.
    pub(super) async fn establish(
        self: &Rc<Self>,
        connection: quinn::Connection,
        dialed: Option<NodeId>,
    ) -> Result<(), Turned> {
        version::agree(&connection, Versions::OURS, dialed.is_some()).await?;
        let peer = tls::peer(&connection).ok_or("the peer showed no membership certificate")?;
        if dialed.is_some_and(|wanted| wanted != peer) {
            return Err("another node answered".into());
        }
        let link = LinkId(self.next_link.get());
        self.next_link.set(link.0 + 1);
        let mut sender = connection.open_uni().await?;
        sender.set_priority(CONTROL_PRIORITY)?;
        // Both ends speak before they listen, or each would wait for the other.
        frames::write_frame(&mut sender, &Hello { boot: self.boot, link: link.0 }).await?;
        let mut receiver = connection.accept_uni().await?;
        let hello: Hello = frames::read_frame(&mut receiver, MAX_SMALL_BYTES).await?;
        let port = Rc::new(LinkPort::new(connection, hello.link, dialed.is_some())?);
        // Before the machine hears of it, as it may speak over it at once.
        self.links.borrow_mut().insert(link, port.clone());
        self.counters.link_came();
        let rtt = port.connection.rtt();
        self.tell(Event::LinkUp { link, peer, boot: hello.boot, dialed: dialed.is_some(), rtt });
        spawn_local(self.clone().serve(link, port, sender, receiver));
        Ok(())
    }

    /// Lives as long as the connection.
    async fn serve(
        self: Rc<Self>,
        link: LinkId,
        port: Rc<LinkPort>,
        sender: quinn::SendStream,
        receiver: quinn::RecvStream,
    ) {
        // A task for each, so that what comes for one wakes that one alone.
        let mut parts = JoinSet::<Option<FrameError>>::new();
        let (node, at) = (self.clone(), port.clone());
        parts.spawn_local(async move { Some(node.read_datagrams(link, &at).await) }.boxed_local());
        let node = self.clone();
        parts.spawn_local(async move { Some(node.read_controls(link, receiver).await) }.boxed_local());
        let at = port.clone();
        parts.spawn_local(async move { write_controls(&at, sender).await }.boxed_local());
        let (node, at) = (self.clone(), port.clone());
        parts.spawn_local(async move { node.accept_legs(link, &at).await }.boxed_local());
        let violation = loop {
            let ended = tokio::select! {
                _ = port.connection.closed() => None,
                ended = parts.join_next() => ended.and_then(Result::ok).flatten(),
            };
            // Whoever closes the link itself sees to its last words first.
            if !(port.closing.get() && matches!(ended, Some(FrameError::Finished))) {
                break ended;
            }
        };
        tracing::debug!(link = link.0, peer = ?tls::peer(&port.connection), error = ?violation, "a link ends");
        match violation {
            // A peer that needs the link no more has said all, and waits until it knows that all has come.
            Some(FrameError::ConnectionLost(_) | FrameError::Finished) | None => {
                port.connection.close(0u32.into(), b"idle");
            }
            Some(error) => {
                tracing::warn!(link = link.0, %error, "closing a link whose peer broke the protocol");
                self.tell(Event::LinkGarbled { link });
            }
        }
        drop(parts);
        let reason = port.connection.closed().await;
        tracing::debug!(link = link.0, %reason, "a link is over");
        self.links.borrow_mut().remove(&link);
        self.counters.link_went();
        self.tell(Event::LinkDown { link });
    }

    pub(super) fn send_control(&self, link: LinkId, control: Control) {
        if let Some(port) = self.link(link)
            && !port.queue(control)
        {
            tracing::warn!(link = link.0, "closing a link whose peer takes no control messages");
            port.close(DisconnectReason::Overloaded);
        }
    }

    async fn read_controls(self: &Rc<Self>, link: LinkId, mut receiver: quinn::RecvStream) -> FrameError {
        loop {
            match frames::read_growing_frame(&mut receiver, MAX_CONTROL_BYTES).await {
                Ok(Control::Unknown) => self.unknown(link, "control message"),
                Ok(control) => self.tell(Event::Control { link, control }),
                Err(error) => return error,
            }
        }
    }

    /// A newer peer says what this node does not know: that is no breach, and nothing follows from it.
    fn unknown(&self, link: LinkId, what: &'static str) {
        tracing::debug!(link = link.0, what, "skipped what only a newer node knows");
        self.counters.skipped();
    }

    async fn read_datagrams(self: &Rc<Self>, link: LinkId, port: &LinkPort) -> FrameError {
        loop {
            match port.connection.read_datagram().await {
                Err(error) => return FrameError::ConnectionLost(error),
                Ok(bytes) => match Datagram::from_bytes(&bytes) {
                    Ok(Datagram::Heartbeat(heartbeat)) => self.tell(Event::Heartbeat { link, heartbeat }),
                    Ok(Datagram::Unknown) => self.unknown(link, "datagram"),
                    Err(error) => return error.into(),
                },
            }
        }
    }

    /// Until the connection is lost, which is nobody's violation.
    async fn accept_legs(self: &Rc<Self>, link: LinkId, port: &LinkPort) -> Option<FrameError> {
        while let Ok((sender, receiver)) = port.connection.accept_bi().await {
            let node = self.clone();
            // A header that is slow to come holds up no other leg.
            spawn_local(async move { node.accept_leg(link, sender, receiver).await });
        }
        None
    }

    async fn accept_leg(
        self: Rc<Self>,
        link: LinkId,
        sender: quinn::SendStream,
        mut receiver: quinn::RecvStream,
    ) {
        let header = frames::read_frame::<Attach>(&mut receiver, MAX_HEADER_BYTES);
        match tokio::time::timeout(HEADER_TIMEOUT, header).await {
            Ok(Ok(attach)) => self.offer_leg(link, attach, sender, receiver),
            Ok(Err(error)) => super::leg::refuse(sender, receiver, link, &error),
            Err(elapsed) => super::leg::refuse(sender, receiver, link, &elapsed),
        }
    }
}

/// Writes control messages, as many at once as are waiting, until the connection is lost, or, when it is to be closed,
/// until the peer has them all; neither is a violation.
async fn write_controls(port: &LinkPort, mut sender: quinn::SendStream) -> Option<FrameError> {
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        for control in port.controls.borrow_mut().drain(..) {
            codec::write_frame(&control, &mut bytes);
        }
        if bytes.is_empty() && port.closing.get() {
            let _ = sender.finish();
            let _ = tokio::time::timeout(LAST_WORDS, sender.stopped()).await;
            return None;
        } else if bytes.is_empty() {
            port.queued.notified().await;
        } else if sender.write_all(&bytes).await.is_err() {
            return None;
        }
    }
}
