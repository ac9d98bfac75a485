//! What a bootstrap must not forget: which node each single-use ticket admitted, and which nodes were removed.
//!
//! A redb database on a thread of its own, as each commit waits for the disk; whoever asks is answered once it is there.
//! What comes in while the disk is busy is committed together. Without a data directory the database is in memory, and
//! the process's end forgets it.
//!
//! The database's file is also the lock by which one data directory serves one bootstrap process at a time.

use crate::net::error::ErrorKind;
use crate::proto::NodeId;
use redb::backends::InMemoryBackend;
use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition};
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread;
use tokio::sync::{mpsc, oneshot};

const FILE: &str = "grants.redb";
/// Ticket id to the node it admitted.
const GRANTS: TableDefinition<'_, &[u8; 16], &[u8; 32]> = TableDefinition::new("grants");
/// Nodes that were removed.
const DENIED: TableDefinition<'_, &[u8; 32], ()> = TableDefinition::new("denied");
/// Changes that may wait for the disk. Whoever comes then waits for a place.
const QUEUED: usize = 256;

/// Why the store could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process has it open.
    #[error(
        "another bootstrap process is running with the data directory {directory}; stop it first, or choose another \
         directory with --data"
    )]
    InUse {
        /// The directory.
        directory: PathBuf,
    },
    /// The directory can't be had.
    #[error("can't use {directory}: {source}; choose a directory this user may write, with --data")]
    Directory {
        /// The directory.
        directory: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The database's file is damaged, or can't be written.
    #[error(
        "can't use {path}: {source}; restore it from a backup, or remove it, but then single-use tickets that were used \
         admit another node, and removed nodes may come back"
    )]
    Database {
        /// The file.
        path: PathBuf,
        /// What redb said.
        source: redb::Error,
    },
}

impl StoreError {
    /// What to do about it: always [`ErrorKind::Local`].
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        ErrorKind::Local
    }
}

/// The change is not on disk. The cause is in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the bootstrap's database can't be written; see its log")]
pub struct NotStored;

/// Whose a single-use ticket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holder {
    /// The one's who asked, now or before.
    Asker,
    /// Another node's.
    Another,
}

/// A handle on the store's thread.
#[derive(Debug)]
pub(super) struct Store {
    commands: mpsc::Sender<Command>,
    /// All of the table: it is asked for each connection and each request.
    denied: Arc<RwLock<BTreeSet<NodeId>>>,
}

#[derive(Debug)]
enum Command {
    Change(Change, oneshot::Sender<Result<Holder, NotStored>>),
    Close(oneshot::Sender<()>),
}

#[derive(Clone, Copy, Debug)]
enum Change {
    Bind { grant: [u8; 16], node: NodeId },
    Deny { node: NodeId },
}

impl Store {
    /// The store in `directory`, made if need be, or one in memory. Blocks.
    pub(super) fn open(directory: Option<&Path>) -> Result<Self, StoreError> {
        let path = directory.map_or_else(|| PathBuf::from("memory"), |directory| directory.join(FILE));
        let failed = |source| StoreError::Database { path: path.clone(), source };
        let database = match directory {
            None => Database::builder()
                .create_with_backend(InMemoryBackend::new())
                .map_err(|e| failed(e.into()))?,
            Some(directory) => open_file(directory, &path)?,
        };
        let denied = read_denied(&database).map_err(failed)?;
        let (commands, queue) = mpsc::channel(QUEUED);
        let (directory, owner) = (path.clone(), thread::Builder::new().name("hopline-store".to_owned()));
        owner
            .spawn(move || run(database, &path, queue))
            .map_err(|source| StoreError::Directory { directory, source })?;
        Ok(Self { commands, denied: Arc::new(RwLock::new(denied)) })
    }

    /// Gives the ticket to `node` if it is nobody's yet, durably; whose it is then.
    pub(super) async fn bind(&self, grant: [u8; 16], node: NodeId) -> Result<Holder, NotStored> {
        self.change(Change::Bind { grant, node }).await
    }

    /// Refuses `node` from now on, durably.
    pub(super) async fn deny(&self, node: NodeId) -> Result<(), NotStored> {
        self.change(Change::Deny { node }).await?;
        self.denied.write().unwrap_or_else(PoisonError::into_inner).insert(node);
        Ok(())
    }

    /// Whether `node` was removed.
    pub(super) fn is_denied(&self, node: &NodeId) -> bool {
        self.denied.read().unwrap_or_else(PoisonError::into_inner).contains(node)
    }

    /// What is wrong, in a sentence; `None` while it keeps what it is given.
    pub(super) fn trouble(&self) -> Option<String> {
        self.commands.is_closed().then(|| "the database is closed".to_owned())
    }

    /// Closes the database, after the changes that wait: then another process may open it.
    pub(super) async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.commands.send(Command::Close(done)).await.is_ok() {
            let _ = closed.await; // fails only if it is closed already
        }
    }

    async fn change(&self, change: Change) -> Result<Holder, NotStored> {
        let (answer, answered) = oneshot::channel();
        self.commands.send(Command::Change(change, answer)).await.map_err(|_| NotStored)?;
        answered.await.map_err(|_| NotStored)?
    }
}

fn open_file(directory: &Path, path: &Path) -> Result<Database, StoreError> {
    let directory = directory.to_owned();
    if let Err(source) = std::fs::create_dir_all(&directory) {
        return Err(StoreError::Directory { directory, source });
    }
    Database::create(path).map_err(|error| {
        if matches!(error, DatabaseError::DatabaseAlreadyOpen) {
            StoreError::InUse { directory }
        } else {
            StoreError::Database { path: path.to_owned(), source: error.into() }
        }
    })
}

/// Makes the tables, and reads the one that is kept in memory too.
fn read_denied(database: &Database) -> Result<BTreeSet<NodeId>, redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_quick_repair(true);
    transaction.open_table(GRANTS)?;
    transaction.open_table(DENIED)?;
    transaction.commit()?;
    let transaction = database.begin_read()?;
    let table = transaction.open_table(DENIED)?;
    let nodes = table.iter()?;
    nodes.map(|node| Ok(NodeId::from_bytes(*node?.0.value()))).collect()
}

/// The store's thread.
fn run(database: Database, path: &Path, mut queue: mpsc::Receiver<Command>) {
    let mut waiting = Vec::new();
    while queue.blocking_recv_many(&mut waiting, QUEUED) > 0 {
        let mut closing = None;
        let mut changes = Vec::new();
        for command in waiting.drain(..) {
            match command {
                Command::Change(change, answer) => changes.push((change, answer)),
                Command::Close(done) => closing = Some(done),
            }
        }
        let outcome = commit(&database, changes.iter().map(|(change, _)| *change));
        if let Err(error) = &outcome {
            tracing::error!(path = %path.display(), %error, "can't write the bootstrap's database; is the disk full?");
        }
        let mut holders = outcome.map(Vec::into_iter);
        for (_, answer) in changes {
            let holder = holders.as_mut().ok().and_then(Iterator::next).ok_or(NotStored);
            let _ = answer.send(holder); // whoever asked may have gone
        }
        if let Some(done) = closing {
            drop((database, queue));
            let _ = done.send(());
            return;
        }
    }
}

/// Makes all these changes durable at once; what came of each, in order.
fn commit(database: &Database, changes: impl Iterator<Item = Change>) -> Result<Vec<Holder>, redb::Error> {
    let mut transaction = database.begin_write()?;
    // Else the next start after a crash reads all of the file.
    transaction.set_quick_repair(true);
    let (mut holders, mut changed) = (Vec::new(), false);
    {
        let mut grants = transaction.open_table(GRANTS)?;
        let mut denied = transaction.open_table(DENIED)?;
        for change in changes {
            let (holder, news) = match change {
                Change::Bind { grant, node } => bind(&mut grants, &grant, &node),
                Change::Deny { node } => {
                    denied.insert(node.as_bytes(), ()).map(|before| (Holder::Asker, before.is_none()))
                }
            }?;
            holders.push(holder);
            changed |= news;
        }
    }
    if changed {
        transaction.commit()?;
    } else {
        transaction.abort()?;
    }
    Ok(holders)
}

/// Whose the ticket is, and whether that is new.
fn bind(
    grants: &mut redb::Table<'_, &'static [u8; 16], &'static [u8; 32]>,
    grant: &[u8; 16],
    node: &NodeId,
) -> Result<(Holder, bool), redb::StorageError> {
    let holder = grants.get(grant)?.map(|holder| *holder.value());
    match holder {
        Some(holder) if holder == *node.as_bytes() => Ok((Holder::Asker, false)),
        Some(_) => Ok((Holder::Another, false)),
        None => {
            grants.insert(grant, node.as_bytes())?;
            Ok((Holder::Asker, true))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: NodeId = NodeId::from_bytes([1; 32]);
    const BOB: NodeId = NodeId::from_bytes([2; 32]);

    #[tokio::test]
    async fn a_ticket_is_its_first_users_for_ever() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(Some(directory.path())).unwrap();
        assert_eq!(store.bind([7; 16], ALICE).await, Ok(Holder::Asker));
        assert_eq!(store.bind([7; 16], BOB).await, Ok(Holder::Another));
        assert_eq!(store.bind([8; 16], BOB).await, Ok(Holder::Asker));
        store.close().await;
        assert_eq!(store.bind([7; 16], ALICE).await, Err(NotStored), "closed");
        let store = Store::open(Some(directory.path())).unwrap();
        assert_eq!(store.bind([7; 16], ALICE).await, Ok(Holder::Asker));
        assert_eq!(store.bind([7; 16], BOB).await, Ok(Holder::Another));
    }

    #[tokio::test]
    async fn of_many_who_come_at_once_one_gets_the_ticket() {
        let store = Store::open(None).unwrap();
        let nodes: Vec<NodeId> = (0..100).map(|n| NodeId::from_bytes([n; 32])).collect();
        let asked = nodes.iter().map(|node| store.bind([7; 16], *node));
        let holders = futures_util::future::join_all(asked).await;
        assert_eq!(holders.iter().filter(|holder| **holder == Ok(Holder::Asker)).count(), 1);
    }

    #[tokio::test]
    async fn a_removed_node_stays_removed() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(Some(directory.path())).unwrap();
        assert!(!store.is_denied(&ALICE));
        store.deny(ALICE).await.unwrap();
        store.deny(ALICE).await.unwrap();
        assert!(store.is_denied(&ALICE) && !store.is_denied(&BOB));
        store.close().await;
        let store = Store::open(Some(directory.path())).unwrap();
        assert!(store.is_denied(&ALICE) && !store.is_denied(&BOB));
    }

    #[tokio::test]
    async fn one_directory_serves_one_process() {
        let directory = tempfile::tempdir().unwrap();
        let _store = Store::open(Some(directory.path())).unwrap();
        let error = Store::open(Some(directory.path())).unwrap_err();
        assert!(matches!(error, StoreError::InUse { .. }), "{error}");
        assert!(error.to_string().contains(directory.path().to_str().unwrap()));
    }

    #[test]
    fn what_is_no_database_is_named() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(FILE), "no database").unwrap();
        let error = Store::open(Some(directory.path())).unwrap_err();
        assert!(matches!(error, StoreError::Database { .. }) && error.to_string().contains(FILE), "{error}");
        let error = Store::open(Some(&directory.path().join(FILE))).unwrap_err();
        assert!(matches!(error, StoreError::Directory { .. }), "{error}");
    }
}
