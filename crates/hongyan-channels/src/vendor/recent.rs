//! The vendors' ids of what was sent lately: some withdraw a message only by their own id of it.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, PoisonError};

use hongyan_core::MessageId;
use hongyan_core::port::Earlier;

/// Ids kept; the oldest leaves first, about 100 bytes each.
const KEPT_MAX: usize = 10_000;

/// A bounded memory of vendor ids by message. After a restart it has those that the ledger's end names.
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

    /// Pushes of before this process, oldest first.
    pub(super) fn recollect(&self, earlier: &[Earlier]) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut known: HashSet<(MessageId, String)> = kept.iter().cloned().collect();
        for e in earlier.iter().rev() {
            if kept.len() >= KEPT_MAX {
                return;
            }
            let push = (e.message, e.vendor_id.clone());
            if !e.vendor_id.is_empty() && known.insert(push.clone()) {
                kept.push_front(push);
            }
        }
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
        let id_of_one = id(1);
        recent.remember(id(1), "a");
        recent.remember(id(1), "a");
        recent.remember(id(1), "b");
        assert_eq!(recent.of(id(1)), ["a", "b"]);
        let earlier = |id: &str| Earlier {
            vendor_id: id.to_owned(),
            message: id_of_one,
            tokens: Vec::new(),
            whole: true,
            at: hongyan_core::Timestamp(0),
        };
        recent.recollect(&[earlier("0"), earlier("a")]);
        assert_eq!(recent.of(id(1)), ["0", "a", "b"]);
        for n in 0..KEPT_MAX as u128 {
            recent.remember(id(n + 2), "x");
        }
        assert!(recent.of(id(1)).is_empty());
        assert_eq!(recent.of(id(2)), ["x"]);
    }
}
