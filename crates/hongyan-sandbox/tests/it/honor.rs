//! Each check of the notes on Honor is a row.

use std::time::Duration;

use hongyan_sandbox::{Channel, ReceiptAddress, TokenState};
use serde_json::{Value, json};

use crate::receipts::callback;
use crate::stage::{Answer, Door, Stage, Wire, form, now_s, until};

fn account(stage: &Stage) -> Value {
    stage.accounts().others["honor"].clone()
}

async fn oauth(stage: &Stage, secret: &str, path: &str) -> Answer {
    let account = account(stage);
    let headers = [("content-type", "application/x-www-form-urlencoded")];
    let body = form(&[
        ("grant_type", "client_credentials"),
        ("client_id", account["client_id"].as_str().unwrap()),
        ("client_secret", secret),
    ]);
    stage.call("POST", path, &headers, body).await
}

/// A sender with an access token and one connection.
struct Sender {
    wire: Wire,
    bearer: String,
    path: String,
    late_ms: i64,
}

impl Sender {
    async fn new(stage: &Stage) -> Self {
        let account = account(stage);
        let secret = account["client_secret"].as_str().unwrap();
        let answer = oauth(stage, secret, "/auth/token").await;
        Self {
            wire: stage.connect(Door::Http1).await,
            bearer: format!("Bearer {}", answer.at("/access_token")),
            path: format!(
                "/api/v1/{}/sendMessage",
                account["app_id"].as_str().unwrap()
            ),
            late_ms: 0,
        }
    }

    async fn send(&mut self, body: &Value) -> Answer {
        let stamp = (now_s() * 1000 - self.late_ms).to_string();
        let headers = [
            ("authorization", self.bearer.as_str()),
            ("timestamp", stamp.as_str()),
            ("content-type", "application/json; charset=UTF-8"),
        ];
        self.wire
            .call("POST", &self.path, &headers, body.to_string())
            .await
            .unwrap()
    }
}

fn tokens(stage: &Stage, count: usize, state: TokenState) -> Vec<String> {
    stage
        .handle
        .issue_tokens(Channel::Honor, count, state)
        .unwrap()
}

fn notification(tokens: &[String], change: Value) -> Value {
    let mut shown =
        json!({"title": "t", "body": "b", "importance": "NORMAL", "clickAction": {"type": 3}});
    shown
        .as_object_mut()
        .unwrap()
        .extend(change.as_object().unwrap().clone());
    json!({"android": {"ttl": "86400s", "biTag": "b1", "notification": shown}, "token": tokens})
}

#[tokio::test]
async fn who_may_send_and_how() {
    let stage = Stage::open().await;
    let own = account(&stage);
    let secret = own["client_secret"].as_str().unwrap();
    let other_path = "/auth/realms/developer/protocol/openid-connect/token";
    let answer = oauth(&stage, secret, other_path).await;
    assert_eq!(
        (answer.status, answer.at("/expires_in")),
        (200, "3600".into())
    );
    // The App Secret in place of the Client Secret is a common mistake.
    let wrong = own["app_secret"].as_str().unwrap();
    let answer = oauth(&stage, wrong, "/auth/token").await;
    assert_eq!(
        (answer.status, answer.at("/error")),
        (401, "unauthorized_client".into())
    );
    let json = [("content-type", "application/json")];
    let answer = stage.call("POST", "/auth/token", &json, "{}").await;
    assert_eq!(answer.status, 400);

    let token = tokens(&stage, 1, TokenState::Valid);
    let body = notification(&token, json!({}));
    let mut sender = Sender::new(&stage).await;
    assert_eq!(sender.send(&body).await.at("/code"), "200");
    for (late_ms, status) in [(-590_000, 200), (590_000, 200), (700_000, 400)] {
        sender.late_ms = late_ms;
        assert_eq!(sender.send(&body).await.status, status, "{late_ms}");
    }
    sender.late_ms = 0;
    let bearer = std::mem::replace(&mut sender.bearer, "Bearer nonsense".to_owned());
    assert_eq!(sender.send(&body).await.status, 401);
    sender.bearer = bearer;
    let path = std::mem::replace(&mut sender.path, "/api/v1/1/sendMessage".to_owned());
    assert_eq!(sender.send(&body).await.status, 404);
    sender.path = path;
    stage.handle.advance(Duration::from_secs(3601));
    sender.late_ms = -3_601_000;
    assert_eq!(sender.send(&body).await.status, 401, "expired");
    let bare = [("authorization", sender.bearer.as_str())];
    let answer = stage
        .call("POST", &sender.path, &bare, body.to_string())
        .await;
    assert_eq!(answer.status, 401);
}

#[tokio::test]
async fn fields_are_held_against_the_documents() {
    let stage = Stage::open().await;
    let token = tokens(&stage, 1, TokenState::Valid);
    let mut sender = Sender::new(&stage).await;
    let long = "x".repeat(4096);
    let name = "n".repeat(41);
    let button = |name: &str| json!({"name": name, "actionType": 0});
    let shown = [
        (json!({}), 200),
        (json!({"unknown": 1}), 200),
        (json!({"title": ""}), 400),
        (json!({"body": ""}), 400),
        (json!({"clickAction": null}), 400),
        (json!({"clickAction": {"type": 4}}), 400),
        (json!({"clickAction": {"type": 1}}), 400),
        (
            json!({"clickAction": {"type": 1, "intent": "intent://x"}}),
            200,
        ),
        (json!({"clickAction": {"type": 2, "url": "http://x"}}), 400),
        (json!({"clickAction": {"type": 2, "url": "https://x"}}), 200),
        (json!({"image": "http://x/a.png"}), 400),
        (
            json!({"style": 1, "bigTitle": "t", "bigBody": "other"}),
            400,
        ),
        (json!({"style": 1, "bigTitle": "t", "bigBody": "b"}), 200),
        (json!({"importance": "HIGH"}), 400),
        (json!({"badge": {"setNum": 100}}), 400),
        (json!({"badge": {"setNum": 99, "badgeClass": "c"}}), 200),
        (json!({"notifyId": -2}), 400),
        (
            json!({"buttons": [button("a"), button("b"), button("c")]}),
            200,
        ),
        (
            json!({"buttons": [button("a"), button("b"), button("c"), button("d")]}),
            400,
        ),
        (json!({"buttons": [button(&name)]}), 400),
        (json!({"body": long}), 413),
    ];
    for (change, status) in shown {
        let answer = sender.send(&notification(&token, change.clone())).await;
        assert_eq!(answer.status, status, "{change}: {}", answer.text);
    }
    let android = |android: Value| json!({"data": "{}", "android": android, "token": token});
    for (ttl, status) in [
        ("1s", 200),
        ("1296000s", 200),
        ("1296001s", 400),
        ("0s", 400),
        ("1.5s", 400),
        ("60", 400),
    ] {
        let answer = sender.send(&android(json!({"ttl": ttl}))).await;
        assert_eq!(answer.status, status, "{ttl}");
    }
    let whole = [
        (json!({"data": "any text", "token": token}), 200),
        (json!({"token": token}), 400),
        (json!({"data": "{}"}), 400),
        (json!({"data": "{}", "token": []}), 400),
        (json!({"data": "{}", "token": [1]}), 400),
        (json!({"data": "{}", "token": vec!["t"; 1001]}), 400),
        (android(json!({"targetUserType": 2})), 400),
        (
            json!({"notification": {"title": "t", "body": "b"}, "token": token}),
            400,
        ),
        (
            json!({"notification": {"title": "t", "body": "b"}, "token": token,
                   "android": {"notification": {"clickAction": {"type": 3}}}}),
            200,
        ),
    ];
    for (body, status) in whole {
        let answer = sender.send(&body).await;
        assert_eq!(answer.status, status, "{body}: {}", answer.text);
    }
    let mut plain = notification(&token, json!({}));
    plain["data"] = "not JSON".into();
    assert_eq!(sender.send(&plain).await.status, 400);
}

#[tokio::test]
async fn bad_tokens_are_named() {
    let stage = Stage::open().await;
    let mut sender = Sender::new(&stage).await;
    let good = tokens(&stage, 1, TokenState::Valid);
    let dead = tokens(&stage, 1, TokenState::Dead { since_ms: 1 });
    let other = tokens(&stage, 1, TokenState::OtherApp);
    let all = [good.clone(), dead.clone(), other.clone()].concat();
    let answer = sender.send(&notification(&all, json!({}))).await.json();
    assert_eq!(answer["data"]["sendResult"], true);
    assert_eq!(answer["data"]["expireTokens"], json!(dead));
    assert_eq!(answer["data"]["failTokens"], json!(other));
    let answer = sender.send(&notification(&dead, json!({}))).await.json();
    assert_eq!(
        (&answer["code"], &answer["data"]["sendResult"]),
        (&json!(200), &json!(false))
    );
}

#[tokio::test]
async fn too_much_marketing_is_taken_and_dropped() {
    let stage = Stage::open().await;
    let (url, posts) = callback().await;
    let (username, key) = (None, None);
    stage
        .handle
        .set_receipts(Channel::Honor, Some(ReceiptAddress { url, username, key }));
    stage.handle.set_device_limits(true);
    let token = tokens(&stage, 1, TokenState::Valid);
    let mut sender = Sender::new(&stage).await;
    let mut wanted = Vec::new();
    let mut total = 0;
    let rounds = [
        // Two a day without a news licence, five with it; without the right every mark is marketing.
        (json!({"service": true}), "LOW", vec![0, 0, 102]),
        (json!({"service": true}), "NORMAL", vec![0, 0]),
        (json!({"service": false}), "NORMAL", vec![102]),
        (json!({"news": true}), "LOW", vec![0, 102]),
    ];
    for (rules, importance, statuses) in rounds {
        stage.handle.set_rules(Channel::Honor, &rules).unwrap();
        for status in statuses {
            let answer = sender
                .send(&notification(&token, json!({"importance": importance})))
                .await;
            assert_eq!(answer.at("/code"), "200");
            wanted.push((answer.at("/data/requestId"), status));
            total += 1;
        }
    }
    until("every receipt", || posts.lock().unwrap().len() == total).await;
    let told: Vec<(String, i64)> = posts
        .lock()
        .unwrap()
        .iter()
        .map(|(_, body)| {
            let body: Value = serde_json::from_str(body).unwrap();
            let status = &body["statuses"][0];
            assert_eq!(
                (&status["biTag"], &status["token"]),
                (&json!("b1"), &json!(token[0]))
            );
            let id = status["requestId"].as_str().unwrap().to_owned();
            (id, status["status"].as_i64().unwrap())
        })
        .collect();
    assert_eq!(told, wanted);
    stage.handle.advance(Duration::from_secs(86_400));
    let wrong = stage
        .handle
        .set_rules(Channel::Honor, &json!({"servce": true}));
    assert!(wrong.unwrap_err().to_string().contains("servce"));
}
