//! Counts what ended, when it is on the disk: once for each, whoever decided it and however often it was tried.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use hongyan_core::port::{Commit, CommitError, Committed, WriteSet};
use hongyan_core::{AppId, Reason, StoreError, Timestamp};

/// The commit point, with `hongyan_dispatch_outcomes_total` in front: one for each event that ends a delivery, or a target
/// that never had one. So the metric grows as the ledger's counters do.
#[derive(Debug)]
pub(crate) struct Counted(pub(crate) Arc<dyn Commit>);

/// The ends in a set, by reason.
fn ends(set: &WriteSet) -> HashMap<&'static str, u64> {
    let mut ends = HashMap::new();
    for event in set.events.iter().filter(|event| event.r#final) {
        *ends
            .entry(event.reason.map_or("", Reason::as_str))
            .or_default() += 1;
    }
    ends
}

#[async_trait]
impl Commit for Counted {
    async fn commit(&self, sets: Vec<WriteSet>) -> Vec<Result<Committed, CommitError>> {
        let ended: Vec<_> = sets.iter().map(ends).collect();
        let results = self.0.commit(sets).await;
        let written = ended.into_iter().zip(&results);
        for (ends, _) in written.filter(|(_, result)| result.is_ok()) {
            for (reason, count) in ends {
                metrics::counter!("hongyan_dispatch_outcomes_total", "reason" => reason)
                    .increment(count);
            }
        }
        results
    }

    async fn idempotent(
        &self,
        app: &AppId,
        key: &str,
        now: Timestamp,
    ) -> Result<Option<([u8; 32], Vec<u8>)>, StoreError> {
        self.0.idempotent(app, key, now).await
    }
}
