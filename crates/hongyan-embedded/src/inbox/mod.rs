//! What a device can still fetch: rings of personal messages merged with broadcasts.
//!
//! `ring.rs` holds the lists, `push.rs` what came over push channels, `place.rs` a device's place in them, `mend.rs` what
//! is done for both after a loss, `read.rs` and `ack.rs` what a
//! device does with both. Every read takes the newest places first and everything else after, so
//! that what is skipped was really not there.

mod ack;
mod mend;
mod place;
mod push;
mod read;
mod ring;

use std::sync::Arc;

use async_trait::async_trait;
use hongyan_core::port::{Ack, Inbox, InboxPage, Reader};
use hongyan_core::{AppId, Cursor, Message, MessageId, Reason, StoreError, Timestamp};

use crate::cached::{message_key, pushed_out};
use crate::embedded::Shelf;
use crate::store::{Admission, Space, Urgency, View};

pub(crate) use mend::mend;
pub(crate) use place::{Place, bind, forget_device, forget_user};
pub(crate) use push::forget_channel;
pub(crate) use ring::{append, broadcast_head, expect, forget_broadcasts, newest};

/// Steps of one ack: some sixty thousand messages.
const ACK_STEPS_MAX: usize = 64;

/// [`Inbox`] on the store.
#[derive(Debug)]
pub(crate) struct EmbeddedInbox(pub(crate) Arc<Shelf>);

#[async_trait]
impl Inbox for EmbeddedInbox {
    async fn read(
        &self,
        reader: &Reader,
        after: Option<Cursor>,
        limit: usize,
        now: Timestamp,
    ) -> Result<InboxPage, StoreError> {
        let reader = reader.clone();
        if let Some(page) = read::nothing_new(&self.0, &reader, after)? {
            return Ok(page);
        }
        self.0
            .read(move |shelf| read::page(shelf, &reader, after, limit, now))
            .await
    }

    async fn ack(
        &self,
        reader: &Reader,
        ack: Ack,
        now: Timestamp,
    ) -> Result<Vec<MessageId>, StoreError> {
        let asked = Arc::new((reader.clone(), ack));
        let epoch = self.0.store.epoch();
        let mut acked = Vec::new();
        for _ in 0..ACK_STEPS_MAX {
            let (caches, asked) = (Arc::clone(&self.0.caches), Arc::clone(&asked));
            let step = self
                .0
                .store
                .write(Admission::Normal, Urgency::Relaxed, 512, move |txn| {
                    ack::ack(txn, &caches, epoch, &asked.0, &asked.1, now)
                })
                .await;
            match step {
                Ok(step) => {
                    acked.extend(step.messages);
                    if step.is_all {
                        break;
                    }
                }
                // Nobody would hear of them any more; the others come again.
                Err(error) if !acked.is_empty() => {
                    tracing::warn!(%error, "a long ack was recorded in part");
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(acked)
    }

    async fn acked(
        &self,
        reader: &Reader,
        ids: &[MessageId],
        now: Timestamp,
    ) -> Result<Vec<MessageId>, StoreError> {
        let (reader, ids) = (reader.clone(), ids.to_vec());
        self.0
            .read(move |shelf| read::acked(shelf, &reader, &ids, now))
            .await
    }

    async fn head(&self, reader: &Reader) -> Result<Cursor, StoreError> {
        read::head(&self.0, reader)
    }

    async fn message(
        &self,
        app: &AppId,
        id: MessageId,
    ) -> Result<Option<Arc<Message>>, StoreError> {
        let stored = self.0.caches.message(&self.0.store, app, id)?;
        Ok(stored.map(|s| s.message))
    }

    async fn messages(
        &self,
        ids: &[(AppId, MessageId)],
    ) -> Result<Vec<Option<Arc<Message>>>, StoreError> {
        let ids = ids.to_vec();
        let read = move |shelf: &Shelf| {
            ids.iter()
                .map(|(app, id)| {
                    let stored = shelf.caches.message(&shelf.store, app, *id)?;
                    Ok(stored.map(|s| s.message))
                })
                .collect()
        };
        self.0.read(read).await
    }

    async fn recalled(&self, app: &AppId, id: MessageId) -> Result<Option<Timestamp>, StoreError> {
        let stored = self.0.caches.message(&self.0.store, app, id)?;
        Ok(stored.and_then(|s| s.recalled))
    }

    async fn pushed_out(&self, app: &AppId, id: MessageId) -> Result<Option<Reason>, StoreError> {
        let payload = self.0.store.get(Space::Message, &message_key(app, id))?;
        Ok(payload.as_deref().and_then(pushed_out))
    }
}
