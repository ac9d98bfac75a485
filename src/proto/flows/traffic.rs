//! What applications and legs do with a flow: open it, feed it, drain it, end it.

use super::flow::Flow;
use super::key::FlowKey;
use super::rights::Rights;
use super::table::Flows;
use super::tasks::Task;
use crate::cause::CauseKey;
use crate::crypto::Key;
use crate::frame::CloseCode;
use crate::id::FlowId;
use crate::lane::FlowViolation;
use crate::links::Move;
use crate::machine::Action;
use crate::planted::{self, Law};
use crate::record::Route;
use crate::splice::{Direction, LegId, Splice};
use crate::time::Time;
use bytes::Bytes;

/// Chunks that an application is given at once.
const TAKEN_CHUNKS: usize = 32;

impl Flows {
    // ---- an endpoint's flows ----

    /// Opens a flow over `route`. `None` if the route is not usable or there are too many flows.
    pub fn open(
        &mut self,
        flow: FlowId,
        route: Route,
        now: Time,
        actions: &mut Vec<Action>,
    ) -> Option<FlowKey> {
        let key = FlowKey { origin: route.scope()?.origin, flow, hop: 0 };
        if self.flows.len() >= self.config.max_flows || self.flows.contains_key(&key) {
            return None;
        }
        let rights = Rights::origin(route)?;
        let candidates = rights.next_candidates()?;
        let mut opened = Flow::new(Splice::origin(), rights, now);
        // Until the target is heard, nothing shows that it is there.
        opened.lose_sight(now);
        self.flows.insert(key, opened);
        self.set_candidates(key, candidates);
        self.keep_warm(key, now, actions);
        self.tasks.push(key, Task::Settle);
        self.run_tasks(now, actions);
        Some(key)
    }

    /// The application gives a flow up: everybody on its chain is told, and the other end also why.
    pub fn abort(&mut self, key: FlowKey, cause: &str, now: Time, actions: &mut Vec<Action>) {
        match self.splice(&key).map(Splice::is_complete) {
            // Both ends have everything, so nothing is left to give up.
            Some(true) => self.end(key, CloseCode::Done, CloseCode::Done, now, actions),
            Some(false) => {
                self.give_up(key, (CloseCode::Aborted, CloseCode::Aborted), cause, now, actions);
            }
            None => {}
        }
    }

    /// An endpoint is shut down, and its flows with it: those are given up whose applications have not said their last word,
    /// and `at_once` all that are not done.
    pub fn abort_all(&mut self, cause: &str, at_once: bool, now: Time, actions: &mut Vec<Action>) {
        let is_over = |flow: &Flow| at_once || flow.splice.is_complete() || !flow.splice.has_said_all();
        let mut keys: Vec<FlowKey> =
            self.flows.iter().filter(|(_, flow)| is_over(flow)).map(|(key, _)| *key).collect();
        keys.sort_unstable();
        for key in keys {
            self.abort(key, cause, now, actions);
        }
    }

    /// The two ends of a flow share this key, and nobody else has it: they tell each other by it why they give the flow up,
    /// and believe nobody else that they did.
    pub fn share_key(&mut self, key: FlowKey, shared: &Key, now: Time, actions: &mut Vec<Action>) {
        let Some(flow) = self.flows.get_mut(&key) else { return };
        let shared = CauseKey::new(shared, key.flow, flow.splice.position());
        // Whoever gave the flow up before may be gone by now, and say it no more.
        if let Some(cause) = flow.end.as_mut().and_then(|end| end.share(shared)) {
            self.given_up(key, cause, now, actions);
        }
    }

    /// Ends every flow at this node, for its shutdown: prevs go on over their other candidates.
    pub fn leave_all(&mut self, now: Time, actions: &mut Vec<Action>) {
        let mut keys: Vec<FlowKey> = self.flows.keys().copied().collect();
        keys.sort_unstable();
        for key in keys {
            self.end(key, CloseCode::NoPath, CloseCode::Lost, now, actions);
        }
    }

    /// The application sends. To be asked only while [`Flows::may_send`].
    ///
    /// # Errors
    /// [`FlowViolation`] after its end; [`FlowViolation::NotAttached`] if the flow is no more.
    pub fn send(
        &mut self,
        key: FlowKey,
        bytes: Bytes,
        now: Time,
        actions: &mut Vec<Action>,
    ) -> Result<(), FlowViolation> {
        let flow = self.flows.get_mut(&key).ok_or(FlowViolation::NotAttached)?;
        flow.splice.send(bytes)?;
        let source = flow.splice.source();
        flow.room.came(source, flow.splice.lane(source), now);
        if flow.look(now) {
            self.schedule(key);
        }
        self.recount(key);
        actions.push(Action::Wake { flow: key });
        Ok(())
    }

    /// Whether there is room for what the application sends, and in which direction that is; `None` if the flow is no
    /// more.
    pub fn may_send(&mut self, key: &FlowKey) -> Option<(bool, Direction)> {
        let source = self.splice(key)?.source();
        Some((self.may_take(*key, source), source))
    }

    /// Whether there is room for more of a direction. If only the node's budget has none, it waits for its turn.
    fn may_take(&mut self, key: FlowKey, direction: Direction) -> bool {
        let Some(flow) = self.flows.get(&key) else { return false };
        let lane = flow.splice.lane(direction);
        let has_room = flow.splice.has_room(direction, &flow.room.limits(direction, &self.config.limits));
        // It waits for its own window, or needs no room, so it gives up its place in the queue of the budget.
        if !has_room || lane.is_catching_up() || planted::broken(Law::Window) {
            self.budget.forget((key, direction));
            return has_room;
        }
        self.budget.admits((key, direction), lane.held())
    }

    /// The application has sent everything.
    pub fn finish(&mut self, key: FlowKey, now: Time, actions: &mut Vec<Action>) {
        if let Some(flow) = self.flows.get_mut(&key) {
            flow.splice.finish();
            self.tasks.push(key, Task::Settle);
            self.run_tasks(now, actions);
        }
    }

    /// Which direction the application takes, the next bytes of it, and whether it ends after what is left; `None` if the
    /// flow is no more.
    #[must_use]
    pub fn to_take(&self, key: &FlowKey) -> Option<(Direction, Vec<Bytes>, bool)> {
        let splice = self.splice(key)?;
        let lane = splice.lane(splice.sink());
        let chunks = lane.front().filter(|chunk| !chunk.is_empty()).take(TAKEN_CHUNKS).collect();
        Some((splice.sink(), chunks, lane.is_received()))
    }

    /// The application took that many bytes, or, after the last, the end.
    pub fn took(&mut self, key: FlowKey, count: usize, now: Time, actions: &mut Vec<Action>) {
        if let Some(flow) = self.flows.get_mut(&key) {
            let sink = flow.splice.sink();
            flow.splice.wrote(sink, count);
            self.tasks.push(key, Task::Settle);
            self.run_tasks(now, actions);
        }
    }

    /// The application has done what it wanted with everything that came: the other end may know. Until then its flow is
    /// not done.
    pub fn taken(&mut self, key: FlowKey, now: Time, actions: &mut Vec<Action>) {
        if let Some(flow) = self.flows.get_mut(&key) {
            flow.splice.taken();
            self.tasks.push(key, Task::Settle);
            self.run_tasks(now, actions);
        }
    }

    // ---- bytes over legs ----

    /// Bytes came over `leg`; whoever writes what they feed is to be woken.
    pub fn receive(
        &mut self,
        leg: LegId,
        chunks: impl IntoIterator<Item = Bytes>,
        now: Time,
        actions: &mut Vec<Action>,
    ) {
        self.links.heard(leg.link(), now);
        let Some((key, flow)) = self.by_leg(leg) else { return };
        let direction = flow.splice.fed_by(leg);
        let taken = chunks.into_iter().try_for_each(|bytes| flow.splice.receive(leg, bytes));
        if let Some(direction) = direction {
            flow.room.came(direction, flow.splice.lane(direction), now);
        }
        self.links.moved(leg.link(), direction.map(Move::In), now);
        self.recount(key);
        if let Err(violation) = taken {
            self.leg_violation(leg, violation, now, actions);
            self.run_tasks(now, actions);
        }
    }

    /// Whether to go on reading `leg`.
    pub fn may_receive(&mut self, leg: LegId) -> bool {
        let fed = self.by_leg(leg).and_then(|(key, flow)| Some((key, flow.splice.fed_by(leg)?)));
        fed.is_some_and(|(key, direction)| self.may_take(key, direction))
    }

    /// Puts what is to be written to `leg` into `chunks`, as far as it fits; returns how many chunks that were.
    pub fn to_write(&self, leg: LegId, chunks: &mut [Bytes]) -> usize {
        let Some((splice, direction)) = self.attached(leg, Splice::feeding) else { return 0 };
        let front = splice.lane(direction).front().filter(|chunk| !chunk.is_empty());
        chunks.iter_mut().zip(front).map(|(slot, chunk)| *slot = chunk).count()
    }

    /// That many bytes were written to `leg`.
    pub fn wrote(&mut self, leg: LegId, count: usize, now: Time) {
        self.links.spoke(leg.link(), now);
        if let Some((key, flow)) = self.by_leg(leg)
            && let Some(direction) = flow.splice.feeding(leg)
        {
            flow.splice.wrote(direction, count);
            self.links.moved(leg.link(), Some(Move::Out(direction)), now);
            self.recount(key);
        }
    }

    fn attached(
        &self,
        leg: LegId,
        side: impl Fn(&Splice, LegId) -> Option<Direction>,
    ) -> Option<(&Splice, Direction)> {
        let splice = self.splice(self.legs.get(&leg)?)?;
        Some((splice, side(splice, leg)?))
    }
}
