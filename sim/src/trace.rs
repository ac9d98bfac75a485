//! A readable timeline: what the nodes told, what they asked the bootstrap, and what was done to them.

mod hash;

pub(crate) use hash::TraceHash;

use hopline_proto::frame::Attach;
use hopline_proto::machine::{AskFailure, NeighbourChange, Notice};
use hopline_proto::record::Candidate;
use hopline_proto::rpc::{Offer, Request, Response};
use hopline_proto::{NodeId, Time};
use std::collections::HashMap;
use std::fmt;

/// Writes lines to standard output if it is on.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    on: bool,
    since: Option<Time>,
    names: HashMap<NodeId, String>,
}

impl Trace {
    /// Lines are written from now on, timed from the first.
    pub(crate) const fn start(&mut self) {
        self.on = true;
    }

    pub(crate) const fn is_on(&self) -> bool {
        self.on
    }

    /// Something happened that is nobody's.
    #[expect(clippy::print_stdout, reason = "that is what it is for")]
    pub(crate) fn remark(&mut self, now: Time, what: impl fmt::Display) {
        if self.on {
            let since = *self.since.get_or_insert(now);
            let ms = now.since(since).as_secs_f64() * 1000.0;
            println!("{ms:>10.1} ms  {:<8} {what}", "*");
        }
    }

    /// What a node shall be called.
    pub(crate) fn name(&mut self, node: NodeId, name: &str) {
        self.names.insert(node, name.to_owned());
    }

    /// Something happened at a node.
    #[expect(clippy::print_stdout, reason = "that is what it is for")]
    pub(crate) fn say(&mut self, now: Time, node: NodeId, what: impl FnOnce(&Self) -> String) {
        if self.on {
            let since = *self.since.get_or_insert(now);
            let ms = now.since(since).as_secs_f64() * 1000.0;
            println!("{ms:>10.1} ms  {:<8} {}", self.called(node), what(self));
        }
    }

    /// A node told its driver something.
    pub(crate) fn notice(&mut self, now: Time, node: NodeId, notice: &Notice) {
        self.say(now, node, |trace| trace.describe(notice));
    }

    /// Somebody offers a leg to a node.
    pub(crate) fn attach(&mut self, now: Time, node: NodeId, dialer: NodeId, attach: &Attach) {
        self.say(now, node, |trace| {
            let versions: Vec<u32> = attach.records.iter().map(|record| record.scope.version).collect();
            format!(
                "< {} attaches, flow {:?} hop {}, epoch {:?}, from {} on, acked {}, records {versions:?} of {:?}",
                trace.called(dialer),
                attach.flow,
                attach.epoch.hop(),
                attach.epoch,
                attach.forward_start,
                attach.backward_ack,
                attach.records.first().map(|record| record.scope.chain)
            )
        });
    }

    /// A node asked the bootstrap something and will get this answer.
    pub(crate) fn ask(
        &mut self,
        now: Time,
        node: NodeId,
        request: &Request,
        result: &Result<Response, AskFailure>,
    ) {
        if !matches!(request, Request::Heartbeat { .. }) {
            self.say(now, node, |trace| format!("? {} -> {}", trace.request(request), answer(result)));
        }
    }

    fn called(&self, node: NodeId) -> String {
        self.names.get(&node).cloned().unwrap_or_else(|| format!("{node:?}"))
    }

    fn list(&self, nodes: impl IntoIterator<Item = NodeId>) -> String {
        let names: Vec<String> = nodes.into_iter().map(|node| self.called(node)).collect();
        names.join(" ")
    }

    fn candidate(&self, candidate: Option<&Candidate>) -> String {
        candidate.map_or_else(|| "?".to_owned(), |candidate| self.called(candidate.node))
    }

    fn request(&self, request: &Request) -> String {
        match request {
            Request::Register { offer: Offer::Target { attachments, .. }, .. } => {
                format!("register at [{}]", self.list(attachments.iter().copied()))
            }
            Request::Register { .. } => "register".to_owned(),
            Request::Heartbeat { .. } => "heartbeat".to_owned(),
            Request::Deregister { .. } => "deregister".to_owned(),
            Request::Drain => "drain".to_owned(),
            Request::List => "list".to_owned(),
            Request::Unknown => "unknown".to_owned(),
            Request::ReportDown { node } => format!("report {} down", self.called(*node)),
            Request::ReportUp { node } => format!("report {} up", self.called(*node)),
            Request::ReportUnreached { node } => format!("report {} unreached", self.called(*node)),
            Request::ReportReached { node } => format!("report {} reached", self.called(*node)),
            Request::Attachments { count, exclude, .. } => {
                format!("{count} attachments but [{}]", self.list(exclude.iter().copied()))
            }
            Request::Plan { hops, exclude, .. } | Request::Spare { hops, exclude, .. } => {
                format!("plan {hops} hops but [{}]", self.list(exclude.iter().copied()))
            }
            Request::Renew { .. } => "renew".to_owned(),
            Request::Replace { hop, active, exclude, .. } => {
                let (active, but) = (self.list(*active), self.list(exclude.iter().copied()));
                format!("replace hop {hop}, active [{active}] but [{but}]")
            }
        }
    }

    fn describe(&self, notice: &Notice) -> String {
        match notice {
            Notice::Neighbour { node, change: NeighbourChange::Up, .. } => {
                format!("{} up", self.called(*node))
            }
            Notice::Neighbour { node, change, silence } => {
                format!("{} {change:?} after {:.1} ms", self.called(*node), silence.as_secs_f64() * 1e3)
            }
            Notice::Unattached { refusal } => format!("can attach to nobody: {refusal}"),
            Notice::Attachments { relays } => format!("attached to [{}]", self.list(relays.iter().copied())),
            Notice::Rerouted { flow, reroute, from, to, .. } => format!(
                "at hop {}: REROUTED hop {} v{} {} -> {} for {:?} ({}), gap {:.1} ms, replayed {}",
                flow.hop,
                reroute.hop,
                reroute.version,
                self.candidate(from.as_ref()),
                self.candidate(to.as_ref()),
                reroute.cause,
                reroute.reason.evidence.as_str(),
                f64::from(reroute.gap_us) / 1e3,
                reroute.replayed
            ),
            Notice::Avoided { flow, failure, .. } => {
                format!("at hop {}: avoids {} ({})", flow.hop, self.called(failure.node), failure.ground)
            }
            Notice::Chain { hops, change, .. } => {
                let hop = |hop: &Vec<Candidate>| self.list(hop.iter().map(|candidate| candidate.node));
                format!("CHAIN {change:?}: {}", hops.iter().map(hop).collect::<Vec<_>>().join(" | "))
            }
            Notice::Ended { flow, code, .. } => format!("at hop {}: ENDED {code:?}", flow.hop),
            Notice::Accepted { flow } => format!("at hop {}: accepted", flow.hop),
            Notice::Opened { unprotected, .. } => format!("OPENED, unprotected {unprotected:?}"),
            Notice::Enrolment { change, .. } => format!("lease: {change:?}"),
            Notice::Draining
            | Notice::Drained
            | Notice::OpenFailed { .. }
            | Notice::CandidateWanted { .. }
            | Notice::RoutesChanged
            | Notice::Violation { .. } => format!("{notice:?}"),
        }
    }
}

fn answer(result: &Result<Response, AskFailure>) -> String {
    match result {
        Ok(Response::Refused(refusal)) => format!("refused: {refusal}"),
        Ok(Response::Replaced(record)) => format!("v{}", record.scope.version),
        Ok(Response::Relays(relays)) => format!("{} relays", relays.len()),
        Ok(_) => "ok".to_owned(),
        Err(failure) => format!("{failure:?}"),
    }
}
