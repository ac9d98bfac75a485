//! What must be true of every run. Each checker has a name, which a report of its failure carries.
//!
//! Checkers know the truth that no node knows: what each application has sent and taken, who lives, and what the bootstrap
//! has issued. The first failure counts; the run ends there.

mod epochs;
mod lanes;
mod plans;
mod rights;

use crate::network::NodeIndex;
use crate::node::Node;
use crate::traffic::Apps;
pub(crate) use lanes::{holds_what_it_must, is_true};

use epochs::Epochs;
use hopline_proto::Time;
use hopline_proto::flows::FlowKey;
use hopline_proto::frame::Attach;
use hopline_proto::machine::{Machine, Notice, Violation};
use hopline_proto::rpc::{Request, Response};
use hopline_proto::splice::{LegId, Limits};
use rights::Issued;
use std::fmt;
use std::time::Duration;

/// A check that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// Which.
    pub(crate) checker: &'static str,
    /// What it found.
    pub(crate) what: String,
    /// When, since the world's beginning.
    pub(crate) at: Duration,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}] after {:.3} s: {}", self.checker, self.at.as_secs_f64(), self.what)
    }
}

/// See the module's documentation.
#[derive(Default)]
pub(crate) struct Checks {
    /// Whether anything is checked: large runs only count.
    pub(crate) on: bool,
    pub(crate) failure: Option<Failure>,
    /// Whether somebody lied: then relays may hold what is not true, and peers are accused.
    pub(crate) liars: bool,
    /// How often somebody was.
    pub(crate) violations: u64,
    /// How much of each direction of a flow a node may buffer.
    pub(crate) limits: Limits,
    issued: Issued,
    epochs: Epochs,
}

impl Checks {
    pub(crate) fn fail(&mut self, checker: &'static str, now: Time, what: impl Into<String>) {
        if self.failure.is_none() {
            let at = now.since(crate::settings::START);
            self.failure = Some(Failure { checker, what: what.into(), at });
        }
    }

    /// Somebody offers a leg to a node.
    pub(crate) fn offered(&mut self, leg: LegId, attach: &Attach) {
        if self.on {
            self.issued.offered(leg, attach);
        }
    }

    /// A node accepts a leg.
    pub(crate) fn answers(&mut self, now: Time, (_, node): (NodeIndex, &Node), leg: LegId, flow: FlowKey) {
        if self.on
            && let Err(what) = self.issued.accepts(leg, node.id, flow)
        {
            self.fail("rights", now, what);
        }
    }

    /// The bootstrap answers.
    pub(crate) fn answered(
        &mut self,
        now: Time,
        request: &Request,
        response: &Response,
        is_long_dead: impl Fn(hopline_proto::NodeId) -> bool,
    ) {
        if !self.on {
            return;
        }
        let named = self.issued.answered(response);
        if let Err(what) = plans::check(request, response, &named, is_long_dead) {
            self.fail("plans", now, what);
        }
    }

    /// A node told its driver something.
    pub(crate) fn notice(&mut self, now: Time, (index, node): (NodeIndex, &Node), notice: &Notice) {
        if let Notice::Ended { flow, .. } = notice {
            self.epochs.forget(index, *flow);
        }
        self.violations += u64::from(matches!(notice, Notice::Violation { .. }));
        if let Notice::Violation { what, .. } = notice
            && self.on
            && !self.liars
        {
            let checker =
                if matches!(what, Violation::Forbidden(_)) { "violation: rights" } else { "violation" };
            let what = format!("{:?} says that an honest peer broke the protocol: {what}", node.id);
            self.fail(checker, now, what);
        }
    }

    /// A node's machine has done what it was to do.
    pub(crate) fn heeded(&mut self, now: Time, node: &mut Node) {
        if self.on && node.role.as_mut().is_some_and(|role| role.flows().has_events()) {
            self.fail("news", now, format!("{:?} has not acted on what arose in its flows", node.id));
        }
    }

    /// A node died.
    pub(crate) fn died(&mut self, index: NodeIndex) {
        self.epochs.forget_node(index);
    }

    /// Something of a flow may have changed at a node.
    pub(crate) fn flow(&mut self, now: Time, node: &mut Node, index: NodeIndex, key: FlowKey, apps: &Apps) {
        if !self.on || self.failure.is_some() {
            return;
        }
        if let Some(what) = &apps.delivery.corrupt {
            return self.fail("delivery", now, what.clone());
        }
        let (id, is_relay) = (node.id, node.is_relay());
        let Some(flows) = node.role.as_mut().map(Machine::flows) else { return };
        let Some(splice) = flows.splice(&key) else { return };
        let app = apps.of_flow(key.flow).filter(|_| !self.liars || !is_relay);
        let found = lanes::check(splice, app, &self.limits).map_err(|what| ("lanes", what));
        let grown = self.epochs.check(index, key, splice.epoch()).map_err(|what| ("epochs", what));
        if let Err((checker, what)) = found.and(grown) {
            self.fail(checker, now, format!("flow {:?} at hop {} on {id:?}: {what}", key.flow, key.hop));
        }
    }
}
