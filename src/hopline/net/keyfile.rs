//! Small private files: keys and certificates in a node's data directory.
//!
//! A file is `name = value` lines followed by one PEM block (RFC 7468 allows text before it, so `openssl x509` reads a
//! certificate's file as it is). It is readable by its owner alone from its first byte on, appears whole or not at all,
//! and survives a power cut once written. Plain blocking I/O: for the start of a process and for rare renewals.

use super::entropy;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Why a key file could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// The file system refused.
    #[error("can't use {path}: {source}; choose a data directory this user may write, with --data")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The file is there but holds something else.
    #[error(
        "{path} is damaged, or not a hopline file; restore it from a backup, or remove it to get a new key"
    )]
    Malformed {
        /// The file.
        path: PathBuf,
    },
}

/// What the file at `path` holds; if there is none yet it is made first, from `make`.
///
/// Of several processes that make it at the same time one wins, and all get what it wrote.
pub(super) fn load_or_create<T>(
    path: &Path,
    make: impl FnOnce() -> String,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<T, KeyFileError> {
    let text = match load(path)? {
        Some(text) => text,
        None => {
            store(path, &make(), Existing::Keep)?;
            load(path)?.unwrap_or_default()
        }
    };
    parse(&text).ok_or_else(|| KeyFileError::Malformed { path: path.to_owned() })
}

/// The text of the file, `None` if there is no such file.
pub(crate) fn load(path: &Path) -> Result<Option<String>, KeyFileError> {
    match fs::read_to_string(path) {
        Ok(text) => {
            warn_if_exposed(path);
            Ok(Some(text))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            Err(KeyFileError::Malformed { path: path.to_owned() })
        }
        Err(source) => Err(KeyFileError::Io { path: path.to_owned(), source }),
    }
}

/// A key copied to another machine easily loses its permissions.
fn warn_if_exposed(path: &Path) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(path).map_or(0, |metadata| metadata.permissions().mode());
        if mode & 0o077 != 0 {
            tracing::warn!(path = %path.display(), "other users of this machine may read this key: chmod 600 it");
        }
    }
}

/// What becomes of a file that is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Existing {
    /// It stays, and the new text is dropped.
    Keep,
    /// It goes.
    Replace,
}

/// Writes the file, and the directory it lies in if need be.
pub(super) fn store(path: &Path, text: &str, existing: Existing) -> Result<(), KeyFileError> {
    failing_at(path, write(path, text, existing, Durability::Synced))
}

/// Writes a private file, replacing what was there: readable by its owner alone, and never seen half-written.
///
/// # Errors
/// [`KeyFileError::Io`] if it can't be written.
pub(crate) fn write_private(path: &Path, text: &str) -> Result<(), KeyFileError> {
    store(path, text, Existing::Replace)
}

/// The same for what is no loss if the machine fails: it does not wait for the disk, which may take seconds on a busy one.
///
/// # Errors
/// [`KeyFileError::Io`] if it can't be written.
pub fn write_memo(path: &Path, text: &str) -> Result<(), KeyFileError> {
    failing_at(path, write(path, text, Existing::Replace, Durability::Unsynced))
}

fn failing_at(path: &Path, written: io::Result<()>) -> Result<(), KeyFileError> {
    written.map_err(|source| KeyFileError::Io { path: path.to_owned(), source })
}

/// Whether to wait until the disk has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Durability {
    Synced,
    Unsynced,
}

/// The value of the line `name = value` before the PEM block.
pub(crate) fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = text.lines().take_while(|line| !line.starts_with("-----BEGIN"));
    lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(" = "))
}

fn write(path: &Path, text: &str, existing: Existing, durability: Durability) -> io::Result<()> {
    // The parent of a bare file name is the empty path.
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(directory)?;
    // In the same directory, as a rename does not cross file systems.
    let draft = directory.join(format!(".draft-{:016x}", u64::from_ne_bytes(entropy::bytes())));
    let written = write_draft(&draft, text, durability).and_then(|()| publish(&draft, path, existing));
    let _ = fs::remove_file(&draft); // renamed away if all went well
    written?;
    // A power cut may take a new name with it until the directory is on disk, too.
    if durability == Durability::Synced { File::open(directory)?.sync_all() } else { Ok(()) }
}

fn write_draft(draft: &Path, text: &str, durability: Durability) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(draft)?;
    file.write_all(text.as_bytes())?;
    if durability == Durability::Synced { file.sync_all() } else { Ok(()) }
}

/// A hard link is made only if nothing is there, in one step. File systems without hard links get a rename: then the
/// last of several simultaneous writers wins.
fn publish(draft: &Path, path: &Path, existing: Existing) -> io::Result<()> {
    if existing == Existing::Keep {
        match fs::hard_link(draft, path) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
            Err(_) => {}
        }
    }
    fs::rename(draft, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_writer_wins_unless_told_to_replace() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("new/file");
        let load_or =
            |text: &str| load_or_create(&path, || text.to_owned(), |text| Some(text.to_owned())).unwrap();
        assert_eq!(load_or("one"), "one");
        assert_eq!(load_or("two"), "one");
        store(&path, "two", Existing::Keep).unwrap();
        assert_eq!(load_or("three"), "one");
        store(&path, "two", Existing::Replace).unwrap();
        assert_eq!(load_or("three"), "two");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no drafts are left behind");
    }

    #[cfg(unix)]
    #[test]
    fn only_the_owner_may_read() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        store(&path, "secret", Existing::Keep).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn errors_name_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, [0xff]).unwrap();
        let error = load(&path).unwrap_err();
        assert!(matches!(error, KeyFileError::Malformed { .. }));
        assert!(error.to_string().contains(path.to_str().unwrap()));
        let below = store(&path.join("below"), "", Existing::Keep).unwrap_err();
        assert!(matches!(below, KeyFileError::Io { .. }));
    }

    #[test]
    fn fields_stand_before_the_block() {
        let text = "a = 1\nab = 2\n-----BEGIN X-----\nc = 3\n";
        assert_eq!((field(text, "a"), field(text, "ab"), field(text, "c")), (Some("1"), Some("2"), None));
    }
}
