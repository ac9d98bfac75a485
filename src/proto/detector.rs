//! Whether the neighbour at the other end of a link is alive: one [`Detector`] for each link.
//!
//! It sends heartbeats and judges silence. Each heartbeat says at which interval its sender *wants* to hear from the
//! peer, so both ends of a link may keep different paces, and echoes the last heartbeat heard, which yields round-trip
//! times and shows whether our own words arrive. On a path that loses little, whatever else is sent stands in for every
//! second heartbeat. Three things make a peer suspect:
//! - **silence**: nothing was heard (any packet counts) for three of the intervals that we asked for, and for longer than
//!   is usual: one interval and four times the mean lateness, which grows with the first late arrival and shrinks slowly;
//!   or as many intervals as chance takes heartbeats in a row, on a path that loses some (their numbers tell lost from late);
//! - **deafness**: its heartbeats come, but for as long (and a round trip) none has echoed what we sent;
//! - **stall**: its heartbeats come, and what goes to it over legs is lost again and again (see `detector/stall.rs`). No
//!   sign of life speaks against that, so the link stays suspect until it is down and dialled anew.
//!
//! Whoever is late itself doubts itself first, as in Lifeguard (Dadgar et al., DSN 2018): when the detector's own timer
//! fires late, the time slept does not count as silence, the deadline doubles (up to eightfold), and nobody is suspected
//! before an interval has passed in which the timers were on time. So one long stall of this process never makes a
//! neighbour suspect.
//!
//! Suspicion is cheap and ends with the next sign of life; it turns into *down* after [`Config::down_after`] or ten
//! deadlines, whichever is longer.
//!
//! Invariant: when [`Detector::poll`] has returned `None`, [`Detector::poll_timeout`] lies after its `now`.
//!
//! A detector knows neither who the peer is, nor what the link carries, nor what follows from its judgement.

pub(super) mod estimate;
mod evidence;
mod presets;
mod stall;
mod verdict;

use super::frame::{Heartbeat, Reason};
use super::time::Time;
use estimate::Smoothed;
use evidence::{Inbound, Outbound, is_newer};
use stall::{ACK_DELAY, Stall};
use std::time::Duration;

pub use presets::Liveness;
pub use stall::Transfer;

/// Nobody makes anybody send faster than this.
pub const MIN_INTERVAL: Duration = Duration::from_millis(10);
/// Nobody is content with less than this.
pub const MAX_INTERVAL: Duration = Duration::from_secs(60);

/// Probes are answered no faster than this.
const MIN_ANSWER_INTERVAL: Duration = Duration::from_millis(1);
/// What a peer gets beside a round trip to show that an ICMP error was not about it.
const REFUSAL_GRACE: Duration = Duration::from_millis(2);
/// Intervals without a sign of life that are never suspicious.
const DEADLINE_INTERVALS: u32 = 3;
/// The part of an interval by which a heartbeat may leave early because others leave.
const ALONG_PART: u32 = 8;
/// The part of an interval that passes at least between two heartbeats when others die.
const ASKED_PART: u32 = 2;
/// When a link without flows is asked after at the earliest, once others have died.
const IDLE_ASKED: Duration = Duration::from_secs(1);
/// Heartbeats that a suspect peer is sent at least in [`Config::down_after`],
const SUSPECT_PROBES: u32 = 10;
/// and no more than these if the network says that nobody is there: each brings an error back, to be read as well.
const REFUSED_PROBES: u32 = 3;
/// Losses in a row that a repair is expected to take at most.
const MAX_REPAIRS: u32 = 6;
/// How often a busy link's peer is to be heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Twice the smoothed round-trip time, within [`Config::auto_min`] and [`Config::auto_max`].
    Auto,
    /// At this interval, within [`MIN_INTERVAL`] and [`MAX_INTERVAL`].
    Fixed(Duration),
    /// Never: this end judges nothing and asks for nothing, and sends only what the peer asks for.
    Off,
}

/// How a link is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// The pace of a link that carries flows.
    pub pace: Pace,
    /// The interval of one that doesn't.
    pub idle: Duration,
    /// The fastest that [`Pace::Auto`] gets; not above `auto_max`.
    pub auto_min: Duration,
    /// The slowest that [`Pace::Auto`] gets.
    pub auto_max: Duration,
    /// How long a peer stays suspect before it is down; never less than ten deadlines.
    pub down_after: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            pace: Pace::Auto,
            idle: Duration::from_secs(5),
            auto_min: MIN_INTERVAL,
            auto_max: Duration::from_secs(1),
            down_after: Duration::from_secs(1),
        }
    }
}

/// What [`Detector::poll`] finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Send this now, or never: the next one replaces it.
    SendHeartbeat(Heartbeat),
    /// The peer was silent, or deaf, for too long: go on without it.
    Suspect,
    /// It stayed so: it is dead as far as this end can tell.
    Down,
    /// It was suspect or down, and is alive.
    Recovered,
}

/// Watches one link. See the module's documentation.
#[derive(Debug)]
pub struct Detector {
    config: Config,
    busy: bool,
    min_interval: Duration,
    belief: Belief,
    recovered: bool,
    reason: Option<Reason>,
    /// The round trip as the handshake has it, and as heartbeats do, once measured.
    handshake: Smoothed,
    rtt: Option<Smoothed>,
    inbound: Inbound,
    outbound: Outbound,
    stall: Stall,
    stalled_at: Option<Time>,
    doubt: Doubt,
}

/// What is believed of the peer, and what spoke against it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Belief {
    Alive,
    Suspect { fault: Fault, down_at: Time },
    Down { fault: Fault },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Silent,
    Deaf,
    Stalled,
}

/// How much this node doubts its own punctuality.
#[derive(Debug)]
struct Doubt {
    score: u32,
    since: Time,
    polled_at: Time,
}

impl Detector {
    /// A detector for a link that has just come up and carries no flow yet. Its first heartbeat is due at once; until that
    /// is echoed, the round trip is taken to be what the handshake took, so that a peer that dies now is found out as
    /// soon as any other.
    #[must_use]
    pub fn new(config: Config, handshake: Duration, now: Time) -> Self {
        Self {
            config,
            busy: false,
            min_interval: Duration::ZERO,
            belief: Belief::Alive,
            recovered: false,
            reason: None,
            handshake: Smoothed::first(handshake.max(Duration::from_micros(1))),
            rtt: None,
            inbound: Inbound::new(now),
            outbound: Outbound::new(config.idle, now),
            stall: Stall::new(now),
            stalled_at: None,
            doubt: Doubt { score: 0, since: now, polled_at: now },
        }
    }

    /// The smoothed round-trip time (RFC 6298), once measured.
    #[must_use]
    pub fn rtt(&self) -> Option<Duration> {
        self.rtt.map(|rtt| rtt.mean)
    }

    /// How long the link's transport rarely exceeds to make up for what chance takes: as many probe timeouts as packets are lost
    /// in a row, each twice as long as the one before (RFC 9002, section 6.2). Nothing, on a link that loses nothing.
    #[must_use]
    pub fn repair_time(&self) -> Duration {
        let losses = self.inbound.losses.bound().clamp(1, MAX_REPAIRS);
        (self.round_trip() + ACK_DELAY) * ((1 << losses) - 2)
    }

    /// When anything was last heard from the peer; before that, when the link came up.
    #[must_use]
    pub const fn last_heard(&self) -> Time {
        self.inbound.heard_at
    }

    /// Whether the peer is neither suspect nor down.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.belief == Belief::Alive
    }

    /// Why the peer was found suspect, the last time.
    #[must_use]
    pub const fn reason(&self) -> Option<Reason> {
        self.reason
    }

    /// Says whether the link carries flows.
    pub fn set_busy(&mut self, busy: bool, now: Time) {
        if self.busy != busy {
            self.busy = busy;
            self.repace(now);
        }
    }

    /// The owner hears many peers: none of them is to be heard more often than this, unless there is a hint against it.
    pub fn set_min_interval(&mut self, min_interval: Duration, now: Time) {
        if self.min_interval != min_interval {
            self.min_interval = min_interval;
            self.repace(now);
        }
    }

    /// Takes a heartbeat of the peer.
    pub fn on_heartbeat(&mut self, heartbeat: &Heartbeat, now: Time) {
        // Before it counts as heard, which moves what was due.
        let slept = self.is_late(now);
        self.on_traffic(now);
        // One that was overtaken on its way is a sign of life and tells nothing new.
        if !is_newer(heartbeat.sequence, self.inbound.sequence) {
            return;
        }
        if slept {
            self.inbound.slept += self.lateness(now);
        }
        self.note_arrival(heartbeat.sequence, now);
        self.note_wanted(heartbeat.wanted_us, now);
        if heartbeat.probe {
            self.answer(now);
        }
        self.note_echo(heartbeat, slept, now);
    }

    /// Takes any other packet of the peer as a sign of life.
    pub fn on_traffic(&mut self, now: Time) {
        self.inbound.hear(now);
        self.clear(Fault::Silent);
    }

    /// Something else than a heartbeat goes to the peer.
    pub fn on_sent(&mut self, now: Time) {
        self.outbound.spoke_at = now;
    }

    /// Others have died: whether the peer has, a heartbeat will show, if none has only just left. Over a link without flows,
    /// which is a backup's if anybody's, it leaves after [`IDLE_ASKED`] and as much of that again as `turn` says (each link
    /// of a node has another one), when those that have some have been seen to. Returns whether it leaves sooner for it.
    pub fn ask(&mut self, turn: u8, now: Time) -> bool {
        let every = self.send_interval().unwrap_or(MIN_INTERVAL);
        let (pause, at) = match self.busy {
            true => (MIN_INTERVAL.max(every / ASKED_PART), now),
            false => (IDLE_ASKED, now + IDLE_ASKED + IDLE_ASKED * turn.into() / 256),
        };
        let is_old = self.outbound.sent_at.is_some_and(|sent| sent + pause <= at);
        let may = self.is_alive() && is_old && at < self.outbound.next_at;
        if may {
            (self.outbound.is_asked, self.outbound.next_at) = (true, at);
        }
        may
    }

    /// Takes a hint that the peer is gone (somebody found it wanting): it is probed at once and at the pace of a busy
    /// link, and is suspect unless it is heard within a round trip and two intervals.
    pub fn on_hint(&mut self, now: Time) {
        if self.inbound.hint_at.is_none()
            && let Some(interval) = self.hinted(now)
        {
            self.inbound.hint_at = Some(now + self.round_trip() + interval * 2);
        }
    }

    /// Takes an ICMP error: nobody has the peer's port, or no way leads to its host. Anybody may forge that, so it only
    /// makes the deadline shorter: the peer is probed at once, and suspect unless it is heard within a round trip and a moment; the
    /// moment is not granted once another error has come after the probe.
    pub fn on_refusal(&mut self, now: Time) {
        let first = *self.inbound.refused_at.get_or_insert(now);
        let probed = self.outbound.sent_at.filter(|sent| now > first && *sent >= first);
        let soon = match (probed, self.rtt) {
            (Some(probed), Some(rtt)) if self.doubt.score == 0 => probed + rtt.mean,
            // A node that doubts itself may not have read the answer yet, so it grants the moment.
            (Some(probed), Some(rtt)) => (probed + rtt.mean).max(now + REFUSAL_GRACE),
            _ => now + (self.round_trip() + REFUSAL_GRACE) * (1 + self.doubt.score),
        };
        let soon = soon.max(now);
        self.inbound.refused_again |= probed.is_some();
        // An earlier hint decides no later than this one.
        let is_known = self.inbound.hint_at.is_some_and(|at| at <= soon);
        if is_known {
            return;
        }
        if probed.is_some() || self.hinted(now).is_some() {
            self.inbound.hint_at = Some(soon);
        }
    }

    /// Takes what the link's transport has counted; needed only when there are new losses, at the pace of heartbeats.
    pub fn on_losses(&mut self, counted: Transfer, now: Time) {
        let is_stalled = self.stall.count(counted, self.round_trip(), now);
        self.stalled_at = is_stalled.then(|| self.stalled_at.unwrap_or(now));
    }

    /// The peer is doubtful: probes it. Returns the interval at which it is to be heard from now on, if at all.
    fn hinted(&mut self, now: Time) -> Option<Duration> {
        // Before the interval is looked up, as an open hint makes it short.
        self.inbound.hint_at = Some(Time::MAX);
        let interval = self.interval()?;
        self.repace(now);
        self.outbound.next_at = now;
        Some(interval)
    }

    /// The owner is awake for another link: a heartbeat that is about due leaves now.
    pub fn go_along(&mut self, now: Time) {
        if let Some(every) = self.send_interval() {
            self.outbound.hurry(now, every / ALONG_PART);
        }
    }

    /// The next thing to do or to know, if any. To be called after every input and at [`Detector::poll_timeout`], until
    /// it returns `None`.
    pub fn poll(&mut self, now: Time) -> Option<Outcome> {
        self.judge_self(now);
        if std::mem::take(&mut self.recovered) {
            return Some(Outcome::Recovered);
        }
        self.judge_peer(now).or_else(|| self.beat(now))
    }

    /// When to poll again; `None` if never without an input.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        let sending = self.send_interval().map(|_| self.outbound.next_at);
        [sending, self.verdict_at()].into_iter().flatten().min()
    }

    /// At which interval this end wants to hear the peer; `None` if not at all.
    fn interval(&self) -> Option<Duration> {
        let busy = match self.config.pace {
            Pace::Off => return None,
            Pace::Fixed(interval) => interval,
            Pace::Auto => {
                let rtt = self.rtt.unwrap_or(self.handshake);
                let interval = (rtt.mean * 2).clamp(self.config.auto_min, self.config.auto_max);
                if self.is_hinted() {
                    interval
                } else {
                    interval.max(self.min_interval.min(self.config.auto_max))
                }
            }
        };
        let urgent = self.busy || self.is_hinted();
        let interval = if urgent { busy } else { self.config.idle };
        Some(interval.clamp(MIN_INTERVAL, MAX_INTERVAL))
    }

    /// Whether a hint against the peer is still open. Once it is suspect there is no hurry any more.
    fn is_hinted(&self) -> bool {
        self.inbound.hint_at.is_some() && self.is_alive()
    }

    /// At which interval this end sends: its own, so that echoes come as often, or what the peer wants if that is faster. A
    /// suspect is probed often enough that it can show that it lives before it is down, and no more if the network says that
    /// nobody is there.
    fn send_interval(&self) -> Option<Duration> {
        let is_suspect = matches!(self.belief, Belief::Suspect { .. });
        if self.inbound.refused_again && is_suspect {
            return Some(self.config.down_after / REFUSED_PROBES);
        }
        let probing = is_suspect.then(|| self.config.down_after / SUSPECT_PROBES);
        [self.interval(), self.outbound.peer_wants, probing].into_iter().flatten().min()
    }

    /// An upper estimate of the round trip (RFC 6298's retransmission timeout without its minimum).
    fn round_trip(&self) -> Duration {
        self.rtt.unwrap_or(self.handshake).bound()
    }

    fn beat(&mut self, now: Time) -> Option<Outcome> {
        let every = self.send_interval()?;
        if now < self.outbound.next_at {
            return None;
        }
        let wanted = self.interval();
        if self.may_skip(wanted, now) && self.outbound.skip(now, every) {
            return None;
        }
        self.outbound.send(now, every);
        self.outbound.announced = wanted.unwrap_or(self.outbound.announced);
        Some(Outcome::SendHeartbeat(Heartbeat {
            sequence: self.outbound.sequence,
            heard: self.inbound.sequence,
            heard_ago_us: self.inbound.beat_at.map_or(0, |at| micros(now.since(at))),
            wanted_us: wanted.map_or(0, micros),
            probe: self.inbound.hint_at.is_some(),
        }))
    }

    /// Whether all is well between this end and the peer, and there is nothing new to tell it.
    fn may_skip(&self, wanted: Option<Duration>, now: Time) -> bool {
        let Some(wanted) = wanted.filter(|_| self.rtt.is_some()) else { return false };
        let is_steady = wanted * 2 >= self.outbound.announced && wanted <= self.outbound.announced * 2;
        let is_well = self.is_alive() && self.inbound.hint_at.is_none();
        let is_heard = now.since(self.inbound.heard_at) <= wanted * 2;
        // On a path that loses some, the next heartbeat may be lost as well.
        is_steady && is_well && is_heard && self.inbound.losses.bound() <= DEADLINE_INTERVALS
    }

    fn note_arrival(&mut self, sequence: u32, now: Time) {
        if self.inbound.beat_at.is_none() {
            // Both ends measure the round trip in the first exchange instead of an idle interval later.
            self.outbound.next_at = now;
        }
        self.inbound.beat(sequence, self.interval(), now);
    }

    fn note_wanted(&mut self, wanted_us: u32, now: Time) {
        let wanted = Duration::from_micros(wanted_us.into());
        self.outbound.peer_wants = (wanted_us > 0).then(|| wanted.clamp(MIN_INTERVAL, MAX_INTERVAL));
        if let Some(every) = self.send_interval() {
            self.outbound.meet(now, every);
        }
    }

    /// The next heartbeat does not wait, unless one has only just left.
    fn answer(&mut self, now: Time) {
        self.outbound.is_asked = true;
        let at = self.outbound.sent_at.map_or(now, |sent| (sent + MIN_ANSWER_INTERVAL).max(now));
        self.outbound.next_at = self.outbound.next_at.min(at);
    }

    fn note_echo(&mut self, heartbeat: &Heartbeat, slept: bool, now: Time) {
        let Some(sent_at) = self.outbound.echo(heartbeat.heard) else { return };
        self.clear(Fault::Deaf);
        // What lay in our own socket while we slept would be taken for a slow network.
        let trusted = !slept && self.doubt.score == 0;
        if trusted || self.rtt.is_none() {
            let held = Duration::from_micros(heartbeat.heard_ago_us.into());
            let sample = now.since(sent_at).saturating_sub(held).max(Duration::from_micros(1));
            self.rtt = Some(self.rtt.map_or_else(|| Smoothed::first(sample), |rtt| rtt.with(sample)));
            self.repace(now);
        }
    }

    /// After the interval may have changed: a request for a much faster pace is not put off until the next heartbeat is due.
    fn repace(&mut self, now: Time) {
        let Some(interval) = self.interval() else { return };
        if interval * 2 >= self.outbound.announced {
            return;
        }
        self.inbound.lateness.carry_over(interval);
        self.outbound.next_at = now;
        self.inbound.ask(now, now + self.round_trip());
    }

    /// A sign of life that disproves `fault`.
    fn clear(&mut self, disproved: Fault) {
        match self.belief {
            // Traffic says nothing against deafness, and no sign of life anything against a stall.
            Belief::Suspect { fault, .. } | Belief::Down { fault } if fault == disproved => {
                self.belief = Belief::Alive;
                self.recovered = true;
            }
            Belief::Alive | Belief::Suspect { .. } | Belief::Down { .. } => {}
        }
    }
}

fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
