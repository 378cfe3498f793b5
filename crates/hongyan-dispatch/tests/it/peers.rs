//! Where a channel leads to several vendors, each has a lane.

use std::time::Duration;

use hongyan_core::verdict::Unsure;
use hongyan_core::{Reason, Stage, Verdict};

use crate::lanes::slow_down;
use crate::world::{to_users, world};

/// Web push: each push service is a vendor of its own.
#[tokio::test]
async fn one_vendor_of_several_behind_a_channel_does_not_hold_up_the_others() {
    let w = world().await;
    for (id, user) in [("d1:east", "u1"), ("d2:west", "u2"), ("d3:north", "u3")] {
        w.device(id, Some(user), &["alpha"]).await;
    }
    w.alpha.script([slow_down(Some(600))]);
    let paused = w.send(to_users(&["u1"])).await;
    w.sees(paused, "retried(vendor_rate_limited)@alpha").await;
    let broken = Verdict::Retry {
        reason: Reason::VendorUnavailable,
        after: None,
        detail: "503".into(),
        certainty: Unsure::NotTaken,
    };
    w.alpha.always(Some(broken));
    let opened = || async {
        w.pass(Duration::from_millis(10));
        let id = w.send(to_users(&["u3"])).await;
        let trace = w.at_alpha(id).await;
        let open = |t: &String| t.starts_with("held(breaker_open)");
        trace.iter().any(open).then_some(())
    };
    w.until(opened).await.expect("the breaker opens");
    w.alpha.always(None);
    for _ in 0..3 {
        let id = w.send(to_users(&["u2"])).await;
        assert_eq!(w.outcome(id).await, Reason::AcceptedByVendor);
        assert_eq!(w.count(id, Stage::Held).await, 0);
    }
    let next = w.send(to_users(&["u1"])).await;
    w.sees(next, "held(vendor_rate_limited)@alpha").await;
}

/// Web push again: the hosts that the credential itself names.
#[tokio::test]
async fn a_credentials_own_vendors_have_lanes_of_their_own() {
    let w = world().await;
    for (id, user) in [("d0", "u0"), ("d1.own-east", "u1"), ("d2.own-west", "u2")] {
        w.device(id, Some(user), &["alpha"]).await;
    }
    // Opens the credential.
    let first = w.send(to_users(&["u0"])).await;
    assert_eq!(w.outcome(first).await, Reason::AcceptedByVendor);
    w.alpha.script([slow_down(Some(600))]);
    let paused = w.send(to_users(&["u1"])).await;
    w.sees(paused, "retried(vendor_rate_limited)@alpha").await;
    for user in ["u2", "u0"] {
        let id = w.send(to_users(&[user])).await;
        assert_eq!(w.outcome(id).await, Reason::AcceptedByVendor);
        assert_eq!(w.count(id, Stage::Held).await, 0);
    }
    let next = w.send(to_users(&["u1"])).await;
    w.sees(next, "held(vendor_rate_limited)@alpha").await;
    assert_eq!(w.dispatch.lanes(), 3);
}

/// However many vendors tokens lead to, a credential has so many lanes and one for all others.
#[tokio::test]
async fn lanes_of_a_credential_are_bounded() {
    let w = world().await;
    let mut sent = Vec::new();
    for n in 0..40 {
        let user = format!("u{n}");
        w.device(&format!("d{n}:peer{n}"), Some(&user), &["alpha"])
            .await;
        sent.push(w.send(to_users(&[&user])).await);
    }
    for id in sent {
        assert_eq!(w.outcome(id).await, Reason::AcceptedByVendor);
    }
    assert_eq!(w.dispatch.lanes(), 33);
}
