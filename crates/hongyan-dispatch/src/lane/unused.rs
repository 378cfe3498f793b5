//! What a lane took of its vendor's rate and did not use: pushes that are held or end before the vendor is asked must not slow
//! down those behind them.

use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::Notify;

/// Counts that wait to be put back.
#[derive(Debug, Default)]
pub(super) struct Unused {
    count: AtomicU32,
    grew: Notify,
}

impl Unused {
    /// Takes them all.
    pub(super) fn all(&self) -> u32 {
        self.count.swap(0, Ordering::AcqRel)
    }

    /// Waits until there are more.
    pub(super) async fn grows(&self) {
        self.grew.notified().await;
    }

    /// Puts back what nobody will use.
    pub(super) fn add(&self, count: u32) {
        if count == 0 {
            return;
        }
        let add = |known: u32| Some(known.saturating_add(count));
        // It never answers none, so that this is never an error.
        let _ = self
            .count
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, add);
        self.grew.notify_one();
    }
}

/// What one call took; what it does not use goes back, however it ends.
#[derive(Debug)]
pub(super) struct Charge<'a> {
    unused: &'a Unused,
    left: u32,
}

impl<'a> Charge<'a> {
    pub(super) const fn new(unused: &'a Unused, taken: u32) -> Self {
        Self {
            unused,
            left: taken,
        }
    }

    /// The vendor is about to be asked, which takes so much.
    pub(super) const fn uses(&mut self, count: u32) {
        self.left = self.left.saturating_sub(count);
    }
}

impl Drop for Charge<'_> {
    fn drop(&mut self) {
        self.unused.add(self.left);
    }
}
