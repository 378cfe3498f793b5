//! vivo.

use std::time::Duration;

use hongyan_core::port::{Clock as _, ReceiptKind};
use hongyan_core::{Class, Reason, Secret};
use hongyan_sandbox::{Channel as Vendor, ReceiptAddress, TokenState};
use hongyan_testkit::channel_suite::words;
use serde_json::json;

use super::{
    DEAD, PATIENCE, World, renews_once_under_load, survives, takes_everything, tells_tokens_apart,
};
use crate::message::{self, WallClock};
use crate::posts::Posts;

const SAVE: &str = "/message/saveListPayload";

impl World {
    async fn send_some(&self, class: Class, count: usize) -> Vec<String> {
        let tokens = self.tokens(count, TokenState::Valid);
        self.send(message::message(class), tokens).await
    }

    fn made(&self, path: &str) -> usize {
        let requests = self.handle.requests(self.vendor);
        requests.iter().filter(|r| r.path.starts_with(path)).count()
    }
}

#[tokio::test]
async fn vivo() {
    let world = World::start(Vendor::Vivo).await;
    takes_everything(&world).await;
    let expired = TokenState::Expired { since_ms: 1 };
    tells_tokens_apart(
        &world,
        &[
            (DEAD, "token_dead token_invalid"),
            (expired, "token_dead token_invalid"),
            (TokenState::OtherApp, "token_dead token_invalid"),
        ],
    )
    .await;
    survives(&world, &[]).await;
    renews_once_under_load(&world).await;
    // A whole batch of another app's ids kills none.
    let foreign = world.tokens(12, TokenState::OtherApp);
    let verdicts = world.send(message::message(Class::Im), foreign).await;
    assert_eq!(verdicts, vec!["refused token_environment"; 12]);
}

#[tokio::test]
async fn vivo_stores_a_text_once_for_all_its_batches() {
    let world = World::start(Vendor::Vivo).await;
    let sent = message::message(Class::Im);
    for _ in 0..3 {
        let tokens = world.tokens(5, TokenState::Valid);
        assert_eq!(world.send(sent.clone(), tokens).await, vec!["accepted"; 5]);
    }
    assert_eq!(world.made(SAVE), 1);
}

#[tokio::test]
async fn vivo_without_lists_goes_one_by_one() {
    let world = World::start(Vendor::Vivo).await;
    let settings = json!({"saves_per_day": 0});
    world.handle.set_rules(Vendor::Vivo, &settings).unwrap();
    assert_eq!(world.send_some(Class::Im, 3).await, ["accepted"; 3]);
    assert_eq!(world.send_some(Class::Im, 3).await, ["accepted"; 3]);
    assert_eq!((world.made(SAVE), world.made("/message/send")), (1, 6));
}

#[tokio::test]
async fn vivo_takes_operation_messages_by_day_only() {
    let world = World::start(Vendor::Vivo).await;
    let settings = json!({"hours": [0, 0]});
    world.handle.set_rules(Vendor::Vivo, &settings).unwrap();
    let tokens = world.tokens(1, TokenState::Valid);
    let batch = message::batch(
        message::outbound(message::message(Class::Marketing)),
        tokens,
    );
    let verdicts = world.channel.send(&batch, PATIENCE).await;
    assert!(matches!(
        verdicts[0],
        hongyan_core::Verdict::QuotaExhausted { until: Some(after), .. } if after <= Duration::from_secs(86_400)
    ));
    assert_eq!(world.send_some(Class::Transaction, 1).await, ["accepted"]);
}

#[tokio::test]
async fn vivo_refuses_texts_that_look_like_tests() {
    let world = World::start(Vendor::Vivo).await;
    let settings = json!({"text_rule": true});
    world.handle.set_rules(Vendor::Vivo, &settings).unwrap();
    let mut sent = message::message(Class::Im);
    sent.notification.as_mut().unwrap().body = "test".to_owned();
    let tokens = world.tokens(1, TokenState::Valid);
    assert_eq!(world.send(sent, tokens).await, ["refused payload_rejected"]);
    assert_eq!(world.send_one().await, "accepted");
}

#[tokio::test]
async fn vivo_test_messages_reach_test_users_only() {
    let world = World::start_with(Vendor::Vivo, |config| config["test"] = json!(true)).await;
    let tokens = world.tokens(3, TokenState::Valid);
    let settings = json!({"test_users": [tokens[1]]});
    world.handle.set_rules(Vendor::Vivo, &settings).unwrap();
    let verdicts = world.send(message::message(Class::Im), tokens).await;
    let want = [
        "refused payload_rejected",
        "accepted",
        "refused payload_rejected",
    ];
    assert_eq!(verdicts, want);
}

#[tokio::test]
async fn vivo_says_which_tokens_live() {
    let world = World::start(Vendor::Vivo).await;
    let mut tokens = world.tokens(2, TokenState::Valid);
    tokens.extend(world.tokens(1, DEAD));
    tokens.push("short".to_owned());
    let tokens: Vec<Secret> = tokens.into_iter().map(Secret::new).collect();
    let verdicts = world.channel.probe(&tokens, PATIENCE).await.unwrap();
    let verdicts: Vec<String> = verdicts.iter().map(words).collect();
    let dead = "token_dead token_invalid";
    assert_eq!(verdicts, ["accepted", "accepted", dead, dead]);
    assert_eq!(world.made("/message/send"), 0);
}

#[tokio::test]
async fn vivo_reports_to_the_message_and_to_the_console() {
    let posts = Posts::listen().await;
    let world = World::start(Vendor::Vivo).await;
    let egress = message::egress(world.handle.ca_pem());
    let mut config = world.handle.credential(Vendor::Vivo).unwrap();
    let open = |config: &serde_json::Value, callback: Option<&str>| {
        message::open_with_callback(
            &egress,
            "vivo",
            config,
            &world.handle.vendors_url(),
            callback,
        )
    };
    let first = open(&config, Some(&posts.url));
    let shown = first.preview(&message::outbound(message::message(Class::Im)));
    let shown = shown.unwrap().body["extra"]["callback"].to_string();
    assert!(
        shown.contains("/cb?") && !shown.contains("key=k"),
        "{shown}"
    );
    config["callback_id"] = json!("17");
    let second = open(&config, None);
    let settings = json!({"receipt_ids": ["17"]});
    world.handle.set_rules(Vendor::Vivo, &settings).unwrap();
    let console = ReceiptAddress {
        url: posts.url.clone(),
        username: None,
        key: None,
    };
    world.handle.set_receipts(Vendor::Vivo, Some(console));
    let mut heard = 0;
    for (channel, count) in [(&first, 1), (&second, 1), (&second, 3)] {
        let sent = message::message(Class::Im);
        let tokens = world.tokens(count, TokenState::Valid);
        let batch = message::batch(message::outbound(sent.clone()), tokens.clone());
        let verdicts = channel.send(&batch, PATIENCE).await;
        assert!(
            verdicts
                .iter()
                .all(|v| v.reason() == Reason::AcceptedByVendor)
        );
        let told: Vec<_> = posts.wait(heard + count).await.split_off(heard);
        heard += count;
        for post in told {
            let callback = post.read(channel.as_ref(), WallClock.now()).unwrap();
            assert_eq!(callback.content_type, "application/json");
            let [receipt] = callback.receipts.as_slice() else {
                panic!("one receipt is wanted: {callback:?}")
            };
            assert_eq!(
                (receipt.kind, receipt.message),
                (ReceiptKind::Delivered, Some(sent.id))
            );
            let token = receipt.token.as_ref().and_then(Secret::expose_str).unwrap();
            assert!(tokens.iter().any(|t| t == token));
        }
    }
}

#[tokio::test]
async fn vivo_tells_a_wrong_clock() {
    let world = World::start(Vendor::Vivo).await;
    world.handle.advance(Duration::from_secs(1200));
    assert_eq!(world.send_one().await, "credential_bad");
    let report = world.channel.check(PATIENCE).await;
    assert!(!report.ok && report.detail.contains("clock"), "{report:?}");
}
