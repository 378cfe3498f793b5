//! Receipts of Huawei and HarmonyOS, and what their credentials say about classes.

use hongyan_core::port::{CallbackError, Clock, ReceiptKind};
use hongyan_core::{Class, Reason, Secret};
use hongyan_sandbox::{Channel as Vendor, ReceiptAddress, TokenState};
use serde_json::json;

use super::{PATIENCE, World};
use crate::message::{self, WallClock};
use crate::posts::Posts;

async fn receipts_come_back(vendor: Vendor) {
    let world = World::start_with(vendor, |config| {
        config["receipt_user"] = "push".into();
        config["receipt_key"] = "k3y-of-the-console".into();
    })
    .await;
    let posts = Posts::listen().await;
    let address = ReceiptAddress {
        url: posts.url.clone(),
        username: Some("push".to_owned()),
        key: Some("k3y-of-the-console".to_owned()),
    };
    // Both generations are of one console.
    world.handle.set_receipts(Vendor::Huawei, Some(address));
    world.handle.set_device_limits(true);
    let token = world.tokens(1, TokenState::Valid);
    let mut sent = Vec::new();
    for class in [
        Class::Im,
        Class::Marketing,
        Class::Marketing,
        Class::Marketing,
    ] {
        let one = message::message(class);
        sent.push(one.id);
        assert_eq!(world.send(one, token.clone()).await, ["accepted"]);
    }
    let now = WallClock.now();
    let receipts = posts.receipts(&*world.channel, now, 4).await;
    let told: Vec<_> = receipts.iter().map(|r| (r.message, r.kind)).collect();
    let delivered = ReceiptKind::Delivered;
    // Two marketing messages a device and day.
    assert_eq!(
        told,
        [
            (Some(sent[0]), delivered),
            (Some(sent[1]), delivered),
            (Some(sent[2]), delivered),
            (Some(sent[3]), ReceiptKind::Failed(Reason::QuotaExhausted)),
        ]
    );
    let whose = Some(Secret::new(token[0].clone()));
    assert!(
        receipts
            .iter()
            .all(|r| r.token == whose && r.vendor_id.is_some())
    );
    let mut again = posts.wait(4).await.remove(0);
    let first = again.read(&*world.channel, now).unwrap();
    assert!(first.signed && first.receipts.len() == 1, "posted again");
    let whole = std::mem::replace(&mut again.body, br#"{"statuses":[]}"#.to_vec().into());
    assert_eq!(
        again.read(&*world.channel, now),
        Err(CallbackError::Replayed),
        "its signature with another body"
    );
    again.body = whole;
    for (_, value) in &mut again.headers {
        *value = value.replace("nonce=", "nonce=0");
    }
    let forged = again.read(&*world.channel, now);
    assert!(
        matches!(forged, Err(CallbackError::Signature(_))),
        "{forged:?}"
    );
    again.headers.clear();
    let bare = again.read(&*world.channel, now);
    assert!(matches!(bare, Err(CallbackError::Signature(_))), "{bare:?}");
}

#[tokio::test]
async fn receipts_of_the_first_version() {
    receipts_come_back(Vendor::Huawei).await;
}

#[tokio::test]
async fn receipts_of_the_second_version() {
    receipts_come_back(Vendor::Harmony).await;
}

#[tokio::test]
async fn test_messages_go_to_few_at_a_time() {
    let world = World::start_with(Vendor::Harmony, |config| config["test"] = true.into()).await;
    let verdicts = world
        .send(
            message::message(Class::Im),
            world.tokens(25, TokenState::Valid),
        )
        .await;
    assert_eq!(verdicts, vec!["accepted"; 25], "{:?}", world.last());
    assert_eq!(world.handle.requests(Vendor::Harmony).len(), 3);
}

#[tokio::test]
async fn what_is_not_granted_is_sent_as_marketing() {
    for vendor in [Vendor::Huawei, Vendor::Harmony] {
        let world = World::start_with(vendor, |config| config["granted"] = json!(["im"])).await;
        assert!(world.channel.check(PATIENCE).await.ok);
        let sent = message::message(Class::Transaction);
        let verdicts = world.send(sent, world.tokens(1, TokenState::Valid)).await;
        assert_eq!(verdicts, ["accepted"]);
        let body = json!(world.last()).to_string();
        assert!(
            body.contains("MARKETING") && !body.contains("EXPRESS"),
            "{body}"
        );
    }
}
