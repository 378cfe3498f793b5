//! Tenants, keys, scopes; nobody sees another app.

use hongyan_core::{AppId, ChannelId};
use http::Method;
use serde_json::{Value, json};

use crate::world::world;

#[tokio::test]
async fn apps_are_made_changed_listed_and_deleted() {
    let w = world().await;
    let made = w
        .post("/v1/apps", &w.admin, json!({"id": "shop", "name": "Shop"}))
        .await;
    assert_eq!(made.header("location"), "/v1/apps/shop");
    assert_eq!(made.expect(201)["policy"]["timezone"], "UTC");
    w.post("/v1/apps", &w.admin, json!({"id": "shop"}))
        .await
        .problem(409, "already_exists");
    let change = json!({"name": "Shop 2", "policy": {"timezone": "Asia/Shanghai",
        "quiet_hours": {"start": "22:00", "end": "08:00"}, "origins": ["https://shop.example"]}});
    let changed = w
        .call(Method::PATCH, "/v1/apps/shop", &w.admin, change)
        .await
        .expect(200);
    assert_eq!(
        changed["policy"]["quiet_hours"]["classes"],
        json!(["im", "subscription", "marketing"])
    );
    let change = json!({"policy": {"quiet_hours": null}});
    let changed = w
        .call(Method::PATCH, "/v1/apps/shop", &w.admin, change)
        .await
        .expect(200);
    assert_eq!(changed["policy"]["quiet_hours"], Value::Null);
    assert_eq!(
        changed["policy"]["timezone"], "Asia/Shanghai",
        "what is left out stays"
    );
    assert_eq!(
        w.get("/v1/apps/shop", &w.admin).await.expect(200)["name"],
        "Shop 2"
    );
    let page = w.get("/v1/apps?limit=1", &w.admin).await.expect(200);
    assert_eq!(
        (page["items"][0]["id"].as_str(), page["next"].as_str()),
        (Some("demo"), Some("demo"))
    );
    let page = w
        .get("/v1/apps?limit=1&after=demo", &w.admin)
        .await
        .expect(200);
    assert_eq!(page["items"][0]["id"], "shop");
    let key = w.make_key("shop", json!({})).await;
    w.get("/v1/devices", &key).await.expect(200);
    let (there, other) = ("d1".parse().unwrap(), "d2".parse().unwrap());
    w.presence.connect(&"shop".parse().unwrap(), &there);
    w.presence.connect(&w.app(), &other);
    w.call(Method::DELETE, "/v1/apps/shop", &w.admin, Value::Null)
        .await
        .expect(204);
    assert_eq!(w.presence.closed(), [there], "its sessions end with it");
    w.get("/v1/apps/shop", &w.admin)
        .await
        .problem(404, "not_found");
    w.get("/v1/devices", &key)
        .await
        .problem(401, "unauthorized");
}

#[tokio::test]
async fn policies_are_checked() {
    let w = world().await;
    for (policy, path) in [
        (json!({"timezone": "Mars/Base"}), "policy.timezone"),
        (
            json!({"quiet_hours": {"start": "25:00", "end": "08:00"}}),
            "policy.quiet_hours",
        ),
        (
            json!({"origins": ["https://a.example", "https://b.example/path"]}),
            "policy.origins[1]",
        ),
        (
            json!({"channel_order": ["fcm", "carrierpigeon"]}),
            "policy.channel_order[1]",
        ),
    ] {
        let body = json!({"policy": policy});
        w.call(Method::PATCH, "/v1/apps/demo", &w.admin, body)
            .await
            .fault(422, "invalid", path);
        let body = json!({"id": "other", "policy": policy});
        w.post("/v1/apps", &w.admin, body)
            .await
            .fault(422, "invalid", path);
    }
}

#[tokio::test]
async fn a_key_is_shown_once_and_stops_at_once() {
    let w = world().await;
    let body = json!({"name": "ci", "scopes": ["send"]});
    let made = w
        .post("/v1/apps/demo/keys", &w.admin, body)
        .await
        .expect(201);
    let (secret, id) = (
        made["secret"].as_str().unwrap(),
        made["id"].as_str().unwrap(),
    );
    assert!(secret.starts_with("hy_sk_") && made["scopes"] == json!(["send"]));
    let listed = w.get("/v1/apps/demo/keys", &w.admin).await;
    assert!(!String::from_utf8_lossy(&listed.body).contains(secret));
    assert_eq!(listed.expect(200)["items"].as_array().unwrap().len(), 3);
    w.post(
        "/v1/messages",
        secret,
        json!({"to": {"user": "u"}, "data": {}}),
    )
    .await
    .expect(202);
    let path = format!("/v1/apps/demo/keys/{id}");
    w.call(Method::DELETE, &path, &w.admin, Value::Null)
        .await
        .expect(204);
    w.post(
        "/v1/messages",
        secret,
        json!({"to": {"user": "u"}, "data": {}}),
    )
    .await
    .problem(401, "unauthorized");
    w.call(Method::DELETE, &path, &w.admin, Value::Null)
        .await
        .problem(404, "not_found");
}

#[tokio::test]
async fn keys_that_cannot_be_are_refused() {
    let w = world().await;
    for (body, path) in [
        (json!({"kind": "admin"}), "kind"),
        (json!({"kind": "client", "scopes": ["send"]}), "scopes"),
        (json!({"scopes": []}), "scopes"),
    ] {
        w.post("/v1/apps/demo/keys", &w.admin, body)
            .await
            .fault(422, "invalid", path);
    }
    w.post("/v1/apps/nobody/keys", &w.admin, json!({}))
        .await
        .problem(404, "not_found");
}

#[tokio::test]
async fn every_key_may_do_its_own_and_nothing_else() {
    let w = world().await;
    let device = w.register("d1").await;
    w.register("d2").await;
    let scoped = |scope: &str| w.make_key("demo", json!({"scopes": [scope]}));
    let (send, read, manage) = (
        scoped("send").await,
        scoped("read").await,
        scoped("manage").await,
    );
    let message = json!({"to": {"user": "u"}, "data": {}});
    let rows: [(&str, Method, &str, Value, u16); 22] = [
        (&send, Method::POST, "/v1/messages", message.clone(), 202),
        (&read, Method::POST, "/v1/messages", message.clone(), 403),
        (&manage, Method::POST, "/v1/messages", message.clone(), 403),
        (
            &w.client,
            Method::POST,
            "/v1/messages",
            message.clone(),
            403,
        ),
        (&device, Method::POST, "/v1/messages", message.clone(), 403),
        (&send, Method::GET, "/v1/devices/d1", Value::Null, 403),
        (&read, Method::GET, "/v1/devices/d1", Value::Null, 200),
        (&device, Method::GET, "/v1/devices/d1", Value::Null, 200),
        (&device, Method::GET, "/v1/devices/d2", Value::Null, 403),
        (&device, Method::GET, "/v1/devices", Value::Null, 403),
        (&read, Method::PATCH, "/v1/devices/d1", json!({}), 403),
        (&manage, Method::PATCH, "/v1/devices/d1", json!({}), 200),
        (
            &device,
            Method::POST,
            "/v1/devices/d1/kick",
            Value::Null,
            403,
        ),
        (&w.client, Method::GET, "/v1/devices/d1", Value::Null, 403),
        (&w.server, Method::GET, "/v1/apps", Value::Null, 403),
        (&manage, Method::GET, "/v1/apps/demo/keys", Value::Null, 403),
        (&w.server, Method::POST, "/v1/acks", json!({"ids": []}), 403),
        (&w.admin, Method::POST, "/v1/acks", json!({"ids": []}), 403),
        (&device, Method::POST, "/v1/acks", json!({"ids": []}), 204),
        (&w.admin, Method::GET, "/v1/devices", Value::Null, 400),
        ("", Method::GET, "/v1/devices", Value::Null, 401),
        (
            "hy_sk_0000000000000000000000000000000000000000000",
            Method::GET,
            "/v1/devices",
            Value::Null,
            401,
        ),
    ];
    for (n, (key, method, path, body, status)) in rows.into_iter().enumerate() {
        let answer = w.call(method, path, key, body).await;
        assert_eq!(answer.status, status, "row {n}: {path}");
    }
}

#[tokio::test]
async fn another_apps_key_sees_nothing() {
    let w = world().await;
    w.register("d1").await;
    let message = w.send("u1").await;
    w.make_app("other").await;
    let other = w.make_key("other", json!({})).await;
    for path in [
        "/v1/devices/d1".to_owned(),
        format!("/v1/messages/{message}"),
        format!("/v1/messages/{message}/trace"),
        format!("/v1/reports/funnel?message={message}"),
        "/v1/users/u1".to_owned(),
    ] {
        w.get(&path, &other).await.problem(404, "not_found");
    }
    let recall = format!("/v1/messages/{message}/recall");
    w.post(&recall, &other, Value::Null)
        .await
        .problem(404, "not_found");
    w.call(Method::DELETE, "/v1/devices/d1", &other, Value::Null)
        .await
        .problem(404, "not_found");
    assert_eq!(
        w.get("/v1/devices", &other).await.expect(200)["items"],
        json!([])
    );
    w.get("/v1/devices/d1", &w.server).await.expect(200);
}

#[tokio::test]
async fn an_admin_names_the_app() {
    let w = world().await;
    w.register("d1").await;
    for (app, status) in [("demo", 200), ("nobody", 404), ("NOT AN ID", 400)] {
        let header = [("hongyan-app", app)];
        let answer = crate::http_client::call(
            w.address,
            Method::GET,
            "/v1/devices/d1",
            &w.admin,
            &header,
            "",
        );
        assert_eq!(answer.await.status, status, "{app}");
    }
}

#[tokio::test]
async fn too_many_requests_with_a_key_have_to_wait() {
    let rate = hongyan_api::Rate { per_s: 2, burst: 3 };
    let options = hongyan_api::Options {
        key_rate: rate,
        ..Default::default()
    };
    let w = crate::world::world_with(options, None).await;
    let mut limited = None;
    for _ in 0..4 {
        let answer = w.get("/v1/devices", &w.server).await;
        if answer.status == 429 {
            limited = Some(answer);
        }
    }
    let limited = limited.expect("the fourth call at once is too many");
    assert_eq!(limited.header("retry-after"), "1");
    limited.problem(429, "rate_limited");
    w.clock.advance(std::time::Duration::from_secs(1));
    w.get("/v1/devices", &w.server).await.expect(200);
}

#[tokio::test]
async fn guessing_keys_is_slowed_down() {
    let rate = hongyan_api::Rate { per_s: 1, burst: 5 };
    let options = hongyan_api::Options {
        stranger_rate: rate,
        ..Default::default()
    };
    let w = crate::world::world_with(options, None).await;
    for n in 0..5 {
        let guess = format!("hy_sk_{n:043}");
        w.get("/v1/devices", &guess)
            .await
            .problem(401, "unauthorized");
    }
    w.get("/v1/devices", "hy_sk_x")
        .await
        .problem(429, "rate_limited");
    w.get("/v1/devices", &w.server).await.expect(200);
}

#[tokio::test]
async fn a_change_is_judged_by_what_it_changes() {
    let w = world().await;
    let registry = w.engine.registry();
    let id = AppId::parse("demo").unwrap();
    let mut app = registry.app(&id).await.unwrap().unwrap();
    // As another version of the server stored it.
    app.policy.channel_order = vec![ChannelId::parse("pigeon").unwrap()];
    let read = app.version;
    app.version += 1;
    registry.put_app(app, Some(read)).await.unwrap();
    let patch = async |body: Value| w.call(Method::PATCH, "/v1/apps/demo", &w.admin, body).await;
    let changed = patch(json!({"name": "new", "policy": {"fcm_first": true}}));
    let changed = changed.await.expect(200);
    assert_eq!(changed["policy"]["channel_order"], json!(["pigeon"]));
    patch(json!({"policy": {"channel_order": ["pigeon", "fcm"]}}))
        .await
        .fault(422, "invalid", "policy.channel_order[0]");
    patch(json!({"policy": {"quiet_hours": {"start": "22:00", "end": "24:00"}}}))
        .await
        .expect(200);
    patch(json!({"policy": {"quiet_hours": {"start": "24:00", "end": "08:00"}}}))
        .await
        .fault(422, "invalid", "policy.quiet_hours");
    let twice = json!({"scopes": ["send", "read", "send"]});
    w.post("/v1/apps/demo/keys", &w.admin, twice)
        .await
        .fault(422, "invalid", "scopes[2]");
}
