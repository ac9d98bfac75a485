//! Since when the other end of a flow may be gone.
//!
//! An origin is *alone* from the moment that its next hop is lost, or somebody further on reaches nobody, until something of
//! the target's comes. Whoever comes after the origin is alone, an *orphan*, from the moment that its prev is lost, until
//! another attaches that is no orphan itself; it tells next of each change, once.

use crate::time::Time;

/// See the module's documentation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::flows) struct Alone {
    since: Option<Time>,
    /// What next was told last.
    told: bool,
}

impl Alone {
    pub(in crate::flows) const fn since(&self) -> Option<Time> {
        self.since
    }

    /// The other end, or the way to it, may be lost. If it was before, it has been since then.
    pub(in crate::flows) fn lost(&mut self, now: Time) {
        self.since.get_or_insert(now);
    }

    pub(in crate::flows) const fn found(&mut self) {
        self.since = None;
    }

    /// What prev says of itself holds for whoever comes after it.
    pub(in crate::flows) fn as_prev(&mut self, is_orphan: bool, now: Time) {
        if is_orphan {
            self.lost(now);
        } else {
            self.found();
        }
    }

    /// What next is to hear, if it does not know.
    pub(in crate::flows) fn take_events(&mut self) -> Option<bool> {
        let is_orphan = self.since.is_some();
        (std::mem::replace(&mut self.told, is_orphan) != is_orphan).then_some(is_orphan)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_loss_counts_until_the_other_end_is_found() {
        let at = Time::from_micros;
        let mut alone = Alone::default();
        alone.lost(at(1));
        alone.as_prev(true, at(2));
        assert_eq!(alone.since(), Some(at(1)));
        alone.as_prev(false, at(3));
        assert_eq!(alone.since(), None);
        alone.as_prev(true, at(4));
        assert_eq!(alone.since(), Some(at(4)));
        alone.found();
        assert_eq!(alone.since(), None);
    }

    #[test]
    fn next_is_told_each_change_once() {
        let mut alone = Alone::default();
        assert_eq!(alone.take_events(), None);
        alone.lost(Time::ZERO);
        assert_eq!((alone.take_events(), alone.take_events()), (Some(true), None));
        alone.found();
        alone.lost(Time::ZERO);
        assert_eq!(alone.take_events(), None, "it was back before anybody heard");
        alone.found();
        assert_eq!((alone.take_events(), alone.take_events()), (Some(false), None));
    }
}
