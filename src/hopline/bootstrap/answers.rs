//! What a bootstrap answers: to members, to newcomers, and about members that may be gone.

use super::server::{Asker, Member, Shared};
use super::throttle::Class;
use crate::net::address::canonical;
use crate::net::authority::Issued;
use crate::net::bootstrap_rpc::{BootstrapClose, BootstrapRequest, BootstrapResponse};
use crate::net::clock::Clock;
use crate::net::join::{ChannelBinding, JoinRequest, Refusal};
use crate::store::{Holder, NotStored};
use data_encoding::HEXLOWER;
use futures_util::future::join_all;
use hopline_proto::NodeId;
use hopline_proto::bootstrap::Bootstrap;
use hopline_proto::rpc::{self, MAX_NAMES, Offer, Request, Response};
use quinn::Connection;
use std::time::Duration;
use tokio::time::timeout;

/// How long somebody who wants a name waits for others who want it: each asks its holder for a second.
const HOLDER_TURN: Duration = Duration::from_secs(3);
/// How long the answer to a registration, or to its end, waits for the disk. Whoever asked would soon ask another bootstrap.
const SAVE_TIMEOUT: Duration = Duration::from_secs(2);

/// What a node is told that asks what only newer bootstraps know.
const fn unknown_request() -> BootstrapResponse {
    BootstrapResponse::Answer(Response::Refused(rpc::Refusal::UnknownRequest))
}

impl Shared {
    /// A member was reported down, and whoever did so is believed: if it has a connection, and that does not answer either, it
    /// is as good as broken.
    pub(super) async fn look_after(&self, node: &NodeId) {
        let reported = || self.driver.with(|machine, now| machine.pool().reported(node, now));
        let Some(lease_ends) = reported() else { return };
        // If somebody else is looking already, that is enough.
        let Some(silent) = self.silent(node, Duration::ZERO).await else { return };
        self.driver.with(|machine, now| {
            // It may have come back meanwhile, or been heard.
            let is_same = silent == self.presence.numbers(node);
            if is_same && machine.pool().reported(node, now) == Some(lease_ends) {
                self.counters.cut_off.count();
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
        let Some(held) = self.driver.with(|machine, _| holder(machine)) else { return true };
        let Some(silent) = self.silent(&held.0, HOLDER_TURN).await else { return false };
        self.driver.with(|machine, _| {
            // It may have come back meanwhile, or been heard.
            let is_gone = silent == self.presence.numbers(&held.0) && holder(machine) == Some(held);
            if is_gone {
                self.counters.names_freed.count();
                tracing::info!(name, node = %held.0.short(), "freed a name: its holder does not answer any more");
                machine.vacate(&held.0);
            }
            is_gone
        })
    }

    /// The response to a request; `None` if there is none, and the reason is dealt with.
    pub(super) async fn answer(
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
        // At each request, as it may have been removed since it connected.
        if self.is_removed(connection, &node) {
            return None;
        }
        let class =
            if let BootstrapRequest::Ask(request) = &request { Class::of(request) } else { Class::Renewal };
        if let Err(refusal) = self.throttle.admit(&node, class) {
            self.counters.throttled(class);
            return Some(BootstrapResponse::Answer(Response::Refused(refusal)));
        }
        match request {
            BootstrapRequest::Join(_) => self.not_allowed(connection),
            BootstrapRequest::Renew => {
                self.counters.renewed.count();
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
        // Each of its names may be held by another node that is gone.
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
        let (response, saving) = self.driver.answer(node, request);
        if let Some(saving) = saving {
            let saved = timeout(SAVE_TIMEOUT, saving).await.is_ok_and(|saved| saved.is_ok());
            if matches!(response, Response::Lease(_)) {
                let counter = if saved {
                    &self.counters.registrations_saved
                } else {
                    &self.counters.registrations_unsaved
                };
                counter.count();
            }
        }
        self.counters.answered.count();
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
        let ordered = self.driver.with(|machine, now| machine.order_drain(relay, now));
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
                self.counters.joined.count();
                tracing::info!(%from, %node, ticket, "admitted a newcomer");
                Some(BootstrapResponse::Issued(self.issue(request.public_key())))
            }
            Ok(Err(refusal)) => {
                self.counters.joins_refused.count();
                self.gate.remark(|unsaid| {
                    tracing::warn!(%from, node = %claimed, ticket, %refusal, unsaid, "refused a newcomer");
                });
                Some(BootstrapResponse::JoinRefused(refusal))
            }
            // The stream is reset: a use of a ticket that is not on disk might be forgotten.
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
        // Before the ticket is used up, which a removed node shall not do.
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
    pub(super) fn is_removed(&self, connection: &Connection, node: &NodeId) -> bool {
        let removed = self.store.is_denied(node);
        if removed {
            self.counters.removed_refused.count();
            let from = canonical(connection.remote_address());
            tracing::warn!(%from, %node, "closed a connection of a node that was removed");
            BootstrapClose::Removed.close(connection);
        }
        removed
    }
}
