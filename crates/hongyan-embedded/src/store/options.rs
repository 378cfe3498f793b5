//! How to open the store, and why it was not opened.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::verify::Loss;
use super::{Backend, Fatal, LockError};

/// Which engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Engine {
    /// fjall: least writing, the default.
    #[default]
    Fjall,
    /// SQLite: one well-known file.
    Sqlite,
}

impl Engine {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Fjall, Self::Sqlite];

    /// The word in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fjall => "fjall",
            Self::Sqlite => "sqlite",
        }
    }

    /// The engine with this word.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|e| e.as_str() == text)
    }
}

/// Puts something between the store and its engine (fault injection in tests).
pub type Wrap = Arc<dyn Fn(Arc<dyn Backend>) -> Arc<dyn Backend> + Send + Sync>;
/// Answers the free bytes of the disk, if they can be known.
pub type DiskProbe = Arc<dyn Fn(&Path) -> Option<u64> + Send + Sync>;

/// How to open the store.
#[derive(Clone)]
pub struct Options {
    /// The data directory; the store is in `store/` below it.
    pub dir: PathBuf,
    /// The engine; must be the one that made the store.
    pub engine: Engine,
    /// Open although acknowledged data is lost. Damaged records are then removed.
    pub accept_loss: bool,
    /// Below this many free bytes nothing new is accepted; below a quarter, nothing at all. Default 256 MiB.
    pub min_free_bytes: u64,
    /// A store up to this size is read in full when it is opened. Default 256 MiB.
    pub verify_bytes_max: u64,
    /// Is called once when a commit, or what follows one, failed; has to end the process.
    pub on_fatal: Arc<dyn Fn(&Fatal) + Send + Sync>,
    /// How free disk is measured.
    pub disk_probe: DiskProbe,
    /// Put between store and engine.
    pub wrap: Option<Wrap>,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("dir", &self.dir)
            .field("engine", &self.engine)
            .field("accept_loss", &self.accept_loss)
            .field("min_free_bytes", &self.min_free_bytes)
            .finish_non_exhaustive()
    }
}

impl Options {
    /// The defaults for a data directory; a failed commit aborts the process.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            engine: Engine::default(),
            accept_loss: false,
            min_free_bytes: 256 << 20,
            verify_bytes_max: 256 << 20,
            on_fatal: Arc::new(|_| std::process::abort()),
            disk_probe: Arc::new(free_bytes),
            wrap: None,
        }
    }

    /// The same with another engine.
    #[must_use]
    pub fn engine(mut self, engine: Engine) -> Self {
        self.engine = engine;
        self
    }

    /// Where the store's files are.
    #[must_use]
    pub fn store_dir(&self) -> PathBuf {
        self.dir.join("store")
    }
}

fn free_bytes(dir: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(dir).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// The store was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file or directory cannot be used.
    #[error("cannot use {path}; check that it exists and may be written")]
    Io {
        /// Which.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// Another process uses the store.
    #[error(transparent)]
    Locked(#[from] LockError),
    /// The directory was made by another engine.
    #[error(
        "the store in {dir} was made by engine {found}, not {wanted}; set store.engine = \"{found}\", or move it by backup and restore"
    )]
    OtherEngine {
        /// The directory.
        dir: PathBuf,
        /// What made it.
        found: String,
        /// What was asked for.
        wanted: &'static str,
    },
    /// The store was written by a newer version.
    #[error(
        "the store in {dir} has layout {found}, this program knows {known}; use a newer program"
    )]
    NewerLayout {
        /// The directory.
        dir: PathBuf,
        /// Its layout.
        found: u64,
        /// Ours.
        known: u64,
    },
    /// The store was written by an earlier version whose records this one does not read.
    #[error(
        "the store in {dir} has layout {found}, this program reads {known} only; run it with the program that made it, or start with an empty data directory"
    )]
    OlderLayout {
        /// The directory.
        dir: PathBuf,
        /// Its layout.
        found: u64,
        /// Ours.
        known: u64,
    },
    /// The engine cannot open or read its files.
    #[error("engine {engine} cannot read its files in {dir}; restore the newest backup")]
    Engine {
        /// The engine.
        engine: &'static str,
        /// The directory.
        dir: PathBuf,
        /// The cause.
        #[source]
        source: hongyan_core::error::BoxError,
    },
    /// Acknowledged data is lost.
    #[error(
        "the store in {dir} has lost acknowledged data: {loss}. Restore the newest backup, or start once with the loss accepted"
    )]
    Lost {
        /// The directory.
        dir: PathBuf,
        /// What.
        loss: Box<Loss>,
    },
}
