//! The next hop of a flow, as a state machine: whether somebody serves it, and if not, what is waited for.
//!
//! | from | event | to |
//! |---|---|---|
//! | any without a leg | [`Dialling`](Event::Dialling) | `Idle` |
//! | any without a leg | [`LegOpened`](Event::LegOpened) | `Attaching` |
//! | any without a leg | [`NoLink`](Event::NoLink) | `WaitingForLink` |
//! | any without a leg | [`LinkBusy`](Event::LinkBusy) | `WaitingForTurn` |
//! | any without a leg | [`TooSoon`](Event::TooSoon) | `BackingOff` |
//! | `WaitingForLink` | [`SecondBest`](Event::SecondBest) | `WaitingForLink`, for no longer than that |
//! | `WaitingForLink` | [`NewCandidates`](Event::NewCandidates) | `Idle` |
//! | `Attaching`, `Closing` | [`Answered`](Event::Answered) | `Serving`, as doubtful as before |
//! | `Attaching`, `Closing`, `Serving` | [`ClosedUnexplained`](Event::ClosedUnexplained) | `Closing`, as doubtful as before |
//! | `Attaching`, `Closing`, `Serving` | [`Doubted`](Event::Doubted) | the same, doubted until the event's time; a doubt that it already had keeps its own |
//! | `Attaching`, `Closing`, `Serving` | [`DoubtOver`](Event::DoubtOver) | the same, not doubted |
//! | `Attaching`, `Closing`, `Serving` | [`LegLost`](Event::LegLost) | `Idle` |
//!
//! Whatever is not in the table changes nothing. When a state's time is up, [`Next::step`] says what is to be done.
//!
//! A flow is `Idle` before its first dial, and otherwise only within one event. The [`Splice`](crate::splice::Splice) knows which leg
//! stands; the [`Candidates`](super::candidates::Candidates) know whom to dial.

use crate::time::Time;

/// See the module's documentation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::flows) enum Next {
    /// Nobody is dialled or waited for.
    #[default]
    Idle,
    /// No candidate can be reached: the first whose link comes up is dialled.
    WaitingForLink { until: Time },
    /// Too many flows attach over the link: the flow is told when it is its turn.
    WaitingForTurn { until: Time },
    /// All candidates have failed, or it was dialled too often lately.
    BackingOff { until: Time },
    /// A leg was opened, and is not answered.
    Attaching { until: Time, doubted_until: Option<Time> },
    /// Next has closed its leg, and is about to say why.
    Closing { until: Time, doubted_until: Option<Time> },
    /// Next has answered.
    Serving { doubted_until: Option<Time> },
}

/// What happens to a next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::flows) enum Event {
    /// It is looked whom to dial.
    Dialling,
    /// Somebody is dialled, and has to answer until then.
    LegOpened { until: Time },
    /// No candidate has a link.
    NoLink { until: Time },
    /// The candidate's link takes no more attaches for now.
    LinkBusy { until: Time },
    /// Nobody is to be dialled before then.
    TooSoon { until: Time },
    /// Another candidate than the planned one has a link.
    SecondBest { until: Time },
    /// The hop may be served by others.
    NewCandidates,
    /// The leg was answered.
    Answered,
    /// The leg was closed with a code that is explained by a message, which should be here by then.
    ClosedUnexplained { until: Time },
    /// Next is suspect, and there is nobody better.
    Doubted { until: Time },
    /// That was long enough.
    DoubtOver,
    /// The leg is no more, or was left.
    LegLost,
}

/// What is to be done when a state ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::flows) enum Step {
    Dial,
    /// Next did not answer, or did not say why it closed its leg.
    Leave,
}

impl Next {
    /// What it is after `event`.
    #[must_use]
    pub(in crate::flows) fn after(self, event: Event) -> Self {
        if let Some((leg, doubted_until)) = self.leg() {
            return match event {
                Event::Answered if leg != Leg::Answered => Self::Serving { doubted_until },
                Event::ClosedUnexplained { until } => Self::Closing { until, doubted_until },
                Event::Doubted { until } => self.doubted(doubted_until.or(Some(until))),
                Event::DoubtOver => self.doubted(None),
                Event::LegLost => Self::Idle,
                Event::Answered
                | Event::Dialling
                | Event::LegOpened { .. }
                | Event::NoLink { .. }
                | Event::LinkBusy { .. }
                | Event::TooSoon { .. }
                | Event::SecondBest { .. }
                | Event::NewCandidates => self,
            };
        }
        match (event, self) {
            (Event::Dialling, _) => Self::Idle,
            (Event::LegOpened { until }, _) => Self::Attaching { until, doubted_until: None },
            (Event::NoLink { until }, _) => Self::WaitingForLink { until },
            (Event::LinkBusy { until }, _) => Self::WaitingForTurn { until },
            (Event::TooSoon { until }, _) => Self::BackingOff { until },
            (Event::SecondBest { until: at }, Self::WaitingForLink { until }) => {
                Self::WaitingForLink { until: until.min(at) }
            }
            (Event::NewCandidates, Self::WaitingForLink { .. }) => Self::Idle,
            (
                Event::SecondBest { .. }
                | Event::NewCandidates
                | Event::Answered
                | Event::ClosedUnexplained { .. }
                | Event::Doubted { .. }
                | Event::DoubtOver
                | Event::LegLost,
                _,
            ) => self,
        }
    }

    const fn leg(self) -> Option<(Leg, Option<Time>)> {
        match self {
            Self::Idle
            | Self::WaitingForLink { .. }
            | Self::WaitingForTurn { .. }
            | Self::BackingOff { .. } => None,
            Self::Attaching { doubted_until, .. } | Self::Closing { doubted_until, .. } => {
                Some((Leg::Unanswered, doubted_until))
            }
            Self::Serving { doubted_until } => Some((Leg::Answered, doubted_until)),
        }
    }

    fn doubted(mut self, doubt: Option<Time>) -> Self {
        if let Self::Attaching { doubted_until, .. }
        | Self::Closing { doubted_until, .. }
        | Self::Serving { doubted_until } = &mut self
        {
            *doubted_until = doubt;
        }
        self
    }

    /// When the state ends of itself.
    pub(in crate::flows) const fn until(self) -> Option<Time> {
        match self {
            Self::Idle | Self::Serving { .. } => None,
            Self::WaitingForLink { until }
            | Self::WaitingForTurn { until }
            | Self::BackingOff { until }
            | Self::Attaching { until, .. }
            | Self::Closing { until, .. } => Some(until),
        }
    }

    /// Until when next is kept though it is suspect.
    pub(in crate::flows) const fn doubted_until(self) -> Option<Time> {
        match self.leg() {
            Some((_, doubted_until)) => doubted_until,
            None => None,
        }
    }

    /// What is to be done when the state ends of itself.
    pub(in crate::flows) const fn step(self) -> Step {
        if self.has_leg() { Step::Leave } else { Step::Dial }
    }

    /// Whether a leg stands.
    pub(in crate::flows) const fn has_leg(self) -> bool {
        self.leg().is_some()
    }

    pub(in crate::flows) const fn waits_for_link(self) -> bool {
        matches!(self, Self::WaitingForLink { .. })
    }
}

/// How far a leg is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Leg {
    Unanswered,
    Answered,
}

#[cfg(test)]
mod tests {
    use super::*;

    const T1: Time = Time::from_micros(1);
    const T2: Time = Time::from_micros(2);
    const T3: Time = Time::from_micros(3);

    const WITHOUT_LEG: [Next; 4] = [
        Next::Idle,
        Next::WaitingForLink { until: T2 },
        Next::WaitingForTurn { until: T2 },
        Next::BackingOff { until: T2 },
    ];

    fn with_leg(doubted_until: Option<Time>) -> [Next; 3] {
        [
            Next::Attaching { until: T2, doubted_until },
            Next::Closing { until: T2, doubted_until },
            Next::Serving { doubted_until },
        ]
    }

    #[track_caller]
    fn all_become(from: impl IntoIterator<Item = Next>, event: Event, to: Next) {
        for from in from {
            assert_eq!(from.after(event), to, "{from:?} after {event:?}");
        }
    }

    #[track_caller]
    fn none_changes(from: impl IntoIterator<Item = Next>, events: &[Event]) {
        for from in from {
            for event in events {
                assert_eq!(from.after(*event), from, "{from:?} after {event:?}");
            }
        }
    }

    #[test]
    fn to_look_whom_to_dial_ends_every_wait() {
        all_become(WITHOUT_LEG, Event::Dialling, Next::Idle);
    }

    #[test]
    fn an_opened_leg_is_to_be_answered() {
        let attaching = Next::Attaching { until: T3, doubted_until: None };
        all_become(WITHOUT_LEG, Event::LegOpened { until: T3 }, attaching);
        assert_eq!((attaching.until(), attaching.step()), (Some(T3), Step::Leave));
    }

    #[test]
    fn without_a_link_one_is_waited_for() {
        let waiting = Next::WaitingForLink { until: T3 };
        all_become(WITHOUT_LEG, Event::NoLink { until: T3 }, waiting);
        assert_eq!((waiting.until(), waiting.step()), (Some(T3), Step::Dial));
        assert!(waiting.waits_for_link());
    }

    #[test]
    fn over_a_busy_link_it_waits_for_its_turn() {
        let waiting = Next::WaitingForTurn { until: T3 };
        all_become(WITHOUT_LEG, Event::LinkBusy { until: T3 }, waiting);
        assert_eq!((waiting.until(), waiting.step()), (Some(T3), Step::Dial));
    }

    #[test]
    fn what_comes_too_soon_is_tried_later() {
        let waiting = Next::BackingOff { until: T3 };
        all_become(WITHOUT_LEG, Event::TooSoon { until: T3 }, waiting);
        assert_eq!((waiting.until(), waiting.step()), (Some(T3), Step::Dial));
    }

    #[test]
    fn the_second_best_shortens_a_wait_for_a_link_and_no_other() {
        let waiting = Next::WaitingForLink { until: T2 };
        assert_eq!(waiting.after(Event::SecondBest { until: T1 }), Next::WaitingForLink { until: T1 });
        assert_eq!(waiting.after(Event::SecondBest { until: T3 }), waiting);
        let others = [Next::Idle, Next::WaitingForTurn { until: T2 }, Next::BackingOff { until: T2 }];
        none_changes(others, &[Event::SecondBest { until: T1 }]);
    }

    #[test]
    fn other_candidates_end_a_wait_for_a_link_and_no_other() {
        all_become([Next::WaitingForLink { until: T2 }], Event::NewCandidates, Next::Idle);
        let others = [Next::Idle, Next::WaitingForTurn { until: T2 }, Next::BackingOff { until: T2 }];
        none_changes(others, &[Event::NewCandidates]);
    }

    #[test]
    fn an_answer_makes_next_serve_and_ends_no_doubt() {
        for doubted_until in [None, Some(T3)] {
            let serving = Next::Serving { doubted_until };
            all_become(with_leg(doubted_until), Event::Answered, serving);
            assert_eq!((serving.until(), serving.doubted_until()), (None, doubted_until));
        }
    }

    #[test]
    fn a_closed_leg_is_to_be_explained() {
        for doubted_until in [None, Some(T3)] {
            let closing = Next::Closing { until: T3, doubted_until };
            all_become(with_leg(doubted_until), Event::ClosedUnexplained { until: T3 }, closing);
            assert_eq!((closing.until(), closing.step()), (Some(T3), Step::Leave));
        }
    }

    #[test]
    fn a_doubt_begins_once_and_ends() {
        let steps = with_leg(None).into_iter().zip(with_leg(Some(T2)));
        for (trusted, doubted) in steps {
            assert_eq!(trusted.after(Event::Doubted { until: T2 }), doubted);
            assert_eq!(doubted.after(Event::Doubted { until: T3 }), doubted);
            assert_eq!((doubted.doubted_until(), doubted.until()), (Some(T2), trusted.until()));
            assert_eq!(doubted.after(Event::DoubtOver), trusted);
        }
    }

    #[test]
    fn a_lost_leg_leaves_nobody_and_no_doubt() {
        all_become(with_leg(Some(T2)), Event::LegLost, Next::Idle);
        let again = Next::Idle.after(Event::LegOpened { until: T3 });
        assert_eq!(again.doubted_until(), None);
    }

    #[test]
    fn what_is_not_in_the_table_changes_nothing() {
        none_changes(
            with_leg(None).into_iter().chain(with_leg(Some(T1))),
            &[
                Event::Dialling,
                Event::LegOpened { until: T3 },
                Event::NoLink { until: T3 },
                Event::LinkBusy { until: T3 },
                Event::TooSoon { until: T3 },
                Event::SecondBest { until: T1 },
                Event::NewCandidates,
            ],
        );
        none_changes(
            WITHOUT_LEG,
            &[
                Event::Answered,
                Event::ClosedUnexplained { until: T3 },
                Event::Doubted { until: T3 },
                Event::DoubtOver,
                Event::LegLost,
            ],
        );
    }

    #[test]
    fn who_has_a_leg_is_told_apart() {
        assert!(WITHOUT_LEG.iter().all(|next| !next.has_leg()));
        assert!(with_leg(None).iter().all(|next| next.has_leg()));
    }
}
