//! TPNS against its simulator.

use super::*;

#[tokio::test]
async fn tpns() {
    let world = World::start(Vendor::Tpns).await;
    takes_everything(&world).await;
    tells_tokens_apart(&world, &[(DEAD, "token_dead token_invalid")]).await;
    survives(
        &world,
        &[
            (FaultKind::QuotaExhausted, "credential_bad"),
            (FaultKind::AuthExpired, "credential_bad"),
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
