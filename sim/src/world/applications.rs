//! The applications at endpoints, and flows that have bytes to move.

use super::World;
use crate::happening::Happening;
use crate::network::NodeIndex;
use crate::node::Role;
use hopline_proto::Time;
use hopline_proto::flows::FlowKey;
use hopline_proto::machine::Machine;

impl World {
    /// An application is due at this node.
    pub(super) fn app_due(&mut self, app: usize, node: NodeIndex) {
        match self.apps.due(app, node) {
            crate::traffic::Due::Open(flow, to) => {
                self.with(node, |role, now, actions| {
                    if let Role::Endpoint(endpoint) = role {
                        endpoint.open(flow, to, now, actions);
                    }
                });
            }
            crate::traffic::Due::Run(key) => self.woken.push_back((node, key)),
            crate::traffic::Due::Nothing => {}
        }
    }

    /// A flow shall be opened, or served, at that moment.
    pub(crate) fn plan_app(&mut self, app: usize, at: Time) {
        let node = self.apps.origin(app);
        self.schedule(at, Happening::App { app, node });
    }

    /// Moves the bytes of all flows that may have some to move.
    pub(super) fn wake_all(&mut self) {
        while let Some((node, flow)) = self.woken.pop_front() {
            self.wake(node, flow);
        }
    }

    fn wake(&mut self, index: NodeIndex, flow: FlowKey) {
        let Some(role) = &mut self.nodes.at_mut(index).role else { return };
        let Some(splice) = role.flows().splice(&flow) else { return };
        let legs = [splice.prev(), splice.next()];
        for leg in legs.into_iter().flatten() {
            self.take_in(index, leg);
            self.pump(index, leg);
        }
        if self.nodes.at(index).is_relay() {
            self.checks.flow(self.now, self.nodes.at_mut(index), index, flow, &self.apps);
            return;
        }
        let (now, local) = (self.now, self.local(index));
        let mut actions = std::mem::take(&mut self.scratch);
        let role = self.nodes.at_mut(index).role.as_mut();
        let apps = &mut self.apps;
        let next = role.and_then(|role| {
            role.with_flows(local, &mut actions, |flows, actions| {
                apps.run(index, flow, flows, (now, local), actions)
            })
        });
        self.perform(index, local, actions);
        if let Some((app, at)) = next {
            self.schedule(at, Happening::App { app, node: index });
        }
        self.checks.flow(self.now, self.nodes.at_mut(index), index, flow, &self.apps);
    }
}
