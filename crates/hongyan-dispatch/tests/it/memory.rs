//! What a process knows of what went out before it began.

use std::time::Duration;

use hongyan_core::port::{Clock as _, Receipt, ReceiptKind, WriteSet};
use hongyan_core::{CredentialName, Event, MessageId, Reason, Stage, Timestamp, Verdict};
use hongyan_dispatch::credentials::NewCredential;

use crate::world::{World, channel, device, to_users, world};

fn told(vendor_id: &str) -> Receipt {
    Receipt {
        kind: ReceiptKind::Delivered,
        message: None,
        vendor_id: Some(vendor_id.to_owned()),
        token: None,
        at: None,
        detail: String::new(),
    }
}

async fn takes_as(w: &World, user: &str, vendor_id: &str) -> MessageId {
    w.alpha.script([Verdict::Accepted {
        vendor_id: Some(vendor_id.to_owned()),
    }]);
    let id = w.send(to_users(&[user])).await;
    assert_eq!(w.outcome(id).await, Reason::AcceptedByVendor);
    id
}

#[tokio::test]
async fn a_receipt_that_has_the_vendors_id_alone_is_known_after_a_restart() {
    let mut w = world().await;
    w.device("d1", Some("u1"), &["alpha"]).await;
    let id = takes_as(&w, "u1", "x1").await;
    w.restart();
    let receipts = w.dispatch.receipts();
    let taken = || async {
        let news = vec![told("x1"), told("never")];
        let noted = receipts
            .take(&w.app, &channel("alpha"), news)
            .await
            .unwrap();
        (noted.known == 1).then_some(())
    };
    w.until(taken).await.expect("it is known");
    w.sees(id, "delivered@alpha").await;
    assert_eq!(w.count(id, Stage::Delivered).await, 1);
}

#[tokio::test]
async fn a_channel_hears_of_what_it_sent_before_a_restart() {
    let mut w = world().await;
    w.device("d1", Some("u1"), &["alpha"]).await;
    w.device("d2", Some("u2"), &["alpha"]).await;
    let first = takes_as(&w, "u1", "x1").await;
    let second = takes_as(&w, "u2", "x2").await;
    // The second device has another token since.
    w.pass(Duration::from_secs(60));
    let found = w.ports.registry.devices(&w.app, &[device("d2")]).await;
    let mut changed = found.unwrap().pop().flatten().unwrap();
    let version = changed.version;
    changed.tokens[0].token = "another".to_owned();
    changed.tokens[0].updated_at = w.clock.now();
    changed.version += 1;
    let put = w.ports.registry.put_device(changed, Some(version)).await;
    put.unwrap();
    w.restart();
    let earlier = w.until(|| async { Some(w.alpha.earlier()).filter(|all| !all.is_empty()) });
    let earlier = earlier.await.expect("it is told");
    let all: Vec<_> = earlier
        .iter()
        .map(|e| {
            let tokens: Vec<_> = e.tokens.iter().filter_map(|t| t.expose_str()).collect();
            (e.vendor_id.as_str(), e.message, tokens, e.whole)
        })
        .collect();
    assert_eq!(
        all,
        [
            ("x1", first, vec!["alpha-d1"], true),
            ("x2", second, vec![], false)
        ]
    );
}

/// The vendor counts the whole push: a part of it must not pass for all.
#[tokio::test]
async fn a_push_whose_devices_have_other_credentials_since_is_not_known_whole() {
    let mut w = world().await;
    w.device("d1", Some("u1"), &["alpha"]).await;
    w.device("d2", Some("u2"), &["alpha"]).await;
    let id = w.send(to_users(&["u1", "u2"])).await;
    w.outcomes(id, 2).await;
    w.pass(Duration::from_secs(60));
    let other = CredentialName::parse("other").unwrap();
    let new = NewCredential {
        config: serde_json::json!({ "secret": "s" }),
        endpoint: None,
        limits: Default::default(),
    };
    let credentials = w.dispatch.credentials();
    let alpha = channel("alpha");
    let put = credentials.put(&w.app, &alpha, &other, new);
    put.await.unwrap();
    let found = w.ports.registry.devices(&w.app, &[device("d2")]).await;
    let mut changed = found.unwrap().pop().flatten().unwrap();
    let version = changed.version;
    changed.tokens[0].credential = Some(other);
    changed.version += 1;
    let put = w.ports.registry.put_device(changed, Some(version)).await;
    put.unwrap();
    w.restart();
    let earlier = w.until(|| async { Some(w.alpha.earlier()).filter(|all| all.len() == 2) });
    let mut all: Vec<_> = earlier
        .await
        .expect("both credentials are told")
        .iter()
        .map(|e| (e.tokens[0].expose_str().unwrap().to_owned(), e.whole))
        .collect();
    all.sort();
    let part = |token: &str| (token.to_owned(), false);
    assert_eq!(all, [part("alpha-d1"), part("alpha-d2")]);
}

#[tokio::test]
async fn what_was_learned_of_channels_outlives_a_restart() {
    let mut w = world().await;
    w.device("d1", Some("u1"), &["alpha", "beta"]).await;
    // Alpha comes first where nothing was measured.
    let id = w.send(to_users(&["u1"])).await;
    w.sees(id, "accepted_by_vendor(accepted_by_vendor)@alpha")
        .await;
    // Of alpha's pushes one arrived, of beta's all.
    let pushed = |name: &str, stage: Stage, at: Timestamp| Event {
        seq: 0,
        at,
        app: w.app.clone(),
        stage,
        reason: None,
        message: Some(id),
        class: None,
        user: None,
        device: Some(device("d1")),
        platform: None,
        channel: Some(channel(name)),
        attempt: 1,
        until: None,
        took_ms: None,
        detail: None,
        r#final: false,
    };
    let at = w.clock.now();
    let mut events = vec![pushed("alpha", Stage::Delivered, at)];
    for _ in 0..300 {
        events.push(pushed("beta", Stage::Delivered, at));
        events.push(pushed("alpha", Stage::AcceptedByVendor, at));
        events.push(pushed("beta", Stage::AcceptedByVendor, at));
    }
    let set = WriteSet {
        events,
        ..WriteSet::default()
    };
    let written = w.ports.commit.commit(vec![set]).await.pop().unwrap();
    written.unwrap();
    w.pass(Duration::from_secs(3_600));
    w.restart();
    let goes_by_beta = || async {
        let id = w.send(to_users(&["u1"])).await;
        assert_eq!(w.outcome(id).await, Reason::AcceptedByVendor);
        let trace = w.trace(id).await;
        trace.last().unwrap().ends_with("@beta").then_some(())
    };
    w.until(goes_by_beta).await.expect("beta delivers better");
}
