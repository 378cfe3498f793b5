//! What vendors post back to the sender.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::http::HeaderMap;
use axum::routing::post;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hongyan_sandbox::{Channel, NewPhone, PACKAGE, ReceiptAddress, TokenState};
use ring::hmac;
use serde_json::{Value, json};

use crate::stage::{Stage, form, until};

pub(crate) type Post = (HeaderMap, String);

/// A sender's callback address; answers it and what arrives there.
pub(crate) async fn callback() -> (String, Arc<Mutex<Vec<Post>>>) {
    let posts = Arc::new(Mutex::new(Vec::new()));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/cb", listener.local_addr().unwrap());
    let kept = Arc::clone(&posts);
    let take = move |headers: HeaderMap, body: String| async move {
        kept.lock().unwrap().push((headers, body));
    };
    tokio::spawn(axum::serve(listener, Router::new().route("/cb", post(take))).into_future());
    (url, posts)
}

#[tokio::test]
async fn xiaomi_tells_of_delivery_clicks_and_dead_targets() {
    let stage = Stage::open().await;
    let (url, posts) = callback().await;
    let phone = stage
        .handle
        .add_phone(NewPhone::of("android", "xiaomi", "", "u"))
        .await
        .unwrap();
    let alive = stage.handle.phone_tokens(&phone.id).unwrap()[&Channel::Xiaomi].clone();
    let since_ms = 1;
    let dead = stage
        .handle
        .issue_tokens(Channel::Xiaomi, 1, TokenState::Dead { since_ms })
        .unwrap();
    let both = format!("{alive},{}", dead[0]);
    let body = form(&[
        ("registration_id", &both),
        ("restricted_package_name", PACKAGE),
        ("title", "t"),
        ("description", "d"),
        ("extra.channel_id", "100001"),
        ("extra.callback", &url),
        ("extra.callback.param", "p1"),
        ("extra.callback.type", "243"),
    ]);
    let key = format!("key={}", stage.accounts().xiaomi.app_secret);
    let kind = ("content-type", "application/x-www-form-urlencoded");
    let answer = stage
        .call(
            "POST",
            "/v3/message/regid",
            &[("authorization", &key), kind],
            body,
        )
        .await;
    let id = answer.at("/data/id");
    stage.handle.click(&phone.id, 1).await.unwrap();
    until("three receipts", || posts.lock().unwrap().len() == 3).await;
    let mut told: Vec<(i64, String)> = posts
        .lock()
        .unwrap()
        .iter()
        .map(|(_, body)| {
            let data = body.strip_prefix("data=").unwrap();
            let data: Value = serde_json::from_str(&decoded(data)).unwrap();
            assert_eq!(data[&id]["param"], "p1");
            let target = data[&id]["targets"].as_str().unwrap().to_owned();
            (data[&id]["type"].as_i64().unwrap(), target)
        })
        .collect();
    told.sort();
    assert_eq!(
        told,
        [(1, alive.clone()), (2, alive), (16, dead[0].clone())]
    );
}

#[tokio::test]
async fn huawei_signs_its_receipts() {
    let stage = Stage::open().await;
    let (url, posts) = callback().await;
    let (username, key) = (Some("u".to_owned()), Some("secret".to_owned()));
    stage
        .handle
        .set_receipts(Channel::Huawei, Some(ReceiptAddress { url, username, key }));
    let phone = stage
        .handle
        .add_phone(NewPhone::of("android", "huawei", "", "u"))
        .await
        .unwrap();
    let token = stage.handle.phone_tokens(&phone.id).unwrap()[&Channel::Huawei].clone();
    let account = stage.accounts().huawei.clone();
    let body = form(&[
        ("grant_type", "client_credentials"),
        ("client_id", &account.client_id),
        ("client_secret", &account.client_secret),
    ]);
    let access = stage
        .call("POST", "/oauth2/v3/token", &[], body)
        .await
        .at("/access_token");
    let bearer = format!("Bearer {access}");
    let body = json!({"message": {"token": [token], "android": {"bi_tag": "tag",
        "notification": {"title": "t", "body": "b", "click_action": {"type": 3}}}}});
    let path = format!("/v1/{}/messages:send", account.client_id);
    let headers = [("authorization", bearer.as_str())];
    let answer = stage.call("POST", &path, &headers, body.to_string()).await;
    assert_eq!(answer.at("/code"), "80000000");
    until("a receipt", || posts.lock().unwrap().len() == 1).await;
    let (headers, body) = posts.lock().unwrap()[0].clone();
    let body: Value = serde_json::from_str(&body).unwrap();
    let status = &body["statuses"][0];
    assert_eq!(
        (&status["biTag"], &status["status"]),
        (&json!("tag"), &json!(0))
    );
    assert_eq!(status["requestId"], json!(answer.at("/requestId")));
    let signature = headers["x-huawei-callback-id"].to_str().unwrap().to_owned();
    let field = |name: &str| {
        let fields = signature
            .split("; ")
            .find_map(|field| field.strip_prefix(name))
            .unwrap();
        fields.trim_start_matches('=').to_owned()
    };
    let signed = format!("{}{}u", field("timestamp"), field("nonce"));
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"secret");
    let value = STANDARD.decode(field("value")).unwrap();
    assert!(hmac::verify(&key, signed.as_bytes(), &value).is_ok());
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        if *first == b'%' {
            let hex = std::str::from_utf8(&tail[..2]).unwrap();
            bytes.push(u8::from_str_radix(hex, 16).unwrap());
            rest = &tail[2..];
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    String::from_utf8(bytes).unwrap()
}
