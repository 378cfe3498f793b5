//! A telephone number is one token, whoever wrote it how.

use http::Method;
use serde_json::{Value, json};

use crate::http_client::{Answer, call};
use crate::world::{World, world};

async fn country(w: &World, name: &str, code: &str) {
    let path = format!("/v1/channels/sms/credentials/{name}");
    let body = json!({"config": {"key": "s", "country": code}});
    w.call(Method::PUT, &path, &w.server, body)
        .await
        .expect(200);
}

async fn put(w: &World, device: &str, key: &str, token: Value) -> Answer {
    let path = format!("/v1/devices/{device}/tokens/sms");
    w.call(Method::PUT, &path, key, token).await
}

/// The token of a device as it is exported: whole.
async fn number_of(w: &World, device: &str) -> Value {
    let lines = w.get("/v1/devices/export", &w.server).await.body;
    let text = String::from_utf8(lines.to_vec()).unwrap();
    let found = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .find(|line| line["device_id"] == device);
    found.unwrap()["tokens"][0]["token"].clone()
}

#[tokio::test]
async fn a_number_moves_with_its_phone_however_it_is_written() {
    let w = world().await;
    country(&w, "default", "86").await;
    let (one, two) = (w.register("d1").await, w.register("d2").await);
    put(&w, "d1", &one, json!({"token": "138 0013 8000"}))
        .await
        .expect(204);
    assert_eq!(number_of(&w, "d1").await, "+8613800138000");
    put(&w, "d2", &two, json!({"token": "+86 138-0013-8000"}))
        .await
        .expect(204);
    let moved = w.get("/v1/devices/d1", &one).await.expect(200)["tokens"][0].clone();
    assert_eq!(
        (&moved["state"], &moved["reason"]),
        (&json!("dead"), &json!("token_invalid"))
    );
    let body = json!({"device_id": "d3", "platform": "iot",
                      "tokens": [{"channel": "sms", "token": "008613800138000"}]});
    w.post("/v1/devices", &w.client, body).await.expect(200);
    let moved = w.get("/v1/devices/d2", &two).await.expect(200)["tokens"][0].clone();
    assert_eq!(moved["state"], "dead");
    let line =
        r#"{"device_id":"d4","platform":"iot","tokens":[{"channel":"sms","token":"13800138000"}]}"#;
    let done = import(&w, line).await;
    assert_eq!(done["imported"], 1);
    assert_eq!(number_of(&w, "d4").await, "+8613800138000");
    let moved = w.get("/v1/devices/d3", &w.server).await.expect(200)["tokens"][0].clone();
    assert_eq!(moved["state"], "dead");
}

#[tokio::test]
async fn a_national_number_is_of_its_credentials_country() {
    let w = world().await;
    let one = w.register("d1").await;
    let national = json!({"token": "(415) 867-5309", "credential": "us"});
    let answer = put(&w, "d1", &one, national.clone()).await;
    answer.fault(422, "invalid", "token");
    country(&w, "default", "86").await;
    country(&w, "us", "1").await;
    put(&w, "d1", &one, national).await.expect(204);
    assert_eq!(number_of(&w, "d1").await, "+14158675309");
}

#[tokio::test]
async fn what_is_no_number_is_refused_with_its_place() {
    let w = world().await;
    country(&w, "default", "86").await;
    let one = w.register("d1").await;
    for wrong in ["pigeon", "+12", "01088886666"] {
        let answer = put(&w, "d1", &one, json!({ "token": wrong })).await;
        answer.fault(422, "invalid", "token");
        let body = json!({"device_id": "d2", "platform": "iot", "tokens": [
            {"channel": "fcm", "token": wrong}, {"channel": "sms", "token": wrong}]});
        let answer = w.post("/v1/devices", &w.client, body).await;
        answer.fault(422, "invalid", "tokens[1].token");
    }
    let line =
        r#"{"device_id":"d3","platform":"iot","tokens":[{"channel":"sms","token":"pigeon"}]}"#;
    let done = import(&w, line).await;
    assert_eq!(
        (&done["failed"], &done["errors"][0]["path"]),
        (&json!(1), &json!("tokens[0].token"))
    );
}

async fn import(w: &World, lines: &str) -> Value {
    let done = call(
        w.address,
        Method::POST,
        "/v1/devices/import",
        &w.server,
        &[("content-type", "application/x-ndjson")],
        lines.to_owned(),
    );
    done.await.expect(200)
}
