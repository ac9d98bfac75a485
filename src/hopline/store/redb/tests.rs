use super::*;
use crate::store::Kind;
use hopline_proto::Time;
use hopline_proto::rpc::Offer;
use redb::StorageBackend;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::task::yield_now;
use tokio::time::{Instant, timeout};

const ALICE: NodeId = NodeId::from_bytes([1; 32]);
const BOB: NodeId = NodeId::from_bytes([2; 32]);
const TIMEOUT: Duration = Duration::from_secs(10);
/// So long that no test waits for it.
const NEVER: Duration = Duration::from_secs(3600);

fn open(directory: &Path) -> Opened {
    RedbFile.open(Some(directory)).unwrap()
}

fn relay(node: NodeId, capacity: u32) -> Registration {
    let offer = Offer::relay("127.0.0.1:1".parse().unwrap(), "z", capacity);
    Registration { node, name: "r".to_owned(), offer, registered_at: Time::from_micros(7) }
}

fn target(node: NodeId) -> Registration {
    let offer = Offer::Target { names: vec!["x".to_owned()], attachments: vec![ALICE] };
    Registration { node, name: "t".to_owned(), offer, registered_at: Time::from_micros(8) }
}

fn nodes(count: u16) -> impl Iterator<Item = NodeId> {
    (0..count).map(|n| {
        let mut bytes = [0; 32];
        bytes[..2].copy_from_slice(&n.to_be_bytes());
        NodeId::from_bytes(bytes)
    })
}

/// Waits until the store's health is so.
async fn until(store: &Arc<dyn Store>, is_so: impl Fn(&StoreHealth) -> bool) -> StoreHealth {
    let waiting = async {
        loop {
            let health = store.health();
            if is_so(&health) {
                return health;
            }
            yield_now().await;
        }
    };
    timeout(TIMEOUT, waiting).await.expect("a change of the store's health")
}

#[tokio::test]
async fn a_ticket_is_its_first_users_for_ever() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).store;
    assert_eq!(store.bind([7; 16], ALICE).await, Ok(Holder::Asker));
    assert_eq!(store.bind([7; 16], BOB).await, Ok(Holder::Another));
    assert_eq!(store.bind([8; 16], BOB).await, Ok(Holder::Asker));
    store.close().await;
    assert_eq!(store.bind([7; 16], ALICE).await, Err(NotStored), "closed");
    assert_eq!(store.put(relay(ALICE, 1)).await, Err(NotStored), "closed");
    let store = open(directory.path()).store;
    assert_eq!(store.bind([7; 16], ALICE).await, Ok(Holder::Asker));
    assert_eq!(store.bind([7; 16], BOB).await, Ok(Holder::Another));
}

#[tokio::test]
async fn of_many_who_come_at_once_one_gets_the_ticket() {
    let store = RedbFile.open(None).unwrap().store;
    let asked = nodes(100).map(|node| store.bind([7; 16], node));
    let holders = futures_util::future::join_all(asked).await;
    assert_eq!(holders.iter().filter(|holder| **holder == Ok(Holder::Asker)).count(), 1);
}

#[tokio::test]
async fn a_removed_node_stays_removed() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).store;
    assert!(!store.is_denied(&ALICE));
    store.deny(ALICE).await.unwrap();
    store.deny(ALICE).await.unwrap();
    assert!(store.is_denied(&ALICE) && !store.is_denied(&BOB));
    store.close().await;
    let store = open(directory.path()).store;
    assert!(store.is_denied(&ALICE) && !store.is_denied(&BOB));
    assert_eq!(store.denied(), [ALICE]);
}

#[tokio::test]
async fn one_directory_serves_one_process() {
    let directory = tempfile::tempdir().unwrap();
    let _opened = open(directory.path());
    let error = RedbFile.open(Some(directory.path())).unwrap_err();
    assert!(matches!(error, StoreError::InUse { .. }), "{error}");
    assert!(error.to_string().contains(directory.path().to_str().unwrap()));
}

#[test]
fn what_is_no_database_is_named() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join(FILE), "no database").unwrap();
    let error = RedbFile.open(Some(directory.path())).unwrap_err();
    assert!(matches!(error, StoreError::Database { .. }) && error.to_string().contains(FILE), "{error}");
    let error = RedbFile.open(Some(&directory.path().join(FILE))).unwrap_err();
    assert!(matches!(error, StoreError::Directory { .. }), "{error}");
}

#[tokio::test]
async fn registrations_outlive_the_process_and_the_last_word_counts() {
    let directory = tempfile::tempdir().unwrap();
    let Opened { store, registrations } = open(directory.path());
    assert_eq!(registrations, []);
    store.put(relay(ALICE, 1)).await.unwrap();
    store.put(target(ALICE)).await.unwrap();
    store.put(relay(BOB, 1)).await.unwrap();
    drop(store.put(relay(ALICE, 2)));
    store.remove(Key { node: BOB, kind: Kind::Relay }).await.unwrap();
    assert_eq!(store.registrations().await.unwrap().len(), 2, "what was put is there, and BOB is not");
    drop(store.remove(Key { node: BOB, kind: Kind::Target }));
    store.close().await;
    assert_eq!(store.registrations().await, Err(NotStored), "closed");
    assert_eq!(open(directory.path()).registrations, [relay(ALICE, 2), target(ALICE)]);
}

#[tokio::test]
async fn who_registers_the_same_again_costs_no_write() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).store;
    store.put(relay(ALICE, 1)).await.unwrap();
    assert_eq!(store.health().writes, 1);
    let later = Registration { registered_at: Time::from_micros(99), ..relay(ALICE, 1) };
    store.put(later.clone()).await.unwrap();
    assert_eq!(store.health().writes, 1);
    store.close().await;
    let store = open(directory.path()).store;
    store.put(later).await.unwrap();
    assert_eq!(store.health().writes, 0, "nor after a restart");
    store.put(relay(ALICE, 2)).await.unwrap();
    assert_eq!(store.health().writes, 1);
}

#[tokio::test]
async fn many_registrations_share_a_write_and_are_read_quickly() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).store;
    let puts: Vec<_> = nodes(10_000).map(|node| store.put(relay(node, 1))).collect();
    for put in puts {
        put.await.unwrap();
    }
    assert!(store.health().writes < 100, "{:?}", store.health());
    store.close().await;
    let before = Instant::now();
    let opened = open(directory.path());
    assert_eq!(opened.registrations.len(), 10_000);
    assert!(before.elapsed() < Duration::from_secs(1), "{:?}", before.elapsed());
}

#[tokio::test]
async fn a_database_of_the_former_name_is_adopted() {
    let directory = tempfile::tempdir().unwrap();
    let former = directory.path().join(FORMER_FILE);
    let grants: redb::TableDefinition<'_, &[u8; 16], &[u8; 32]> = redb::TableDefinition::new("grants");
    let database = Database::create(&former).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(grants).unwrap().insert(&[7; 16], ALICE.as_bytes()).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let store = open(directory.path()).store;
    assert_eq!(store.bind([7; 16], BOB).await, Ok(Holder::Another));
    assert!(!former.exists() && directory.path().join(FILE).exists());
}

/// A disk that can be full.
#[derive(Clone, Debug, Default)]
struct Flaky {
    bytes: Arc<InMemoryBackend>,
    full: Arc<AtomicBool>,
}

impl Flaky {
    fn store(&self, retry: Duration) -> Opened {
        let disk = self.clone();
        let opener = move || Database::builder().create_with_backend(disk.clone());
        Redb::start(Box::new(opener), Path::new("flaky"), retry).unwrap()
    }

    fn set_full(&self, full: bool) {
        self.full.store(full, Ordering::SeqCst);
    }

    fn writable(&self) -> io::Result<()> {
        if self.full.load(Ordering::SeqCst) { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

impl StorageBackend for Flaky {
    fn len(&self) -> io::Result<u64> {
        self.bytes.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.bytes.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.writable()?;
        self.bytes.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.writable()?;
        self.bytes.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.writable()?;
        self.bytes.write(offset, data)
    }
}

/// A store whose disk has become full while it was told of things.
async fn failed(disk: &Flaky, retry: Duration) -> Arc<dyn Store> {
    let store = disk.store(retry).store;
    store.put(relay(BOB, 1)).await.unwrap();
    assert_eq!(store.health(), StoreHealth { writes: 1, ..StoreHealth::default() });
    disk.set_full(true);
    assert_eq!(store.put(relay(ALICE, 1)).await, Err(NotStored));
    drop(store.remove(Key { node: BOB, kind: Kind::Relay }));
    let health = until(&store, |health| health.unsaved == 2).await;
    let failing = health.failing.expect("it can't write");
    assert!(!failing.cause.is_empty() && failing.since <= Clock::wall());
    store
}

#[tokio::test]
async fn a_full_disk_is_made_up_for_with_the_next_write() {
    let disk = Flaky::default();
    let store = failed(&disk, NEVER).await;
    assert_eq!(store.bind([7; 16], ALICE).await, Err(NotStored));
    assert_eq!(store.deny(BOB).await, Err(NotStored));
    assert!(!store.is_denied(&BOB), "what is not durable has not happened");
    assert_eq!(store.put(target(ALICE)).await, Err(NotStored));
    assert_eq!(store.remove(Key { node: ALICE, kind: Kind::Target }).await, Err(NotStored));
    assert_eq!(store.registrations().await, Err(NotStored));
    let health = store.health();
    assert!(health.failures >= 5 && (2..=3).contains(&health.unsaved), "{health:?}");
    disk.set_full(false);
    assert_eq!(store.bind([7; 16], BOB).await, Ok(Holder::Asker), "nobody had it");
    let health = store.health();
    assert_eq!((health.failing, health.unsaved, health.writes), (None, 0, 2));
    store.close().await;
    assert_eq!(disk.store(NEVER).registrations, [relay(ALICE, 1)]);
}

#[tokio::test]
async fn a_full_disk_is_tried_again_now_and_then() {
    let disk = Flaky::default();
    let store = failed(&disk, Duration::from_millis(10)).await;
    let failures = store.health().failures;
    until(&store, |health| health.failures > failures + 1).await;
    disk.set_full(false);
    until(&store, |health| health.failing.is_none()).await;
    assert_eq!(store.health().unsaved, 0);
    store.close().await;
    assert_eq!(disk.store(NEVER).registrations, [relay(ALICE, 1)]);
}

#[tokio::test]
async fn who_waits_for_a_store_that_ends_is_told() {
    let disk = Flaky::default();
    let store = failed(&disk, NEVER).await;
    let (first, second) = (store.close(), store.put(relay(ALICE, 3)));
    first.await;
    assert_eq!(second.await, Err(NotStored));
}

/// A file system of its own, of so many bytes, gone with the test.
#[cfg(target_os = "linux")]
struct SmallDisk(tempfile::TempDir);

#[cfg(target_os = "linux")]
impl SmallDisk {
    fn mount(bytes: u64) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "hopline-test"]).arg(directory.path());
        let mounted =
            rustix::process::geteuid().is_root() && mount.status().is_ok_and(|status| status.success());
        mounted.then_some(Self(directory))
    }
}

#[cfg(target_os = "linux")]
impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_disk_that_is_really_full() {
    let Some(disk) = SmallDisk::mount(8 << 20) else {
        println!("skipped: only root may mount a small disk");
        return;
    };
    let store = open(disk.0.path()).store;
    let ballast = disk.0.path().join("ballast");
    let room = std::fs::write(&ballast, vec![1; 16 << 20]).expect_err("it does not fit");
    assert_eq!(room.kind(), io::ErrorKind::StorageFull);
    let puts: Vec<_> = nodes(10_000).map(|node| store.put(relay(node, 1))).collect();
    let answers = futures_util::future::join_all(puts).await;
    assert!(answers.contains(&Err(NotStored)), "or the disk was large enough");
    let cause = store.health().failing.expect("it can't write").cause;
    assert!(cause.contains("No space left"), "{cause}");
    std::fs::remove_file(ballast).unwrap();
    store.put(relay(ALICE, 1)).await.unwrap();
    let health = store.health();
    assert_eq!((health.failing, health.unsaved), (None, 0));
    store.close().await;
    assert_eq!(open(disk.0.path()).registrations.len(), 10_001);
}
