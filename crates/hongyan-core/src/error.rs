//! Errors of the ports: we could not do our work.

/// A cause from below, boxed so that no engine type leaks.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// What class of trouble it is; one table in the API turns it into a status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The caller asked for something that cannot be.
    Invalid,
    /// It is not there.
    NotFound,
    /// It changed, or exists with other content.
    Conflict,
    /// The caller may not.
    Denied,
    /// Too much at once: try again later.
    Limited,
    /// Something we depend on is away.
    Unavailable,
    /// Our fault.
    Internal,
}

/// Whether a failed write may have happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Certainty {
    /// Nothing was written: it is safe to try again.
    NothingHappened,
    /// It may or may not be written.
    Unknown,
}

/// The store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The thing is not there.
    #[error("{entity} not found")]
    NotFound {
        /// What was looked for.
        entity: &'static str,
    },
    /// The thing changed since it was read (a version check failed).
    #[error("{entity} changed since it was read")]
    Conflict {
        /// What changed.
        entity: &'static str,
    },
    /// The writer's queue is full: admission control.
    #[error("the store is busy; try again in {retry_after_ms} ms")]
    Busy {
        /// How long to wait, in milliseconds.
        retry_after_ms: u64,
    },
    /// The disk is nearly full; nothing more is accepted.
    #[error("the disk that holds the store is nearly full; free some space")]
    DiskFull,
    /// The engine failed.
    #[error("engine {engine} is unavailable")]
    Unavailable {
        /// The engine's name.
        engine: &'static str,
        /// Whether the write may have happened.
        certainty: Certainty,
        /// The cause.
        #[source]
        source: BoxError,
    },
    /// A record cannot be read: damage or a newer version.
    #[error("a stored {entity} cannot be read")]
    Corrupt {
        /// What could not be read.
        entity: &'static str,
        /// The cause.
        #[source]
        source: BoxError,
    },
}

impl StoreError {
    /// The class of trouble.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::NotFound { .. } => Kind::NotFound,
            Self::Conflict { .. } => Kind::Conflict,
            Self::Busy { .. } => Kind::Limited,
            Self::DiskFull | Self::Unavailable { .. } => Kind::Unavailable,
            Self::Corrupt { .. } => Kind::Internal,
        }
    }

    /// Whether the write may have happened.
    #[must_use]
    pub fn certainty(&self) -> Certainty {
        match self {
            Self::Unavailable { certainty, .. } => *certainty,
            _ => Certainty::NothingHappened,
        }
    }
}
