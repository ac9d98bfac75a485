//! Connections to a bootstrap: which are admitted, what they may ask, and what follows from bad requests.
//!
//! A connection without a certificate is a new node's: it has one request, to join. A connection with one is a member's: it has any
//! number of requests, a stream each, until it is too old. A misbehaving peer loses only its own connection, after a
//! bounded time, and leaves a line in the log and a count in the [`Counters`](super::Counters).
//!
//! The accept loop waits only for the next attempt. Each handshake and each connection has a task. The [gate](crate::net::gate) limits
//! handshakes and new nodes; members have separate places, which strangers cannot take.

use super::counters::{Counters, LiveCounters};
use super::driver::Driver;
use super::metrics::{self, Metrics};
use super::presence::{self, Line, Presence};
use super::throttle::Throttle;
use super::{Limits, Options, certify};
use crate::net::address::canonical;
use crate::net::authority::{Authority, public_key_of};
use crate::net::bootstrap_rpc::{
    BootstrapClose, BootstrapRequest, BootstrapResponse, MAX_BOOTSTRAP_REQUEST_BYTES,
};
use crate::net::clock::{Clock, Jumps};
use crate::net::frames::{self, FrameError, Unfinished};
use crate::net::gate::{Gate, Ousted, Place};
use crate::net::identity::{Identity, Membership};
use crate::net::join::ChannelBinding;
use crate::net::tls;
use crate::net::transport::{self, TransportSettings};
use crate::net::version;
use crate::store::Store;
use futures_util::FutureExt;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use hopline_proto::NodeId;
use hopline_proto::rpc::{Request, Response};
use hopline_proto::version::{Mismatch, Versions};
use quinn::{Connection, Endpoint, Incoming, RecvStream, SendStream};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::task::TaskTracker;

/// The wall clock, by which certificates end, is looked at this often: it may jump, and a timer would not notice.
const LOOK: Duration = Duration::from_secs(1);
/// The shortest pause between two looks: with a validity of next to nothing, certificates are not made all the time.
const SHORTEST_LOOK: Duration = Duration::from_millis(100);

/// How long a newcomer that has its answer may take to say goodbye.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// What all connections of a bootstrap share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) authority: Authority,
    pub(super) identity: Arc<Identity>,
    pub(super) store: Arc<dyn Store>,
    pub(super) driver: Driver,
    pub(super) counters: LiveCounters,
    pub(super) throttle: Throttle,
    pub(super) presence: Presence<Line>,
    pub(super) metrics: Metrics,
    pub(super) validity: Duration,
    limits: Limits,
    pub(super) gate: Arc<Gate>,
    members: Arc<Semaphore>,
}

/// A member, as its certificate says.
#[derive(Clone, Copy)]
pub(super) struct Member {
    pub(super) node: NodeId,
    pub(super) public_key: [u8; 32],
}

/// Who asks.
#[derive(Clone, Copy)]
pub(super) enum Asker {
    Newcomer(ChannelBinding),
    Member(Member),
}

/// A request, and the stream that waits for its response.
struct Question {
    request: BootstrapRequest,
    sender: Unfinished,
    /// A stream that is dropped says that nobody listens.
    _receiver: RecvStream,
}

fn unfinished(sender: SendStream) -> Unfinished {
    Unfinished::new(sender, BootstrapClose::Internal.number())
}

impl Shared {
    pub(super) fn new(
        authority: Authority,
        identity: Arc<Identity>,
        store: Arc<dyn Store>,
        driver: Driver,
        options: &Options,
    ) -> Self {
        let members = Semaphore::new(options.limits.members.clamp(1, Semaphore::MAX_PERMITS));
        Self {
            authority,
            identity,
            store,
            driver,
            counters: LiveCounters::default(),
            throttle: Throttle::new(&options.limits),
            presence: Presence::default(),
            metrics: Metrics::default(),
            validity: options.validity,
            limits: options.limits,
            gate: Gate::new(options.limits.admission, Clock::start()),
            members: Arc::new(members),
        }
    }

    /// What was counted here, and by the store.
    pub(super) fn counters(&self) -> Counters {
        let store = self.store.health();
        self.counters.retries.set(self.gate.counters().to_prove);
        self.counters.store_writes.set(store.writes);
        self.counters.store_failures.set(store.failures);
        self.counters.read()
    }
}

/// Takes connections until the endpoint is closed.
pub(super) async fn accept(shared: Arc<Shared>, endpoint: Endpoint, tasks: TaskTracker) {
    while let Some(incoming) = endpoint.accept().await {
        if let Some((incoming, place)) = shared.gate.admit(incoming) {
            tasks.spawn(serve(Arc::clone(&shared), incoming, place).boxed());
        }
    }
}

/// Has a valid certificate on the endpoint at all times.
pub(super) async fn keep_certified(
    shared: Arc<Shared>,
    endpoint: Endpoint,
    mut membership: Membership,
    settings: TransportSettings,
) {
    let mut jumps = Jumps::new();
    loop {
        let left = membership.renew.since(Clock::wall());
        sleep(left.clamp(SHORTEST_LOOK, LOOK)).await;
        let jump = jumps.look();
        if let Some(jump) = jump {
            tracing::warn!(%jump, now = %Clock::wall().shown(), "this machine's clock was set, or the machine slept; made a new certificate");
        } else if Clock::wall() < membership.renew {
            continue;
        }
        membership = certify(&shared.authority, &shared.identity, shared.validity);
        match tls::bootstrap_server(&membership) {
            Ok(config) => {
                let secret = shared.identity.reset_secret();
                endpoint.set_server_config(Some(transport::server_config(config, &settings, &secret)));
            }
            Err(error) => tracing::error!(%error, "can't use the certificate just made"),
        }
    }
}

/// One connection, from its handshake to its end.
async fn serve(shared: Arc<Shared>, incoming: Incoming, mut place: Place) {
    let from = canonical(incoming.remote_address());
    let connection = match place.shake_hands(incoming).await {
        Ok(connection) => connection,
        Err(cause) => return shared.turned_away(from, &tls::explain(cause.as_ref())),
    };
    if !version::is_common(&connection) {
        let agreed = place.hold(version::agree(&connection, Versions::OURS, false)).await;
        let told = |mismatch: Mismatch| shared.turned_away(from, &mismatch.told("the node that asks"));
        return agreed.ok().and_then(Result::err).map_or((), told);
    }
    shared.counters.connections.count();
    let certificates = tls::peer_certificates(&connection);
    let Some(certificate) = certificates.first() else {
        return shared.serve_newcomer(&connection, place).await;
    };
    // Who passed the verification has a certificate of ours, and those are all in their nodes' names.
    let member = tls::peer_node_id(&certificates).zip(public_key_of(certificate));
    let Some((node, public_key)) = member else {
        return shared.violation(&connection, "certificate of no node", BootstrapClose::NotAllowed);
    };
    let Ok(_seat) = Arc::clone(&shared.members).try_acquire_owned() else {
        shared.counters.connections_refused.count();
        tracing::warn!(%from, %node, "too many members' connections; closed one");
        return BootstrapClose::Overloaded.close(&connection);
    };
    // Where a member was met, its next handshake has a place apart from strangers.
    shared.gate.met(connection.remote_address());
    place.succeed();
    if !shared.is_removed(&connection, &node) {
        shared.serve_member(connection, Member { node, public_key }).await;
    }
}

impl Shared {
    /// One request, and then the newcomer has to go: what it wants next it asks as a member.
    async fn serve_newcomer(&self, connection: &Connection, place: Place) {
        let Some(mut place) = place.entertain() else { return self.oust(connection, Ousted::Displaced) };
        let asking = async {
            let (sender, receiver) = connection.accept_bi().await.ok()?;
            self.hear(connection, unfinished(sender), receiver).await
        };
        match place.hold(asking).await {
            Ok(Some(question)) => {
                let asker = Asker::Newcomer(ChannelBinding::of(connection));
                self.respond(connection, asker, question).await;
            }
            Ok(None) => return,
            Err(ousted) => return self.oust(connection, ousted),
        }
        match place.hold_for(CLOSE_TIMEOUT, connection.closed()).await {
            Ok(_) => place.succeed(),
            Err(ousted) => self.oust(connection, ousted),
        }
    }

    /// A newcomer has to go.
    fn oust(&self, connection: &Connection, ousted: Ousted) {
        let (counter, code) = match ousted {
            Ousted::TimedOut => (&self.counters.timed_out, BootstrapClose::TimedOut),
            Ousted::Displaced => (&self.counters.connections_refused, BootstrapClose::Overloaded),
        };
        counter.count();
        code.close(connection);
    }

    /// Any number of requests, as many at once as the connection may have streams.
    async fn serve_member(&self, connection: Connection, member: Member) {
        let number = connection.stable_id();
        let (count, replaced) = self.presence.arrive(member.node, number, Line::new(connection.clone()));
        if let Some(line) = replaced {
            self.counters.replaced.count();
            tracing::debug!(node = %member.node.short(), "closed the oldest connection of a member for a new one");
            line.close(BootstrapClose::Replaced);
        }
        if count == 1 {
            self.driver.with(|machine, _| machine.connected(&member.node));
        }
        // In this task, not in one for each: a heartbeat costs less than to wake another thread for it.
        let visit = async {
            let mut serving = FuturesUnordered::new();
            loop {
                tokio::select! {
                    accepted = connection.accept_bi() => {
                        let Ok((sender, receiver)) = accepted else { return };
                        let question = self.hear(&connection, unfinished(sender), receiver);
                        serving.push(async {
                            if let Some(question) = question.await {
                                self.respond(&connection, Asker::Member(member), question).await;
                            }
                        });
                    }
                    // By such a stream a member looks whether this bootstrap lives; that it is acknowledged is the answer.
                    sign_of_life = connection.accept_uni() => if sign_of_life.is_err() { return },
                    Some(()) = serving.next() => {}
                }
            }
        };
        if timeout(self.limits.connection_age, visit).await.is_err() {
            BootstrapClose::Aged.close(&connection);
        }
        let is_broken = presence::is_broken(&connection.closed().await);
        if self.presence.leave(member.node, number) && is_broken {
            self.counters.cut_off.count();
            tracing::debug!(node = %member.node.short(), "the connection of a member broke");
            self.driver.with(|machine, now| {
                // It may have come back meanwhile.
                if !self.presence.is_here(&member.node) {
                    machine.cut_off(&member.node, now);
                }
            });
        }
    }

    /// One request; `None` if none came, and the reason is dealt with.
    async fn hear(
        &self,
        connection: &Connection,
        sender: Unfinished,
        mut receiver: RecvStream,
    ) -> Option<Question> {
        let reading = frames::read_growing_frame(&mut receiver, MAX_BOOTSTRAP_REQUEST_BYTES);
        match timeout(self.limits.stream_timeout, reading).await {
            Ok(Ok(request)) => return Some(Question { request, sender, _receiver: receiver }),
            Ok(Err(error)) => self.no_request(connection, &error),
            Err(_) => {
                self.counters.timed_out.count();
                let code = BootstrapClose::TimedOut.number();
                let _ = receiver.stop(code.into()); // fails only if the stream is over
                sender.reset(code);
            }
        }
        None
    }

    /// The response to it.
    async fn respond(&self, connection: &Connection, asker: Asker, question: Question) {
        let Question { request, mut sender, _receiver: receiver } = question;
        let reported = match &request {
            BootstrapRequest::Ask(Request::ReportDown { node } | Request::ReportUnreached { node }) => {
                Some(*node)
            }
            BootstrapRequest::Join(_)
            | BootstrapRequest::Renew
            | BootstrapRequest::Ask(_)
            | BootstrapRequest::Drain { .. }
            | BootstrapRequest::Unknown => None,
        };
        let (kind, answering) = (metrics::kind(&request), self.answer(connection, asker, request));
        let Some(response) = self.metrics.measure(kind, answering).await else { return };
        let writing = frames::write_frame(&mut sender, &response);
        match timeout(self.limits.stream_timeout, writing).await {
            Ok(Ok(())) => sender.finish(),
            Ok(Err(_)) => {} // whoever asked has gone
            Err(_) => {
                self.counters.timed_out.count();
                sender.reset(BootstrapClose::TimedOut.number());
            }
        }
        // The asker has its answer, and to look after the one that was reported may take a second.
        drop(receiver);
        if let Some(node) = reported.filter(|_| response == BootstrapResponse::Answer(Response::Done)) {
            self.look_after(&node).await;
        }
    }

    fn turned_away(&self, from: SocketAddr, cause: &dyn fmt::Display) {
        self.counters.handshakes_failed.count();
        self.gate.remark(|unsaid| {
            tracing::info!(%from, %cause, unsaid, "turned a peer away in its handshake");
        });
    }

    /// A stream that brought no request: a peer that gave up, or one that sends garbage.
    fn no_request(&self, connection: &Connection, error: &FrameError) {
        if error.is_violation() {
            self.violation(connection, &error.to_string(), BootstrapClose::Malformed);
        }
    }

    pub(super) fn violation(&self, connection: &Connection, what: &str, code: BootstrapClose) {
        self.counters.violations.count();
        let from = canonical(connection.remote_address());
        let node = tls::peer(connection).map(|node| node.to_string());
        self.gate.remark(|unsaid| {
            tracing::warn!(%from, node, what, unsaid, "closed a connection whose peer broke the protocol");
        });
        code.close(connection);
    }
}
