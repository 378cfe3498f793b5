//! How much room the disk has.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use super::DiskProbe;
use super::writer::{DiskRoom, Shared};

/// Between two looks at most this part of the reserve is written. An engine writes a byte several times: into the journal, when
/// its memory is flushed, when files are merged.
const LOOKS_PER_RESERVE: u64 = 32;

/// Looks at the free disk: once a second, and as often as much was written, since a fast writer fills in less than a second
/// what the threshold keeps free.
#[derive(Clone)]
pub(crate) struct DiskWatch {
    pub(super) shared: Arc<Shared>,
    pub(super) dir: PathBuf,
    pub(super) min_free_bytes: u64,
    pub(super) probe: DiskProbe,
}

impl fmt::Debug for DiskWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskWatch")
            .field("dir", &self.dir)
            .field("min_free_bytes", &self.min_free_bytes)
            .finish_non_exhaustive()
    }
}

impl DiskWatch {
    /// Looks, and says what was seen.
    pub(super) fn look(&self) {
        let room = match (self.probe)(&self.dir) {
            Some(free) if free < self.min_free_bytes / 4 => DiskRoom::Critical,
            Some(free) if free < self.min_free_bytes => DiskRoom::Low,
            _ => DiskRoom::Enough,
        };
        self.shared.set_room(room);
    }

    /// Adds up what was written since the last look, and looks when it is much.
    pub(super) fn wrote(&self, bytes: usize, unseen: &mut u64) {
        *unseen = unseen.saturating_add(bytes as u64);
        if *unseen >= self.min_free_bytes / LOOKS_PER_RESERVE {
            *unseen = 0;
            self.look();
        }
    }
}
