//! Where the packets of sessions go: from the leg on one side of a flow to the live leg on the other.

use super::key::FlowKey;
use super::table::Flows;
use crate::planted::{self, Law};
use crate::splice::{Direction, LegId, Position, Splice};
use crate::time::Time;

/// Where a packet goes that came over a leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Over this leg.
    Leg(LegId),
    /// Nowhere else: this node is the flow's end.
    Here(FlowKey),
    /// Over the next leg, once there is one; or the leg that it came over is not known yet.
    Later,
}

impl Flows {
    /// Where a packet goes that came over `leg`.
    #[must_use]
    pub fn way(&self, leg: LegId) -> Way {
        let Some(key) = self.legs.get(&leg) else { return Way::Later };
        let Some(splice) = self.splice(key) else { return Way::Later };
        let Some(direction) = splice.fed_by(leg) else { return Way::Later };
        if splice.is_sink(direction) {
            return Way::Here(*key);
        }
        onward(splice, direction).map_or(Way::Later, Way::Leg)
    }

    /// Over which leg this end of a flow sends packets.
    #[must_use]
    pub fn way_out(&self, key: &FlowKey) -> Option<LegId> {
        let splice = self.splice(key)?;
        if splice.position() == Position::Relay { None } else { onward(splice, splice.source()) }
    }

    /// Packets came over a link: it lives.
    pub fn packets_came(&mut self, leg: LegId, now: Time) {
        self.links.heard(leg.link(), now);
    }

    /// Packets went over a link.
    pub fn packets_went(&mut self, leg: LegId, now: Time) {
        self.links.spoke(leg.link(), now);
    }
}

/// The live leg in a direction. Next need not have answered: it holds what overtakes the attach.
fn onward(splice: &Splice, direction: Direction) -> Option<LegId> {
    match direction {
        Direction::Forward => splice.next(),
        // The first dial of each hop has the counter 1.
        Direction::Backward if planted::broken(Law::WayRepaired) => {
            if splice.epoch().counters().iter().all(|dials| *dials == 1) { splice.prev() } else { None }
        }
        Direction::Backward => splice.prev(),
    }
}
