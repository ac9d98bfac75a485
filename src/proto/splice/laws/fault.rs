//! The kinds of faults, and which of them a world has.

use super::dice::Dice;

/// A kind of fault.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    Crash,
    Freeze,
    Suspect,
    Flap,
    Part,
    DeadEnd,
    Delay,
    Rest,
    Doubt,
    Fill,
    Replay,
}

impl Fault {
    /// All kinds, the usual ones more often.
    const ALL: [Self; 16] = [
        Self::Crash,
        Self::Crash,
        Self::Freeze,
        Self::Suspect,
        Self::Suspect,
        Self::Suspect,
        Self::Flap,
        Self::Flap,
        Self::Part,
        Self::DeadEnd,
        Self::Delay,
        Self::Delay,
        Self::Rest,
        Self::Doubt,
        Self::Fill,
        Self::Replay,
    ];

    /// The faults of one world: all kinds, or only a few, which then meet each other more often (swarm testing: Groce
    /// et al., ISSTA 2012).
    pub(super) fn some(dice: &mut Dice) -> Vec<Self> {
        if dice.one_in(2) {
            return Self::ALL.to_vec();
        }
        (0..dice.within(1, 4)).map(|_| dice.pick(&Self::ALL)).collect()
    }
}
