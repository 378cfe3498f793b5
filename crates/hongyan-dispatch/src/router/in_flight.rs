//! What is with a lane now.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use hongyan_core::port::JobId;

/// Deliveries that this process has handed to a lane and not yet settled, each with the version that was handed over:
/// what has moved on since is not with a lane any more, whoever has not noticed yet.
#[derive(Debug, Clone, Default)]
pub(crate) struct InFlight(Arc<Mutex<HashMap<JobId, u32>>>);

impl InFlight {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<JobId, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// The delivery is past this version.
    pub(crate) fn settled(&self, id: &JobId, version: u32) {
        let mut all = self.lock();
        if all.get(id).is_some_and(|known| *known <= version) {
            all.remove(id);
        }
    }
    pub(crate) fn add(&self, id: JobId, version: u32) {
        self.lock().insert(id, version);
    }
    pub(super) fn has(&self, id: &JobId, version: u32) -> bool {
        self.lock().get(id) == Some(&version)
    }
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }
}
