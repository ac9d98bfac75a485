//! How often others may ask something of a node for one flow.

use super::dials::DIALS;
use crate::allowance::{Allowance, Spent};
use crate::epoch::MAX_HOPS;
use crate::time::Time;

/// How often one neighbour may ask for something that costs work (records, repairs, probes) on behalf of one flow: far more
/// than anybody does whose relays all fail.
const QUESTIONS: Allowance = Allowance { burst: 8192, per_second: 512 };
/// How often one flow may be attached anew at one node: as often as everybody before it may dial, for whoever is dialled anew
/// dials anew.
pub(in crate::flows) const ATTACHES: Allowance =
    Allowance { burst: DIALS.burst * DIALERS, per_second: DIALS.per_second * DIALERS };
/// Nodes before the last of the longest chain.
const DIALERS: u32 = 9;
const _: () = assert!(DIALERS as usize == MAX_HOPS + 1, "the origin and the relays");

/// What is used up of them.
#[derive(Debug, Default)]
pub(in crate::flows) struct Allowances {
    questions: Spent,
    attaches: Spent,
}

impl Allowances {
    /// Somebody asks; whether it may.
    pub(in crate::flows) fn ask(&mut self, now: Time) -> bool {
        self.questions.spend(QUESTIONS, now)
    }

    /// Somebody attaches; whether it may.
    pub(in crate::flows) fn attach(&mut self, now: Time) -> bool {
        self.attaches.spend(ATTACHES, now)
    }
}
