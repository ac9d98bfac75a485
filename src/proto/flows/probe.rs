//! Whether a flow's bytes arrive, as one of its ends can tell: the judge of *gray* failures.
//!
//! A relay may heartbeat, answer every control message, and yet carry nothing. No link's detector sees that; only the ends
//! of a flow can. Each of them watches the bytes that it sends: if some are outstanding and no ack has come for longer
//! than an ack ever takes, something is wrong, or the reader at the other end is slow. So the origin asks the target, and
//! the target tells the origin unasked: up to where has what come, and does your application have some of it yet to take?
//!
//! Two answers, half an ack timeout apart, convict the chain: between them nothing came, though something should have, and no
//! reader kept it from coming. So does no answer at all, a few times. A slow reader is never convicted (what it has not
//! taken yet is said), nor is a slow flow: whatever comes, however little, begins the count anew, and so does whatever comes
//! one relay further. A slow link isn't either. Where losses are usual, the answers are as far apart as it takes to make up for
//! them; and where the bytes of others go on over the link at which these stop, these only wait for their turn, for a while.
//!
//! Nothing storms: while nothing changes, questions get rarer, up to [`LONGEST`]; and each verdict that brought nothing
//! doubles the ack timeout before the next.
//!
//! A progress watch knows neither legs nor relays, and not what follows from its verdict.

use super::front::Front;
use crate::backoff::Pauses;
use crate::detector::estimate::Smoothed;
use crate::frame::Progress;
use crate::planted::{self, Law};
use crate::splice::Direction;
use crate::time::Time;
use std::time::Duration;

/// The ack timeout while nothing is known of how long acks take.
const UNKNOWN: Duration = Duration::from_secs(1);
/// The least ack timeout, however soon acks come: loss and busy machines delay them now and then.
const SHORTEST: Duration = Duration::from_millis(100);
/// The most, and the longest pause between two questions.
const LONGEST: Duration = Duration::from_secs(4);
/// The ack timeout is so many times what an ack rarely exceeds.
const ACK_TIMEOUT_FACTOR: u32 = 3;
/// Probes in a row that may go unanswered, each waited for twice as long as the one before.
const MAX_UNANSWERED: u32 = 3;
/// How often the ack timeout and pauses double at most.
const MAX_DOUBLINGS: u32 = 6;

/// How far a flow has come at the end that watches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Marks {
    /// What this end sent, and up to where it was acked.
    pub(super) sent: u64,
    pub(super) acked: u64,
    /// What came here.
    pub(super) received: u64,
    /// Whether the application here has yet to take some of that.
    pub(super) reader_blocked: bool,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing yet.
    Wait,
    /// The origin: send a probe of this number. The target: tell the origin how far it is.
    Speak(u32),
    /// The origin: nobody answers; go over another chain.
    Leave,
}

/// That one direction was found not to move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Standstill {
    since: Time,
    /// Where it stood: at this end, and at the front.
    at: (u64, Option<(usize, u64)>),
}

impl Standstill {
    /// How long it has to last before it is a fault.
    fn bound(front: Option<Front>, ack_timeout: Duration) -> Duration {
        match front {
            Some(front) if front.quiet < ack_timeout / 2 => LONGEST,
            Some(front) => (ack_timeout / 2).max(front.repair).min(LONGEST),
            None => ack_timeout / 2,
        }
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct ProgressWatch {
    /// Whether this end asks and decides; the other one tells.
    decides: bool,
    marks: Marks,
    /// Since when bytes have been outstanding without an ack.
    waiting_since: Option<Time>,
    /// When something came last.
    received_at: Time,
    /// How long acks take, and the one that is being timed: the offset it has to reach, and since when.
    ack_time: Option<Smoothed>,
    timed: Option<(u64, Time)>,
    due: Option<Time>,
    /// Questions, when the last one was asked, and how many of the last ones had no answer, or none that called for action.
    number: u32,
    asked_at: Time,
    unanswered: u32,
    idle: u32,
    standstills: [Option<Standstill>; 2],
    /// Whether it is to be shown that the other end is there at all, though no bytes may be outstanding.
    seeks: bool,
    /// Verdicts in a row that brought nothing, and where the flow stood then.
    verdicts: u32,
    convicted_at: (u64, u64),
}

impl ProgressWatch {
    /// Of a flow of which nothing was sent. The origin decides.
    pub(super) fn new(decides: bool) -> Self {
        Self {
            decides,
            marks: Marks::default(),
            waiting_since: None,
            received_at: Time::ZERO,
            ack_time: None,
            timed: None,
            due: None,
            number: 0,
            asked_at: Time::ZERO,
            unanswered: 0,
            idle: 0,
            standstills: [None; 2],
            seeks: false,
            verdicts: 0,
            convicted_at: (0, 0),
        }
    }

    /// When to [poll](Self::poll).
    pub(super) const fn due(&self) -> Option<Time> {
        self.due
    }

    /// The flow may have come further here.
    pub(super) fn note(&mut self, marks: Marks, now: Time) {
        let has_come = marks.acked > self.marks.acked;
        let (acked, sent) = (marks.acked, marks.sent);
        if marks.received > self.marks.received {
            self.received_at = now;
        }
        self.seeks &= !has_come && marks.received == self.marks.received;
        self.marks = marks;
        if let Some((_, since)) = self.timed.filter(|(offset, _)| *offset <= acked) {
            self.learn(now.since(since));
            self.timed = None;
        }
        // In a flow that trickles the next ack is long in coming, though the last was soon there.
        let waited = self.waiting_since.filter(|_| has_come).map(|since| now.since(since));
        if let Some(waited) = waited.filter(|waited| self.ack_time.is_some_and(|usual| *waited > usual.mean))
        {
            self.learn(waited);
        }
        let begins = has_come || self.waiting_since.is_none();
        if acked >= sent && !self.seeks {
            self.waiting_since = None;
        } else if begins {
            self.waiting_since = Some(now);
            // While the other end is only looked for, no ack is to come that could be timed.
            self.timed = self.timed.or((acked < sent).then_some((sent, now)));
        }
        if has_come {
            (self.idle, self.unanswered) = (0, 0);
        }
        if let Some(since) = self.waiting_since.filter(|_| begins || self.due.is_none()) {
            let until = since + self.ack_timeout();
            // A deadline that comes too early is put off when it comes.
            self.due = Some(self.due.map_or(until, |due| due.min(until)));
        }
    }

    /// It is not known whether the other end is there: it is asked until something comes from it.
    pub(super) fn seek(&mut self, now: Time) {
        self.seeks = true;
        self.note(self.marks, now);
    }

    /// Whether nothing has come from the other end since [`ProgressWatch::seek`].
    pub(super) const fn is_seeking(&self) -> bool {
        self.seeks
    }

    /// An ack took so long.
    fn learn(&mut self, sample: Duration) {
        self.ack_time = Some(self.ack_time.map_or_else(|| Smoothed::first(sample), |all| all.with(sample)));
    }

    /// The flow goes over other relays than before, or is about to: whatever was seen tells nothing of them.
    pub(super) fn restart(&mut self, now: Time) {
        self.waiting_since = self.waiting_since.map(|_| now);
        (self.timed, self.standstills) = (None, [None; 2]);
        (self.unanswered, self.idle) = (0, 0);
        self.due = self.due.map(|_| now + self.ack_timeout());
    }

    /// How long an ack may take before something is wrong.
    fn ack_timeout(&self) -> Duration {
        let usual = self.ack_time.map_or(UNKNOWN, |times| times.bound() * ACK_TIMEOUT_FACTOR);
        let moved = (self.marks.acked, self.marks.received);
        let verdicts = if self.verdicts > 0 && moved == self.convicted_at { self.verdicts } else { 0 };
        doubled(usual.clamp(SHORTEST, LONGEST), LONGEST * 2, verdicts)
    }

    /// What is due.
    pub(super) fn poll(&mut self, now: Time) -> Step {
        if self.due.is_none_or(|due| due > now) {
            return Step::Wait;
        }
        let ack_timeout = self.ack_timeout();
        let overdue = self.waiting_since.map(|since| since + ack_timeout);
        let suspicious = self.standstills.iter().any(Option::is_some);
        if !suspicious && overdue.is_none_or(|overdue| overdue > now) {
            self.due = overdue;
            return Step::Wait;
        }
        if self.decides && self.unanswered >= MAX_UNANSWERED {
            self.convict(now);
            return Step::Leave;
        }
        // 0 is the number of what the target tells unasked.
        (self.number, self.asked_at) = (self.number.wrapping_add(1).max(1), now);
        let pause = if self.decides { self.unanswered } else { self.idle };
        self.unanswered = self.unanswered.saturating_add(1);
        self.idle = self.idle.saturating_add(1);
        self.due = Some(now + doubled(ack_timeout, LONGEST, pause));
        Step::Speak(self.number)
    }

    /// The target says how far it is, and where its bytes stop on each direction's way; the direction that is found not to move
    /// though nobody keeps it from moving.
    pub(super) fn hear(
        &mut self,
        progress: &Progress,
        fronts: [Option<Front>; 2],
        now: Time,
    ) -> Option<Direction> {
        let is_answer = progress.probe == self.number && self.number > 0;
        // An answer to an older question tells of an older moment.
        if progress.probe != 0 && !is_answer {
            return None;
        }
        if is_answer {
            self.unanswered = 0;
        }
        // Before the deadlines are looked at, as they may go with this.
        self.seeks = false;
        self.note(self.marks, now);
        // An answer tells of a moment after its question; what was told unasked may be old.
        let told_at = if is_answer { self.asked_at } else { Time::ZERO };
        let ack_timeout = self.ack_timeout();
        let mut convicted = None;
        let mut again: Option<Time> = None;
        let stuck = self.stuck(progress, ack_timeout, now);
        for ((known, front), (direction, mark)) in self.standstills.iter_mut().zip(fronts).zip(stuck) {
            let at = mark.map(|mark| (mark, front.map(|front| (front.place, front.at))));
            let since = known.filter(|known| Some(known.at) == at).map_or(now, |known| known.since);
            *known = at.map(|at| Standstill { since, at });
            if known.is_none() {
                continue;
            }
            let bound = Standstill::bound(front, ack_timeout);
            if told_at.since(since) >= bound {
                convicted = convicted.or(Some(direction));
            }
            // Where others go on, that may end soon.
            let soon = doubled(ack_timeout / 2, LONGEST, self.idle.saturating_sub(1));
            let next = if bound == LONGEST { now + soon } else { since + bound };
            again = Some(again.map_or(next, |again| again.min(next)).max(now + ack_timeout / 2));
        }
        if convicted.is_some() {
            self.convict(now);
        } else if let Some(again) = again {
            // What looks bad is looked at again soon.
            self.due = Some(self.due.filter(|_| !is_answer).map_or(again, |due| due.min(again)));
        } else if is_answer {
            self.due = self.waiting_since.map(|_| now + doubled(ack_timeout, LONGEST, self.idle));
        }
        convicted
    }

    /// Up to where each direction has come at this end, if it should have come further by now.
    fn stuck(&self, progress: &Progress, ack_timeout: Duration, now: Time) -> [(Direction, Option<u64>); 2] {
        let Marks { sent, acked, received, reader_blocked } = self.marks;
        let blocked = |blocked: bool| blocked && !planted::broken(Law::ReaderHeeded);
        let overdue = self.waiting_since.is_some_and(|since| now.since(since) >= ack_timeout);
        let forward = overdue && acked < sent && !blocked(progress.reader_blocked);
        // Bytes that this end lacks may just be on their way while others arrive.
        let is_quiet = now.since(self.received_at) >= ack_timeout / 2;
        let backward = is_quiet && progress.target.backward.received > received && !blocked(reader_blocked);
        [(Direction::Forward, forward.then_some(acked)), (Direction::Backward, backward.then_some(received))]
    }

    fn convict(&mut self, now: Time) {
        let at = (self.marks.acked, self.marks.received);
        self.verdicts = if at == self.convicted_at { self.verdicts.saturating_add(1) } else { 1 };
        self.convicted_at = at;
        self.restart(now);
    }
}

fn doubled(pause: Duration, longest: Duration, times: u32) -> Duration {
    Pauses::doubling(pause, longest).after(times.min(MAX_DOUBLINGS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Passage, Way, Waypoint};

    const MS: Duration = Duration::from_millis(1);
    const START: Time = Time::from_micros(1_000_000_000);

    /// An origin whose flow has had its acks after 5 ms until now.
    struct Origin {
        watch: ProgressWatch,
        marks: Marks,
        now: Time,
        asked: Vec<(Duration, u32)>,
        left: Vec<Duration>,
    }

    impl Origin {
        fn new() -> Self {
            let marks = Marks::default();
            let mut origin = Self {
                watch: ProgressWatch::new(true),
                marks,
                now: START,
                asked: Vec::new(),
                left: Vec::new(),
            };
            for _ in 0..20 {
                origin.send(1000);
                origin.now = origin.now + MS * 5;
                origin.ack(1000);
            }
            origin
        }

        fn send(&mut self, bytes: u64) {
            self.marks.sent += bytes;
            self.watch.note(self.marks, self.now);
        }

        fn ack(&mut self, bytes: u64) {
            self.marks.acked += bytes;
            self.watch.note(self.marks, self.now);
        }

        fn hear(&mut self, progress: &Progress) -> Option<Direction> {
            let passage = |received| Passage { received, written: received, ..Passage::default() };
            let (sent, received) = (self.marks.sent, self.marks.received);
            let here = Waypoint { forward: passage(sent), backward: passage(received) };
            self.watch.hear(progress, Front::both(&here, progress), self.now)
        }

        /// Lets time pass; `answer` is what the target says, if anything.
        fn pass(&mut self, time: Duration, answer: impl Fn(u32) -> Option<Progress>) -> Option<Direction> {
            let (begin, end) = (self.now, self.now + time);
            while let Some(due) = self.watch.due().filter(|due| *due <= end) {
                self.now = self.now.max(due);
                match self.watch.poll(self.now) {
                    Step::Wait => {}
                    Step::Leave => self.left.push(self.now.since(begin)),
                    Step::Speak(number) => {
                        self.asked.push((self.now.since(begin), number));
                        let heard = answer(number).and_then(|progress| self.hear(&progress));
                        if heard.is_some() {
                            return heard;
                        }
                    }
                }
                assert!(self.watch.due().is_none_or(|due| due > self.now), "what was due is done");
            }
            self.now = end;
            None
        }
    }

    fn progress(probe: u32, received: u64, reader_blocked: bool) -> Progress {
        let forward = Passage { received, written: received, ..Passage::default() };
        let target = Waypoint { forward, backward: Passage::default() };
        Progress { probe, reader_blocked, target, relays: Vec::new() }
    }

    /// The same of a target that has sent ten bytes.
    fn behind(probe: u32) -> Progress {
        let mut behind = progress(probe, 20_000, false);
        (behind.target.backward.received, behind.target.backward.written) = (10, 10);
        behind
    }

    #[test]
    fn bytes_that_do_not_arrive_convict_the_chain_in_two_answers() {
        let mut origin = Origin::new();
        origin.send(1000);
        let heard = origin.pass(MS * 1000, |number| Some(progress(number, 20_000, false)));
        assert_eq!(heard, Some(Direction::Forward));
        let asked: Vec<u128> = origin.asked.iter().map(|(at, _)| at.as_millis()).collect();
        assert_eq!(asked, [100, 150]);
    }

    /// The same from beyond a relay that has everything, and has passed `written` on. On its link to the target nothing has
    /// moved for so long, and losses take so long to make up for.
    fn over_relay(probe: u32, written: u64, quiet_ms: u16, repair_ms: u16) -> Progress {
        let way = Way { quiet_ms, repair_ms };
        let forward = Passage { received: 1 << 20, written, inward: Way::default(), outward: way };
        let mut progress = progress(probe, 20_000, false);
        progress.target.forward.inward = way;
        progress.relays.push(Waypoint { forward, backward: Passage::default() });
        progress
    }

    #[test]
    fn bytes_that_wait_for_their_turn_on_a_busy_link_are_given_time() {
        for written in [20_000, 30_000] {
            let mut origin = Origin::new();
            origin.send(1 << 20);
            let busy = |number| Some(over_relay(number, written, 30, 0));
            assert_eq!(origin.pass(LONGEST, busy), None, "others move there");
            assert!(origin.asked.len() < 12, "{:?}", origin.asked);
            assert_eq!(origin.pass(LONGEST, busy), Some(Direction::Forward), "but not for ever");
            let mut origin = Origin::new();
            origin.send(1 << 20);
            let still = |number| Some(over_relay(number, written, 70, 0));
            assert_eq!(origin.pass(MS * 150, still), Some(Direction::Forward), "nobody does");
        }
    }

    #[test]
    fn where_losses_are_usual_they_are_given_time() {
        let mut origin = Origin::new();
        origin.send(1 << 20);
        let lossy = |number| Some(over_relay(number, 30_000, 500, 400));
        assert_eq!(origin.pass(MS * 490, lossy), None);
        assert_eq!(origin.pass(MS * 20, lossy), Some(Direction::Forward));
        let mut origin = Origin::new();
        origin.send(1 << 20);
        let kept = |number| Some(over_relay(number, 20_000, 500, 400));
        assert_eq!(origin.pass(MS * 150, kept), Some(Direction::Forward), "what was not sent was not lost");
    }

    #[test]
    fn bytes_that_come_one_relay_further_are_progress() {
        let mut origin = Origin::new();
        origin.send(1000);
        let ever_further = |number: u32| {
            let mut progress = progress(number, 20_000, false);
            let has = |place| if place < number { 21_000 } else { 20_000 };
            let passage = |received| Passage { received, written: received, ..Passage::default() };
            let relays =
                (0..8).rev().map(|place| Waypoint { forward: passage(has(place)), ..Waypoint::default() });
            progress.relays.extend(relays);
            Some(progress)
        };
        assert_eq!(origin.pass(MS * 400, ever_further), None);
    }

    #[test]
    fn an_answer_that_was_long_on_its_way_tells_of_no_long_time() {
        let mut origin = Origin::new();
        origin.send(1000);
        origin.pass(MS * 100, |number| Some(progress(number, 20_000, false)));
        origin.pass(MS * 50, |_| None);
        origin.now = origin.now + MS * 500;
        let late = progress(origin.watch.number, 20_000, false);
        assert_eq!(origin.watch.asked_at, START + MS * 250);
        assert_eq!(
            origin.hear(&late),
            Some(Direction::Forward),
            "asked half an ack timeout after the first was here"
        );
        let mut origin = Origin::new();
        origin.send(1000);
        origin.pass(MS * 100, |_| None);
        origin.now = origin.now + MS * 60;
        assert_eq!(origin.hear(&progress(0, 20_000, false)), None);
        origin.now = origin.now + MS * 500;
        let late = progress(origin.watch.number, 20_000, false);
        assert_eq!(origin.hear(&late), None, "asked before that");
    }

    #[test]
    fn a_reader_that_takes_nothing_is_never_blamed_and_asked_after_ever_more_rarely() {
        let mut origin = Origin::new();
        origin.send(4 << 20);
        let heard = origin.pass(MS * 600_000, |number| Some(progress(number, 100_000, true)));
        assert_eq!((heard, origin.left.len()), (None, 0));
        assert!(origin.asked.len() < 160, "{} probes in ten minutes", origin.asked.len());
        // Not even if all of it came and is only not taken.
        assert_eq!(origin.pass(MS * 60_000, |number| Some(progress(number, 5 << 20, true))), None);
    }

    #[test]
    fn a_trickle_is_progress() {
        let mut origin = Origin::new();
        origin.send(1 << 20);
        for pause in [40, 90, 95, 200, 500, 1000, 2000, 3000, 3000, 3000, 500, 90].repeat(5) {
            // Nothing comes in between, and then very little.
            let received = origin.marks.acked;
            let heard = origin.pass(MS * pause, |number| Some(progress(number, received, false)));
            assert_eq!(heard, None, "{pause}");
            origin.ack(1);
        }
        assert!(origin.left.is_empty());
    }

    #[test]
    fn no_answer_means_another_chain_after_three_probes_each_time_later() {
        let mut origin = Origin::new();
        origin.send(1000);
        origin.pass(MS * 60_000, |_| None);
        let left: Vec<u128> = origin.left.iter().map(Duration::as_millis).collect();
        assert_eq!(left.first(), Some(&800), "100 to doubt, 100, 200 and 400 for answers");
        let pauses: Vec<u128> = left.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(pauses.windows(2).all(|pair| pair[0] < pair[1] || pair[1] > 10_000), "{pauses:?}");
        assert!(left.len() < 10, "{left:?}");
    }

    #[test]
    fn backward_bytes_that_do_not_come_are_told_of_by_the_target() {
        let mut target = ProgressWatch::new(false);
        target.note(Marks { sent: 10, ..Marks::default() }, START);
        let mut said = Vec::new();
        let mut now = START;
        while now < START + MS * 60_000 {
            now = target.due().expect("it goes on watching");
            said.extend(matches!(target.poll(now), Step::Speak(_)).then_some(now));
        }
        assert!((5..25).contains(&said.len()), "rarely enough: {}", said.len());
        // The origin sends nothing itself: it hears of it, asks once more, and knows.
        let mut origin = Origin::new();
        origin.now = origin.now + MS * 100;
        assert_eq!(origin.hear(&behind(0)), None);
        assert_eq!(origin.pass(MS * 1000, |number| Some(behind(number))), Some(Direction::Backward));
        // Unless its own reader is what keeps them from coming.
        let mut origin = Origin::new();
        origin.marks.reader_blocked = true;
        origin.send(0);
        origin.now = origin.now + MS * 100;
        assert_eq!(origin.hear(&behind(0)), None);
        assert_eq!(origin.pass(MS * 1000, |number| Some(behind(number))), None);
    }

    #[test]
    fn an_old_answer_tells_nothing_of_the_present() {
        let mut origin = Origin::new();
        origin.send(1000);
        origin.pass(MS * 120, |_| None);
        let stale = progress(origin.watch.number + 1, 20_000, false);
        assert_eq!(origin.hear(&stale), None);
        assert!(origin.watch.standstills.iter().all(Option::is_none));
        // Over another chain everything is counted anew.
        let answer = progress(origin.watch.number, 20_000, false);
        assert_eq!(origin.hear(&answer), None);
        origin.watch.restart(origin.now);
        assert!(origin.watch.standstills.iter().all(Option::is_none));
        assert!(origin.watch.due().is_some_and(|due| due >= origin.now + SHORTEST));
    }
}
