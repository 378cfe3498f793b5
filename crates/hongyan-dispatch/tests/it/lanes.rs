//! Lanes are bulkheads.

use std::time::Duration;

use hongyan_core::message::Target;
use hongyan_core::verdict::Unsure;
use hongyan_core::{Reason, Stage, Verdict};

use crate::world::{to, to_users, world};

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

/// A channel's own measure for one device (wake-ups come seldom) says nothing of the vendor.
#[tokio::test]
async fn a_device_that_has_to_wait_holds_up_nobody_else() {
    let w = world().await;
    w.device("d1", Some("u1"), &["alpha"]).await;
    w.device("d2", Some("u2"), &["alpha"]).await;
    w.alpha.always(Some(Verdict::Retry {
        reason: Reason::FrequencyCap,
        after: Some(Duration::from_secs(600)),
        detail: "woken before".into(),
        certainty: Unsure::NotTaken,
    }));
    let mut waiting = Vec::new();
    for _ in 0..12 {
        let id = w.send(to_users(&["u1"])).await;
        w.sees(id, "retried(frequency_cap)@alpha").await;
        waiting.push(id);
    }
    w.alpha.always(None);
    let other = w.send(to_users(&["u2"])).await;
    assert_eq!(w.outcome(other).await, Reason::AcceptedByVendor);
    for id in &waiting {
        assert!(!w.events(*id).await.iter().any(|e| e.r#final));
    }
    for id in waiting {
        let settled = || async {
            w.pass(Duration::from_secs(60));
            w.events(id)
                .await
                .iter()
                .find(|e| e.r#final)
                .and_then(|e| e.reason)
        };
        assert_eq!(w.until(settled).await, Some(Reason::AcceptedByVendor));
    }
}

#[tokio::test]
async fn a_channel_that_panics_is_tried_again_and_others_go_on() {
    let w = world().await;
    w.device("d1", Some("u1"), &["alpha"]).await;
    w.device("d2", Some("u2"), &["beta"]).await;
    w.alpha.panic_next(3);
    let ids = [
        w.send(to_users(&["u1"])).await,
        w.send(to_users(&["u1"])).await,
    ];
    for id in ids {
        w.sees(id, "retried(vendor_unavailable)@alpha").await;
    }
    let other = w.send(to_users(&["u2"])).await;
    assert_eq!(w.outcome(other).await, Reason::AcceptedByVendor);
    for id in ids {
        let settled = || async {
            w.pass(Duration::from_millis(200));
            w.events(id)
                .await
                .iter()
                .find(|e| e.r#final)
                .and_then(|e| e.reason)
        };
        assert_eq!(w.until(settled).await, Some(Reason::AcceptedByVendor));
        let sent = w.alpha.sent();
        assert_eq!(sent.iter().filter(|s| s.message == id).count(), 1);
    }
    w.until(|| async { (w.dispatch.in_flight() == 0).then_some(()) })
        .await
        .expect("nothing stays in flight");
}

/// More than a lane holds: its queue, what it has taken out of it, and what is with the vendor.
const FLOOD: usize = 6_000;
const LANE_HOLDS: usize = 4_096 + 1_000 + 8;

#[tokio::test]
async fn a_flooded_lane_holds_so_many_and_loses_none() {
    let w = world().await;
    for piece in 0..FLOOD / 500 {
        let names: Vec<_> = (0..500)
            .map(|i| format!("d{:05}", piece * 500 + i))
            .collect();
        w.import(&names, &["beta"]).await;
    }
    let gate = w.beta.gate();
    let all = u32::try_from(gate.available_permits()).unwrap();
    let closed = gate.clone().acquire_many_owned(all).await.unwrap();
    let id = w.send(to(Target::All)).await;
    let count = |stage: Stage| {
        let w = &w;
        async move {
            let rows = w.ports.ledger.message_counters(&w.app, id).await.unwrap();
            let of = rows.iter().filter(|r| r.key.stage == stage);
            usize::try_from(of.map(|r| r.count).sum::<u64>()).unwrap()
        }
    };
    let flooded = || async {
        assert!(w.dispatch.in_flight() <= LANE_HOLDS + 512, "bounded");
        let held = count(Stage::Held).await;
        (count(Stage::Targeted).await == FLOOD && held >= FLOOD - LANE_HOLDS).then_some(())
    };
    w.until(flooded)
        .await
        .expect("all are planned, the rest waits in the store");
    w.until(|| async { (w.dispatch.in_flight() <= LANE_HOLDS).then_some(()) })
        .await
        .expect("what was refused is not in flight");
    drop(closed);
    let taken = || async {
        w.pass(Duration::from_millis(20));
        (count(Stage::AcceptedByVendor).await == FLOOD).then_some(())
    };
    w.until(taken).await.expect("none is lost");
    let mut devices: Vec<_> = w.beta.sent().into_iter().map(|s| s.device).collect();
    assert_eq!(devices.len(), FLOOD, "none is sent twice");
    devices.sort();
    devices.dedup();
    assert_eq!(devices.len(), FLOOD);
    w.until(|| async { (w.dispatch.in_flight() == 0).then_some(()) })
        .await
        .expect("nothing stays in flight");
}
