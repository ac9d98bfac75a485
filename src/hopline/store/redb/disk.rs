//! The database itself: its tables, and what it takes to write to a disk that may fail.
//!
//! redb does nothing more after a write that failed, until it is opened anew; nor is it known then how much of that write is
//! there. So after a failure the database is opened and read again with the next attempt.

use super::super::{Holder, Key, Kind, codec};
use hopline_proto::bootstrap::Registration;
use hopline_proto::{NodeId, Time};
use redb::{Database, DatabaseError, ReadTransaction, ReadableDatabase, ReadableTable};
use redb::{TableDefinition, WriteTransaction};
use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::BuildHasher;

/// Ticket id to the node it admitted.
const GRANTS: TableDefinition<'_, &[u8; 16], &[u8; 32]> = TableDefinition::new("grants");
/// Nodes that were removed.
const DENIED: TableDefinition<'_, &[u8; 32], ()> = TableDefinition::new("denied");
/// What nodes registered, by node and [`Kind`].
const REGISTRATIONS: TableDefinition<'_, (&[u8; 32], u8), &[u8]> = TableDefinition::new("registrations");

const TABLES: usize = 3;

/// Opens the database, again and again if need be.
pub(super) type Opener = Box<dyn Fn() -> Result<Database, DatabaseError> + Send>;

/// A change that somebody waits for, and that is made durable or not at all.
#[derive(Clone, Copy, Debug)]
pub(super) enum Change {
    Bind { grant: [u8; 16], node: NodeId },
    Deny { node: NodeId },
}

/// What registrations shall be: there, or gone.
pub(super) type Wanted = BTreeMap<Key, Option<Registration>>;

/// What a database holds when it is opened.
#[derive(Debug, Default)]
pub(super) struct Contents {
    pub(super) denied: BTreeSet<NodeId>,
    pub(super) registrations: Vec<Registration>,
}

/// See the module's documentation.
pub(super) struct Disk {
    opener: Opener,
    /// `None` after a failure.
    database: Option<Database>,
    /// What is on disk: a fingerprint of each registration.
    saved: HashMap<Key, u64>,
    /// Whether that is what the database said when it was opened last.
    is_read: bool,
    hasher: RandomState,
}

impl Disk {
    pub(super) fn open(opener: Opener) -> Result<(Self, Contents), redb::Error> {
        let database = opener()?;
        make_tables(&database)?;
        let (saved, hasher) = (HashMap::new(), RandomState::new());
        let mut disk = Self { opener, database: None, saved, is_read: true, hasher };
        let contents = disk.read(&database)?;
        disk.database = Some(database);
        Ok((disk, contents))
    }

    /// Makes all this durable at once; what came of each change, in order.
    pub(super) fn commit(&mut self, wanted: &Wanted, changes: &[Change]) -> Result<Committed, redb::Error> {
        let kept = self.database.take();
        // After a failure only a write shows that there can be writes again.
        let must_write = kept.is_none();
        let database = match kept {
            Some(database) => database,
            None => self.reopen()?,
        };
        let committed = self.write(&database, wanted, changes, must_write)?;
        self.database = Some(database);
        Ok(committed)
    }

    /// Keeps of `wanted` only what is not on disk yet, if it is known what is.
    pub(super) fn retain_unsaved(&self, wanted: &mut Wanted) {
        if !self.is_read {
            return;
        }
        wanted.retain(|key, registration| {
            self.saved.get(key).copied() != self.fingerprint(registration.as_ref())
        });
    }

    /// All that is there; `None` if it can't be read.
    pub(super) fn registrations(&self) -> Option<Vec<Registration>> {
        let transaction = self.database.as_ref()?.begin_read().ok()?;
        read_registrations(&transaction).ok()
    }

    fn reopen(&mut self) -> Result<Database, redb::Error> {
        self.is_read = false;
        let database = (self.opener)()?;
        self.read(&database)?;
        self.is_read = true;
        Ok(database)
    }

    fn write(
        &mut self,
        database: &Database,
        wanted: &Wanted,
        changes: &[Change],
        must_write: bool,
    ) -> Result<Committed, redb::Error> {
        let mut transaction = database.begin_write()?;
        // Else the next start after a crash reads all of the file.
        transaction.set_quick_repair(true);
        let (holders, changed) = write_changes(&transaction, changes)?;
        let fresh = self.fresh(wanted);
        write_registrations(&transaction, &fresh)?;
        let wrote = must_write || changed || !fresh.is_empty();
        if !wrote {
            transaction.abort()?;
            return Ok(Committed { holders, wrote });
        }
        transaction.commit()?;
        for New { key, fingerprint, .. } in fresh {
            match fingerprint {
                Some(fingerprint) => self.saved.insert(key, fingerprint),
                None => self.saved.remove(&key),
            };
        }
        Ok(Committed { holders, wrote })
    }

    /// What is not on disk yet.
    fn fresh<'a>(&self, wanted: &'a Wanted) -> Vec<New<'a>> {
        let new = |(key, registration): (&Key, &'a Option<Registration>)| {
            let registration = registration.as_ref();
            let fingerprint = self.fingerprint(registration);
            (self.saved.get(key).copied() != fingerprint).then_some(New {
                key: *key,
                registration,
                fingerprint,
            })
        };
        wanted.iter().filter_map(new).collect()
    }

    /// Reads all of a database that was just opened.
    fn read(&mut self, database: &Database) -> Result<Contents, redb::Error> {
        let mut contents = Contents::default();
        let transaction = database.begin_read()?;
        for node in transaction.open_table(DENIED)?.iter()? {
            contents.denied.insert(NodeId::from_bytes(*node?.0.value()));
        }
        contents.registrations = read_registrations(&transaction)?;
        let prints = contents.registrations.iter().filter_map(|registration| {
            self.fingerprint(Some(registration)).map(|print| (Key::of(registration), print))
        });
        self.saved = prints.collect();
        Ok(contents)
    }

    /// When a node took its place does not count: it registers the same again without a write.
    fn fingerprint(&self, registration: Option<&Registration>) -> Option<u64> {
        let timeless = Registration { registered_at: Time::ZERO, ..registration?.clone() };
        Some(self.hasher.hash_one(codec::encode(&timeless)))
    }
}

/// A registration, or the end of one, that is not on disk yet.
struct New<'a> {
    key: Key,
    registration: Option<&'a Registration>,
    fingerprint: Option<u64>,
}

/// What came of a commit.
pub(super) struct Committed {
    pub(super) holders: Vec<Holder>,
    /// Whether the disk was written at all.
    pub(super) wrote: bool,
}

const fn number(kind: Kind) -> u8 {
    match kind {
        Kind::Relay => 0,
        Kind::Target => 1,
    }
}

fn read_registrations(transaction: &ReadTransaction) -> Result<Vec<Registration>, redb::Error> {
    let mut registrations = Vec::new();
    for entry in transaction.open_table(REGISTRATIONS)?.iter()? {
        let (place, bytes) = entry?;
        match codec::decode(bytes.value()) {
            Ok(registration) => registrations.push(registration),
            // The node will register again by itself, which replaces this.
            Err(error) => {
                let node = NodeId::from_bytes(*place.value().0);
                tracing::warn!(%node, %error, "a stored registration can't be read");
            }
        }
    }
    Ok(registrations)
}

/// Writes nothing if they are there: also on a disk that is full a bootstrap is to start.
fn make_tables(database: &Database) -> Result<(), redb::Error> {
    if database.begin_read()?.list_tables()?.count() >= TABLES {
        return Ok(());
    }
    let mut transaction = database.begin_write()?;
    transaction.set_quick_repair(true);
    transaction.open_table(GRANTS)?;
    transaction.open_table(DENIED)?;
    transaction.open_table(REGISTRATIONS)?;
    Ok(transaction.commit()?)
}

/// Writes changes; what came of each, and whether any changed anything.
fn write_changes(
    transaction: &WriteTransaction,
    changes: &[Change],
) -> Result<(Vec<Holder>, bool), redb::Error> {
    let mut grants = transaction.open_table(GRANTS)?;
    let mut denied = transaction.open_table(DENIED)?;
    let (mut holders, mut changed) = (Vec::new(), false);
    for change in changes {
        let (holder, is_new) = match change {
            Change::Bind { grant, node } => bind(&mut grants, grant, node)?,
            Change::Deny { node } => (Holder::Asker, denied.insert(node.as_bytes(), ())?.is_none()),
        };
        holders.push(holder);
        changed |= is_new;
    }
    Ok((holders, changed))
}

fn write_registrations(transaction: &WriteTransaction, fresh: &[New<'_>]) -> Result<(), redb::Error> {
    let mut table = transaction.open_table(REGISTRATIONS)?;
    for New { key, registration, .. } in fresh {
        let place = (key.node.as_bytes(), number(key.kind));
        match registration {
            Some(registration) => drop(table.insert(place, codec::encode(registration).as_slice())?),
            None => drop(table.remove(place)?),
        }
    }
    Ok(())
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
