//! Connections to a bootstrap: which are admitted, what they may ask, and what follows from bad requests.
//!
//! A connection without a certificate is a new node's: it has one request, to join. A connection with one is a member's: it has any
//! number of requests, a stream each, until it is too old. A misbehaving peer loses only its own connection, after a
//! bounded time, and leaves a line in the log and a count in the [`Counters`](super::Counters).
//!
//! The accept loop waits only for the next attempt. Each handshake and each connection has a task. The [gate](crate::net::gate) limits
//! handshakes and new nodes; members have separate places, which strangers cannot take.

use super::counters::{Counters, Tally};
use super::keeper::Keeper;
use super::metrics::{self, Metrics};
use super::presence::{self, Line, Presence};
use super::throttle::{Class, Throttle};
use super::{Limits, Options, certify};
use crate::net::address::canonical;
use crate::net::authority::{Authority, Issued, public_key_of};
use crate::net::bootstrap_rpc::{
    BootstrapClose, BootstrapRequest, BootstrapResponse, MAX_BOOTSTRAP_REQUEST_BYTES,
};
use crate::net::clock::{Clock, Jumps};
use crate::net::frames::{self, FrameError, Unfinished};
use crate::net::gate::{Gate, Ousted, Place};
use crate::net::identity::{Identity, Membership};
use crate::net::join::{ChannelBinding, JoinRequest, Refusal};
use crate::net::tls;
use crate::net::transport::{self, TransportSettings};
use crate::net::version;
use crate::store::{Holder, NotStored, Store};
use data_encoding::HEXLOWER;
use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use hopline_proto::NodeId;
use hopline_proto::bootstrap::Bootstrap;
use hopline_proto::rpc::{self, MAX_NAMES, Offer, Request, Response};
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
/// How long somebody who wants a name waits for others who want it: each asks its holder for a second.
const HOLDER_TURN: Duration = Duration::from_secs(3);
/// How long the answer to a registration, or to its end, waits for the disk. Whoever asked would soon ask another bootstrap.
const SAVE_PATIENCE: Duration = Duration::from_secs(2);

/// How long a newcomer that has its answer may take to say goodbye.
const FAREWELL: Duration = Duration::from_secs(2);

/// What all connections of a bootstrap share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) authority: Authority,
    pub(super) identity: Arc<Identity>,
    pub(super) store: Arc<dyn Store>,
    pub(super) keeper: Keeper,
    pub(super) tally: Tally,
    throttle: Throttle,
    presence: Presence<Line>,
    pub(super) metrics: Metrics,
    validity: Duration,
    limits: Limits,
    pub(super) gate: Arc<Gate>,
    members: Arc<Semaphore>,
}

/// A member, as its certificate says.
#[derive(Clone, Copy)]
struct Member {
    node: NodeId,
    public_key: [u8; 32],
}

/// Who asks.
#[derive(Clone, Copy)]
enum Asker {
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

/// What a node is told that asks what only newer bootstraps know.
const fn unknown_request() -> BootstrapResponse {
    BootstrapResponse::Answer(Response::Refused(rpc::Refusal::UnknownRequest))
}

fn unfinished(sender: SendStream) -> Unfinished {
    Unfinished::new(sender, BootstrapClose::Internal.number())
}

impl Shared {
    pub(super) fn new(
        authority: Authority,
        identity: Arc<Identity>,
        store: Arc<dyn Store>,
        keeper: Keeper,
        options: &Options,
    ) -> Self {
        let members = Semaphore::new(options.limits.members.clamp(1, Semaphore::MAX_PERMITS));
        Self {
            authority,
            identity,
            store,
            keeper,
            tally: Tally::default(),
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
        self.tally.retries.set(self.gate.counters().to_prove);
        self.tally.store_writes.set(store.writes);
        self.tally.store_failures.set(store.failures);
        self.tally.read()
    }
}

/// Takes connections until the endpoint is closed.
pub(super) async fn accept(shared: Arc<Shared>, endpoint: Endpoint, tasks: TaskTracker) {
    while let Some(incoming) = endpoint.accept().await {
        if let Some((incoming, place)) = shared.gate.admit(incoming) {
            tasks.spawn(serve(Arc::clone(&shared), incoming, place));
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
    shared.tally.connections.count();
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
        shared.tally.connections_refused.count();
        tracing::warn!(%from, %node, "too many members' connections; closed one");
        return BootstrapClose::Overloaded.close(&connection);
    };
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
        match place.hold_for(FAREWELL, connection.closed()).await {
            Ok(_) => place.succeed(),
            Err(ousted) => self.oust(connection, ousted),
        }
    }

    /// A newcomer has to go.
    fn oust(&self, connection: &Connection, ousted: Ousted) {
        let (counter, code) = match ousted {
            Ousted::TimedOut => (&self.tally.timed_out, BootstrapClose::TimedOut),
            Ousted::Displaced => (&self.tally.connections_refused, BootstrapClose::Overloaded),
        };
        counter.count();
        code.close(connection);
    }

    /// Any number of requests, as many at once as the connection may have streams.
    async fn serve_member(&self, connection: Connection, member: Member) {
        let number = connection.stable_id();
        let (count, replaced) = self.presence.arrive(member.node, number, Line::new(connection.clone()));
        if let Some(line) = replaced {
            self.tally.replaced.count();
            tracing::debug!(node = %member.node.short(), "closed the oldest connection of a member for a new one");
            line.close(BootstrapClose::Replaced);
        }
        if count == 1 {
            self.keeper.with(|machine, _| machine.connected(&member.node));
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
            self.tally.cut_off.count();
            tracing::debug!(node = %member.node.short(), "the connection of a member broke");
            self.keeper.with(|machine, now| {
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
                self.tally.timed_out.count();
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
                self.tally.timed_out.count();
                sender.reset(BootstrapClose::TimedOut.number());
            }
        }
        drop(receiver);
        if let Some(node) = reported.filter(|_| response == BootstrapResponse::Answer(Response::Done)) {
            self.look_after(&node).await;
        }
    }

    /// A member was reported down, and whoever did so is believed: if it has a connection, and that does not answer either, it
    /// is as good as broken.
    pub(super) async fn look_after(&self, node: &NodeId) {
        let reported = || self.keeper.with(|machine, now| machine.pool().reported(node, now));
        let Some(lease_ends) = reported() else { return };
        let Some(silent) = self.silent(node, Duration::ZERO).await else { return };
        self.keeper.with(|machine, now| {
            // It may have come back meanwhile, or been heard.
            let is_same = silent == self.presence.numbers(node);
            if is_same && machine.pool().reported(node, now) == Some(lease_ends) {
                self.tally.cut_off.count();
                tracing::debug!(node = %node.short(), "a member that was reported down does not answer here either");
                machine.cut_off(node, now);
            }
        });
    }

    /// The connections of a member, if it has any, and answers over none of them. For so long it is waited for others who ask.
    async fn silent(&self, node: &NodeId, turn: Duration) -> Option<Vec<usize>> {
        let (numbers, lines): (Vec<_>, Vec<_>) = self.presence.of(node).into_iter().unzip();
        let answers = join_all(lines.iter().map(|line| line.answers(turn))).await;
        let is_silent = !lines.is_empty() && answers.iter().all(|answer| *answer == Some(false));
        is_silent.then_some(numbers)
    }

    /// Frees a name whose holder has a connection and does not answer over it: its process was killed, or it is as good as cut
    /// off. Whoever has no connection, between two heartbeats or since a restart of this process, keeps its names for its lease.
    async fn free(&self, name: &str) -> bool {
        let holder = |machine: &Bootstrap| {
            machine.targets().by_name(name).map(|target| (target.node, target.lease_ends))
        };
        let Some(held) = self.keeper.with(|machine, _| holder(machine)) else { return true };
        let Some(silent) = self.silent(&held.0, HOLDER_TURN).await else { return false };
        self.keeper.with(|machine, _| {
            // It may have come back meanwhile, or been heard.
            let is_gone = silent == self.presence.numbers(&held.0) && holder(machine) == Some(held);
            if is_gone {
                self.tally.names_freed.count();
                tracing::info!(name, node = %held.0.short(), "freed a name: its holder does not answer any more");
                machine.vacate(&held.0);
            }
            is_gone
        })
    }

    /// The response to a request; `None` if there is none, and the reason is dealt with.
    async fn answer(
        &self,
        connection: &Connection,
        asker: Asker,
        request: BootstrapRequest,
    ) -> Option<BootstrapResponse> {
        match (asker, request) {
            (Asker::Newcomer(binding), BootstrapRequest::Join(request)) => {
                self.join(connection, &binding, &request).await
            }
            (Asker::Newcomer(_), BootstrapRequest::Unknown) => Some(unknown_request()),
            (
                Asker::Newcomer(_),
                BootstrapRequest::Renew | BootstrapRequest::Ask(_) | BootstrapRequest::Drain { .. },
            ) => self.not_allowed(connection),
            (Asker::Member(member), request) => self.answer_member(connection, member, request).await,
        }
    }

    async fn answer_member(
        &self,
        connection: &Connection,
        Member { node, public_key }: Member,
        request: BootstrapRequest,
    ) -> Option<BootstrapResponse> {
        if self.is_removed(connection, &node) {
            return None;
        }
        let class =
            if let BootstrapRequest::Ask(request) = &request { Class::of(request) } else { Class::Renewal };
        if let Err(refusal) = self.throttle.admit(&node, class) {
            self.tally.throttled(class);
            return Some(BootstrapResponse::Answer(Response::Refused(refusal)));
        }
        match request {
            BootstrapRequest::Join(_) => self.not_allowed(connection),
            BootstrapRequest::Renew => {
                self.tally.renewed.count();
                tracing::debug!(%node, "renewed a certificate");
                Some(BootstrapResponse::Issued(self.issue(&public_key)))
            }
            BootstrapRequest::Ask(request) => Some(BootstrapResponse::Answer(self.ask(node, request).await)),
            BootstrapRequest::Drain { relay, proof } => Some(self.drain(connection, node, &relay, &proof)),
            BootstrapRequest::Unknown => Some(unknown_request()),
        }
    }

    fn not_allowed(&self, connection: &Connection) -> Option<BootstrapResponse> {
        self.violation(connection, "request not allowed", BootstrapClose::NotAllowed);
        None
    }

    /// The machine's answer. Names that others hold are free if those are gone.
    async fn ask(&self, node: NodeId, request: Request) -> Response {
        let announced = matches!(&request, Request::Register { offer: Offer::Target { .. }, .. })
            .then(|| request.clone());
        let mut response = self.ask_once(node, request).await;
        let Some(announced) = announced else { return response };
        for _ in 0..MAX_NAMES {
            let Response::Refused(rpc::Refusal::NameTaken { name }) = &response else { break };
            if !self.free(name).await {
                break;
            }
            response = self.ask_once(node, announced.clone()).await;
        }
        response
    }

    /// The machine's answer. What must be remembered of it is on disk then, if the disk can be written.
    async fn ask_once(&self, node: NodeId, request: Request) -> Response {
        let (response, saving) = self.keeper.answer(node, request);
        if let Some(saving) = saving {
            let saved = timeout(SAVE_PATIENCE, saving).await.is_ok_and(|saved| saved.is_ok());
            if matches!(response, Response::Lease(_)) {
                let counter =
                    if saved { &self.tally.registrations_saved } else { &self.tally.registrations_unsaved };
                counter.count();
            }
        }
        self.tally.answered.count();
        response
    }

    /// Has a relay drain, for a member that proves that it holds a ticket for any number of nodes.
    fn drain(
        &self,
        connection: &Connection,
        by: NodeId,
        relay: &str,
        proof: &JoinRequest,
    ) -> BootstrapResponse {
        let binding = ChannelBinding::of(connection);
        let proven = proof.verify(&binding, self.authority.secret(), Clock::wall());
        if let Some(refusal) = proven.err().or(proof.grant().single_use.then_some(Refusal::SingleUse)) {
            tracing::warn!(node = %by, relay, %refusal, "refused to drain a relay");
            return BootstrapResponse::JoinRefused(refusal);
        }
        let ordered = self.keeper.with(|machine, now| machine.order_drain(relay, now));
        tracing::info!(node = %by, relay, ordered = ordered.is_ok(), "was asked to drain a relay");
        BootstrapResponse::Answer(match ordered {
            Ok(relay) => {
                self.call(&relay);
                Response::Done
            }
            Err(refusal) => Response::Refused(refusal),
        })
    }

    /// Has a member heartbeat now, that it may hear what there is to say. One without a connection hears it with its next one.
    fn call(&self, node: &NodeId) {
        let called = self.presence.of(node).iter().filter(|(_, line)| line.call()).count();
        tracing::debug!(node = %node.short(), called, "called a member");
    }

    async fn join(
        &self,
        connection: &Connection,
        binding: &ChannelBinding,
        request: &JoinRequest,
    ) -> Option<BootstrapResponse> {
        let from = canonical(connection.remote_address());
        let claimed = NodeId::of_public_key(request.public_key());
        let ticket = HEXLOWER.encode(&request.grant().id);
        match self.admit(binding, request).await {
            Ok(Ok(node)) => {
                self.tally.joined.count();
                tracing::info!(%from, %node, ticket, "admitted a newcomer");
                Some(BootstrapResponse::Issued(self.issue(request.public_key())))
            }
            Ok(Err(refusal)) => {
                self.tally.joins_refused.count();
                self.gate.remark(|unsaid| {
                    tracing::warn!(%from, node = %claimed, ticket, %refusal, unsaid, "refused a newcomer");
                });
                Some(BootstrapResponse::JoinRefused(refusal))
            }
            Err(NotStored) => None,
        }
    }

    /// Whether the newcomer is to be a member. What must be remembered for that is on disk afterwards.
    async fn admit(
        &self,
        binding: &ChannelBinding,
        request: &JoinRequest,
    ) -> Result<Result<NodeId, Refusal>, NotStored> {
        let node = match request.verify(binding, self.authority.secret(), Clock::wall()) {
            Ok(node) => node,
            Err(refusal) => return Ok(Err(refusal)),
        };
        if self.store.is_denied(&node) {
            return Ok(Err(Refusal::Removed));
        }
        let grant = request.grant();
        if grant.single_use && self.store.bind(grant.id, node).await? == Holder::Another {
            return Ok(Err(Refusal::Used));
        }
        Ok(Ok(node))
    }

    fn issue(&self, public_key: &[u8; 32]) -> Issued {
        self.authority.issue(public_key, self.validity, Clock::wall())
    }

    /// Whether the node was removed from the network; then its connection is closed.
    fn is_removed(&self, connection: &Connection, node: &NodeId) -> bool {
        let removed = self.store.is_denied(node);
        if removed {
            self.tally.removed_refused.count();
            let from = canonical(connection.remote_address());
            tracing::warn!(%from, %node, "closed a connection of a node that was removed");
            BootstrapClose::Removed.close(connection);
        }
        removed
    }

    fn turned_away(&self, from: SocketAddr, cause: &dyn fmt::Display) {
        self.tally.handshakes_failed.count();
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

    fn violation(&self, connection: &Connection, what: &str, code: BootstrapClose) {
        self.tally.violations.count();
        let from = canonical(connection.remote_address());
        let node = tls::peer(connection).map(|node| node.to_string());
        self.gate.remark(|unsaid| {
            tracing::warn!(%from, node, what, unsaid, "closed a connection whose peer broke the protocol");
        });
        code.close(connection);
    }
}
