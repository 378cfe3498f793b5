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

#[tokio::test]
async fn a_credential_in_use_is_deleted_by_force_alone() {
    let w = world().await;
    let path = |name: &str| format!("/v1/channels/apns/credentials/{name}");
    let put = async |name: &str| {
        let body = json!({"config": {"key": "k"}});
        w.call(Method::PUT, &path(name), &w.server, body)
            .await
            .expect(200);
    };
    let delete = async |path: String| w.call(Method::DELETE, &path, &w.server, Value::Null).await;
    let refused = async |name: &str, word: &str| {
        let problem = delete(path(name)).await.problem(409, "in_use");
        let detail = problem["detail"].as_str().unwrap();
        assert!(
            detail.contains(word) && detail.contains("force=true"),
            "{detail}"
        );
    };
    // A device that names none needs `default`, or the only one.
    put("default").await;
    let device = w.register("d1").await;
    let token = json!({"token": "t1"});
    w.call(Method::PUT, "/v1/devices/d1/tokens/apns", &device, token)
        .await
        .expect(204);
    refused("default", "1 of the first 1 devices").await;
    // That another one is left does not help: their pushes would go out with a wrong one.
    put("eu").await;
    refused("default", "1 of the first 1 devices").await;
    // Nobody needs the other one, nor one of several without `default`.
    delete(path("eu")).await.expect(204);
    put("eu").await;
    put("us").await;
    delete(format!("{}?force=true", path("default")))
        .await
        .expect(204);
    delete(path("us")).await.expect(204);
    // The only one that is left is the one that it goes on with.
    refused("eu", "1 of the first 1 devices").await;
    // One that names it needs it.
    put("default").await;
    let token = json!({"token": "t1", "credential": "eu"});
    w.call(Method::PUT, "/v1/devices/d1/tokens/apns", &device, token)
        .await
        .expect(204);
    refused("eu", "devices").await;
    w.call(
        Method::DELETE,
        "/v1/devices/d1/tokens/apns",
        &device,
        Value::Null,
    )
    .await
    .expect(204);
    delete(path("eu")).await.expect(204);
    let order = json!({"policy": {"channel_order": ["apns"]}});
    w.call(Method::PATCH, "/v1/apps/demo", &w.admin, order)
        .await
        .expect(200);
    refused("default", "channel_order").await;
    w.services
        .waiting
        .store(3, std::sync::atomic::Ordering::Relaxed);
    refused("default", "3 pushes wait").await;
    delete(format!("{}?force=true", path("default")))
        .await
        .expect(204);
    delete(path("default")).await.problem(404, "not_found");
}

#[tokio::test]
async fn limits_change_without_the_secrets() {
    let w = world().await;
    let path = "/v1/channels/apns/credentials/default";
    let patch = async |body: Value| w.call(Method::PATCH, path, &w.server, body).await;
    patch(json!({})).await.problem(404, "not_found");
    let body = json!({"config": {"key": "TOP SECRET", "team": "T1"},
        "limits": {"concurrency": 3, "quota": {"per_day": 10}}});
    w.call(Method::PUT, path, &w.server, body).await.expect(200);
    let limits = json!({"limits": {"rate_per_s": 7, "quota": {"reserved": 2}}});
    let shown = patch(limits).await.expect(200);
    let want = json!({"rate_per_s": 7, "concurrency": 3, "attempts": null,
        "quota": {"per_day": 10, "reserved": 2, "marketing_per_day": null, "marketing_per_device": null}});
    assert_eq!(
        (&shown["limits"], &shown["config"]),
        (&want, &json!({"team": "T1"}))
    );
    patch(json!({"limits": {"quota": {"per_day": null}}}))
        .await
        .fault(422, "invalid", "limits.quota.reserved");
    patch(json!({"limits": {"concurrency": 0}}))
        .await
        .fault(422, "invalid", "limits.concurrency");
}

#[tokio::test]
async fn secrets_are_not_sent_elsewhere_by_a_change() {
    let w = world().await;
    let path = "/v1/channels/apns/credentials/default";
    let patch = async |body: Value| w.call(Method::PATCH, path, &w.server, body).await;
    let body = json!({"config": {"key": "TOP SECRET", "team": "T1"}, "endpoint": "https://127.0.0.1:7501"});
    let put = w.call(Method::PUT, path, &w.server, body).await.expect(200);
    for (body, field) in [
        (json!({"endpoint": "https://else.example"}), "endpoint"),
        (json!({"endpoint": null}), "endpoint"),
        (
            json!({"config": {"token_url": "https://else.example"}}),
            "config",
        ),
        (json!({"config": {}}), "config"),
        (
            json!({"config": null, "limits": {"rate_per_s": 1}}),
            "config",
        ),
        (json!({"config": 7}), "config"),
    ] {
        let problem = patch(body).await.problem(422, "invalid");
        assert_eq!(problem["errors"][0]["path"], field);
        let words = problem["detail"].as_str().unwrap();
        assert!(words.contains("with PUT"), "{words}");
    }
    assert_eq!(w.get(path, &w.server).await.expect(200), put);
}

#[tokio::test]
async fn null_clears_limits() {
    let w = world().await;
    let path = "/v1/channels/apns/credentials/default";
    let patch = async |body: Value| {
        w.call(Method::PATCH, path, &w.server, body)
            .await
            .expect(200)
    };
    let limits = json!({"rate_per_s": 7, "quota": {"per_day": 10, "reserved": 2}});
    let body = json!({"config": {"key": "k"}, "limits": limits});
    let put = w.call(Method::PUT, path, &w.server, body).await.expect(200);
    assert_eq!(patch(json!({})).await["limits"], put["limits"]);
    let shown = patch(json!({"limits": {"quota": null}})).await;
    assert_eq!(shown["limits"]["quota"]["per_day"], Value::Null);
    assert_eq!(shown["limits"]["quota"]["reserved"], Value::Null);
    assert_eq!(shown["limits"]["rate_per_s"], 7);
    let shown = patch(json!({"limits": null})).await;
    assert_eq!(shown["limits"]["rate_per_s"], Value::Null);
}

#[tokio::test]
async fn limits_do_not_undo_a_rotation() {
    let w = world().await;
    let path = "/v1/channels/apns/credentials/default";
    let body = json!({"config": {"key": "k", "team": "old"}, "limits": {"attempts": 3}});
    w.call(Method::PUT, path, &w.server, body).await.expect(200);
    *w.services.rotated.lock().unwrap() = Some(hongyan_api::services::NewCredential {
        config: json!({"key": "k", "team": "new"}),
        endpoint: None,
        limits: Default::default(),
    });
    let body = json!({"limits": {"rate_per_s": 7}});
    let shown = w.call(Method::PATCH, path, &w.server, body).await;
    let shown = shown.expect(200);
    assert_eq!(shown["config"], json!({"team": "new"}));
    assert_eq!(shown["limits"]["rate_per_s"], 7);
    assert_eq!(
        shown["limits"]["attempts"],
        Value::Null,
        "as it was stored last"
    );
    assert_eq!(w.get(path, &w.server).await.expect(200), shown);
}
