//! The data directory: who may look into it, and what is in it.
//!
//! ```text
//! hongyan-data/          0700
//!   master.key           0600   seals vendor credentials; keep a copy elsewhere
//!   admin.key            0600   the admin key, for commands on this machine; `hongyan key admin --rotate` makes another
//!   control.sock         0600   while a server runs: backup, doctor and key talk to it
//!   store/                      the engine's files, their lock and watermark
//! ```

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::Path;

use anyhow::Context as _;
use hongyan_embedded as embedded;

use crate::config::{Config, Engine};

/// Whether the data directory was used before: only a fresh one gets a new master key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DataDir {
    /// Nothing was stored yet.
    Fresh,
    /// There is a store.
    Used,
}

impl DataDir {
    /// What a directory is, without changing it.
    pub(crate) fn of(dir: &Path) -> Self {
        if dir.join("store").exists() {
            Self::Used
        } else {
            Self::Fresh
        }
    }

    /// Makes the directory if it does not exist (mode 0700).
    ///
    /// # Errors
    /// When it cannot be made or is no directory.
    pub(crate) fn prepare(dir: &Path) -> io::Result<Self> {
        if !dir.is_dir() {
            DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        }
        if fs::metadata(dir)?.mode() & 0o002 != 0 {
            tracing::warn!(dir = %dir.display(), "every user of this machine can write into the data directory; run `chmod 700` on it");
        }
        Ok(Self::of(dir))
    }
}

/// How the store is opened under this configuration.
pub(crate) fn store_options(config: &Config) -> embedded::Options {
    let engine = match config.store.engine {
        Engine::Fjall => embedded::Engine::Fjall,
        Engine::Sqlite => embedded::Engine::Sqlite,
    };
    let mut options = embedded::Options::new(&config.server.data).engine(engine);
    options.accept_loss = config.store.accept_loss;
    options.min_free_bytes = config.store.free_bytes_min;
    options.verify_bytes_max = config.store.check_bytes_max;
    options
}

/// Writes a file that only its owner can read, whole or not at all.
///
/// # Errors
/// When it cannot be written there.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let unfinished = path.with_extension("unfinished");
    let _ = std::fs::remove_file(&unfinished);
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&unfinished)
        .with_context(|| format!("{} cannot be written", unfinished.display()))?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&unfinished, path)
        .with_context(|| format!("{} cannot be written", path.display()))?;
    // The new name is on disk only with its directory.
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    let dir = dir.unwrap_or(Path::new("."));
    fs::File::open(dir)
        .and_then(|dir| dir.sync_all())
        .with_context(|| format!("{} cannot be written to its disk", dir.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_directory_is_private_and_fresh_until_it_has_a_store() {
        let above = tempfile::tempdir().unwrap();
        let dir = above.path().join("a/b");
        assert_eq!(DataDir::prepare(&dir).unwrap(), DataDir::Fresh);
        assert_eq!(fs::metadata(&dir).unwrap().mode() & 0o777, 0o700);
        fs::create_dir(dir.join("store")).unwrap();
        assert_eq!(DataDir::prepare(&dir).unwrap(), DataDir::Used);
        fs::write(above.path().join("file"), "").unwrap();
        assert!(DataDir::prepare(&above.path().join("file")).is_err());
    }
}
