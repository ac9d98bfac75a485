//! What a flow waits for, and until when.

use crate::time::Time;

/// Why a flow's node wakes. Several that are due at once are served in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timer {
    /// An origin that has everything leaves.
    Leave,
    /// The other end, or the way to it, has been lost for too long.
    Alone,
    /// The state of the next hop ends: see [`Next`](super::next::Next).
    Next,
    /// A suspect next is left although there is nobody better.
    Doubt,
    /// Another route may be asked for again.
    Route,
    /// Links to the next hop's candidates are asked for again.
    Upkeep,
    /// Another candidate may be asked for again.
    Backup,
    /// An end looks whether its bytes arrive.
    Look,
    /// A sink's ack is due.
    Ack,
}

impl Timer {
    /// All, in the order in which they are served.
    pub const ALL: [Self; 9] = [
        Self::Leave,
        Self::Alone,
        Self::Next,
        Self::Doubt,
        Self::Route,
        Self::Upkeep,
        Self::Backup,
        Self::Look,
        Self::Ack,
    ];
}

/// At most one deadline for each timer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::flows) struct TimerTable {
    until: [Option<Time>; Timer::ALL.len()],
}

impl TimerTable {
    pub(in crate::flows) fn set(&mut self, timer: Timer, until: Option<Time>) {
        if let Some(slot) = self.until.get_mut(timer as usize) {
            *slot = until;
        }
    }

    pub(in crate::flows) fn get(&self, timer: Timer) -> Option<Time> {
        self.until.get(timer as usize).copied().flatten()
    }

    pub(in crate::flows) fn is_due(&self, timer: Timer, now: Time) -> bool {
        self.get(timer).is_some_and(|until| until <= now)
    }

    /// The earliest deadline, and whose it is.
    pub(in crate::flows) fn next_timeout(&self) -> Option<(Time, Timer)> {
        let set = Timer::ALL.into_iter().filter_map(|timer| Some((self.get(timer)?, timer)));
        set.min_by_key(|(until, _)| *until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_deadline_says_whose_it_is() {
        let at = Time::from_micros;
        let mut table = TimerTable::default();
        assert_eq!(table.next_timeout(), None);
        table.set(Timer::Ack, Some(at(3)));
        table.set(Timer::Next, Some(at(5)));
        assert_eq!(table.next_timeout(), Some((at(3), Timer::Ack)));
        assert!(table.is_due(Timer::Ack, at(3)) && !table.is_due(Timer::Next, at(4)));
        table.set(Timer::Leave, Some(at(3)));
        assert_eq!(table.next_timeout(), Some((at(3), Timer::Leave)), "the one that is served first");
        table.set(Timer::Leave, None);
        table.set(Timer::Ack, None);
        assert_eq!(table.next_timeout(), Some((at(5), Timer::Next)));
    }

    #[test]
    fn every_timer_has_a_slot_of_its_own() {
        for timer in Timer::ALL {
            let mut table = TimerTable::default();
            table.set(timer, Some(Time::ZERO));
            let set: Vec<Timer> =
                Timer::ALL.into_iter().filter(|other| table.get(*other).is_some()).collect();
            assert_eq!(set, [timer]);
        }
    }
}
