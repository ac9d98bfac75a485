//! What a detector has seen of its link: what came from the peer, and what went to it.
//! (The kinds of evidence that a repair names are [`crate::frame::Evidence`].)

use super::estimate::{Lateness, Losses};
use crate::time::Time;
use std::collections::VecDeque;
use std::time::Duration;

/// Heartbeats whose time of sending is remembered.
const MAX_UNECHOED: usize = 128;

/// What came from the peer.
#[derive(Debug)]
pub(super) struct Inbound {
    /// Any packet.
    pub(super) heard_at: Time,
    /// The longest silence since the last heartbeat.
    longest: Duration,
    /// Its greatest heartbeat, and when that came.
    pub(super) sequence: u32,
    pub(super) beat_at: Option<Time>,
    pub(super) lateness: Lateness,
    pub(super) losses: Losses,
    /// How much of the time since then this node has slept: that much of a gap is not the peer's.
    pub(super) slept: Duration,
    /// Whether the silence since its last heartbeat has made it suspect.
    pub(super) missed: bool,
    /// Silence counts from here at the earliest: the peer must first have learned at which interval we want to hear it.
    pub(super) asked_at: Time,
    /// When it was told, the first time since it was heard.
    told_at: Time,
    /// Silence that our own lateness accounts for.
    pub(super) excused: Duration,
    /// When a hint (see [`Detector::on_hint`]) comes true unless something is heard.
    pub(super) hint_at: Option<Time>,
    /// When the network said, for the first time since something was heard, that the peer can't be reached.
    pub(super) refused_at: Option<Time>,
    /// Another one came after a probe.
    pub(super) refused_again: bool,
}

impl Inbound {
    pub(super) fn new(now: Time) -> Self {
        Self {
            heard_at: now,
            longest: Duration::ZERO,
            sequence: 0,
            beat_at: None,
            lateness: Lateness::default(),
            losses: Losses::default(),
            slept: Duration::ZERO,
            missed: false,
            asked_at: now,
            told_at: now,
            excused: Duration::ZERO,
            hint_at: None,
            refused_at: None,
            refused_again: false,
        }
    }

    /// Something came.
    pub(super) fn hear(&mut self, now: Time) {
        self.longest = self.longest.max(now.since(self.heard_at));
        self.heard_at = now;
        self.excused = Duration::ZERO;
        self.hint_at = None;
        self.refused_at = None;
        self.refused_again = false;
    }

    /// A heartbeat came, newer than all before, and was heard. What is missing between them was lost, not late; and where
    /// other things came since the one before, the silence between them counts.
    pub(super) fn beat(&mut self, sequence: u32, interval: Option<Duration>, now: Time) {
        // What left before this end of the link was up is not lost.
        let before = if self.beat_at.is_some() { self.sequence } else { sequence.wrapping_sub(1) };
        let missing = sequence.wrapping_sub(before).saturating_sub(1);
        self.losses.add(if self.missed { 0 } else { missing });
        // A gap that began before the peer knew the present pace says nothing about it.
        let before = self.beat_at.filter(|at| *at >= self.asked_at);
        if let (Some(before), Some(interval)) = (before, interval) {
            let silent = self.longest.min(now.since(before));
            let gap = silent.saturating_sub(interval.saturating_mul(missing) + self.slept);
            match self.missed {
                true => self.lateness.add_fault(gap, interval),
                false => self.lateness.add(gap, interval),
            }
        }
        (self.missed, self.slept, self.longest) = (false, Duration::ZERO, Duration::ZERO);
        self.beat_at = Some(now);
        self.sequence = sequence;
    }

    /// The peer is asked for a faster pace now, and ought to know it by `asked_at`. A request still unanswered does not buy it
    /// more time; one that was answered, however soon, counts no more.
    pub(super) fn ask(&mut self, now: Time, asked_at: Time) {
        if self.heard_at >= self.told_at {
            (self.told_at, self.asked_at) = (now, asked_at);
        } else {
            self.asked_at = asked_at.min(self.asked_at);
        }
    }
}

/// A heartbeat may leave this part of an interval early or late, to go along with something else.
const ANSWER_PART: u32 = 4;

/// What went to the peer.
#[derive(Debug)]
pub(super) struct Outbound {
    pub(super) sequence: u32,
    /// Heartbeats without an echo: sequence and time of sending.
    unechoed: VecDeque<(u32, Time)>,
    /// When the oldest of them was sent.
    pub(super) unechoed_since: Option<Time>,
    /// Heartbeats of the peer that lacked an echo, in a row.
    pub(super) stale: u32,
    /// Deafness that our own lateness accounts for.
    pub(super) excused: Duration,
    pub(super) sent_at: Option<Time>,
    /// When anything else was.
    pub(super) spoke_at: Time,
    /// From when the pace counts: the last heartbeat, or what stood in for it.
    paced_from: Option<Time>,
    /// Whether something stood in for the last heartbeat.
    skipped: bool,
    /// Whether the peer asked for the next one.
    pub(super) is_asked: bool,
    pub(super) next_at: Time,
    /// The interval that our last heartbeat asked for.
    pub(super) announced: Duration,
    /// The interval at which the peer wants to hear us.
    pub(super) peer_wants: Option<Duration>,
}

impl Outbound {
    pub(super) const fn new(announced: Duration, now: Time) -> Self {
        Self {
            sequence: 0,
            unechoed: VecDeque::new(),
            unechoed_since: None,
            stale: 0,
            excused: Duration::ZERO,
            sent_at: None,
            spoke_at: Time::ZERO,
            paced_from: None,
            skipped: false,
            is_asked: false,
            next_at: now,
            announced,
            peer_wants: None,
        }
    }

    /// Counts a heartbeat that leaves now. The next is due after `every`, and a little: by then one of the peer's should have
    /// come, which it can answer.
    pub(super) fn send(&mut self, now: Time, every: Duration) {
        self.sequence = self.sequence.wrapping_add(1);
        if self.unechoed.len() == MAX_UNECHOED {
            self.unechoed.pop_front();
        }
        self.unechoed.push_back((self.sequence, now));
        self.unechoed_since.get_or_insert(now);
        self.sent_at = Some(now);
        (self.skipped, self.is_asked) = (false, false);
        self.pace(now, every);
    }

    /// The peer has heard something at this time: the next heartbeat is due after `every` and a little.
    fn pace(&mut self, from: Time, every: Duration) {
        self.paced_from = Some(from);
        self.next_at = from + every + every / ANSWER_PART;
    }

    /// Lets what else was sent since the last heartbeat stand in for the next one, if it does; never for two in a row, nor when
    /// that is late already, as it may not have left yet.
    pub(super) fn skip(&mut self, now: Time, every: Duration) -> bool {
        let is_recent = Some(self.spoke_at) > self.sent_at && self.spoke_at + every > now;
        let is_late = self.sent_at.is_none_or(|sent| now > sent + every * 3 / 2);
        let may = is_recent && !is_late && !self.skipped && !self.is_asked;
        if may {
            self.skipped = true;
            self.pace(self.spoke_at, every);
        }
        may
    }

    /// A heartbeat came from a peer that wants one `every` so often: if ours is about due, it goes along with the
    /// acknowledgement, and both ends wake half as often. Whoever sent first keeps the pace.
    pub(super) fn meet(&mut self, now: Time, every: Duration) {
        let Some(from) = self.paced_from else { return };
        self.next_at = self.next_at.min((from + every).max(now));
        self.hurry(now, every / ANSWER_PART);
    }

    /// What is due within `slack` is due now.
    pub(super) fn hurry(&mut self, now: Time, slack: Duration) {
        if self.next_at <= now + slack {
            self.next_at = self.next_at.min(now);
        }
    }

    /// Takes the echo of heartbeat `heard`: when that was sent, if it is news.
    pub(super) fn echo(&mut self, heard: u32) -> Option<Time> {
        let mut found = None;
        while let Some((sequence, sent_at)) = self.unechoed.front().copied() {
            // An echo of what was never sent is no evidence.
            if is_newer(sequence, heard) || is_newer(heard, self.sequence) {
                break;
            }
            found = Some(sent_at);
            self.unechoed.pop_front();
        }
        if found.is_some() {
            self.stale = 0;
            self.excused = Duration::ZERO;
            self.unechoed_since = self.unechoed.front().map(|(_, sent_at)| *sent_at);
        } else if self.unechoed_since.is_some() {
            self.stale = self.stale.saturating_add(1);
        }
        found
    }
}

/// Whether one sequence number comes after another (RFC 1982: they may wrap round).
pub(super) const fn is_newer(sequence: u32, than: u32) -> bool {
    let ahead = sequence.wrapping_sub(than);
    ahead != 0 && ahead < 1 << 31
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequence_numbers_may_wrap() {
        assert!(is_newer(1, 0) && is_newer(0, u32::MAX) && is_newer(5, u32::MAX - 5));
        assert!(!is_newer(0, 0) && !is_newer(u32::MAX, 0) && !is_newer(0, 1));
    }
}
