//! The node's side of sessions: which flow carries which, and what passes between their socket and the node's.

use super::super::flow_error::FlowError;
use super::ports::{self, Established};
use super::silence::Silence;
use super::socket::{SessionSocket, address_of, number_of};
use crate::net::gate::Turned;
use crate::net::identity::Membership;
use crate::net::memory::default_replay_bytes;
use crate::net::node::Node;
use crate::net::tasks::spawn_local;
use crate::net::tls::{self, TlsError};
use crate::net::transport::{self, TransportSettings};
use crate::net::version;
use bytes::Bytes;
use hopline_proto::endpoint::Endpoint as Machine;
use hopline_proto::flows::FlowKey;
use hopline_proto::id::NodeId;
use hopline_proto::splice::LegId;
use hopline_proto::time::Time;
use hopline_proto::version::{Mismatch, Versions};
use quinn::{Connection, ConnectionError, Incoming, VarInt};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::error::Error;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::timeout;

type Driven = Rc<Node<Machine>>;

/// How long the two ends may take to agree on a connection.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);

/// See the module's documentation.
pub(in crate::endpoint) struct Carriers {
    socket: Arc<SessionSocket>,
    endpoint: quinn::Endpoint,
    /// What of streams may wait here for applications, of all sessions together, in bytes.
    memory_bytes: u64,
    /// Notified when packets leave.
    busy: Notify,
    next: Cell<u64>,
    numbers: RefCell<HashMap<FlowKey, u64>>,
    sessions: RefCell<HashMap<u64, Carried>>,
}

/// The byte by which a chain is tried that carries a session. TLS never begins with it (RFC 8446, 5.1).
pub(in crate::endpoint) const CANARY: u8 = 0;

/// What a flow turns out to carry, at a target.
#[derive(Debug)]
pub(in crate::endpoint) enum Carries {
    /// A session.
    Session(Established),
    /// The packets of a session that another flow carries, too.
    Beside(Connection),
}

/// A session, as its node sees it, or at a target a flow that may carry one.
struct Carried {
    /// Each of its packets leaves over all of them.
    carriers: Vec<Carrier>,
    /// Where its connection goes once it is up, at a target.
    wanted: Option<oneshot::Sender<Carries>>,
    /// Its connection, once it is up.
    connection: Option<Connection>,
    silence: Silence,
}

struct Carrier {
    flow: FlowKey,
    /// Over which packets leave.
    leg: Option<LegId>,
    /// Whether a byte was sent over it: it is known then how soon one is acked, and missed as soon if it is not.
    is_tried: bool,
}

impl Carrier {
    const fn new(flow: FlowKey) -> Self {
        Self { flow, leg: None, is_tried: false }
    }
}

impl Carried {
    fn nudge(&self) {
        self.connection.iter().for_each(ports::nudge);
    }
}

/// How often it is looked whether anything comes back while packets leave, and how many looks without any end that.
const LOOK: Duration = Duration::from_millis(50);
const QUIET_LOOKS: u32 = 20;
/// What may wait at one session's end for its applications, in bytes: enough for some flows that nobody reads beside others.
const MIN_WINDOW_BYTES: u64 = 4 << 20;
const MAX_WINDOW_BYTES: u64 = 128 << 20;
/// How long a session whose connection is over is kept.
const LINGER: Duration = Duration::from_secs(1);
/// Why a connection is closed that nothing carries any more.
const CARRIER_GONE: &[u8] = b"its carrier is gone";
/// The most flows that carry one session.
const MAX_CARRIERS: usize = 4;

impl Carriers {
    /// None yet. Runs on the node's runtime.
    ///
    /// # Errors
    /// If the node's certificate is not usable.
    pub(in crate::endpoint) fn new(
        membership: &Membership,
        settings: &TransportSettings,
    ) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let settings = settings.for_sessions();
        let socket = Arc::<SessionSocket>::default();
        let server = server_config(membership, &settings)?;
        let secret = membership.identity.reset_secret();
        let endpoint = transport::bind_virtual(socket.clone(), server, &settings, &secret)?;
        Ok(Self {
            socket,
            endpoint,
            memory_bytes: default_replay_bytes(),
            busy: Notify::new(),
            next: Cell::new(1),
            numbers: RefCell::default(),
            sessions: RefCell::default(),
        })
    }

    /// Moves packets and accepts connections, as long as the node lives.
    pub(in crate::endpoint) fn run(self: &Rc<Self>, node: &Driven, settings: &TransportSettings) {
        spawn_local(
            self.clone().keep_certified(node.bootstrap_client().memberships(), settings.for_sessions()),
        );
        spawn_local(self.clone().depart(node.clone()));
        spawn_local(self.clone().accept());
        spawn_local(self.clone().watch_for_silence(node.clone()));
    }

    /// Shows each new certificate of the node to those who connect from then on.
    async fn keep_certified(
        self: Rc<Self>,
        mut memberships: watch::Receiver<Membership>,
        settings: TransportSettings,
    ) {
        while memberships.changed().await.is_ok() {
            match server_config(&memberships.borrow_and_update(), &settings) {
                Ok(server) => self.endpoint.set_server_config(Some(server)),
                Err(error) => tracing::error!(%error, "can't use this node's new certificate"),
            }
        }
    }

    /// A flow that may carry a session from now on.
    fn add(&self, flow: FlowKey, wanted: Option<oneshot::Sender<Carries>>) -> SocketAddr {
        let number = self.next.get();
        self.next.set(number + 1);
        self.numbers.borrow_mut().insert(flow, number);
        let carriers = vec![Carrier::new(flow)];
        let session = Carried { carriers, wanted, connection: None, silence: Silence::default() };
        self.sessions.borrow_mut().insert(number, session);
        address_of(number)
    }

    /// At a target: what a flow turns out to carry, if that is no bytes of its own, comes out of this.
    pub(in crate::endpoint) fn watch(&self, flow: FlowKey) -> oneshot::Receiver<Carries> {
        let (wanted, carries) = oneshot::channel();
        let number = self.numbers.borrow().get(&flow).copied();
        match number.and_then(|number| self.sessions.borrow().get(&number)?.connection.clone()) {
            Some(connection) => drop(wanted.send(Carries::Beside(connection))),
            None => drop(self.add(flow, Some(wanted))),
        }
        carries
    }

    /// From now on `flow` carries the session that `other` carries, too; at a target perhaps before it is there.
    pub(in crate::endpoint) fn join(&self, flow: FlowKey, other: FlowKey) {
        let Some(number) = self.numbers.borrow().get(&other).copied() else { return };
        let mut sessions = self.sessions.borrow_mut();
        let own = self.numbers.borrow().get(&flow).copied();
        // One that carries a session already is not another's.
        if own.is_some_and(|own| sessions.get(&own).is_some_and(|session| session.connection.is_some())) {
            return;
        }
        if sessions.get(&number).is_none_or(|session| session.carriers.len() >= MAX_CARRIERS) {
            return;
        }
        let wanted = own.and_then(|own| sessions.remove(&own)).and_then(|session| session.wanted);
        let Some(session) = sessions.get_mut(&number) else { return };
        session.carriers.push(Carrier::new(flow));
        self.numbers.borrow_mut().insert(flow, number);
        if let Some((wanted, connection)) = wanted.zip(session.connection.clone()) {
            let _ = wanted.send(Carries::Beside(connection));
        }
    }

    /// A flow is over.
    pub(in crate::endpoint) fn remove(&self, flow: &FlowKey) {
        let Some(number) = self.numbers.borrow_mut().remove(flow) else { return };
        let mut sessions = self.sessions.borrow_mut();
        let Some(session) = sessions.get_mut(&number) else { return };
        session.carriers.retain(|carrier| carrier.flow != *flow);
        let last = if session.carriers.is_empty() { sessions.remove(&number) } else { None };
        drop(sessions);
        if let Some(session) = last {
            let _ = self.socket.take(address_of(number));
            spawn_local(end_later(session));
        }
        self.share_memory();
    }

    /// At an origin: connects to the target over a flow.
    pub(in crate::endpoint) fn connect(
        self: &Rc<Self>,
        flow: FlowKey,
        target: NodeId,
        membership: &Membership,
        settings: &TransportSettings,
        reply: oneshot::Sender<Result<Established, FlowError>>,
    ) {
        let address = self.add(flow, None);
        let connecting = tls::session_client(membership).map_err(Turned::from).and_then(|mut client| {
            client.transport_config(transport::transport(&settings.for_sessions()));
            Ok(self.endpoint.connect_with(client, address, &tls::node_name(target).to_str())?)
        });
        let carriers = self.clone();
        spawn_local(async move {
            let connected = async {
                let connection = connecting?.await?;
                version::agree(&connection, Versions::OURS, true).await?;
                if tls::peer(&connection) == Some(target) {
                    return Ok(connection);
                }
                Err(Turned::from("another node answered"))
            };
            let connected = match timeout(HANDSHAKE_TIMEOUT, connected).await {
                Ok(Ok(connection)) => Ok(carriers.connected(number_of(address), connection)),
                Ok(Err(error)) => Err(refused(&*error)),
                Err(_) => Err(FlowError::NoPath),
            };
            let _ = reply.send(connected);
        });
    }

    fn connected(self: &Rc<Self>, number: u64, connection: Connection) -> Established {
        match self.sessions.borrow_mut().get_mut(&number) {
            Some(session) => session.connection = Some(connection.clone()),
            // The carrier has gone in this moment.
            None => connection.close(0u32.into(), CARRIER_GONE),
        }
        self.share_memory();
        let (carriers, established) = (self.clone(), Established::new(connection));
        let heard = ports::hear(established.clone());
        spawn_local(async move {
            heard.await;
            // What it says last is still to leave.
            tokio::time::sleep(LINGER).await;
            carriers.forget(number);
        });
        established
    }

    /// A session is over, whatever becomes of its carriers. Some may never have been there.
    fn forget(&self, number: u64) {
        let Some(session) = self.sessions.borrow_mut().remove(&number) else { return };
        let mut numbers = self.numbers.borrow_mut();
        for carrier in session.carriers {
            numbers.remove(&carrier.flow);
        }
        drop(numbers);
        let _ = self.socket.take(address_of(number));
        self.share_memory();
    }

    /// Gives each session its share of what may wait here for applications. What a session was granted before can't be taken back.
    fn share_memory(&self) {
        let sessions = self.sessions.borrow();
        let connections: Vec<&Connection> =
            sessions.values().filter_map(|session| session.connection.as_ref()).collect();
        let count = u64::try_from(connections.len()).unwrap_or(u64::MAX).max(1);
        let window = (self.memory_bytes / count).clamp(MIN_WINDOW_BYTES, MAX_WINDOW_BYTES);
        let window = VarInt::from_u64(window).unwrap_or(VarInt::MAX);
        connections.into_iter().for_each(|connection| connection.set_receive_window(window));
    }

    /// Packets were lost, and the chain leads on now.
    pub(in crate::endpoint) fn nudge(&self, flow: &FlowKey) {
        let number = self.numbers.borrow().get(flow).copied();
        let sessions = self.sessions.borrow();
        if let Some(session) = number.and_then(|number| sessions.get(&number)) {
            session.nudge();
        }
    }

    /// The same for each session whose packets leave over another leg from now on.
    fn nudge_moved(&self, node: &Driven) {
        for session in self.sessions.borrow_mut().values_mut() {
            let mut has_moved = false;
            for carrier in &mut session.carriers {
                let leg = node.flows(|flows| flows.way_out(&carrier.flow));
                has_moved |= leg.is_some() && std::mem::replace(&mut carrier.leg, leg) != leg;
            }
            if has_moved {
                session.nudge();
            }
        }
    }

    async fn accept(self: Rc<Self>) {
        while let Some(incoming) = self.endpoint.accept().await {
            let number = number_of(incoming.remote_address());
            let wanted =
                self.sessions.borrow_mut().get_mut(&number).and_then(|session| session.wanted.take());
            match wanted {
                Some(wanted) => drop(spawn_local(self.clone().establish(incoming, number, wanted))),
                // A flow carries one session.
                None => incoming.ignore(),
            }
        }
    }

    /// A target's side of [`Carriers::connect`].
    async fn establish(self: Rc<Self>, incoming: Incoming, number: u64, wanted: oneshot::Sender<Carries>) {
        let established = async {
            let connection = incoming.await?;
            version::agree(&connection, Versions::OURS, false).await?;
            Ok::<_, Turned>(connection)
        };
        match timeout(HANDSHAKE_TIMEOUT, established).await {
            Ok(Ok(connection)) => {
                let _ = wanted.send(Carries::Session(self.connected(number, connection)));
            }
            Ok(Err(error)) => tracing::info!(error = %tls::explain(&*error), "a session failed"),
            Err(_) => {}
        }
    }

    // ---- packets ----

    /// Packets of a flow that ends here came in over its chain. Returns whether they were taken.
    pub(in crate::endpoint) fn arrive(&self, flow: FlowKey, packets: &[u8], stride: usize) -> bool {
        let number = self.numbers.borrow().get(&flow).copied();
        number.is_some_and(|number| self.socket.deliver(address_of(number), packets, stride))
    }

    /// Over which legs a session's packets leave.
    fn legs(&self, node: &Driven, number: u64) -> Vec<LegId> {
        let sessions = self.sessions.borrow();
        let carriers = sessions.get(&number).map(|session| session.carriers.as_slice()).unwrap_or_default();
        node.flows(|flows| carriers.iter().filter_map(|carrier| flows.way_out(&carrier.flow)).collect())
    }

    /// Sends packets over the sessions' carriers as they come, and those that had no way when there is one.
    async fn depart(self: Rc<Self>, node: Driven) {
        loop {
            tokio::select! {
                () = self.socket.departures.notified() => self.busy.notify_one(),
                () = node.legs_opened().notified() => self.nudge_moved(&node),
            }
            for address in self.socket.destinations() {
                let legs = self.legs(&node, number_of(address));
                // Without a way they stay until there is one.
                if legs.is_empty() && self.sessions.borrow().contains_key(&number_of(address)) {
                    self.socket.hold(address);
                    continue;
                }
                let mut batches = self.socket.take(address);
                for batch in &mut batches {
                    let Some((last, others)) = legs.split_last() else { break };
                    for leg in others {
                        node.send_packets(*leg, &mut batch.packets.clone(), batch.stride);
                    }
                    node.send_packets(*last, &mut batch.packets, batch.stride);
                }
                self.socket.done(batches);
            }
        }
    }
}

/// Closes the connection of a session that nothing carries any more, whether anybody took the session in or not. Not at once: those who
/// did say first why it is over.
async fn end_later(session: Carried) {
    if let Some(connection) = session.connection {
        tokio::time::sleep(LINGER).await;
        connection.close(0u32.into(), CARRIER_GONE);
    }
}

/// How a member's sessions are accepted.
fn server_config(
    membership: &Membership,
    settings: &TransportSettings,
) -> Result<quinn::ServerConfig, TlsError> {
    let secret = membership.identity.reset_secret();
    Ok(transport::server_config(tls::session_server(membership)?, settings, &secret))
}

/// Sessions that nothing comes back over.
impl Carriers {
    /// Looks at them as long as packets leave, and sends a byte over the carrier itself of one that is doubtful: as any flow's, it is
    /// followed on its way, and if it does not arrive the flow leaves whoever swallows it (`proto/flows/gray.rs`).
    async fn watch_for_silence(self: Rc<Self>, node: Driven) {
        loop {
            self.busy.notified().await;
            let mut quiet = 0;
            while quiet < QUIET_LOOKS {
                tokio::time::sleep(LOOK).await;
                let (to_try, has_sent) = self.look(node.now());
                quiet = if has_sent { 0 } else { quiet + 1 };
                for flow in to_try {
                    let canary = Bytes::from_static(&[CANARY]);
                    let _ = node.with_flows(|flows, now, actions| flows.send(flow, canary, now, actions));
                }
            }
        }
    }

    /// The carriers of doubtful sessions, and new ones, and whether any session has sent since the last look.
    fn look(&self, now: Time) -> (Vec<FlowKey>, bool) {
        let (mut to_try, mut has_sent) = (Vec::new(), false);
        for session in self.sessions.borrow_mut().values_mut() {
            let Some(connection) = &session.connection else { continue };
            let stats = connection.stats();
            let (sent, came) = (stats.udp_tx.datagrams, stats.udp_rx.datagrams);
            let look = session.silence.look(sent, came, stats.path.rtt, now);
            has_sent |= look.has_sent;
            for carrier in &mut session.carriers {
                let is_new = !std::mem::replace(&mut carrier.is_tried, true);
                to_try.extend(Some(carrier.flow).filter(|_| is_new || look.is_doubtful));
            }
        }
        (to_try, has_sent)
    }
}

/// Why two ends did not agree on a connection.
fn refused(error: &(dyn Error + 'static)) -> FlowError {
    let mut causes = std::iter::successors(Some(error), |error: &&(dyn Error + 'static)| (*error).source());
    if let Some(mismatch) = error.downcast_ref::<Mismatch>() {
        tracing::warn!("no session with the other end: {}", mismatch.told("the other end"));
        return FlowError::Version(*mismatch);
    }
    match tls::Untimely::of(error) {
        Some(tls::Untimely::Theirs(out)) => {
            tracing::warn!("no session with the other end: {out}; set the clock that is wrong");
        }
        Some(tls::Untimely::Ours(_)) | None => tracing::debug!(error = %tls::explain(error), "no session"),
    }
    let connection = causes.find_map(|error| error.downcast_ref::<ConnectionError>());
    let alert = connection.and_then(tls::alert).and_then(FlowError::of_alert);
    // An alert of this end is about the other's certificate.
    let is_theirs = matches!(connection, Some(ConnectionError::ConnectionClosed(_)));
    alert.filter(|_| is_theirs).unwrap_or(FlowError::Handshake)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::authority::Authority;
    use crate::net::testing::member;
    use hopline_proto::id::{FlowId, Pseudonym};
    use tokio::task::LocalSet;

    const FLOW: FlowKey =
        FlowKey { origin: Pseudonym::from_bytes([1; 16]), flow: FlowId::from_bytes([2; 16]), hop: 0 };

    /// Moves packets from the one to the other, as chains do. Never ends.
    async fn carry(from: &Carriers, to: &Carriers) {
        loop {
            from.socket.departures.notified().await;
            for address in from.socket.destinations() {
                for batch in from.socket.take(address) {
                    to.arrive(FLOW, &batch.packets, batch.stride);
                }
            }
        }
    }

    /// A session that nobody takes in, as its carrier's flow turned out to have bytes, or its application has gone.
    async fn untaken() -> usize {
        let (authority, settings) = (Authority::generate(), TransportSettings::default());
        let members = [member(&authority), member(&authority)];
        let [origin, target] =
            members.each_ref().map(|member| Rc::new(Carriers::new(member, &settings).unwrap()));
        spawn_local(target.clone().accept());
        drop(target.watch(FLOW));
        let (reply, connected) = oneshot::channel();
        origin.connect(FLOW, members[1].node_id(), &members[0], &settings, reply);
        let over = async {
            let established = connected.await.unwrap().unwrap();
            while target.endpoint.open_connections() == 0
                || target.sessions.borrow().values().all(|session| session.connection.is_none())
            {
                tokio::task::yield_now().await;
            }
            target.remove(&FLOW);
            established.connection.closed().await;
        };
        tokio::select! {
            () = over => {}
            () = carry(&origin, &target) => {}
            () = carry(&target, &origin) => {}
        }
        target.endpoint.wait_idle().await;
        target.endpoint.open_connections()
    }

    #[tokio::test]
    async fn a_connection_that_nobody_takes_in_ends_with_its_carrier() {
        let left = timeout(Duration::from_secs(20), LocalSet::new().run_until(untaken())).await;
        assert_eq!(left.expect("it ends"), 0);
    }
}
