//! Where on a chain a direction's bytes stop, by what all nodes on it tell.

use crate::frame::{Passage, Progress, Waypoint};
use crate::id::NodeId;
use crate::links::{Links, Move};
use crate::splice::{Direction, LegId, Splice};
use crate::time::Time;
use std::time::Duration;

/// The last two neighbours of which the one has bytes that the other lacks: beyond them everything has arrived that got there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Front {
    /// How many nodes come before the two, from the bytes' source on.
    pub(super) place: usize,
    /// Up to where the second has the bytes.
    pub(super) at: u64,
    /// Whether the first has passed more on.
    was_given: bool,
    /// How long nothing of any flow has moved there,
    pub(super) quiet: Duration,
    /// and how long losses there may take to be made up for.
    pub(super) repair: Duration,
}

impl Front {
    /// Those of both directions, as an origin knows with what it was told.
    pub(super) fn both(here: &Waypoint, progress: &Progress) -> [Option<Self>; 2] {
        let relays = progress.relays.iter().rev();
        let all: Vec<&Waypoint> = [here].into_iter().chain(relays).chain([&progress.target]).collect();
        let forward: Vec<Passage> = all.iter().map(|waypoint| waypoint.forward).collect();
        let backward: Vec<Passage> = all.iter().rev().map(|waypoint| waypoint.backward).collect();
        [Self::of(&forward), Self::of(&backward)]
    }

    /// The front on a path from the source to the sink. `None` if the sink has everything.
    fn of(path: &[Passage]) -> Option<Self> {
        path.windows(2).enumerate().rev().find_map(|(place, pair)| match pair {
            [gives, takes] if gives.received > takes.received => {
                // What was passed on stops on the second's way in, the rest on the first's way out.
                let was_given = gives.written > takes.received;
                let way = if was_given { takes.inward } else { gives.outward };
                // What the transport does not have yet it can't have lost.
                let repair = if was_given { way.repair_ms.max(gives.outward.repair_ms) } else { 0 };
                Some(Self {
                    place,
                    at: takes.received,
                    was_given,
                    quiet: Duration::from_millis(way.quiet_ms.into()),
                    repair: Duration::from_millis(repair.into()),
                })
            }
            _ => None,
        })
    }

    /// The relay that must have swallowed them. `relays` are those on the path, from the source on.
    pub(super) fn suspect(&self, relays: &[NodeId]) -> Option<NodeId> {
        let taker = relays.get(self.place).copied();
        let giver = self.place.checked_sub(1).and_then(|place| relays.get(place).copied());
        // Where the one to blame is an end of the flow, it is the relay beside it.
        if self.was_given { taker.or(giver) } else { giver.or(taker) }
    }
}

/// How far a flow has come at this node.
pub(super) fn waypoint(splice: &Splice, links: &Links, now: Time) -> Waypoint {
    let passage = |direction, from: Option<LegId>, to: Option<LegId>| {
        let lane = splice.lane(direction);
        let way = |leg: Option<LegId>, what| leg.map(|leg| links.way(leg.link(), what, now));
        Passage {
            received: lane.received(),
            // Without an out-leg nothing is on its way.
            written: lane.written().unwrap_or(0),
            inward: way(from, Move::In(direction)).unwrap_or_default(),
            outward: way(to, Move::Out(direction)).unwrap_or_default(),
        }
    };
    let (prev, next) = (splice.prev(), splice.next());
    Waypoint {
        forward: passage(Direction::Forward, prev, next),
        backward: passage(Direction::Backward, next, prev),
    }
}
