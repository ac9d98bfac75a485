//! What a fault does to the world, and how that is undone.

use super::World;
use crate::fault::{Aim, Fault};
use crate::network::{BOOTSTRAP, NodeIndex, Way};
use hopline_proto::flows::FlowKey;
use hopline_proto::machine::Machine;
use std::collections::BTreeSet;
use std::time::Duration;

/// How long a relay that leaves has to have its flows moved.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What an ordeal did, to be undone.
#[derive(Debug, Default)]
pub(crate) struct Hit(Vec<NodeIndex>);

impl World {
    fn find_aim(&mut self, aim: Aim) -> Option<NodeIndex> {
        let (flow, hop) = match aim {
            Aim::At(node) => return Some(node),
            Aim::Hop { flow, hop } => (flow, hop),
        };
        let key = FlowKey { hop, ..self.apps.get(flow)?.half(0).key? };
        let carries = |world: &mut Self, node: &NodeIndex| {
            let role = world.nodes.at_mut(*node).role.as_mut();
            let splice = role.and_then(|role| role.flows().splice(&key));
            splice.is_some_and(|splice| splice.prev().is_some() && splice.next().is_some())
        };
        self.nodes.living_relays().into_iter().find(|node| carries(self, node))
    }

    /// A fault begins. Its number tells it from others.
    pub(crate) fn begin(&mut self, number: u32, fault: &Fault) -> Hit {
        let now = self.now;
        self.trace.remark(now, format_args!("fault {number} begins: {fault:?}"));
        let all: BTreeSet<NodeIndex> = (0..self.nodes.len()).chain([BOOTSTRAP]).collect();
        let set = |nodes: &[NodeIndex]| nodes.iter().copied().collect::<BTreeSet<_>>();
        let hit: Vec<NodeIndex> = match fault {
            Fault::Crash(aim)
            | Fault::Freeze(aim)
            | Fault::Slow(aim, _)
            | Fault::Drain(aim)
            | Fault::Gray(aim, _)
            | Fault::Lie(aim, _)
            | Fault::EndStreams(aim)
            | Fault::Isolate(aim, _) => self.find_aim(*aim).into_iter().collect(),
            Fault::ZoneOutage(zone) => {
                let in_zone = |index: &NodeIndex| self.nodes.at(*index).zone() == Some(*zone);
                self.nodes.living_relays().into_iter().filter(in_zone).collect()
            }
            Fault::FlashCrowd(relays) => relays.clone(),
            Fault::Partition { .. } | Fault::Hold { .. } | Fault::Bootstrap(_) => Vec::new(),
        };
        match fault {
            Fault::Crash(_) | Fault::ZoneOutage(_) => hit.iter().for_each(|node| self.crash(*node)),
            Fault::Freeze(_) => hit.iter().for_each(|node| self.freeze(*node)),
            Fault::Slow(_, each) => hit.iter().for_each(|node| self.slow_down(*node, *each)),
            Fault::Drain(_) => hit.iter().for_each(|node| self.leave(*node)),
            Fault::Lie(_, lie) => hit.iter().for_each(|node| self.set_lie(*node, Some(*lie))),
            Fault::Gray(_, gray) => hit.iter().for_each(|node| self.turn_gray(*node, Some(*gray))),
            Fault::EndStreams(_) => hit.iter().for_each(|node| self.end_streams(*node)),
            Fault::Partition { from, to, both } => {
                self.network.close(number, Way::Cut, set(from), set(to));
                if *both {
                    self.network.close(number, Way::Cut, set(to), set(from));
                }
            }
            Fault::Isolate(_, ways) => {
                let one = set(&hit);
                if *ways != 1 {
                    self.network.close(number, Way::Cut, one.clone(), all.clone());
                }
                if *ways != 0 {
                    self.network.close(number, Way::Cut, all, one);
                }
            }
            Fault::Hold { from, to } => self.network.close(number, Way::Held, set(from), set(to)),
            Fault::FlashCrowd(_) => hit.iter().for_each(|node| self.start(*node)),
            Fault::Bootstrap(_) => self.crash_bootstrap(),
        }
        Hit(hit)
    }

    /// How long after its beginning a fault needs to be looked at again.
    pub(crate) fn last_words(fault: &Fault) -> Option<Duration> {
        matches!(fault, Fault::Drain(_)).then_some(LAST_WORDS)
    }

    /// A relay that has left is gone.
    pub(crate) fn conclude(&mut self, hit: &Hit) {
        for node in &hit.0 {
            self.finish(*node);
        }
    }

    /// A fault ends.
    pub(crate) fn end(&mut self, number: u32, fault: &Fault, hit: &Hit) {
        let now = self.now;
        self.trace.remark(now, format_args!("fault {number} ends"));
        match fault {
            Fault::Crash(_) | Fault::Drain(_) | Fault::ZoneOutage(_) => {
                hit.0.iter().for_each(|node| self.start(*node));
            }
            Fault::Freeze(_) => hit.0.iter().for_each(|node| self.thaw(*node)),
            Fault::Slow(..) => hit.0.iter().for_each(|node| self.slow_down(*node, Duration::ZERO)),
            Fault::Lie(..) => hit.0.iter().for_each(|node| self.set_lie(*node, None)),
            Fault::Gray(..) => hit.0.iter().for_each(|node| self.turn_gray(*node, None)),
            Fault::EndStreams(_) => {}
            Fault::Partition { .. } | Fault::Isolate(..) | Fault::Hold { .. } => {
                self.network.open(number);
                self.unstall();
            }
            Fault::FlashCrowd(_) => hit.0.iter().for_each(|node| self.crash(*node)),
            Fault::Bootstrap(found) => self.start_bootstrap(*found),
        }
    }
}
