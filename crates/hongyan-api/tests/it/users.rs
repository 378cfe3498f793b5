//! Users: attributes, preferences, devices, presence.

use http::Method;
use serde_json::{Value, json};

use crate::transfer::import;
use crate::world::world;

#[tokio::test]
async fn users_are_set_changed_and_forgotten() {
    let w = world().await;
    let path = "/v1/users/%E5%BC%A0%E4%B8%89"; // 张三
    w.get(path, &w.server).await.problem(404, "not_found");
    let state = json!({"attributes": {"city": "Xi'an", "vip": true},
        "preferences": {"muted_classes": ["marketing"], "quiet_hours": {"start": "22:00", "end": "07:00"}}});
    let user = w
        .call(Method::PUT, path, &w.server, state)
        .await
        .expect(200);
    assert_eq!(user["id"], "张三");
    let change = json!({"attributes": {"vip": null, "age": 3}, "preferences": {"quiet_hours": null, "timezone": "Asia/Shanghai"}});
    w.call(Method::PATCH, path, &w.server, change)
        .await
        .expect(200);
    let user = w.get(path, &w.server).await.expect(200);
    assert_eq!(user["attributes"], json!({"city": "Xi'an", "age": 3}));
    assert_eq!(
        w.services.reconsidered.lock().unwrap().len(),
        2,
        "what is held is looked at when preferences are written"
    );
    let change = json!({"attributes": {"age": 3}});
    w.call(Method::PATCH, path, &w.server, change)
        .await
        .expect(200);
    assert_eq!(w.services.reconsidered.lock().unwrap().len(), 2);
    assert_eq!(user["preferences"]["muted_classes"], json!(["marketing"]));
    assert_eq!(user["preferences"]["quiet_hours"], Value::Null);
    assert_eq!(user["preferences"]["timezone"], "Asia/Shanghai");
    let change = json!({"preferences": null});
    let user = w.call(Method::PATCH, path, &w.server, change).await;
    let user = user.expect(200);
    assert_eq!(user["attributes"], json!({"city": "Xi'an", "age": 3}));
    assert_eq!(user["preferences"]["muted_classes"], json!([]));
    assert_eq!(user["preferences"]["timezone"], Value::Null);
    // A device that has moved has other quiet hours, if its user has no zone.
    let token = w.register("d1").await;
    let login = json!({"user": "u7"});
    w.post("/v1/devices/d1/login", &token, login)
        .await
        .expect(204);
    let moved = || w.services.moved.lock().unwrap().len();
    let zone = |zone: &str| json!({"device_id": "d1", "platform": "ios", "timezone": zone});
    for times in 1..=2 {
        let place = json!({"timezone": "Asia/Shanghai"});
        w.call(Method::PATCH, "/v1/devices/d1", &token, place)
            .await
            .expect(200);
        assert_eq!(moved(), times, "a call that comes again may have failed");
    }
    for _ in 0..2 {
        w.post("/v1/devices", &token, zone("Asia/Tokyo"))
            .await
            .expect(200);
        assert_eq!(moved(), 3);
    }
    for _ in 0..2 {
        let line = zone("Europe/Berlin").to_string();
        let import = import(&w, "", line).await.expect(200);
        assert_eq!(import["updated"], 1);
        assert_eq!(moved(), 4);
    }
    let user = w
        .call(Method::PUT, path, &w.server, json!({}))
        .await
        .expect(200);
    assert_eq!(
        (&user["attributes"], &user["preferences"]["timezone"]),
        (&json!({}), &Value::Null)
    );
    w.call(Method::DELETE, path, &w.server, Value::Null)
        .await
        .expect(204);
    w.get(path, &w.server).await.problem(404, "not_found");
}

#[tokio::test]
async fn users_are_checked() {
    let w = world().await;
    for (state, path) in [
        (
            json!({"attributes": {"big": "x".repeat(17_000)}}),
            "attributes",
        ),
        (
            json!({"preferences": {"timezone": "Moon"}}),
            "preferences.timezone",
        ),
        (
            json!({"preferences": {"quiet_hours": {"start": "9:00", "end": "10:00"}}}),
            "preferences.quiet_hours",
        ),
    ] {
        w.call(Method::PUT, "/v1/users/u", &w.server, state)
            .await
            .fault(422, "invalid", path);
    }
    let odd = json!({"preferences": {"muted_classes": ["spam"]}});
    w.call(Method::PUT, "/v1/users/u", &w.server, odd)
        .await
        .fault(400, "invalid_request", "preferences.muted_classes[0]");
}

#[tokio::test]
async fn a_users_devices_and_where_they_are_online() {
    let w = world().await;
    for id in ["d1", "d2"] {
        let token = w.register(id).await;
        w.post(
            &format!("/v1/devices/{id}/login"),
            &token,
            json!({"user": "u1"}),
        )
        .await
        .expect(204);
    }
    w.register("d3").await;
    let presence = w.get("/v1/users/u1/presence", &w.server).await.expect(200);
    assert_eq!(presence["online"], false);
    w.presence.connect(&w.app(), &"d2".parse().unwrap());
    let presence = w.get("/v1/users/u1/presence", &w.server).await.expect(200);
    assert_eq!(presence["online"], true);
    let online: Vec<_> = presence["devices"]
        .as_array()
        .unwrap()
        .iter()
        .map(|d| d["online"].clone())
        .collect();
    assert_eq!(online, [json!(false), json!(true)]);
    assert_eq!(presence["devices"][1]["state"], "foreground");
    let devices = w.get("/v1/users/u1/devices", &w.server).await.expect(200);
    assert_eq!(devices["items"].as_array().unwrap().len(), 2);
    assert_eq!(
        w.get("/v1/users/nobody/devices", &w.server)
            .await
            .expect(200)["items"],
        json!([])
    );
}
