//! Applications at the ends of flows: they send what their script says, take what comes, and look at every byte.

mod app;
mod script;

pub(crate) use app::{App, Delivery, pattern, quantile};
pub(crate) use script::{Abort, FlowPlan, Reader, Script, Step, When};

use crate::network::NodeIndex;
use hopline_proto::endpoint::Destination;
use hopline_proto::flows::{FlowKey, Flows};
use hopline_proto::frame::CloseCode;
use hopline_proto::machine::{Action, Notice};
use hopline_proto::{FlowId, Time};
use std::collections::HashMap;
use std::time::Duration;

/// How long an application waits before it tries again to open a flow that could not be opened.
const OPEN_AGAIN: Duration = Duration::from_millis(500);

/// What an application wants of its node.
pub(crate) enum Due {
    Open(FlowId, Destination),
    Run(FlowKey),
    Nothing,
}

/// An end of a flow: 0 is the origin's.
pub(crate) type EndOfFlow = usize;

/// All applications.
#[derive(Default)]
pub(crate) struct Apps {
    apps: Vec<App>,
    by_flow: HashMap<FlowId, usize>,
    by_key: HashMap<(NodeIndex, FlowKey), (usize, EndOfFlow)>,
    /// What all of them have seen.
    pub(crate) delivery: Delivery,
}

impl Apps {
    pub(crate) fn add(&mut self, app: App) -> usize {
        self.apps.push(app);
        self.apps.len() - 1
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &App> {
        self.apps.iter()
    }

    pub(crate) fn get(&self, app: usize) -> Option<&App> {
        self.apps.get(app)
    }

    pub(crate) fn origin(&self, app: usize) -> NodeIndex {
        self.apps.get(app).map_or(0, |app| app.plan.origin)
    }

    /// The application of a flow.
    pub(crate) fn of_flow(&self, flow: FlowId) -> Option<&App> {
        self.apps.get(*self.by_flow.get(&flow)?)
    }

    /// Whether all flows have come to the end that they should have.
    pub(crate) fn all_over(&self) -> bool {
        self.apps.iter().all(App::is_over)
    }

    /// An application asked to be looked at now.
    pub(crate) fn due(&mut self, number: usize, node: NodeIndex) -> Due {
        let Some(app) = self.apps.get_mut(number) else { return Due::Nothing };
        let end = app.end_at(node);
        if let Some(key) = app.half(end).key {
            app.half_mut(end).wake_at = None;
            return Due::Run(key);
        }
        if end != 0 || app.opening || app.is_over() {
            return Due::Nothing;
        }
        let (flow, to) = app.open();
        self.by_flow.insert(flow, number);
        Due::Open(flow, to)
    }

    /// A node told something; returns which application is to be looked at, and when.
    pub(crate) fn notice(&mut self, node: NodeIndex, notice: &Notice, now: Time) -> Option<(usize, Time)> {
        match notice {
            Notice::Opened { flow, .. } | Notice::Accepted { flow } => {
                let number = *self.by_flow.get(&flow.flow)?;
                let end = usize::from(matches!(notice, Notice::Accepted { .. }));
                self.by_key.insert((node, *flow), (number, end));
                self.apps.get_mut(number)?.begin(end, *flow, now, &mut self.delivery);
                None
            }
            Notice::OpenFailed { flow, .. } => {
                let number = *self.by_flow.get(flow)?;
                self.apps.get_mut(number)?.not_opened();
                Some((number, now + OPEN_AGAIN))
            }
            Notice::Ended { flow, code, .. } => {
                let (number, end) = self.by_key.remove(&(node, *flow))?;
                let app = self.apps.get_mut(number)?;
                (app.half_mut(end).ended, app.half_mut(end).ended_at) = (Some(*code), now);
                if end == 0 {
                    self.delivery.flow_over(*code == CloseCode::Done || app.was_aborted());
                }
                None
            }
            Notice::Enrolment { .. }
            | Notice::Draining
            | Notice::Drained
            | Notice::Chain { .. }
            | Notice::CandidateWanted { .. }
            | Notice::Rerouted { .. }
            | Notice::Avoided { .. }
            | Notice::Attachments { .. }
            | Notice::Unattached { .. }
            | Notice::Neighbour { .. }
            | Notice::Violation { .. }
            | Notice::RoutesChanged => None,
        }
    }

    /// Lets the application at this end of a flow take and send; returns when it wants to be looked at again.
    pub(crate) fn run(
        &mut self,
        node: NodeIndex,
        key: FlowKey,
        flows: &mut Flows,
        (now, local): (Time, Time),
        actions: &mut Vec<Action>,
    ) -> Option<(usize, Time)> {
        let (number, end) = *self.by_key.get(&(node, key))?;
        let app = self.apps.get_mut(number)?;
        let at = app.run(end, flows, (now, local), &mut self.delivery, actions)?;
        let half = app.half_mut(end);
        if half.wake_at.is_some_and(|wake_at| wake_at <= at) {
            return None;
        }
        half.wake_at = Some(at);
        Some((number, at))
    }
}
