//! The relay's machine: flows pass through it, and the bootstrap knows it as a member of the pool.

use super::clerk::{Clerk, ClerkConfig};
use super::flows::{Flows, FlowsConfig, News};
use super::id::NodeId;
use super::machine::{Action, Event, Machine};
use super::rpc::Offer;
use super::time::Time;
use std::convert::Infallible;

/// A relay. Its part in each flow is [`Flows`]' business, its lease and its questions the clerk's.
#[derive(Debug)]
pub struct Relay {
    flows: Flows,
    clerk: Clerk<Infallible>,
    offer: Offer,
}

impl Relay {
    /// A relay that will offer this to the bootstrap.
    #[must_use]
    pub fn new(me: NodeId, flows: FlowsConfig, clerk: ClerkConfig, offer: Offer) -> Self {
        Self { flows: Flows::new(me, false, flows), clerk: Clerk::new(clerk), offer }
    }

    /// Starts to ask for a lease.
    pub fn start(&mut self, now: Time, actions: &mut Vec<Action>) {
        self.clerk.offer(self.offer.clone(), &mut self.flows, now, actions);
    }

    /// Leaves: the bootstrap is told, and every flow's prev goes on over its backup at once.
    pub fn leave(&mut self, now: Time, actions: &mut Vec<Action>) {
        self.clerk.leave(&mut self.flows, now, actions);
        self.flows.leave_all(now, actions);
    }

    fn catch_up(&mut self, actions: &mut Vec<Action>) {
        for news in self.flows.take_news() {
            if let News::PeerSuspect(node) | News::PeerUnreachable { node, first: true } = news {
                self.clerk.report(node, actions);
            }
        }
    }
}

impl Machine for Relay {
    fn handle(&mut self, event: Event, now: Time, actions: &mut Vec<Action>) {
        if let Event::Asked { ask, result } = event {
            let _ = self.clerk.answered(ask, result, &mut self.flows, now, actions);
        } else {
            self.flows.handle(event, now, actions);
        }
        self.catch_up(actions);
    }

    fn handle_timeout(&mut self, now: Time, actions: &mut Vec<Action>) {
        self.flows.handle_timeout(now, actions);
        self.clerk.handle_timeout(&mut self.flows, now, actions);
        self.catch_up(actions);
    }

    fn poll_timeout(&self) -> Option<Time> {
        [self.flows.poll_timeout(), self.clerk.poll_timeout()].into_iter().flatten().min()
    }

    fn flows(&mut self) -> &mut Flows {
        &mut self.flows
    }
}
