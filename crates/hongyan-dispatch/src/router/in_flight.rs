//! What is with a lane now.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use hongyan_core::port::JobId;

/// Deliveries that this process has handed to a lane and not yet settled: what has moved on since is not with a lane any
/// more, whoever has not noticed yet.
#[derive(Debug, Clone, Default)]
pub(crate) struct InFlight(Arc<Mutex<HashMap<JobId, Versions>>>);

/// The versions of a delivery that a lane has.
#[derive(Debug, Clone, Copy)]
struct Versions {
    /// The one that was handed over.
    given: u32,
    /// The one it has now: news that change nothing for the lane may have been noted of it.
    latest: u32,
}

impl InFlight {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<JobId, Versions>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The delivery is past this version.
    pub(crate) fn settled(&self, id: &JobId, version: u32) {
        let mut all = self.lock();
        if all.get(id).is_some_and(|known| known.given <= version) {
            all.remove(id);
        }
    }

    pub(crate) fn add(&self, id: JobId, version: u32) {
        let versions = Versions {
            given: version,
            latest: version,
        };
        self.lock().insert(id, versions);
    }

    /// The delivery has another version, and the lane has it all the same.
    pub(crate) fn noted(&self, id: &JobId, from: u32, to: u32) {
        if let Some(known) = self.lock().get_mut(id)
            && known.latest == from
        {
            known.latest = to;
        }
    }

    pub(super) fn has(&self, id: &JobId, version: u32) -> bool {
        let all = self.lock();
        all.get(id).is_some_and(|known| known.latest == version)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }
}
