//! Windows and counters with reservation.

use async_trait::async_trait;

use crate::{StoreError, Timestamp};

/// An answer to a request for quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaGrant {
    /// How many were granted, at most what was asked.
    pub granted: u64,
    /// How many are left in the window.
    pub left: u64,
    /// When the window ends.
    pub resets_at: Timestamp,
}

/// Counters over fixed windows, shared by all who use the same key.
///
/// Promises:
/// - never more than `limit` granted in one window, whatever runs at the same time;
/// - `give_back` returns what was not used, never above the limit;
/// - what was granted survives a restart.
#[async_trait]
pub trait Quota: Send + Sync + std::fmt::Debug {
    /// Takes up to `want` of `limit` in the window that begins at `window_start` and lasts until `resets_at`.
    async fn take(
        &self,
        key: &str,
        window_start: Timestamp,
        resets_at: Timestamp,
        limit: u64,
        want: u64,
    ) -> Result<QuotaGrant, StoreError>;

    /// Returns what was taken and not used.
    async fn give_back(
        &self,
        key: &str,
        window_start: Timestamp,
        count: u64,
    ) -> Result<(), StoreError>;

    /// How many were taken in the window.
    async fn used(&self, key: &str, window_start: Timestamp) -> Result<u64, StoreError>;
}
