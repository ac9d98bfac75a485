//! Admission of incoming QUIC connections. The [`admission`](hopline_proto::admission) says whether an attempt is admitted, told to
//! prove its address, or left without an answer. An admitted attempt has to finish its handshake in time.

use super::clock::Clock;
use hopline_proto::admission::{Admission, Config, Counters, Granted, Outcome, PlaceId, Verdict};
use hopline_proto::allowance::{Allowance, Spent};
use hopline_proto::time::Time;
use quinn::{Connection, Incoming};
use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

/// How often strangers may have the log speak of them; the rest is counted.
const REMARKS: Allowance = Allowance { burst: 20, per_second: 1 };

/// See the module's documentation.
pub(crate) struct Gate {
    clock: Clock,
    state: Mutex<State>,
}

struct State {
    admission: Admission,
    /// By whom it is heard that a place is lost.
    holders: HashMap<PlaceId, oneshot::Sender<()>>,
    remarks: Spent,
    /// What was not said since the last remark.
    unsaid: u64,
}

/// A place inside, until this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    gate: Arc<Gate>,
    id: PlaceId,
    from: SocketAddr,
    until: Instant,
    lost: oneshot::Receiver<()>,
    outcome: Outcome,
}

/// Why somebody has to go before it was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Ousted {
    #[error("it took too long")]
    TimedOut,
    #[error("its place was given to another connection")]
    Displaced,
}

/// Why there is no connection.
pub(crate) type Turned = Box<dyn Error + Send + Sync>;

impl Gate {
    pub(crate) fn new(config: Config, clock: Clock) -> Arc<Self> {
        let admission = Admission::new(config);
        let state = State { admission, holders: HashMap::new(), remarks: Spent::default(), unsaid: 0 };
        Arc::new(Self { clock, state: Mutex::new(state) })
    }

    /// The attempt and its place, if it is let in.
    pub(crate) fn admit(self: &Arc<Self>, incoming: Incoming) -> Option<(Incoming, Place)> {
        let (from, is_proven) = (incoming.remote_address(), incoming.remote_address_validated());
        let verdict = self.state().admission.arrive(from, is_proven, self.clock.now());
        match verdict {
            Verdict::Admit(granted) => return Some((incoming, self.hand_over(granted, from))),
            Verdict::Prove => drop(incoming.retry()), // fails only for addresses that are proven
            Verdict::Ignore => incoming.ignore(),
        }
        None
    }

    /// A member is at this address.
    pub(crate) fn met(&self, at: SocketAddr) {
        self.state().admission.met(at, self.clock.now());
    }

    pub(crate) fn counters(&self) -> Counters {
        self.state().admission.counters()
    }

    /// Has something said about a stranger, with the number of remarks before it that were not made; or counts it among those.
    pub(crate) fn remark(&self, say: impl FnOnce(u64)) {
        if let Some(unsaid) = self.state().may_speak(self.clock.now()) {
            say(unsaid);
        }
    }

    fn hand_over(self: &Arc<Self>, granted: Granted, from: SocketAddr) -> Place {
        let (holder, lost) = oneshot::channel();
        let mut state = self.state();
        if let Some(loser) = granted.displaced.and_then(|place| state.holders.remove(&place)) {
            let _ = loser.send(()); // it may be done already
        }
        state.holders.insert(granted.place, holder);
        let until = Instant::now() + granted.limit;
        Place { gate: Arc::clone(self), id: granted.place, from, until, lost, outcome: Outcome::Done }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No statement under this lock can leave the state half-changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("counters", &self.counters()).finish_non_exhaustive()
    }
}

impl State {
    fn may_speak(&mut self, now: Time) -> Option<u64> {
        if self.remarks.spend(REMARKS, now) {
            return Some(std::mem::take(&mut self.unsaid));
        }
        self.unsaid += 1;
        None
    }

    fn end(&mut self, place: PlaceId, outcome: Outcome) {
        self.holders.remove(&place);
        self.admission.end(place, outcome);
    }
}

impl Place {
    /// Shakes hands.
    pub(crate) async fn shake_hands(&mut self, incoming: Incoming) -> Result<Connection, Turned> {
        let shaken = self.hold(async { incoming.await }).await??;
        self.outcome = Outcome::Done;
        Ok(shaken)
    }

    /// Does something that has to be over before the place is lost. Until it succeeds this counts as failed.
    pub(crate) async fn hold<T>(&mut self, doing: impl Future<Output = T>) -> Result<T, Ousted> {
        self.outcome = Outcome::Failed;
        let ousted = tokio::select! {
            biased;
            // What is done counts, though the place was lost at the same moment.
            done = doing => return Ok(done),
            _ = &mut self.lost => Ousted::Displaced,
            () = sleep_until(self.until) => Ousted::TimedOut,
        };
        self.outcome = match ousted {
            Ousted::TimedOut => Outcome::TimedOut,
            Ousted::Displaced => Outcome::Displaced,
        };
        Err(ousted)
    }

    /// The same, within another time from now on.
    pub(crate) async fn hold_for<T>(
        &mut self,
        limit: Duration,
        doing: impl Future<Output = T>,
    ) -> Result<T, Ousted> {
        self.until = Instant::now() + limit;
        self.hold(doing).await
    }

    /// All went well.
    pub(crate) fn succeed(mut self) {
        self.outcome = Outcome::Done;
    }

    /// Exchanges it for a guest's place, which there may not be.
    pub(crate) fn entertain(self) -> Option<Self> {
        let (gate, id, from) = (Arc::clone(&self.gate), self.id, self.from);
        // The lock ends with the block: `hand_over` takes it, and so does the drop of this place.
        let granted = {
            let mut state = gate.state();
            state.holders.remove(&id);
            state.admission.entertain(id, from, gate.clock.now())
        };
        granted.map(|granted| gate.hand_over(granted, from))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.gate.state().end(self.id, self.outcome);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_a_line_a_second_in_the_log() {
        let gate = Gate::new(Config::default(), Clock::start());
        let start = Time::from_micros(1_000_000_000);
        let mut said = Vec::new();
        for n in 0..3000 {
            said.extend(gate.state().may_speak(start + Duration::from_millis(n * 10 / 3)));
        }
        assert!(said.len() < 32, "{said:?}");
        assert_eq!(said[..20], [0; 20]);
        assert!((290..=300).contains(said.last().unwrap()), "{said:?}");
    }
}
