//! Enrolment keeps a node registered with a bootstrap, whatever happens to either of them or to the network between.
//!
//! | answer to a heartbeat | what follows |
//! |---|---|
//! | unknown node | register again at once |
//! | internal error, or an answer that makes no sense | register again at once (the bootstrap may have restarted) |
//! | no answer in time, no connection | register again at once, with the next bootstrap in the list |
//! | throttled | wait as long as told; the lease stands, no failure is counted |
//! | a lease that tells of fewer than three peers | register with the next bootstrap, which may know more; if none does, with this one again |
//! | three failures in a row | register over a new link, with addresses resolved again |
//!
//! Failed registrations are repeated: the first ones soon (once for each bootstrap), then after 5, 10, 20, 40 and 80 s with jitter, and at
//! 80 s from then on. After five failures the node is told ([`Trouble::Timeout`]). Retries never stop. Meanwhile the driver looks for a
//! bootstrap that can be reached ([`Event::Reached`]), which ends such a wait early. A bootstrap that can be reached and still does
//! not accept the registration is not asked more often.
//!
//! A relay whose number of flows has changed markedly since it last told it does not wait for its next heartbeat. It tells it soon, but at
//! most once a second, and at most ten times in a heartbeat interval.
//!
//! A relay that drains tells its number of flows once more before its goodbye, if that has changed.
//!
//! A network may really be small. So too few peers cause another registration only when the node is new, or when they have become fewer
//! than at any time since; and never sooner than a back-off after the registration before.
//!
//! Invariants: at most one request is outstanding, and an answer to an older one changes nothing. After
//! [`Enrolment::handle_timeout`], [`Enrolment::poll_timeout`] lies after its `now`. A node that lost its lease goes on
//! carrying flows.
//!
//! It does not know what a node does with its place in the pool, nor how requests reach a bootstrap. The driver answers
//! each with [`Event::Answered`] or [`Event::Failed`], the latter after a time limit of its own.

mod config;
mod heartbeats;
mod leaving;
mod message;
mod retries;
mod search;

use super::backoff::Backoff;
use super::id::BootId;
use super::rpc::{Heartbeat, Lease, Load, Offer, Refusal, Request, Response};
use super::time::Time;
pub use config::Config;
pub use message::{Action, Attempt, Change, Counters, Event, Failure, Notice, Setback, Trouble};
use rand::rngs::StdRng;
use search::Search;
use std::time::Duration;

/// Nobody waits for longer than this, whatever a bootstrap says.
const MAX_WAIT: Duration = Duration::from_secs(3600);

/// The machine. See the module's documentation.
#[derive(Debug)]
pub struct Enrolment {
    config: Config,
    rng: StdRng,
    /// This process, as the bootstrap tells it from others of the node.
    boot: BootId,
    name: String,
    offer: Offer,
    load: Load,
    /// How many flows the bootstrap was told of.
    told_flows: u32,
    /// The latest key epoch that a lease brought a key of.
    key_epoch: Option<u32>,
    bootstraps: usize,
    /// The one that is asked now.
    bootstrap: usize,
    /// The one that was asked last.
    asked: usize,
    /// Whether there is a connection that the next question is to use.
    reached: bool,
    /// When the last registration failed, if that was for want of a connection or an answer.
    unreached: Option<Time>,
    /// How soon after that another may follow because a bootstrap was reached.
    reached_again: Backoff,
    phase: Phase,
    asking: Option<(Attempt, Question)>,
    next: Option<(Time, Question)>,
    /// When the bootstrap expects the next heartbeat, if it expects any.
    heartbeat_at: Option<Time>,
    /// How long it gave for it.
    interval: Duration,
    /// When it hears of a change of load, if that is before.
    load_report_at: Option<Time>,
    attempts_made: u64,
    /// When the last question was asked.
    asked_at: Time,
    /// Whether a heartbeat is to show soon that this node lives.
    revived: bool,
    /// Whether the offer has changed since it was last sent.
    outdated: bool,
    draining: bool,
    drained: bool,
    /// How often a goodbye was not answered.
    goodbyes: u32,
    /// Failures of any kind since the last lease.
    failures: u32,
    /// Failed registrations since the last lease.
    failed_registrations: u32,
    /// Registrations closer to the last one than this wait.
    register_not_before: Time,
    /// The most peers that leases have told of since this node last missed some; of a new node more is expected than anybody
    /// has.
    peers: u32,
    /// Whether this node looks for a bootstrap that knows more peers.
    search: Option<Search>,
    counters: Counters,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Not started.
    Idle,
    Unregistered,
    Registered,
    Leaving,
    Left,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Question {
    Register,
    Heartbeat,
    Drain,
    Deregister,
}

impl Enrolment {
    /// For a node called `name` that offers this, with so many bootstraps to choose from.
    #[must_use]
    pub fn new(config: Config, name: String, offer: Offer, bootstraps: usize, mut rng: StdRng) -> Self {
        Self {
            reached_again: Backoff::new(config.first_pauses()),
            config,
            boot: BootId::random(&mut rng),
            rng,
            name,
            offer,
            load: Load::default(),
            told_flows: 0,
            key_epoch: None,
            bootstraps,
            bootstrap: 0,
            asked: 0,
            reached: false,
            unreached: None,
            phase: Phase::Idle,
            asking: None,
            next: None,
            heartbeat_at: None,
            interval: Duration::ZERO,
            load_report_at: None,
            attempts_made: 0,
            asked_at: Time::ZERO,
            revived: false,
            outdated: false,
            draining: false,
            drained: false,
            goodbyes: 0,
            failures: 0,
            failed_registrations: 0,
            register_not_before: Time::ZERO,
            peers: u32::MAX,
            search: None,
            counters: Counters::default(),
        }
    }

    /// Whether the last answer was a lease.
    #[must_use]
    pub fn is_registered(&self) -> bool {
        self.phase == Phase::Registered
    }

    /// Whether the bootstrap has taken what is offered now.
    #[must_use]
    pub fn is_up_to_date(&self) -> bool {
        self.is_registered() && !self.outdated && !self.is_asking(Question::Register)
    }

    /// How often what has happened.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// How busy the node is, for the next heartbeat.
    pub const fn set_load(&mut self, load: Load) {
        self.load = load;
    }

    /// Changes what is offered, and registers it at once (if it changes often, as often as failed registrations are
    /// first repeated).
    pub fn set_offer(&mut self, offer: Offer, now: Time, actions: &mut Vec<Action>) {
        let is_new = self.offer != offer;
        if !is_new && (self.is_registered() || self.is_asking(Question::Register)) {
            return;
        }
        // The same offer again, which was refused or got no answer: whoever makes it wants to know now.
        self.offer = offer;
        self.outdated |= is_new;
        self.register_soon(now, actions);
    }

    /// Takes a fact.
    pub fn handle(&mut self, event: Event, now: Time, actions: &mut Vec<Action>) {
        match event {
            Event::Start => self.start(now, actions),
            Event::Answered { attempt, response } => {
                if let Some(question) = self.take_question(attempt) {
                    self.on_response(question, response, now, actions);
                }
            }
            Event::Failed { attempt, failure } => {
                if let Some(question) = self.take_question(attempt) {
                    self.on_failure(question, failure, now, actions);
                }
            }
            Event::Reached => self.on_reached(now, actions),
            Event::Drain => self.drain(now, actions),
            Event::Shutdown => self.shut_down(now, actions),
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Time, actions: &mut Vec<Action>) {
        if let Some((_, question)) = self.next.filter(|(at, _)| *at <= now) {
            self.ask(question, now, actions);
        }
    }

    /// When something will be due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        self.next.map(|(at, _)| at)
    }

    fn start(&mut self, now: Time, actions: &mut Vec<Action>) {
        if self.phase != Phase::Idle {
            return;
        }
        if self.bootstraps == 0 {
            notify(actions, Notice::Trouble(Trouble::NoBootstrap));
            return;
        }
        self.phase = Phase::Unregistered;
        self.ask(Question::Register, now, actions);
    }

    fn move_on(&mut self) {
        self.bootstrap = (self.bootstrap + 1) % self.bootstraps.max(1);
        self.counters.moved += 1;
    }

    fn on_response(&mut self, question: Question, response: Response, now: Time, actions: &mut Vec<Action>) {
        if self.is_last_heartbeat(question) {
            return self.ask(Question::Deregister, now, actions);
        }
        match (question, response) {
            // Whoever does not know this node has nothing to forget.
            (Question::Deregister, Response::Done | Response::Refused(Refusal::UnknownNode)) => {
                self.leave(actions);
            }
            (Question::Register, Response::Lease(lease)) => self.on_registered(lease, now, actions),
            (Question::Heartbeat, Response::Lease(lease)) => self.on_renewed(lease, now, actions),
            (Question::Drain, Response::Done) => {
                self.drained = true;
                self.failures = 0;
                self.wait_for_heartbeat();
            }
            (_, Response::Refused(refusal)) => self.on_refusal(question, refusal, now, actions),
            (
                Question::Register | Question::Heartbeat | Question::Drain | Question::Deregister,
                Response::Lease(_)
                | Response::Done
                | Response::Relays(_)
                | Response::Planned(_)
                | Response::Replaced(_)
                | Response::Listing(_)
                | Response::Renewed(_)
                | Response::Unknown,
            ) => self.on_setback(question, Setback::Internal, now, actions),
        }
    }

    fn on_registered(&mut self, lease: Lease, now: Time, actions: &mut Vec<Action>) {
        self.phase = Phase::Registered;
        self.failures = 0;
        self.failed_registrations = 0;
        self.unreached = None;
        self.reached_again = Backoff::new(self.config.first_pauses());
        // This bootstrap may not know yet that the node drains.
        self.drained = false;
        self.peers = self.peers.max(lease.counts.online);
        self.counters.registered += 1;
        self.keep(&lease, now);
        let looks_further = self.looks_further(lease.counts.online);
        notify(actions, Notice::Registered(lease));
        if looks_further {
            self.look_on(now, actions);
        } else if self.outdated {
            self.register_soon(now, actions);
        } else if self.draining {
            self.drain(now, actions);
        }
    }

    fn on_renewed(&mut self, lease: Lease, now: Time, actions: &mut Vec<Action>) {
        self.failures = 0;
        self.counters.renewed += 1;
        // A bootstrap that restarted does not know any more that this node leaves.
        self.drained &= lease.drain;
        self.outdated |= lease.restored;
        let known = lease.counts.online;
        // Who is to leave looks for nobody: a registration elsewhere would outlive its goodbye.
        let misses_peers = !lease.drain && self.misses_peers(known, now);
        self.keep(&lease, now);
        self.hurry(now);
        notify(actions, Notice::Renewed(lease));
        if self.draining {
            self.drain(now, actions);
        } else if misses_peers {
            self.look_for_peers(known, now, actions);
        } else if self.outdated {
            self.register_soon(now, actions);
        }
    }

    fn on_refusal(&mut self, question: Question, refusal: Refusal, now: Time, actions: &mut Vec<Action>) {
        match (question, refusal) {
            (_, Refusal::Throttled { retry_after }) => self.on_throttled(question, retry_after, now, actions),
            (_, Refusal::UnknownNode) => self.on_setback(question, Setback::Unknown, now, actions),
            (_, Refusal::Internal) => self.on_setback(question, Setback::Internal, now, actions),
            (Question::Register, reason) => self.on_rejected(reason, now, actions),
            (Question::Heartbeat | Question::Drain | Question::Deregister, _) => {
                self.on_setback(question, Setback::Refused, now, actions);
            }
        }
    }

    fn on_throttled(
        &mut self,
        question: Question,
        retry_after: Duration,
        now: Time,
        actions: &mut Vec<Action>,
    ) {
        self.counters.throttled += 1;
        // It was reached, so that it can be reached is no reason to ask sooner.
        self.unreached = None;
        let retry_after = self.jittered_up(retry_after.clamp(self.config.first_retry, MAX_WAIT));
        self.register_not_before = now + retry_after;
        self.heartbeat_at = self.heartbeat_at.map(|at| at.max(now + retry_after));
        // So that `revive` waits as well.
        self.asked_at = now + retry_after;
        self.next = Some((now + retry_after, question));
        notify(actions, Notice::Trouble(Trouble::Throttled { retry_after }));
    }

    /// A registration was refused for good, as far as the bootstrap can tell: somebody may yet change that.
    fn on_rejected(&mut self, reason: Refusal, now: Time, actions: &mut Vec<Action>) {
        self.counters.rejected += 1;
        // As when it is throttled.
        self.unreached = None;
        self.phase = Phase::Unregistered;
        self.next = Some((now + self.jittered(self.config.backoff_max), Question::Register));
        notify(actions, Notice::Trouble(Trouble::Rejected { reason }));
        if self.outdated {
            self.register_soon(now, actions);
        }
    }

    fn on_failure(&mut self, question: Question, failure: Failure, now: Time, actions: &mut Vec<Action>) {
        if self.is_last_heartbeat(question) {
            return self.ask(Question::Deregister, now, actions);
        }
        // A goodbye is for the bootstrap that knows this node.
        if question != Question::Deregister {
            self.move_on();
        }
        let setback = match failure {
            Failure::Timeout => Setback::Timeout,
            Failure::Network => Setback::Network,
        };
        self.on_setback(question, setback, now, actions);
    }

    fn on_setback(&mut self, question: Question, setback: Setback, now: Time, actions: &mut Vec<Action>) {
        self.count(setback);
        self.failures = self.failures.saturating_add(1);
        match question {
            Question::Deregister => self.say_goodbye_again(now, actions),
            // The next heartbeat will show whether the lease stands, and be followed by another attempt.
            Question::Drain => self.wait_for_heartbeat(),
            Question::Heartbeat => {
                self.phase = Phase::Unregistered;
                notify(actions, Notice::Trouble(Trouble::Lost { setback }));
                self.ask(Question::Register, now, actions);
            }
            Question::Register => self.retry_registration(setback, now, actions),
        }
    }

    /// Registers as soon as it may be, unless that is under way. Returns whether it will.
    fn register_soon(&mut self, now: Time, actions: &mut Vec<Action>) -> bool {
        let may = matches!(self.phase, Phase::Unregistered | Phase::Registered);
        if !may || self.is_asking(Question::Register) {
            return false;
        }
        if now < self.register_not_before {
            self.asking = None;
            self.next = Some((self.register_not_before, Question::Register));
        } else {
            self.ask(Question::Register, now, actions);
        }
        true
    }

    /// Asks the present bootstrap, whatever else was on its way or due.
    fn ask(&mut self, question: Question, now: Time, actions: &mut Vec<Action>) {
        self.attempts_made += 1;
        self.asked_at = now;
        let attempt = Attempt(self.attempts_made);
        self.asking = Some((attempt, question));
        self.next = None;
        self.load_report_at = None;
        self.asked = self.bootstrap;
        let reached = std::mem::replace(&mut self.reached, false);
        // A connection that has just come up needs no other in its place.
        let fresh_link =
            question == Question::Register && self.failures >= self.config.full_after && !reached;
        let request = match question {
            Question::Register => {
                // A registration does not tell of flows.
                self.told_flows = 0;
                self.counters.offers += u64::from(std::mem::replace(&mut self.outdated, false));
                self.register_not_before = now + self.config.first_retry;
                self.counters.registrations += 1;
                self.counters.full += u64::from(fresh_link);
                Request::Register { name: self.name.clone(), offer: self.offer.clone(), boot: self.boot }
            }
            Question::Heartbeat => {
                self.counters.heartbeats += 1;
                self.told_flows = self.load.flows;
                Request::Heartbeat(Heartbeat {
                    sequence: attempt.0,
                    sent_at: now,
                    load: self.load,
                    key_epoch: self.key_epoch,
                })
            }
            Question::Drain => Request::Drain,
            Question::Deregister => Request::Deregister { boot: self.boot },
        };
        actions.push(Action::Ask { attempt, request, bootstrap: self.bootstrap, fresh_link });
    }

    fn take_question(&mut self, attempt: Attempt) -> Option<Question> {
        self.asking.take_if(|(asked, _)| *asked == attempt).map(|(_, question)| question)
    }

    fn is_asking(&self, question: Question) -> bool {
        self.asking.is_some_and(|(_, asked)| asked == question)
    }

    const fn count(&mut self, setback: Setback) {
        let counter = match setback {
            Setback::Unknown => &mut self.counters.unknown,
            Setback::Internal => &mut self.counters.internal,
            Setback::Refused => &mut self.counters.rejected,
            Setback::Timeout => &mut self.counters.timeouts,
            Setback::Network => &mut self.counters.network,
        };
        *counter += 1;
    }
}

fn notify(actions: &mut Vec<Action>, notice: Notice) {
    actions.push(Action::Notify(notice));
}

#[cfg(test)]
mod tests;
