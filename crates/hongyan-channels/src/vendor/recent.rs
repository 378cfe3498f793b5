//! The vendors' ids of what was sent lately: some withdraw a message only by their own id of it.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use hongyan_core::MessageId;

/// Ids kept; the oldest leaves first, about 100 bytes each.
const KEPT_MAX: usize = 10_000;

/// A bounded memory of vendor ids by message. It does not survive a restart.
#[derive(Debug, Default)]
pub(super) struct Recent(Mutex<VecDeque<(MessageId, String)>>);

impl Recent {
    pub(super) fn remember(&self, message: MessageId, id: &str) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.back().is_some_and(|(m, i)| *m == message && i == id) {
            return;
        }
        while kept.len() >= KEPT_MAX {
            kept.pop_front();
        }
        kept.push_back((message, id.to_owned()));
    }

    /// The ids of a message, oldest first, each once.
    pub(super) fn of(&self, message: MessageId) -> Vec<String> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut ids: Vec<String> = Vec::new();
        for (_, id) in kept.iter().filter(|(m, _)| *m == message) {
            if !ids.contains(id) {
                ids.push(id.clone());
            }
        }
        ids
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_is_bounded_and_forgets_the_oldest() {
        let recent = Recent::default();
        let id = |n: u128| MessageId(uuid::Uuid::from_u128(n));
        recent.remember(id(1), "a");
        recent.remember(id(1), "a");
        recent.remember(id(1), "b");
        assert_eq!(recent.of(id(1)), ["a", "b"]);
        for n in 0..KEPT_MAX as u128 {
            recent.remember(id(n + 2), "x");
        }
        assert!(recent.of(id(1)).is_empty());
        assert_eq!(recent.of(id(2)), ["x"]);
    }
}
