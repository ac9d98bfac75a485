//! Drives the bootstrap's machine: gives it the time and questions, passes on what it tells, and wakes when something is due.

use super::news::{Bulletin, News};
use crate::net::clock::Clock;
use crate::net::entropy;
use crate::proto::Time;
use crate::proto::bootstrap::{Bootstrap, Config};
use crate::proto::crypto::Key;
use crate::proto::pool::PoolEvent;
use std::sync::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio::time::sleep_until;

/// The machine and its driver. See the module's documentation.
#[derive(Debug)]
pub(super) struct Keeper {
    /// Held for the length of one question, never while anything waits.
    machine: Mutex<Bootstrap>,
    config: Config,
    network_secret: Key,
    clock: Clock,
    rearm: Notify,
    bulletin: Bulletin,
    started_at: Time,
}

impl Keeper {
    /// A machine that knows nobody yet.
    pub(super) fn new(config: Config, network_secret: Key) -> Self {
        let clock = Clock::start();
        let started_at = clock.now();
        let machine = Mutex::new(new_machine(config, &network_secret, started_at));
        let (rearm, bulletin) = (Notify::new(), Bulletin::default());
        Self { machine, config, network_secret, clock, rearm, bulletin, started_at }
    }

    pub(super) const fn started_at(&self) -> Time {
        self.started_at
    }

    /// Where what happens to the pool is told.
    pub(super) const fn bulletin(&self) -> &Bulletin {
        &self.bulletin
    }

    /// Lets `f` use the machine at the present time.
    pub(super) fn with<T>(&self, f: impl FnOnce(&mut Bootstrap, Time) -> T) -> T {
        let mut machine = self.machine();
        let (due, now) = (machine.poll_timeout(), self.clock.now());
        let result = f(&mut machine, now);
        let events = machine.take_events();
        let news: Vec<News> = events.into_iter().map(|event| News::new(event, &machine, now)).collect();
        // Still under the lock, so that everybody hears of things in the order in which they happened.
        news.iter().for_each(|news| self.bulletin.publish(news));
        let due_changed = machine.poll_timeout() != due;
        drop(machine);
        news.iter().for_each(log);
        if due_changed {
            self.rearm.notify_one();
        }
        result
    }

    /// Has the machine do what is due. Never ends.
    pub(super) async fn keep_time(&self) {
        loop {
            let due = self.machine().poll_timeout().unwrap_or(Time::MAX);
            tokio::select! {
                () = sleep_until(self.clock.instant(due)) => self.with(|machine, now| {
                    // The clock is finer than tokio's timers, and a far deadline is slept for in parts.
                    if due <= now {
                        machine.handle_timeout(now);
                    }
                }),
                () = self.rearm.notified() => {}
            }
        }
    }

    /// The machine; a new one if a fault of ours left it in the middle of something. That is what a restart of the process
    /// would give, which all nodes are prepared for.
    fn machine(&self) -> MutexGuard<'_, Bootstrap> {
        self.machine.lock().unwrap_or_else(|poisoned| {
            tracing::error!("the bootstrap failed over a question and starts afresh; please report this");
            let mut machine = poisoned.into_inner();
            *machine = new_machine(self.config, &self.network_secret, self.clock.now());
            self.machine.clear_poison();
            machine
        })
    }
}

fn new_machine(config: Config, network_secret: &Key, now: Time) -> Bootstrap {
    Bootstrap::new(config, network_secret.clone(), entropy::seeded_rng(), now)
}

fn log(news: &News) {
    let what = match &news.event {
        PoolEvent::Joined(_) => "relay registered",
        PoolEvent::Online(_) => "relay online",
        PoolEvent::Suspect(_) => "relay suspect: reported down, or late with its heartbeats",
        PoolEvent::Draining(_) => "relay draining",
        PoolEvent::Offline(_) => "relay offline",
        PoolEvent::Back(_) => "relay back",
        PoolEvent::Left(_) => "relay left",
        PoolEvent::Forgotten(_) => "relay forgotten",
        PoolEvent::TargetJoined(_) => "target announced",
        PoolEvent::TargetLeft(_) => "target left",
        PoolEvent::Distrusted(_) => {
            "this node reported relays down that live, again and again; its reports count no more for a while"
        }
        PoolEvent::Ignored(what) => return tracing::debug!(?what, "not taken at its word"),
        PoolEvent::Resumed => "the relays are heard again; leases end as usual",
        PoolEvent::Preserving { overdue } => {
            tracing::warn!(
                overdue,
                "so many relays fell silent at once that this bootstrap doubts its own network; no leases end until \
                 they are heard again"
            );
            return;
        }
    };
    match news.node() {
        Some(node) => tracing::info!(node = %node.short(), name = news.name, "{what}"),
        None => tracing::info!("{what}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::NodeId;
    use crate::proto::rpc::{Offer, Request, Response, Status};
    use std::sync::Arc;
    use std::time::Duration;
    use tokio::time::timeout;

    const NODE: NodeId = NodeId::from_bytes([1; 32]);

    fn keeper() -> Arc<Keeper> {
        let mut config = Config::default();
        config.pool.lease = Duration::from_millis(100);
        Arc::new(Keeper::new(config, Key::from_bytes([1; 32])))
    }

    fn register(keeper: &Keeper, node: NodeId) -> Response {
        let address = "127.0.0.1:1".parse().unwrap();
        let offer = Offer::relay(address, "", 1);
        let request = Request::Register { name: "r1".to_owned(), offer };
        keeper.with(|machine, now| machine.answer(node, request, now))
    }

    fn status(keeper: &Keeper) -> Option<Status> {
        keeper.with(|machine, _| machine.pool().get(&NODE).map(|relay| relay.status))
    }

    #[tokio::test]
    async fn what_is_due_is_done_in_time() {
        let keeper = keeper();
        let timekeeper = tokio::spawn({
            let keeper = Arc::clone(&keeper);
            async move { keeper.keep_time().await }
        });
        tokio::task::yield_now().await; // the timekeeper is asleep before there is anything to wait for
        assert!(matches!(register(&keeper, NODE), Response::Lease(_)));
        assert_eq!(status(&keeper), Some(Status::Registered));
        let ended = async {
            while status(&keeper) != Some(Status::Offline) {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(10), ended).await.unwrap();
        timekeeper.abort();
    }

    #[test]
    fn after_a_fault_it_starts_afresh() {
        let keeper = keeper();
        register(&keeper, NODE);
        let fault =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| keeper.with(|_, _| panic!("fault"))));
        fault.unwrap_err();
        assert_eq!(status(&keeper), None);
        assert!(matches!(register(&keeper, NODE), Response::Lease(_)));
    }
}
