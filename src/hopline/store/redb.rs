//! A store in a file: a redb database on a thread of its own, as each commit waits for the disk.
//!
//! Changes that come in while the disk is busy are committed together, and each is answered once it is durable. Only the last change of a
//! registration counts, so the queue is bounded by the number of nodes; grants and removals wait one by one. After
//! a failure the next change, and a timer of some seconds, try again. Without a data directory the database is in memory and ends with
//! the process.
//!
//! The database's file is also a lock: one data directory serves one bootstrap process at a time.

mod disk;

use super::{Holder, Key, NotStored, Opened, Store, StoreError, StoreFailure, StoreHealth, StoreKind};
use crate::net::clock::Clock;
use disk::{Change, Committed, Disk, Opener, Wanted};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hopline_proto::NodeId;
use hopline_proto::bootstrap::Registration;
use redb::Database;
use redb::backends::InMemoryBackend;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;
use std::{io, mem, thread};
use tokio::sync::oneshot;

const FILE: &str = "bootstrap.redb";
/// What it was called when it held grants alone.
const FORMER_FILE: &str = "grants.redb";
/// How long after a failure it is tried again, if nothing comes in before.
const RETRY: Duration = Duration::from_secs(5);
/// How long it is not tried again, whatever comes in: this at least, and so many times what the attempt took.
const PAUSE: Duration = Duration::from_millis(50);
const PAUSES: u32 = 9;
/// With so many answers waited for, it is looked which of them still are; and again with twice as many.
const MANY_ANSWERS: usize = 1024;

type Answer<T> = oneshot::Sender<Result<T, NotStored>>;

/// A handle on the store's thread. See the module's documentation.
#[derive(Debug)]
struct Redb {
    shared: Arc<Shared>,
    /// All of the table: it is asked for each connection and each request.
    denied: Arc<RwLock<BTreeSet<NodeId>>>,
}

/// What the handle and the thread share.
#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
    health: Mutex<StoreHealth>,
}

/// What waits for the disk.
#[derive(Debug, Default)]
struct Queue {
    wanted: Wanted,
    /// Who waits until what is wanted is there.
    waiting: Vec<Answer<()>>,
    readers: Vec<Answer<Vec<Registration>>>,
    changes: Vec<(Change, Answer<Holder>)>,
    closes: Vec<oneshot::Sender<()>>,
    /// Whether there is anything that the thread has not seen.
    changed: bool,
    /// Whether the thread is to end after this.
    ending: bool,
    /// Whether it has.
    ended: bool,
}

/// Stores in files, made if need be, or in memory.
#[derive(Clone, Copy, Debug)]
pub struct RedbFile;

impl StoreKind for RedbFile {
    fn open(&self, directory: Option<&Path>) -> Result<Opened, StoreError> {
        let Some(directory) = directory else {
            let opener = || Database::builder().create_with_backend(InMemoryBackend::new());
            return Redb::start(Box::new(opener), Path::new("memory"), RETRY);
        };
        let unusable = |source| StoreError::Directory { directory: directory.to_owned(), source };
        std::fs::create_dir_all(directory).map_err(unusable)?;
        let path = directory.join(FILE);
        adopt_former(directory, &path).map_err(unusable)?;
        let file = path.clone();
        Redb::start(Box::new(move || Database::create(&file)), &path, RETRY)
    }
}

impl Redb {
    fn start(opener: Opener, path: &Path, retry: Duration) -> Result<Opened, StoreError> {
        let (disk, contents) = Disk::open(opener).map_err(|source| not_opened(path, source))?;
        let shared = Arc::new(Shared::default());
        let writer = Writer { disk, shared: Arc::clone(&shared), path: path.to_owned(), retry };
        let thread = thread::Builder::new().name("hopline-store".to_owned());
        thread
            .spawn(move || writer.run())
            .map_err(|source| StoreError::Directory { directory: path.to_owned(), source })?;
        let store = Arc::new(Self { shared, denied: Arc::new(RwLock::new(contents.denied)) });
        Ok(Opened { store, registrations: contents.registrations })
    }

    /// What this key's registration shall be, or that there shall be none.
    fn want(
        &self,
        key: Key,
        registration: Option<Registration>,
    ) -> BoxFuture<'static, Result<(), NotStored>> {
        let (answer, answered) = oneshot::channel();
        self.shared.enqueue(|queue| {
            queue.wanted.insert(key, registration);
            if queue.waiting.len() >= MANY_ANSWERS && queue.waiting.len().is_power_of_two() {
                queue.waiting.retain(|answer| !answer.is_closed());
            }
            queue.waiting.push(answer);
        });
        async { answered.await.unwrap_or(Err(NotStored)) }.boxed()
    }

    fn change(&self, change: Change) -> BoxFuture<'static, Result<Holder, NotStored>> {
        let (answer, answered) = oneshot::channel();
        self.shared.enqueue(|queue| queue.changes.push((change, answer)));
        async { answered.await.unwrap_or(Err(NotStored)) }.boxed()
    }
}

impl Store for Redb {
    fn put(&self, registration: Registration) -> BoxFuture<'static, Result<(), NotStored>> {
        self.want(Key::of(&registration), Some(registration))
    }

    fn remove(&self, key: Key) -> BoxFuture<'static, Result<(), NotStored>> {
        self.want(key, None)
    }

    fn registrations(&self) -> BoxFuture<'static, Result<Vec<Registration>, NotStored>> {
        let (answer, answered) = oneshot::channel();
        self.shared.enqueue(|queue| queue.readers.push(answer));
        async { answered.await.unwrap_or(Err(NotStored)) }.boxed()
    }

    fn bind(&self, grant: [u8; 16], node: NodeId) -> BoxFuture<'static, Result<Holder, NotStored>> {
        self.change(Change::Bind { grant, node })
    }

    fn deny(&self, node: NodeId) -> BoxFuture<'static, Result<(), NotStored>> {
        let (denied, changed) = (Arc::clone(&self.denied), self.change(Change::Deny { node }));
        async move {
            changed.await?;
            denied.write().unwrap_or_else(PoisonError::into_inner).insert(node);
            Ok(())
        }
        .boxed()
    }

    fn is_denied(&self, node: &NodeId) -> bool {
        self.denied.read().unwrap_or_else(PoisonError::into_inner).contains(node)
    }

    fn denied(&self) -> Vec<NodeId> {
        self.denied.read().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }

    fn health(&self) -> StoreHealth {
        self.shared.health().clone()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        let (done, closed) = oneshot::channel();
        self.shared.enqueue(|queue| {
            queue.closes.push(done);
            queue.ending = true;
        });
        // Fails only if it is closed already.
        closed.map(drop).boxed()
    }
}

impl Drop for Redb {
    fn drop(&mut self) {
        self.shared.enqueue(|queue| queue.ending = true);
    }
}

impl Shared {
    /// No statement under these locks can leave anything half-changed.
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn health(&self) -> MutexGuard<'_, StoreHealth> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds something for the thread to see to, if that has not ended.
    fn enqueue(&self, add: impl FnOnce(&mut Queue)) {
        let mut queue = self.queue();
        if !queue.ended {
            add(&mut queue);
            queue.changed = true;
            self.wake.notify_one();
        }
    }

    /// Waits for as long as this, or until the store is to be closed.
    fn pause(&self, time: Duration) {
        let waited = self.wake.wait_timeout_while(self.queue(), time, |queue| !queue.ending);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// Waits until there is anything to see to, at most for `limit`; takes it all.
    fn take(&self, limit: Option<Duration>) -> Queue {
        let idle = |queue: &mut Queue| !queue.changed;
        let queue = self.queue();
        let mut queue = match limit {
            None => self.wake.wait_while(queue, idle).unwrap_or_else(PoisonError::into_inner),
            Some(limit) => {
                let waited = self.wake.wait_timeout_while(queue, limit, idle);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
        };
        mem::take(&mut queue)
    }

    /// Has what could not be saved wait on, unless there is a later word on it.
    fn give_back(&self, unsaved: Wanted) {
        let mut queue = self.queue();
        for (key, registration) in unsaved {
            queue.wanted.entry(key).or_insert(registration);
        }
    }
}

/// The store's thread. When it ends, however that is, nobody waits for it any more.
struct Writer {
    disk: Disk,
    shared: Arc<Shared>,
    path: PathBuf,
    retry: Duration,
}

impl Writer {
    fn run(mut self) {
        let (clock, mut took) = (Clock::start(), Duration::ZERO);
        loop {
            let failing = self.shared.health().failing.is_some();
            if failing {
                self.shared.pause((took * PAUSES).max(PAUSE).min(self.retry));
            }
            let Queue { wanted, waiting, readers, changes, closes, ending, .. } =
                self.shared.take(failing.then_some(self.retry));
            let (changes, answers): (Vec<Change>, Vec<Answer<Holder>>) = changes.into_iter().unzip();
            let began = clock.now();
            let outcome = self.disk.commit(&wanted, &changes);
            took = clock.now().since(began);
            let committed = self.note(outcome, wanted);
            for answer in waiting {
                let _ = answer.send(committed.as_ref().map(drop).ok_or(NotStored));
            }
            for answer in readers {
                let _ =
                    answer.send(self.disk.registrations().filter(|_| committed.is_some()).ok_or(NotStored));
            }
            let mut holders = committed.map(|committed| committed.holders.into_iter());
            for answer in answers {
                let _ = answer.send(holders.as_mut().and_then(Iterator::next).ok_or(NotStored));
            }
            if ending {
                drop(self);
                for done in closes {
                    let _ = done.send(()); // whoever asked may have gone
                }
                return;
            }
        }
    }

    /// Takes note of what came of a commit, and says so if that is news.
    fn note(&mut self, outcome: Result<Committed, redb::Error>, mut wanted: Wanted) -> Option<Committed> {
        let mut health = self.shared.health();
        match outcome {
            Ok(committed) => {
                health.unsaved = 0;
                health.writes += u64::from(committed.wrote);
                if health.failing.take().is_some() {
                    tracing::warn!(path = %self.path.display(), "the bootstrap's database can be written again, and is complete");
                }
                Some(committed)
            }
            Err(error) => {
                self.disk.retain_unsaved(&mut wanted);
                health.unsaved = wanted.len();
                health.failures += 1;
                self.shared.give_back(wanted);
                let cause = error.to_string();
                if let Some(failing) = &mut health.failing {
                    failing.cause = cause;
                } else {
                    tracing::error!(
                        path = %self.path.display(),
                        %error,
                        "can't write the bootstrap's database: registrations are kept in memory alone, and single-use tickets \
                         admit nobody; see whether the disk is full or broken. It is tried again every {:?}",
                        self.retry
                    );
                    health.failing = Some(StoreFailure { since: Clock::wall(), cause });
                }
                None
            }
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        *self.shared.queue() = Queue { ended: true, ..Queue::default() };
    }
}

/// A database of the name that it had before.
fn adopt_former(directory: &Path, path: &Path) -> io::Result<()> {
    let former = directory.join(FORMER_FILE);
    if former.try_exists()? && !path.try_exists()? { std::fs::rename(former, path) } else { Ok(()) }
}

fn not_opened(path: &Path, source: redb::Error) -> StoreError {
    let directory = || path.parent().unwrap_or(path).to_owned();
    if matches!(source, redb::Error::DatabaseAlreadyOpen) {
        StoreError::InUse { directory: directory() }
    } else {
        StoreError::Database { path: path.to_owned(), source: source.into() }
    }
}

#[cfg(test)]
mod tests;
