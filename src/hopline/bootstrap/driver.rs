//! Drives the bootstrap's machine: passes it the time and requests, publishes its events, and wakes when something is due.
//!
//! It also keeps the store in step with the machine. Records are put and removed while the machine is locked, so that both agree on
//! the order.

use super::events::{BootstrapEvent, EventFeed};
use crate::net::clock::Clock;
use crate::net::entropy;
use crate::store::{self, NotStored, Store};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, try_join_all};
use hopline_proto::bootstrap::kept::Change;
use hopline_proto::bootstrap::{Bootstrap, Config, Registration};
use hopline_proto::crypto::Key;
use hopline_proto::pool::PoolEvent;
use hopline_proto::rpc::{Refusal, Request, Response};
use hopline_proto::{NodeId, Time};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{sleep_until, timeout};

/// When to come again while the store is being read after a fault.
const RESTORING: Duration = Duration::from_millis(200);
/// How long that may take.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// The machine and its driver. See the module's documentation.
#[derive(Debug)]
pub(super) struct Driver {
    /// Held for the length of one question, never while anything waits.
    machine: Mutex<Bootstrap>,
    config: Config,
    network_secret: Key,
    store: Arc<dyn Store>,
    clock: Clock,
    rearm: Notify,
    event_feed: EventFeed,
    started_at: Time,
    /// Whether the machine was made anew and knows nobody yet: until the store is read, everybody is told to come later.
    is_new: AtomicBool,
}

/// Ends when a registration, or that there is none any more, is durable, or can't be for now.
type Saving = BoxFuture<'static, Result<(), NotStored>>;

impl Driver {
    /// A machine that knows nobody yet but those that were removed from the network.
    pub(super) fn new(config: Config, network_secret: Key, store: Arc<dyn Store>) -> Self {
        let clock = Clock::start();
        let started_at = clock.now();
        let machine = Mutex::new(new_machine(config, &network_secret, store.as_ref(), started_at));
        let (rearm, event_feed) = (Notify::new(), EventFeed::default());
        let is_new = AtomicBool::new(false);
        Self { machine, config, network_secret, store, clock, rearm, event_feed, started_at, is_new }
    }

    /// Gives everybody in the store their places back. Those for whom there is none are taken out of it.
    pub(super) fn restore(&self, registrations: Vec<Registration>) {
        self.with(|machine, now| {
            for registration in registrations {
                let key = store::Key::of(&registration);
                // A node that was removed from the network has no place to come back to.
                if self.store.is_denied(&key.node) || !machine.restore(registration, now) {
                    drop(self.store.remove(key));
                }
            }
        });
    }

    /// Answers a question of the member `node`. If it registered, or deregistered, the answer is to wait until that is
    /// durable.
    pub(super) fn answer(&self, node: NodeId, request: Request) -> (Response, Option<Saving>) {
        self.with(|machine, now| {
            if self.is_new.load(Ordering::Relaxed) {
                // Nobody shall take another's place, or register for nothing.
                return (Response::Refused(Refusal::Throttled { retry_after: RESTORING }), None);
            }
            let (response, changes) = machine.answer_kept(node, request, now);
            let saving = (!changes.is_empty()).then(|| self.keep(changes));
            (response, saving)
        })
    }

    fn keep(&self, changes: Vec<Change>) -> Saving {
        let kept: Vec<Saving> = changes
            .into_iter()
            .map(|change| match change {
                Change::Put(registration) => self.store.put(registration),
                Change::Remove(key) => self.store.remove(key),
            })
            .collect();
        async { try_join_all(kept).await.map(drop) }.boxed()
    }

    pub(super) const fn started_at(&self) -> Time {
        self.started_at
    }

    /// Where what happens to the pool is told.
    pub(super) const fn event_feed(&self) -> &EventFeed {
        &self.event_feed
    }

    /// Lets `f` use the machine at the present time.
    pub(super) fn with<T>(&self, f: impl FnOnce(&mut Bootstrap, Time) -> T) -> T {
        let mut machine = self.machine();
        let (due, now) = (machine.poll_timeout(), self.clock.now());
        // Each time, as the wall clock may be set at any moment.
        machine.set_clock(Clock::wall(), now);
        let result = f(&mut machine, now);
        let events = machine.take_events();
        events.iter().filter_map(|event| machine.lost(event)).for_each(|key| drop(self.store.remove(key)));
        let events: Vec<BootstrapEvent> =
            events.into_iter().map(|event| BootstrapEvent::new(event, &machine, now)).collect();
        // Still under the lock, so that everybody hears of things in the order in which they happened.
        events.iter().for_each(|event| self.event_feed.publish(event));
        let due_changed = machine.poll_timeout() != due;
        drop(machine);
        events.iter().for_each(log);
        if due_changed {
            self.rearm.notify_one();
        }
        result
    }

    /// Has the machine do what is due, and look for it at least once each [`Config::sweep`]. Never ends.
    pub(super) async fn run_timers(&self) {
        let mut swept = self.clock.now();
        loop {
            if self.is_new.load(Ordering::Relaxed) {
                match timeout(READ_TIMEOUT, self.store.registrations()).await {
                    Ok(Ok(records)) => self.restore(records),
                    Ok(Err(_)) | Err(_) => {
                        tracing::warn!("the store can't be read; nodes have to register again")
                    }
                }
                self.is_new.store(false, Ordering::Relaxed);
            }
            let due = self.machine().poll_timeout().unwrap_or(Time::MAX).min(swept + self.config.sweep);
            tokio::select! {
                () = sleep_until(self.clock.instant(due)) => self.with(|machine, now| {
                    // The clock is finer than tokio's timers, and a far deadline is slept for in parts.
                    if due <= now {
                        machine.handle_timeout(now);
                        swept = now;
                    }
                }),
                () = self.rearm.notified() => {}
            }
        }
    }

    /// The machine; a new one if a fault of ours left it in the middle of something. It knows nobody until the store is read.
    fn machine(&self) -> MutexGuard<'_, Bootstrap> {
        self.machine.lock().unwrap_or_else(|poisoned| {
            tracing::error!("the bootstrap failed over a question and starts afresh; please report this");
            let mut machine = poisoned.into_inner();
            *machine = new_machine(self.config, &self.network_secret, self.store.as_ref(), self.clock.now());
            self.machine.clear_poison();
            self.is_new.store(true, Ordering::Relaxed);
            self.rearm.notify_one();
            machine
        })
    }
}

fn new_machine(config: Config, network_secret: &Key, store: &dyn Store, now: Time) -> Bootstrap {
    let mut machine = Bootstrap::new(config, network_secret.clone(), entropy::seeded_rng(), now);
    store.denied().into_iter().for_each(|node| machine.revoke(node, now));
    machine
}

fn log(event: &BootstrapEvent) {
    let what = match &event.kind {
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
        PoolEvent::Unreached(_) => {
            "others can't reach this relay at the address that it offers; new flows avoid it for a while: check its --advertise, \
             firewall or NAT"
        }
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
    match event.node() {
        Some(node) => tracing::info!(node = %node.short(), name = event.name, "{what}"),
        None => tracing::info!("{what}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hopline_proto::BootId;
    use hopline_proto::rpc::{Offer, Status};

    const NODE: NodeId = NodeId::from_bytes([1; 32]);
    const BOOT: BootId = BootId::from_bytes([1; 16]);

    fn driver() -> Arc<Driver> {
        let mut config = Config::default();
        config.pool.lease = Duration::from_millis(100);
        let store = store::StoreKind::open(&store::redb::RedbFile, None).unwrap().store;
        Arc::new(Driver::new(config, Key::from_bytes([1; 32]), store))
    }

    fn register(driver: &Driver, node: NodeId) -> Response {
        let address = "127.0.0.1:1".parse().unwrap();
        let offer = Offer::relay(address, "", 1);
        let request = Request::Register { name: "r1".to_owned(), offer, boot: BOOT };
        driver.with(|machine, now| machine.answer(node, request, now))
    }

    fn status(driver: &Driver) -> Option<Status> {
        driver.with(|machine, _| machine.pool().get(&NODE).map(|relay| relay.status))
    }

    #[tokio::test]
    async fn what_is_due_is_done_in_time() {
        let driver = driver();
        let timekeeper = tokio::spawn({
            let driver = Arc::clone(&driver);
            async move { driver.run_timers().await }
        });
        tokio::task::yield_now().await; // the timekeeper is asleep before there is anything to wait for
        assert!(matches!(register(&driver, NODE), Response::Lease(_)));
        assert_eq!(status(&driver), Some(Status::Registered));
        let ended = async {
            while status(&driver) != Some(Status::Offline) {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(10), ended).await.unwrap();
        timekeeper.abort();
    }

    #[tokio::test]
    async fn after_a_fault_it_starts_afresh_and_reads_the_store() {
        let driver = driver();
        let offer = Offer::relay("127.0.0.1:1".parse().unwrap(), "", 1);
        let register = Request::Register { name: "r1".to_owned(), offer, boot: BOOT };
        let (response, saving) = driver.answer(NODE, register);
        assert!(matches!(response, Response::Lease(_)));
        saving.expect("it is to be kept").await.unwrap();
        let fault =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| driver.with(|_, _| panic!("fault"))));
        fault.unwrap_err();
        assert_eq!(status(&driver), None);
        let timekeeper = tokio::spawn({
            let driver = Arc::clone(&driver);
            async move { driver.run_timers().await }
        });
        let restored = async {
            while status(&driver).is_none() {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(10), restored).await.unwrap();
        let (response, saving) = driver.answer(NODE, Request::Deregister { boot: BOOT });
        assert_eq!(response, Response::Done);
        saving.expect("nor is it to come back").await.unwrap();
        assert_eq!(driver.store.registrations().await, Ok(Vec::new()));
        timekeeper.abort();
    }
}
