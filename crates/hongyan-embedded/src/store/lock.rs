//! Keeps a second process out of the store.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

/// An exclusive lock on the store's directory; ends with the process or when dropped.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// The lock was not given.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Somebody else has it.
    #[error(
        "another process uses the store (lock {path}); stop it, or give this one another data directory"
    )]
    Taken {
        /// The lock file.
        path: PathBuf,
    },
    /// The file cannot be used.
    #[error("cannot lock {path}; check that the directory exists and may be written")]
    Io {
        /// The lock file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

impl Lock {
    /// Takes the lock `LOCK` in the directory.
    ///
    /// # Errors
    /// [`LockError`] when another process has it or the file cannot be made.
    pub fn take(dir: &Path) -> Result<Self, LockError> {
        let path = dir.join("LOCK");
        let opened = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path);
        let file = match opened {
            Ok(file) => file,
            Err(source) => return Err(LockError::Io { path, source }),
        };
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(LockError::Taken { path }),
            Err(TryLockError::Error(source)) => Err(LockError::Io { path, source }),
        }
    }
}
