//! The format of a bootstrap's data directory: a number in its file `version`.
//!
//! It is read before anything there is opened for writing, so that a directory of a later version is not changed.
//! Directories from before this file existed are upgraded when they are opened.

use super::StoreError;
use crate::net::keyfile::{self, KeyFileError};
use std::path::Path;
use std::{fs, io};

/// The format that this version writes, and the latest that it knows.
pub const FORMAT: u32 = 2;
const FILE: &str = "version";
/// Longer than any number.
const MAX_BYTES: u64 = 16;

/// Whether this version may open the directory; one that does not exist yet, too. Changes nothing.
///
/// # Errors
/// [`StoreError::Newer`], [`StoreError::NoFormat`], or [`StoreError::Directory`] if the file can't be read.
pub fn check(directory: &Path) -> Result<(), StoreError> {
    let path = directory.join(FILE);
    let text = match fs::metadata(&path) {
        Ok(file) if file.len() > MAX_BYTES => return Err(StoreError::NoFormat { path }),
        Ok(_) => fs::read_to_string(&path),
        Err(error) => Err(error),
    };
    let text = match text {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            return Err(StoreError::NoFormat { path });
        }
        // What is a file itself, or can't be entered, is complained of when it is to be written.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(());
        }
        Err(source) => return Err(StoreError::Directory { directory: directory.to_owned(), source }),
    };
    match text.trim().parse::<u32>() {
        Ok(found) if found > FORMAT => {
            Err(StoreError::Newer { directory: directory.to_owned(), found, known: FORMAT })
        }
        Ok(_) => Ok(()),
        Err(_) => Err(StoreError::NoFormat { path }),
    }
}

/// Notes that the directory has the format of this version, which has just brought it up to date.
///
/// # Errors
/// [`KeyFileError::Io`] if that can't be written.
pub fn mark(directory: &Path) -> Result<(), KeyFileError> {
    let (path, text) = (directory.join(FILE), format!("{FORMAT}\n"));
    if fs::read_to_string(&path).is_ok_and(|known| known == text) {
        return Ok(());
    }
    keyfile::write_private(&path, &text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_without_a_format_may_be_opened_and_is_marked() {
        let directory = tempfile::tempdir().unwrap();
        check(&directory.path().join("none yet")).unwrap();
        check(directory.path()).unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "looking changes nothing");
        mark(directory.path()).unwrap();
        assert_eq!(fs::read_to_string(directory.path().join(FILE)).unwrap(), "2\n");
        check(directory.path()).unwrap();
        mark(directory.path()).unwrap();
    }

    #[test]
    fn a_later_format_and_nonsense_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let refused = |text: &[u8]| {
            fs::write(directory.path().join(FILE), text).unwrap();
            check(directory.path()).unwrap_err()
        };
        let error = refused(b"3\n");
        assert!(matches!(error, StoreError::Newer { found: 3, known: FORMAT, .. }), "{error}");
        assert!(error.to_string().contains("format 3") && error.to_string().contains("up to 2"), "{error}");
        for text in [&b""[..], b"one", b"-1", &[0xff, 0xfe], &[b'1'; 100]] {
            assert!(matches!(refused(text), StoreError::NoFormat { .. }), "{text:?}");
        }
    }
}
