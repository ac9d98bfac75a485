//! Why a store could not be opened, or a change not be made durable.

use crate::net::error::ErrorKind;
use std::io;
use std::path::PathBuf;

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
    /// The directory was written by a later version.
    #[error(
        "the data directory {directory} has format {found}, and this version of hopline knows formats up to {known}; run the \
         version that wrote it, or a later one, or choose another directory with --data (nothing in it was changed)"
    )]
    Newer {
        /// The directory.
        directory: PathBuf,
        /// Its format.
        found: u32,
        /// The latest format that is known.
        known: u32,
    },
    /// The file that tells the directory's format tells none.
    #[error(
        "{path} does not say which format the data directory has; restore it from a backup, or choose another directory with \
         --data (nothing in it was changed)"
    )]
    NoFormat {
        /// The file.
        path: PathBuf,
    },
    /// The database's file is damaged, or can't be written.
    #[error(
        "can't use {path}: {source}; restore it from a backup, or remove it, but then single-use tickets that were used \
         admit another node, and removed nodes may come back"
    )]
    Database {
        /// The file.
        path: PathBuf,
        /// What the database said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl StoreError {
    /// What to do about it: always [`ErrorKind::Local`].
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        ErrorKind::Local
    }
}

/// The change is not durable. The cause is in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the bootstrap's store can't be written; see its log")]
pub struct NotStored;
