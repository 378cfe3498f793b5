//! Broadcast channels at a vendor.

use hongyan_core::port::BroadcastError;
use hongyan_core::verdict::Unsure;
use hongyan_core::{Reason, Verdict};
use http::Method;
use serde_json::{Value, json};

use crate::world::{World, world};

const PATH: &str = "/v1/channels/apns/credentials/default/broadcasts";

async fn with_credentials() -> World {
    let w = world().await;
    for channel in ["apns", "sms"] {
        let path = format!("/v1/channels/{channel}/credentials/default");
        let body = json!({"config": {"key": "k"}});
        w.call(Method::PUT, &path, &w.server, body)
            .await
            .expect(200);
    }
    w
}

#[tokio::test]
async fn broadcast_channels_are_made_listed_read_and_deleted() {
    let w = with_credentials().await;
    let made = |storage: &str| w.post(PATH, &w.server, json!({ "storage": storage }));
    let empty = json!({"items": []});
    assert_eq!(w.get(PATH, &w.server).await.expect(200), empty);
    let first = made("none").await.expect(201);
    assert_eq!(first, json!({"id": "a/b+c==", "storage": "none"}));
    let second = made("latest").await.expect(201);
    assert_eq!(second, json!({"id": "%2F/==", "storage": "latest"}));
    made("none").await.problem(422, "vendor_refused");
    assert_eq!(
        w.get(PATH, &w.server).await.expect(200)["items"],
        json!([{"id": "a/b+c=="}, {"id": "%2F/=="}])
    );
    // Whatever is in an id, its path names it and nothing else.
    for (escaped, shown) in [("a%2Fb+c==", &first), ("%252F%2F%3D%3D", &second)] {
        let path = format!("{PATH}/{escaped}");
        assert_eq!(&w.get(&path, &w.server).await.expect(200), shown);
        let delete = || w.call(Method::DELETE, &path, &w.server, Value::Null);
        delete().await.expect(204);
        delete().await.problem(404, "not_found");
        w.get(&path, &w.server).await.problem(404, "not_found");
    }
    assert_eq!(w.get(PATH, &w.server).await.expect(200), empty);
}

#[tokio::test]
async fn broadcast_channels_are_refused_with_reasons() {
    let w = with_credentials().await;
    for body in [json!({}), json!({"storage": "all"}), json!({"storage": 1})] {
        w.post(PATH, &w.server, body)
            .await
            .problem(400, "invalid_request");
    }
    let other = "/v1/channels/sms/credentials/default/broadcasts";
    w.get(other, &w.server).await.problem(422, "not_available");
    let missing = "/v1/channels/apns/credentials/other/broadcasts";
    w.get(missing, &w.server).await.problem(404, "not_found");
    let sender = w
        .make_key(
            "demo",
            json!({"kind": "server", "scopes": ["send", "read"]}),
        )
        .await;
    w.get(PATH, &sender).await.problem(403, "forbidden");

    let refuse = |verdict| {
        *w.services.broadcasts.refuse.lock().unwrap() = Some(BroadcastError::Vendor(verdict));
    };
    let detail = || "no".to_owned();
    refuse(Verdict::CredentialBad { detail: detail() });
    w.get(PATH, &w.server)
        .await
        .problem(422, "credential_unusable");
    refuse(Verdict::Refused {
        reason: Reason::PayloadRejected,
        detail: detail(),
    });
    w.get(PATH, &w.server).await.problem(422, "vendor_refused");
    for (certainty, words) in [
        (Unsure::NotTaken, "nothing was done"),
        (Unsure::MaybeTaken, "may have been done"),
    ] {
        refuse(Verdict::Retry {
            reason: Reason::VendorUnavailable,
            after: Some(std::time::Duration::from_secs(7)),
            detail: detail(),
            certainty,
        });
        let answer = w.post(PATH, &w.server, json!({"storage": "none"})).await;
        assert_eq!(answer.headers["retry-after"], "7");
        assert!(String::from_utf8_lossy(&answer.body).contains(words));
        answer.problem(503, "unavailable");
    }
}
