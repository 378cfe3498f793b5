//! Each check of the notes on vivo is a row.

use std::time::Duration;

use hongyan_sandbox::{Channel, Fault, FaultKind, NewPhone, TokenState};
use md5::{Digest as _, Md5};
use serde_json::{Value, json};

use crate::stage::{Answer, Door, Stage, Wire, now_s};

const JSON: (&str, &str) = ("content-type", "application/json;charset=UTF-8");
const AUTH: &str = "/message/auth";
const SEND: &str = "/message/send";
const SAVE: &str = "/message/saveListPayload";
const LIST: &str = "/message/pushToList";

/// A sender with an access token.
struct Sender {
    stage: Stage,
    wire: Wire,
    token: String,
    app_id: Value,
    requests: u32,
}

/// The body of an auth call at a time of this machine.
fn auth_body(stage: &Stage, ahead_s: i64) -> Value {
    let credential = stage.handle.credential(Channel::Vivo).unwrap();
    let timestamp = (now_s() + ahead_s) * 1000;
    let text = |name: &str| credential[name].as_str().unwrap().to_owned();
    let app_id = &credential["app_id"];
    let signed = format!(
        "{app_id}{}{timestamp}{}",
        text("app_key"),
        text("app_secret")
    );
    let sum = Md5::digest(signed.as_bytes());
    let sign: String = sum.iter().map(|b| format!("{b:02x}")).collect();
    json!({"appId": app_id, "appKey": text("app_key"), "timestamp": timestamp, "sign": sign})
}

async fn auth(stage: &Stage, body: &Value) -> Answer {
    stage.call("POST", AUTH, &[JSON], body.to_string()).await
}

impl Sender {
    async fn open() -> Self {
        let stage = Stage::open().await;
        let token = auth(&stage, &auth_body(&stage, 0)).await.at("/authToken");
        let wire = stage.connect(Door::Http1).await;
        let app_id = stage.handle.credential(Channel::Vivo).unwrap()["app_id"].clone();
        Self {
            stage,
            wire,
            token,
            app_id,
            requests: 0,
        }
    }

    async fn post(&mut self, path: &str, body: &Value) -> Answer {
        let headers = [JSON, ("authToken", self.token.as_str())];
        self.wire
            .call("POST", path, &headers, body.to_string())
            .await
            .unwrap()
    }

    /// The base body with changes; `null` takes a field out.
    fn body(&mut self, change: &Value) -> Value {
        self.requests += 1;
        let mut body = json!({
            "appId": self.app_id, "requestId": format!("r{}", self.requests), "notifyType": 4, "title": "标题",
            "content": "内容", "timeToLive": 3600, "skipType": 1, "classification": 1, "category": "IM",
            "clientCustomMap": {"hy_id": "m1"},
        });
        for (name, value) in change.as_object().unwrap() {
            body[name] = value.clone();
            if value.is_null() {
                body.as_object_mut().unwrap().remove(name);
            }
        }
        body
    }

    async fn send(&mut self, target: &str, change: Value) -> Answer {
        let mut body = self.body(&change);
        if change.get("regId").is_none() {
            body["regId"] = target.into();
        }
        self.post(SEND, &body).await
    }

    fn configure(&self, settings: &Value) {
        self.stage
            .handle
            .set_rules(Channel::Vivo, settings)
            .unwrap();
    }

    fn ids(&self, count: usize, state: TokenState) -> Vec<String> {
        self.stage
            .handle
            .issue_tokens(Channel::Vivo, count, state)
            .unwrap()
    }

    fn id(&self) -> String {
        self.ids(1, TokenState::Valid).remove(0)
    }
}

#[tokio::test]
async fn who_gets_an_access_token() {
    let stage = Stage::open().await;
    let good = auth_body(&stage, 0);
    let with = |name: &str, value: Value| {
        let mut body = good.clone();
        body[name] = value;
        body
    };
    let upper = good["sign"].as_str().unwrap().to_uppercase();
    let rows = [
        (good.clone(), "0"),
        (with("appId", json!(1)), "10000"),
        (with("appKey", json!("x")), "10000"),
        (with("sign", json!(upper)), "10000"),
        (with("sign", Value::Null), "10000"),
        (with("timestamp", Value::Null), "10000"),
        (auth_body(&stage, 700), "10000"),
        (auth_body(&stage, -700), "10000"),
    ];
    for (body, code) in rows {
        let answer = auth(&stage, &body).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.at("/result"), code, "{body}");
        assert_eq!(answer.json().get("authToken").is_some(), code == "0");
    }
    // Ten a second; how many seconds these take is the machine's affair.
    for _ in 0..20 {
        let code = auth(&stage, &good).await.at("/result");
        assert!(code == "0" || code == "10072", "{code}");
    }
}

#[tokio::test]
async fn access_tokens_live_a_day_and_several_at_once() {
    let mut sender = Sender::open().await;
    let id = sender.id();
    let first = sender.token.clone();
    let body = auth_body(&sender.stage, 0);
    sender.token = auth(&sender.stage, &body).await.at("/authToken");
    assert_eq!(sender.send(&id, json!({})).await.at("/result"), "0");
    sender.token = first;
    assert_eq!(sender.send(&id, json!({})).await.at("/result"), "0");
    sender.stage.handle.advance(Duration::from_secs(86_400));
    assert_eq!(sender.send(&id, json!({})).await.at("/result"), "10000");
    sender.token = "x".to_owned();
    assert_eq!(sender.send(&id, json!({})).await.at("/result"), "10000");
}

#[tokio::test]
async fn fields_are_held_against_the_documents() {
    let mut sender = Sender::open().await;
    let id = sender.id();
    let text = |n: usize| "题".repeat(n);
    let many: serde_json::Map<String, Value> =
        (0..11).map(|n| (format!("k{n}"), json!("v"))).collect();
    let rows = [
        (json!({}), "0"),
        (json!({"appId": null}), "10094"),
        (json!({"appId": 1}), "10094"),
        (json!({"regId": ""}), "10101"),
        (json!({"regId": "", "alias": "me"}), "10302"),
        (json!({"title": null}), "10101"),
        (json!({"title": text(40)}), "0"),
        (json!({"title": text(41)}), "10102"),
        (json!({"content": null}), "10101"),
        (json!({"content": text(100)}), "0"),
        (json!({"content": text(101)}), "10102"),
        (json!({"notifyType": null}), "10101"),
        (json!({"notifyType": 5}), "10102"),
        (json!({"skipType": null}), "10101"),
        (json!({"skipType": 5}), "10102"),
        (json!({"skipType": 2}), "10101"),
        (json!({"skipType": 4, "skipContent": "intent:x"}), "0"),
        (json!({"skipType": 4, "skipContent": text(1025)}), "10102"),
        (json!({"timeToLive": 59}), "10102"),
        (json!({"timeToLive": 86_401}), "10102"),
        (json!({"timeToLive": null}), "0"),
        (json!({"networkType": 0}), "10102"),
        (json!({"networkType": -1}), "0"),
        (json!({"category": "im"}), "10096"),
        (json!({"category": "NEWS"}), "10097"),
        (json!({"classification": 0}), "10097"),
        (json!({"classification": null}), "0"),
        (json!({"category": null}), "0"),
        (json!({"classification": 0, "category": "NEWS"}), "0"),
        (json!({"clientCustomMap": many}), "10102"),
        (json!({"clientCustomMap": {"a": 1}}), "10102"),
        (json!({"clientCustomMap": {"a": text(1024)}}), "10102"),
        (json!({"extra": {"callback": "ftp://x"}}), "10102"),
        (
            json!({"extra": {"callback": format!("https://x/{}", text(128))}}),
            "10102",
        ),
        (
            json!({"extra": {"callback": "https://x/", "callback.param": text(65)}}),
            "10102",
        ),
        (json!({"requestId": null}), "10101"),
        (json!({"requestId": "x".repeat(65)}), "10102"),
        (json!({"notifyId": 0}), "10102"),
        (json!({"notifyId": 1}), "0"),
        (json!({"pushMode": 2}), "10102"),
        (json!({"profileId": text(65)}), "10102"),
        (json!({"addBadge": 1}), "10102"),
        (json!({"unknown": 1}), "10102"),
        (json!({"title": "123"}), "0"),
    ];
    for (change, code) in rows {
        let answer = sender.send(&id, change.clone()).await;
        assert_eq!(answer.at("/result"), code, "{change}: {}", answer.text);
    }
    sender.configure(&json!({"text_rule": true}));
    assert_eq!(
        sender
            .send(&id, json!({"title": "123"}))
            .await
            .at("/result"),
        "10085"
    );
}

#[tokio::test]
async fn targets_are_told_apart() {
    let mut sender = Sender::open().await;
    let alive = sender.id();
    let dead = sender.ids(1, TokenState::Dead { since_ms: 1 }).remove(0);
    let inactive = sender.ids(1, TokenState::Expired { since_ms: 1 }).remove(0);
    let other = sender.ids(1, TokenState::OtherApp).remove(0);
    let rows = [
        (alive.as_str(), "0", ""),
        (dead.as_str(), "0", "2"),
        (inactive.as_str(), "0", "3"),
        (other.as_str(), "0", "1"),
        ("12345678901234567890123", "10302", "1"),
        ("short", "10302", "1"),
    ];
    for (target, code, status) in rows {
        let answer = sender.send(target, json!({})).await;
        assert_eq!(answer.at("/result"), code, "{target}: {}", answer.text);
        assert_eq!(answer.at("/invalidUser/status"), status, "{target}");
    }
    let ids: Vec<&str> = rows.iter().map(|(id, ..)| *id).collect();
    let check = json!({"userType": 1, "userIds": ids});
    let answer = sender.post("/invalidUser/check", &check).await;
    assert_eq!(answer.json()["invalidUsers"].as_array().unwrap().len(), 5);
    let test = sender.send(&alive, json!({"pushMode": 1})).await;
    assert_eq!(test.at("/invalidUser/status"), "4");
    sender.configure(&json!({"test_users": [alive]}));
    let test = sender.send(&alive, json!({"pushMode": 1})).await;
    assert_eq!(test.at("/invalidUser/status"), "");
}

#[tokio::test]
async fn a_stored_text_goes_to_lists() {
    let mut sender = Sender::open().await;
    let alive = sender.ids(2, TokenState::Valid);
    let dead = sender.ids(1, TokenState::Dead { since_ms: 1 });
    let with_target = sender.body(&json!({"regId": alive[0]}));
    assert_eq!(sender.post(SAVE, &with_target).await.at("/result"), "10102");
    let content = sender.body(&json!({}));
    let task = sender.post(SAVE, &content).await.at("/taskId");
    assert!(!task.is_empty());
    let list = |ids: &[String], task: &str, request: &str| json!({"taskId": task, "requestId": request, "regIds": ids});
    let all = [alive.clone(), dead.clone()].concat();
    let mut rows = vec![
        (list(&all, &task, "l1"), "0"),
        (list(&all[..1], &task, "l2"), "10102"),
        (list(&vec!["x".to_owned(); 1001], &task, "l3"), "10102"),
        (list(&all, "7", "l4"), "10102"),
        (json!({"taskId": task, "requestId": "l5"}), "10101"),
    ];
    for (body, _) in &mut rows {
        body["appId"] = sender.app_id.clone();
    }
    for (body, code) in rows {
        let answer = sender.post(LIST, &body).await;
        assert_eq!(answer.at("/result"), code, "{}", answer.text);
        if code == "0" {
            let want = json!([{"status": 2, "userid": dead[0]}]);
            assert_eq!(answer.json()["invalidUsers"], want);
            assert_eq!(answer.at("/requestId"), "l1");
        }
    }
    sender.configure(&json!({"saves_per_day": 0}));
    let content = sender.body(&json!({}));
    assert_eq!(sender.post(SAVE, &content).await.at("/result"), "10252");
}

#[tokio::test]
async fn each_class_has_its_quota_and_one_broadcast_a_day() {
    let mut sender = Sender::open().await;
    let id = sender.id();
    sender.configure(&json!({"system_per_day": 1, "operation_per_day": 1}));
    let operation = json!({"classification": 0, "category": "MARKETING"});
    for (change, code) in [
        (json!({}), "0"),
        (json!({}), "10073"),
        (operation.clone(), "0"),
        (operation.clone(), "10070"),
    ] {
        let answer = sender.send(&id, change).await;
        assert_eq!(answer.at("/result"), code);
    }
    sender.configure(&json!({"hours": [0, 0]}));
    assert_eq!(sender.send(&id, operation).await.at("/result"), "10071");
    assert_eq!(sender.send(&id, json!({})).await.at("/result"), "0");
    for code in ["0", "10254"] {
        let body = sender.body(&json!({}));
        assert_eq!(sender.post("/message/all", &body).await.at("/result"), code);
    }
    let tags = sender.body(&json!({"tagExpression": {"orTags": ["a"]}}));
    assert_eq!(
        sender.post("/message/tagPush", &tags).await.at("/result"),
        "0"
    );
    let none = sender.body(&json!({}));
    assert_eq!(
        sender.post("/message/tagPush", &none).await.at("/result"),
        "10101"
    );
}

#[tokio::test]
async fn a_request_is_shown_once() {
    let mut sender = Sender::open().await;
    let handle = sender.stage.handle.clone();
    let phone = handle
        .add_phone(NewPhone::of("android", "vivo", "", "u"))
        .await
        .unwrap();
    let id = handle.phone_tokens(&phone.id).unwrap()[&Channel::Vivo].clone();
    for _ in 0..2 {
        let answer = sender.send(&id, json!({"requestId": "same"})).await;
        assert_eq!(answer.at("/result"), "0");
    }
    let tray = handle.tray(&phone.id).unwrap();
    assert_eq!(tray.len(), 1);
    assert_eq!((tray[0].title.as_str(), tray[0].copies), ("标题", 1));
    assert_eq!(tray[0].message.as_deref(), Some("m1"));
    sender.configure(&json!({"refuse_duplicates": true}));
    let answer = sender.send(&id, json!({"requestId": "same"})).await;
    assert_eq!(answer.at("/result"), "10102");
    assert!(
        handle
            .set_rules(Channel::Vivo, &json!({"typo": 1}))
            .is_err()
    );
    assert!(handle.set_rules(Channel::Apns, &json!({})).is_err());
}

#[tokio::test]
async fn trouble_has_vivos_codes() {
    let mut sender = Sender::open().await;
    let id = sender.id();
    for (kind, change, code) in [
        (FaultKind::RateLimited, json!({}), "10072"),
        (FaultKind::QuotaExhausted, json!({}), "10073"),
        (
            FaultKind::QuotaExhausted,
            json!({"classification": 0, "category": "NEWS"}),
            "10070",
        ),
        (FaultKind::TokenInvalid, json!({}), "10302"),
        (FaultKind::AuthExpired, json!({}), "10000"),
    ] {
        let fault = Fault::times(kind, 1);
        sender.stage.handle.inject(Channel::Vivo, fault).unwrap();
        let answer = sender.send(&id, change).await;
        assert_eq!(
            (answer.status, answer.at("/result")),
            (200, code.to_owned())
        );
    }
    let fault = Fault::times(FaultKind::Unavailable, 1);
    sender.stage.handle.inject(Channel::Vivo, fault).unwrap();
    assert_eq!(sender.send(&id, json!({})).await.status, 500);
    let answer = sender.send(&id, json!({})).await;
    assert_eq!(
        answer.at("/result"),
        "10000",
        "the token is worthless for good"
    );
}
