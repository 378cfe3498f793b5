//! Getui's tasks: a message stored there once, for many batches of recipients.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use hongyan_core::Timestamp;

/// Tasks kept; the oldest leaves first.
const KEPT_MAX: usize = 256;

/// The tasks of the last messages, by what is in them.
#[derive(Debug, Default)]
pub(super) struct Tasks(Mutex<VecDeque<Task>>);

#[derive(Debug)]
struct Task {
    key: String,
    id: String,
    until: Timestamp,
}

impl Tasks {
    pub(super) fn of(&self, key: &str, now: Timestamp) -> Option<String> {
        let tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let task = tasks.iter().find(|t| t.key == key && now < t.until)?;
        Some(task.id.clone())
    }

    pub(super) fn keep(&self, key: &str, id: &str, until: Timestamp) {
        let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.retain(|t| t.key != key);
        while tasks.len() >= KEPT_MAX {
            tasks.pop_front();
        }
        tasks.push_back(Task {
            key: key.to_owned(),
            id: id.to_owned(),
            until,
        });
    }

    pub(super) fn forget(&self, id: &str) {
        let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.retain(|t| t.id != id);
    }
}
