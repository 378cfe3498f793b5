//! TPNS against its simulator.

use hongyan_core::port::{Clock, ReceiptKind};
use hongyan_sandbox::ReceiptAddress;

use super::*;
use crate::message::WallClock;
use crate::posts::Posts;

#[tokio::test]
async fn tpns() {
    let world = World::start(Vendor::Tpns).await;
    takes_everything(&world).await;
    tells_tokens_apart(&world, &[(DEAD, "token_dead token_invalid")]).await;
    survives(
        &world,
        &[
            (FaultKind::Unavailable, "retry vendor_unavailable not_taken"),
            (
                FaultKind::RateLimited,
                "retry vendor_rate_limited not_taken",
            ),
            (FaultKind::QuotaExhausted, "credential_bad"),
            (FaultKind::TokenInvalid, "token_dead token_invalid"),
            (FaultKind::AuthExpired, "credential_bad"),
            (FaultKind::Reset, "retry vendor_unavailable maybe_taken"),
            (FaultKind::Malformed, "retry vendor_unavailable maybe_taken"),
        ],
    )
    .await;
    // A whole batch of dead tokens kills none.
    let verdicts = world
        .send(message::message(Class::Im), world.tokens(12, DEAD))
        .await;
    assert_eq!(verdicts, vec!["refused token_environment"; 12]);
}

#[tokio::test]
async fn tpns_with_the_older_proof_and_with_a_wrong_key() {
    let basic = World::start_with(Vendor::Tpns, |config| config["auth"] = "basic".into()).await;
    assert!(basic.channel.check(PATIENCE).await.ok);
    assert_eq!(basic.send_one().await, "accepted");
    for auth in ["sign", "basic"] {
        let world = World::start_with(Vendor::Tpns, |config| {
            config["auth"] = auth.into();
            config["secret_key"] = "0".repeat(32).into();
        })
        .await;
        let report = world.channel.check(PATIENCE).await;
        assert!(
            !report.ok && report.detail.contains("1008003"),
            "{report:?}"
        );
        assert_eq!(world.send_one().await, "credential_bad");
    }
}

#[tokio::test]
async fn tpns_posts_receipts_in_the_layout_that_the_credential_names() {
    let posts = Posts::listen().await;
    let names = json!({"list": "Events", "push_id": "TaskId", "event": "EventType", "events": {"3": "delivered"}});
    for receipts in [Value::Null, names] {
        let world = World::start_at(Vendor::Tpns, Some("https://x.example/cb"), |config| {
            config["receipts"] = receipts.clone();
        })
        .await;
        let address = ReceiptAddress {
            url: posts.url.clone(),
            username: None,
            key: None,
        };
        world.handle.set_receipts(Vendor::Tpns, Some(address));
        let so_far = posts.wait(0).await.len();
        if !receipts.is_null() {
            let rules = json!({"receipt": {"list": "Events", "push_id": "TaskId", "event": "EventType", "delivered": "3"}});
            world.handle.set_rules(Vendor::Tpns, &rules).unwrap();
        }
        assert_eq!(world.channel.hears(), Some(!receipts.is_null()));
        let token = world.tokens(1, TokenState::Valid);
        let sent = message::message(Class::Im);
        assert_eq!(world.send(sent.clone(), token.clone()).await, ["accepted"]);
        let post = posts.wait(so_far + 1).await.remove(so_far);
        let read = post.read(&*world.channel, WallClock.now()).unwrap();
        assert!(!read.signed);
        let told: Vec<_> = read
            .receipts
            .iter()
            .map(|r| (r.kind, r.message, r.token.clone()))
            .collect();
        let token = Secret::new(token[0].clone());
        assert_eq!(told, [(ReceiptKind::Delivered, Some(sent.id), Some(token))]);
        assert!(read.receipts[0].vendor_id.is_some() && read.receipts[0].at.is_some());
        // The same again is the same news: whoever has it keeps nothing more.
        let again = post.read(&*world.channel, WallClock.now()).unwrap();
        assert_eq!(again.receipts, read.receipts);
    }
}

#[tokio::test]
async fn tpns_counts_what_nobody_posts() {
    let world = World::start(Vendor::Tpns).await;
    counts_tell(&world, Duration::from_secs(60)).await;
}
