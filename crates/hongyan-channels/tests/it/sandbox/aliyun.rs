//! Aliyun Mobile Push against its simulator.

use hongyan_core::port::{Clock, ReceiptKind};
use hongyan_sandbox::ReceiptAddress;

use super::*;
use crate::message::WallClock;
use crate::posts::Posts;

#[tokio::test]
async fn aliyun() {
    let world = World::start(Vendor::Aliyun).await;
    takes_everything(&world).await;
    survives(
        &world,
        &[
            (FaultKind::Unavailable, "retry vendor_unavailable not_taken"),
            (
                FaultKind::RateLimited,
                "retry vendor_rate_limited not_taken",
            ),
            (
                FaultKind::QuotaExhausted,
                "retry vendor_rate_limited not_taken",
            ),
            (FaultKind::TokenInvalid, "refused payload_rejected"),
            // Signed anew by their clock, and taken.
            (FaultKind::AuthExpired, "accepted"),
            (FaultKind::Reset, "retry vendor_unavailable maybe_taken"),
            (FaultKind::Malformed, "retry vendor_unavailable maybe_taken"),
        ],
    )
    .await;
    let tokens = [
        world.tokens(1, TokenState::Valid),
        world.tokens(1, DEAD),
        vec!["not a device".to_owned()],
    ]
    .concat();
    let secrets: Vec<Secret> = tokens.into_iter().map(Secret::new).collect();
    let probed = world.channel.probe(&secrets, PATIENCE).await.unwrap();
    let probed: Vec<String> = probed.iter().map(words).collect();
    assert_eq!(
        probed,
        [
            "accepted",
            "token_dead token_invalid",
            "token_dead token_invalid"
        ]
    );
}

#[tokio::test]
async fn aliyun_with_wrong_credentials() {
    for field in ["access_key_id", "access_key_secret", "app_key"] {
        let world =
            World::start_with(Vendor::Aliyun, |config| config[field] = "12345".into()).await;
        let report = world.channel.check(PATIENCE).await;
        assert!(!report.ok, "{field} {report:?}");
        assert_eq!(world.send_one().await, "credential_bad", "{field}");
    }
}

#[tokio::test]
async fn aliyun_posts_receipts_of_each_device() {
    let posts = Posts::listen().await;
    let world = World::start_at(Vendor::Aliyun, Some("https://x.example/cb"), |config| {
        config["receipts"] = json!({});
    })
    .await;
    assert_eq!(world.channel.hears(), Some(true));
    let address = ReceiptAddress {
        url: posts.url.clone(),
        username: None,
        key: None,
    };
    world.handle.set_receipts(Vendor::Aliyun, Some(address));
    let tokens = world.tokens(2, TokenState::Valid);
    let sent = message::message(Class::Im);
    assert_eq!(
        world.send(sent.clone(), tokens.clone()).await,
        ["accepted"; 2]
    );
    let receipts = posts.receipts(&*world.channel, WallClock.now(), 2).await;
    let told: Vec<_> = receipts
        .iter()
        .map(|r| (r.kind, r.message, r.token.clone().unwrap()))
        .collect();
    let want = tokens.iter().map(|t| {
        (
            ReceiptKind::Delivered,
            Some(sent.id),
            Secret::new(t.clone()),
        )
    });
    assert_eq!(told, want.collect::<Vec<_>>());
}

#[tokio::test]
async fn aliyun_counts_what_nobody_posts() {
    let world = World::start(Vendor::Aliyun).await;
    counts_tell(&world, Duration::from_secs(60)).await;
}
