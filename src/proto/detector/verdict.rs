//! When a link's peer is found suspect, and down; and how much of a silence its watcher blames on itself.

use super::{Belief, DEADLINE_INTERVALS, Detector, Fault, Outcome, micros};
use crate::frame::{Evidence, Reason, Watch};
use crate::time::Time;
use std::time::Duration;

/// Heartbeats that must lack the echo before a peer counts as deaf.
const STALE_HEARTBEATS: u32 = 3;
/// Deadlines that pass at least between suspect and down.
const DOWN_DEADLINES: u32 = 10;
/// The most that self-doubt grows to; deadlines are multiplied by one more.
const MAX_DOUBT: u32 = 7;

impl Detector {
    /// How much silence is suspicious.
    pub(super) fn deadline(&self, interval: Duration) -> Duration {
        let shortest = interval * DEADLINE_INTERVALS.max(self.inbound.losses.bound());
        let deadline = shortest.max(self.inbound.lateness.bound(interval));
        deadline * (1 + self.doubt.score)
    }

    /// When the peer will be found suspect, or down, if nothing else happens.
    pub(super) fn verdict_at(&self) -> Option<Time> {
        let interval = self.interval()?;
        let at = match self.belief {
            Belief::Alive => {
                let stalled = self.stalled_at.unwrap_or(Time::MAX);
                self.silent_at(interval).min(self.deaf_at(interval)).min(stalled)
            }
            Belief::Suspect { down_at, .. } => down_at,
            Belief::Down { .. } => return None,
        };
        // A second refusal ends the respite: it is the network's word, and not this node's lateness.
        let in_doubt = self.doubt.score > 0 && !self.inbound.refused_again;
        Some(if in_doubt { at.max(self.doubt.since + interval) } else { at })
    }

    fn silent_at(&self, interval: Duration) -> Time {
        let since = self.inbound.heard_at.max(self.inbound.asked_at);
        // The peer keeps the pace that it was told last.
        let deadline = self.deadline(interval.max(self.outbound.announced));
        let at = since + deadline + self.inbound.excused;
        self.inbound.hint_at.map_or(at, |hint| at.min(hint))
    }

    fn deaf_at(&self, interval: Duration) -> Time {
        match self.outbound.unechoed_since {
            Some(since) if self.outbound.stale >= STALE_HEARTBEATS => {
                since + self.round_trip() + self.deadline(interval) + self.outbound.excused
            }
            Some(_) | None => Time::MAX,
        }
    }

    /// How late this very moment is for whatever was due first.
    pub(super) fn lateness(&self, now: Time) -> Duration {
        self.poll_timeout().map_or(Duration::ZERO, |planned| now.since(planned.max(self.doubt.polled_at)))
    }

    pub(super) fn is_late(&self, now: Time) -> bool {
        self.interval().is_some_and(|interval| self.lateness(now) > interval / 2)
    }

    /// Doubts itself when late, and trusts itself a little more after each punctual interval.
    pub(super) fn judge_self(&mut self, now: Time) {
        let Some(interval) = self.interval() else { return };
        if self.is_late(now) {
            self.excuse(self.lateness(now), now);
            self.doubt.score = (self.doubt.score + 1).min(MAX_DOUBT);
            self.doubt.since = now;
        } else if self.doubt.score > 0 && now >= self.doubt.since + interval {
            self.doubt.score -= 1;
            self.doubt.since = now;
        }
        self.doubt.polled_at = now;
    }

    /// Time that this node slept counts neither as silence nor as deafness.
    fn excuse(&mut self, lateness: Duration, now: Time) {
        self.inbound.slept += self.inbound.beat_at.map_or(lateness, |at| lateness.min(now.since(at)));
        self.inbound.excused += lateness.min(now.since(self.inbound.heard_at));
        let unechoed = self.outbound.unechoed_since.map_or(Duration::ZERO, |since| now.since(since));
        self.outbound.excused += lateness.min(unechoed);
        if let Belief::Suspect { down_at, .. } = &mut self.belief {
            *down_at = *down_at + lateness;
        }
    }

    pub(super) fn judge_peer(&mut self, now: Time) -> Option<Outcome> {
        let interval = self.interval()?;
        if now < self.verdict_at()? {
            return None;
        }
        match self.belief {
            Belief::Alive => {
                let fault = match self.stalled_at {
                    _ if now >= self.silent_at(interval) => Fault::Silent,
                    Some(_) => Fault::Stalled,
                    None => Fault::Deaf,
                };
                self.inbound.missed |= fault == Fault::Silent;
                self.reason = Some(self.reason_for(fault, interval, now));
                let down_after = self.config.down_after.max(self.deadline(interval) * DOWN_DEADLINES);
                self.belief = Belief::Suspect { fault, down_at: now + down_after };
                Some(Outcome::Suspect)
            }
            Belief::Suspect { fault, .. } => {
                self.belief = Belief::Down { fault };
                Some(Outcome::Down)
            }
            Belief::Down { .. } => None,
        }
    }

    fn reason_for(&self, fault: Fault, interval: Duration, now: Time) -> Reason {
        let is_hinted = self.inbound.hint_at.is_some_and(|at| at <= now);
        let evidence = match fault {
            Fault::Deaf => Evidence::Deafness,
            Fault::Stalled => Evidence::Stall,
            Fault::Silent if is_hinted && self.inbound.refused_at.is_some() => Evidence::Refusal,
            Fault::Silent if is_hinted => Evidence::Hint,
            Fault::Silent => Evidence::Silence,
        };
        let watch = Watch {
            silence_us: micros(now.since(self.inbound.heard_at)),
            deadline_us: micros(self.deadline(interval)),
            interval_us: micros(interval),
            rtt_us: micros(self.rtt.unwrap_or(self.handshake).mean),
            doubt: u8::try_from(self.doubt.score).unwrap_or(u8::MAX),
        };
        Reason { evidence, watch: Some(watch) }
    }
}
