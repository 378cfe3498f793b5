//! OPPO.

use std::time::Duration;

use hongyan_core::port::{Clock as _, ReceiptKind};
use hongyan_core::{Class, Reason, Secret};
use hongyan_sandbox::{Channel as Vendor, FaultKind, TokenState};
use serde_json::json;

use super::{
    DEAD, PATIENCE, World, renews_once_under_load, survives, takes_everything, tells_tokens_apart,
};
use crate::message::{self, WallClock};
use crate::posts::Posts;

const SAVE: &str = "/server/v1/message/notification/save_message_content";
const BATCH: &str = "/server/v1/message/notification/unicast_batch";

impl World {
    fn calls(&self, path: &str) -> usize {
        let requests = self.handle.requests(self.vendor);
        requests.iter().filter(|r| r.path == path).count()
    }
}

#[tokio::test]
async fn oppo() {
    let world = World::start(Vendor::Oppo).await;
    takes_everything(&world).await;
    tells_tokens_apart(
        &world,
        &[
            (DEAD, "token_dead token_invalid"),
            (TokenState::OtherApp, "token_dead token_invalid"),
        ],
    )
    .await;
    survives(&world, &[(FaultKind::QuotaExhausted, "quota_exhausted")]).await;
    renews_once_under_load(&world).await;
    // A whole batch of another app's ids kills none.
    let foreign = world.tokens(12, TokenState::OtherApp);
    let verdicts = world.send(message::message(Class::Im), foreign).await;
    assert_eq!(verdicts, vec!["refused token_environment"; 12]);
}

#[tokio::test]
async fn oppo_stores_a_text_once_for_all_its_batches() {
    let world = World::start(Vendor::Oppo).await;
    let sent = message::message(Class::Im);
    for _ in 0..3 {
        let tokens = world.tokens(5, TokenState::Valid);
        assert_eq!(world.send(sent.clone(), tokens).await, vec!["accepted"; 5]);
    }
    assert_eq!(world.calls(SAVE), 1);
    let other = message::message(Class::Im);
    let tokens = world.tokens(2, TokenState::Valid);
    assert_eq!(world.send(other, tokens).await, vec!["accepted"; 2]);
    assert_eq!((world.calls(SAVE), world.calls(BATCH)), (2, 0));
}

#[tokio::test]
async fn oppo_without_lists_goes_message_by_message() {
    let world = World::start(Vendor::Oppo).await;
    let settings = json!({"broadcast": false});
    world.handle.set_rules(Vendor::Oppo, &settings).unwrap();
    let mut tokens = world.tokens(4, TokenState::Valid);
    tokens.extend(world.tokens(1, DEAD));
    let verdicts = world.send(message::message(Class::Im), tokens).await;
    let want = [
        "accepted",
        "accepted",
        "accepted",
        "accepted",
        "token_dead token_invalid",
    ];
    assert_eq!(verdicts, want);
    assert_eq!((world.calls(SAVE), world.calls(BATCH)), (1, 1));
    // So it does when the text was stored before and its id is not told again.
    let settings = json!({"refuse_duplicates": true});
    world.handle.set_rules(Vendor::Oppo, &settings).unwrap();
    let sent = message::message(Class::Im);
    let tokens = world.tokens(2, TokenState::Valid);
    assert_eq!(world.send(sent.clone(), tokens).await, ["accepted"; 2]);
    let restarted = message::open(
        &message::egress(world.handle.ca_pem()),
        "oppo",
        &world.handle.credential(Vendor::Oppo).unwrap(),
        &world.handle.vendors_url(),
    );
    let batch = message::batch(message::outbound(sent), world.tokens(2, TokenState::Valid));
    let verdicts = restarted.send(&batch, PATIENCE).await;
    assert!(
        verdicts
            .iter()
            .all(|v| v.reason() == Reason::AcceptedByVendor)
    );
    assert_eq!(world.calls(BATCH), 2);
}

#[tokio::test]
async fn oppo_counts_marketing_alone() {
    let world = World::start(Vendor::Oppo).await;
    let settings = json!({"marketing_per_day": 3});
    world.handle.set_rules(Vendor::Oppo, &settings).unwrap();
    let send = async |class: Class, count: usize| {
        let tokens = world.tokens(count, TokenState::Valid);
        world.send(message::message(class), tokens).await
    };
    assert_eq!(send(Class::Marketing, 2).await, ["accepted"; 2]);
    assert_eq!(send(Class::Marketing, 2).await, ["quota_exhausted"; 2]);
    assert_eq!(send(Class::Transaction, 2).await, ["accepted"; 2]);
}

#[tokio::test]
async fn oppo_classes_that_were_not_granted() {
    let ungranted = json!({"granted": []});
    let world = World::start(Vendor::Oppo).await;
    world.handle.set_rules(Vendor::Oppo, &ungranted).unwrap();
    assert_eq!(world.send_one().await, "refused payload_rejected");
    let world = World::start_with(Vendor::Oppo, |config| {
        config["relax_class"] = json!(true);
    })
    .await;
    world.handle.set_rules(Vendor::Oppo, &ungranted).unwrap();
    assert_eq!(world.send_one().await, "accepted");
    let tokens = world.tokens(3, TokenState::Valid);
    let verdicts = world.send(message::message(Class::Im), tokens).await;
    assert_eq!(verdicts, ["accepted"; 3], "{:?}", world.last());
    let world = World::start_with(Vendor::Oppo, |config| config["granted"] = json!([])).await;
    world.handle.set_rules(Vendor::Oppo, &ungranted).unwrap();
    assert_eq!(world.send_one().await, "accepted");
}

#[tokio::test]
async fn oppo_templates_of_private_messages() {
    let world = World::start_with(Vendor::Oppo, |config| {
        config["channel_id"] = json!("private_1");
        config["templates"] = json!({
            "im": {"template_id": "T10001", "content_parameters": {"text": "{body}"}},
            "transaction": {"template_id": "T10002", "title_parameters": {"order": "{title}"},
                            "content_parameters": {"state": "{body}"}},
        });
    })
    .await;
    for class in Class::ALL {
        let tokens = world.tokens(1, TokenState::Valid);
        let verdicts = world.send(message::message(class), tokens).await;
        assert_eq!(verdicts, ["accepted"], "{class:?} {:?}", world.last());
    }
}

#[tokio::test]
async fn oppo_gives_its_invalid_ids_when_asked() {
    let world = World::start(Vendor::Oppo).await;
    let mut dead = world.tokens(2, DEAD);
    dead.extend(world.tokens(1, TokenState::Valid));
    world.send(message::message(Class::Im), dead.clone()).await;
    let receipts = world.channel.poll(PATIENCE).await.unwrap();
    let told: Vec<_> = receipts
        .iter()
        .map(|r| {
            (
                r.kind,
                r.token.as_ref().and_then(Secret::expose_str).unwrap(),
            )
        })
        .collect();
    let want = dead[..2]
        .iter()
        .map(|t| (ReceiptKind::TokenInvalid, t.as_str()));
    assert_eq!(told, want.collect::<Vec<_>>());
    assert_eq!(world.channel.poll(PATIENCE).await.unwrap(), []);
}

#[tokio::test]
async fn oppo_reports_to_the_address_of_the_message() {
    let posts = Posts::listen().await;
    let world = World::start(Vendor::Oppo).await;
    world.handle.set_device_limits(true);
    let channel = message::open_with_callback(
        &message::egress(world.handle.ca_pem()),
        "oppo",
        &world.handle.credential(Vendor::Oppo).unwrap(),
        &world.handle.vendors_url(),
        Some(&posts.url),
    );
    let shown = channel.preview(&message::outbound(message::message(Class::Im)));
    let shown = shown.unwrap().body["notification"]["call_back_url"].to_string();
    assert!(
        shown.contains("/cb?") && !shown.contains("key=k"),
        "{shown}"
    );
    let tokens = world.tokens(2, TokenState::Valid);
    // Of the marketing messages a device shows two a day.
    let mut ids = Vec::new();
    for _ in 0..3 {
        let sent = message::message(Class::Marketing);
        ids.push(sent.id);
        let batch = message::batch(message::outbound(sent), tokens.clone());
        let verdicts = channel.send(&batch, PATIENCE).await;
        assert!(
            verdicts
                .iter()
                .all(|v| v.reason() == Reason::AcceptedByVendor)
        );
    }
    let mut told = Vec::new();
    for post in posts.wait(6).await {
        let callback = post.read(channel.as_ref(), WallClock.now()).unwrap();
        assert!(!callback.signed && callback.body.is_empty());
        told.extend(callback.receipts);
    }
    for (at, id) in ids.iter().enumerate() {
        let want = match at {
            2 => ReceiptKind::Failed(Reason::QuotaExhausted),
            _ => ReceiptKind::Delivered,
        };
        let of: Vec<_> = told.iter().filter(|r| r.message == Some(*id)).collect();
        assert_eq!(of.len(), 2);
        for receipt in of {
            assert_eq!(receipt.kind, want);
            let token = receipt.token.as_ref().and_then(Secret::expose_str).unwrap();
            assert!(tokens.iter().any(|t| t == token) && receipt.at.is_some());
        }
    }
}

#[tokio::test]
async fn oppo_tells_a_wrong_clock() {
    let world = World::start(Vendor::Oppo).await;
    world.handle.advance(Duration::from_secs(1200));
    assert_eq!(world.send_one().await, "retry vendor_unavailable not_taken");
    let report = world.channel.check(PATIENCE).await;
    assert!(!report.ok && report.detail.contains("clock"), "{report:?}");
}
