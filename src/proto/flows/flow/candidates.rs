//! Whom to dial next: the candidates of one flow's next hop and how they have done.

use crate::id::NodeId;
use crate::links::Standing;
use crate::record::Candidate;

/// The next hop's candidates, in the order of their record, and what this flow has seen of each.
#[derive(Debug, Default)]
pub(in crate::flows) struct Candidates {
    seen: Vec<Seen>,
    current: Option<usize>,
}

#[derive(Debug)]
struct Seen {
    candidate: Candidate,
    failures: u32,
}

impl Candidates {
    pub(in crate::flows) fn new(candidates: Vec<Candidate>) -> Self {
        let seen = |candidate| Seen { candidate, failures: 0 };
        Self { seen: candidates.into_iter().map(seen).collect(), current: None }
    }

    /// Another record of the same hop: what was seen of those who are still in it stays.
    pub(in crate::flows) fn replace(&mut self, candidates: Vec<Candidate>) {
        let current = self.current().map(|candidate| candidate.node);
        let old = std::mem::replace(self, Self::new(candidates));
        for seen in &mut self.seen {
            let before = old.seen.iter().find(|before| before.candidate.node == seen.candidate.node);
            seen.failures = before.map_or(0, |before| before.failures);
        }
        self.current = current.and_then(|node| self.place(node));
    }

    pub(in crate::flows) fn iter(&self) -> impl Iterator<Item = &Candidate> {
        self.seen.iter().map(|seen| &seen.candidate)
    }

    /// All but the current one.
    pub(in crate::flows) fn others(&self) -> impl Iterator<Item = &Candidate> {
        let others = self.iter().enumerate().filter(|(place, _)| Some(*place) != self.current);
        others.map(|(_, candidate)| candidate)
    }

    pub(in crate::flows) fn len(&self) -> usize {
        self.seen.len()
    }

    pub(in crate::flows) fn get(&self, place: usize) -> Option<&Candidate> {
        self.seen.get(place).map(|seen| &seen.candidate)
    }

    pub(in crate::flows) fn place(&self, node: NodeId) -> Option<usize> {
        self.iter().position(|candidate| candidate.node == node)
    }

    /// The candidate that is dialled, attached, or waited for.
    pub(in crate::flows) fn current(&self) -> Option<&Candidate> {
        self.get(self.current?)
    }

    pub(in crate::flows) const fn current_place(&self) -> Option<usize> {
        self.current
    }

    pub(in crate::flows) const fn set_current(&mut self, place: usize) {
        self.current = Some(place);
    }

    /// The current candidate failed this flow: the others come first now.
    pub(in crate::flows) fn penalise_current(&mut self, failures: u32) {
        if let Some(seen) = self.current.and_then(|place| self.seen.get_mut(place)) {
            seen.failures += failures;
        }
    }

    /// The current candidate has served for a while: what it did before is forgiven.
    pub(in crate::flows) fn forgive_current(&mut self) {
        if let Some(seen) = self.current.and_then(|place| self.seen.get_mut(place)) {
            seen.failures = 0;
        }
    }

    /// What `node` did to this flow while it was stopped or cut off is forgiven.
    pub(in crate::flows) fn forgive(&mut self, node: NodeId) {
        let seen = self.seen.iter_mut().filter(|seen| seen.candidate.node == node);
        seen.for_each(|seen| seen.failures = 0);
    }

    /// How often the most promising candidate has failed this flow: whoever failed less looks dead.
    pub(in crate::flows) fn failures(&self, standing: impl Fn(NodeId) -> Standing) -> u32 {
        let chosen = self.choose(standing).and_then(|place| self.seen.get(place));
        chosen.map_or(0, |seen| seen.failures)
    }

    /// Whether `place` has failed this flow.
    pub(in crate::flows) fn has_failed(&self, place: usize) -> bool {
        self.seen.get(place).is_some_and(|seen| seen.failures > 0)
    }

    /// The most promising candidate: alive before doubtful, then the one that failed least, then the record's order.
    pub(in crate::flows) fn choose(&self, standing: impl Fn(NodeId) -> Standing) -> Option<usize> {
        let rank = |(place, seen): (usize, &Seen)| {
            let standing = standing(seen.candidate.node);
            (standing >= Standing::Suspect, seen.failures, standing, place)
        };
        self.seen.iter().enumerate().map(rank).min().map(|(.., place)| place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(n: u8) -> NodeId {
        NodeId::from_bytes([n; 32])
    }

    fn hop(nodes: &[u8]) -> Candidates {
        let candidate = |&n: &u8| Candidate { node: node(n), name: String::new(), addresses: Vec::new() };
        Candidates::new(nodes.iter().map(candidate).collect())
    }

    #[test]
    fn the_most_promising_first() {
        let mut hop = hop(&[1, 2, 3]);
        assert_eq!(hop.choose(|_| Standing::Up), Some(0));
        let first_is_suspect = |n| if n == node(1) { Standing::Suspect } else { Standing::Absent };
        assert_eq!(hop.choose(first_is_suspect), Some(1), "an absent one before a suspect");
        hop.set_current(1);
        hop.penalise_current(1);
        assert_eq!(hop.choose(first_is_suspect), Some(2));
    }

    #[test]
    fn what_was_seen_survives_a_new_record() {
        let mut hop = hop(&[1, 2]);
        hop.set_current(0);
        hop.penalise_current(1);
        hop.set_current(1);
        let next = |n: u8| Candidate { node: node(n), name: String::new(), addresses: Vec::new() };
        hop.replace(vec![next(2), next(1), next(3)]);
        assert_eq!(hop.current_place(), Some(0));
        assert_eq!(hop.choose(|_| Standing::Up), Some(0));
        assert!(hop.has_failed(1) && !hop.has_failed(2));
    }
}
