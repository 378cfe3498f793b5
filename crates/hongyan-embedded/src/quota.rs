//! Windows with counters: taken and given back inside the writer.

use std::sync::Arc;

use async_trait::async_trait;
use hongyan_core::port::{Quota, QuotaGrant};
use hongyan_core::{StoreError, Timestamp};

use crate::embedded::Shelf;
use crate::maintain;
use crate::store::record::{Damage, Key, Parts};
use crate::store::{Admission, Space, Txn, Urgency, View};

/// [`Quota`] on the store.
#[derive(Debug)]
pub(crate) struct EmbeddedQuota(pub(crate) Arc<Shelf>);

fn key(name: &str, window_start: Timestamp) -> Vec<u8> {
    // The name may hold anything: its length keeps names apart.
    let key = Key::empty().number(name.len() as u64).raw(name.as_bytes());
    key.signed(window_start.millis()).done()
}

fn used(view: &impl View, key: &[u8]) -> Result<Option<(u64, Timestamp)>, StoreError> {
    let Some(payload) = view.get(Space::Quota, key)? else {
        return Ok(None);
    };
    let mut parts = Parts(&payload);
    match (parts.number(), parts.signed()) {
        (Some(used), Some(resets_at)) => Ok(Some((used, Timestamp(resets_at)))),
        _ => Err(Damage::of(Space::Quota, key, "it is cut short").into_store_error()),
    }
}

fn put(txn: &mut Txn<'_>, key: &[u8], used: u64, resets_at: Timestamp) {
    let payload = Key::empty().number(used).signed(resets_at.millis());
    txn.put(Space::Quota, key, payload.done());
}

#[async_trait]
impl Quota for EmbeddedQuota {
    async fn take(
        &self,
        name: &str,
        window_start: Timestamp,
        resets_at: Timestamp,
        limit: u64,
        want: u64,
    ) -> Result<QuotaGrant, StoreError> {
        let key = key(name, window_start);
        let take = move |txn: &mut Txn<'_>| {
            let known = used(txn, &key)?;
            let taken = known.map_or(0, |(used, _)| used);
            let granted = want.min(limit.saturating_sub(taken));
            let ends = known.map_or(resets_at, |(_, ends)| ends.max(resets_at));
            if granted > 0 {
                put(txn, &key, taken + granted, ends);
            }
            // One that lasts longer than it was to is looked at again then.
            if granted > 0 && known.is_none_or(|(_, known)| known < ends) {
                txn.gather().note(maintain::Kind::Quota, resets_at, &key);
            }
            Ok(QuotaGrant {
                granted,
                left: limit.saturating_sub(taken + granted),
                resets_at,
            })
        };
        self.0
            .store
            .write(Admission::Normal, Urgency::Relaxed, 256, take)
            .await
    }

    async fn give_back(
        &self,
        name: &str,
        window_start: Timestamp,
        count: u64,
    ) -> Result<(), StoreError> {
        let key = key(name, window_start);
        let give_back = move |txn: &mut Txn<'_>| {
            if let Some((used, resets_at)) = used(txn, &key)? {
                put(txn, &key, used.saturating_sub(count), resets_at);
            }
            Ok(())
        };
        self.0
            .store
            .write(Admission::Normal, Urgency::Relaxed, 256, give_back)
            .await
    }

    async fn used(&self, name: &str, window_start: Timestamp) -> Result<u64, StoreError> {
        let used = used(&self.0.store, &key(name, window_start))?;
        Ok(used.map_or(0, |(used, _)| used))
    }
}
