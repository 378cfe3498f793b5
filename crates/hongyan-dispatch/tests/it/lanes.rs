//! Lanes are bulkheads.

use std::time::Duration;

use hongyan_core::verdict::Unsure;
use hongyan_core::{Reason, Verdict};

use crate::world::{to_users, world};

#[tokio::test]
async fn a_hanging_vendor_holds_up_nobody_else() {
    let w = world().await;
    w.device("slow", Some("s"), &["alpha"]).await;
    w.device("fast", Some("f"), &["beta"]).await;
    let gate = w.alpha.gate();
    let all = u32::try_from(gate.available_permits()).unwrap();
    let _closed = gate.acquire_many_owned(all).await.unwrap();
    let stuck = w.send(to_users(&["s"])).await;
    for _ in 0..50 {
        let id = w.send(to_users(&["f"])).await;
        assert_eq!(w.outcome(id).await, Reason::AcceptedByVendor);
    }
    assert!(!w.events(stuck).await.iter().any(|e| e.r#final));
}

#[tokio::test]
async fn a_broken_vendor_opens_the_breaker_and_recovers_by_itself() {
    let w = world().await;
    w.device("d1", Some("u1"), &["alpha"]).await;
    w.alpha.always(Some(Verdict::Retry {
        reason: Reason::VendorUnavailable,
        after: None,
        detail: "503".into(),
        certainty: Unsure::NotTaken,
    }));
    let mut ids = Vec::new();
    for _ in 0..30 {
        ids.push(w.send(to_users(&["u1"])).await);
    }
    let opened = || async {
        for id in &ids {
            if w.trace(*id)
                .await
                .iter()
                .any(|t| t.starts_with("held(breaker_open)"))
            {
                return Some(());
            }
        }
        w.pass(Duration::from_millis(100));
        None
    };
    w.until(opened).await.expect("the breaker opens");
    w.alpha.always(None);
    for id in ids {
        let settled = || async {
            w.pass(Duration::from_secs(1));
            w.events(id)
                .await
                .iter()
                .find(|e| e.r#final)
                .and_then(|e| e.reason)
        };
        assert_eq!(w.until(settled).await, Some(Reason::AcceptedByVendor));
    }
}
