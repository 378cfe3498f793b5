//! Vendor credentials: secrets go in and never out.

use http::Method;
use serde_json::{Value, json};

use crate::world::world;

#[tokio::test]
async fn credentials_are_stored_shown_checked_and_deleted() {
    let w = world().await;
    let path = "/v1/channels/apns/credentials/default";
    w.get(path, &w.server).await.problem(404, "not_found");
    let body = json!({"config": {"key": "TOP SECRET", "team": "T1"}, "endpoint": "https://127.0.0.1:7501",
                      "limits": {"concurrency": 3}});
    let put = w.call(Method::PUT, path, &w.server, body).await;
    let read = w.get(path, &w.server).await;
    let list = w.get("/v1/channels/apns/credentials", &w.server).await;
    for answer in [&put, &read, &list] {
        assert!(!String::from_utf8_lossy(&answer.body).contains("SECRET"));
    }
    let shown = read.expect(200);
    assert_eq!(shown, put.expect(200));
    assert_eq!(shown["config"], json!({"team": "T1"}));
    assert_eq!(shown["limits"]["concurrency"], 3);
    assert_eq!(list.expect(200)["items"], json!([shown]));
    assert_eq!(
        w.get("/v1/credentials", &w.server).await.expect(200)["items"],
        json!([shown])
    );
    let other = w.get("/v1/channels/fcm/credentials", &w.server).await;
    assert_eq!(other.expect(200)["items"], json!([]));
    let checked = w
        .post(&format!("{path}/check"), &w.server, Value::Null)
        .await
        .expect(200);
    assert_eq!(
        checked,
        json!({"ok": false, "detail": "the vendor does not know the key"})
    );
    w.call(Method::DELETE, path, &w.server, Value::Null)
        .await
        .expect(204);
    w.call(Method::DELETE, path, &w.server, Value::Null)
        .await
        .problem(404, "not_found");
    w.post(&format!("{path}/check"), &w.server, Value::Null)
        .await
        .problem(404, "not_found");
}

#[tokio::test]
async fn faults_of_a_credential_are_named() {
    let w = world().await;
    let path = "/v1/channels/apns/credentials/default";
    let put = async |body: Value| w.call(Method::PUT, path, &w.server, body).await;
    put(json!({"config": {}}))
        .await
        .fault(422, "invalid", "config.key");
    for endpoint in [
        "ftp://x",
        "http://127.0.0.1:7501",
        "https://",
        "https://a/b",
        "https://u@h",
        "x",
    ] {
        let body = json!({"config": {"key": "k"}, "endpoint": endpoint});
        put(body).await.fault(422, "invalid", "endpoint");
    }
    put(json!({"config": {"key": "k"}, "limits": {"attempts": 0}}))
        .await
        .fault(422, "invalid", "limits.attempts");
    put(json!({"config": {"key": "k"}, "limits": {"speed": 1}}))
        .await
        .fault(400, "invalid_request", "limits.speed");
    let body = json!({"config": {"key": "k"}});
    w.call(
        Method::PUT,
        "/v1/channels/pigeon/credentials/default",
        &w.server,
        body,
    )
    .await
    .problem(404, "not_found");
}
