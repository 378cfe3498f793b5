//! Broadcast channels: one send reaches every device that follows the channel, which the vendor alone knows.

use std::time::Duration;

use async_trait::async_trait;

use crate::Verdict;

/// What the vendor keeps of a broadcast channel for devices that are away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BroadcastStorage {
    /// Nothing: for frequent updates, of which more may be sent.
    None,
    /// The latest message.
    Latest,
}

/// A vendor did not do what was asked of its broadcast channels.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BroadcastError {
    /// There is no channel of this id, or no longer.
    #[error("there is no broadcast channel of this id")]
    NotFound,
    /// The app has as many channels as the vendor allows.
    #[error("{detail}")]
    Full {
        /// The vendor's words and what to do.
        detail: String,
    },
    /// Anything else, never [`Verdict::Accepted`] nor [`Verdict::TokenDead`]. After a [`Verdict::Retry`] that is
    /// [`crate::verdict::Unsure::MaybeTaken`] it may have been done all the same.
    #[error("{}", .0.detail())]
    Vendor(Verdict),
}

/// The broadcast channels of a credential's app at its vendor. Nothing is stored of them here.
///
/// Each call is one to the vendor, ends within `deadline`, and is never repeated when nobody knows whether it had its effect.
#[async_trait]
pub trait Broadcasts: Send + Sync + std::fmt::Debug {
    /// Makes a channel; answers its id, which the vendor chooses. What it stores cannot be changed later.
    async fn create(
        &self,
        storage: BroadcastStorage,
        deadline: Duration,
    ) -> Result<String, BroadcastError>;

    /// The ids of all channels, in the vendor's order.
    async fn list(&self, deadline: Duration) -> Result<Vec<String>, BroadcastError>;

    /// What a channel stores. Text that cannot be an id is the id of no channel.
    async fn read(&self, id: &str, deadline: Duration) -> Result<BroadcastStorage, BroadcastError>;

    /// Deletes a channel for good.
    async fn delete(&self, id: &str, deadline: Duration) -> Result<(), BroadcastError>;
}
