//! Registration, state, vendor tokens, login.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hongyan_api::key;
use hongyan_core::Reason;
use hongyan_core::port::Clock;
use http::Method;
use serde_json::{Value, json};

use crate::http_client::call;
use crate::world::{World, world};

#[tokio::test]
async fn a_device_registers_and_is_read() {
    let w = world().await;
    let body = json!({
        "device_id": "d1", "platform": "android", "brand": "XiaoMi", "locale": "zh-CN",
        "timezone": "Asia/Shanghai", "app_version": "1.2", "permission": "denied", "tags": ["a", "b"],
        "tokens": [{"channel": "xiaomi", "token": "0123456789abcdef0123456789abcdef"}],
    });
    let made = w.post("/v1/devices", &w.client, body).await.expect(200);
    let token = made["device_token"].as_str().unwrap();
    assert!(token.starts_with("hy_dt_"));
    let device = w.get("/v1/devices/d1", token).await.expect(200);
    assert_eq!(device["brand"], "xiaomi");
    assert_eq!(device["permission"], "denied");
    assert_eq!(
        device["tokens"][0]["token_tail"], "abcdef",
        "a vendor token is not shown whole"
    );
    assert_eq!(device["tokens"][0]["state"], "active");
    assert_eq!(
        (&device["online"], &device["user"]),
        (&json!(false), &Value::Null)
    );
    w.presence.connect(&w.app(), &"d1".parse().unwrap());
    assert_eq!(
        w.get("/v1/devices/d1", &w.server).await.expect(200)["online"],
        true
    );
}

#[tokio::test]
async fn a_device_without_id_gets_one() {
    let w = world().await;
    let made = w
        .post("/v1/devices", &w.client, json!({"platform": "web"}))
        .await
        .expect(200);
    let id = uuid::Uuid::parse_str(made["device_id"].as_str().unwrap()).unwrap();
    assert_eq!(id.get_version_num(), 4);
}

#[tokio::test]
async fn registering_again_with_the_device_token_keeps_token_and_user() {
    let w = world().await;
    let token = w.register("d1").await;
    w.post("/v1/devices/d1/login", &token, json!({"user": "u1"}))
        .await
        .expect(204);
    let again = json!({"device_id": "d1", "platform": "ios", "model": "X"});
    for key in [&token, &w.client] {
        let mut body = again.clone();
        if *key == w.client {
            body["device_token"] = json!(token);
        }
        let made = w.post("/v1/devices", key, body).await.expect(200);
        assert_eq!(made["device_token"], json!(token));
        let device = w.get("/v1/devices/d1", &token).await.expect(200);
        assert_eq!(
            (&device["user"], &device["model"]),
            (&json!("u1"), &json!("X"))
        );
    }
}

#[tokio::test]
async fn a_stranger_with_the_client_key_does_not_become_the_device() {
    let w = world().await;
    let token = w.register("d1").await;
    w.post("/v1/devices/d1/login", &token, json!({"user": "u1"}))
        .await
        .expect(204);
    let wrong = json!({"device_id": "d1", "platform": "ios", "device_token": w.client});
    w.post("/v1/devices", &w.client, wrong)
        .await
        .fault(403, "forbidden", "device_token");
    assert_eq!(
        w.get("/v1/devices/d1", &token).await.expect(200)["user"],
        "u1"
    );
    let taken = w.register("d1").await;
    assert_ne!(taken, token);
    let device = w.get("/v1/devices/d1", &taken).await.expect(200);
    assert_eq!(
        device["user"],
        Value::Null,
        "bound to nobody until it logs in"
    );
    w.get("/v1/devices/d1", &token)
        .await
        .problem(401, "unauthorized");
    assert_eq!(
        w.presence.closed(),
        ["d1".parse().unwrap()],
        "the old token's connection ends"
    );
    let other = w.register("d2").await;
    let body = json!({"device_id": "d1", "platform": "ios"});
    w.post("/v1/devices", &other, body)
        .await
        .problem(403, "forbidden");
}

#[tokio::test]
async fn a_device_changes_and_is_forgotten() {
    let w = world().await;
    let token = w.register("d1").await;
    let change = json!({"locale": "de", "tags": ["a", "b"], "permission": "denied"});
    w.call(Method::PATCH, "/v1/devices/d1", &token, change)
        .await
        .expect(200);
    let change =
        json!({"locale": null, "add_tags": ["c"], "remove_tags": ["a"], "permission": null});
    let device = w
        .call(Method::PATCH, "/v1/devices/d1", &w.server, change)
        .await
        .expect(200);
    assert_eq!(device["locale"], Value::Null);
    assert_eq!(device["tags"], json!(["b", "c"]));
    assert_eq!(device["permission"], "granted");
    for (change, path) in [
        (json!({"timezone": "Nowhere"}), "timezone"),
        (json!({"tags": [""]}), "tags"),
        (json!({"model": "x".repeat(257)}), "model"),
    ] {
        let answer = w
            .call(Method::PATCH, "/v1/devices/d1", &token, change)
            .await;
        answer.fault(422, "invalid", path);
    }
    w.call(Method::DELETE, "/v1/devices/d1", &token, Value::Null)
        .await
        .expect(204);
    w.get("/v1/devices/d1", &token)
        .await
        .problem(401, "unauthorized");
    w.get("/v1/devices/d1", &w.server)
        .await
        .problem(404, "not_found");
    w.call(Method::DELETE, "/v1/devices/d1", &w.server, Value::Null)
        .await
        .problem(404, "not_found");
}

#[tokio::test]
async fn a_wake_up_key_is_its_devices_alone_and_ends_with_its_token() {
    let w = world().await;
    let (one, two) = (w.register("d1").await, w.register("d2").await);
    let ask = async |key: &str| w.post("/v1/devices/d1/wake-key", key, Value::Null).await;
    ask(&one).await.problem(404, "not_found");
    let token = json!({"token": "+8613800138000"});
    w.call(Method::PUT, "/v1/devices/d1/tokens/sms", &one, token)
        .await
        .expect(204);
    for stranger in [&two, &w.client, &w.server, &w.admin] {
        ask(stranger).await.problem(403, "forbidden");
    }
    let key = ask(&one).await.expect(200);
    assert_eq!(
        (&key["app"], &key["valid_s"]),
        (&json!("00c0ffee"), &json!(3_600))
    );
    assert_eq!(key, ask(&one).await.expect(200));
    // Whoever registers the device anew has another key.
    let again = w.register("d1").await;
    ask(&one).await.problem(401, "unauthorized");
    let renewed = ask(&again).await.expect(200);
    assert_ne!(renewed["key"], key["key"]);
}

#[tokio::test]
async fn a_vendor_token_belongs_to_one_device() {
    let w = world().await;
    let (one, two) = (w.register("d1").await, w.register("d2").await);
    let token = json!({"token": "t".repeat(64), "environment": "sandbox", "credential": "main"});
    let path = |d: &str| format!("/v1/devices/{d}/tokens/apns");
    w.call(Method::PUT, &path("d1"), &one, token.clone())
        .await
        .expect(204);
    let shown = w.get("/v1/devices/d1", &one).await.expect(200)["tokens"][0].clone();
    assert_eq!(
        (&shown["environment"], &shown["credential"]),
        (&json!("sandbox"), &json!("main"))
    );
    w.call(Method::PUT, &path("d2"), &two, token)
        .await
        .expect(204);
    let moved = w.get("/v1/devices/d1", &one).await.expect(200)["tokens"][0].clone();
    assert_eq!(
        (&moved["state"], &moved["reason"]),
        (&json!("dead"), &json!("token_invalid"))
    );
    w.call(Method::DELETE, &path("d2"), &two, Value::Null)
        .await
        .expect(204);
    assert_eq!(
        w.get("/v1/devices/d2", &two).await.expect(200)["tokens"],
        json!([])
    );
    let empty = json!({"token": ""});
    w.call(Method::PUT, &path("d2"), &two, empty)
        .await
        .fault(422, "invalid", "tokens[0].token");
}

/// The vendor calls a device's APNs token dead.
async fn kill(w: &World, device: &str, token: &str, reason: Reason) {
    let (app, device, channel) = (w.app(), device.parse().unwrap(), "apns".parse().unwrap());
    let (registry, now) = (w.engine.registry(), w.clock.now());
    let killed = registry.kill_token(&app, &device, &channel, token, reason, now);
    assert!(killed.await.unwrap());
}

#[tokio::test]
async fn a_dead_token_that_is_given_again_rests_first() {
    let w = world().await;
    let token = w.register("d1").await;
    let body = json!({"token": "t".repeat(64)});
    let path = "/v1/devices/d1/tokens/apns";
    let give = async || {
        w.call(Method::PUT, path, &token, body.clone())
            .await
            .expect(204);
    };
    let register = async || {
        let tokens = json!([{"channel": "apns", "token": "t".repeat(64)}]);
        let state = json!({"device_id": "d1", "platform": "ios", "tokens": tokens});
        w.post("/v1/devices", &token, state).await.expect(200);
    };
    let state =
        async || w.get("/v1/devices/d1", &token).await.expect(200)["tokens"][0]["state"].clone();
    let kill = async || kill(&w, "d1", &"t".repeat(64), Reason::TokenInvalid).await;
    give().await;
    kill().await;
    w.clock.advance(Duration::from_secs(3_599));
    give().await;
    assert_eq!(state().await, "dead");
    register().await;
    assert_eq!(state().await, "dead");
    w.clock.advance(Duration::from_secs(1));
    give().await;
    assert_eq!(state().await, "active");

    kill().await;
    w.clock.advance(Duration::from_secs(3_600));
    register().await;
    assert_eq!(
        state().await,
        "active",
        "a registration gives tokens as well"
    );
    kill().await;
    w.call(Method::PUT, path, &token, json!({"token": "n".repeat(64)}))
        .await
        .expect(204);
    assert_eq!(state().await, "active", "another token was never dead");
}

#[tokio::test]
async fn a_dead_token_lives_again_once_its_credential_was_mended() {
    let w = world().await;
    let (one, two) = (w.register("d1").await, w.register("d2").await);
    let give = async |device: &str, token: &str, credential: &str| {
        let body = json!({"token": device.repeat(32), "credential": credential});
        w.call(
            Method::PUT,
            &format!("/v1/devices/{device}/tokens/apns"),
            token,
            body,
        )
        .await
        .expect(204);
        w.get(&format!("/v1/devices/{device}"), token)
            .await
            .expect(200)["tokens"][0]["state"]
            .clone()
    };
    for (device, token, credential) in [("d1", &one, "first"), ("d2", &two, "second")] {
        assert_eq!(give(device, token, credential).await, "active");
        kill(&w, device, &device.repeat(32), Reason::TokenEnvironment).await;
    }
    w.clock.advance(Duration::from_secs(60));
    let body = json!({"config": {"key": "k"}});
    let path = "/v1/channels/apns/credentials/first";
    w.call(Method::PUT, path, &w.server, body).await.expect(200);
    assert_eq!(give("d1", &one, "first").await, "active");
    assert_eq!(
        give("d2", &two, "second").await,
        "dead",
        "it has another credential"
    );
}

#[tokio::test]
async fn devices_change_hands_by_login_logout_and_kick() {
    let w = world().await;
    let token = w.register("d1").await;
    let user = async || w.get("/v1/devices/d1", &w.server).await.expect(200)["user"].clone();
    w.post("/v1/devices/d1/login", &token, json!({"user": "u1"}))
        .await
        .expect(204);
    assert_eq!(user().await, "u1");
    w.post("/v1/devices/d1/login", &w.server, json!({"user": "u2"}))
        .await
        .expect(204);
    assert_eq!(user().await, "u2");
    // The SDK sends an empty object, curl sends nothing.
    w.post("/v1/devices/d1/logout", &token, json!({}))
        .await
        .expect(204);
    assert_eq!(user().await, Value::Null);
    w.post("/v1/devices/d1/login", &w.server, json!({"user": "u3"}))
        .await
        .expect(204);
    w.post("/v1/devices/d1/kick", &w.server, Value::Null)
        .await
        .expect(204);
    assert_eq!(user().await, Value::Null);
    assert_eq!(*w.services.kicked.lock().unwrap(), ["d1".parse().unwrap()]);
    w.post("/v1/devices/nobody/login", &w.server, json!({"user": "u"}))
        .await
        .problem(404, "not_found");
}

/// What the app's server does, made of the documentation alone.
fn user_token(key_id: &str, server_key: &str, device: &str, user: &str, expiry: i64) -> String {
    let hmac = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &key::hash(server_key));
    let mac = ring::hmac::sign(
        &hmac,
        format!("demo\n{device}\n{user}\n{expiry}").as_bytes(),
    );
    format!("{key_id}.{expiry}.{}", URL_SAFE_NO_PAD.encode(mac))
}

async fn server_key(w: &World, scopes: Value) -> (String, String) {
    let made = w
        .post("/v1/apps/demo/keys", &w.admin, json!({"scopes": scopes}))
        .await
        .expect(201);
    let text = |name: &str| made[name].as_str().unwrap().to_owned();
    (text("id"), text("secret"))
}

#[tokio::test]
async fn a_login_needs_the_servers_word_when_the_app_wants_it() {
    let w = world().await;
    let device = w.register("d1").await;
    let policy = json!({"policy": {"require_user_token": true}});
    w.call(Method::PATCH, "/v1/apps/demo", &w.admin, policy)
        .await
        .expect(200);
    let path = "/v1/devices/d1/login";
    let none = json!({"user": "u1"});
    w.post(path, &device, none.clone())
        .await
        .fault(403, "user_token_required", "user_token");
    w.post(path, &w.server, none).await.expect(204);
    let (id, secret) = server_key(&w, json!(["manage"])).await;
    let (weak_id, weak) = server_key(&w, json!(["send"])).await;
    let soon = w.clock.now().seconds() + 60;
    let good = user_token(&id, &secret, "d1", "u1", soon);
    for (bad, why) in [
        (user_token(&id, &secret, "d1", "u2", soon), "another user"),
        (user_token(&id, &secret, "d2", "u1", soon), "another device"),
        (user_token(&id, &secret, "d1", "u1", soon - 61), "expired"),
        (user_token(&id, &weak, "d1", "u1", soon), "another key"),
        (
            user_token(&weak_id, &weak, "d1", "u1", soon),
            "a key that may not log in",
        ),
        (
            user_token("key_none", &secret, "d1", "u1", soon),
            "an unknown key",
        ),
        (
            good.replace(&soon.to_string(), &(soon + 1).to_string()),
            "a longer life",
        ),
        (format!("{good}.x"), "more parts"),
        (String::new(), "nothing"),
    ] {
        let answer = w
            .post(path, &device, json!({"user": "u1", "user_token": bad}))
            .await;
        assert_eq!(answer.status, 403, "{why}");
        answer.fault(403, "user_token_invalid", "user_token");
    }
    w.post(path, &device, json!({"user": "u1", "user_token": good}))
        .await
        .expect(204);
}

#[tokio::test]
async fn pages_of_the_apps_origins_may_call_for_their_device() {
    let w = world().await;
    let policy = json!({"policy": {"origins": ["https://a.example"]}});
    w.call(Method::PATCH, "/v1/apps/demo", &w.admin, policy)
        .await
        .expect(200);
    w.make_app("other").await;
    let policy = json!({"policy": {"origins": ["https://b.example"]}});
    w.call(Method::PATCH, "/v1/apps/other", &w.admin, policy)
        .await
        .expect(200);
    let token = w.register("d1").await;
    let allowed = "access-control-allow-origin";
    for (origin, want) in [
        ("https://a.example", "https://a.example"),
        ("https://b.example", ""),
        ("https://c.example", ""),
    ] {
        let headers = [("origin", origin)];
        let answer = call(
            w.address,
            Method::GET,
            "/v1/devices/d1",
            &token,
            &headers,
            "",
        )
        .await;
        assert_eq!(answer.header(allowed), want, "{origin}");
        let answer = call(
            w.address,
            Method::GET,
            "/v1/devices",
            &w.server,
            &headers,
            "",
        )
        .await;
        assert_eq!(answer.header(allowed), "", "servers are no pages");
    }
    for (origin, want) in [
        ("https://a.example", "https://a.example"),
        ("https://c.example", ""),
    ] {
        let headers = [
            ("origin", origin),
            ("access-control-request-method", "PATCH"),
        ];
        let answer = call(
            w.address,
            Method::OPTIONS,
            "/v1/devices/d1",
            "",
            &headers,
            "",
        )
        .await;
        assert_eq!(
            (answer.status.as_u16(), answer.header(allowed)),
            (204, want)
        );
    }
}

#[tokio::test]
async fn a_device_gets_ready_for_xmpp_by_itself() {
    let options = hongyan_api::Options {
        xmpp_domain: Some("push.example".to_owned()),
        ..hongyan_api::Options::default()
    };
    let w = crate::world::world_with(options, None).await;
    let token = w.register("d1").await;
    let path = "/v1/devices/d1/xmpp";
    w.post(path, &token, json!({})).await.expect(409);
    w.post("/v1/devices/d1/login", &token, json!({"user": "a@b"}))
        .await
        .expect(204);
    let login = w.post(path, &token, json!({})).await.expect(200);
    assert_eq!(login["jid"], "a\\40b@demo.push.example");
    assert_eq!(login["domain"], "demo.push.example");
    assert!(
        login["mechanisms"]
            .to_string()
            .contains("SCRAM-SHA-256-PLUS")
    );
    let ids = ["d1".parse().unwrap()];
    let read = || async { w.engine.registry().devices(&w.app(), &ids).await.unwrap() };
    let keys = read().await[0].clone().unwrap();
    assert!(keys.scram().is_some());
    let shown = w.get("/v1/devices/d1", &token).await.expect(200);
    assert!(!shown.to_string().contains("scram"), "{shown}");
    // Another token of the device's app may not, and neither may a server key.
    let other = w.register("d2").await;
    w.post(path, &other, json!({})).await.expect(403);
    w.call(Method::DELETE, path, &token, Value::Null)
        .await
        .expect(204);
    assert!(read().await[0].clone().unwrap().scram.is_none());
    let off = world().await;
    let token = off.register("d1").await;
    off.post(path, &token, json!({})).await.expect(404);
}

#[tokio::test]
async fn whether_the_app_is_in_front_is_taken_and_not_stored() {
    let w = world().await;
    let device = w.register("d1").await;
    let change = |body: Value| w.call(Method::PATCH, "/v1/devices/d1", &device, body);
    for state in ["background", "foreground"] {
        let said = change(json!({"state": state})).await;
        assert_eq!((said.status.as_u16(), said.body.len()), (204, 0));
    }
    // With anything else it is a change, and its answer the device.
    let changed = change(json!({"state": "background", "locale": "de"})).await;
    assert_eq!(changed.expect(200)["locale"], "de");
    change(json!({"state": "asleep"}))
        .await
        .problem(400, "invalid_request");
    w.call(
        Method::PATCH,
        "/v1/devices/nobody",
        &w.server,
        json!({"state": "background"}),
    )
    .await
    .problem(404, "not_found");
}
