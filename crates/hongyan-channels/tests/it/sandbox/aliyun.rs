//! Aliyun Mobile Push against its simulator.

use hongyan_core::Secret;

use super::*;

#[tokio::test]
async fn aliyun() {
    let world = World::start(Vendor::Aliyun).await;
    takes_everything(&world).await;
    // Aliyun takes ids that nobody has; a probe tells.
    tells_tokens_apart(
        &world,
        &[(DEAD, "accepted"), (TokenState::OtherApp, "accepted")],
    )
    .await;
    for (state, want) in [(DEAD, "accepted"), (TokenState::OtherApp, "accepted")] {
        let verdicts = world
            .send(message::message(Class::Im), world.tokens(1, state))
            .await;
        assert_eq!(verdicts, [want], "{state:?}");
    }
    survives(
        &world,
        &[
            (
                FaultKind::QuotaExhausted,
                "retry vendor_rate_limited not_taken",
            ),
            (FaultKind::TokenInvalid, "refused payload_rejected"),
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
