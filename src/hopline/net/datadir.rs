//! A node's data directory: its role, and the rule that one process uses it at a time.
//!
//! The file `lock` names the directory's role and the process that uses it. The kernel's lock on that file (flock(2)) keeps other
//! processes out; it ends with the process, however that ends. The role of a directory without the file follows from its other files, if
//! possible. Commands that only read a directory need no lock.
//!
//! Blocks: for the start of a process.

use super::keyfile::field;
use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;
use tokio::task::spawn_blocking;

const FILE: &str = "lock";
/// Longer than anything that is written there.
const MAX_BYTES: u64 = 256;
/// How long whoever has the directory may take to end: it may just have been told to.
pub const TIMEOUT: Duration = Duration::from_secs(1);
/// How often it is tried meanwhile.
const PAUSE: Duration = Duration::from_millis(20);
/// What only a bootstrap leaves, and what only an endpoint does.
const LEFT: [(&str, Role); 5] = [
    ("network.key", Role::Bootstrap),
    ("bootstrap.redb", Role::Bootstrap),
    ("grants.redb", Role::Bootstrap),
    ("version", Role::Bootstrap),
    ("routes", Role::Endpoint),
];

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It coordinates a network.
    Bootstrap,
    /// It carries flows for others.
    Relay,
    /// It opens flows, or serves names.
    Endpoint,
}

impl Role {
    const ALL: [Self; 3] = [Self::Bootstrap, Self::Relay, Self::Endpoint];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Bootstrap => "bootstrap",
            Self::Relay => "relay",
            Self::Endpoint => "endpoint",
        }
    }

    /// Whose the directory is, as far as that can be told.
    #[must_use]
    pub fn of(directory: &Path) -> Option<Self> {
        let written = Holder::read(&directory.join(FILE)).and_then(|holder| holder.role);
        let left = || LEFT.into_iter().find(|(file, _)| directory.join(file).exists()).map(|(_, role)| role);
        written.or_else(left)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let article = if *self == Self::Endpoint { "an" } else { "a" };
        write!(f, "{article} {}", self.as_str())
    }
}

/// Who uses a directory, as its file says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holder {
    role: Option<Role>,
    process: Option<u32>,
}

impl Holder {
    fn read(path: &Path) -> Option<Self> {
        let mut text = String::new();
        open_regular(OpenOptions::new().read(true), path)
            .ok()?
            .take(MAX_BYTES)
            .read_to_string(&mut text)
            .ok()?;
        Some(Self::parse(&text))
    }

    fn parse(text: &str) -> Self {
        let role = field(text, "role");
        let role = Role::ALL.into_iter().find(|known| role == Some(known.as_str()));
        Self { role, process: field(text, "process").and_then(|process| process.parse().ok()) }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.role {
            Some(role) => write!(f, "{role}")?,
            None => f.write_str("another process")?,
        }
        self.process.map_or(Ok(()), |process| write!(f, ", process {process}"))
    }
}

/// Why a directory can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataDirError {
    /// Another process uses it.
    #[error(
        "the data directory {} is in use by {holder}; end that first, or choose another directory with --data",
        directory.display()
    )]
    InUse {
        /// The directory.
        directory: PathBuf,
        /// The process that uses it.
        holder: Holder,
    },
    /// It is that of a node of another kind.
    #[error(
        "the data directory {} belongs to {is}, but this command runs {wanted}; choose another with --data, or unset \
         HOPLINE_DATA (nothing in it was changed)",
        directory.display()
    )]
    OtherRole {
        /// The directory.
        directory: PathBuf,
        /// Whose it is.
        is: Role,
        /// Who wanted it.
        wanted: Role,
    },
    /// The file system refused.
    #[error("can't use {}: {source}; choose a data directory this user may write, with --data", directory.display())]
    Io {
        /// The directory.
        directory: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// What should say whose it is can't.
    #[error(
        "{} is not a regular file; remove it, or choose another data directory with --data",
        path.display()
    )]
    NoFile {
        /// What it is called.
        path: PathBuf,
    },
    /// The process is ending.
    #[error("the process is ending")]
    Ended,
}

/// A data directory that is this process' as long as this lives.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Takes the directory for a node of this role, and makes it if need be. Waits for up to `limit` for another process to
    /// end. In a directory of another role it changes nothing.
    ///
    /// # Errors
    /// [`DataDirError`].
    pub fn open(path: &Path, wanted: Role, limit: Duration) -> Result<Self, DataDirError> {
        let directory = || path.to_owned();
        let failed = |source| DataDirError::Io { directory: directory(), source };
        let fits = || match Role::of(path) {
            Some(is) if is != wanted => Err(DataDirError::OtherRole { directory: directory(), is, wanted }),
            Some(_) | None => Ok(()),
        };
        fits()?;
        fs::create_dir_all(path).map_err(failed)?;
        let file = path.join(FILE);
        let mut lock = open_file(&file).map_err(|error| match fs::metadata(&file) {
            Ok(found) if !found.is_file() => DataDirError::NoFile { path: file.clone() },
            Ok(_) | Err(_) => failed(error),
        })?;
        let mut tries = limit.as_millis() / PAUSE.as_millis();
        while !take(&lock).map_err(failed)? {
            if tries == 0 {
                let holder = Holder::read(&file).unwrap_or_default();
                return Err(DataDirError::InUse { directory: directory(), holder });
            }
            tries -= 1;
            sleep(PAUSE);
        }
        // Again, as whoever had the lock may have made it a directory of another role.
        fits()?;
        note(&mut lock, wanted).map_err(failed)?;
        Ok(Self { path: directory(), _lock: lock })
    }

    /// As [`DataDir::open`], off the runtime's threads, for whoever may have one.
    ///
    /// # Errors
    /// [`DataDirError`].
    pub(crate) async fn take(path: Option<&Path>, wanted: Role) -> Result<Option<Arc<Self>>, DataDirError> {
        let Some(path) = path.map(Path::to_owned) else { return Ok(None) };
        let opened = spawn_blocking(move || Self::open(&path, wanted, TIMEOUT)).await;
        opened.unwrap_or(Err(DataDirError::Ended)).map(|data| Some(Arc::new(data)))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn open_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    // Until this process has the lock the file tells who has it.
    options.read(true).write(true).create(true).truncate(false);
    open_regular(options.mode(0o600), path)
}

/// Opens nothing but a regular file, and waits for nobody: the other end of a FIFO may never come.
fn open_regular(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let nonblocking = OFlags::NONBLOCK.bits().cast_signed();
    let file = options.custom_flags(nonblocking).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::ErrorKind::InvalidInput.into()) }
}

/// Whether nobody else has it. Some network file systems have no locks: there everybody takes it.
fn take(lock: &File) -> io::Result<bool> {
    match flock(lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(Errno::NOLCK | Errno::NOTSUP | Errno::NOSYS) => {
            tracing::warn!(
                "the file system of the data directory has no locks: see to it that no other process uses it"
            );
            Ok(true)
        }
        Err(error) => Err(error.into()),
    }
}

/// Says who has it. Written over what was there before it is cut to its length: on a full disk the role stays known.
fn note(lock: &mut File, role: Role) -> io::Result<()> {
    let text = format!("role = {}\nprocess = {}\n", role.as_str(), std::process::id());
    lock.rewind()?;
    lock.write_all(text.as_bytes())?;
    lock.set_len(text.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &Path, role: Role) -> Result<DataDir, DataDirError> {
        DataDir::open(path, role, Duration::ZERO)
    }

    #[test]
    fn one_at_a_time_has_a_directory_and_others_are_told_who() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("new/r1");
        let first = open(&path, Role::Relay).unwrap();
        assert_eq!(first.path(), path);
        let error = open(&path, Role::Relay).unwrap_err();
        assert!(matches!(error, DataDirError::InUse { .. }));
        let told = format!("in use by a relay, process {};", std::process::id());
        assert!(error.to_string().contains(&told), "{error}");
        drop(first);
        let waiting = std::thread::spawn({
            let (path, second) = (path.clone(), open(&path, Role::Relay).unwrap());
            move || {
                sleep(PAUSE);
                drop((path, second));
            }
        });
        DataDir::open(&path, Role::Relay, TIMEOUT * 20).unwrap();
        waiting.join().unwrap();
    }

    #[test]
    fn a_directory_of_another_role_stays_as_it_is() {
        let home = tempfile::tempdir().unwrap();
        for (n, (file, role)) in LEFT.into_iter().enumerate() {
            let path = home.path().join(n.to_string());
            fs::create_dir(&path).unwrap();
            fs::write(path.join(file), "").unwrap();
            for wanted in Role::ALL.into_iter().filter(|wanted| *wanted != role) {
                let error = open(&path, wanted).unwrap_err();
                assert!(matches!(error, DataDirError::OtherRole { is, .. } if is == role), "{error}");
                assert_eq!(fs::read_dir(&path).unwrap().count(), 1, "nothing is written");
            }
            drop(open(&path, role).unwrap());
            fs::remove_file(path.join(file)).unwrap();
            assert_eq!(Role::of(&path), Some(role), "it is marked");
        }
    }

    #[test]
    fn what_is_no_file_is_refused_by_name_at_once() {
        let home = tempfile::tempdir().unwrap();
        let lock = home.path().join(FILE);
        let make_fifo = || {
            let made = std::process::Command::new("mkfifo").arg(&lock).status().unwrap();
            assert!(made.success());
        };
        let make_socket = || drop(std::os::unix::net::UnixListener::bind(&lock).unwrap());
        let make_directory = || fs::create_dir(&lock).unwrap();
        for make in [&make_fifo as &dyn Fn(), &make_socket, &make_directory] {
            make();
            assert_eq!(Role::of(home.path()), None);
            let error = open(home.path(), Role::Relay).unwrap_err();
            assert!(matches!(&error, DataDirError::NoFile { path } if *path == lock), "{error}");
            assert!(error.to_string().starts_with(&lock.display().to_string()), "{error}");
            let _ = fs::remove_file(&lock).or_else(|_| fs::remove_dir(&lock));
        }
        drop(open(home.path(), Role::Relay).unwrap());
    }

    #[test]
    fn what_says_nothing_may_be_anybodys() {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("node.key"), "").unwrap();
        fs::write(home.path().join(FILE), [0xff; 1000]).unwrap();
        assert_eq!(Role::of(home.path()), None);
        drop(open(home.path(), Role::Relay).unwrap());
        let text = fs::read_to_string(home.path().join(FILE)).unwrap();
        assert_eq!(text, format!("role = relay\nprocess = {}\n", std::process::id()));
        let error = open(home.path(), Role::Endpoint).unwrap_err().to_string();
        assert!(error.contains("belongs to a relay, but this command runs an endpoint;"), "{error}");
    }
}
