//! Aliyun Mobile Push against its simulator.

use hongyan_core::Secret;

use super::*;

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
