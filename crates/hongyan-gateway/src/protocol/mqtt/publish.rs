//! What an app's server publishes becomes a message to a topic.

use std::fmt;

use async_trait::async_trait;
use hongyan_core::{AppId, MessageId, StoreError, Topic};

/// A publication did not become a message.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// It cannot be one; the text says why.
    #[error("{0}")]
    Invalid(String),
    /// The store did not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Takes messages in; the binary bridges it to dispatch.
#[async_trait]
pub trait Publish: Send + Sync + fmt::Debug {
    /// Sends a JSON object with the fields of `POST /v1/messages` (without `to`) to a topic's subscribers; durable when it
    /// returns `Ok`. `ttl_s` is how long it is worth delivering, seconds.
    ///
    /// # Errors
    /// [`PublishError`] says whether sending it again can help.
    async fn publish(
        &self,
        app: &AppId,
        topic: Topic,
        payload: &[u8],
        ttl_s: Option<u32>,
    ) -> Result<MessageId, PublishError>;
}
