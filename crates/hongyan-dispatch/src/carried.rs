//! Which message a vendor took under which id of its own: receipts of some vendors name nothing else.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hongyan_core::{AppId, ChannelId, MessageId};

/// Ids that are remembered, about 150 bytes each; the oldest leaves first. What left, and what another node sent, is looked
/// for in the ledger.
const KEPT_MAX: usize = 65_536;

type Key = (AppId, ChannelId, String);

#[derive(Debug, Default)]
struct Kept {
    messages: HashMap<Key, MessageId>,
    order: VecDeque<Key>,
}

/// The vendors' ids of the latest pushes. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Carried(Arc<Mutex<Kept>>);

impl Carried {
    /// The vendor took the message under this id.
    pub(crate) fn remember(
        &self,
        app: &AppId,
        channel: &ChannelId,
        vendor_id: &str,
        message: MessageId,
    ) {
        if vendor_id.is_empty() {
            return;
        }
        let key = (app.clone(), channel.clone(), vendor_id.to_owned());
        let mut kept = self.lock();
        if kept.messages.insert(key.clone(), message).is_some() {
            return;
        }
        kept.order.push_back(key);
        while kept.order.len() > KEPT_MAX {
            if let Some(oldest) = kept.order.pop_front() {
                kept.messages.remove(&oldest);
            }
        }
    }

    /// The message of an id.
    pub(crate) fn message(
        &self,
        app: &AppId,
        channel: &ChannelId,
        vendor_id: &str,
    ) -> Option<MessageId> {
        let key = (app.clone(), channel.clone(), vendor_id.to_owned());
        self.lock().messages.get(&key).copied()
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_ids_are_kept_and_no_more() {
        let carried = Carried::default();
        let app = AppId::parse("demo").unwrap();
        let channel = |name| ChannelId::parse(name).unwrap();
        let id = |n: usize| MessageId(uuid::Uuid::from_u128(n as u128));
        let (a, b) = (channel("a"), channel("b"));
        carried.remember(&app, &a, "", id(9));
        assert_eq!(carried.message(&app, &a, ""), None);
        for n in 0..KEPT_MAX + 2 {
            carried.remember(&app, &a, &n.to_string(), id(n));
        }
        assert_eq!(carried.message(&app, &a, "1"), None);
        assert_eq!(carried.message(&app, &a, "2"), Some(id(2)));
        assert_eq!(carried.message(&app, &b, "2"), None);
        let kept = carried.lock();
        assert_eq!(
            (kept.messages.len(), kept.order.len()),
            (KEPT_MAX, KEPT_MAX)
        );
    }
}
